"""Colour and light: a part takes the change of tone that the model shows, and keeps its own contrast and grain."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look, resized
from editing.photo.transfer.planes import Box, box_of, fitted, same_place, times, total
from editing.photo.transfer.spread import smooth
from editing.photo.transfer.threads import side_by_side

_SOFT = 16.0  # of L: what reflects k times as much has ∛k times the L + 16 (CIE 1976), in light and in shade
_GAIN = (0.85, 1.6)  # of contrast: dark hair would lose its strands and its shine, which people see as blur
_WHITE, _FLATTEST = 98.0, 0.45
_SHINY = 2.8  # root mean squares of what is above the mean: two standard deviations of all
_LIGHT, _KNEE = 78.0, 14.0  # of L: from there on light hair gets ever less lighter
_TEETH = 0.85
_BARED = 4.0  # of L
_LIPS = 1.25  # shares of something as thin as a lip fade well before its border
_NEAR = 1 / 16  # of the side
_PALER = 0.5  # of what skin has of a and b
_NOTHING = 0.01  # of a pixel
# Of the side, how far is looked for what changes, of what is even and of light, and for how light it is about a place.
_BROADLY, _FINELY, _ABOUT = 1 / 18, 1 / 110, 1 / 20
_EVEN = ("hair", "hat", "background", "cloth", "skin", "mouth")
COMPLEXION = ("skin", "nose", "ears", "neck")


def tone(
    photo: FramedPhoto,
    before: Look,
    after: Look,
    parts: Sequence[int],
    fine: bool = False,
    within: np.ndarray | None = None,
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
        within: (S, S) bool at the size of ``before``: what is more than a little outside is not needed.
    """
    size, side, names = photo.size, before.image.shape[0], photo.scheme.names
    gain, offset = np.ones((size, size), np.float32), np.zeros((size, size, 3), np.float32)
    light, difference = resized(photo.lab[..., 0], side), after.lab - before.lab
    complexion = {k for k, name in enumerate(names) if name in COMPLEXION}
    needed = np.ones((side, side), bool)
    if within is not None:
        needed[:] = False
        needed[box_of(within, margin=round(2.5 * _ABOUT * side))] = True

    def toned(part: int) -> tuple[Box, np.ndarray, np.ndarray] | None:
        """A place in the fields and what gain and offset get there; None if the part does not show."""
        weight, carriers = before.parts[..., part] * after.parts[..., part], _carriers(names, part, parts)
        if weight.max() < 0.3:
            return None
        share = without_others(photo.share(carriers), total(before.parts, carriers))
        if names[part] == "mouth":
            share = np.clip(_LIPS * share, 0.0, 1.0) * (1.0 - _TEETH * teeth(photo.lab, share))
            if not fine:  # the model's teeth change in their own way, which is not the lips'
                shown = np.maximum(teeth(before.lab, before.parts[..., part]), newly_bared(before, after, part))
                weight = weight * (1.0 - shown)
        there = resized(share, side)
        box, place = same_place(needed & (np.maximum(there, weight) > _NOTHING), size)
        even = _BROADLY if names[part] in _EVEN and not fine else _FINELY
        change = smooth(difference[box], weight[box], even * side)
        mean = smooth(light[box], there[box], _ABOUT * side)
        change[..., 0] = np.clip(change[..., 0], -0.9 * mean, 98.0 - mean)
        if names[part] == "hair":
            change[..., 0] = np.minimum(change[..., 0], np.maximum(_below_white(mean + change[..., 0]) - mean, 0.0))
        share, lab = share[place], photo.lab[place]
        own, whole = lab[..., 0], max(float(share.sum()), 1.0)
        if part in complexion:
            # Dark skin that gets darker is no less brown.
            hue = np.array(cv2.sumElems(times(lab, share))[1:3], np.float32) / whole
            np.maximum(change[..., 1:], -_PALER * np.maximum(hue, 0.0), out=change[..., 1:])
        about = fitted(mean, share.shape)
        above = np.maximum(own - about, 0.0)
        shine = _SHINY * float((share * above * above).sum() / whole) ** 0.5
        lower, upper = _contrast(mean, mean + change[..., 0], shine)
        factor = np.where(above > 0.0, fitted(upper, share.shape), fitted(lower, share.shape))
        change = fitted(change, share.shape)
        change[..., 0] += about - factor * about
        add = times(change, share)
        # Colour goes with light: blue would show in the shadows of a beard.
        colour = np.clip(own / np.maximum(about, 1.0), 0.0, 1.25)
        add = cv2.multiply(add, cv2.merge([np.ones_like(colour), colour, colour]))
        return place, share * (factor - 1.0), add

    for found in side_by_side(toned, parts):
        if found is not None:
            place, factor, add = found
            gain[place] += factor
            offset[place] += add
    return gain, offset


