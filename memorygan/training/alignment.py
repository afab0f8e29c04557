"""Pictures moved to where a recognition network wants the eyes, the tip of the nose and the corners of the mouth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """The similarity transforms (B, 2, 3) that bring points ``source`` (B, P, 2) nearest to ``target`` (P, 2).

    Least squares over turn, scale and shift; no mirror images (Umeyama 1991, in closed form for the plane).
    """
    middle, goal = source.mean(1, keepdim=True), target.mean(0)
    a, b = source - middle, target - goal
    power = a.square().sum((1, 2))
    cos = (a * b).sum((1, 2)) / power
    sin = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(1) / power
    linear = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    return torch.cat([linear, goal[:, None] - linear @ middle.transpose(1, 2)], 2)


def align(images: Tensor, marks: Tensor, places: Sequence[Sequence[float]], size: int) -> Tensor:
    """Moves, turns and scales pictures so that their landmarks come to lie at ``places``.

    Args:
        images: (B, C, S, S).
        marks: (B, 5, 2) in shares of the side.
        places: five (x, y) in pixels of the result.
        size: side of the result in pixels.

    Returns:
        (B, C, size, size), averaged over 2 × 2 samples per pixel; beyond the picture its border goes on.
    """
    goal = marks.new_tensor(places) / size * 2 - 1
    forward = similarity(marks * 2 - 1, goal)
    # grid_sample asks where a pixel of the result comes from.
    inverse = torch.linalg.inv(forward[:, :, :2])
    theta = torch.cat([inverse, -inverse @ forward[:, :, 2:]], 2)
    grid = F.affine_grid(theta, [len(images), images.shape[1], 2 * size, 2 * size], align_corners=False)
    return F.avg_pool2d(F.grid_sample(images, grid, padding_mode="border", align_corners=False), 2)
