"""Photos as a render net draws them: softer than they were, or with another picture's strands and lashes in them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Of pictures of 128 pixels, the ends of uniform ranges.
_BLUR = (0.4, 1.3)  # pixels
_SIDE = (0.375, 0.9375)  # share of the side that is left
_PAINTED, _EVEN = (1.0, 3.0), (0.08, 0.47)  # pixels; of a range of 2
_COARSE = (0.7, 4.5)  # pixels: what is finer is the other picture's
_REACH = 3  # pixels


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """(B, C, H, W) images, each with a Gaussian of its own standard deviation, (B,) in pixels."""
    reach = math.ceil(2.5 * float(sigma.max()))
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    line = torch.exp(-0.5 * (places / sigma[:, None]).square())
    line = (line / line.sum(1, keepdim=True)).repeat_interleave(images.shape[1], dim=0)[:, None]  # (BC, 1, n)
    flat = F.pad(images.flatten(0, 1)[None], (reach,) * 4, mode="reflect")
    flat = F.conv2d(flat, line[..., None], groups=len(line))
    return F.conv2d(flat, line[..., None, :], groups=len(line))[0].unflatten(0, images.shape[:2])


def painted(images: Tensor, sigma: Tensor, even: Tensor) -> Tensor:
    """(B, C, H, W) bilateral filter (Tomasi and Manduchi 1998): what differs little becomes one colour, edges stay.

    Args:
        images: in [−1, 1].
        sigma: (B,) standard deviation in pixels.
        even: (B,) and of differences, in the pictures' unit.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (_REACH,) * 4, mode="reflect")
    found, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    near, like = (1.0 / (2.0 * one.square().view(-1, 1, 1, 1)) for one in (sigma, even))
    for down in range(-_REACH, _REACH + 1):
        for right in range(-_REACH, _REACH + 1):
            other = padded[..., _REACH + down : _REACH + down + height, _REACH + right : _REACH + right + width]
            apart = (other - images).abs().sum(1, keepdim=True)
            weight = torch.exp(-near * (down * down + right * right) - like * apart.square())
            found, weights = found + weight * other, weights + weight
    return found / weights


def softened(images: Tensor, dice: torch.Generator) -> Tensor:
    """(B, C, S, S) blurred or reduced and enlarged again, and every second one painted besides."""

    def between(ends: tuple[float, float]) -> Tensor:
        return ends[0] + (ends[1] - ends[0]) * torch.rand(len(images), generator=dice)

    soft, side = blurred(images, between(_BLUR)), images.shape[-1]
    small = (between(_SIDE) * side).round().int().tolist()
    reduced, brushed = (torch.rand(2, len(images), generator=dice) < 0.5).tolist()
    for row in (row for row, chosen in enumerate(reduced) if chosen):
        less = F.interpolate(images[row][None], size=small[row], mode="bilinear", align_corners=False, antialias=True)
        soft[row] = F.interpolate(less, size=side, mode="bicubic", align_corners=False)[0]
    brush = painted(soft, between(_PAINTED), between(_EVEN))
    return torch.where(torch.tensor(brushed).view(-1, 1, 1, 1), brush, soft)


def redrawn(images: Tensor, rebuilt: Tensor, dice: torch.Generator) -> Tensor:
    """(B, C, S, S) photos whose finer detail is that of their rebuilds: a generator's strands in their place."""
    low, high = _COARSE
    sigma = low + (high - low) * torch.rand(len(images), generator=dice)
    return blurred(images, sigma) + rebuilt - blurred(rebuilt, sigma)
