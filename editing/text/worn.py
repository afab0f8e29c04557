"""Glasses on a sentence: nobody's glasses cannot be moved, so they begin as those of a sampled face.

Where the mask of a part is empty no gradient reaches its codes. Glasses lie over the face and their codes say little of
it, so those of a face that wears some can be taken whole. Hats and earrings cannot: bundled models smear others' over
hair and cheeks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from editing.guidance.captions import read_claims
from editing.guidance.measures import measure
from editing.text.subjects import read_subject
from memorygan.generator import ComposedGenerator, Synthesis
from memorygan.latents import Latents
from memorygan.picture import to_uint8

PART, NONE, DARK = "eyeglass", "none", "sunglasses"
# Sampled faces whose glasses are tried on: those that show most of the part here, or least to take glasses off.
_MOST, _LEAST = 20, 4
WORN = 0.004  # of the picture: of fewer pixels nobody would say that they are glasses
_BATCH = 32


def speaks_of_glasses(prompt: str) -> bool:
    """Whether a sentence is about glasses, be it with or without."""
    return PART in read_subject(prompt).shown


def claimed(prompt: str) -> str | None:
    """Which glasses a sentence says are worn: "none", "glasses" or "sunglasses"; None if it does not say it plainly."""
    claim = read_claims(prompt).get("glasses")
    return None if claim is None else claim[0]


def darkness(made: Synthesis) -> float:
    """By how much of L the lenses of a picture are darker than the skin; −∞ where it shows none."""
    found = measure(to_uint8(made.image)[0], made.part_map[0].to(torch.uint8).cpu().numpy())["glasses.darkness"]
    return -math.inf if found is None else float(found)


def area(part_map: Tensor, part: int) -> float:
    """Share of the picture that a part takes, by its (1, S, S) part ids: judges of pictures are mistaken more often."""
    return float((part_map == part).float().mean())


@torch.no_grad()
def candidates(
    generator: ComposedGenerator, face: Latents, depth: Tensor, sampled: Tensor, free: Tensor, part: int, on: bool
) -> Tensor:
    """(C, L, D) codes that the glasses of a face may begin with, on the CPU.

    Args:
        generator: that draws the face.
        face: (1, K, L, D) its codes, on the generator's device.
        depth: (1, K, N) what the memory returned for it.
        sampled: (F, L, D) codes of the part in sampled faces, on the CPU.
        free: (L,) bool: the layers that may change.
        part: its number.
        on: whether glasses are to be put on, or taken off.
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
    return codes[order[:_MOST] if on else order[-_LEAST:]]
