"""Which face comes next: a shuffled, infinite stream that can stop and resume anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memorygan.training.packfile import DataError
from memorygan.training.rarity import epoch_order

_STATE = ("count", "seed", "flip", "epoch", "position")


@dataclass
class ResumableSampler:
    """An infinite stream of (face index, flip) pairs, fixed by the seed alone.

    Every epoch is a fresh permutation of all faces with fresh flip decisions. All ranks walk the same stream in step:
    in one call, rank r takes the r-th slice of ``world * batch`` consecutive pairs, so the union over ranks is the
    batch a single process of that size would have taken. The position is counted in images over all ranks, so a run
    may be resumed with another number of ranks or another batch size.

    Args:
        count: number of faces in the set, at least 1.
        seed: 0 to 2**32 - 1.
        rank: this process, 0 to ``world - 1``.
        world: number of processes.
        flip: decide a horizontal flip per image; otherwise no image is flipped.
        weights: how often each face is shown, in the mean over epochs; None for once. An epoch is as long as they add
            up to.

    Raises:
        DataError: for an empty set, or a seed, rank or world out of range.
    """

    count: int
    seed: int = 0
    rank: int = 0
    world: int = 1
    flip: bool = True
    weights: Sequence[float] | None = None
    epoch: int = field(default=0, init=False)
    position: int = field(default=0, init=False)
    _drawn: tuple[int, np.ndarray, np.ndarray] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DataError(f"cannot sample from a set of {self.count} faces")
        if not 0 <= self.seed < 2**32:
            raise DataError(f"the sampler's seed must lie between 0 and 2**32 - 1, got {self.seed}")
        if not 0 <= self.rank < self.world:
            raise DataError(f"rank {self.rank} does not exist among {self.world} processes")
        if self.weights is not None and (len(self.weights) != self.count or min(self.weights) < 1.0):
            raise DataError("the sampler's weights must be one number of at least 1 for every face")

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Faces of an epoch in their order, and whether each is flipped; the last one is kept."""
        if self._drawn is None or self._drawn[0] != epoch:
            # RandomState: its streams are frozen, so a run can be resumed under a newer NumPy.
            random = np.random.RandomState(np.array([self.seed, epoch], dtype=np.uint32))
            if self.weights is None:
                order = random.permutation(self.count)
            else:
                order = epoch_order(np.asarray(self.weights), random)
            self._drawn = epoch, order, random.random_sample(len(order)) < (0.5 if self.flip else 0.0)
        return self._drawn[1:]

    def take(self, batch: int) -> tuple[Tensor, Tensor]:
        """The next ``batch`` images of this rank; all ranks must call with the same ``batch``.

        Returns:
            indices: (B,) int64, face indices in 0 to ``count - 1``.
            flips: (B,) bool, whether to mirror the face.
        """
        needed = batch * self.world
        orders, flips = [], []
        while needed:
            order, flipped = self._epoch(self.epoch)
            stop = min(len(order), self.position + needed)
            orders.append(order[self.position : stop])
            flips.append(flipped[self.position : stop])
            needed -= stop - self.position
            self.position = stop
            if stop == len(order):
                self.epoch, self.position = self.epoch + 1, 0
        mine = slice(self.rank * batch, (self.rank + 1) * batch)
        return torch.from_numpy(np.concatenate(orders)[mine]), torch.from_numpy(np.concatenate(flips)[mine])

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands, as plain integers; the same on every rank."""
        return {key: int(getattr(self, key)) for key in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken.

        Raises:
            DataError: if the state belongs to another set, seed or flip setting, or is not a sampler state.
        """
        try:
            values = {key: int(state[key]) for key in _STATE}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"this is not the state of a sampler: {error}") from error
        for key in ("count", "seed", "flip"):
            if values[key] != (own := int(getattr(self, key))):
                raise DataError(f"cannot resume the data order: saved with {key} {values[key]}, this run has {own}")
        if values["epoch"] < 0 or not 0 <= values["position"] < len(self._epoch(values["epoch"])[0]):
            raise DataError(f"cannot resume at epoch {values['epoch']}, position {values['position']} of {self.count}")
        self.epoch, self.position = values["epoch"], values["position"]
