"""Pictures between persons, and pictures of nobody: blends, fused halves, warps, mush, veils, bad light, occlusion.

A judge that has only seen photos gives a high mark to anything with two eyes. The identity judge's teacher is asked
about these pictures too, so that the judge learns what it says of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Faces = tuple[Tensor, Tensor]
# (images (B, 3, S, S) in [0, 1], landmarks (B, 5, 2) in shares, the same of other faces, dice) → images and landmarks.
Distortion = Callable[[Tensor, Tensor, Tensor, Tensor, torch.Generator], Faces]


def _between(low: float, high: float, count: int, dice: torch.Generator, *dims: int) -> Tensor:
    """(B, *dims or 1, 1, 1) uniform numbers."""
    return low + (high - low) * torch.rand(count, *(dims or (1, 1, 1)), generator=dice)


def _grid(size: int) -> tuple[Tensor, Tensor]:
    line = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def _mixed(share: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Landmarks of a picture that shows ``share`` of the other face."""
    return torch.lerp(one, other, share.reshape(-1, 1, 1))


def blend(x: Tensor, marks: Tensor, others: Tensor, other_marks: Tensor, dice: torch.Generator) -> Faces:
    """A weighted mean of two faces."""
    share = _between(0.15, 0.75, len(x), dice)
    return torch.lerp(x, others, share), _mixed(share, marks, other_marks)


def halves(x: Tensor, marks: Tensor, others: Tensor, other_marks: Tensor, dice: torch.Generator) -> Faces:
    """Two faces joined along a line near the middle of the face: left and right, or upper and lower part."""
    across, up = _grid(x.shape[-1])
    turned = torch.rand(len(x), 1, 1, 1, generator=dice) < 0.5
    place = torch.where(turned, _between(0.4, 0.6, len(x), dice), _between(0.48, 0.68, len(x), dice))
    line = torch.where(turned, across, up) - place
    line = torch.where(torch.rand(len(x), 1, 1, 1, generator=dice) < 0.5, line, -line)
    weight = torch.sigmoid(line / _between(0.004, 0.04, len(x), dice))
    return torch.lerp(x, others, weight), _mixed(torch.full((len(x),), 0.5), marks, other_marks)


def other_head(x: Tensor, marks: Tensor, others: Tensor, other_marks: Tensor, dice: torch.Generator) -> Faces:
    """The inner face on the head of another."""
    across, up = _grid(x.shape[-1])
    middle = marks.mean(1)
    dx = (across - middle[:, 0].reshape(-1, 1, 1, 1)) / _between(0.2, 0.3, len(x), dice)
    dy = (up - middle[:, 1].reshape(-1, 1, 1, 1)) / _between(0.24, 0.34, len(x), dice)
    weight = torch.sigmoid((1 - (dx.square() + dy.square()).sqrt()) * 12)
    return torch.lerp(others, x, weight), marks


def crowd(x: Tensor, marks: Tensor, others: Tensor, other_marks: Tensor, dice: torch.Generator) -> Faces:
    """A mean of four faces, as a generator draws where it remembers nobody."""
    weights = torch.softmax(torch.randn(4, len(x), 1, 1, 1, generator=dice), 0)
    faces = (x, others, others.roll(1, 0), others.roll(2, 0))
    places = (marks, other_marks, other_marks.roll(1, 0), other_marks.roll(2, 0))
    shown = sum((w * f for w, f in zip(weights, faces, strict=True)), torch.zeros_like(x))
    return shown, sum((w[..., 0] * p for w, p in zip(weights, places, strict=True)), torch.zeros_like(marks))


def warp(x: Tensor, marks: Tensor, _: Tensor, __: Tensor, dice: torch.Generator) -> Faces:
    """Other proportions: a smooth field moves eyes, nose, mouth and jaw by up to some hundredths of the side."""
    cells = 3 + int(torch.randint(4, (1,), generator=dice))
    field = torch.randn(len(x), 2, cells, cells, generator=dice) * _between(0.01, 0.06, len(x), dice)
    smooth = F.interpolate(field, size=x.shape[-2:], mode="bicubic", align_corners=True)
    across, up = _grid(x.shape[-1])
    where = torch.stack([across, up], -1) * 2 - 1 + smooth.permute(0, 2, 3, 1)
    moved = F.grid_sample(x, where, padding_mode="border", align_corners=False)
    here = F.grid_sample(smooth, (marks * 2 - 1)[:, :, None], align_corners=True)[..., 0].transpose(1, 2)
    return moved, marks - here / 2


