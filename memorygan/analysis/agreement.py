"""Mask quality: agreement between the mask a generator draws and what the parser finds in its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memorygan.parts import PartScheme

# The parts that every face shows; the mean over them is the published figure.
CORE_PARTS = ("skin", "hair", "eyes", "eyebrows", "nose", "mouth")


@dataclass(frozen=True)
class Agreement:
    """Agreement of two sets of masks.

    Attributes:
        iou: part name → intersection over union in [0, 1], pooled over all faces; nan where neither mask has the part.
        accuracy: share of pixels with equal ids, in [0, 1].
    """

    iou: dict[str, float]
    accuracy: float

    @property
    def mean_iou(self) -> float:
        """Mean IoU over all parts that occur; nan if none does."""
        return self.mean(tuple(self.iou))

    def mean(self, parts: Sequence[str] = CORE_PARTS) -> float:
        """Mean IoU over those of the given parts that occur; nan if none does.

        Raises:
            ValueError: for an unknown part.
        """
        if unknown := [part for part in parts if part not in self.iou]:
            raise ValueError(f"unknown part {unknown[0]!r}; these masks have {', '.join(self.iou)}")
        shown = [self.iou[part] for part in parts if not np.isnan(self.iou[part])]
        return float(np.mean(shown)) if shown else float("nan")


def confusion_matrix(drawn: Tensor, found: Tensor, count: int) -> Tensor:
    """Pixel counts (K, K) int64: rows the first ids, columns the second.

    Args:
        drawn, found: integer ids of one shape, below ``count``.
        count: K.

    Raises:
        ValueError: if the shapes differ or an id is out of range.
    """
    if drawn.shape != found.shape:
        raise ValueError(f"masks differ in shape, {tuple(drawn.shape)} and {tuple(found.shape)}; parse at full size")
    first, second = drawn.flatten().long(), found.flatten().long()
    if first.numel() and int(torch.stack((first.amax(), second.amax())).amax()) >= count:
        raise ValueError(f"a mask holds an id beyond the {count} parts of the scheme")
    return torch.bincount(first * count + second, minlength=count**2).reshape(count, count).cpu()


def agreement(confusion: Tensor, names: Sequence[str]) -> Agreement:
    """IoU_k = |A_k ∩ B_k| / |A_k ∪ B_k| over all pixels counted in a (K, K) confusion matrix."""
    counts = confusion.double()
    both = counts.diagonal()
    either = counts.sum(dim=0) + counts.sum(dim=1) - both
    iou = torch.where(either > 0, both / either.clamp_min(1.0), torch.nan)
    total = float(counts.sum())
    accuracy = float(both.sum()) / total if total else float("nan")
    return Agreement(dict(zip(names, iou.tolist(), strict=True)), accuracy)


def parser_ids(ids: Tensor, parser_parts: PartScheme, parts: PartScheme) -> Tensor:
    """Renumbers the parser's ids to the generator's scheme, which has all of its parts, by name; (B, H, W) int64."""
    table = torch.tensor([parts.index(name) for name in parser_parts.names], device=ids.device)
    return table[ids.long()]
