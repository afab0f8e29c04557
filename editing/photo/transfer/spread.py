"""Values known in places become a smooth field that is known everywhere (push-pull, Gortler et al. 1996)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np


def spread(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fills what is not known from what lies nearest, the smoother the farther away it is.

    Args:
        values: (h, w) or (h, w, C) float32.
        weights: (h, w) float32, 0 (unknown) to 1 (certain); where it is 1 the values stay.

    Returns:
        As ``values``; zeros if nothing is known at all.
    """
    flat = values if values.ndim == 3 else values[..., None]
    total = np.concatenate([flat * weights[..., None], weights[..., None]], axis=2).astype(np.float32)
    levels = [total]
    while min(levels[-1].shape[:2]) > 1:
        height, width = levels[-1].shape[:2]
        half = cv2.resize(
            levels[-1], (max(1, (width + 1) // 2), max(1, (height + 1) // 2)), interpolation=cv2.INTER_AREA
        )
        half = half.reshape(*half.shape[:2], -1) * 4.0
        # Full certainty is reached once a whole pixel's worth is known; beyond that more does not count more.
        levels.append(half / np.maximum(half[..., -1:], 1.0))
    found: Any = levels[-1][..., :-1] / np.maximum(levels[-1][..., -1:], 1e-6)
    for level in reversed(levels[:-1]):
        size = (level.shape[1], level.shape[0])
        found = cv2.resize(found, size, interpolation=cv2.INTER_LINEAR).reshape(*level.shape[:2], -1)
        found = level[..., :-1] + (1.0 - level[..., -1:]) * found
    return found if values.ndim == 3 else found[..., 0]


def smooth(values: np.ndarray, weights: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of the values of weight (normalised convolution), and spread where there is none.

    Args:
        values: (h, w, C) or (h, w) float32.
        weights: (h, w) float32, 0 to 1.
        sigma: in pixels.
    """
    weight = cv2.GaussianBlur(weights, (0, 0), sigma)
    many = values * (weights[..., None] if values.ndim == 3 else weights)
    mean = cv2.GaussianBlur(many, (0, 0), sigma)
    mean = mean / np.maximum(weight[..., None] if values.ndim == 3 else weight, 1e-4)
    return spread(mean, np.clip(weight * 4.0, 0.0, 1.0))
