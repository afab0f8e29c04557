"""Texture is continued into a region from elsewhere in the picture, shifted as a whole so that it stays coherent."""

from __future__ import annotations

import cv2
import numpy as np

_COARSE = 64
_SHIFTS = 4
_LEAST_COVER = 0.12  # of what is wanted: a small piece laid many times would be seen as such
_NEARER = 0.35  # how much a shift by the whole side counts against one by nothing


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
    size = texture.shape[0]
    result, total = np.zeros_like(texture), np.zeros((size, size), np.float32)
    left, least = wanted.copy(), _LEAST_COVER * wanted.sum()
    for _ in range(_SHIFTS):
        shift = _best_shift(known, left)
        if shift is None:
            break
        matrix = np.array([[1, 0, -shift[0]], [0, 1, -shift[1]]], np.float32)
        there = cv2.warpAffine(known.astype(np.uint8), matrix, (size, size), flags=cv2.INTER_NEAREST).astype(bool)
        found = left & there
        if found.sum() < least:
            break
        weight = cv2.GaussianBlur(found.astype(np.float32), (0, 0), size / 128) * there
        laid = cv2.warpAffine(texture, matrix, (size, size), flags=cv2.INTER_NEAREST).reshape(texture.shape)
        result += weight[..., None] * laid
        total += weight
        left &= ~there
    # A piece that ends in the midst of what is wanted is seen as such: then rather none.
    covered = 1.0 - float(left.sum()) / max(float(wanted.sum()), 1.0)
    strength = np.clip((covered - 0.5) / 0.3, 0.0, 1.0)
    return result * (strength * wanted / np.maximum(total, 1.0 / 3.0))[..., None]


def _best_shift(known: np.ndarray, wanted: np.ndarray) -> tuple[int, int] | None:
    """x, y: what is wanted at a place is taken from this far away; None if nothing can be covered."""
    step = known.shape[0] / _COARSE

    def coarse(mask: np.ndarray) -> np.ndarray:
        return cv2.resize(mask.astype(np.float32), (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)

    source, target = (coarse(known) > 0.98).astype(np.float32), coarse(wanted)
    double = (2 * _COARSE, 2 * _COARSE)
    cover = np.fft.irfft2(np.fft.rfft2(source, double) * np.conj(np.fft.rfft2(target, double)), double)
    offsets = np.fft.fftfreq(2 * _COARSE, 1 / (2 * _COARSE))
    far = np.hypot(offsets[:, None], offsets[None, :]) / _COARSE
    score = cover * (1.0 - _NEARER * np.minimum(far, 1.0))
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    if cover[row, column] < 0.5:
        return None
    return round(float(offsets[column]) * step), round(float(offsets[row]) * step)
