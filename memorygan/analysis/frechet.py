"""Fréchet distance between two sets of features, each taken for a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class FeatureStatistics:
    """A Gaussian fitted to N feature vectors.

    Attributes:
        mean: (F,) float64.
        covariance: (F, F) float64, unbiased (divided by N − 1).
    """

    mean: np.ndarray
    covariance: np.ndarray


def feature_statistics(features: Tensor | np.ndarray) -> FeatureStatistics:
    """Fits a Gaussian to features (N, F).

    Raises:
        ValueError: for another shape, fewer than two vectors, or values that are not finite.
    """
    values = np.asarray(features.cpu() if isinstance(features, Tensor) else features, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"features must have shape (N, F) with N at least 2, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("features hold values that are not finite numbers")
    return FeatureStatistics(values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False)))


def symmetric_sqrt(matrix: np.ndarray) -> np.ndarray:
    """The positive semi-definite square root of a symmetric positive semi-definite (F, F) float64 matrix.

    Eigenvalues that rounding made negative count as 0.
    """
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """d² = ‖μ₁ − μ₂‖² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½), never negative.

    This is FID if the features are Inception's. With N vectors per side it is biased upwards by about F/N, so only
    distances over equal counts compare.

    Raises:
        ValueError: if the two come from different feature networks.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"cannot compare {first.mean.size} features with {second.mean.size}; use one feature network for both"
        )
    root = symmetric_sqrt(first.covariance)
    product = root @ second.covariance @ root
    # The trace of a square root is the sum of the roots of the eigenvalues; symmetrised against rounding.
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2)
    cross = np.sqrt(np.clip(eigenvalues, 0.0, None)).sum()
    shift = float(np.square(first.mean - second.mean).sum())
    return max(0.0, shift + float(np.trace(first.covariance) + np.trace(second.covariance) - 2.0 * cross))


def frechet_between(first: Tensor | np.ndarray, second: Tensor | np.ndarray) -> float:
    """:func:`frechet_distance` of the Gaussians of two sets of features (N, F) and (M, F). Errors as there."""
    return frechet_distance(feature_statistics(first), feature_statistics(second))
