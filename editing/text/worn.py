"""Glasses on a sentence: nobody's glasses cannot be moved, so they begin as those of a sampled face.

Where the mask of a part is empty no gradient reaches its codes. Glasses lie over the face and their codes say little of
it, so those of a face that wears some can be taken whole. Hats and earrings cannot: bundled models smear others' over
hair and cheeks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from editing.text.subjects import read_subject
from memorygan.generator import ComposedGenerator
from memorygan.latents import Latents

PART = "eyeglass"
# Sampled faces whose glasses are tried on: those that show most of the part here, and those that show least.
_MOST, _LEAST = 20, 4
_BATCH = 32


def speaks_of_glasses(prompt: str) -> bool:
    """Whether a sentence is about glasses, be it with or without."""
    return PART in read_subject(prompt).shown


@torch.no_grad()
def candidates(
    generator: ComposedGenerator, face: Latents, depth: Tensor, sampled: Tensor, free: Tensor, part: int
) -> Tensor:
    """(C, L, D) codes that the glasses of a face may begin with, on the CPU.

    Args:
        generator: that draws the face.
        face: (1, K, L, D) its codes, on the generator's device.
        depth: (1, K, N) what the memory returned for it.
        sampled: (F, L, D) codes of the part in sampled faces, on the CPU.
        free: (L,) bool: the layers that may change.
        part: its number.
    """
    codes = torch.where(free[None, :, None], sampled, face.w[0, part].cpu())
    shares = []
    for some in codes.split(_BATCH):
        w = face.w.expand(len(some), -1, -1, -1).clone()
        w[:, part] = some.to(w)
        depths = depth.expand(len(some), -1, -1).clone()
        depths[:, [part]] = generator.retrieve(face.with_w(w), [part]).depth
        shares.append(depths.float().softmax(dim=1)[:, part].mean(dim=1).cpu())
    order = torch.cat(shares).argsort(descending=True)
    return codes[torch.cat([order[:_MOST], order[-_LEAST:]]).unique()]
