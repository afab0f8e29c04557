"""How well a face parser does, part by part, on clean photos and on difficult ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.analysis.agreement import Agreement, agreement, confusion_matrix
from memorygan.analysis.blocks import markdown_table
from memorygan.parser import FaceParser
from memorygan.picture import from_uint8
from memorygan.training.parser_composites import IGNORE
from memorygan.training.parser_data import PackedFaces

# A condition changes images (B, 3, H, W) in [-1, 1] and masks (B, H, W) uint8 of the faces from index `first` on.
Condition = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def evaluate(parser: FaceParser, faces: PackedFaces, condition: Condition | None = None, batch: int = 8) -> Agreement:
    """Score a parser at the resolution of the masks."""
    count = len(parser.parts)
    confusion = torch.zeros(count, count, dtype=torch.int64)
    for start in range(0, len(faces), batch):
        images = from_uint8(faces.images[start : start + batch])
        truth = torch.from_numpy(np.array(faces.masks[start : start + batch]))
        if condition is not None:
            images, truth = condition(images, truth, start)
        found = parser.parse(images).ids
        counted = truth != IGNORE
        confusion += confusion_matrix(truth[counted], found[counted], count)
    return agreement(confusion, parser.parts.names)


def colour_cast(images: Tensor, masks: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Tint every face: one of warm, cold, green and magenta light in turn."""
    gains = torch.tensor([[1.25, 1.0, 0.65], [0.65, 0.95, 1.3], [0.75, 1.2, 0.75], [1.2, 0.7, 1.2]])
    turn = (torch.arange(len(images)) + first) % len(gains)
    light = (images + 1) / 2 * gains[turn][:, :, None, None]
    return light.clamp(0, 1) * 2 - 1, masks


def grey(images: Tensor, masks: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Black-and-white photo (ITU-R 601 luma)."""
    luma = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    return luma.expand(-1, 3, -1, -1).contiguous(), masks


def darkness(images: Tensor, masks: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """A quarter of the light, stored in 8 bits, with sensor noise."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(first)) * 0.01
    return ((images + 1) / 2 * 0.25 + noise).clamp(0, 1).mul(255).round().div(127.5).sub(1), masks


def rotation(degrees: float) -> Condition:
    """Turn every other face left and right by ``degrees``; what comes in from outside is black and does not count."""

    def turn(images: Tensor, masks: Tensor, first: int) -> tuple[Tensor, Tensor]:
        side = torch.where((torch.arange(len(images)) + first) % 2 == 0, 1.0, -1.0)
        angle = side * math.radians(degrees)
        cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
        theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        turned = F.grid_sample(images + 1, grid, align_corners=False) - 1
        # +1 so that the zeros sampled outside can be told from the background.
        ids = F.grid_sample(masks[:, None].float() + 1, grid, mode="nearest", align_corners=False)[:, 0].long() - 1
        return turned, torch.where(ids < 0, IGNORE, ids).to(torch.uint8)

    return turn


CONDITIONS: dict[str, Condition | None] = {
    "clean": None,
    "colour cast": colour_cast,
    "grey": grey,
    "dark": darkness,
    "10° tilt": rotation(10),
    "20° tilt": rotation(20),
}


def milliseconds_per_face(parser: FaceParser) -> float:
    """Median time to parse one photo of 256 pixels with the threads PyTorch has now."""
    photo = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    times = []
    for _ in range(22):  # the first two warm up
        started = time.perf_counter()
        parser.parse(photo)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times[2:]))


def format_table(scores: dict[str, Agreement], names: Sequence[str]) -> str:
    """A Markdown table: one row per part, one column per condition."""
    columns = scores.values()
    rows = [
        ["pixel accuracy", *(f"{100 * column.accuracy:.1f} %" for column in columns)],
        ["mean IoU", *(f"{column.mean_iou:.3f}" for column in columns)],
        *([name, *(f"{column.iou[name]:.3f}" for column in columns)] for name in names),
    ]
    return markdown_table(["", *scores], rows)
