"""What shows where hair goes: the model says where face and neck end, the photo what lies behind somebody."""

from __future__ import annotations

import numpy as np

from editing.photo.transfer.looks import FramedPhoto
from editing.photo.transfer.planes import fitted, times, total
from editing.photo.transfer.spread import spread

BEHIND = ("background", "cloth")
_SHOWN = 0.01  # of the picture: a part of which the photo shows less has no colour that is known


def uncovered(photo: FramedPhoto, beside: np.ndarray, part: int) -> np.ndarray:
    """(S, S, K) shares of the parts that show where one goes; sums to 1.

    Args:
        photo: warped.
        beside: (S, S, K) shares as the model, or another photo, shows them beside the part.
        part: which goes.
    """
    half = fitted(beside, tuple(length // 2 for length in beside.shape[:2]))  # the model's pictures are no finer
    half[..., part] = 0.0
    known = _sum(half)
    others = _whole(spread(_whole(half), np.clip(2.0 * known - 0.5, 0.0, 1.0)))
    behind = [photo.scheme.index(name) for name in BEHIND]
    shown = fitted(photo.parts[..., behind], known.shape)
    shown *= shown.mean(axis=(0, 1)) > _SHOWN
    there = np.clip(4.0 * _sum(shown) - 3.0, 0.0, 1.0)
    if there.any():
        others[..., behind] = times(_whole(spread(_whole(shown), there)), total(others, behind))
    others = fitted(others, beside.shape[:2])
    return _whole(others * others * others)  # a mixture of skin and wall would be neither


def _sum(planes: np.ndarray) -> np.ndarray:
    return total(planes, range(planes.shape[2]))


def _whole(planes: np.ndarray) -> np.ndarray:
    """The same shares of everything."""
    return times(planes, 1.0 / np.maximum(_sum(planes), 1e-6))
