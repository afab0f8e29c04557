"""Colour and light: a part takes the change of tone that the model shows, and keeps its own contrast and grain."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look, resized
from editing.photo.transfer.spread import smooth

_SOFT = 16.0  # of L: what reflects k times as much has ∛k times the L + 16 (CIE 1976), in light and in shade
_GAIN = (0.85, 1.6)  # of contrast: dark hair would lose its strands and its shine, which people see as blur
_TEETH = 0.85
_LIPS = 1.25  # shares of something as thin as a lip fade well before its border
_NEAR = 1 / 16  # of the side
_EVEN = ("hair", "background", "cloth", "skin", "mouth")
_COMPLEXION = ("skin", "nose", "ears", "neck")


def tone(
    photo: FramedPhoto, before: Look, after: Look, parts: Sequence[int], fine: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Gain (n, n) and offset (n, n, 3) of :class:`Fields` for parts whose texture layers changed, and nothing else.

    The change is taken where the model shows the part before and after, smoothed so that its own strands and pores do
    not show, and spread over where the photo has the part. Lightness around the photo's local mean is multiplied
    rather than shifted: dark hair made light gets contrast, light hair made dark loses a little of it.

    Args:
        photo: the framed face.
        before, after: what the model shows.
        parts: that change.
        fine: the change is light that falls, such as folds, and not a colour, which is much the same all over a part.
    """
    size = photo.size
    gain, offset = np.ones((size, size), np.float32), np.zeros((size, size, 3), np.float32)
    light = resized(photo.lab[..., 0], before.image.shape[0])
    names = photo.scheme.names
    for part in parts:
        weight = before.parts[..., part] * after.parts[..., part]
        if weight.max() < 0.3:
            continue
        carriers = _carriers(names, part, parts)
        share = without_others(photo.share(carriers), before.parts[..., carriers].sum(axis=2))
        if names[part] == "mouth":
            share = np.clip(_LIPS * share, 0.0, 1.0) * (1.0 - _TEETH * teeth(photo.lab, share))
            if not fine:  # the model's teeth change in their own way, which is not the lips'
                weight = weight * (1.0 - teeth(before.lab, before.parts[..., part]))
        there = resized(share, weight.shape[0])
        side = weight.shape[0]
        even = 18 if names[part] in _EVEN and not fine else 110  # of the side
        change = smooth(after.lab - before.lab, weight, side / even)
        mean = smooth(light, there, side / 20)
        change[..., 0] = np.clip(change[..., 0], -0.9 * mean, 98.0 - mean)
        factor = np.clip((mean + change[..., 0] + _SOFT) / (mean + _SOFT), *_GAIN)
        add = change.copy()
        add[..., 0] += mean - factor * mean
        gain += share * (resized(factor, size) - 1.0)
        add = resized(add, size)
        # Colour goes with light: blue would show in the shadows of a beard.
        add[..., 1:] *= np.clip(photo.lab[..., :1] / np.maximum(resized(mean, size), 1.0)[..., None], 0.0, 1.25)
        offset += share[..., None] * add
    return gain, offset


def teeth(lab: np.ndarray, mouth: np.ndarray) -> np.ndarray:
    """(n, n) 0 to 1: what is lighter and less red than the lips; lipstick leaves it, as it leaves what shines.

    Args:
        lab: (n, n, 3) CIE L*a*b*.
        mouth: (n, n) share of lips and what is between them.
    """
    red = np.clip(lab[..., 1], 0.0, None) * mouth
    lips = (lab * red[..., None]).sum(axis=(0, 1)) / max(float(red.sum()), 1e-3)
    lighter, paler = lab[..., 0] - lips[0], lips[1] - lab[..., 1]
    return np.clip((lighter - 4.0) / 12.0, 0.0, 1.0) * np.clip((paler - 3.0) / 6.0, 0.0, 1.0)


def _carriers(names: Sequence[str], part: int, changed: Sequence[int]) -> list[int]:
    """Parts of the photo that take the change of a part of the model: skin is one colour all over."""
    if names[part] != "skin":
        return [part]
    return [k for k, name in enumerate(names) if name in _COMPLEXION and (k == part or k not in changed)]


def without_others(share: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(n, n) share of a part without patches that lie elsewhere than the model shows the part: another person's."""
    size = share.shape[0]
    count, labels, stats, _ = cv2.connectedComponentsWithStats((share > 0.1).astype(np.uint8))
    if count <= 2:
        return share
    reach = max(3, round(shown.shape[0] * _NEAR)) | 1
    near = resized(cv2.dilate(shown, np.ones((reach, reach), np.uint8)), size) > 0.3
    inside = np.bincount(labels[near], minlength=count) / np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
    return share * (inside >= 0.25)[labels]
