"""What is new in a part's codes, given the codes before it: independent standard normal numbers, as noise is.

Codes of real faces fill a few directions of their space, and not as a Gaussian does: glasses are there or not. What the
parts before explain is taken away by a regression; what remains is made Gaussian by turns of marginal Gaussianisation
and rotation (Chen and Gopinath 2000; Laparra, Camps-Valls and Malo 2011).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS = 8
RIDGE = 20.0  # faces' worth of belief that nothing explains anything
_FLOOR = 1e-6


@dataclass(frozen=True)
class Principal:
    """Directions in which vectors spread most.

    Attributes:
        mean: (Q,).
        axes: (Q, P) orthonormal, widest first.
        variance: (P,).
    """

    mean: Tensor
    axes: Tensor
    variance: Tensor

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, count: int) -> Principal:
        """Of N vectors (N, Q) that count ``weight`` (N,)."""
        share = (weight / weight.sum())[:, None]
        mean = (share * x).sum(dim=0)
        centred = x - mean
        variance, axes = torch.linalg.eigh(centred.T @ (share * centred))  # ascending
        return cls(mean, axes[:, -count:].flip(1), variance[-count:].flip(0))

    def whiten(self, x: Tensor) -> Tensor:
        """(N, Q) → (N, P) of unit variance."""
        return (x - self.mean) @ self.axes / self.variance.clamp_min(_FLOOR).sqrt()


def gaussianised(x: Tensor, weight: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Numbers (N, P) for N vectors (N, P), near to independent standard normal ones; neighbours stay neighbours."""
    for _ in range(rounds):
        x = Principal.of(x, weight, x.shape[1]).whiten(x)
        order = x.argsort(dim=0)
        ranked = weight[order]
        below = (ranked.cumsum(dim=0) - 0.5 * ranked) / weight.sum()  # in (0, 1)
        x = torch.empty_like(x).scatter_(0, order, math.sqrt(2.0) * torch.erfinv(2.0 * below - 1.0))
    return x


def innovations(codes: Tensor, weight: Tensor, rooms: Mapping[int, int], count: int) -> dict[int, Tensor]:
    """What each slot says beyond those before it.

    Args:
        codes: (N, 1 + K, Q), in the order in which the controller writes them.
        weight: (N,) how much each face counts.
        rooms: slot → how many numbers may tell of it, P or fewer: of its widest directions.
        count: P, directions of a slot that are looked at.

    Returns:
        Slot → (N, room), near to standard normal and independent of the slots before.
    """
    whitened = [Principal.of(codes[:, slot], weight, count).whiten(codes[:, slot]) for slot in range(codes.shape[1])]
    found = {}
    for slot, room in rooms.items():
        before = torch.cat(whitened[:slot], dim=1)
        known = torch.cat((before, before.square() - 1.0, torch.ones(len(before), 1).to(before)), dim=1)
        weighed = known * (weight / weight.mean())[:, None]
        belief = RIDGE * torch.eye(known.shape[1]).to(known)
        explained = known @ torch.linalg.solve(weighed.T @ known + belief, weighed.T @ whitened[slot])
        found[slot] = gaussianised((whitened[slot] - explained)[:, :room], weight)
    return found
