"""How local an edit was: change map, preserved pixels, mean change inside and outside the edited parts."""

from __future__ import annotations

from collections.abc import Sequence

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
    ids = [scheme.index(part) for part in parts]
    return np.asarray(np.isin(maps, ids).any(axis=0))


def measure_change(
    before: np.ndarray, after: np.ndarray, inside: np.ndarray | None = None, parts: Sequence[str] = ()
) -> Change:
    """Compares two pictures.

    Args:
        before, after: (S, S, 3) uint8.
        inside: (S, S) bool, the edited region; None if the whole picture may change.
        parts: names of the edited parts, for the record.
    """
    difference = np.abs(after.astype(np.float32) - before.astype(np.float32))
    change_map = difference.mean(axis=2)
    if inside is None:
        inside = np.ones(change_map.shape, dtype=bool)
    return Change(
        map=change_map,
        preserved=float((difference.max(axis=2) <= TOLERANCE).mean()),
        inside=_mean(change_map[inside]),
        outside=_mean(change_map[~inside]),
        area=float(inside.mean()),
        parts=tuple(parts),
    )


def change_between(before: Rendered, after: Rendered, parts: tuple[str, ...], scheme: PartScheme) -> Change:
    """How two pictures of a face differ of which some parts were edited."""
    if len(parts) == len(scheme):
        return measure_change(before.image, after.image)
    return measure_change(before.image, after.image, region((before.part_map, after.part_map), parts, scheme), parts)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
