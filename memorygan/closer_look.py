"""A closer look at a part of a face of 256 pixels: what small things cover there, at every pixel.

The parser sees the whole face and scores cells of two to three pixels, of which an eye is three to six high and an
earring as little. A closer look sees its surroundings alone, as large as they are, and says of each pixel which of its
parts it is, or none; the parser keeps the say in what else there is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.checkpoint import Provenance
from memorygan.face_trunk import FaceUNet, convolution, standardised
from memorygan.layers import channels_last
from memorygan.manifest import WEIGHTS_DIR
from memorygan.network_file import load_network, network_config, save_network
from memorygan.parts import FACE_PARTS

KIND = "closer-look"
# Side of the face whose pixels it looks at; in smaller pictures there is nothing closer to see.
SIDE = 256


@dataclass(frozen=True)
class CloserConfig:
    """Shape of a :class:`CloserLook`.

    Attributes:
        box: top, bottom, left and right of what is looked at, in pixels of a face of 256; on a face's other side, its
            mirror image is, too.
        widths: channels at 1/2, 1/4, 1/8 … of the size, as the parser's.
        fine: channels at full size.
        trust: percent of the say about its parts; the parser has the rest.

    Raises:
        ValueError: for a combination that cannot be built.
    """

    box: tuple[int, ...] = (80, 160, 32, 224)
    widths: tuple[int, ...] = (32, 64, 96, 160)
    fine: int = 16
    trust: int = 100

    def __post_init__(self) -> None:
        if not 2 <= len(self.widths) <= 6 or not all(1 <= width <= 512 for width in (*self.widths, self.fine)):
            raise ValueError(f"widths must be 2 to 6 numbers, and with fine from 1 to 512, got {self}")
        if not 1 <= self.trust <= 100:
            raise ValueError(f"trust must be 1 to 100 percent, got {self.trust}")
        if len(self.box) != 4:
            raise ValueError(f"box must be four numbers, got {self.box}")
        top, bottom, left, right = self.box
        inside, stride = 0 <= top < bottom <= SIDE and 0 <= left < right <= SIDE, 2 ** len(self.widths)
        if not inside or (bottom - top) % stride or (right - left) % stride:
            raise ValueError(f"box must lie within {SIDE} pixels, its sides multiples of {stride}, got {self.box}")

    @property
    def other_side(self) -> tuple[int, int]:
        """Left and right of the box's mirror image."""
        return SIDE - self.box[3], SIDE - self.box[2]


# What there are closer looks at: the parts that are told, and where they are looked for.
LOOKS: Mapping[str, tuple[tuple[str, ...], CloserConfig]] = {
    "eyes": (("eyes", "eyebrows"), CloserConfig()),
    "ears": (("earring", "ears"), CloserConfig((128, 256, 0, 112), trust=50)),
}


def bundled(look: str) -> Path:
    """Path of the weights of one of :data:`LOOKS`."""
    return WEIGHTS_DIR / f"{look}.safetensors"


