"""Diversity and memorisation: how far faces are from each other, and from the nearest training face."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Pixels are compared at this side: what tells faces apart is still there, and thousands of them fit in memory.
COMPARE_SIZE = 64


@dataclass(frozen=True)
class Neighbours:
    """The nearest reference vectors of N vectors.

    Attributes:
        indices: (N, k) int64 into the reference, nearest first.
        distances: (N, k) float32, in the unit of the vectors.
    """

    indices: Tensor
    distances: Tensor


def pixel_vectors(images: Tensor, size: int = COMPARE_SIZE) -> Tensor:
    """Images as vectors whose Euclidean distance is the root mean square difference in steps of 255.

    Args:
        images: (B, 3, H, W) in [−1, 1]; values beyond are clamped.
        size: larger images are reduced to this side by area.

    Returns:
        (B, 3·s·s) float32.
    """
    images = images.float().clamp(-1, 1)
    if images.shape[-1] > size:
        images = F.adaptive_avg_pool2d(images, size)
    vectors = images.flatten(1)
    return vectors * (127.5 / vectors.shape[1] ** 0.5)


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """(N, M) Euclidean distances by one matrix product; both should be centred, so that little cancels."""
    return torch.cdist(first, second, compute_mode="use_mm_for_euclid_dist")


def mean_pairwise_distance(vectors: Tensor, block: int = 512) -> float:
    """Mean Euclidean distance over all N (N − 1) / 2 pairs of (N, F) vectors.

    Raises:
        ValueError: for fewer than two vectors.
    """
    count = len(vectors)
    if vectors.ndim != 2 or count < 2:
        raise ValueError(f"vectors must have shape (N, F) with N at least 2, got {tuple(vectors.shape)}")
    vectors, total = vectors - vectors.mean(dim=0), 0.0
    for start in range(0, count, block):
        # Against itself and what follows: every pair once.
        distances = _distances(vectors[start : start + block], vectors[start:])
        total += float(distances.triu(diagonal=1).double().sum())
    return total / (count * (count - 1) / 2)


def diversity_ratio(generated: Tensor, real: Tensor) -> float:
    """Mean pairwise distance of generated (N, F) over that of real (M, F) vectors; 1 means equally varied.

    Raises:
        ValueError: for fewer than two vectors, or real ones that are all equal.
    """
    reference = mean_pairwise_distance(real)
    if reference == 0.0:
        raise ValueError("the real faces are all equal; diversity relative to them is not defined")
    return mean_pairwise_distance(generated) / reference


def nearest_neighbours(vectors: Tensor, reference: Tensor, count: int = 1, block: int = 64) -> Neighbours:
    """The ``count`` nearest reference vectors of every vector, by Euclidean distance.

    Args:
        vectors: (N, F).
        reference: (M, F).
        count: k, at most M.
    """
    centre = reference.mean(dim=0)
    reference = reference - centre
    indices, distances = [], []
    for rows in (vectors - centre).split(block):
        # The matrix product rounds, which matters for near copies: it only makes a shortlist.
        likely = _distances(rows, reference).topk(min(len(reference), 2 * count + 8), largest=False).indices
        exact = (rows[:, None] - reference[likely]).norm(dim=2)
        order = exact.sort(dim=1, stable=True)
        indices.append(likely.gather(1, order.indices)[:, :count])
        distances.append(order.values[:, :count])
    return Neighbours(torch.cat(indices), torch.cat(distances))


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Squared maximum mean discrepancy under the kernel (x·y / F + 1)³; about 0 for sets of one distribution.

    Unbiased, so that small sets compare too (Bińkowski et al. 2018).

    Args:
        first, second: (N, F) and (M, F), N and M at least 2.
    """
    first, second = first.double(), second.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1.0) ** 3

    def within(x: Tensor) -> Tensor:
        values, count = kernel(x, x), len(x)
        return (values.sum() - values.diagonal().sum()) / (count * (count - 1))  # a vector is no pair with itself

    return float(within(first) + within(second) - 2.0 * kernel(first, second).mean())
