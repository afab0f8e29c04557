"""Convolutional features of faces at a half, a quarter … of the size: what parsers and the encoder see by."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """x + two 3×3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Down(nn.Module):
    """Halve the resolution, then refine."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = convolution(inputs, outputs, stride=2)
        self.refine = Residual(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.refine(self.down(x))


class FaceTrunk(nn.Module):
    """A stem, and one residual level per halving.

    Args:
        widths: channels at 1/2, 1/4, 1/8 … of the size.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.stem = convolution(3, widths[0], stride=2)
        self.encoder = nn.ModuleList(Down(a, b) for a, b in pairwise(widths))

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, S, S) in [-1, 1], S a multiple of the stride → maps at 1/2, 1/4 … of S, differentiable."""
        dtype = next(self.stem.parameters()).dtype
        maps = [self.stem(standardised(images).to(dtype))]
        for down in self.encoder:
            maps.append(down(maps[-1]))
        return maps


class Up(nn.Module):
    """Double the resolution and join the encoder's feature of that resolution."""

    def __init__(self, inputs: int, skip: int) -> None:
        super().__init__()
        # 1×1 before the upsampling: the same map as after it, at a quarter of the cost.
        self.reduce = nn.Conv2d(inputs, skip, 1, bias=False)
        self.fuse = convolution(2 * skip, skip)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(self.reduce(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.fuse(torch.cat([x, skip], dim=1))


class FaceUNet(FaceTrunk):
    """The trunk, and the way back up to half of the size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths)
        self.decoder = nn.ModuleList(Up(b, a) for a, b in reversed(list(pairwise(widths))))

    def begin_as(self, parser: FaceUNet) -> None:
        """Copies the levels of a trained one down to its own coarsest.

        Raises:
            ValueError: for one of other widths.
        """
        levels, known = len(self.widths), parser.widths
        if known[:levels] != self.widths:
            raise ValueError(
                f"this network begins as a parser of widths {self.widths} and more, not {known}; use the bundled one"
            )
        self.stem.load_state_dict(parser.stem.state_dict())
        self.encoder.load_state_dict(parser.encoder[: levels - 1].state_dict())
        self.decoder.load_state_dict(parser.decoder[len(known) - levels :].state_dict())

    def decoded(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], H and W multiples of the stride → (B, widths[0], H/2, W/2)."""
        *skips, x = self.features(images)
        for up in self.decoder:
            x = up(x, skips.pop())
        return x


def standardised(images: Tensor) -> Tensor:
    """Zero mean and unit spread per image and channel: exposure and colour casts leave before the network sees them."""
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    # Written out: torch's variance over such axes is slow on CPUs.
    return centred / centred.square().mean(dim=(2, 3), keepdim=True).add(1e-3).sqrt()
