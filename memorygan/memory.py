"""Long-term memory: the one local generator that all parts share (Eq. 3, 12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.config import GeneratorConfig
from memorygan.fast.operators import leaky_relu, weighted_sum
from memorygan.layers import EPSILON, GAIN, ConstantStyleConv, coordinate_grid

CHANNEL_BLOCK = 16  # channels that oneDNN computes as one


@dataclass(frozen=True)
class Retrieved:
    """What the memory returned for some parts of B faces, before fusion.

    Attributes:
        hidden: (B, K, P, C) last hidden layer on a grid of P = coarse_size² points. The projection to the feature
            comes with fusion: it is linear, so both orders give the same result (Eq. 6).
        depth: (B, K, P) float32 pseudo-depth; 0 for the background.
    """

    hidden: Tensor
    depth: Tensor

    def with_parts(self, indices: Sequence[int], parts: Retrieved) -> Retrieved:
        """A copy in which the given parts are taken from a retrieval of those alone; the others stay as they are."""
        chosen, hidden, depth = list(indices), self.hidden.clone(), self.depth.clone()
        hidden[:, chosen], depth[:, chosen] = parts.hidden, parts.depth
        return replace(self, hidden=hidden, depth=depth)


class PartMemory(nn.Module):
    """What answers the queries: one network for all parts, or (the baseline) one network per part."""

    def forward(self, styles: Tensor, parts: Sequence[int], dtype: torch.dtype, shared_base: bool = False) -> Retrieved:
        """Latent codes (B, K', L, D) of the K' given parts → their hidden features and pseudo-depths."""
        raise NotImplementedError

    def feature(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """Eq. 6: hidden features (B, K, P, C) of all parts and their weights (B, K, P) → fused feature (B, P, F)."""
        raise NotImplementedError

    def style_weights(self) -> Tensor:
        """How codes write styles: (L, C, D), or (K, L, C, D) with one network per part; scaled by 1/√D."""
        raise NotImplementedError

    def unprojected(self, hidden: Tensor, weights: Tensor) -> tuple[Tensor, Tensor] | None:
        """The fused feature as a product of a narrow map (B, P, C') and a float32 matrix (F, C'), where all parts share
        their projection and that is narrower; else None. Arguments as in :meth:`feature`.
        """
        return None


def memory_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One modulated layer: (N, P, C) points of N queries, (N, C, C') and (1, 1, C') → (N, P, C')."""
    # A row for every query: its gradient is summed over the grid first and then over the queries, which CPUs do two to
    # four times as fast as both at once.
    return leaky_relu(torch.baddbmm(bias.expand(len(x), 1, -1), x, weight))


class LongTermMemory(PartMemory):
    """A network of coordinates whose per-query weights are written by the latent code.

    ``local_layers`` modulated 1×1 layers on a grid of Fourier features. Which part comes out is decided by the code
    alone: nothing in here belongs to any part.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        layers, channels = config.local_layers, config.local_channels
        inputs = 2 + 4 * config.fourier_frequencies
        self.base_layers, self.depth_layers = config.base_layers, config.depth_layers
        self.local_layers = layers
        self.grid: Tensor
        self.register_buffer("grid", coordinate_grid(config.coarse_size, config.fourier_frequencies), persistent=False)
        self.position = nn.Parameter(torch.randn(channels, inputs))
        self.weight = nn.Parameter(torch.randn(layers, channels, channels))
        self.bias = nn.Parameter(torch.zeros(layers, channels))
        self.style_weight = nn.Parameter(torch.randn(layers, channels, config.style_dim))
        self.style_bias = nn.Parameter(torch.ones(layers, channels))
        self.to_depth = ConstantStyleConv(channels, 1, 1, demodulate=False, activation=False)
        self.to_feature = ConstantStyleConv(channels, config.coarse_channels, 1, demodulate=False, activation=False)

    def forward(self, styles: Tensor, parts: Sequence[int], dtype: torch.dtype, shared_base: bool = False) -> Retrieved:
        """Queries the memory for the given parts, all of them as one batch of B·K through the same weights.

        Args:
            styles: (B, K', L, D) latent codes per layer of the K' wanted parts.
            parts: their K' part indices; index 0 is the background.
            dtype: arithmetic of the grid passes (float32 or bfloat16).
            shared_base: the base-layer codes are the same for all foreground parts of a face, so that these layers
                are computed once per face instead of once per part.
        """
        batch, count = styles.shape[:2]
        weights, bias = self.modulated(styles, dtype)  # L × (B·K', C, C), (L, 1, 1, C)
        x, first = self.inputs(dtype), 0
        if shared_base and count > 2:
            x, first = self._shared_base(x, weights, bias, parts, batch), self.base_layers
        else:
            x = x.expand(batch * count, -1, -1)  # (B·K', P, C)
        depth = None
        for layer in range(first, len(weights)):
            x = memory_layer(x, weights[layer], bias[layer])
            if layer + 1 == self.depth_layers:
                depth = self._depth(x, parts, batch)
        if depth is None:
            raise RuntimeError("depth_layers lies beyond the last layer")
        return Retrieved(x.unflatten(0, (batch, count)), depth)

    def style_weights(self) -> Tensor:
        """(L, C, D)."""
        return self.style_weight * (1.0 / math.sqrt(self.style_weight.shape[-1]))

    def inputs(self, dtype: torch.dtype) -> Tensor:
        """(P, C) the grid before the first layer, the same for all queries."""
        position = self.position * (1.0 / math.sqrt(self.position.shape[1]))
        return (self.grid @ position.T).to(dtype)

    def modulated(
        self, styles: Tensor, dtype: torch.dtype, start: int = 0, stop: int | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Layers ``start`` to ``stop`` as the latent codes (B, K', L, D) write them (Eq. 12).

        Returns:
            modulated, demodulated weights, transposed for ``x @ weight``: per layer (B·K', C_in, C_out); and biases
            (layers, 1, 1, C_out).
        """
        layers = slice(start, stop)
        codes = styles[:, :, layers].flatten(0, 1).transpose(0, 1)  # (layers, B·K', D)
        scale = (self.style_weight[layers] * (1.0 / math.sqrt(codes.shape[-1]))).transpose(1, 2)
        style = torch.baddbmm(self.style_bias[layers, None], codes, scale)  # (layers, B·K', C_in)
        weight = self.weight[layers] * (1.0 / math.sqrt(self.weight.shape[-1]))  # (layers, C_out, C_in)
        norm = torch.rsqrt(style.square() @ weight.square().transpose(1, 2) + EPSILON) * GAIN  # (layers, B·K', C_out)
        weights = [
            (weight[i].T * style[i][:, :, None] * norm[i][:, None, :]).to(dtype)  # (B·K', C_in, C_out)
            for i in range(len(weight))
        ]
        return weights, (self.bias[layers] * GAIN).to(dtype)[:, None, None]

    def _shared_base(self, x: Tensor, weights: list[Tensor], bias: Tensor, parts: Sequence[int], batch: int) -> Tensor:
        """Base layers on the grid x (P, C) for the background, if wanted, and once for all foreground parts."""
        count = len(parts)
        foreground = next(i for i, part in enumerate(parts) if part != 0)
        chosen = [parts.index(0), foreground] if 0 in parts else [foreground]

        # Slices are stacked where a list of rows could be an index: that list would be copied from the host.
        def pick(tensor: Tensor, rows: Sequence[int]) -> Tensor:
            return torch.stack([tensor[:, row] for row in rows], dim=1).flatten(0, 1)

        x = x.expand(batch * len(chosen), -1, -1)  # the same grid for every query
        for layer in range(self.base_layers):
            weight = pick(weights[layer].unflatten(0, (batch, count)), chosen)
            x = memory_layer(x, weight, bias[layer])
        shared = chosen.index(foreground)
        rows = [chosen.index(i) if part == 0 else shared for i, part in enumerate(parts)]
        return pick(x.unflatten(0, (batch, len(chosen))), rows)  # (B·K', P, C)

    def _depth(self, x: Tensor, parts: Sequence[int], batch: int) -> Tensor:
        """(B, K', P) float32 pseudo-depth; the background lies at 0."""
        weight, bias = self.to_depth.folded()
        depth = (x @ weight.flatten().to(x.dtype)).float() + bias  # (B·K', P)
        rows = depth.unflatten(0, (batch, len(parts))).unbind(dim=1)
        return torch.stack(
            [d if part != 0 else torch.zeros_like(d) for part, d in zip(parts, rows, strict=True)], dim=1
        )

    def feature(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """Eq. 6 with the shared projection after the sum: Σ_k M_k (W x_k + b) = W Σ_k M_k x_k + b Σ_k M_k.

        Args:
            hidden: (B, K, P, C) last hidden layers.
            weights: (B, K, P) float32 weights M of the parts.

        Returns:
            (B, P, coarse_channels).
        """
        summed = weighted_sum(weights.to(hidden.dtype), hidden)
        return self.project(summed, weights.sum(dim=1))

    def unprojected(self, hidden: Tensor, weights: Tensor) -> tuple[Tensor, Tensor] | None:
        """Eq. 6 before its projection: columns Σ_k M_k x_k and Σ_k M_k, for the matrix [W b].

        Padded with zeros to whole vectors of the CPU: (B, P, C') and (F, C') with C' = C + 1 rounded up.
        """
        weight, bias = self.to_feature.folded()
        pad = -(weight.shape[1] + 1) % CHANNEL_BLOCK
        matrix = F.pad(torch.cat((weight.flatten(1), bias[:, None]), dim=1), (0, pad))
        if matrix.shape[1] >= len(matrix):
            return None
        total = F.pad(weights.sum(dim=1)[..., None], (0, pad)).to(hidden.dtype)
        return torch.cat((weighted_sum(weights.to(hidden.dtype), hidden), total), dim=-1), matrix

    def project(self, hidden: Tensor, weight_sum: Tensor) -> Tensor:
        """Weighted sum of hidden layers → feature, (..., P, C) → (..., P, coarse_channels).

        Args:
            hidden: that sum.
            weight_sum: (..., P) sum of the weights in it, which the bias has to follow.
        """
        weight, bias = (t.to(hidden.dtype) for t in self.to_feature.folded())
        return hidden @ weight.flatten(1).T + weight_sum[..., None].to(hidden.dtype) * bias
