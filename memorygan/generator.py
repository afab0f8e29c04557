"""MemoryGAN: working memory, mapping, long-term memory and composition (Algorithm 2 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from memorygan.composition import Fused, RenderNet, fuse
from memorygan.config import GeneratorConfig
from memorygan.controller import Controller, QueryCodes
from memorygan.latents import Latents, PartLatents, seeded_noise
from memorygan.layers import EqualLinear, pixel_norm
from memorygan.memory import LongTermMemory, PartMemory, Retrieved

if TYPE_CHECKING:
    from memorygan.fast.attention import HardAttention
    from memorygan.prior import CodePrior
    from memorygan.super_resolution import SuperResolution


@dataclass(frozen=True)
class Synthesis:
    """B composed faces.

    Attributes:
        image: (B, 3, S, S) float32, nominally in [−1, 1]; not clamped.
        mask: (B, K, S, S) float32 fine mask, near 2·one-hot − 1.
        coarse_mask: (B, K, s, s) float32, sums to 1 over the parts.
        depth: (B, K, s, s) float32 pseudo-depths; larger is nearer.
        latents: the codes that were rendered.
    """

    image: Tensor
    mask: Tensor
    coarse_mask: Tensor
    depth: Tensor
    latents: Latents

    @property
    def part_map(self) -> Tensor:
        """(B, S, S) int64 part ids of the fine mask."""
        return self.mask.argmax(dim=1)


class MappingNetwork(nn.Module):
    """Query codes → latent codes; one network for all parts."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        widths = [config.query_dim] + [config.style_dim] * config.mapping_layers
        self.layers = nn.Sequential(
            *(
                EqualLinear(i, o, lr_multiplier=config.mapping_lr_multiplier, activation=True)
                for i, o in pairwise(widths)
            )
        )

    def forward(self, q: Tensor) -> Tensor:
        """(..., Q) → (..., D)."""
        return self.layers(pixel_norm(q))


def worn_psi(truncation: float) -> float:
    """Psi of what a face wears, where that of the face is ``truncation``."""
    return min(1.0, 2.0 * truncation)


