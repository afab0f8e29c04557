"""DiffAugment (Zhao et al. 2020): every picture that a critic sees is recoloured, shifted and cut, real or not.

Image and mask move together; left–right mirroring belongs to the data stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.training.distributed import Draws

SHIFT = 1 / 8  # of the side, either way
CUT = 1 / 2  # side of the square that is cut out
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 1.0  # widths of the uniform ranges, as published for [−1, 1] pictures


@dataclass(frozen=True)
class DiffAugment:
    """Transforms of B samples.

    Attributes:
        color: (B, 3) uniform in [0, 1): brightness, saturation, contrast.
        shift: (B, 2) uniform in [0, 1): down, right.
        cut: (B, 2) uniform in [0, 1): centre of the square, y and x.
    """

    color: Tensor
    shift: Tensor
    cut: Tensor

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, 3, S, S) and mask (B, K, S, S), transformed alike; gradients pass through."""
        image = self._recolour(image)
        side = image.shape[-1]
        reach = round(side * SHIFT)
        offsets = ((self.shift * (2 * reach + 1)).long().clamp_max(2 * reach)).tolist()
        kept = self._kept(side).to(image.dtype)
        return self._move(image, offsets, reach) * kept, self._move(mask, offsets, reach) * kept

    def _recolour(self, image: Tensor) -> Tensor:
        brightness, saturation, contrast = (c.view(-1, 1, 1, 1).to(image.dtype) for c in self.color.unbind(dim=1))
        image = image + BRIGHTNESS * (brightness - 0.5)
        gray = image.mean(dim=1, keepdim=True)
        image = gray + (image - gray) * (SATURATION * saturation)
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        return mean + (image - mean) * (CONTRAST * contrast + 0.5)

    @staticmethod
    def _move(x: Tensor, offsets: list[list[int]], reach: int) -> Tensor:
        side = x.shape[-1]
        padded = F.pad(x, (reach, reach, reach, reach))  # zeros
        rows = [own[:, y : y + side, x0 : x0 + side] for own, (y, x0) in zip(padded, offsets, strict=True)]
        return torch.stack(rows).contiguous(memory_format=torch.channels_last)

    def _kept(self, side: int) -> Tensor:
        """(B, 1, S, S): 0 within the square that is cut out, which may lie partly outside."""
        line = torch.arange(side, device=self.cut.device)
        centre = (self.cut * (side + 1)).long()[..., None]  # (B, 2, 1)
        half = round(side * CUT) // 2
        inside = (line >= centre - half) & (line < centre + half)  # (B, 2, S)
        return (~(inside[:, 0, :, None] & inside[:, 1, None, :]))[:, None].float()


def draw_augment(draws: Draws, batch: int) -> DiffAugment:
    """Transforms for ``batch`` samples."""
    numbers = draws.uniform(batch, 7)
    return DiffAugment(numbers[:, :3], numbers[:, 3:5], numbers[:, 5:])
