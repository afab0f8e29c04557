"""Latent codes as an explicit type: per-part codes, their per-layer expansion, mixing and interpolation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from memorygan.config import GeneratorConfig
from memorygan.parts import LayerGroup


def seeded_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """(B, *shape) standard normal, float32, on the CPU; each row depends on its own seed alone.

    Raises:
        ValueError: if there is no seed, or one is negative.
    """
    if not len(seeds):
        raise ValueError("no seed was given; name at least one, for example 0")
    if min(seeds) < 0:
        raise ValueError(f"seed {min(seeds)} is negative; use whole numbers from 0 on")
    rows = [np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


@dataclass(frozen=True)
class PartLatents:
    """One latent code w per part and one for the base, as the mapping network writes them.

    Attributes:
        w: (B, 1 + K, D); slot 0 is ``w_base``, slot 1 + k is part k.
    """

    w: Tensor

    def truncate(self, mean: PartLatents, psi: float) -> PartLatents:
        """Moves every code towards its part's mean: psi 1 keeps it, 0 gives the mean face."""
        return PartLatents(torch.lerp(mean.w.to(self.w), self.w, psi))

    def expand(self, config: GeneratorConfig) -> Latents:
        """(B, K, L, D): ``w_base`` in the base layers of the foreground, each part's own code everywhere else."""
        w = self.w[:, 1:, None].expand(-1, -1, config.local_layers, -1).clone()
        w[:, 1:, : config.base_layers] = self.w[:, :1, None]
        return Latents(w, config, shared_base=True)


@dataclass(frozen=True)
class Latents:
    """Latent codes of B faces for every part and local-generator layer (W+).

    Attributes:
        w: (B, K, L, D).
        config: the generator they belong to; gives layer groups and part names.
        shared_base: all foreground parts of a face have the same base-layer codes, so that a generator may compute
            those layers once. Operations that could break this clear it.

    Raises:
        ValueError: if the shape does not fit the generator.
    """

    w: Tensor
    config: GeneratorConfig
    shared_base: bool = False

    def __post_init__(self) -> None:
        expected = (self.config.part_count, self.config.local_layers, self.config.style_dim)
        if self.w.ndim != 4 or tuple(self.w.shape[1:]) != expected:
            raise ValueError(
                f"latents must have shape (B, {expected[0]}, {expected[1]}, {expected[2]}), got {tuple(self.w.shape)}"
            )

    def __len__(self) -> int:
        return len(self.w)

    def __getitem__(self, rows: slice | Sequence[int]) -> Latents:
        return replace(self, w=self.w[rows])

    def to(self, device: torch.device | str) -> Latents:
        return replace(self, w=self.w.to(device))

    def detach(self) -> Latents:
        return replace(self, w=self.w.detach())

    def with_w(self, w: Tensor, shared_base: bool = False) -> Latents:
        """The same kind of latents with other values."""
        return Latents(w, self.config, shared_base)

    def selection(
        self, parts: Iterable[str | int] | None = None, groups: Iterable[LayerGroup | str] | None = None
    ) -> Tensor:
        """(K, L) bool: the layers of the given parts.

        Args:
            parts: names or indices; None for all.
            groups: layer groups; None for the paper's rule of each part (section 4.5).

        Raises:
            ValueError: for an unknown part or layer group.
        """
        chosen = torch.zeros(self.w.shape[1:3], dtype=torch.bool, device=self.w.device)
        wanted_groups = None if groups is None else list(groups)
        for part in range(self.config.part_count) if parts is None else parts:
            index = self.config.parts.index(part)
            for group in self.config.parts[index].swap_groups if wanted_groups is None else wanted_groups:
                layers = self.config.layer_range(group)
                chosen[index, layers.start : layers.stop] = True
        return chosen

    def mix(
        self,
        other: Latents,
        parts: Iterable[str | int] | None = None,
        groups: Iterable[LayerGroup | str] | None = None,
        amount: float = 1.0,
    ) -> Latents:
        """Style mixing: takes the chosen parts and layer groups from ``other``.

        Args:
            other: latents of the same generator, B equal or 1.
            parts, groups: see :meth:`selection`.
            amount: 1 swaps, values between 0 and 1 interpolate; codes outside the selection stay bit-identical.

        Raises:
            ValueError: for an unknown part or layer group, or latents of another generator.
        """
        if other.w.shape[1:] != self.w.shape[1:]:
            raise ValueError("the two faces come from different generators; mix latents of one generator only")
        chosen = self.selection(parts, groups)
        taken = other.w if amount == 1.0 else torch.lerp(self.w, other.w.expand_as(self.w), amount)
        whole_base = bool(chosen[1:, : self.config.base_layers].all())
        no_base = not bool(chosen[1:, : self.config.base_layers].any())
        keeps = self.shared_base and (no_base or (whole_base and other.shared_base))
        return Latents(torch.where(chosen[None, :, :, None], taken, self.w), self.config, keeps)

    def lerp(self, other: Latents, amount: float) -> Latents:
        """Straight interpolation of every code; amount 0 is this face, 1 the other."""
        groups = (LayerGroup.BASE, LayerGroup.SHAPE, LayerGroup.TEXTURE)
        return self.mix(other, groups=groups, amount=amount)