class ComposedGenerator(nn.Module):
    """What every generator of this family can do once it has latent codes: retrieve, fuse, render.

    A subclass decides where codes come from and what answers them: one shared memory, or one local generator per part.
    """

    memory: PartMemory
    mean_w: Tensor
    # Retrieves and fuses whole faces in one, if it can and that is faster; see memorygan/fast/attention.py.
    attention: HardAttention | None = None
    # Learned from pictures alone, and no part of these weights: a tuple hides it from the module's parameters.
    _beyond: tuple[SuperResolution, ...] = ()

    def __init__(self, config: GeneratorConfig, mean_slots: int) -> None:
        super().__init__()
        self.config = config
        self.render = RenderNet(config)
        self.register_buffer("mean_w", torch.zeros(mean_slots, config.style_dim))
        self.compute_dtype = torch.float32

    @property
    def device(self) -> torch.device:
        return self.mean_w.device

    @property
    def super_resolution(self) -> SuperResolution | None:
        """What :meth:`magnify` draws with; None if pictures are shown as the render net draws them."""
        return self._beyond[0] if self._beyond else None

    def enlarge_by(self, network: SuperResolution | None) -> None:
        """Sets :attr:`super_resolution`.

        Raises:
            ValueError: for a network that enlarges pictures of another size.
        """
        if network is not None and network.config.size != self.config.size:
            raise ValueError(f"it enlarges pictures of {network.config.size} pixels, not of {self.config.size}")
        if network is not None and network.config.parts != self.config.part_count:
            raise ValueError(f"it knows masks of {network.config.parts} parts, not of {self.config.part_count}")
        self._beyond = () if network is None else (network,)

    @property
    def picture_size(self) -> int:
        """Side in pixels of what :meth:`magnify` gives back."""
        return self.config.size * (1 if self.super_resolution is None else self.super_resolution.factor)

    def magnify(self, face: Synthesis) -> Synthesis:
        """Full pictures for people to look at: enlarged by super-resolution, if there is such a network.

        Codes are found, compared and optimised in the render net's own pictures, which this leaves as they are.
        """
        if self.super_resolution is None:
            return face
        # Out of focus, as behind people, grounds stay: in them there is no face to know detail of, only what the render
        # net left there.
        somebody = 0.5 - 0.5 * face.mask[:, :1].clamp(-1.0, 1.0)
        image, mask = self.super_resolution.with_masks(face.image.clamp(-1.0, 1.0), face.mask, somebody)
        return replace(face, image=image, mask=mask)

    def sample(self, seeds: Sequence[int], truncation: float = 1.0) -> Latents:
        """Latent codes of one random face per seed; each depends on its own seed alone, not on the batch.

        Args:
            seeds: non-negative integers.
            truncation: psi in [0, 1]; 1 keeps all variety, 0 gives the mean face.
        """
        raise NotImplementedError

    def retrieve(self, latents: Latents, parts: Sequence[str | int] | None = None) -> Retrieved:
        """Hidden features and pseudo-depths of the given parts (default: all, in order).

        Raises:
            ValueError: for an unknown part.
        """
        names = parts if parts is not None else range(self.config.part_count)
        indices = [self.config.parts.index(part) for part in names]
        styles = latents.w if parts is None else latents.w[:, indices]
        return self.memory(styles, indices, self.compute_dtype, latents.shared_base)

    def _present(self, parts: Sequence[str | int] | None) -> Tensor | None:
        if parts is None:
            return None
        present = torch.zeros(self.config.part_count, device=self.device)
        present[[self.config.parts.index(part) for part in parts]] = 1.0
        return present

    def compose(
        self,
        retrieved: Retrieved,
        latents: Latents,
        parts: Sequence[str | int] | None = None,
        size: int | None = None,
    ) -> Synthesis:
        """Fuses retrieved parts and renders them: what is left to do when a part was edited.

        Args:
            retrieved: all K parts, see :meth:`retrieve`.
            latents: the codes they came from.
            parts: which parts to compose, in any order; None for all.
            size: stop the render net at this side (preview), one of ``config.render_sizes``; None for the full size.

        Raises:
            ValueError: for an unknown part, an empty selection, or a size that the render net does not pass.
        """
        self.config.check_size(size)
        if parts is not None and not len(parts):
            raise ValueError("no part was chosen to compose; name at least one, for example 'background'")
        present = self._present(parts)
        # To multiply weights anew for every pass pays for the batches of training, not for one face.
        project = not (self.training and self.render.can_project)
        fused = fuse(retrieved, self.memory, self.config.parts.transparent, present, project)
        side = self.config.coarse_size
        return self._drawn(fused, retrieved.depth.unflatten(2, (side, side)), latents, size)

    def _drawn(self, fused: Fused, depth: Tensor, latents: Latents, size: int | None) -> Synthesis:
        image, mask = self.render(fused, size)
        return Synthesis(image, mask, fused.coarse_mask, depth, latents)

    def synthesize(
        self, latents: Latents, parts: Sequence[str | int] | None = None, size: int | None = None
    ) -> Synthesis:
        """Latent codes → faces. Arguments and errors as in :meth:`compose`."""
        self.config.check_size(size)
        asked_for_gradients = torch.is_grad_enabled() and latents.w.requires_grad
        if self.attention is not None and parts is None and not asked_for_gradients:
            seen = self.attention.see(latents)
            if seen is not None:
                return self._drawn(seen.fused, seen.depth, latents, size)
        return self.compose(self.retrieve(latents), latents, parts, size)

    def compose_sequence(
        self, latents: Latents, order: Sequence[str | int] | None = None, size: int | None = None
    ) -> Iterator[Synthesis]:
        """Adds the parts one by one in the given order (default: the scheme's) and yields the face after each step.

        The memory is queried once; every step only fuses and renders.

        Raises:
            ValueError: for an unknown or repeated part, or a size that the render net does not pass.
        """
        self.config.check_size(size)
        indices = [self.config.parts.index(part) for part in (order if order is not None else self.config.parts.names)]
        if len(set(indices)) != len(indices):
            raise ValueError("a part appears twice in the composition order; name every part once")
        retrieved = self.retrieve(latents)
        for step in range(1, len(indices) + 1):
            yield self.compose(retrieved, latents, indices[:step], size)


