"""Codes that are moved along the memory's styles: one number per channel, layer and part (StyleSpace, Wu et al. 2021).

A style scales one channel, so that a step in one hardly disturbs what another has learned; the coordinates of a code
all scale all channels at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memorygan.latents import Latents
from memorygan.memory import PartMemory


@torch.no_grad()
def style_directions(memory: PartMemory) -> Tensor:
    """The smallest change of a code that changes one style by 1 and no other.

    Returns:
        (L, C, D), or (K, L, C, D) where every part has its own weights.
    """
    return torch.linalg.pinv(memory.style_weights().float()).transpose(-1, -2).contiguous()


def restyle(latents: Latents, styles: Tensor, directions: Tensor) -> Latents:
    """Latents whose styles differ by ``styles`` (B, K, L, C), given the :func:`style_directions` of their memory."""
    return latents.with_w(latents.w + (styles[..., None, :] @ directions)[..., 0, :])
