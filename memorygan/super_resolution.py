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
_OUTLINE = 24  # channels in which borders are looked for


@dataclass(frozen=True)
class SuperResolutionConfig:
    """Shape of a :class:`SuperResolution`.

    Attributes:
        size: side in pixels of the pictures that it enlarges.
        widths: channels at the picture's size, at 1/2, 1/4 … of it, as the parser's.
        fine: channels at twice the picture's size.
        parts: K, of the masks that it enlarges.

    Raises:
        ValueError: for a combination that cannot be built.
    """

    size: int = 128
    widths: tuple[int, ...] = (32, 64, 96, 160)
    fine: int = 16
    parts: int = 13

    def __post_init__(self) -> None:
        stride = 2 ** (len(self.widths) - 1)
        if not 16 <= self.size <= 1024 or self.size % stride:
            raise ValueError(f"size must be a multiple of {stride} from 16 to 1024, got {self.size}")
        if not 2 <= len(self.widths) <= 6 or not all(
            1 <= width <= 512 for width in (*self.widths, self.fine, self.parts)
        ):
            raise ValueError(f"widths must be 2 to 6 numbers, and with fine and parts from 1 to 512, got {self}")


class SuperResolution(FaceUNet):
    """The parser's network over the enlarged picture, what it misses of the sharp one, and where the parts end.

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
        self.outline = nn.Sequential(
            nn.Conv2d(config.widths[0] + config.parts, _OUTLINE, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_OUTLINE, FACTOR**2 * config.parts, 3, padding=1),
        )
        for values in (*self.head.parameters(), *self.outline[-1].parameters()):  # it begins as what is enlarged
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
        enlarged = self._enlarged(images)
        return self._sharp(enlarged, self._features(enlarged), wanted)

    def with_masks(self, images: Tensor, masks: Tensor, wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same pictures, and the masks of their parts at that size.

        Args:
            images, wanted: see :meth:`forward`.
            masks: (B, K, H, W) fine masks, near 2·one-hot − 1.

        Returns:
            (B, 3, 2H, 2W) and (B, K, 2H, 2W).
        """
        enlarged = self._enlarged(images)
        features = self._features(enlarged)
        return self._sharp(enlarged, features, wanted), self.outlined(features, masks)

    def features_of(self, images: Tensor) -> Tensor:
        """What is known of pictures (B, 3, H, W): (B, widths[0], H, W)."""
        return self._features(self._enlarged(images))

    def outlined(self, features: Tensor, masks: Tensor) -> Tensor:
        """Masks (B, K, H, W), whose borders are moved to those of the picture whose features are given.

        Parts that are nowhere stay so, as in a face that is not put together yet.
        """
        larger = F.interpolate(masks, scale_factor=float(FACTOR), mode="bilinear", align_corners=False)
        moved = self.outline(torch.cat((features, masks.clamp(-2.0, 2.0).to(features.dtype)), dim=1))
        owners = F.one_hot(masks.argmax(dim=1).flatten(1), self.config.parts)  # (B, H·W, K)
        there = owners.any(dim=1)[..., None, None]
        masks = larger + F.pixel_shuffle(moved, FACTOR).float()
        return torch.where(there, masks, masks.amin(dim=1, keepdim=True) - 1.0)

    def _enlarged(self, images: Tensor) -> Tensor:
        return F.interpolate(images, scale_factor=float(FACTOR), mode="bicubic", align_corners=False)

    def _features(self, enlarged: Tensor) -> Tensor:
        return self.refine(self.decoded(enlarged))

    def _sharp(self, enlarged: Tensor, features: Tensor, wanted: Tensor | None) -> Tensor:
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
