"""Between 8-bit pictures and the tensors that networks take."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Of the pictures of ImageNet in [0, 1], by channel: networks that began there take pictures brought to these.
IMAGENET_MEAN, IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_uint8(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [−1, 1] → (B, H, W, 3) uint8; values beyond are cut off, not-a-number becomes black."""
    scaled = torch.nan_to_num(images.detach().float(), nan=-1.0).clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def from_uint8(pictures: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(H, W, 3) or (B, H, W, 3) uint8 → (B, 3, H, W) float32 in [−1, 1]."""
    batch = pictures if pictures.ndim == 4 else pictures[None]
    return torch.from_numpy(np.array(batch)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
