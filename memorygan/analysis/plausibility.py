"""How plausible one face is: its distance from the real set's Gaussian in the space of a feature network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Plausibility:
    """Whitened principal components of real features.

    Attributes:
        mean: (F,) float64.
        whitening: (F, D) float64; features along the D strongest directions, each with unit variance on the real set.
    """

    mean: np.ndarray
    whitening: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, directions: int = 32) -> Plausibility:
        """Fits to real features (N, F).

        Args:
            features: of real faces.
            directions: D at most; at most a tenth of N are kept, so that their variances are known well.

        Raises:
            ValueError: for fewer than ten faces, or faces that are all equal.
        """
        values = np.asarray(features, dtype=np.float64)
        if values.ndim != 2 or len(values) < 10:
            raise ValueError(f"plausibility needs the features (N, F) of at least ten real faces, got {values.shape}")
        mean = values.mean(axis=0)
        covariance = np.atleast_2d(np.cov(values, rowvar=False))
        variances, vectors = np.linalg.eigh(covariance)
        kept = min(directions, len(values) // 10, int((variances > 1e-9 * variances.max()).sum()))
        if variances.max() <= 0 or kept < 1:
            raise ValueError("the real faces are all equal; plausibility relative to them is not defined")
        strongest = np.argsort(variances)[::-1][:kept]
        return cls(mean, vectors[:, strongest] / np.sqrt(variances[strongest]))

    def score(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance √(Σ_i z_i² / D) of features (N, F) → (N,); about 1 for real faces, lower is safer."""
        z = (np.asarray(features, dtype=np.float64) - self.mean) @ self.whitening
        return np.sqrt(np.square(z).mean(axis=1))


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean of first − second (N,) over the same faces, and its standard error; error nan for a single face."""
    difference = first - second
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else float("nan")
    return float(difference.mean()), float(error)
