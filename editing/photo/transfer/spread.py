"""Values known in places become a smooth field that is known everywhere (push-pull, Gortler et al. 1996)."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from editing.photo.transfer.planes import fitted, times

_COARSEST = 8  # pixels: of so few all are told from all (Shepard 1968)
_SELF = 0.25  # pixels squared
_FINE = 2.0  # pixels: a Gaussian as wide as that is smooth from one pixel to the next


def spread(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fills what is not known from what lies nearest, the smoother the farther away it is.

    Args:
        values: (h, w) or (h, w, C) float32.
        weights: (h, w) float32, 0 (unknown) to 1 (certain); where it is 1 the values stay.

    Returns:
        As ``values``; zeros if nothing is known at all.
    """
    planes = values if values.ndim == 3 else values[..., None]
    weights = weights.astype(np.float32, copy=False)
    levels = [(times(planes, weights), weights)]
    while max(levels[-1][1].shape) > _COARSEST and levels[-1][1].min() < 1.0:
        many, weight = (_halved(one) for one in levels[-1])
        # Full certainty is reached once a whole pixel's worth is known; beyond that more does not count more.
        full = 1.0 / np.maximum(weight, 0.25)
        levels.append((times(many, full), weight * full))
    many, weight = levels[-1]
    near = _nearness(*weight.shape)
    found = (near @ many.reshape(len(near), -1)) / np.maximum(near @ weight.reshape(-1, 1), 1e-6)
    found = many + times(found.reshape(many.shape), 1.0 - weight)
    for many, weight in reversed(levels[:-1]):
        found = many + times(fitted(found, weight.shape), 1.0 - weight)
    return found if values.ndim == 3 else found[..., 0]


def smooth(values: np.ndarray, weights: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of the values of weight (normalised convolution), and spread where there is none.

    Wide means are found at a half, a quarter … of the size: they have nothing fine.

    Args:
        values: (h, w, C) or (h, w) float32.
        weights: (h, w) float32, 0 to 1.
        sigma: in pixels.
    """
    planes = values if values.ndim == 3 else values[..., None]
    many, weight, size = times(planes, weights), weights.astype(np.float32, copy=False), weights.shape
    while sigma >= 2.0 * _FINE:
        many, weight, sigma = _halved(many), _halved(weight), sigma / 2.0
    weight = _blurred(weight, sigma)
    mean = times(_blurred(many, sigma), 1.0 / np.maximum(weight, 1e-4))
    found = fitted(spread(mean, np.clip(weight * 4.0, 0.0, 1.0)), size)
    return found if values.ndim == 3 else found[..., 0]


@lru_cache(maxsize=64)
def _nearness(height: int, width: int) -> np.ndarray:
    """(n, n) float32 how much each of the n pixels of a small picture says about each."""
    y, x = np.divmod(np.arange(height * width), width)
    apart = np.square(x[:, None] - x) + np.square(y[:, None] - y)
    return (1.0 / np.square(apart + _SELF)).astype(np.float32)


def _blurred(planes: np.ndarray, sigma: float) -> np.ndarray:
    # Nothing is known beyond the border.
    mean = cv2.GaussianBlur(planes, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return mean.reshape(planes.shape)


def _halved(planes: np.ndarray) -> np.ndarray:
    return fitted(planes, tuple((length + 1) // 2 for length in planes.shape[:2]))
