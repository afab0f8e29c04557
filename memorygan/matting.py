"""Matting of hair: how much of a pixel at its border is hair, and how much is what is seen between the strands.

A pixel there is a mixture of the colours that hair and what lies beside it have near by (Chuang et al., *A Bayesian
approach to digital matting*, 2001, with one colour each). Where these are alike or vary, colours tell nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from memorygan.parts import FACE_PARTS

_HAIR = FACE_PARTS.index("hair")
_BEHIND = [FACE_PARTS.index(name) for name in ("background", "skin", "ears", "neck", "cloth")]
# Shares of the side: how far from the border hair, and what is behind it, is surely nothing else; how far colours are
# alike; and how far inside and outside the border strands let through what is behind.
_INNER, _OUTER, _ALIKE = 1 / 32, 1 / 40, 1 / 40
_NEXT = 1 / 40
_LOOSE, _STRAY = 1 / 16, 1 / 24
_APART, _UNEVEN = 10.0, 5.0  # of CIELAB and in standard deviations: as good as nothing is told
_THIRD = 20.0  # of CIELAB
_NONE, _ALL = 0.1, 0.85  # a strand's own colour varies


@dataclass(frozen=True)
class _Colour:
    """Of hair or of what is behind, around each place: (h, w, 3) mean and variance of CIELAB, (h, w) whether known."""

    mean: np.ndarray
    variance: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, lab: np.ndarray, share: np.ndarray, reach: float) -> _Colour:
        side = max(share.shape)
        sure = cv2.erode((share > 0.95).astype(np.float32), _disc(2 * reach * side))

        def around(planes: np.ndarray) -> np.ndarray:
            total: np.ndarray = cv2.GaussianBlur(planes, (0, 0), _ALIKE * side * 2)
            return total

        near = around(sure)
        weight = (1.0 / np.maximum(near, 1e-4))[..., None]
        mean = around(lab * sure[..., None]) * weight
        variance = around(np.square(lab - mean) * sure[..., None]) * weight
        return cls(mean, variance, np.clip(50.0 * near, 0.0, 1.0))


def matted(pixels: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Masks whose border of hair follows its strands.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        masks: (H, W, K) float32 of :data:`memorygan.parts.FACE_PARTS`, sums to 1.

    Returns:
        The same; of hair, and of background, skin, ears, neck and cloth beside it, something may differ.
    """
    height, width = masks.shape[:2]
    side, half = max(height, width), (max(1, width // 2), max(1, height // 2))
    hair, behind = masks[..., _HAIR], masks[..., _BEHIND].sum(axis=2)
    inside, outside = ((share > 0.5).astype(np.float32) for share in (hair, behind))
    near = cv2.dilate(outside, _disc(_LOOSE * side)) * cv2.dilate(inside, _disc(_STRAY * side))
    if not near.any():
        return masks
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)
    small: Any = cv2.resize(lab, half, interpolation=cv2.INTER_AREA)
    own, other = (
        _Colour.of(small, cv2.resize(share, half, interpolation=cv2.INTER_AREA), reach)
        for share, reach in ((hair, _INNER), (behind, _OUTER))
    )
    apart = own.mean - other.mean
    squared = np.maximum(np.square(apart).sum(axis=2), 1e-3)
    uneven = ((own.variance + other.variance) * np.square(apart)).sum(axis=2) / squared
    told = squared / (squared + _UNEVEN**2 * uneven + _APART**2)
    told = np.clip(2.5 * told - 0.5, 0.0, 1.0) * own.known * other.known
    ground, apart, squared, told = (
        cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
        for field in (other.mean, apart, squared, told)
    )
    from_ground = lab - ground
    share = (from_ground * apart).sum(axis=2) / squared
    # A third thing is neither the one nor the other, nor a mixture.
    third = np.square(from_ground - np.clip(share, 0.0, 1.0)[..., None] * apart).sum(axis=2)
    told *= np.exp(-third / (2.0 * _THIRD**2)) * cv2.GaussianBlur(near, (0, 0), side / 128)
    share = np.clip((share - _NONE) / (_ALL - _NONE), 0.0, 1.0)
    more = (share * (hair + behind) - hair) * told
    result = masks.copy()
    result[..., _HAIR] += more
    # What hair leaves goes to what is next to it, and what it takes was that.
    next_to: Any = cv2.GaussianBlur(masks[..., _BEHIND], (0, 0), _NEXT * side)
    beside = next_to / np.maximum(next_to.sum(axis=2, keepdims=True), 1e-6)
    left = np.maximum(more, 0.0) / np.maximum(behind, 1e-6)
    result[..., _BEHIND] = masks[..., _BEHIND] * (1.0 - left)[..., None] - np.minimum(more, 0.0)[..., None] * beside
    return result


def _disc(pixels: float) -> np.ndarray:
    wide = 2 * round(pixels / 2) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wide, wide))
