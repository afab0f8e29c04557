"""Face parser: which of the parts every pixel of a face photo belongs to.

A small U-Net at half the working resolution. It runs on :data:`memorygan.parts.FACE_PARTS` and tells the editor where
the parts of a *photo* are; generated faces bring their own mask.
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
from memorygan.closer_look import SIDE, CloserLook, load_closer_look
from memorygan.face_trunk import FaceUNet
from memorygan.layers import channels_last
from memorygan.network_file import load_network, network_config, save_network
from memorygan.parts import FACE_PARTS, PartScheme

KIND = "face-parser"
DEFAULT_WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "parser.safetensors"
MIN_IMAGE_SIZE = 32


@dataclass(frozen=True)
class ParserConfig:
    """Shape of a :class:`FaceParser`.

    Attributes:
        size: working resolution in pixels; photos of any size are resized to it.
        widths: channels at 1/2, 1/4, 1/8 … of the working resolution.
        parts: number of parts K.

    Raises:
        ValueError: for a combination that cannot be built, with the remedy.
    """

    size: int = 192
    widths: tuple[int, ...] = (32, 64, 96, 160, 256)
    parts: int = len(FACE_PARTS)

    def __post_init__(self) -> None:
        # The upper bounds keep a foreign file from asking for more memory than any parser needs.
        if not 2 <= len(self.widths) <= 6 or not all(1 <= width <= 1024 for width in self.widths):
            raise ValueError(f"widths must be 2 to 6 numbers from 1 to 1024, got {self.widths}")
        if not MIN_IMAGE_SIZE <= self.size <= 1024 or self.size % self.stride:
            nearest = min(max(round(self.size / self.stride) * self.stride, MIN_IMAGE_SIZE, self.stride), 1024)
            raise ValueError(
                f"size must be a multiple of {self.stride} for {len(self.widths)} levels, and from {MIN_IMAGE_SIZE} "
                f"to 1024, got {self.size}; try {nearest}"
            )
        if not 2 <= self.parts <= 255:
            raise ValueError(f"a parser tells 2 to 255 parts apart, background included, got {self.parts}")

    @property
    def stride(self) -> int:
        """Pixels of the working image per cell of the coarsest level."""
        return 2 ** len(self.widths)


@dataclass(frozen=True)
class ParsedFaces:
    """Parts of a batch of faces.

    Attributes:
        ids: (B, H, W) uint8, the most probable part of every pixel.
        probabilities: (B, K, H, W) float32 in [0, 1], summing to 1 over K.
        parts: the scheme that ``ids`` and K index.
    """

    ids: Tensor
    probabilities: Tensor
    parts: PartScheme = FACE_PARTS


class FaceParser(FaceUNet):
    """U-Net from a photo to part scores at half the working resolution."""

    def __init__(self, config: ParserConfig | None = None, parts: PartScheme = FACE_PARTS) -> None:
        """Build with random weights.

        Raises:
            ValueError: if the scheme and the config disagree on the number of parts.
        """
        config = config or ParserConfig()
        if len(parts) != config.parts:
            raise ValueError(f"config has {config.parts} parts, the scheme {len(parts)}; make them equal")
        widths = config.widths
        super().__init__(widths)
        self.config, self.parts = config, parts
        self.closer: tuple[CloserLook, ...] = ()
        self.head = nn.Conv2d(widths[0], self.config.parts, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Working-size images (B, 3, S, S) in [-1, 1] → part scores (B, K, S/2, S/2), differentiable.

        Images may be more precise than the weights are: they are standardised as they come.
        """
        return self.head(self.decoded(images))

    @torch.no_grad()
    def parse(self, images: Tensor, flip: bool = False, closely: bool = True) -> ParsedFaces:
        """Find the parts of aligned faces; in ones of 256 pixels and more with closer looks, if there are any.

        Args:
            images: (B, 3, H, W) float in [-1, 1], H and W at least 32; resized inside to the working size.
            flip: average with the mirrored image; twice the time, slightly steadier borders.
            closely: False where small pictures were enlarged, in which there is nothing closer to see.

        Returns:
            ids and probabilities at the size of the input.

        Raises:
            ValueError: for another shape or type, an image below 32 pixels, or values that are not finite.
            RuntimeError: in training mode, where the answer would depend on the other faces of the batch.
        """
        if self.training:
            raise RuntimeError("the parser is in training mode; call eval() before parse()")
        _check(images)
        height, width = images.shape[-2:]
        reference = self.head.weight
        small = self.resize(images.to(device=reference.device, dtype=reference.dtype))
        scores = self(small)
        if flip:
            scores = (scores + self(small.flip(-1)).flip(-1)) / 2
        scores = F.interpolate(scores.float(), size=(height, width), mode="bilinear", align_corners=False)
        probabilities = scores.softmax(dim=1)
        if closely and min(height, width) >= SIDE:
            for look in self.closer:
                probabilities = look.refine(images.to(reference.device), probabilities)
        return ParsedFaces(probabilities.argmax(dim=1).to(torch.uint8), probabilities, self.parts)

    def resize(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) → working size (B, 3, S, S), differentiable."""
        size = self.config.size
        if images.shape[-2:] == (size, size):
            return images
        return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def _check(images: Tensor) -> None:
    if images.dim() != 4 or images.shape[0] < 1 or images.shape[1] != 3:
        raise ValueError(f"images must have shape (B, 3, H, W) with B at least 1, got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floating point in [-1, 1], got {images.dtype}; divide by 127.5, subtract 1")
    if min(images.shape[-2:]) < MIN_IMAGE_SIZE:
        raise ValueError(
            f"images must be at least {MIN_IMAGE_SIZE} pixels high and wide, got {tuple(images.shape[-2:])}"
        )
    if not torch.isfinite(images).all():
        raise ValueError("images hold values that are not finite numbers; expected [-1, 1]")


def save_parser(path: str | os.PathLike[str], parser: FaceParser, provenance: Provenance) -> str:
    """Writes a parser and the names of its parts, as :func:`memorygan.network_file.save_network`."""
    return save_network(path, KIND, parser, provenance, parts=list(parser.parts.names))


def load_parser(
    path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu", closer: Sequence[Path] = ()
) -> FaceParser:
    """The parser of a file, by default the bundled one, as :func:`memorygan.network_file.load_network`.

    Args:
        path: of the parser.
        device: where it shall compute.
        closer: files of :class:`memorygan.closer_look.CloserLook` for photos, read likewise.
    """

    def build(meta: Mapping[str, Any]) -> FaceParser:
        if meta.get("parts") != list(FACE_PARTS.names):
            raise ValueError(f"it knows other parts than this program, which needs {', '.join(FACE_PARTS.names)}")
        return FaceParser(network_config(ParserConfig, meta))

    parser = channels_last(load_network(path or DEFAULT_WEIGHTS, KIND, build, device))
    parser.closer = tuple(load_closer_look(file, device) for file in closer)
    return parser
