"""Shape: where each pixel of the edited face comes from, as a dense, smooth shift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from editing.photo.transfer.looks import Look, follow
from editing.photo.transfer.spread import smooth

SIDE = 256
BROAD = ("background", "hair", "hat", "cloth", "neck")  # without an outline of their own inside: they move as a whole
_MARGINS = {"mouth": 0.10, "nose": 0.07, "skin": 0.06, "background": 0.03}
_MARGIN = 0.05


def window(before: Look, after: Look, names: Sequence[str], parts: Sequence[int]) -> np.ndarray:
    """(S, S) float32, 1 on some parts before and after, falling to exactly 0 around them."""
    result = np.zeros(before.image.shape[:2], np.float32)
    for part in parts:
        there = np.maximum(before.parts[..., part], after.parts[..., part]) > 0.4
        distance = cv2.distanceTransform((~there).astype(np.uint8), cv2.DIST_L2, 5)
        if there.any():
            fall = np.clip(1.0 - distance / (_MARGINS.get(names[part], _MARGIN) * there.shape[0]), 0.0, 1.0)
            result = np.maximum(result, fall * fall * (3.0 - 2.0 * fall))
    return result.astype(np.float32)


def motion(before: Look, after: Look, names: Sequence[str], parts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Where things went.

    Args:
        before, after: at SIDE pixels.
        names: of all parts.
        parts: those that change shape.

    Returns:
        (SIDE, SIDE, 2) shift in sides of the frame, such that before(x + shift) looks like after(x), and the
        (SIDE, SIDE) window outside which it is 0.
    """
    first, second = _seen(before, parts), _seen(after, parts)
    flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forward = flow.calc(second, first, None)
    backward = flow.calc(first, second, None)
    closes = np.exp(-np.square(forward + follow(backward, forward)).sum(axis=2) / 4.0)
    same = 1.0 - 0.5 * np.abs(after.parts - follow(before.parts, forward)).sum(axis=2)
    light = np.abs(after.lab[..., 0] - follow(before.lab[..., 0], forward))
    trust = (closes * np.clip(same, 0.0, 1.0) ** 2 * np.exp(-np.square(light / 15.0))).astype(np.float32) + 1e-3
    shift = np.zeros_like(forward)
    whole = np.zeros((SIDE, SIDE), np.float32)
    for broad, sigma in ((True, SIDE / 16), (False, SIDE / 80)):
        chosen = [part for part in parts if (names[part] in BROAD) == broad]
        if not chosen:
            continue
        inside = window(before, after, names, chosen)
        found = smooth(forward, trust * np.maximum(inside, 0.05), sigma)
        # Where nothing matches over a whole neighbourhood, a part was replaced, not moved.
        sure = cv2.GaussianBlur(trust, (0, 0), SIDE / 40)
        found *= (np.clip((sure - 0.15) / 0.25, 0.0, 1.0) * inside)[..., None]
        shift = shift * (1.0 - inside[..., None]) + found
        whole = np.maximum(whole, inside)
    return shift / SIDE, whole


def _seen(look: Look, parts: Sequence[int]) -> np.ndarray:
    """(SIDE, SIDE) uint8: lightness, with the parts in question set off from the rest so that their outlines match."""
    inside = look.parts[..., list(parts)].sum(axis=2)
    return np.clip(look.lab[..., 0] * 1.7 + 60.0 * inside, 0, 255).astype(np.uint8)
