"""Faces that are rendered again and again, each time with some code changed, and measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from editing.sliders.directions import BASE
from editing.sliders.properties import Property, measure, scene
from memorygan.fast.folding import fold
from memorygan.generator import ComposedGenerator
from memorygan.latents import Latents
from memorygan.memory import Retrieved
from memorygan.parts import LayerGroup

_KEEP_BYTES = 2 * 2**30
# Areas along each side over which the change outside a part is averaged.
_AREAS = 8


@dataclass(frozen=True)
class Faces:
    """Sampled faces with what the memory returned for them.

    Attributes:
        latents: (N, K, L, D).
        retrieved: of all N, on the CPU in float16, because they are read again for every part; None if that would be
            more than 2 GiB, then the memory is asked again.
        own: (N, 1 + K, D) one code per part, slot 0 the base.
        dtype: in which the generator fuses what was retrieved.
    """

    latents: Latents
    retrieved: Retrieved | None
    own: Tensor
    dtype: torch.dtype


@dataclass(frozen=True)
class Batch:
    """Some composed faces.

    Attributes:
        measures: (b, number of properties) float64.
        images: (b, 3, S, S) in 8-bit steps.
        region: (b, S, S) bool, where the target is.
    """

    measures: Tensor
    images: Tensor
    region: Tensor


class Probe:
    """One generator, sampled and measured.

    Args:
        generator: any of the family that can sample.
        size: side at which pictures are measured; None for half the full size, at least 128.
        batch: faces rendered together.
        truncation: psi of all faces.
    """

    def __init__(self, generator: ComposedGenerator, size: int | None, batch: int, truncation: float) -> None:
        self.generator, self.batch, self.truncation = fold(generator), batch, truncation
        self.size = size or max(min(128, generator.config.size), generator.config.size // 2)

    def sample(self, seed: int, count: int) -> Faces:
        """Faces of seeds from ``seed`` on."""
        config = self.generator.config
        keep = 2 * count * config.part_count * config.coarse_size**2 * config.local_channels <= _KEEP_BYTES
        hidden, depth, codes, dtype = [], [], [], self.generator.compute_dtype
        for start in range(0, count, self.batch):
            seeds = range(seed + start, seed + min(count, start + self.batch))
            latents = self.generator.sample(seeds, self.truncation)
            codes.append(latents.w.cpu())
            if keep:
                retrieved = self.generator.retrieve(latents)
                dtype = retrieved.hidden.dtype
                hidden.append(retrieved.hidden.half().cpu())
                depth.append(retrieved.depth.cpu())
        w = torch.cat(codes)
        own = torch.cat((w[:, -1:, 0], w[:, :, config.local_layers - 1]), dim=1)
        retrieved_all = Retrieved(torch.cat(hidden), torch.cat(depth)) if keep else None
        return Faces(Latents(w, config), retrieved_all, own, dtype)

    @torch.no_grad()
    def lend(self, faces: Faces, part: str, codes: Tensor) -> Faces:
        """The faces, every second of which has another code of one part in its own layers.

        Args:
            faces: see :meth:`sample`.
            part: its name.
            codes: (M, D), lent in turn.
        """
        config, device = self.generator.config, self.generator.device
        k, first = config.parts.index(part), config.layer_range(LayerGroup.SHAPE).start
        rows = torch.arange(0, len(faces.own), 2)
        lent = codes.cpu()[torch.arange(len(rows)) % len(codes)]
        w, own = faces.latents.w.clone(), faces.own.clone()
        w[rows, k, first:], own[rows, 1 + k] = lent[:, None], lent
        retrieved = faces.retrieved
        if retrieved is not None:
            hidden, depth = retrieved.hidden.clone(), retrieved.depth.clone()
            for some in rows.split(self.batch):
                new = self.generator.retrieve(Latents(w[some].to(device), config), [k])
                hidden[some, k], depth[some, k] = new.hidden[:, 0].half().cpu(), new.depth[:, 0].cpu()
            retrieved = Retrieved(hidden, depth)
        return Faces(Latents(w, config), retrieved, own, faces.dtype)

    def _retrieved(self, faces: Faces, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Hidden layers (b, K, P, C), rounded to float16 steps, and depths (b, K, P) of some faces."""
        device = self.generator.device
        if faces.retrieved is None:
            found = self.generator.retrieve(faces.latents[rows].to(device))
            return found.hidden.half().to(found.hidden.dtype), found.depth
        return faces.retrieved.hidden[rows].to(device, faces.dtype), faces.retrieved.depth[rows].to(device)

    def render(
        self,
        faces: Faces,
        target: str,
        group: LayerGroup,
        properties: tuple[Property, ...],
        change: Tensor | None,
    ) -> Iterator[Batch]:
        """Composes all faces after adding ``change`` to one group of layers of the target.

        Args:
            faces: see :meth:`sample`.
            target: part name or "base".
            group: which layers.
            properties: what is measured.
            change: (N, D), or (N, K − 1, D) where every foreground part changes in its own way; None for none.
        """
        config, device = self.generator.config, self.generator.device
        # The parts whose codes the target moves.
        indices = list(range(1, config.part_count)) if target == BASE else [config.parts.index(target)]
        layers = config.layer_range(group)
        for start in range(0, len(faces.own), self.batch):
            rows = list(range(start, min(start + self.batch, len(faces.own))))
            w = faces.latents.w[rows].to(device)
            hidden, depth = self._retrieved(faces, rows)
            if change is not None:
                moved = change[rows].to(device)
                moved = moved[:, None] if moved.ndim == 2 else moved
                w[:, indices[0] : indices[-1] + 1, layers.start : layers.stop] += moved[:, :, None]
                new = self.generator.retrieve(Latents(w, config), indices)
                # Rounded as the stored ones are, or rounding would look like an effect.
                hidden[:, indices], depth[:, indices] = new.hidden.half().to(hidden.dtype), new.depth
            made = self.generator.compose(Retrieved(hidden, depth), Latents(w, config), size=self.size)
            images = (made.image.clamp(-1, 1) + 1.0) * 127.5
            region = torch.isin(made.part_map, torch.tensor(indices, device=device))
            yield Batch(measure(properties, scene(made, config.parts), target), images.cpu(), region.cpu())


def leak(old: Batch, new: Batch) -> Tensor:
    """(b, 3 · 8²) float64: the signed change outside the part, averaged over areas of the picture."""
    outside = ~(old.region | new.region)[:, None]
    return F.adaptive_avg_pool2d((new.images - old.images) * outside, _AREAS).flatten(1).double()
