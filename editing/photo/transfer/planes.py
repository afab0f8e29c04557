"""Arithmetic on the few planes of a pixel, in OpenCV and BLAS: NumPy walks so short a last axis element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

SIDE = 256  # of the pictures in whose pixels the rooms of the transfer measure
_FEW = 4
_STEP = 8
_FINE = 2
Box = tuple[slice, slice]


def times(planes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(h, w, C) float32 planes, each multiplied by the (h, w) weight."""
    weights = weight.astype(np.float32, copy=False)
    if planes.shape[2] > _FEW:
        return planes * weights[..., None]
    product: Any = cv2.multiply(planes, cv2.merge([weights] * planes.shape[2]))
    return product.reshape(planes.shape)  # OpenCV drops an axis of one plane


def clipped(planes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(h, w, C) float32 planes, C of 2 to 4, each kept between its own two of the (C,) bounds."""
    if planes.shape[0] * planes.shape[1] <= _FEW:  # OpenCV would take the bounds for a picture
        return np.clip(planes, low, high)
    fill = (0.0,) * (_FEW - planes.shape[2])  # OpenCV's colours are four
    bounds: Any = [(*map(float, bound), *fill) for bound in (low, high)]
    return cv2.min(cv2.max(planes, bounds[0]), bounds[1])


def total(planes: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """(h, w): the sum of some of the (h, w, C) planes."""
    if len(chosen) == 1:
        return planes[..., chosen[0]].copy()
    indicator = np.zeros(planes.shape[2], np.float32)
    indicator[list(chosen)] = 1.0
    result: np.ndarray = planes @ indicator
    return result


def largest(planes: np.ndarray) -> np.ndarray:
    """(h, w): the largest absolute value of the (h, w, C) planes."""
    result: np.ndarray = np.maximum.reduce([np.abs(planes[..., k]) for k in range(planes.shape[2])])
    return result


def squared(planes: np.ndarray) -> np.ndarray:
    """(h, w): the squared length of the (h, w, C) planes."""
    result: np.ndarray = np.einsum("ijk,ijk->ij", planes, planes)
    return result


def slope(plane: np.ndarray) -> np.ndarray:
    """(h, w, 2): by how much an (h, w) plane rises from one pixel to the next, across and down."""
    return cv2.merge([cv2.Sobel(plane, -1, *way, scale=1 / 8) for way in ((1, 0), (0, 1))])


def chosen_by(mask: np.ndarray, there: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
    """(h, w, C): the first picture where the (h, w) bool mask is set, the second elsewhere."""
    return cv2.copyTo(np.ascontiguousarray(there), mask.view(np.uint8), elsewhere.copy())


def square(pixels: float, side: int) -> np.ndarray:
    """(k, k) uint8 ones, k odd: as wide in a picture of some side as so many pixels are in one of SIDE."""
    wide = 2 * round((pixels * side / SIDE - 1.0) / 2.0) + 1
    return np.ones((max(1, wide), max(1, wide)), np.uint8)


def disc(pixels: float, side: int) -> np.ndarray:
    """As :func:`square`, round."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, square(pixels, side).shape)


def blurred(planes: np.ndarray, pixels: float, side: int) -> np.ndarray:
    """Gaussian mean with a standard deviation in pixels of a picture of SIDE."""
    return cv2.GaussianBlur(planes, (0, 0), pixels * side / SIDE)


def box_of(mask: np.ndarray, margin: int = 0, step: int = 1) -> Box:
    """Rows and columns of the smallest box around what is set in an (h, w) bool mask, in multiples of some pixels."""
    sides = []
    for axis, length in ((1, mask.shape[0]), (0, mask.shape[1])):
        places = np.flatnonzero(mask.any(axis=axis))
        first, last = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        sides.append(slice(max(0, first - margin) // step * step, min(length, -(-(last + margin) // step) * step)))
    return sides[0], sides[1]


def same_place(mask: np.ndarray, size: int) -> tuple[Box, Box]:
    """The box around what is set in an (s, s) bool mask, and the same place in fields of another size.

    Where one size is no multiple of the other, both are the whole.
    """
    side = mask.shape[0]
    if size % side and side % size:
        return np.s_[:side, :side], np.s_[:size, :size]
    box = box_of(mask, 2, _STEP)
    return box, (
        slice(box[0].start * size // side, box[0].stop * size // side),
        slice(box[1].start * size // side, box[1].stop * size // side),
    )


def fitted(planes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w) or (h, w, C) at another height and width, smoothly."""
    if planes.shape[:2] == shape[:2]:
        return planes
    smaller = shape[0] < planes.shape[0]
    many: Any = cv2.resize(planes, (shape[1], shape[0]), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return many.reshape(*shape[:2], *planes.shape[2:])


def distance(share: np.ndarray, level: float = 0.5) -> np.ndarray | None:
    """(h, w) float32 signed distance to the outline of a part in pixels, positive inside; None without an outline.

    Args:
        share: (h, w) of the part.
        level: the share where its outline runs.
    """
    height, width = share.shape
    fine = (fitted(share, (_FINE * height, _FINE * width)) > level).astype(np.uint8)
    if not 0 < cv2.countNonZero(fine) < fine.size:
        return None
    inside, outside = (cv2.distanceTransform(mask, cv2.DIST_L2, 5) for mask in (fine, 1 - fine))
    apart = cv2.subtract(inside, outside)
    return cv2.GaussianBlur(fitted(apart, share.shape) / _FINE, (0, 0), 1.0)
