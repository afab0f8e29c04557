"""Face embedder: a picture of an aligned face → a unit vector that is near for two pictures of the same person.

What the identity loss of text edits and inversion measures with where VGGFace2 weights are not on the machine. It was
taught to agree with a face recognition network (see :mod:`editing.guidance.training.identity`).
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
# The same of the square in which MobileFaceNet sees a face: the similarity transform from the mean landmarks of this
# framing to that network's, without its turn of a quarter of a degree and centred, as mirror images are alike.
RECOGNITION_FRAME = (0.119, 0.117, 0.881, 0.879)

# Weighted sums over the cells of each of the last maps.
_READINGS = 2


@dataclass(frozen=True)
class FaceNetConfig:
    """Shape of a :class:`FaceEmbedder`.

    Attributes:
        size: side that the face is resized to, in pixels.
        widths: channels at 1/2, 1/4, 1/8 … of it.
        blocks: residual blocks at 1/4, 1/8 … of it.
        dim: length of the vector E.

    Raises:
        ValueError: for a combination that cannot be built, with the remedy.
    """

    size: int = 96
    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2)
    dim: int = 128

    def __post_init__(self) -> None:
        # The upper bounds keep a foreign file from asking for more memory than any embedder needs.
        if not 2 <= len(self.widths) <= 6 or not all(1 <= width <= 1024 for width in self.widths):
            raise ValueError(f"widths must be 2 to 6 numbers from 1 to 1024, got {self.widths}")
        if len(self.blocks) != len(self.widths) - 1 or not all(0 <= count <= 8 for count in self.blocks):
            raise ValueError(f"blocks must be one number from 0 to 8 for every width but the first, got {self.blocks}")
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
        size, widths, blocks, dim = (fields[name] for name in ("size", "widths", "blocks", "dim"))
        lists = isinstance(widths, (list, tuple)) and isinstance(blocks, (list, tuple))
        if not (lists and all(type(n) is int for n in (size, dim, *widths, *blocks))):
            raise ValueError(f"its configuration must hold whole numbers, got {fields}")
        return cls(size=size, widths=tuple(widths), blocks=tuple(blocks), dim=dim)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class _Residual(nn.Module):
    """x + two 3×3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width), _convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class FaceEmbedder(nn.Module):
    """A small residual network; where a feature sits counts, so the last maps are weighted cell by cell, not averaged.

    Dense convolutions of few channels: on a CPU they take a third of the time of separable ones with a third of their
    multiplications.
    """

    def __init__(self, config: FaceNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or FaceNetConfig()
        widths = self.config.widths
        self.stem = _convolution(12, widths[0])
        self.down = nn.ModuleList(_convolution(a, b, stride=2) for a, b in pairwise(widths))
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Residual(width) for _ in range(count)))
            for width, count in zip(widths[1:], self.config.blocks, strict=True)
        )
        cells, last = (self.config.size // 2 ** len(widths)) ** 2, widths[-1]
        self.cells = nn.Parameter(torch.randn(last, cells, _READINGS) / cells**0.5)
        self.norm = nn.BatchNorm1d(_READINGS * last)
        self.head = nn.Linear(_READINGS * last, self.config.dim)

    def maps(self, images: Tensor) -> Tensor:
        """The last maps (B, C, cells, cells); arguments and errors as in :meth:`forward`."""
        if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images must be floating point (B, 3, H, W) in [-1, 1], got {tuple(images.shape)} {images.dtype}"
            )
        if min(images.shape[-2:]) < MIN_IMAGE_SIZE:
            raise ValueError(f"images must be at least {MIN_IMAGE_SIZE} pixels high and wide, got {images.shape[-2:]}")
        return self.maps_of(inner_face(images, self.config.size, RECOGNITION_FRAME))

    def maps_of(self, crops: Tensor) -> Tensor:
        """The same of faces (B, 3, size, size) that are cut out already."""
        x = F.pixel_unshuffle(_standardise(crops), 2).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.stem(x))  # (B, C0, S/2, S/2)
        for down, stage in zip(self.down, self.stages, strict=True):
            x = stage(F.relu(down(x)))
        return x

    def vector(self, maps: Tensor) -> Tensor:
        """The last maps → unit vectors (B, E)."""
        # float32 from here on, so that close faces stay comparable under autocast.
        read = torch.einsum("bck,ckr->bcr", maps.flatten(2), self.cells.to(maps.dtype))
        return F.normalize(self.head(self.norm(read.flatten(1))).float(), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        """Aligned faces (B, 3, H, W) in [-1, 1], at least 32 pixels → unit vectors (B, E), differentiable.

        Raises:
            ValueError: for another shape or type, or an image below 32 pixels.
        """
        return self.vector(self.maps(images))


def inner_face(images: Tensor, size: int, frame: tuple[float, float, float, float] = INNER_FACE) -> Tensor:
    """The inner face of aligned images (B, 3, H, W), resized to (B, 3, size, size); differentiable.

    Args:
        images: in CelebA-HQ / FFHQ framing.
        size: in pixels.
        frame: left, top, right and bottom of what is cut out, in shares of the side.
    """
    height, width = images.shape[-2:]
    left, top, right, bottom = frame
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
