"""Face embedder: a picture of an aligned face → a unit vector that is near for two pictures of the same person.

What the identity loss of text edits and inversion measures with where VGGFace2 weights are not on the machine. It was
taught to agree with a face recognition network (see :mod:`editing.guidance.training.identity`).
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from memorygan.checkpoint import Provenance
from memorygan.layers import channels_last
from memorygan.manifest import WEIGHTS_DIR
from memorygan.network_file import load_network, network_config, save_network
from memorygan.picture import IMAGENET_MEAN, IMAGENET_SPREAD

KIND = "face-embedder"
DEFAULT_WEIGHTS = WEIGHTS_DIR / "identity.safetensors"
MIN_IMAGE_SIZE = 32
# Left, top, right, bottom of the inner face in CelebA-HQ / FFHQ framing, as shares of the side.
INNER_FACE = (0.14, 0.2, 0.86, 0.92)
# The same of the square in which MobileFaceNet sees a face: the similarity transform from the mean landmarks of this
# framing to that network's, without its turn of a quarter of a degree and centred, as mirror images are alike.
RECOGNITION_FRAME = (0.119, 0.117, 0.881, 0.879)


@dataclass(frozen=True)
class FaceNetConfig:
    """Shape of a :class:`FaceEmbedder`.

    Attributes:
        size: side that the face is resized to, in pixels.
        stem: channels at 1/2 of it.
        stages: (hidden, width, count, stride) of the blocks that follow: channels inside of them and after them, how
            many, and the stride of the first.
        last: channels whose cells are summed up.
        dim: length of the vector E.

    Raises:
        ValueError: for a combination that cannot be built, with the remedy.
    """

    size: int = 112
    stem: int = 64
    stages: tuple[tuple[int, int, int, int], ...] = (
        (160, 64, 5, 2),
        (320, 128, 1, 2),
        (320, 128, 6, 1),
        (640, 128, 1, 2),
        (320, 128, 2, 1),
    )
    last: int = 512
    dim: int = 128

    def __post_init__(self) -> None:
        # The upper bounds keep a foreign file from asking for more memory than any embedder needs.
        fits = all(
            1 <= hidden <= 2048 and 1 <= width <= 1024 and 1 <= count <= 16 and stride in (1, 2)
            for hidden, width, count, stride in self.stages
        )
        if not 1 <= len(self.stages) <= 8 or not fits:
            raise ValueError(
                "stages must be 1 to 8 of (hidden up to 2048, width up to 1024, count up to 16, stride 1 or 2), "
                f"got {self.stages}"
            )
        if not MIN_IMAGE_SIZE <= self.size <= 512 or self.size % self.stride:
            raise ValueError(f"size must be a multiple of {self.stride} from {MIN_IMAGE_SIZE} to 512, got {self.size}")
        if not (1 <= self.stem <= 1024 and 1 <= self.last <= 4096 and 2 <= self.dim <= 4096):
            raise ValueError(
                "stem, last and dim must lie between 1 and 1024, 1 and 4096, and 2 and 4096, "
                f"got {self.stem}, {self.last} and {self.dim}"
            )

    @property
    def stride(self) -> int:
        """How many pixels one cell of the last maps stands for, along a side."""
        return 2 * math.prod(stride for *_, stride in self.stages)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Bottleneck(nn.Module):
    """Widens, looks around in every channel, narrows again; the input is added where it fits (Sandler et al. 2018)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        self.change = nn.Sequential(
            *_convolution(inputs, hidden, 1),
            nn.ReLU6(),
            *_convolution(hidden, hidden, 3, stride, hidden),
            nn.ReLU6(),
            *_convolution(hidden, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x) if self.adds else self.change(x)


class FaceEmbedder(nn.Module):
    """MobileFaceNet (Chen et al. 2018) with wider blocks; it sees the face at the fixed square of the framing.

    Where a feature sits counts, so the last maps are weighted cell by cell, not averaged.
    """

    def __init__(self, config: FaceNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or FaceNetConfig()
        stem, last = self.config.stem, self.config.last
        self.stem = nn.Sequential(
            *_convolution(3, stem, 3, stride=2),
            nn.ReLU6(),
            *_convolution(stem, stem, 3, groups=stem),
            nn.ReLU(),
            *_convolution(stem, stem, 1),
            nn.ReLU(),
        )
        self.blocks, width = nn.ModuleList(), stem
        for hidden, outputs, count, stride in self.config.stages:
            for index in range(count):
                self.blocks.append(Bottleneck(width, hidden, outputs, stride if index == 0 else 1))
                width = outputs
        self.width, cells = width, self.config.size // self.config.stride
        self.head = nn.Sequential(
            *_convolution(width, last, 1),
            nn.ReLU6(),
            nn.Conv2d(last, last, cells, groups=last, bias=False),  # one weight for every cell of every channel
            nn.BatchNorm2d(last),
            nn.Conv2d(last, self.config.dim, 1, bias=False),
            nn.BatchNorm2d(self.config.dim),
            nn.Flatten(),
        )

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
        x = self.stem(standardised(crops))
        for block in self.blocks:
            x = block(x)
        return x

    def vector(self, maps: Tensor) -> Tensor:
        """The last maps → unit vectors (B, E)."""
        return F.normalize(self.head(maps).float(), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        """Aligned faces (B, 3, H, W) in [-1, 1], at least 32 pixels → unit vectors (B, E), differentiable.

        Raises:
            ValueError: for another shape or type, or an image below 32 pixels.
        """
        return self.vector(self.maps(images))

    def folded(self) -> FaceEmbedder:
        """A copy for use: normalisations are part of the convolutions before them, which saves a third of the time."""
        net = copy.deepcopy(self).eval()
        for sequence in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
            for index, (first, second) in enumerate(pairwise(list(sequence))):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    sequence[index], sequence[index + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
        return net


def standardised(crops: Tensor) -> Tensor:
    """(B, 3, S, S) in [−1, 1] → what the first convolution sees: mean and spread of ImageNet, as MobileFaceNet's."""
    mean, spread = (torch.tensor(values).to(crops).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_SPREAD))
    x = crops.contiguous(memory_format=torch.channels_last)
    return x * (0.5 / spread) + (0.5 - mean) / spread


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


def save_face_net(path: str | os.PathLike[str], net: nn.Module, provenance: Provenance) -> str:
    """Writes an embedder or a guide, as :func:`memorygan.network_file.save_network`."""
    return save_network(path, KIND, net, provenance)


def load_face_net(path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> FaceEmbedder:
    """The embedder of a file, by default the bundled one, as :func:`memorygan.network_file.load_network`."""

    def build(meta: Mapping[str, Any]) -> FaceEmbedder:
        return FaceEmbedder(network_config(FaceNetConfig, meta))

    return channels_last(load_network(path or DEFAULT_WEIGHTS, KIND, build, device))
