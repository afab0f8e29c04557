"""Composition: fusion of parts by pseudo-depth, and the render net (Eq. 2, 5–7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.config import GeneratorConfig
from memorygan.fast.operators import upsample
from memorygan.layers import EPSILON, ConstantStyleConv, constant_style_conv
from memorygan.memory import PartMemory, Retrieved


@dataclass(frozen=True)
class Fused:
    """All parts in one feature map.

    Attributes:
        feature: (B, C, S, S) fused feature on the coarse grid.
        coarse_mask: (B, K, S, S) float32, see :func:`coarse_mask`; 0 for absent parts.
        projection: (C, C') float32 matrix if ``feature`` is (B, C', S, S) and has still to go through it.
    """

    feature: Tensor
    coarse_mask: Tensor
    projection: Tensor | None = None


def coarse_mask(depth: Tensor, present: Tensor | None = None) -> Tensor:
    """Eq. 5: softmax over the parts' pseudo-depths.

    Args:
        depth: (B, K, P) float32.
        present: (K,) or (B, K) 0/1 weights of the parts to compose; None for all.

    Returns:
        (B, K, P), sums to 1 over all parts. Over present ones alone it is M / (ΣM + 1e-8), as published: the sum stays
        below 1 where absent parts had claimed nearly everything, so that no noise is blown up there.
    """
    mask = torch.softmax(depth, dim=1)
    if present is None:
        return mask
    mask = mask * present.to(mask).reshape(-1, depth.shape[1], 1)
    return mask / (mask.sum(dim=1, keepdim=True) + EPSILON)


def feature_weights(mask: Tensor, transparent: Sequence[int]) -> Tensor:
    """Eq. 6 weights (B, K, P): transparent parts are added on top without pushing the others aside."""
    if not transparent:
        return mask
    is_transparent = torch.zeros(mask.shape[1], 1, device=mask.device, dtype=mask.dtype)
    for part in transparent:  # one by one: a list as index would be copied from the host, which a GPU waits for
        is_transparent[part] = 1.0
    opaque = mask * (1.0 - is_transparent)
    return opaque / (opaque.sum(dim=1, keepdim=True) + EPSILON) + mask * is_transparent


def fuse(
    retrieved: Retrieved,
    memory: PartMemory,
    transparent: Sequence[int],
    present: Tensor | None = None,
    project: bool = True,
) -> Fused:
    """Eq. 5–6: weighs the parts by their pseudo-depths and sums them into one feature map.

    Args:
        retrieved, memory: all parts, and where they come from.
        transparent: indices of the transparent parts.
        present: see :func:`coarse_mask`.
        project: False leaves the memory's projection to the render net where that saves work.
    """
    mask = coarse_mask(retrieved.depth, present)  # (B, K, P)
    weights, projection = feature_weights(mask, transparent), None
    unprojected = None if project else memory.unprojected(retrieved.hidden, weights)
    if unprojected is None:
        feature = memory.feature(retrieved.hidden, weights)  # (B, P, C)
    else:
        feature, projection = unprojected
    feature = as_map(feature)
    return Fused(feature, mask.unflatten(2, feature.shape[2:]), projection)


def as_map(feature: Tensor) -> Tensor:
    """(B, P, C) → (B, C, S, S), channels-last."""
    batch, points, channels = feature.shape
    side = round(points**0.5)
    # The (B, P, C) layout is channels-last already: the permutation moves no data. Viewed through the whole shape,
    # because a product's batch stride may be anything for B = 1, and layers after it would lose the layout.
    return feature.reshape(batch, side, side, channels).permute(0, 3, 1, 2)


class RenderBlock(nn.Module):
    """Doubles the resolution: up-convolution, convolution, and the RGB and mask heads of the new level."""

    def __init__(self, config: GeneratorConfig, side: int, refine: bool) -> None:
        super().__init__()
        inputs = config.coarse_channels if side == config.min_feature_size else config.render_channels(side)
        outputs = config.render_channels(2 * side)
        noise_size = 2 * side if config.noise else None
        self.up = ConstantStyleConv(
            inputs + (config.coarse_channels if refine else 0), outputs, 3, up=True, noise_size=noise_size
        )
        self.conv = ConstantStyleConv(outputs, outputs, 3, noise_size=noise_size)
        self.to_rgb = ConstantStyleConv(outputs, 3, 1, demodulate=False, activation=False)
        self.to_mask = ConstantStyleConv(outputs, config.part_count, 1, demodulate=False, activation=False)

    def forward(self, x: Tensor, projection: Tensor | None = None) -> Tensor:
        """(B, C, s, s) → (B, C', 2s, 2s); ``projection`` of the last channels as in :class:`ConstantStyleConv`."""
        return self.conv(self.up(x, projection))

    def heads(self, x: Tensor) -> Tensor:
        """(B, 3 + K, s, s): RGB, then mask, in one pass over the features."""
        rgb, mask = self.to_rgb.folded(), self.to_mask.folded()
        weight, bias = (torch.cat(pair).to(x.dtype) for pair in zip(rgb, mask, strict=True))
        return constant_style_conv(x, weight, bias, None, up=False, act=False)


class RenderNet(nn.Module):
    """Fused feature → image and fine mask (Eq. 7): each level adds a residual to the upsampled level before it."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.coarse_size, self.refine_sizes = config.coarse_size, tuple(config.refine_sizes or ())
        self.sides = config.render_sizes[:-1]
        self.blocks = nn.ModuleList([RenderBlock(config, side, side in self.refine_sizes) for side in self.sides])

    @property
    def can_project(self) -> bool:
        """Whether the blocks take an unprojected feature; folded weights do not."""
        return all(isinstance(block, RenderBlock) for block in self.blocks)

    def forward(self, fused: Fused, size: int | None = None) -> tuple[Tensor, Tensor]:
        """Renders up to ``size`` pixels (default: all the way).

        Returns:
            image (B, 3, size, size), nominally in [−1, 1], and fine mask (B, K, size, size), near 2·one-hot − 1.
        """
        x = F.adaptive_avg_pool2d(fused.feature, self.sides[0])
        skip: Tensor | None = None
        for side, module in zip(self.sides, self.blocks, strict=True):
            block = cast(RenderBlock, module)
            reads_feature = side == self.sides[0] or side in self.refine_sizes
            if side in self.refine_sizes:
                pooled = F.avg_pool2d(fused.feature, self.coarse_size // side) if side < self.coarse_size else None
                x = torch.cat((x, fused.feature if pooled is None else pooled), dim=1)
            x = block(x, fused.projection) if reads_feature and fused.projection is not None else block(x)
            level = block.heads(x)
            skip = level if skip is None else level + upsample(skip)
            if 2 * side == self.coarse_size:
                mask = (2.0 * fused.coarse_mask - 1.0).to(skip.dtype)
                image, level_mask = skip.split((3, skip.shape[1] - 3), dim=1)
                skip = torch.cat((image, level_mask + mask), dim=1)
            if size is not None and 2 * side >= size:
                break
        if skip is None:
            raise RuntimeError("the render net has no block")
        image, mask = skip.split((3, skip.shape[1] - 3), dim=1)  # one gradient for both, where slices make two
        return image.float(), mask.float()