class MemoryGAN(ComposedGenerator):
    """The paper's generator: the controller queries one shared memory for every part."""

    memory: LongTermMemory
    # As super-resolution, it learned when these weights were done.
    _prior: tuple[CodePrior, ...] = ()

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config, mean_slots=1 + config.part_count)
        self.controller = Controller(config)
        self.mapping = MappingNetwork(config)
        self.memory = LongTermMemory(config)

    def forward(self, noise: Tensor) -> Synthesis:
        """Algorithm 2: standard normal noise (B, 1 + K, Q) → faces."""
        queries = self.controller(noise)  # one query code per part, Eq. 1
        latents = self.map(queries.codes).expand(self.config)  # shared mapping
        retrieved = self.retrieve(latents)  # one memory answers all queries, Eq. 3
        return self.compose(retrieved, latents)  # fusion and rendering, Eq. 5–7

    def map(self, codes: Tensor) -> PartLatents:
        """Query codes (B, 1 + K, Q) → latent codes."""
        return PartLatents(self.mapping(codes))

    def draw(self, codes: Tensor) -> Synthesis:
        """The faces that query codes (B, 1 + K, Q) stand for."""
        return self.synthesize(self.map(codes).expand(self.config))

    @property
    def mean_latents(self) -> PartLatents:
        """Mean code per slot, for truncation; (1, 1 + K, D)."""
        return PartLatents(self.mean_w[None])

    def sample_queries(self, seeds: Sequence[int], temperature: float = 1.0) -> QueryCodes:
        """Query codes that the controller writes, of one face per seed; each depends on its own seed, not on the batch.

        Raises:
            ValueError: if there is no seed, or one is negative.
        """
        noise = seeded_noise(seeds, (1 + self.config.part_count, self.config.query_dim))
        return self.controller(noise.to(self.device) * temperature)

    @property
    def prior(self) -> CodePrior | None:
        """What :meth:`sample` draws with; None if the controller does."""
        return self._prior[0] if self._prior else None

    def draw_by(self, prior: CodePrior | None) -> None:
        """Sets :attr:`prior`.

        Raises:
            ValueError: for one that draws codes of another shape.
        """
        if prior is not None:
            drawn = (prior.config.slots, prior.config.query_dim)
            if drawn != (expected := (1 + self.config.part_count, self.config.query_dim)):
                raise ValueError(f"it draws {drawn[0]} codes of {drawn[1]} numbers, not {expected[0]} of {expected[1]}")
        self._prior = () if prior is None else (prior,)

    def sample_codes(self, seeds: Sequence[int], temperature: float = 1.0) -> Tensor:
        """Query codes (B, 1 + K, Q) of one random face per seed: by the prior, or the controller if there is none.

        The prior computes on the processor, wherever the generator does: a seed is the same face on every device.

        Raises:
            ValueError: if there is no seed, or one is negative.
        """
        if self.prior is None:
            return self.sample_queries(seeds, temperature).codes
        noise = seeded_noise(seeds, (1 + self.config.part_count, self.config.query_dim))
        return self.prior.draw(noise * temperature).to(self.device)

    def sample(self, seeds: Sequence[int], truncation: float = 1.0, temperature: float = 1.0) -> Latents:
        """Latent codes of one random face per seed.

        Args:
            seeds: non-negative integers.
            truncation: psi in [0, 1]; 1 keeps all variety, 0 gives the mean face.
            temperature: scale of the noise.
        """
        return self.latents_of(self.sample_codes(seeds, temperature), truncation, self.prior is not None)

    def latents_of(self, codes: Tensor, truncation: float = 1.0, keep_worn: bool = False) -> Latents:
        """Latent codes of the faces that query codes (B, 1 + K, Q) stand for, truncated.

        Args:
            codes: of the faces.
            truncation: psi in [0, 1].
            keep_worn: what a face wears has twice the psi, 1 at most: glasses that are half there are no glasses.
        """
        latents = self.map(codes)
        truncated = latents.truncate(self.mean_latents, truncation)
        if keep_worn:
            slots = [1 + index for index in self.config.parts.worn]
            kept = latents.truncate(self.mean_latents, worn_psi(truncation))
            truncated.w[:, slots] = kept.w[:, slots]
        return truncated.expand(self.config)

    @torch.no_grad()
    def update_mean_latents(self, count: int = 4096, seed: int = 0) -> None:
        """Measures the mean latent code of every part over ``count`` sampled faces."""
        self.mean_w.copy_(self.map(self.sample_queries(range(seed, seed + count)).codes).w.mean(dim=0))
