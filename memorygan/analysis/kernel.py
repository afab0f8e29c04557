"""Kernel distance between two sets of features (Bińkowski et al. 2018): unbiased, so that small sets compare too."""

from __future__ import annotations

from torch import Tensor


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Squared maximum mean discrepancy under the kernel (x·y / F + 1)³; about 0 for sets of one distribution.

    Args:
        first, second: (N, F) and (M, F).

    Raises:
        ValueError: for fewer than two vectors, or another number of features.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ValueError(
            f"a kernel distance needs two sets of at least two vectors of one length, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    first, second = first.double(), second.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1.0) ** 3

    def within(x: Tensor) -> Tensor:
        values, count = kernel(x, x), len(x)
        return (values.sum() - values.diagonal().sum()) / (count * (count - 1))  # a vector is no pair with itself

    return float(within(first) + within(second) - 2.0 * kernel(first, second).mean())
