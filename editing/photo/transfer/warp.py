"""Shape: where each pixel of the edited face comes from, as a dense, smooth shift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np

from editing.photo.transfer.looks import Look, follow
from editing.photo.transfer.planes import SIDE, blurred, box_of, distance, largest, slope, square, squared, times, total
from editing.photo.transfer.spread import smooth
from editing.photo.transfer.threads import side_by_side

BROAD = ("background", "hair", "hat", "cloth", "neck")  # without an outline of their own inside: they move as a whole
_HEAD = {"skin", "nose", "mouth", "hair", "neck"}  # change shape together when it turns or gets older
_MARGINS = {"mouth": 0.10, "nose": 0.07, "skin": 0.06, "background": 0.03}
_MARGIN = 0.05
# Of outlines, in pixels: how wide the band is in which they are known, how far they are followed, and how smoothly.
_BAND, _FARTHEST, _SPREAD = 2.5, 8.0, 3.0
_STEPS = 4
_AROUND, _LEAST = 32, 12  # pixels about what moves that are compared; of less OpenCV finds no flow
_TORN = 0.4  # pixels per pixel
# Faces that smile stay below half a pixel per pixel; from one on the picture folds over.
_FOLD = 0.9


def window(before: Look, after: Look, names: Sequence[str], parts: Sequence[int]) -> np.ndarray:
    """(S, S) float32, 1 on some parts before and after, falling to exactly 0 around them."""
    result = np.zeros(before.image.shape[:2], np.float32)
    for margin in {_MARGINS.get(names[part], _MARGIN) for part in parts}:
        alike = [part for part in parts if _MARGINS.get(names[part], _MARGIN) == margin]
        there = np.logical_or.reduce([look.parts[..., part] > 0.4 for part in alike for look in (before, after)])
        distance = cv2.distanceTransform((~there).astype(np.uint8), cv2.DIST_L2, 5)
        if there.any():
            fall = np.clip(1.0 - distance / (margin * there.shape[0]), 0.0, 1.0)
            result = np.maximum(result, fall * fall * (3.0 - 2.0 * fall))
    return result.astype(np.float32)


def motion(before: Look, after: Look, names: Sequence[str], parts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Where things went.

    Args:
        before, after: S pixels wide.
        names: of all parts.
        parts: those that change shape.

    Returns:
        (S, S, 2) shift in sides of the frame, such that before(x + shift) looks like after(x), and the (S, S) window
        outside which it is 0.
    """
    chosen = {broad: [part for part in parts if (names[part] in BROAD) == broad] for broad in (True, False)}
    windows = {broad: window(before, after, names, some) for broad, some in chosen.items()}
    whole = np.maximum(windows[True], windows[False])
    side = whole.shape[0]
    shift = np.zeros((*whole.shape, 2), np.float32)
    if whole.any():
        near = np.s_[:, :] if windows[True].any() else box_of(whole > 0, max(_LEAST, _AROUND * side // SIDE))
        was, now = before.within(near), after.within(near)
        shift[near] = _moved(was, now, chosen, {broad: inside[near] for broad, inside in windows.items()}, names, side)
    return shift / side, whole


def _moved(
    before: Look,
    after: Look,
    parts: dict[bool, list[int]],
    windows: dict[bool, np.ndarray],
    names: Sequence[str],
    side: int,
) -> np.ndarray:
    """(h, w, 2) shift in pixels of what is broad, within its window, and of the rest over it."""
    first, second = (_seen(look, [*parts[True], *parts[False]]) for look in (before, after))
    forward, backward = side_by_side(lambda pair: _flow(*pair, side), ((second, first), (first, second)))
    closes = np.exp(-squared((forward + follow(backward, forward)) * SIDE / side) / 4.0)
    same = 1.0 - 0.5 * total(np.abs(after.parts - follow(before.parts, forward)), range(after.parts.shape[2]))
    light = np.abs(after.lab[..., 0] - follow(before.lab[..., 0], forward))
    trust = (closes * np.clip(same, 0.0, 1.0) ** 2 * np.exp(-np.square(light / 15.0))).astype(np.float32) + 1e-3
    # Where nothing matches over a whole neighbourhood, a part was replaced, not moved.
    sure = np.clip((cv2.GaussianBlur(trust, (0, 0), side / 40) - 0.15) / 0.25, 0.0, 1.0)
    # A head that turns takes all of it along, also what matches nothing; otherwise that stands still.
    turned = {names[part] for part in (*parts[True], *parts[False])} >= _HEAD
    shift = np.zeros_like(forward)
    for broad, sigma in ((True, side / 16), (False, side / 80)):
        inside = windows[broad]
        if not inside.any():
            continue
        weight = trust * np.maximum(inside, 0.05)
        carried = smooth(forward, weight, side / 6) if turned else np.zeros_like(forward)
        if broad and turned:
            found = carried
        else:
            found = times(smooth(forward, weight, sigma), sure) + times(carried, 1.0 - sure)
        if broad and not turned:
            # What was drawn anew matches by chance, here and there, and would be torn.
            found = times(found, np.exp(-((_torn(found, sigma / 2) / _TORN) ** 4)))
        elif not broad:
            box = box_of(inside > 0)
            found[box] = unfolded(
                _onto_outlines(found[box], before.within(box), after.within(box), parts[broad], side), side
            )
            if turned and (glasses := _worn(before, after, names, side)) is not None:
                # Frames are stiff.
                found = found + times(smooth(forward, weight, side / 10) - found, glasses)
        shift = times(shift, 1.0 - inside) + times(found, inside)
    return shift


def _worn(before: Look, after: Look, names: Sequence[str], side: int) -> np.ndarray | None:
    """(h, w) 0 to 1: glasses, with soft borders; None if nobody wears any."""
    part = names.index("eyeglass")
    there = np.maximum(before.parts[..., part], after.parts[..., part]) > 0.3
    if not there.any():
        return None
    return blurred(cv2.dilate(there.astype(np.float32), square(9, side)), 3.0, side)


def _flow(at: np.ndarray, to: np.ndarray, side: int) -> np.ndarray:
    """(h, w, 2) dense inverse search (Kroeger et al. 2016) from one picture's pixels to the other's."""
    flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(1 if side >= SIDE else 0)  # found at the same size, so that a preview moves what its edit moves
    found: np.ndarray = flow.calc(at, to, None)
    return found


def _torn(flow: np.ndarray, sigma: float) -> np.ndarray:
    """(h, w) how much the flow changes from one pixel to the next, around each place."""
    most = np.maximum(*(largest(np.gradient(flow, axis=axis)) for axis in (0, 1)))
    return cv2.GaussianBlur(most, (0, 0), sigma)


def unfolded(flow: np.ndarray, side: int) -> np.ndarray:
    """(h, w, 2) the flow, in pixels of a picture of some side, bridged from around the places where it would tear or
    fold the face."""
    sound = np.exp(-((_torn(flow, side / 80) / _FOLD) ** 4)).astype(np.float32)
    if sound.min() > 0.9:
        return flow
    return times(flow, sound) + times(smooth(flow, sound, side / 24), 1.0 - sound)


def _onto_outlines(flow: np.ndarray, before: Look, after: Look, parts: Sequence[int], side: int) -> np.ndarray:
    """(h, w, 2) the flow, in pixels, corrected so that the outlines of parts meet.

    Faint outlines, such as the sides of a nose, move by a pixel or two, which a flow between pictures takes for noise;
    the parts' masks know better. Newton steps along the normals of the signed distance to each outline, in a band
    around it, and smooth between the bands.
    """

    def outline(part: int) -> _Outline | None:
        return _outline(before.parts[..., part], after.parts[..., part], side / SIDE)

    found = [one for one in side_by_side(outline, parts) if one is not None]
    for _ in range(_STEPS // (1 if side >= SIDE else 2) if found else 0):
        step, weight = np.zeros_like(flow), np.zeros(flow.shape[:2], np.float32)
        for one, (way, sure) in zip(found, side_by_side(partial(_Outline.step, flow=flow), found), strict=True):
            step[one.box] += way
            weight[one.box] += sure
        flow = flow + smooth(
            times(step, 1.0 / np.maximum(weight, 1e-3)), np.minimum(weight, 1.0), _SPREAD * side / SIDE
        )
    return flow


@dataclass(frozen=True)
class _Outline:
    """Of a part, in the box around it: (h, w, 3) signed distance before and its slope, and (h, w) distance after."""

    box: tuple[slice, slice]
    before: np.ndarray
    after: np.ndarray
    pixel: float  # of a picture of SIDE

    def step(self, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Towards the outline it should be on, in its box of the whole flow, times how sure that is, and how sure."""
        there = follow(self.before, flow[self.box])
        off, normal = self.after - there[..., 0], there[..., 1:]
        steep = squared(normal)
        # Where a part has no outline near by, before or after, nothing is known.
        band = np.exp(-np.square(self.after / (_BAND * self.pixel))) * np.clip(
            2.0 - np.abs(off) / (_FARTHEST * self.pixel), 0.0, 1.0
        )
        band *= steep > 0.25
        return times(normal, band * off / np.maximum(steep, 0.25)), band


def _outline(before: np.ndarray, after: np.ndarray, pixel: float) -> _Outline | None:
    """Of two (h, w) shares of a part; None if there is no outline before or after."""
    level = 0.5 * float(before.max())  # brows are hardly ever sure of themselves
    box = box_of(np.maximum(before, after) > level, margin=round(3 * _FARTHEST * pixel))
    first, last = (distance(share[box], level) for share in (before, after))
    if first is None or last is None:
        return None
    return _Outline(box, cv2.merge([first, slope(first)]), last, pixel)


def _seen(look: Look, parts: Sequence[int]) -> np.ndarray:
    """(h, w) uint8: lightness, with the parts in question set off from the rest so that their outlines match."""
    inside = total(look.parts, parts)
    return np.clip(look.lab[..., 0] * 1.7 + 60.0 * inside, 0, 255).astype(np.uint8)
