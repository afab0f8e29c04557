"""Shape: where each pixel of the edited face comes from, as a dense, smooth shift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from editing.photo.transfer.looks import Look, follow
from editing.photo.transfer.outline import distance
from editing.photo.transfer.spread import smooth

SIDE = 256
BROAD = ("background", "hair", "hat", "cloth", "neck")  # without an outline of their own inside: they move as a whole
_MARGINS = {"mouth": 0.10, "nose": 0.07, "skin": 0.06, "background": 0.03}
_MARGIN = 0.05
# Of outlines, in pixels: how wide the band is in which they are known, how far they are followed, and how smoothly.
_BAND, _FARTHEST, _SPREAD = 2.5, 8.0, 3.0
_STEPS = 4
_TORN = 0.4  # pixels per pixel
# Faces that smile stay below half a pixel per pixel; from one on the picture folds over.
_FOLD = 0.9


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
        inside = window(before, after, names, chosen)
        if not inside.any():
            continue
        found = smooth(forward, trust * np.maximum(inside, 0.05), sigma)
        # Where nothing matches over a whole neighbourhood, a part was replaced, not moved.
        sure = cv2.GaussianBlur(trust, (0, 0), SIDE / 40)
        found *= np.clip((sure - 0.15) / 0.25, 0.0, 1.0)[..., None]
        if broad:
            # What was drawn anew matches by chance, here and there, and would be torn.
            found *= np.exp(-((_torn(found, sigma / 2) / _TORN) ** 4))[..., None]
        else:
            box = _square(inside)
            was, now = (Look(one.image[box], one.parts[box]) for one in (before, after))
            found[box] = unfolded(_onto_outlines(found[box], was, now, chosen))
        found *= inside[..., None]
        shift = shift * (1.0 - inside[..., None]) + found
        whole = np.maximum(whole, inside)
    return shift / SIDE, whole


def _torn(flow: np.ndarray, sigma: float) -> np.ndarray:
    """(s, s) how much the flow changes from one pixel to the next, around each place."""
    across, down = np.gradient(flow, axis=1), np.gradient(flow, axis=0)
    most: np.ndarray = np.maximum(np.abs(across), np.abs(down)).max(axis=2)
    return cv2.GaussianBlur(most, (0, 0), sigma)


def unfolded(flow: np.ndarray) -> np.ndarray:
    """(s, s, 2) the flow, bridged from around the places where it would tear or fold the face."""
    sound = np.exp(-((_torn(flow, SIDE / 80) / _FOLD) ** 4)).astype(np.float32)[..., None]
    if sound.min() > 0.9:
        return flow
    return sound * flow + (1.0 - sound) * smooth(flow, sound[..., 0], SIDE / 24)


def _onto_outlines(flow: np.ndarray, before: Look, after: Look, parts: Sequence[int]) -> np.ndarray:
    """(s, s, 2) the flow, in pixels, corrected so that the outlines of parts meet.

    Faint outlines, such as the sides of a nose, move by a pixel or two, which a flow between pictures takes for noise;
    the parts' masks know better. Newton steps along the normals of the signed distance to each outline, in a band
    around it, and smooth between the bands.
    """
    pairs = []
    for part in parts:
        # Brows are hardly ever sure of themselves.
        level = 0.5 * float(before.parts[..., part].max())
        first, last = (distance(look.parts[..., part], level) for look in (before, after))
        if first is not None and last is not None:
            slope = np.dstack([cv2.Sobel(first, -1, 1, 0, scale=1 / 8), cv2.Sobel(first, -1, 0, 1, scale=1 / 8)])
            pairs.append((first, last, slope))
    for _ in range(_STEPS if pairs else 0):
        step, weight = np.zeros_like(flow), np.zeros(flow.shape[:2], np.float32)
        for first, last, slope in pairs:
            there, normal = follow(first, flow), follow(slope, flow)
            off = last - there
            steep = np.square(normal).sum(axis=2)
            # Where a part has no outline near by, before or after, nothing is known.
            band = np.exp(-np.square(last / _BAND)) * np.clip(2.0 - np.abs(off) / _FARTHEST, 0.0, 1.0) * (steep > 0.25)
            step += (band * off / np.maximum(steep, 0.25))[..., None] * normal
            weight += band
        flow = flow + smooth(step / np.maximum(weight, 1e-3)[..., None], np.minimum(weight, 1.0), _SPREAD)
    return flow


def _square(inside: np.ndarray) -> tuple[slice, slice]:
    """The smallest square around what is not 0."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    side = max(2, int(max(np.ptp(rows), np.ptp(columns))) + 1)
    top, left = (min(int(places[0]), inside.shape[0] - side) for places in (rows, columns))
    return np.s_[top : top + side, left : left + side]


def _seen(look: Look, parts: Sequence[int]) -> np.ndarray:
    """(SIDE, SIDE) uint8: lightness, with the parts in question set off from the rest so that their outlines match."""
    inside = look.parts[..., list(parts)].sum(axis=2)
    return np.clip(look.lab[..., 0] * 1.7 + 60.0 * inside, 0, 255).astype(np.uint8)
