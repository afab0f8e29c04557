"""A larger face embedder that begins as a smaller one: finer pictures, and blocks that do nothing yet."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing.guidance.face_net import FaceEmbedder, FaceNetConfig


@torch.no_grad()
def grown(small: FaceEmbedder, config: FaceNetConfig) -> FaceEmbedder:
    """A network of ``config`` with the weights of a trained one.

    Blocks that are new begin as the identity (their last normalisation has weight 0, Goyal et al. 2017), and the
    weights of the last maps' cells are interpolated; with the same size, the vectors are the same.

    Args:
        small: has the same widths and dim, and no more blocks.
        config: of the result.

    Raises:
        ValueError: if anything else than size and blocks differs, or there are fewer blocks.
    """
    old = small.config
    fewer = any(new < had for new, had in zip(config.blocks, old.blocks, strict=False))
    if (old.widths, old.dim) != (config.widths, config.dim) or fewer:
        raise ValueError(f"cannot grow {old} into {config}; only size and blocks may grow")
    net = FaceEmbedder(config)
    state, had = net.state_dict(), small.state_dict()
    had["cells"] = _finer(had["cells"], state["cells"].shape[1])
    for name in state.keys() - had.keys():
        if name.endswith("second.1.weight"):
            nn.init.zeros_(state[name])
    net.load_state_dict(state | had)
    return net


def _finer(cells: Tensor, count: int) -> Tensor:
    """Weights (C, cells, readings) for another number of cells, with the same sum."""
    before, after = math.isqrt(cells.shape[1]), math.isqrt(count)
    maps = cells.permute(0, 2, 1).unflatten(2, (before, before))
    maps = F.interpolate(maps, size=(after, after), mode="bilinear", align_corners=False) * (before / after) ** 2
    return maps.flatten(2).permute(0, 2, 1)
