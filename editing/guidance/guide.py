"""The guide of reconstructions: who is in a picture, as a network sees it that is no judge.

A picture can be led to please a network more than it resembles anybody, and who led it cannot tell. So the identity
judge, which says how far a reconstruction is still the same person, has no part in it; this one learned apart from it,
another network from other pictures (:mod:`editing.guidance.training.identity` with ``--guide``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing.guidance.face_net import KIND, MIN_IMAGE_SIZE, RECOGNITION_FRAME, inner_face
from memorygan.face_trunk import Residual, convolution
from memorygan.layers import channels_last
from memorygan.manifest import WEIGHTS_DIR
from memorygan.network_file import load_network, network_config

DEFAULT_GUIDE = WEIGHTS_DIR / "guide.safetensors"
# Weighted sums over the cells of each of the last maps.
_READINGS = 2


@dataclass(frozen=True)
class GuideConfig:
    """Shape of a :class:`FaceGuide`.

    Attributes:
        size: side that the face is resized to, in pixels.
        widths: channels at 1/2, 1/4, 1/8 … of it.
        blocks: residual blocks at 1/4, 1/8 … of it.
        dim: length of the vector E.

    Raises:
        ValueError: for a combination that cannot be built.
    """

    size: int = 96
    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2)
    dim: int = 128

    def __post_init__(self) -> None:
        # The upper bounds keep a foreign file from asking for more memory than any guide needs.
        if not 2 <= len(self.widths) <= 6 or not all(1 <= width <= 1024 for width in self.widths):
            raise ValueError(f"widths must be 2 to 6 numbers from 1 to 1024, got {self.widths}")
        if len(self.blocks) != len(self.widths) - 1 or not all(0 <= count <= 8 for count in self.blocks):
            raise ValueError(f"blocks must be one number from 0 to 8 for every width but the first, got {self.blocks}")
        stride = 2 ** len(self.widths)
        if not MIN_IMAGE_SIZE <= self.size <= 512 or self.size % stride or not 2 <= self.dim <= 4096:
            raise ValueError(
                f"size must be a multiple of {stride} from {MIN_IMAGE_SIZE} to 512, and dim lie between 2 and 4096, "
                f"got {self.size} and {self.dim}"
            )


class FaceGuide(nn.Module):
    """A small residual network; where a feature sits counts, so the last maps are weighted cell by cell."""

    def __init__(self, config: GuideConfig | None = None) -> None:
        super().__init__()
        self.config = config or GuideConfig()
        widths = self.config.widths
        self.stem = convolution(12, widths[0])
        self.down = nn.ModuleList(convolution(a, b, stride=2) for a, b in pairwise(widths))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(count)))
            for width, count in zip(widths[1:], self.config.blocks, strict=True)
        )
        self.width, cells = widths[-1], (self.config.size // 2 ** len(widths)) ** 2
        self.cells = nn.Parameter(torch.randn(self.width, cells, _READINGS) / cells**0.5)
        self.norm = nn.BatchNorm1d(_READINGS * self.width)
        self.head = nn.Linear(_READINGS * self.width, self.config.dim)

    def maps_of(self, crops: Tensor) -> Tensor:
        """Inner faces (B, 3, size, size) in [−1, 1] → the last maps (B, C, cells, cells)."""
        x = F.pixel_unshuffle(_standardised(crops), 2).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        for down, stage in zip(self.down, self.stages, strict=True):
            x = stage(down(x))
        return x

    def vector(self, maps: Tensor) -> Tensor:
        """The last maps → unit vectors (B, E)."""
        read = torch.einsum("bck,ckr->bcr", maps.flatten(2), self.cells.to(maps.dtype))
        return F.normalize(self.head(self.norm(read.flatten(1))).float(), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        """Aligned faces (B, 3, H, W) in [−1, 1], at least 32 pixels → unit vectors (B, E), differentiable."""
        return self.vector(self.maps_of(inner_face(images, self.config.size, RECOGNITION_FRAME)))


def _standardised(crops: Tensor) -> Tensor:
    """Zero mean and unit spread per image and channel: light and colour casts are no part of a face."""
    mean = crops.mean(dim=(2, 3), keepdim=True)
    spread = crops.var(dim=(2, 3), keepdim=True, unbiased=False).add(1e-2).sqrt()
    return (crops - mean) / spread


def load_guide(path: Path, device: torch.device | str = "cpu") -> FaceGuide:
    """The guide of a file, as :func:`memorygan.network_file.load_network`."""

    def build(meta: Mapping[str, Any]) -> FaceGuide:
        return FaceGuide(network_config(GuideConfig, meta))

    return channels_last(load_network(path, KIND, build, device))
