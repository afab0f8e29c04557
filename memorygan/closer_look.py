"""A closer look at the eyes: what they and the brows cover, at every pixel of a face of 256.

The parser sees the whole face and scores cells of two to three pixels, of which an eye is three to six high. This
network sees the band of the eyes alone, as large as it is, and says of each pixel whether it is eye, brow or neither;
the parser keeps the say in what else there is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.checkpoint import Provenance
from memorygan.face_trunk import Down, convolution, standardised
from memorygan.layers import channels_last
from memorygan.manifest import WEIGHTS_DIR
from memorygan.network_file import load_network, network_config, save_network
from memorygan.parts import FACE_PARTS

KIND = "closer-look"
DEFAULT_WEIGHTS = WEIGHTS_DIR / "eyes.safetensors"
# Side of the face whose pixels it looks at; in smaller pictures there is nothing closer to see.
SIDE = 256
PARTS = ("eyes", "eyebrows")


@dataclass(frozen=True)
class CloserConfig:
    """Shape of a :class:`CloserLook`.

    Attributes:
        box: top, bottom, left and right of what is looked at, in pixels of a face of 256.
        widths: channels at full size, 1/2, 1/4 …

    Raises:
        ValueError: for a combination that cannot be built.
    """

    box: tuple[int, int, int, int] = (80, 160, 32, 224)
    widths: tuple[int, ...] = (16, 40, 80, 112)

    def __post_init__(self) -> None:
        if not 2 <= len(self.widths) <= 6 or not all(1 <= width <= 512 for width in self.widths):
            raise ValueError(f"widths must be 2 to 6 numbers from 1 to 512, got {self.widths}")
        stride = 2 ** (len(self.widths) - 1)
        if len(self.box) != 4:
            raise ValueError(f"box must be four numbers, got {self.box}")
        top, bottom, left, right = self.box
        inside = 0 <= top < bottom <= SIDE and 0 <= left < right <= SIDE
        if not inside or (bottom - top) % stride or (right - left) % stride:
            raise ValueError(f"box must lie within {SIDE} pixels, its sides multiples of {stride}, got {self.box}")


class CloserLook(nn.Module):
    """U-Net at full size from the band of the eyes to scores of neither, eyes and brows."""

    def __init__(self, config: CloserConfig | None = None) -> None:
        super().__init__()
        self.config = config or CloserConfig()
        widths = self.config.widths
        self.stem = nn.Sequential(convolution(3, widths[0]), convolution(widths[0], widths[0]))
        self.encoder = nn.ModuleList(Down(a, b) for a, b in pairwise(widths))
        self.reduce = nn.ModuleList(nn.Conv2d(b, a, 1, bias=False) for a, b in reversed(list(pairwise(widths))))
        self.fuse = nn.ModuleList(convolution(2 * a, a) for a in reversed(widths[:-1]))
        self.head = nn.Conv2d(widths[0], 1 + len(PARTS), 1)

    def forward(self, band: Tensor) -> Tensor:
        """(B, 3, h, w) in [−1, 1], the box of a face of 256 pixels → scores (B, 3, h, w) of neither, eyes, brows."""
        maps = [self.stem(standardised(band).to(memory_format=torch.channels_last))]
        for down in self.encoder:
            maps.append(down(maps[-1]))
        x = maps.pop()
        for reduce, fuse in zip(self.reduce, self.fuse, strict=True):
            wider = F.interpolate(reduce(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = fuse(torch.cat([wider, maps.pop()], dim=1))
        return self.head(x)

    def cut(self, images: Tensor) -> Tensor:
        """(B, C, 256, 256) → (B, C, h, w)."""
        top, bottom, left, right = self.config.box
        return images[..., top:bottom, left:right]

    @torch.no_grad()
    def refine(self, images: Tensor, probabilities: Tensor) -> Tensor:
        """The parser's probabilities with eyes and brows as they are seen from near by.

        Args:
            images: (B, 3, H, W) in [−1, 1], H and W at least 256.
            probabilities: (B, K, H, W) of :data:`memorygan.parts.FACE_PARTS`, summing to 1.

        Returns:
            (B, K, H, W) float32, summing to 1; outside the band as they were.
        """
        size = images.shape[-2:]
        if size != (SIDE, SIDE):
            images = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        band = self.cut(images).to(self.head.weight)
        seen = (self(band).softmax(1) + self(band.flip(-1)).softmax(1).flip(-1)) / 2
        top, bottom, left, right = self.config.box
        around = (left, SIDE - right, top, SIDE - bottom)
        inside, near = (F.pad(x.float(), around) for x in (torch.ones_like(seen[:, :1]), seen[:, 1:]))
        if size != (SIDE, SIDE):
            inside, near = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (inside, near))
        parts = [FACE_PARTS.index(name) for name in PARTS]
        result = probabilities.float().clone()
        result[:, parts] = near + (1.0 - inside) * result[:, parts]
        # What the two parts leave is shared by the others as before.
        rest = [k for k in range(result.shape[1]) if k not in parts]
        left_over = (1.0 - result[:, parts].sum(1, keepdim=True)).clamp_min(0.0)
        result[:, rest] *= left_over / result[:, rest].sum(1, keepdim=True).clamp_min(1e-6)
        # Where the parser was sure of an eye or a brow that is none, it is skin.
        result[:, FACE_PARTS.index("skin")] += 1.0 - result.sum(1)
        return result


def save_closer_look(path: str | os.PathLike[str], net: CloserLook, provenance: Provenance) -> str:
    """Writes it, as :func:`memorygan.network_file.save_network`."""
    return save_network(path, KIND, net, provenance, parts=list(PARTS))


def load_closer_look(path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> CloserLook:
    """That of a file, by default the bundled one, as :func:`memorygan.network_file.load_network`."""

    def build(meta: Mapping[str, Any]) -> CloserLook:
        if meta.get("parts") != list(PARTS):
            raise ValueError(f"it looks for other parts than this program, which needs {', '.join(PARTS)}")
        return CloserLook(network_config(CloserConfig, meta))

    return channels_last(load_network(path or DEFAULT_WEIGHTS, KIND, build, device))
