"""Augmentation of face batches that keeps what captions say true: no hue shift, no strong crop.

A judge is optimised against, so it must not answer to what a viewer does not see: fine noise, exact pixel places,
sharpness.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Of a face that is placed: share of the side to either side; the picture's width over the crop's; degrees.
_SHIFT, _ZOOM, _TILT = 0.07, (0.85, 1.12), 8.0
# Relative change of brightness and contrast, and of each colour channel: small, so that colours keep their names.
_LIGHT, _CAST = 0.12, 0.04


def place(images: Tensor, size: int, dice: torch.Generator, *, flip: Tensor | None = None) -> Tensor:
    """Moves, scales and tilts every face a little, and mirrors those marked.

    Args:
        images: (B, 3, H, W).
        size: side of the result.
        dice: source of randomness.
        flip: (B,) bool.

    Returns:
        (B, 3, size, size); the border is reflected.
    """
    batch = len(images)
    angle = torch.deg2rad(_TILT * _spread(dice, batch) * _spread(dice, batch).abs())
    scale = 1 / (_ZOOM[0] + (_ZOOM[1] - _ZOOM[0]) * torch.rand(batch, generator=dice))
    side = torch.ones(batch) if flip is None else torch.where(flip, -1.0, 1.0)
    cos, sin, move = torch.cos(angle) * scale, torch.sin(angle) * scale, 2 * _SHIFT * _spread(dice, 2, batch)
    theta = torch.stack([cos * side, -sin, move[0], sin * side, cos, move[1]], dim=1).view(batch, 2, 3)
    grid = F.affine_grid(theta, [batch, 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _spread(dice: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=dice) * 2 - 1


def degrade(x: Tensor, dice: torch.Generator) -> Tensor:
    """Light, blur, low resolution and noise, each on some faces of a batch (B, 3, S, S) in [0, 1].

    Args:
        x: the faces; changed in place.
        dice: source of randomness.
    """
    batch, size = len(x), x.shape[-1]

    def chosen(chance: float) -> Tensor:
        return torch.nonzero(torch.rand(batch, generator=dice) < chance).flatten()

    gain = 1 + _LIGHT * _spread(dice, batch, 1, 1, 1) + _CAST * _spread(dice, batch, 3, 1, 1)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x.sub_(mean).mul_(1 + _LIGHT * _spread(dice, batch, 1, 1, 1)).add_(mean).mul_(gain)
    # Lost detail: brought down to a third to nine tenths of the side and back, three sizes per batch.
    for part in chosen(0.5).chunk(3):
        if len(part):
            low = int(size * (0.33 + 0.57 * float(torch.rand(1, generator=dice))))
            small = F.interpolate(x[part], size=(low, low), mode="bilinear", align_corners=False, antialias=True)
            x[part] = F.interpolate(small, size=(size, size), mode="bicubic", align_corners=False)
    if len(hit := chosen(0.25)):
        x[hit] = F.avg_pool2d(F.pad(x[hit], (1, 1, 1, 1), mode="replicate"), 3, 1)
    if len(hit := chosen(0.6)):
        noise = torch.randn(x[hit].shape, generator=dice)
        x[hit] += noise * (0.06 * torch.rand(len(hit), 1, 1, 1, generator=dice))
    if len(hit := chosen(0.3)):  # coarse blotches, as an optimiser likes to make
        noise = torch.randn(len(hit), 3, size // 8, size // 8, generator=dice)
        noise = F.interpolate(noise, size=(size, size), mode="bilinear", align_corners=False)
        x[hit] += noise * (0.05 * torch.rand(len(hit), 1, 1, 1, generator=dice))
    return x.clamp_(0, 1)
