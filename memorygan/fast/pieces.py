"""Large batches in pieces, for CPUs.

A layer's output that fits the cache is still there when the next layer reads it. Beyond that, and above all where the
allocator hands every layer fresh pages from the operating system, a batch of faces takes longer than the faces one by
one. So a batch is cut where its largest activation would pass :data:`PIECE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import torch
from torch import Tensor

from memorygan.composition import Fused, RenderNet
from memorygan.memory import PartMemory, Retrieved

# Measured: pieces of 4 to 16 MiB are within a few per cent of each other, for small and large presets.
PIECE_BYTES = 8 * 2**20


def pieces(batch: int, bytes_per_face: int) -> Iterator[slice]:
    """Consecutive rows of a batch, as many at a time as :data:`PIECE_BYTES` allows, and one at least."""
    faces = max(1, PIECE_BYTES // bytes_per_face)
    for start in range(0, batch, faces):
        yield slice(start, min(start + faces, batch))


class PiecewiseMemory(PartMemory):
    """A memory that is asked about a few faces at a time; all parts of a face stay one batch."""

    def __init__(self, memory: PartMemory, points: int, channels: int) -> None:
        super().__init__()
        self.memory, self.points, self.channels = memory, points, channels

    def _pieces(self, batch: int, parts: int, dtype: torch.dtype) -> list[slice]:
        return list(pieces(batch, parts * self.points * self.channels * dtype.itemsize))

    def forward(self, styles: Tensor, parts: Sequence[int], dtype: torch.dtype, shared_base: bool = False) -> Retrieved:
        """As the memory's."""
        rows = self._pieces(len(styles), len(parts), dtype)
        answers: list[Retrieved] = [self.memory(styles[row], parts, dtype, shared_base) for row in rows]
        if len(answers) == 1:
            return answers[0]
        return Retrieved(torch.cat([a.hidden for a in answers]), torch.cat([a.depth for a in answers]))

    def style_weights(self) -> Tensor:
        """The memory's."""
        return self.memory.style_weights()

    def feature(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """As the memory's."""
        rows = self._pieces(len(hidden), hidden.shape[1], hidden.dtype)
        features = [self.memory.feature(hidden[row], weights[row]) for row in rows]
        return features[0] if len(features) == 1 else torch.cat(features)


class PiecewiseRender(RenderNet):
    """A render net that draws a few faces at a time."""

    def __init__(self, render: RenderNet, channels: Sequence[int]) -> None:
        """Takes over the modules of ``render``, whose block at ``sides[i]`` puts out ``channels[i]``."""
        torch.nn.Module.__init__(self)  # RenderNet's own would build new ones
        self.coarse_size, self.refine_sizes = render.coarse_size, render.refine_sizes
        self.sides, self.blocks = render.sides, render.blocks
        # The up-convolution's output, one row and column more than the block's.
        self.elements = [c * (2 * side + 1) ** 2 for side, c in zip(self.sides, channels, strict=True)]

    def forward(self, fused: Fused, size: int | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`RenderNet.forward`."""
        reached = len(list(takewhile(lambda side: size is None or side < size, self.sides)))
        largest = max(self.elements[: max(1, reached)])
        rows = pieces(len(fused.feature), largest * fused.feature.dtype.itemsize)
        drawn = [
            super(PiecewiseRender, self).forward(Fused(fused.feature[r], fused.coarse_mask[r]), size) for r in rows
        ]
        if len(drawn) == 1:
            return drawn[0]
        images, masks = zip(*drawn, strict=True)
        return torch.cat(images), torch.cat(masks)
