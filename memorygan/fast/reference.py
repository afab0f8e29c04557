"""The paper's formulas written out: plain float32, one part after another, nothing folded, shared or reordered.

Slow on purpose. Tests hold the fast paths against it, and the benchmark measures them against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.composition import RenderBlock
from memorygan.fast.operators import LEAKY_SLOPE
from memorygan.generator import MemoryGAN, Synthesis
from memorygan.latents import Latents
from memorygan.layers import EPSILON, GAIN, ConstantStyleConv
from memorygan.memory import LongTermMemory


def reference_synthesis(
    generator: MemoryGAN, latents: Latents, parts: Sequence[str | int] | None = None, size: int | None = None
) -> Synthesis:
    """Latent codes → faces, as :meth:`ComposedGenerator.synthesize` and with the same arguments.

    Runs in float32 whatever the generator's ``compute_dtype``, with the noise maps it would use in evaluation.

    Raises:
        ValueError: for an unknown part.
    """
    config = generator.config
    answers = [_query(generator.memory, latents.w[:, k], is_background=k == 0) for k in range(config.part_count)]
    features = torch.stack([feature for feature, _ in answers], dim=1)  # (B, K, P, F)
    depth = torch.stack([depth for _, depth in answers], dim=1)  # (B, K, P)

    # Eq. 5
    mask = depth.softmax(dim=1)
    if parts is not None:
        present = torch.zeros(config.part_count, 1, device=depth.device)
        present[[config.parts.index(part) for part in parts]] = 1.0
        mask = mask * present
        mask = mask / (mask.sum(dim=1, keepdim=True) + EPSILON)
    # Eq. 6: projected features are summed
    weights = mask
    if config.parts.transparent:
        transparent = torch.zeros(config.part_count, 1, device=depth.device)
        transparent[list(config.parts.transparent)] = 1.0
        opaque = mask * (1.0 - transparent)
        weights = opaque / (opaque.sum(dim=1, keepdim=True) + EPSILON) + mask * transparent
    feature = (weights[..., None] * features).sum(dim=1)  # (B, P, F)

    grid = (config.coarse_size, config.coarse_size)
    coarse = mask.unflatten(2, grid)
    image, fine = _render(generator, feature.transpose(1, 2).unflatten(2, grid).contiguous(), coarse, size)
    return Synthesis(image, fine, coarse, depth.unflatten(2, grid), latents)


def _query(memory: LongTermMemory, codes: Tensor, is_background: bool) -> tuple[Tensor, Tensor]:
    """Eq. 3 and 12 for one part: codes (B, L, D) → feature (B, P, F) and pseudo-depth (B, P)."""
    x = memory.grid @ memory.position.T / math.sqrt(memory.position.shape[1])  # (P, C)
    x = x.expand(len(codes), -1, -1)
    depth = torch.zeros(x.shape[:2], device=x.device)
    for layer, weight in enumerate(memory.weight):
        style = codes[:, layer] @ memory.style_weight[layer].T / math.sqrt(codes.shape[-1]) + memory.style_bias[layer]
        modulated = weight / math.sqrt(weight.shape[1]) * style[:, None, :]  # (B, C_out, C_in)
        modulated = modulated * torch.rsqrt(modulated.square().sum(dim=2, keepdim=True) + EPSILON)
        x = F.leaky_relu(x @ modulated.transpose(1, 2) + memory.bias[layer], LEAKY_SLOPE) * GAIN
        if layer + 1 == memory.depth_layers and not is_background:
            depth = _per_point(memory.to_depth, x)[..., 0]
    return _per_point(memory.to_feature, x), depth


def _per_point(conv: ConstantStyleConv, x: Tensor) -> Tensor:
    """A 1×1 constant-style convolution on points: (B, P, C) → (B, P, C')."""
    return x @ _weight(conv)[:, :, 0, 0].T + conv.bias


def _render(generator: MemoryGAN, feature: Tensor, coarse: Tensor, size: int | None) -> tuple[Tensor, Tensor]:
    """Eq. 7: fused feature (B, F, S, S) and coarse mask (B, K, S, S) → image and fine mask."""
    render = generator.render
    skip: tuple[Tensor, Tensor] | None = None
    x = F.avg_pool2d(feature, render.coarse_size // render.sides[0])
    for side, module in zip(render.sides, render.blocks, strict=True):
        block = cast(RenderBlock, module)
        if side in render.refine_sizes:
            x = torch.cat((x, F.avg_pool2d(feature, render.coarse_size // side)), dim=1)
        x = _conv(block.conv, _up_conv(block.up, x))
        image, mask = (F.conv2d(x, _weight(head), head.bias) for head in (block.to_rgb, block.to_mask))
        if skip is not None:
            image, mask = image + _blur(_enlarge(skip[0])), mask + _blur(_enlarge(skip[1]))
        if 2 * side == render.coarse_size:
            mask = mask + 2.0 * coarse - 1.0
        skip = image, mask
        if size is not None and 2 * side >= size:
            break
    if skip is None:
        raise RuntimeError("the render net has no block")
    return skip


def _weight(conv: ConstantStyleConv) -> Tensor:
    weight = conv.weight * conv.scale * conv.modulation.view(1, -1, 1, 1)
    if conv.demodulate:
        weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + EPSILON)
    return weight


def _conv(conv: ConstantStyleConv, x: Tensor) -> Tensor:
    return _finish(conv, F.conv2d(x, _weight(conv), padding=1))


def _up_conv(conv: ConstantStyleConv, x: Tensor) -> Tensor:
    """The filter turned by 180°, run over the enlarged map, then the blur."""
    x = F.conv2d(_enlarge(x), _weight(conv).flip(2, 3))  # (B, C', 2H + 1, 2W + 1)
    return _finish(conv, _blur(F.pad(x, (1, 1, 1, 1))))


def _finish(conv: ConstantStyleConv, x: Tensor) -> Tensor:
    if conv.noise_strength is not None:
        x = x + conv.noise_strength * conv.get_buffer("noise")
    return F.leaky_relu(x + conv.bias.view(1, -1, 1, 1), LEAKY_SLOPE) * GAIN


def _enlarge(x: Tensor) -> Tensor:
    """Puts a zero behind every pixel, then two zeros before the picture and one behind it: H → 2H + 3."""
    enlarged = x.new_zeros(x.shape[0], x.shape[1], 2 * x.shape[2], 2 * x.shape[3])
    enlarged[:, :, ::2, ::2] = x
    return F.pad(enlarged, (2, 1, 2, 1))


def _blur(x: Tensor) -> Tensor:
    """[1, 3, 3, 1] in both directions with sum 4, each channel for itself: H → H − 3."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device) / 4.0
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, groups=x.shape[1])
