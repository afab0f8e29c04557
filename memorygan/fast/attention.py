"""Hard attention: the memory is asked for a part only where that part can be seen.

The paper leaves it to future work that small parts cost as much as large ones. Three things help here. The memory is a
network of coordinates, so it answers at any set of points. Eq. 5 is a softmax over pseudo-depths: a part far below the
others adds nothing. And the depth comes before the texture layers: what is not seen needs none of those.

1. The depths of all parts are computed on a lattice, a fraction of the grid.
2. On a lattice twice as fine they are interpolated. Where a part comes near to being seen, or may have been missed
   because depths bend there, its depth is computed. This is repeated until the lattice is the grid.
3. Where a part has weight in the fusion (Eq. 6), it goes through the texture layers and is added to what is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.composition import Fused, as_map, coarse_mask, feature_weights
from memorygan.config import GeneratorConfig
from memorygan.fast.hardware import multiplies_cheaply
from memorygan.fast.pieces import pieces
from memorygan.latents import Latents
from memorygan.memory import LongTermMemory, memory_layer

# Along a side, the first lattice has at least LATTICE points, and so many that each of K parts may have PER_PART² of
# them; but at most half the grid's.
LATTICE, PER_PART = 16, 2
# A depth is computed where an interpolated one beside it, raised by what interpolation may have missed, gives the part
# at least e^-MARGIN of the softmax, and texture where the part's weight is at least VISIBLE. How close that comes:
# memorygan/analysis/hard_attention.py.
MARGIN = 14.0
VISIBLE = 5e-5
# If this share of all depths has to be computed, the full computation is as fast.
WORTHWHILE = 0.75
# Points that are multiplied with the weights of one part at a time.
BLOCK = 64


# K · P · C² above which it pays, measured; in bfloat16 the products are so fast that the rest of the work shows.
PAYS = {torch.float32: 2e7, torch.bfloat16: 1e9}


def pays(config: GeneratorConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether whole faces are faster with hard attention. Not with AMX, for which it was not measured, nor on a GPU."""
    work = config.part_count * config.coarse_size**2 * config.local_channels**2
    return device.type == "cpu" and not multiplies_cheaply(device, dtype) and work >= PAYS[dtype]


@dataclass(frozen=True)
class Work:
    """What was computed, in points of one part.

    Attributes:
        depths: through the layers up to the pseudo-depth.
        textures: through the texture layers.
        full: B · K · P, what the full computation takes through all of them.
    """

    depths: int
    textures: int
    full: int

    def __add__(self, other: Work) -> Work:
        return Work(self.depths + other.depths, self.textures + other.textures, self.full + other.full)


@dataclass(frozen=True)
class Seen:
    """Some faces as far as they can be seen.

    Attributes:
        fused: their features and coarse masks.
        depth: (B, K, S, S) pseudo-depths, interpolated where a part cannot be seen.
        work: what it took.
    """

    fused: Fused
    depth: Tensor
    work: Work


