"""Colours as the eye sees them: sRGB to CIELAB and back."""

from __future__ import annotations

import torch
from torch import Tensor

_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB (B, 3, …) in 0–1 → CIELAB (D65) of the same shape, L* in 0–100."""
    flat = rgb.flatten(2)
    linear = torch.where(flat <= 0.04045, flat / 12.92, ((flat + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,bjp->bip", flat.new_tensor(_XYZ), linear) / flat.new_tensor(_WHITE).view(1, 3, 1)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(1e-6) ** (1.0 / 3.0), 7.787 * xyz + 16.0 / 116.0)
    lab = torch.stack((116.0 * f[:, 1] - 16.0, 500.0 * (f[:, 0] - f[:, 1]), 200.0 * (f[:, 1] - f[:, 2])), dim=1)
    return lab.view_as(rgb)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """CIELAB (D65) (B, 3, …) → sRGB in 0–1 of the same shape; colours that no screen shows are clipped."""
    lightness, red, yellow = lab.flatten(2).unbind(dim=1)
    y = (lightness + 16.0) / 116.0
    f = torch.stack((y + red / 500.0, y, y - yellow / 200.0), dim=1)
    xyz = torch.where(f > 0.206893, f**3, (f - 16.0 / 116.0) / 7.787) * lab.new_tensor(_WHITE).view(1, 3, 1)
    inverse = torch.linalg.inv(lab.new_tensor(_XYZ, dtype=torch.float64)).to(lab.dtype)
    linear = torch.einsum("ij,bjp->bip", inverse, xyz).clamp(0.0, 1.0)
    rgb = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-9) ** (1.0 / 2.4) - 0.055)
    return rgb.view_as(lab)
