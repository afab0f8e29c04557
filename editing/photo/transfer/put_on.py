"""Glasses, hats and earrings that are put on: whether they are more than a shade, and what is seen of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look, resized
from editing.photo.transfer.planes import blurred, disc, square, times, total

FACE = ("skin", "eyes", "eyebrows", "mouth", "nose", "ears", "neck")
WORN = ("eyeglass", "hat")
_SCRAP = 0.025  # of the framed face: glasses and hats smaller than that are pieces of some
# Of a pixel that they take most of, what they take at least, and by how much more the more of the picture they cover:
# what has less is a shade of some.
_SURE = {"eyeglass": (0.48, 0.7), "hat": (0.65, 0.0)}
# Pixels across, pixels, and by how much: rims of which the model's mask has pieces, and which are drawn out.
_LENS, _RIM, _SHARPER = 41.0, 5.0, 1.8
_GROWN = 1.2  # glasses and hats in another size may be as much larger


def scraps(photo: FramedPhoto, before: Look, after: Look, shaped: Sequence[int], lent: Collection[int]) -> set[int]:
    """Glasses and hats of which the model puts on a piece or a shade, the photo having none, glasses that would be put
    on over those which somebody wears, and hats that would grow or go: of hair and heads under hats nobody knows.

    Args:
        photo: the framed face.
        before, after: what the model shows without and with the edit.
        shaped: parts whose shape changes.
        lent: parts that other photos lend.
    """
    names = photo.scheme.names
    models = [part for part in map(names.index, WORN) if part in shaped and part not in lent]
    found = {
        part
        for part in models
        if _extent(before.part_map, part) < (has := _extent(after.part_map, part))
        and _extent(photo.part_map, part) < _SCRAP / 5
        and (has < _SCRAP or _unsure(after, part, names[part], has))
    }
    glasses = names.index("eyeglass")
    if glasses in models and (worn := _extent(photo.part_map, glasses)) > _SCRAP / 5:
        had, has = (_extent(look.part_map, glasses) for look in (before, after))
        if has > _GROWN * max(worn, had):
            found.add(glasses)
    hat = names.index("hat")
    if hat in models and _extent(photo.part_map, hat) > _SCRAP / 5:
        least, most = sorted(_extent(look.part_map, hat) for look in (before, after))
        if most > _GROWN * least:
            found.add(hat)
    return found


def put_on(photo: FramedPhoto, after: Look, shaped: Sequence[int], others: Collection[int]) -> np.ndarray | None:
    """(S, S) 0 to 1: glasses that the photo has not got, with their rims, of which the model's mask has pieces; None if
    none are put on. Nothing moves for them, they are seen over what is there."""
    glasses, side = photo.scheme.index("eyeglass"), after.parts.shape[0]
    new = glasses in shaped and glasses not in others and _extent(photo.part_map, glasses) <= _SCRAP / 5
    if not new or _extent(after.part_map, glasses) <= _SCRAP:
        return None
    there = (after.parts[..., glasses] > 0.3).astype(np.float32)
    whole = cv2.morphologyEx(there, cv2.MORPH_CLOSE, disc(_LENS, side))
    return blurred(cv2.dilate(whole, square(5, side)), 1.5, side)


def _unsure(look: Look, part: int, name: str, extent: float) -> bool:
    least, more = _SURE[name]
    return float(look.parts[look.part_map == part, part].mean()) < least + more * extent


def _extent(part_map: np.ndarray, part: int) -> float:
    return float((part_map == part).mean())


def seen_through(before: Look, after: Look, worn: Sequence[int]) -> np.ndarray:
    """(S, S, 3) what glasses or earrings that newly show add to what stays visible behind them."""
    there = total(after.parts, worn)
    inside = blurred(cv2.dilate(there, square(5, there.shape[0])), 1.5, there.shape[0])
    return times(after.lab - before.lab, inside)


def over_face(photo: FramedPhoto, before: Look, after: Look, inside: np.ndarray) -> np.ndarray:
    """(n, n, 3) what glasses that are put on add to the face behind them; see :func:`put_on`."""
    names, side = photo.scheme.names, inside.shape[0]
    change = after.lab - before.lab
    even = blurred(change, _RIM, side)
    eyes = cv2.dilate(resized(photo.share([names.index("eyes")]), side), square(5, side))
    change = even + times(change - even, _SHARPER * (1.0 - eyes))  # which are the photo's
    face = photo.share([names.index(name) for name in FACE])
    return times(resized(times(change, inside), photo.size), face)