class HardAttention:
    """Retrieval and fusion in one, of whole faces and without gradients.

    Args:
        memory: of a generator on the CPU whose weights do not change any more.
        config: of that generator.
        dtype: arithmetic of the grid passes, float32 or bfloat16.
    """

    def __init__(self, memory: LongTermMemory, config: GeneratorConfig, dtype: torch.dtype) -> None:
        self.memory, self.dtype, self.side = memory, dtype, config.coarse_size
        self.transparent = config.parts.transparent
        lattice = max(LATTICE, PER_PART * config.part_count**0.5)
        coarsest = max(2, 1 << int(math.log2(self.side / lattice))) if lattice < self.side else 2
        self.strides = [2**i for i in reversed(range(coarsest.bit_length()))]
        self.inputs = memory.inputs(dtype)
        weight, self.depth_bias = memory.to_depth.folded()
        self.depth_weight = weight.flatten().to(dtype)
        self.bytes_per_face = config.part_count * self.side**2 * config.local_channels * dtype.itemsize

    def see(self, latents: Latents) -> Seen | None:
        """What can be seen of B faces; as the full computation has it but for what cannot.

        None if most parts may be seen at most points, and nothing would be gained.
        """
        if self.memory.weight.device != self.inputs.device:  # the generator was moved
            return None
        found = []
        for rows in pieces(len(latents.w), self.bytes_per_face):
            seen = self._see(latents[rows])
            if seen is None:
                return None
            found.append(seen)
        if len(found) == 1:
            return found[0]
        return Seen(
            Fused(torch.cat([s.fused.feature for s in found]), torch.cat([s.fused.coarse_mask for s in found])),
            torch.cat([s.depth for s in found]),
            sum((s.work for s in found), Work(0, 0, 0)),
        )

    def _see(self, latents: Latents) -> Seen | None:
        memory, side, points = self.memory, self.side, self.side**2
        batch, parts = latents.w.shape[:2]
        first = memory.base_layers if latents.shared_base else 0
        layers = _Layers(memory, latents.w, self.dtype, first, memory.depth_layers)
        inputs, per_face, per_part = self._inputs(latents)
        answers = _Answers(batch * parts * points)
        depth = torch.zeros(batch, parts, side // self.strides[0], side // self.strides[0])
        wanted = torch.ones_like(depth, dtype=torch.bool)
        for stride in self.strides:
            n = side // stride
            if answers.count:
                missed = _missed(depth)
                depth = _finer(depth)
                wanted = _widened(depth + missed - depth.logsumexp(dim=1, keepdim=True) > -MARGIN)
                wanted &= answers.missing.view(batch, parts, side, side)[:, :, ::stride, ::stride]
            if stride > 1:
                wanted[:, 0] = False  # the background's depth is known, and its texture no reason to ask for more
            face, part, cell = wanted.flatten(2).nonzero(as_tuple=True)
            if answers.count + len(face) > WORTHWHILE * batch * parts * points:
                return None
            point = _lattice(side, stride).index_select(0, cell)
            query = face * parts + part
            answer, place = layers(inputs, face * per_face + part.clamp(max=1) * per_part + point, query)
            answers.add(query * points + point, answer, place)
            found = (answer @ self.depth_weight).float() + self.depth_bias
            depth.view(-1)[query * (n * n) + cell] = found.index_select(0, place)
            depth[:, 0] = 0.0
        mask = coarse_mask(depth.flatten(2))  # (B, K, P)
        weights = feature_weights(mask, self.transparent)
        face, part, point = ((weights > VISIBLE) & ~answers.missing.view_as(weights)).nonzero(as_tuple=True)
        query = face * parts + part
        where = query * points + point
        layers = _Layers(memory, latents.w, self.dtype, memory.depth_layers, memory.local_layers)
        hidden, place = layers(answers.table, answers.slot.index_select(0, where), query)
        hidden = hidden.index_select(0, place).float() * weights.view(-1).index_select(0, where)[:, None]
        summed = hidden.new_zeros(batch * points, hidden.shape[1]).index_add_(0, face * points + point, hidden)
        feature = memory.project(summed.to(self.dtype).unflatten(0, (batch, points)), weights.sum(dim=1))
        fused = Fused(as_map(feature), mask.unflatten(2, (side, side)))
        return Seen(fused, depth, Work(answers.count, len(face), batch * parts * points))

    def _inputs(self, latents: Latents) -> tuple[Tensor, int, int]:
        """What the part's own layers read: rows (R, C), and how many rows a face and a foreground part are further."""
        if not latents.shared_base:
            return self.inputs, 0, 0
        x, points = self.inputs.expand(2 * len(latents.w), -1, -1), len(self.inputs)
        weights, biases = self.memory.modulated(latents.w[:, :2], self.dtype, 0, self.memory.base_layers)
        for weight, bias in zip(weights, biases, strict=True):
            x = memory_layer(x, weight, bias)
        return x.flatten(0, 1), 2 * points, points


class _Layers:
    """Some layers of the memory as B · K queries write them, for any points of each query."""

    def __init__(self, memory: LongTermMemory, styles: Tensor, dtype: torch.dtype, start: int, stop: int) -> None:
        self.queries = styles.shape[0] * styles.shape[1]
        self.weights, self.biases = memory.modulated(styles, dtype, start, stop)

    def __call__(self, table: Tensor, source: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Rows ``source`` (N,) of a table (R, C), each for the query (N,) beside it, ascending.

        Returns:
            (N', C) answers with gaps, since each query fills whole blocks; and the row (N,) of each among them.
        """
        counts = torch.bincount(query, minlength=self.queries)
        mean = len(query) // max(1, int((counts > 0).sum()))
        bits = min(BLOCK.bit_length() - 1, max(3, mean.bit_length()))
        size = 1 << bits
        blocks = (counts + (size - 1)) >> bits
        shift = ((blocks.cumsum(0) - blocks) << bits) - (counts.cumsum(0) - counts)
        place = torch.arange(len(query)) + shift.index_select(0, query)
        total = int(blocks.sum())
        owner, rows = torch.zeros(total, dtype=torch.long), torch.zeros(total * size, dtype=torch.long)
        owner[place >> bits], rows[place] = query, source
        x = table.index_select(0, rows).view(total, size, -1)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = memory_layer(x, weight.index_select(0, owner), bias)
        return x.flatten(0, 1), place


class _Answers:
    """Hidden layers at the depth's tap, and where in the (B · K · P) points of all queries they belong."""

    def __init__(self, size: int) -> None:
        self.slot = torch.full((size,), -1)
        self.count = self._rows = 0
        self._tables: list[Tensor] = []

    def add(self, where: Tensor, answer: Tensor, place: Tensor) -> None:
        """The answers of the points ``where`` (N,) lie in rows ``place`` (N,) of (N', C)."""
        self.slot[where] = place + self._rows
        self._tables.append(answer)
        self._rows += len(answer)
        self.count += len(where)

    @property
    def missing(self) -> Tensor:
        """(B · K · P,) where there is none."""
        return self.slot < 0

    @property
    def table(self) -> Tensor:
        """(R, C) rows that ``slot`` counts."""
        return torch.cat(self._tables)


def _lattice(side: int, stride: int) -> Tensor:
    """Grid points of every ``stride``-th row and column."""
    line = torch.arange(0, side, stride)
    return (line[:, None] * side + line).flatten()


def _finer(depth: Tensor) -> Tensor:
    """(B, K, n, n) at every other point of (B, K, 2n, 2n): linear between them, constant beyond the last."""
    n = depth.shape[-1]
    line, spread = torch.arange(n), torch.zeros(2 * n, n)
    spread[2 * line, line] = 1.0
    spread[2 * line + 1, line] += 0.5
    spread[2 * line + 1, (line + 1).clamp(max=n - 1)] += 0.5
    return spread @ depth @ spread.T


def _missed(depth: Tensor) -> Tensor:
    """(B, K, n, n) → (B, K, 2n, 2n) by how much depths between the points may differ from the linear interpolation.

    It is an eighth of the second difference, per direction, as far as the lattice shows it.
    """
    n = depth.shape[-1]
    padded = F.pad(depth, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - 2 * depth + padded[..., 1:-1, :-2]
    along = padded[..., 2:, 1:-1] - 2 * depth + padded[..., :-2, 1:-1]
    return F.interpolate((across.abs() + along.abs()) / 8, size=(2 * n, 2 * n), mode="nearest")


def _widened(mask: Tensor) -> Tensor:
    """A mask (..., H, W) with its neighbours in all eight directions."""
    mask = F.pad(mask, (1, 1, 1, 1))
    mask = mask[..., :-2] | mask[..., 1:-1] | mask[..., 2:]
    return mask[..., :-2, :] | mask[..., 1:-1, :] | mask[..., 2:, :]
