"""How local an edit was: change map, preserved pixels, mean change inside and outside the edited parts."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from editing.device.renderer import Rendered
from editing.results import Change
from memorygan.parts import PartScheme

# Rounding to 8 bits alone moves a pixel by one step; two is below what anyone sees.
TOLERANCE = 2.0


def region(maps: Sequence[np.ndarray], parts: Sequence[str], scheme: PartScheme) -> np.ndarray:
    """(S, S) bool: where the parts are in any of the part maps.

    Raises:
        ValueError: for an unknown part.
    """
    table = np.zeros(256, np.uint8)
    table[[scheme.index(part) for part in parts]] = 1
    return np.logical_or.reduce([cv2.LUT(ids.astype(np.uint8), table) for ids in maps])


def measure_change(
    before: np.ndarray, after: np.ndarray, inside: np.ndarray | None = None, parts: Sequence[str] = ()
) -> Change:
    """Compares two pictures.

    Args:
        before, after: (S, S, 3) uint8.
        inside: (S, S) bool, the edited region; None if the whole picture may change.
        parts: names of the edited parts, for the record.
    """
    difference = cv2.absdiff(before, after)
    red, green, blue = cv2.split(difference)
    largest = cv2.max(cv2.max(red, green), blue)
    change_map = cv2.transform(difference.astype(np.float32), np.full((1, 3), 1 / 3, np.float32))
    if inside is None:
        inside = np.ones(change_map.shape, dtype=bool)
    return Change(
        map=change_map,
        preserved=float((largest <= TOLERANCE).mean()),
        inside=_mean(change_map, inside),
        outside=_mean(change_map, ~inside),
        area=float(inside.mean()),
        parts=tuple(parts),
    )


def change_between(before: Rendered, after: Rendered, parts: tuple[str, ...], scheme: PartScheme) -> Change:
    """How two pictures of a face differ of which some parts were edited."""
    if len(parts) == len(scheme):
        return measure_change(before.image, after.image)
    return measure_change(before.image, after.image, region((before.part_map, after.part_map), parts, scheme), parts)


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    return cv2.mean(values, where.view(np.uint8))[0]  # 0 where there is nothing
