"""Soft masks of a photo's parts at the photo's own resolution, along its strands of hair and its lashes.

The parser scores a face at about a hundred cells to a side, so its borders are a few pixels wide on a large photo and
follow no detail. Where it is unsure, the probabilities are refined by the photo itself with a colour guided filter (He,
Sun and Tang, *Guided image filtering*, 2013): near a border each mask is a linear function of the colours around it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from memorygan.parser import FaceParser

MAX_IMAGE_SIZE = 4096
SHARPENING = 4  # exponent on the parser's probabilities


def soft_masks(parser: FaceParser, photos: Tensor, *, reach: float = 1.0, smoothness: float = 0.02) -> Tensor:
    """How much of every pixel belongs to each part.

    Args:
        parser: in evaluation mode.
        photos: (B, 3, H, W) float in [-1, 1], aligned faces, 32 to 4096 pixels high and wide.
        reach: how far a border may move to follow the photo, in cells of the parser's scores.
        smoothness: difference of colour, as a share of the range from black to white, below which two neighbouring
            pixels count as the same thing.

    Returns:
        (B, K, H, W) float32 in [0, 1] on the photos' device, summing to 1 over K. Where the parser is sure within
        ``reach``, they are its own probabilities: nothing spreads into the inside of a part.

    Raises:
        ValueError: for photos that the parser refuses, larger ones, or a setting that is not above 0.
        RuntimeError: for a parser in training mode.
        ImportError: if OpenCV with its contributed modules is not installed, with what to install.
    """
    if not (reach > 0 and smoothness > 0 and math.isfinite(reach) and math.isfinite(smoothness)):
        raise ValueError(f"reach and smoothness must be above 0, got {reach} and {smoothness}")
    if photos.dim() == 4 and max(photos.shape[-2:]) > MAX_IMAGE_SIZE:
        raise ValueError(
            f"photos may be up to {MAX_IMAGE_SIZE} pixels high and wide, got {tuple(photos.shape[-2:])}; shrink them"
        )
    probabilities = parser.parse(photos).probabilities
    cell = max(photos.shape[-2:]) / (parser.config.size / 2)
    radius = max(1, round(reach * cell))
    guides = photos.detach().float().clamp(-1, 1).add(1).div(2).permute(0, 2, 3, 1).cpu().numpy()
    refined = [
        _refine(guide, mask, radius, smoothness)
        for guide, mask in zip(guides, probabilities.cpu().numpy(), strict=True)
    ]
    return torch.from_numpy(np.stack(refined)).to(photos.device)


def _refine(photo: np.ndarray, masks: np.ndarray, radius: int, smoothness: float) -> np.ndarray:
    """Masks (K, H, W) along the photo (H, W, 3) in [0, 1]."""
    try:
        import cv2

        # Colours from 0 to 255: the filter takes the covariance of smaller numbers for singular. Its coefficients are
        # smooth, so on large photos they are found at a lower resolution.
        guide, scale = np.ascontiguousarray(photo) * 255, min(1.0, 512 / max(photo.shape))
        guided = cv2.ximgproc.createGuidedFilter(guide, 2 * radius, (255 * smoothness) ** 2, scale)
    except (ImportError, AttributeError) as error:
        raise ImportError("soft masks need OpenCV: pip install opencv-contrib-python-headless") from error
    window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    lowest = cv2.erode(masks.max(axis=0), window)
    # 0 where every pixel in reach has a part of its own, 1 along borders.
    unsure = cv2.blur(np.clip((0.97 - lowest) / 0.1, 0, 1), (radius, radius))
    # Steeper first: what the filter is given as a soft border stays one.
    steep = masks**SHARPENING
    steep = steep / np.maximum(steep.sum(axis=0), 1e-12)
    refined = np.zeros_like(masks)
    for part, mask in enumerate(masks):
        if mask.max() < 0.05:
            refined[part] = mask
            continue
        # No part appears where it has no pixel in reach, whatever the colours there.
        near = np.clip(cv2.dilate(mask, window) / 0.3, 0, 1)
        refined[part] = np.clip(guided.filter(np.ascontiguousarray(steep[part])), 0, 1) * near
    refined = refined / np.maximum(refined.sum(axis=0), 1e-6)
    mixed = masks + unsure * (refined - masks)
    return (mixed / np.maximum(mixed.sum(axis=0), 1e-6)).astype(np.float32)
