"""SMSE: how much the picture changes, while a face is composed, where it should not (Eq. 15)."""

from __future__ import annotations

import torch
from torch import Tensor


def step_smse(before: Tensor, after: Tensor, covered: Tensor) -> Tensor:
    """Eq. 15 for one step of the sequential composition.

    Adding part i should leave the parts before it as they are. With the picture I after each step, and M the sum of the
    earlier parts' masks, which are 0 or 1::

        SMSE_i = Σ (M_i (I_i − I_{i−1}))² / Σ M_i

    Squares are summed over the three colours too. The paper does not say what range I has; for a picture in [0, 1] the
    result is a quarter of that for one in [−1, 1].

    Args:
        before, after: (B, 3, S, S) picture of the step before, and of this one; clamped to [−1, 1].
        covered: (B, S, S) 0/1, M; see :func:`earlier_parts`.

    Returns:
        (B,) float32 for the range [−1, 1], 0 to 12; 0 where the earlier parts cover nothing.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    if before.shape != after.shape or before.ndim != 4 or before[:, 0].shape != covered.shape:
        raise ValueError(
            "two pictures of shape (B, 3, S, S) and a mask (B, S, S) are needed, got "
            f"{tuple(before.shape)}, {tuple(after.shape)} and {tuple(covered.shape)}"
        )
    mask = covered.float()
    moved = (after.float().clamp(-1, 1) - before.float().clamp(-1, 1)).square().sum(dim=1)  # (B, S, S)
    return (moved * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp_min(1.0)


def earlier_parts(part_map: Tensor, added: int) -> Tensor:
    """M of Eq. 15: where, once part ``added`` is there, another part is seen; (B, S, S) int64 ids → bool."""
    return part_map != added


def step_mask_error(before: Tensor, after: Tensor, added: int) -> Tensor:
    """The same question asked of the segmentation, beyond the paper: S(x) without part ``added``, then with it.

    Mean squared difference of the two masks over all pixels at which the part does not win and over the channels of all
    other parts, with masks M in [−1, 1] and R those pixels::

        mean over x in R, k ≠ added of ((M'_k(x) − M_k(x)) / 2)²

    Args:
        before: (B, K, S, S) fine mask of the step before, near 2·one-hot − 1; clamped to [−1, 1].
        after: (B, K, S, S) fine mask with the part.
        added: index of the part. Its own channel has no meaning before, and is left out.

    Returns:
        (B,) float32, 0 to 1, where every label has changed; 0 where the part covers the whole picture.

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
    outside = earlier_parts(after.argmax(dim=1), added).float()  # (B, S, S)
    total = (moved.mean(dim=1) * outside).sum(dim=(1, 2))
    return total / torch.clamp(outside.sum(dim=(1, 2)), min=1.0)