def _contrast(before: np.ndarray, after: np.ndarray, shine: float) -> tuple[np.ndarray, np.ndarray]:
    """By what L is multiplied below and above its mean: more where it gets lighter, but what shines keeps its drawing.

    Args:
        before, after: (h, w) mean L.
        shine: so far above its mean L is not to be white yet.
    """
    factor = np.clip((after + _SOFT) / (before + _SOFT), *_GAIN)
    below_white = np.maximum(_WHITE - after, 0.0) / max(shine, 1.0)
    return factor, np.minimum(factor, np.maximum(below_white, _FLATTEST))


def _below_white(light: np.ndarray) -> np.ndarray:
    """L that bends before it is white."""
    return np.where(light > _LIGHT, _LIGHT + _KNEE * np.tanh((light - _LIGHT) / _KNEE), light)


def teeth(lab: np.ndarray, mouth: np.ndarray) -> np.ndarray:
    """(n, n) 0 to 1: what is lighter and less red than the lips; lipstick leaves it, as it leaves what shines.

    Args:
        lab: (n, n, 3) CIE L*a*b*.
        mouth: (n, n) share of lips and what is between them.
    """
    result, box = np.zeros_like(mouth), box_of(mouth > _NOTHING, 1)  # a pixel at least
    lab, mouth = lab[box], mouth[box]
    red = np.clip(lab[..., 1], 0.0, None) * mouth
    lips = times(lab, red).sum(axis=(0, 1)) / max(float(red.sum()), 1e-3)
    lighter, paler = lab[..., 0] - lips[0], lips[1] - lab[..., 1]
    result[box] = np.clip((lighter - 4.0) / 12.0, 0.0, 1.0) * np.clip((paler - 3.0) / 6.0, 0.0, 1.0)
    return result


def newly_bared(before: Look, after: Look, mouth: int) -> np.ndarray:
    """(S, S) 0 to 1: the model's teeth after an edit, also those that are as red as its lips, by how light they got.

    Lips that are painted get lighter as a whole; where teeth show, only that gets lighter by more.
    """
    shown, share = teeth(after.lab, after.parts[..., mouth]), before.parts[..., mouth] * after.parts[..., mouth]
    inside = share > 0.5
    if inside.any():
        lighter = after.lab[..., 0] - before.lab[..., 0]
        usual = max(float(np.median(lighter[inside])), 0.0)
        shown = np.maximum(shown, np.clip((lighter - usual - _BARED) / _BARED, 0.0, 1.0) * inside)
    return shown


def _carriers(names: Sequence[str], part: int, changed: Sequence[int]) -> list[int]:
    """Parts of the photo that take the change of a part of the model: skin is one colour all over."""
    if names[part] != "skin":
        return [part]
    return [k for k, name in enumerate(names) if name in COMPLEXION and (k == part or k not in changed)]


def without_others(share: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(n, n) share of a part without patches that lie elsewhere than the model shows the part: another person's."""
    coarse = shown.shape[0] // 2  # enough to see that all of it is near
    wide = max(3, round(coarse * _NEAR)) | 1
    near = cv2.dilate(resized(shown, coarse), np.ones((wide, wide), np.uint8)) > 0.3
    if not (resized(share, coarse)[~near] > _NOTHING).any():
        return share
    there = share > 0.1
    box = box_of(there, max(3, round(share.shape[0] * _NEAR)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(there[box].astype(np.uint8))
    if count <= 2:
        return share
    reach = max(3, round(shown.shape[0] * _NEAR)) | 1
    near = resized(cv2.dilate(shown, np.ones((reach, reach), np.uint8)), share.shape[0])[box] > 0.3
    inside = np.bincount(labels[near], minlength=count) / np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
    keep = inside >= 0.25
    if keep[1:].all():
        return share
    keep[0] = True
    result = share.copy()
    result[box] *= keep[labels] & (near | (labels > 0))  # what is faint goes with the patch that it is about
    return result
