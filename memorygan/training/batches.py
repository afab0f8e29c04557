"""Training faces as tensors, resident on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from memorygan.training.data import mirror
from memorygan.training.losses import one_hot


@dataclass(frozen=True)
class FaceBatch:
    """B faces ready for the networks.

    Attributes:
        image: (B, 3, S, S) in [−1, 1], working precision, channels-last.
        part_ids: (B, S, S) uint8.
        one_hot: (B, K, S, S) in 0–1, working precision.
    """

    image: Tensor
    part_ids: Tensor
    one_hot: Tensor


class FaceSplit(Protocol):
    """What training needs of a data split; :class:`memorygan.training.data.PackedDataset` is one."""

    @property
    def part_names(self) -> tuple[str, ...]: ...

    def images(self) -> Tensor:
        """(N, 3, S, S) uint8."""

    def masks(self) -> Tensor:
        """(N, S, S) uint8."""


class ResidentFaces:
    """A whole data split as uint8 on the device: no loader processes, no copies per step."""

    def __init__(self, dataset: FaceSplit, device: torch.device, dtype: torch.dtype) -> None:
        self.images, self.masks = dataset.images().to(device), dataset.masks().to(device)
        self.part_count, self.dtype = len(dataset.part_names), dtype
        counts = torch.bincount(self.masks.flatten().long(), minlength=self.part_count).float()
        self.frequencies = counts / counts.sum()

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor, flips: Tensor | None = None) -> FaceBatch:
        """The faces at ``indices`` (B,), mirrored where ``flips`` (B,) is true."""
        indices = indices.to(self.images.device)
        images, masks = self.images[indices], self.masks[indices]
        if flips is not None:
            images, masks = mirror(images, masks, flips.to(images.device))
        image = (images.to(self.dtype) / 127.5 - 1.0).to(memory_format=torch.channels_last)
        return FaceBatch(image, masks, one_hot(masks, self.part_count, self.dtype))
