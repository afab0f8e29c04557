"""The baseline: SemanticStyleGAN, with one local generator per part where MemoryGAN has one memory.

Source: Shi, Yang, Wan, Shen, "SemanticStyleGAN: Learning Compositional Generative Priors for Controllable Image
Synthesis and Editing", CVPR 2022. Mapping, fusion and render net are the very same modules as MemoryGAN's, so that a
comparison of the two measures the local generators alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memorygan.config import GeneratorConfig
from memorygan.fast.operators import leaky_relu
from memorygan.generator import ComposedGenerator, MappingNetwork, Synthesis
from memorygan.latents import Latents, PartLatents, seeded_noise
from memorygan.layers import EPSILON, GAIN, coordinate_grid
from memorygan.memory import PartMemory, Retrieved


class LocalNets(PartMemory):
    """K local generators of the same shape, each with its own weights; only the positional projection is shared.

    Their parameters are stacked along a first dimension of K, so that all parts of all faces are one batch here too:
    the comparison with MemoryGAN is not won by a slow loop. Asking for one part after another runs them one by one.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        parts, layers, channels = config.part_count, config.local_layers, config.local_channels
        inputs = 2 + 4 * config.fourier_frequencies
        self.depth_layers = config.depth_layers
        self.grid: Tensor
        self.register_buffer("grid", coordinate_grid(config.coarse_size, config.fourier_frequencies), persistent=False)
        self.position = nn.Parameter(torch.randn(channels, inputs))
        self.weight = nn.Parameter(torch.randn(parts, layers, channels, channels))
        self.bias = nn.Parameter(torch.zeros(parts, layers, channels))
        self.style_weight = nn.Parameter(torch.randn(parts, layers, channels, config.style_dim))
        self.style_bias = nn.Parameter(torch.ones(parts, layers, channels))
        # The background has no pseudo-depth: row k − 1 belongs to part k.
        self.depth_weight = nn.Parameter(torch.randn(parts - 1, channels))
        self.depth_modulation = nn.Parameter(torch.ones(parts - 1, channels))
        self.depth_bias = nn.Parameter(torch.zeros(parts - 1))
        self.feature_weight = nn.Parameter(torch.randn(parts, config.coarse_channels, channels))
        self.feature_modulation = nn.Parameter(torch.ones(parts, channels))
        self.feature_bias = nn.Parameter(torch.zeros(parts, config.coarse_channels))

    def forward(self, styles: Tensor, parts: Sequence[int], dtype: torch.dtype, shared_base: bool = False) -> Retrieved:
        """Runs the local generators of the given parts as one batch.

        Args:
            styles: (B, K', L, D) latent codes per layer of the K' wanted parts.
            parts: their K' part indices; index 0 is the background.
            dtype: arithmetic of the grid passes (float32 or bfloat16).
            shared_base: of no use here; equal codes still meet different weights in every part.
        """
        batch, count = styles.shape[:2]
        weights = self._weights(styles, parts, dtype)  # L × (B·K', C, C)
        bias = (self._of(self.bias, parts) * GAIN).to(dtype)  # (K', L, C)
        position = self.position * (1.0 / math.sqrt(self.position.shape[1]))
        x = (self.grid @ position.T).to(dtype).expand(batch * count, -1, -1)  # (B·K', P, C)
        depth = None
        for layer, weight in enumerate(weights):
            x = leaky_relu(torch.baddbmm(bias[:, layer].repeat(batch, 1)[:, None], x, weight))
            if layer + 1 == self.depth_layers:
                depth = self._depth(x.unflatten(0, (batch, count)), parts)
        if depth is None:
            raise RuntimeError("depth_layers lies beyond the last layer")
        return Retrieved(x.unflatten(0, (batch, count)), depth)

    def style_weights(self) -> Tensor:
        """(K, L, C, D)."""
        return self.style_weight * (1.0 / math.sqrt(self.style_weight.shape[-1]))

    def _of(self, parameter: Tensor, parts: Sequence[int]) -> Tensor:
        """The rows of the given parts, without a copy if that is all of them."""
        return parameter if list(parts) == list(range(len(parameter))) else parameter[list(parts)]

    def _weights(self, styles: Tensor, parts: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
        """Modulated, demodulated weights, transposed for ``x @ weight``: L tensors (B·K', C_in, C_out)."""
        codes = styles.permute(1, 2, 3, 0)  # (K', L, D, B)
        style = self._of(self.style_weight, parts) @ codes * (1.0 / math.sqrt(styles.shape[-1]))
        style = style + self._of(self.style_bias, parts)[..., None]  # (K', L, C_in, B)
        weight = self._of(self.weight, parts) * (1.0 / math.sqrt(self.weight.shape[-1]))  # (K', L, C_out, C_in)
        norm = torch.rsqrt(weight.square() @ style.square() + EPSILON) * GAIN  # (K', L, C_out, B)
        style, norm = style.permute(1, 3, 0, 2), norm.permute(1, 3, 0, 2)  # (L, B, K', C)
        return [
            (weight[:, i].transpose(1, 2) * style[i][..., None] * norm[i][..., None, :]).flatten(0, 1).to(dtype)
            for i in range(weight.shape[1])
        ]

    def _depth(self, x: Tensor, parts: Sequence[int]) -> Tensor:
        """(B, K', P, C) → (B, K', P) float32 pseudo-depth; the background lies at 0."""
        weight = self.depth_weight * self.depth_modulation * (1.0 / math.sqrt(x.shape[-1]))
        # A zero row for the background makes the rows line up with the part indices.
        weight = torch.cat((weight.new_zeros(1, x.shape[-1]), weight))[list(parts)]  # (K', C)
        bias = torch.cat((self.depth_bias.new_zeros(1), self.depth_bias))[list(parts)]
        return torch.einsum("bkpc,kc->bkp", x, weight.to(x.dtype)).float() + bias[:, None]

    def feature(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """Eq. 6 where every part has its own projection: Σ_k M_k (W_k x_k + b_k).

        The weighted hidden layers stand side by side and meet the stacked projections in one product; K features of
        ``coarse_channels`` each never exist.

        Args:
            hidden: (B, K, P, C) last hidden layers of all parts.
            weights: (B, K, P) float32 weights M of the parts.

        Returns:
            (B, P, coarse_channels).

        Raises:
            ValueError: if a part is missing.
        """
        if hidden.shape[1] != len(self.weight):
            raise ValueError(
                f"fusion needs all {len(self.weight)} parts, got {hidden.shape[1]}; "
                "retrieve them all and choose the parts to compose"
            )
        scale = self.feature_modulation * (1.0 / math.sqrt(hidden.shape[-1]))
        matrix = (self.feature_weight * scale[:, None]).transpose(1, 2).flatten(0, 1).to(hidden.dtype)  # (K·C, F)
        weighted = (hidden * weights[..., None].to(hidden.dtype)).transpose(1, 2).flatten(2)  # (B, P, K·C)
        return weighted @ matrix + (weights.transpose(1, 2) @ self.feature_bias).to(hidden.dtype)


class SemanticStyleGAN(ComposedGenerator):
    """K local generators that all read the same code, fused and rendered as in MemoryGAN.

    ``config.query_dim`` is the length of z; the controller fields are of no use here.
    """

    memory: LocalNets

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config, mean_slots=1)
        self.mapping = MappingNetwork(config)
        self.memory = LocalNets(config)

    def forward(self, noise: Tensor) -> Synthesis:
        """Standard normal z (B, Q) → faces."""
        return self.synthesize(self.share(self.map(noise)))

    def map(self, z: Tensor) -> Tensor:
        """z (B, Q) → latent codes w (B, D).

        Raises:
            ValueError: if z has another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.config.query_dim:
            raise ValueError(f"expected z of shape (B, {self.config.query_dim}), got {tuple(z.shape)}")
        return self.mapping(z)

    def share(self, w: Tensor) -> Latents:
        """One code (B, D) per face, given to every part and layer."""
        return PartLatents(w[:, None].expand(-1, 1 + self.config.part_count, -1)).expand(self.config)

    def expand(self, codes: Tensor) -> Latents:
        """The default latent space of SemanticStyleGAN, spread over parts and layers.

        Args:
            codes: (B, base_layers + 2·K, D): one code per base layer, then shape and texture of every part. The
                background has its shape code in the base layers.

        Raises:
            ValueError: if the codes have another shape.
        """
        config = self.config
        expected = (config.base_layers + 2 * config.part_count, config.style_dim)
        if codes.ndim != 3 or tuple(codes.shape[1:]) != expected:
            raise ValueError(f"expected codes of shape (B, {expected[0]}, {expected[1]}), got {tuple(codes.shape)}")
        shape = codes[:, config.base_layers :: 2, None].expand(-1, -1, config.depth_layers, -1).clone()
        texture = codes[:, config.base_layers + 1 :: 2, None].expand(
            -1, -1, config.local_layers - config.depth_layers, -1
        )
        shape[:, 1:, : config.base_layers] = codes[:, None, : config.base_layers]
        return Latents(torch.cat((shape, texture), dim=2), config, shared_base=True)

    def sample(self, seeds: Sequence[int], truncation: float = 1.0) -> Latents:
        """Latent codes of one random face per seed, the same code for all parts.

        Args:
            seeds: non-negative integers.
            truncation: psi in [0, 1]; 1 keeps all variety, 0 gives the mean face.
        """
        w = self.map(self._noise(seeds))
        return self.share(torch.lerp(self.mean_w.to(w), w, truncation))

    @torch.no_grad()
    def update_mean_latents(self, count: int = 4096, seed: int = 0) -> None:
        """Measures the mean latent code over ``count`` sampled faces."""
        self.mean_w.copy_(self.map(self._noise(range(seed, seed + count))).mean(dim=0, keepdim=True))

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        return seeded_noise(seeds, (self.config.query_dim,)).to(self.device)
