"""The edit transfer: what the model changes between two of its pictures is done to the photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from editing.photo.transfer.borrow import Lent, borrow, fitting, laid_hair
from editing.photo.transfer.draw import draw, newness
from editing.photo.transfer.fields import Fields
from editing.photo.transfer.glasses import bared, taken_off
from editing.photo.transfer.looks import FramedPhoto, Look, follow, resized
from editing.photo.transfer.register import registered
from editing.photo.transfer.tone import tone
from editing.photo.transfer.warp import BROAD, SIDE, motion

# Folds and sides are a little redder or paler; a poor rebuild's colours are not to come along.
_FLUSH = 5.0  # of a and b
_ABOUT = 28  # pixels about a small part that go with it
_BEHIND = ("eyes", "eyebrows", "nose", "mouth")
_WORN = ("eyeglass", "hat")
_SCRAP = 0.025  # of the framed face: glasses and hats smaller than that are pieces of some
_FACE = ("skin", "eyes", "eyebrows", "mouth", "nose", "ears", "neck")


@dataclass(frozen=True)
class Plan:
    """What of which parts the edit changes.

    Attributes:
        textured: parts whose texture layers changed.
        shaped: parts whose base or shape layers changed; all but the background if the head was turned.
    """

    textured: tuple[int, ...]
    shaped: tuple[int, ...]


def transfer(photo: FramedPhoto, before: Look, after: Look, plan: Plan, lent: Sequence[Lent] = ()) -> Fields:
    """What has to be done to the photo so that it changes as the model's picture does.

    Parts whose texture alone changes are toned. Where shapes change, pixels move along the flow between the model's two
    pictures; light that the movement does not explain is toned; and what the photo has not got is drawn.

    Args:
        photo: the framed face.
        before, after: what the model shows without and with the edit.
        plan: what was edited.
        lent: parts that are taken from other photos, oldest first.
    """
    size, names = photo.size, photo.scheme.names
    plan = _without_scraps(photo, before, after, plan, {part for one in lent for part in one.parts})
    before, after = registered(photo, before, after)
    if not plan.shaped:
        gain, offset = tone(photo, before, after, plan.textured)
        return replace(Fields.nothing(size), gain=gain, offset=offset, part_map=photo.part_map)
    first, last = before.at(SIDE), after.at(SIDE)
    shift, window = motion(first, last, names, plan.shaped)
    fits = fitting(photo, lent)
    others = {part for one in fits for part in one.parts}
    off = taken_off(photo, first, last, plan.shaped, others)
    kept = [_held(photo, plan.shaped), *([] if off is None else [off])]
    kept += [_about(look, part) for part in photo.scheme.transparent if part in others for look in (first, last)]
    free = 1.0 - np.maximum.reduce(kept)
    shift, window = shift * free[..., None], window * free
    first = Look(follow(first.image, shift * SIDE), follow(first.parts, shift * SIDE))
    shift, window_n = resized(shift, size), resized(window, size)
    moved = photo.moved(shift)
    gain, offset = tone(moved, first, last, [part for part in plan.textured if part not in others])
    # Shading that comes with the new shape: folds of a smile, the side of a nose.
    shaded = [
        k
        for k, name in enumerate(names)
        if name in _FACE and k not in plan.textured and float((first.parts[..., k] * window).max()) > 0.01
    ]
    more, added = tone(moved, first, last, shaded, fine=True)
    added[..., 1:] = np.clip(added[..., 1:], -_FLUSH, _FLUSH)
    gain, offset = gain + window_n * (more - 1.0), offset + window_n[..., None] * added
    own = [part for part in plan.shaped if part not in others]
    offset += resized(_seen_through(first, last, own, photo.scheme.transparent), size)
    toned = moved.lab * np.stack([gain, np.ones_like(gain), np.ones_like(gain)], axis=2) + offset
    new, shown = newness(moved, first, last, window, plan.shaped, laid_hair(moved, last, fits))
    if off is not None:
        bare, under = bared(moved, last, off)
        new = new * (1.0 - off) + bare
        shown = np.where((off > 0.5)[..., None], under, shown)
    drawn, alpha = draw(moved, toned, first, last, new, shown)
    for one in fits:
        drawn, alpha = borrow(moved, toned, last, one, drawn, alpha)
    ids = np.where((alpha > 0.5)[..., None], resized(shown, size), moved.parts).argmax(axis=2).astype(np.uint8)
    return Fields(shift, gain, offset, drawn, alpha, photo.grain, ids)


def _without_scraps(photo: FramedPhoto, before: Look, after: Look, plan: Plan, lent: set[int]) -> Plan:
    """The plan without glasses and hats of which the model puts on no more than a piece; the photo has none."""
    put_on = [part for part in map(photo.scheme.names.index, _WORN) if part in plan.shaped and part not in lent]
    scraps = {
        part
        for part in put_on
        if _extent(before.parts, part) < _extent(after.parts, part) < _SCRAP and _extent(photo.parts, part) < _SCRAP / 5
    }
    left = (tuple(part for part in parts if part not in scraps) for parts in (plan.textured, plan.shaped))
    return Plan(*left)


def _extent(parts: np.ndarray, part: int) -> float:
    return float((parts.argmax(axis=2) == part).mean())


def _held(photo: FramedPhoto, shaped: Sequence[int]) -> np.ndarray:
    """(SIDE, SIDE) 0 to 1: what stays. When hair and what is behind it change, glasses and hats; when small parts move,
    what is far from them in the photo, since a rebuild may have an eye at the temple; frames of glasses; other eyes and
    brows."""
    names = photo.scheme.names

    def there(parts: Sequence[int]) -> np.ndarray:
        return (resized(photo.share(parts), SIDE) > 0.3).astype(np.uint8)

    if all(names[part] in BROAD for part in shaped):
        # What is worn is in front of hair, also where a lens shows hair.
        worn = there([k for k in map(names.index, _WORN) if k not in shaped])
        return _softly(cv2.dilate(_filled(worn), np.ones((9, 9), np.uint8)))
    if any(names[part] not in _BEHIND for part in shaped):
        return np.zeros((SIDE, SIDE), np.float32)
    worn = there([names.index("eyeglass")])
    about = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _ABOUT + 1, 2 * _ABOUT + 1))
    others = [names.index(name) for name in ("eyes", "eyebrows") if names.index(name) not in shaped]
    kept = (
        cv2.dilate(worn, np.ones((7, 7), np.uint8)) - cv2.erode(worn, np.ones((9, 9), np.uint8)),
        there(others) if others else np.zeros_like(worn),
        1 - cv2.dilate(there(shaped), about),
    )
    return _softly(np.maximum.reduce(kept))


def _about(look: Look, part: int) -> np.ndarray:
    """(SIDE, SIDE) 0 to 1: where the model shows glasses, whose shade is not wanted where another photo's are laid."""
    return _softly(cv2.dilate((look.parts[..., part] > 0.2).astype(np.uint8), np.ones((7, 7), np.uint8)))


def _filled(mask: np.ndarray) -> np.ndarray:
    """(S, S) uint8: the convex hulls of the patches of a mask."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for outline in outlines:
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), 1)
    return mask


def _softly(held: np.ndarray) -> np.ndarray:
    """(S, S) float32 from 0 or 1, with soft borders."""
    soft: np.ndarray = np.clip(2.0 * cv2.GaussianBlur(held.astype(np.float32), (0, 0), 2.0), 0.0, 1.0)
    return soft


def _seen_through(before: Look, after: Look, shaped: Sequence[int], transparent: Sequence[int]) -> np.ndarray:
    """(SIDE, SIDE, 3) what glasses or earrings that newly show add to what stays visible behind them."""
    chosen = [part for part in shaped if part in transparent]
    there = after.parts[..., chosen].sum(axis=2) if chosen else np.zeros((SIDE, SIDE), np.float32)
    inside = cv2.GaussianBlur(cv2.dilate(there, np.ones((5, 5), np.uint8)), (0, 0), 1.5)
    return (after.lab - before.lab) * inside[..., None]
