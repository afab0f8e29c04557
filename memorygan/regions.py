"""Features pooled over every part's region of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.layers import coordinate_grid

# Mean, and first and second moments over the region: x, y, x², y², xy.
MOMENTS = 6


def pool_regions(maps: Sequence[Tensor], one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of several maps over every part.

    Args:
        maps: L of (B, C_l, s_l, s_l), one at least, in one dtype.
        one_hot: (B, K, S, S) in 0–1, soft borders allowed.

    Returns:
        (B, K, 6·ΣC_l) moments in the maps' dtype, and the (B, K, 6) float32 geometry at the side of the first map.
    """
    found = [region_moments(x, F.adaptive_avg_pool2d(one_hot.float(), x.shape[-1])) for x in maps]
    return torch.cat([moments for moments, _ in found], dim=-1), found[0][1]


def region_moments(x: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
    """Pools features over regions.

    Args:
        x: (B, C, s, s).
        region: (B, K, s, s) float32 in 0–1.

    Returns:
        (B, K, 6·C) moments of the features in coordinates relative to the region, and (B, K, 6) geometry:
        √area, centre x and y, spread x and y, xy correlation; all 0 for an absent part.
    """
    side = x.shape[-1]
    flat = region.flatten(2)  # (B, K, P)
    xy = coordinate_grid(side, 0, x.device)  # (P, 2)
    area = flat.sum(dim=2, keepdim=True)  # (B, K, 1)
    weight = flat / (area + 1e-4)
    centre = weight @ xy  # (B, K, 2)
    offset = xy - centre[:, :, None]  # (B, K, P, 2)
    spread = torch.sqrt((weight[..., None] * offset.square()).sum(dim=2) + 1e-4)  # (B, K, 2)
    unit = (offset / spread[:, :, None]).clamp(-3, 3)
    u, v = unit[..., 0], unit[..., 1]
    basis = torch.stack((torch.ones_like(u), u, v, u * u - 1, v * v - 1, u * v), dim=2)  # (B, K, 6, P)
    basis = (basis * weight[:, :, None]).flatten(1, 2).to(x.dtype)  # (B, 6·K, P)
    moments = basis @ x.flatten(2).transpose(1, 2)  # (B, 6·K, C)
    correlation = (weight * u * v).sum(dim=2, keepdim=True)
    present = (area > 0.5).float()
    fraction = torch.sqrt(area / side**2) * 3.0
    geometry = torch.cat((fraction, centre * 2.0, spread * 3.0, correlation), dim=-1) * present
    return moments.unflatten(1, (-1, MOMENTS)).flatten(2), geometry
