"""Adaptive augmentation for small sets: image and mask move together, so that nothing leaks into the samples.

After Karras et al. 2020 (ADA): pixel shifts, geometry and colour, each applied with probability p; p follows how
often the discriminator is right about real faces. Left–right mirroring belongs to the data stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.training.distributed import Draws

# Standard deviations at p = 1; shifts are in units of half the picture.
SHIFT, LOG2_SCALE, ROTATION, LOG2_ASPECT = 0.125, 0.2, math.pi / 16, 0.1
BRIGHTNESS, LOG2_CONTRAST, LOG2_SATURATION, HUE = 0.2, 0.5, 1.0, math.pi / 8
DRAWS = 16


@dataclass(frozen=True)
class Transform:
    """One geometric and one colour transform for some samples of a batch; the others pass as they are.

    Attributes:
        rows: (N,) which samples; None for all.
        affine: (N, 2, 3) sampling grid, target to source; None where nothing is to be done.
        color: (N, 3, 4) linear map of RGB plus offset.
    """

    rows: Tensor | None
    affine: Tensor | None
    color: Tensor

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Moves image (B, 3, S, S) and mask (B, K, S, S) alike and recolours the image; gradients pass through."""
        if self.affine is None:
            return image, mask
        if self.rows is None:
            return self._move(image, mask, self.affine)
        moved = self._move(image[self.rows], mask[self.rows], self.affine)
        return image.index_copy(0, self.rows, moved[0]), mask.index_copy(0, self.rows, moved[1])

    def _move(self, image: Tensor, mask: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
        together = torch.cat((image.float(), mask.float()), dim=1)
        grid = F.affine_grid(affine, list(together.shape), align_corners=False)
        moved = F.grid_sample(together, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        rgb = torch.einsum("bij,bjhw->bihw", self.color[:, :, :3], moved[:, :3]) + self.color[:, :, 3, None, None]
        return (
            rgb.to(image.dtype, memory_format=torch.channels_last),
            moved[:, 3:].to(mask.dtype, memory_format=torch.channels_last),
        )


def draw_transform(draws: Draws, batch: int, strength: float) -> Transform:
    """Transforms for ``batch`` samples, each kind applied with probability ``strength`` in [0, 1]."""
    chance, amount = draws.uniform(batch, 8), draws.normal(batch, DRAWS)
    on, rows = (chance < strength).float(), None
    if on.device.type == "cpu":  # a GPU would have to wait for the answer
        rows = on.any(dim=1).nonzero().squeeze(1)
        on, amount = on[rows], amount[rows]
    if strength <= 0.0 or (rows is not None and not len(rows)):
        return Transform(None, None, torch.empty(0))
    zero, one = torch.zeros_like(on[:, 0]), torch.ones_like(on[:, 0])
    angle = amount[:, 0] * ROTATION * on[:, 0]
    scale = torch.exp2(amount[:, 1] * LOG2_SCALE * on[:, 1])
    aspect = torch.exp2(amount[:, 2] * LOG2_ASPECT * on[:, 2])
    shift = amount[:, 3:5] * SHIFT * on[:, 3:4]
    cos, sin = torch.cos(angle), torch.sin(angle)
    lines = [
        torch.stack((cos * scale * aspect, -sin * scale, shift[:, 0]), dim=1),
        torch.stack((sin * scale, cos * scale / aspect, shift[:, 1]), dim=1),
    ]
    return Transform(rows, torch.stack(lines, dim=1), _color(amount[:, 5:], on[:, 4:], zero, one))


def _color(amount: Tensor, on: Tensor, zero: Tensor, one: Tensor) -> Tensor:
    """(B, 3, 4): hue turn about the grey axis, saturation, contrast, brightness."""
    grey = torch.full((3, 3), 1.0 / 3.0, device=amount.device)
    eye = torch.eye(3, device=amount.device)
    turn = amount[:, 0] * HUE * on[:, 0]
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=amount.device) / math.sqrt(3.0)
    cos, sin = torch.cos(turn)[:, None, None], torch.sin(turn)[:, None, None]
    hue = cos * eye + (1 - cos) * grey + sin * cross  # Rodrigues' rotation about (1, 1, 1)
    saturation = torch.exp2(amount[:, 1] * LOG2_SATURATION * on[:, 1])[:, None, None]
    contrast = torch.exp2(amount[:, 2] * LOG2_CONTRAST * on[:, 2])[:, None, None]
    linear = (grey + saturation * (eye - grey)) @ hue * contrast
    offset = (amount[:, 3] * BRIGHTNESS * on[:, 3])[:, None, None].expand(-1, 3, 1)
    return torch.cat((linear, offset), dim=2)
