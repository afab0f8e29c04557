"""Super-resolution: from the render net's picture to one of twice its side (as in EG3D, Chan et al. 2022).

The render net draws where everything lies; strands, lashes, pores and teeth are as fine as its pixels or finer, and
most of what there is to know of them is known from faces in general. So they are added by a network that saw pictures
alone, and no codes.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from memorygan.checkpoint import Provenance
from memorygan.face_trunk import FaceUNet, Residual
from memorygan.layers import channels_last
from memorygan.network_file import load_network, network_config, save_network

KIND = "super-resolution"
FILE = "super-resolution.safetensors"  # beside the checkpoint whose pictures it enlarges
FACTOR = 2


@dataclass(frozen=True)
class SuperResolutionConfig:
    """Shape of a :class:`SuperResolution`.

    Attributes:
        size: side in pixels of the pictures that it enlarges.
        widths: channels at the picture's size, at 1/2, 1/4 … of it, as the parser's.
        fine: channels at twice the picture's size.

    Raises:
        ValueError: for a combination that cannot be built.
    """

    size: int = 128
    widths: tuple[int, ...] = (32, 64, 96, 160)
    fine: int = 16

    def __post_init__(self) -> None:
        stride = 2 ** (len(self.widths) - 1)
        if not 16 <= self.size <= 1024 or self.size % stride:
            raise ValueError(f"size must be a multiple of {stride} from 16 to 1024, got {self.size}")
        if not 2 <= len(self.widths) <= 6 or not all(1 <= width <= 512 for width in (*self.widths, self.fine)):
            raise ValueError(f"widths must be 2 to 6 numbers, and with fine from 1 to 512, got {self}")


class SuperResolution(FaceUNet):
    """The parser's network over the enlarged picture, and what it misses of the sharp one.

    Args:
        config: its shape.
    """

    def __init__(self, config: SuperResolutionConfig) -> None:
        super().__init__(config.widths)
        self.config = config
        self.refine = Residual(config.widths[0])
        # All sub-pixels of a pixel at once (Shi et al. 2016).
        self.enlarge = nn.Conv2d(config.widths[0], FACTOR**2 * config.fine, 3, padding=1)
        self.head = nn.Conv2d(config.fine, 3, 3, padding=1)
        for values in self.head.parameters():  # it begins as the enlarged picture
            values.detach().zero_()

    @property
    def factor(self) -> int:
        """By which sides grow."""
        return FACTOR

    def forward(self, images: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Draws pictures at twice their side.

        Args:
            images: (B, 3, H, W) in [−1, 1]; H and W multiples of half the stride.
            wanted: (B, 1, H, W), 0 to 1: where finer detail is wanted; None for everywhere.

        Returns:
            (B, 3, 2H, 2W), nominally in [−1, 1].
        """
        enlarged = F.interpolate(images, scale_factor=float(FACTOR), mode="bicubic", align_corners=False)
        features = self.refine(self.decoded(enlarged))
        detail = self.head(F.relu(F.pixel_shuffle(self.enlarge(features), FACTOR))).float()
        if wanted is not None:
            detail = detail * F.interpolate(wanted, scale_factor=float(FACTOR), mode="bilinear", align_corners=False)
        return enlarged + detail


def save_super_resolution(path: str | os.PathLike[str], net: SuperResolution, provenance: Provenance) -> str:
    """Writes it, as :func:`memorygan.network_file.save_network`."""
    return save_network(path, KIND, net, provenance)


def load_super_resolution(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> SuperResolution:
    """That of a file, as :func:`memorygan.network_file.load_network`."""

    def build(meta: Mapping[str, Any]) -> SuperResolution:
        return SuperResolution(network_config(SuperResolutionConfig, meta))

    return channels_last(load_network(path, KIND, build, device))


def folded(net: SuperResolution) -> SuperResolution:
    """A copy for inference, whose batch norms are multiplied into the convolutions before them."""
    copied = copy.deepcopy(net).eval()
    for block in list(copied.modules()):
        if not isinstance(block, nn.Sequential) or len(block) < 2:
            continue
        first, second = block[0], block[1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            block[0], block[1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return channels_last(copied.requires_grad_(False))