class CloserLook(FaceUNet):
    """The parser's network with a level more, at full size: from its box to scores of none of its parts, and of each.

    Args:
        parts: names of what it tells.
        config: its shape.
    """

    def __init__(self, parts: Sequence[str], config: CloserConfig) -> None:
        super().__init__(config.widths)
        self.parts, self.config = tuple(parts), config
        self.fine = convolution(3, config.fine)
        self.fuse = convolution(config.widths[0] + config.fine, config.fine)
        self.head = nn.Conv2d(config.fine, 1 + len(self.parts), 1)

    def forward(self, near: Tensor) -> Tensor:
        """(B, 3, h, w) in [−1, 1], the box of a face of 256 pixels → scores (B, 1 + parts, h, w), none first."""
        coarse = F.interpolate(self.decoded(near), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(self.fuse(torch.cat([coarse, self.fine(standardised(near).to(coarse))], dim=1)))

    def cut(self, images: Tensor) -> Tensor:
        """(B, ..., 256, 256) → (B, ..., h, w)."""
        top, bottom, left, right = self.config.box
        return images[..., top:bottom, left:right]

    def sides(self, images: Tensor) -> Tensor:
        """(B, ..., 256, 256) → (B or 2B, ..., h, w): the box, and that of the mirror image if it is another."""
        if self.config.other_side == self.config.box[2:]:
            return self.cut(images)
        return torch.cat([self.cut(images), self.cut(images.flip(-1))])

    @torch.no_grad()
    def refine(self, images: Tensor, probabilities: Tensor) -> Tensor:
        """The parser's probabilities with its parts as they are seen from near by.

        Args:
            images: (B, 3, H, W) in [−1, 1], H and W at least 256.
            probabilities: (B, K, H, W) of :data:`memorygan.parts.FACE_PARTS`, summing to 1.

        Returns:
            (B, K, H, W) float32, summing to 1; outside the box and its mirror image as they were.
        """
        size = images.shape[-2:]
        if size != (SIDE, SIDE):
            images = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        near, inside = self._seen(images)
        if size != (SIDE, SIDE):
            near, inside = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (near, inside))
        parts = [FACE_PARTS.index(name) for name in self.parts]
        result = probabilities.float().clone()
        result[:, parts] = inside * self._agreed(near, result[:, parts]) + (1.0 - inside) * result[:, parts]
        # What its parts leave is shared by the others as before.
        rest = [k for k in range(result.shape[1]) if k not in parts]
        left_over = (1.0 - result[:, parts].sum(1, keepdim=True)).clamp_min(0.0)
        result[:, rest] *= left_over / result[:, rest].sum(1, keepdim=True).clamp_min(1e-6)
        # Where the parser was sure of such a part and there is none, it is skin.
        result[:, FACE_PARTS.index("skin")] += 1.0 - result.sum(1)
        return result

    def _agreed(self, near: Tensor, parsed: Tensor) -> Tensor:
        """(B, parts, H, W) of what it sees, none first, and of the parser's: their weighted geometric mean."""
        trust = self.config.trust / 100.0
        if trust == 1.0:
            return near[:, 1:]
        none = (1.0 - parsed.sum(1, keepdim=True)).clamp_min(0.0)
        both = near.clamp_min(1e-6).log() * trust + torch.cat([none, parsed], 1).clamp_min(1e-6).log() * (1.0 - trust)
        return both.softmax(1)[:, 1:]

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1 + parts, 256, 256) probabilities, 0 outside; (1, 1, 256, 256) 1 where it looks and 0 elsewhere."""
        both = self.cut(torch.cat([images, images.flip(-1)])).to(self.head.weight)
        here, mirrored = self(both).float().softmax(1).chunk(2)
        top, bottom, *here_at = self.config.box
        near, times = (torch.zeros(*shape, SIDE, SIDE, device=here.device) for shape in (here.shape[:2], (1, 1)))
        for seen, (left, right) in ((here, here_at), (mirrored.flip(-1), self.config.other_side)):
            near[..., top:bottom, left:right] += seen
            times[..., top:bottom, left:right] += 1.0
        return near / times.clamp_min(1.0), times.clamp_max(1.0)


def save_closer_look(path: str | os.PathLike[str], net: CloserLook, provenance: Provenance) -> str:
    """Writes it, as :func:`memorygan.network_file.save_network`."""
    return save_network(path, KIND, net, provenance, parts=list(net.parts))


def load_closer_look(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> CloserLook:
    """That of a file, as :func:`memorygan.network_file.load_network`."""

    def build(meta: Mapping[str, Any]) -> CloserLook:
        parts = meta.get("parts")
        known = isinstance(parts, list) and all(name in FACE_PARTS.names and parts.count(name) == 1 for name in parts)
        if not parts or not known:
            raise ValueError(f"it looks for other parts than this program knows: {', '.join(FACE_PARTS.names)}")
        return CloserLook(parts, network_config(CloserConfig, meta))

    return channels_last(load_network(path, KIND, build, device))