def veil(x: Tensor, marks: Tensor, _: Tensor, __: Tensor, dice: torch.Generator) -> Faces:
    """Blurred: brought down to 10 to 48 pixels and back."""
    shown = x.clone()
    for part in torch.arange(len(x)).chunk(6):
        if len(part):
            low = int(_between(10, 48, 1, dice, 1))
            small = F.interpolate(x[part], size=(low, low), mode="bilinear", antialias=True, align_corners=False)
            shown[part] = F.interpolate(small, size=x.shape[-2:], mode="bicubic", align_corners=False)
    return shown.clamp(0, 1), marks


def light(x: Tensor, marks: Tensor, _: Tensor, __: Tensor, dice: torch.Generator) -> Faces:
    """Too dark or too bright, a lamp from one side, a colour cast, gray."""
    count = len(x)
    across, up = _grid(x.shape[-1])
    angle = _between(0, 6.283, count, dice)
    ramp = (torch.cos(angle) * (across - 0.5) + torch.sin(angle) * (up - 0.5)) * _between(0, 3.2, count, dice)
    gamma = torch.exp(_between(-0.7, 0.9, count, dice))
    shown = x.clamp(1e-3, 1).pow(gamma) * torch.exp(ramp - 0.15) * (1 + _between(-0.3, 0.3, count, dice, 3, 1, 1))
    gray = shown.mean(1, keepdim=True)
    return torch.lerp(shown, gray, (torch.rand(count, 1, 1, 1, generator=dice) < 0.25).float()).clamp(0, 1), marks


def occlude(x: Tensor, marks: Tensor, others: Tensor, _: Tensor, dice: torch.Generator) -> Faces:
    """An ellipse or a bar over part of the face, of one colour or showing something else."""
    count = len(x)
    across, up = _grid(x.shape[-1])
    cx, cy = _between(0.25, 0.75, count, dice), _between(0.3, 0.95, count, dice)
    rx, ry = _between(0.06, 0.3, count, dice), _between(0.05, 0.2, count, dice)
    dx, dy = (across - cx).abs() / rx, (up - cy).abs() / ry
    bar = torch.rand(count, 1, 1, 1, generator=dice) < 0.5
    distance = torch.where(bar, torch.maximum(dx, dy), (dx.square() + dy.square()).sqrt())
    something = torch.where(
        torch.rand(count, 1, 1, 1, generator=dice) < 0.6,
        torch.rand(count, 3, 1, 1, generator=dice),
        others.flip(2).roll(x.shape[-1] // 3, 3),
    )
    return torch.lerp(x, something, torch.sigmoid((1 - distance) * 15)), marks


def mush(x: Tensor, marks: Tensor, others: Tensor, other: Tensor, dice: torch.Generator) -> Faces:
    """A broken picture: patches pushed about, blotches of light and colour, a half-blurred face under it."""
    shown, marks = warp(x, marks, others, other, dice)
    fine = torch.randn(len(x), 2, 12, 12, generator=dice) * _between(0.0, 0.04, len(x), dice)
    across, up = _grid(x.shape[-1])
    field = F.interpolate(fine, size=x.shape[-2:], mode="bilinear", align_corners=False)
    where = torch.stack([across, up], -1) * 2 - 1 + field.permute(0, 2, 3, 1)
    shown = F.grid_sample(shown, where, padding_mode="border", align_corners=False)
    cells = 6 + int(torch.randint(20, (1,), generator=dice))
    blotches = torch.randn(len(x), 3, cells, cells, generator=dice) * _between(0.02, 0.22, len(x), dice)
    shown = shown + F.interpolate(blotches, size=x.shape[-2:], mode="bilinear", align_corners=False)
    return veil(shown.clamp(0, 1), marks, others, other, dice)[0], marks


def noise(x: Tensor, marks: Tensor, _: Tensor, __: Tensor, dice: torch.Generator) -> Faces:
    """Sensor noise up to a spread of a quarter of the range."""
    return (x + torch.randn(x.shape, generator=dice) * _between(0.03, 0.25, len(x), dice)).clamp(0, 1), marks


DISTORTIONS: dict[str, Distortion] = {
    "blend": blend,
    "halves": halves,
    "other head": other_head,
    "crowd": crowd,
    "warp": warp,
    "blur": veil,
    "light": light,
    "occlusion": occlude,
    "mush": mush,
    "noise": noise,
}
# Those that show something of the other face.
OF_TWO = ("blend", "halves", "other head", "crowd")
