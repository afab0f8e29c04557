"""Texture is continued into a region from elsewhere in the picture, shifted as a whole so that it stays coherent."""

from __future__ import annotations

import cv2
import numpy as np

_COARSE = 64
_SHIFTS = 4
_LEAST_COVER = 0.12  # of what is wanted: a small piece laid many times would be seen as such
_NEARER = 0.35  # how much a shift by the whole side counts against one by nothing
_OFFSETS = np.concatenate([np.arange(_COARSE), np.arange(-_COARSE, 0)])
# What comes from near by is more likely to belong there.
_WORTH = 1.0 - _NEARER * np.minimum(np.hypot(_OFFSETS[:, None], _OFFSETS[None, :]) / _COARSE, 1.0)


def continued(texture: np.ndarray, known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The texture of ``known`` laid over ``wanted``, by a few shifts that each cover as much as they can.

    Few dominant shifts are enough to complete most pictures (He and Sun 2012, Statistics of patch offsets).

    Args:
        texture: (n, n, C) float32 without its low frequencies.
        known: (n, n) bool, where it may be taken from.
        wanted: (n, n) bool, where it is needed.

    Returns:
        (n, n, C), 0 where it is not wanted or no shift reaches.
    """
    size, left = texture.shape[0], wanted.copy()
    rows, columns = np.nonzero(wanted)
    values, total = np.zeros((len(rows), texture.shape[2]), np.float32), np.zeros(len(rows), np.float32)
    top, start = (int(line.min(initial=size)) for line in (rows, columns))
    near = tuple(int(line.max(initial=0)) + 1 - first for line, first in ((rows, top), (columns, start)))
    source = _transformed((_coarse(known) > 0.98).astype(np.float32))
    for _ in range(_SHIFTS):
        shift = _best_shift(source, left)
        if shift is None:
            break
        x, y = columns + shift[0], rows + shift[1]
        there = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        there[there] = known[y[there], x[there]]
        found = np.zeros(near, np.float32)
        places = rows[there] - top, columns[there] - start
        found[places] = left[rows[there], columns[there]]
        if found.sum() < _LEAST_COVER * len(rows):
            break
        weight = cv2.GaussianBlur(found, (0, 0), size / 128)[places]
        values[there] += weight[:, None] * texture[y[there], x[there]]
        total[there] += weight
        left[rows[there], columns[there]] = False
    # A piece that ends in the midst of what is wanted is seen as such: then rather none.
    covered = 1.0 - float(left.sum()) / max(len(rows), 1)
    strength = float(np.clip((covered - 0.5) / 0.3, 0.0, 1.0))
    result = np.zeros_like(texture)
    result[rows, columns] = values * (strength / np.maximum(total, 1.0 / 3.0))[:, None]
    return result


def _coarse(mask: np.ndarray) -> np.ndarray:
    """(_COARSE, _COARSE) float32, how much of each place a mask covers."""
    return cv2.resize(mask.astype(np.float32), (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)


def _transformed(plane: np.ndarray) -> np.ndarray:
    """Fourier transform of a (_COARSE, _COARSE) plane with as much again of nothing around it."""
    found: np.ndarray = cv2.dft(cv2.copyMakeBorder(plane, 0, _COARSE, 0, _COARSE, cv2.BORDER_CONSTANT))
    return found


def _best_shift(source: np.ndarray, wanted: np.ndarray) -> tuple[int, int] | None:
    """x, y: what is wanted at a place is taken from this far away; None if nothing can be covered.

    Args:
        source: of where texture is known, see :func:`_transformed`.
        wanted: (n, n) bool.
    """
    product = cv2.mulSpectrums(source, _transformed(_coarse(wanted)), 0, conjB=True)
    cover = cv2.idft(product, flags=cv2.DFT_SCALE)
    score = cover * _WORTH
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    if cover[row, column] < 0.5:
        return None
    step = wanted.shape[0] / _COARSE
    return round(float(_OFFSETS[column]) * step), round(float(_OFFSETS[row]) * step)
