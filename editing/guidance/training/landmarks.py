"""Five landmarks of faces that are framed already.

MTCNN (Zhang et al. 2016) looks for faces with two networks and measures them with a third. In CelebA-HQ / FFHQ framing
there is nothing to look for, so only the third one runs: on the mean box, then on the mirror image in the box that it
corrected, and the mean of both is taken.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Left, top, right, bottom of MTCNN's boxes, made square, in the mean of 48 aligned photos; shares of the side.
_BOX = (0.134, 0.187, 0.866, 0.919)
_ONET_SIZE = 48
# In a mirror image the left eye is the right one, and so the corners of the mouth.
_MIRRORED = (1, 0, 2, 4, 3)


class Landmarks:
    """Finds eyes, tip of the nose and corners of the mouth in aligned faces."""

    def __init__(self) -> None:
        from facenet_pytorch.models.mtcnn import ONet

        self._net: nn.Module = ONet().eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] → (B, 5, 2), x and y in shares of the side."""
        box = torch.tensor(_BOX).expand(len(images), 4)
        first, corrected = self._measure(images, box)
        left, top, right, bottom = corrected.unbind(1)
        mirrored, _ = self._measure(images.flip(3), torch.stack([1 - right, top, 1 - left, bottom], 1))
        back = mirrored[:, _MIRRORED] * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
        return (first + back) / 2

    def _measure(self, images: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        left, top, right, bottom = box.unbind(1)
        zero = torch.zeros_like(left)
        theta = torch.stack([right - left, zero, left + right - 1, zero, bottom - top, top + bottom - 1], 1)
        grid = F.affine_grid(theta.view(-1, 2, 3), [len(images), 3, 3 * _ONET_SIZE, 3 * _ONET_SIZE], False)
        crops = F.avg_pool2d(F.grid_sample(images, grid, padding_mode="border", align_corners=False), 3)
        shift, points, _ = self._net((crops * 255 - 127.5) / 128)
        corner, extent = box[:, None, :2], (box[:, 2:] - box[:, :2])[:, None]
        marks = corner + extent * points.view(-1, 2, 5).transpose(1, 2)
        moved = box + shift * extent[:, 0].repeat(1, 2)
        middle, half = (moved[:, :2] + moved[:, 2:]) / 2, (moved[:, 2:] - moved[:, :2]).amax(1, keepdim=True) / 2
        return marks, torch.cat([middle - half, middle + half], 1)
