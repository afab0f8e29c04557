"""What a fit computes: directions of spread, slopes on them, and slopes that avoid one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Principal:
    """Whitened principal components of codes: z = (w − mean) @ to_z, of unit variance.

    Attributes:
        to_z: (D, R).
        back: (R, D); z @ back is the change of w.
    """

    to_z: Tensor
    back: Tensor


def principal(codes: Tensor, count: int) -> Principal:
    """The first principal components of (N, D) codes, at most ``count`` and a quarter of N."""
    centred = codes - codes.mean(dim=0)
    _, values, vectors = torch.linalg.svd(centred, full_matrices=False)
    deviations = values / math.sqrt(max(1, len(codes) - 1))
    rank = max(1, min(count, int((deviations > 1e-4 * deviations[0].clamp_min(1e-12)).sum()), len(codes) // 4))
    vectors, deviations = vectors[:rank], deviations[:rank].clamp_min(1e-12)
    return Principal(vectors.T / deviations, vectors * deviations[:, None])


def unbroken(values: Tensor) -> Tensor:
    """(N, …) values, not-a-number where a reading broke: a mouth that is not found is a picture's side away.

    That is farther from the median over N than twelve times the median distance (eight deviations of a Gaussian); where
    most values are the same, nothing is broken.
    """
    known = values.where(torch.isfinite(values), torch.nan)
    distance = (known - known.nanmedian(dim=0).values).abs()
    usual = distance.nanmedian(dim=0).values
    return known.where((distance <= 12.0 * usual) | (usual == 0), torch.nan)


def ridge(x: Tensor, y: Tensor) -> tuple[Tensor | None, float]:
    """Slope (R,) and share of variance explained on every fourth sample, which the fit does not see."""
    good = torch.isfinite(y)
    x, y = x[good], y[good]
    if len(y) < 16 or float(y.std()) < 1e-9:
        return None, 0.0
    held = torch.arange(len(y)) % 4 == 0
    best: tuple[float, float] = (-math.inf, 1.0)
    for penalty in (0.1, 1.0, 10.0, 100.0, 1000.0):
        slope = solve(x[~held], y[~held], penalty)
        left = y[held] - x[held] @ slope
        best = max(best, (1.0 - float(left.square().mean() / y[held].square().mean().clamp_min(1e-18)), penalty))
    return solve(x, y, best[1]), best[0]


def solve(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Slopes of a ridge regression without intercept: no change of the code, no change of the property."""
    return torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def orthogonal(slope: Tensor, taken: Sequence[Tensor]) -> Tensor | None:
    """Unit vector along what of the slope the directions before it leave; None if that is next to nothing."""
    left = slope.clone()
    for direction in taken:
        left -= (left @ direction) * direction
    length = float(left.norm())
    return left / length if length > 0.3 * float(slope.norm()) and length > 0 else None


def quieter(slope: Tensor, leaks: Tensor) -> Tensor:
    """The slope with less of what changes the picture outside the part.

    Maximises the effect for a given sum of step length and expected change outside: (E + ē·1)⁻¹ s, where dᵀ E d is
    the squared change outside for a step d, and ē its mean over directions.

    Args:
        slope: (R,) of the property.
        leaks: (R, M) slopes of the changes outside, see :func:`leak`.
    """
    energy = leaks @ leaks.T
    level = energy.diagonal().mean()
    if not float(level) > 1e-12:
        return slope
    return torch.linalg.solve(energy + level * torch.eye(len(slope), dtype=slope.dtype), slope)


def components(taken: Sequence[Tensor], scale: Principal, count: int) -> Iterator[Tensor]:
    """Unit z directions of the largest spread in w, orthogonal to those taken."""
    done, room = list(taken), len(taken) + count
    for axis in torch.eye(len(scale.back), dtype=scale.back.dtype):  # principal components come sorted
        direction = orthogonal(axis, done)
        if direction is not None and len(done) < room:
            done.append(direction)
            yield direction


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's, of two (N,) tensors; 0 where one of them does not vary."""
    return float(torch.corrcoef(torch.stack((x, y)))[0, 1].nan_to_num())
