"""Image features of whole face sets, computed once: what the probes of :mod:`editing.guidance.training.probes` read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from memorygan.picture import from_uint8
from memorygan.training.backbone import Backbone

# Side of the pictures, and of the grid on which features are kept: a hat is above, a beard below.
_SIZE, _GRID = 112, 4
_BATCH = 32


@torch.no_grad()
def describe_pictures(images: np.ndarray, backbone: Backbone) -> np.ndarray:
    """(N, S, S, 3) uint8 RGB → (N, 2112) float16: features at 1/16 of the size on a grid of 4 × 4, and the coarsest."""
    rows = []
    for start in tqdm(range(0, len(images), _BATCH), desc="features", mininterval=10):
        x = from_uint8(images[start : start + _BATCH])
        x = F.interpolate(x, size=(_SIZE, _SIZE), mode="bilinear", antialias=True, align_corners=False)
        fine, coarse = backbone(x)[-2:]
        pooled = F.adaptive_avg_pool2d(fine, _GRID).flatten(1)
        rows.append(torch.cat([pooled, coarse.mean(dim=(2, 3))], dim=1).half().numpy())
    return np.concatenate(rows)


def cached_features(file: Path, images: np.ndarray, backbone: Backbone) -> np.ndarray:
    """:func:`describe_pictures`, read from ``file`` if it is there."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        found = describe_pictures(images, backbone)
        part = file.with_suffix(".part.npy")
        np.save(part, found)
        part.replace(file)
    return np.asarray(np.load(file))
