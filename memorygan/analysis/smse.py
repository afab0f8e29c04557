"""SMSE: how much the segmentation moves, while a face is composed, where it should not (Eq. 15)."""

from __future__ import annotations

import torch
from torch import Tensor


def step_smse(before: Tensor, after: Tensor, added: int) -> Tensor:
    """Eq. 15 for one step of the sequential composition: S(x) without part ``added``, then with it.

    Adding a part should change the segmentation only where that part comes to lie. SMSE is the mean squared difference
    of the two segmentation masks over all other pixels and over the channels of all other parts. As interpreted here,
    with masks M in [−1, 1], and R the pixels at which part p does not win after it was added::

        SMSE_p = mean over x in R, k ≠ p of ((M'_k(x) − M_k(x)) / 2)²

    Masks are clamped to [−1, 1] and halved, so that 0 is a perfect composition and 1 a complete change of labels; the
    channel of p itself is left out because it is absent before and has no meaning there.

    Args:
        before: (B, K, S, S) fine mask of the step before, near 2·one-hot − 1.
        after: (B, K, S, S) fine mask with the part.
        added: index of the part.

    Returns:
        (B,) float32, 0 to 1; 0 where the part covers the whole picture.

    Raises:
        ValueError: if the masks differ in shape or have no such part.
    """
    if before.shape != after.shape or before.ndim != 4:
        raise ValueError(f"two masks of shape (B, K, S, S) are needed, got {tuple(before.shape)}, {tuple(after.shape)}")
    parts = before.shape[1]
    if not 0 <= added < parts:
        raise ValueError(f"the masks have parts 0 to {parts - 1}, not {added}")
    others = [k for k in range(parts) if k != added]
    moved = (after[:, others].float().clamp(-1, 1) - before[:, others].float().clamp(-1, 1)).div(2).square()
    outside = (after.argmax(dim=1) != added).float()  # (B, S, S)
    total = (moved.mean(dim=1) * outside).sum(dim=(1, 2))
    return total / torch.clamp(outside.sum(dim=(1, 2)), min=1.0)
