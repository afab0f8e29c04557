"""A prior over the query codes of a face: what faces there are, as a flow from noise (Lipman et al. 2023).

The controller writes one Gaussian after another (Eq. 10), and faces are no chain of Gaussians: somebody wears a hat or
does not, and that shows in the hair, the ears and the background alike. Here all codes of a face are drawn at once,
each in sight of all others, by following a learned velocity from noise to codes. Every slot has a time of its own, so
that some may be given and the others drawn to suit them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.checkpoint import Provenance
from memorygan.network_file import load_network, network_config, save_network

KIND = "code-prior"
FILE = "prior.safetensors"  # beside the checkpoint whose codes it draws


@dataclass(frozen=True)
class PriorConfig:
    """Shape of a :class:`CodePrior`.

    Attributes:
        slots: 1 + K, the base code and one of each part.
        query_dim: Q, length of a query code.
        rank: R, directions of a slot in which faces differ; in the others a code is noise.
        width, blocks, heads: of the transformer.
        steps: of the flow, when codes are drawn.

    Raises:
        ValueError: for a combination that cannot be built.
    """

    slots: int = 14
    query_dim: int = 128
    rank: int = 32
    width: int = 160
    blocks: int = 6
    heads: int = 5
    steps: int = 10

    def __post_init__(self) -> None:
        if not 2 <= self.slots <= 256 or not 1 <= self.rank <= self.query_dim <= 4096:
            raise ValueError(f"need 2 to 256 slots and a rank from 1 to the length of a code, got {self}")
        if not 1 <= self.heads <= 64 or self.width % (2 * self.heads) or not 2 <= self.width <= 4096:
            raise ValueError(f"width must be a multiple of twice the heads, up to 4096, got {self}")
        if not 1 <= self.blocks <= 64 or not 1 <= self.steps <= 1000:
            raise ValueError(f"need 1 to 64 blocks and 1 to 1000 steps, got {self}")


class CodePrior(nn.Module):
    """Velocity of a flow from noise to the query codes of a face, and the draw that follows it.

    Attributes:
        mean: (S, Q) of faces' codes.
        axes: (S, Q, R) from coordinates of unit variance to codes.
        reading: (S, Q, R) from codes to those coordinates.
        spread: (S, Q) deviation of codes beside the axes.
        reach: () how far noise has to reach, so that draws are as wide as faces are: 1, or little more.
    """

    mean: Tensor
    axes: Tensor
    reading: Tensor
    spread: Tensor
    reach: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        slots, dim, rank, width = config.slots, config.query_dim, config.rank, config.width
        for name, shape in (("mean", (slots, dim)), ("axes", (slots, dim, rank)), ("spread", (slots, dim))):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("reading", torch.zeros(slots, dim, rank))
        self.register_buffer("reach", torch.ones(()))
        self.enter = nn.Parameter(torch.randn(slots, rank, width) / math.sqrt(rank))
        self.place = nn.Parameter(0.02 * torch.randn(slots, width))
        self.clock = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        block = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, config.blocks, nn.LayerNorm(width), enable_nested_tensor=False)
        self.leave = nn.Parameter(torch.zeros(slots, width, rank))
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(0, 3, width // 2), persistent=False)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Velocity of every slot.

        Args:
            x: (B, S, R) coordinates.
            time: (B, S) from 0, noise, to 1, a code.

        Returns:
            (B, S, R).
        """
        angles = time[..., None] * self.frequencies
        h = self.place + self.clock(torch.cat((angles.sin(), angles.cos()), dim=-1))
        h = self.blocks(h + torch.einsum("bsr,srw->bsw", x, self.enter))
        return torch.einsum("bsw,swr->bsr", h, self.leave)

    def coordinates(self, codes: Tensor) -> Tensor:
        """Codes (B, S, Q) → (B, S, R)."""
        return torch.einsum("bsq,sqr->bsr", codes - self.mean, self.reading)

    @torch.no_grad()
    def draw(self, noise: Tensor, codes: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        """Query codes of B faces.

        Args:
            noise: (B, S, Q) standard normal; scaled below 1 for safer faces.
            codes: (B, S, Q) of which some are given; None if all are drawn.
            given: (S,) bool, which; they come back as they are.

        Returns:
            (B, S, Q).

        Raises:
            ValueError: if the noise has another shape.
        """
        expected = (self.config.slots, self.config.query_dim)
        if noise.ndim != 3 or tuple(noise.shape[1:]) != expected:
            raise ValueError(f"expected noise of shape (B, {expected[0]}, {expected[1]}), got {tuple(noise.shape)}")
        if codes is None or given is None:
            codes, given = noise, torch.zeros(self.config.slots, dtype=torch.bool, device=noise.device)
        x = torch.where(given[:, None], self.coordinates(codes), self.reach * noise[..., : self.config.rank])
        step, before = 1.0 / self.config.steps, None
        for index in range(self.config.steps):
            time = torch.where(given, 1.0, step * index).expand(len(x), -1)
            velocity = self(x, time) * ~given[:, None]
            # Adams and Bashforth's of second order: a look at the network per step.
            x = x + step * (velocity if before is None else 1.5 * velocity - 0.5 * before)
            before = velocity
        beside = noise * self.spread
        beside = beside - torch.einsum("bsr,sqr->bsq", torch.einsum("bsq,sqr->bsr", beside, self.reading), self.axes)
        drawn = self.mean + torch.einsum("bsr,sqr->bsq", x, self.axes) + beside
        return torch.where(given[:, None], codes, drawn)


def save_prior(path: str | os.PathLike[str], prior: CodePrior, provenance: Provenance) -> str:
    """Writes it, as :func:`memorygan.network_file.save_network`."""
    return save_network(path, KIND, prior, provenance)


def load_prior(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> CodePrior:
    """That of a file, as :func:`memorygan.network_file.load_network`."""

    def build(meta: Mapping[str, Any]) -> CodePrior:
        return CodePrior(network_config(PriorConfig, meta))

    return load_network(path, KIND, build, device)
