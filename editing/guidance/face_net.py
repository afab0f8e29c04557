"""Face embedder: a picture of an aligned face → a unit vector that stays put while hair, light and clothes change.

What the identity loss of text edits and inversion measures with where VGGFace2 weights are not on the machine. It was
taught to tell pictures of one face from pictures of others. It has never learned who anyone is.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.checkpoint import Provenance
from memorygan.layers import channels_last
from memorygan.manifest import WEIGHTS_DIR
from memorygan.network_file import load_network, save_network

KIND = "face-embedder"
DEFAULT_WEIGHTS = WEIGHTS_DIR / "identity.safetensors"
MIN_IMAGE_SIZE = 32
# Left, top, right, bottom of the inner face in CelebA-HQ / FFHQ framing, as shares of the side.
INNER_FACE = (0.14, 0.2, 0.86, 0.92)


@dataclass(frozen=True)
class FaceNetConfig:
    """Shape of a :class:`FaceEmbedder`.

    Attributes:
        size: side that the inner face is resized to, in pixels.
        widths: channels at 1/2, 1/4, 1/8 … of it.
        dim: length of the vector E.

    Raises:
        ValueError: for a combination that cannot be built, with the remedy.
    """

    size: int = 64
    widths: tuple[int, ...] = (32, 64, 128, 256)
    dim: int = 128

    def __post_init__(self) -> None:
        # The upper bounds keep a foreign file from asking for more memory than any embedder needs.
        if not 2 <= len(self.widths) <= 6 or not all(1 <= width <= 1024 for width in self.widths):
            raise ValueError(f"widths must be 2 to 6 numbers from 1 to 1024, got {self.widths}")
        stride = 2 ** len(self.widths)
        if not MIN_IMAGE_SIZE <= self.size <= 512 or self.size % stride:
            raise ValueError(f"size must be a multiple of {stride} from {MIN_IMAGE_SIZE} to 512, got {self.size}")
        if not 2 <= self.dim <= 4096:
            raise ValueError(f"dim must lie between 2 and 4096, got {self.dim}")

    @classmethod
    def from_dict(cls, fields: Any) -> FaceNetConfig:
        """The config stored in a checkpoint as JSON.

        Raises:
            ValueError: for anything but the right fields with whole numbers in them.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or set(fields) != names:
            raise ValueError(f"its configuration must have the fields {', '.join(sorted(names))}")
        size, widths, dim = fields["size"], fields["widths"], fields["dim"]
        if not (isinstance(widths, (list, tuple)) and all(type(n) is int for n in (size, dim, *widths))):
            raise ValueError(f"its configuration must hold whole numbers, got {fields}")
        return cls(size=size, widths=tuple(widths), dim=dim)


class _Residual(nn.Module):
    """Halves the resolution without aliasing, then x + two 3×3 convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.first = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.down(F.avg_pool2d(x, 2)))
        return F.relu(x + self.second(F.relu(self.first(x))))


class FaceEmbedder(nn.Module):
    """A small residual network over the inner face; where a feature sits counts, so it is not pooled away."""

    def __init__(self, config: FaceNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or FaceNetConfig()
        widths = self.config.widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.stages = nn.ModuleList(_Residual(a, b) for a, b in pairwise(widths))
        cells = (self.config.size // 2 ** len(widths)) ** 2
        self.head = nn.Linear(widths[-1] * cells, self.config.dim)

    def forward(self, images: Tensor) -> Tensor:
        """Aligned faces (B, 3, H, W) in [-1, 1], at least 32 pixels → unit vectors (B, E), differentiable.

        Raises:
            ValueError: for another shape or type, or an image below 32 pixels.
        """
        if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images must be floating point (B, 3, H, W) in [-1, 1], got {tuple(images.shape)} {images.dtype}"
            )
        if min(images.shape[-2:]) < MIN_IMAGE_SIZE:
            raise ValueError(f"images must be at least {MIN_IMAGE_SIZE} pixels high and wide, got {images.shape[-2:]}")
        x = _standardise(inner_face(images, self.config.size))
        x = self.stem(x)  # (B, C0, S/2, S/2)
        for stage in self.stages:
            x = stage(x)
        # float32 from here on, so that close faces stay comparable under autocast.
        vectors = self.head(x.flatten(1)).float()
        return F.normalize(vectors, dim=-1)


def inner_face(images: Tensor, size: int) -> Tensor:
    """The inner face of aligned images (B, 3, H, W), resized to (B, 3, size, size); differentiable."""
    height, width = images.shape[-2:]
    left, top, right, bottom = INNER_FACE
    crop = images[..., round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    return F.interpolate(crop, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def _standardise(images: Tensor) -> Tensor:
    """Zero mean and unit spread per image and channel: light and colour casts are no part of a face."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    spread = images.var(dim=(2, 3), keepdim=True, unbiased=False).add(1e-2).sqrt()
    return (images - mean) / spread


def save_face_net(path: str | os.PathLike[str], net: FaceEmbedder, provenance: Provenance) -> str:
    """Writes an embedder, as :func:`memorygan.network_file.save_network`."""
    return save_network(path, KIND, net, provenance)


def load_face_net(path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> FaceEmbedder:
    """The embedder of a file, by default the bundled one, as :func:`memorygan.network_file.load_network`."""

    def build(meta: Mapping[str, Any]) -> FaceEmbedder:
        return FaceEmbedder(FaceNetConfig.from_dict(meta.get("config")))

    return channels_last(load_network(path or DEFAULT_WEIGHTS, KIND, build, device))
