"""Dual-branch discriminator: image and mask are judged together (paper section 3.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memorygan.config import DiscriminatorConfig
from memorygan.fast.operators import halve
from memorygan.layers import EqualConv, EqualLinear


@dataclass(frozen=True)
class Critique:
    """Scores of B image-mask pairs.

    Attributes:
        score: (B,) float32 logits; larger is more real.
        features: image-branch feature maps, finest first, for feature matching.
    """

    score: Tensor
    features: tuple[Tensor, ...]


class ResidualBlock(nn.Module):
    """Halves the resolution; output variance is kept by the factor 1/√2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = EqualConv(inputs, inputs, 3)
        self.out = EqualConv(inputs, outputs, 3, gain=math.sqrt(0.5))
        self.skip = EqualConv(inputs, outputs, 1, activation=False, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, s, s) → (B, C', s/2, s/2)."""
        return self.out(halve(self.conv(x))) + self.skip(halve(x))


class Branch(nn.Module):
    """A stack of residual blocks from full size to 4×4."""

    def __init__(self, config: DiscriminatorConfig, inputs: int, divisor: int) -> None:
        super().__init__()
        self.stem = EqualConv(inputs, config.channels(config.size, divisor), 1)
        blocks, side = [], config.size
        while side > 4:
            blocks.append(ResidualBlock(config.channels(side, divisor), config.channels(side // 2, divisor)))
            side //= 2
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, S, S) → features after every block, the last (B, C, 4, 4)."""
        x, features = self.stem(x), []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features


class Discriminator(nn.Module):
    """Judges whether an image and its mask look real, and whether they belong together."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.image_branch = Branch(config, 3, 1)
        self.mask_branch = Branch(config, config.mask_channels, config.mask_channel_divisor)
        width = config.channels(4)
        joined = width + config.channels(4, config.mask_channel_divisor)
        self.join = EqualConv(joined + 1, width, 3)
        self.hidden = EqualLinear(width * 16, width, activation=True)
        self.out = EqualLinear(width, 1)

    def forward(self, image: Tensor, mask: Tensor) -> Critique:
        """Judges B pairs.

        Args:
            image: (B, 3, S, S) in [−1, 1].
            mask: (B, K, S, S), 2·one-hot − 1 for real masks.
        """
        image_features, mask_features = self.image_branch(image), self.mask_branch(mask.to(image.dtype))
        x = torch.cat((image_features[-1], mask_features[-1]), dim=1)
        x = torch.cat((x, self._deviation(x)), dim=1)
        x = self.hidden(self.join(x).flatten(1))
        return Critique(self.out(x.float()).squeeze(1), tuple(image_features))

    def _deviation(self, x: Tensor) -> Tensor:
        """Minibatch standard deviation, (B, 1, 4, 4).

        Groups are consecutive samples, so that a batch split over processes in multiples of the group is judged alike.
        """
        batch = x.shape[0]
        group = math.gcd(batch, self.config.group_size)
        grouped = x.float().reshape(batch // group, group, *x.shape[1:])
        # Written out: torch's variance over such an axis is slow on CPUs.
        variance = (grouped - grouped.mean(dim=1, keepdim=True)).square().mean(dim=1)
        deviation = torch.sqrt(variance + 1e-8).mean(dim=(1, 2, 3))
        return deviation.repeat_interleave(group)[:, None, None, None].expand(-1, 1, *x.shape[2:]).to(x.dtype)
