"""Hair that goes on beyond the photo's is that within its outline, as in a mirror."""

from __future__ import annotations

import cv2
import numpy as np

from editing.photo.transfer.planes import SIDE, fitted, square
from editing.photo.transfer.spread import smooth

# In pixels of a picture of SIDE.
_FRINGE = 7.0  # across: at its border hair is half what is behind it
_THIN, _EVENLY, _FADES = 14.0, 8.0, 14.0
_SOLID = 0.9
_SLOWER = 0.7  # strokes get longer, and the longer the less hair there is
_FARTHEST = 3.0  # times as far as there is hair to be shown again


def going_on(own: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where in the photo's hair that which goes on beyond it is taken from.

    Row by row beside it, since strands run down there, and column by column below it.

    Args:
        own: (s, s) share of hair in the photo.

    Returns:
        Below it, right and left of it: (s, s, 2) x, y: how far away that is, in pixels, and (s, s) 0 to 1: how far it
        is to be used; later ones over the earlier.
    """
    half = own.shape[0] // 2
    solid = cv2.erode(fitted(own, (half, half)), square(_FRINGE, half)) > _SOLID
    below, down = _mirrored(solid[::-1].T, half)
    right, beside = _mirrored(solid[:, ::-1], half // 2)
    left, at = _mirrored(solid, half // 2)
    nothing = np.zeros_like(below)
    found = [
        (cv2.merge([nothing, -below.T[::-1]]), down.T[::-1]),
        (cv2.merge([-right[:, ::-1], nothing]), beside[:, ::-1]),
        (cv2.merge([left, nothing]), at),
    ]
    return [(2.0 * fitted(away, own.shape), fitted(np.ascontiguousarray(sure), own.shape)) for away, sure in found]


def _mirrored(solid: np.ndarray, until: int) -> tuple[np.ndarray, np.ndarray]:
    """Left of what is set in an (h, w) bool mask: (h, w) how far to the right what goes on there is, and how surely.

    Args:
        solid: surely hair.
        until: hair from this column on does not count.
    """
    pixel, columns = solid.shape[0] / SIDE, np.arange(solid.shape[1])
    solid = solid.copy()
    solid[:, until:] = False
    edge = solid.argmax(axis=1)[:, None]
    gaps = np.cumsum((columns >= edge) & ~solid, axis=1)
    thick = np.count_nonzero((columns >= edge) & (gaps == 0), axis=1)[:, None]
    known = (thick > _THIN * pixel).astype(np.float32) * solid.any(axis=1, keepdims=True)
    if not known.any():
        return np.zeros(solid.shape, np.float32), np.zeros(solid.shape, np.float32)
    first, reach = (smooth(plane.astype(np.float32), known, _EVENLY * pixel) for plane in (edge, thick))
    near = np.clip(2.0 * cv2.GaussianBlur(known, (0, 0), _FADES * pixel) - 0.5, 0.0, 1.0)
    far = np.maximum(first - columns, 0.0).astype(np.float32)
    away = far + reach * np.tanh(_SLOWER * far / reach)
    return away, near * np.exp(-np.square(far / (_FARTHEST * reach))) * (far > 0.0)
