"""What the trainings of both judges share: a budget, a learning rate over it, and averaged weights."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from memorygan.checkpoint import Provenance


class Budget(Protocol):
    """A configuration with a budget: ``images``, or wall-clock ``minutes`` where that is 0."""

    @property
    def images(self) -> int: ...

    @property
    def minutes(self) -> float: ...


class Training(Protocol):
    """A run that :func:`run` can drive; ``shown`` counts images."""

    shown: int
    images_before: int
    seconds: float

    @property
    def config(self) -> Budget: ...

    @property
    def progress(self) -> float:
        """Share of the budget spent."""

    def step(self) -> float:
        """One optimiser step; returns the loss."""


def share_spent(budget: Budget, shown: int, seconds: float) -> float:
    """Share of the budget spent on ``shown`` images in ``seconds``, 0 and up."""
    return shown / budget.images if budget.images else seconds / (60 * budget.minutes)


def learning_rate(peak: float, progress: float, warm: float) -> float:
    """A linear rise over the share ``warm`` of the budget, then half a cosine down to a hundredth of ``peak``."""
    if progress < warm:
        return peak * (progress / warm + 0.02)
    return peak * (0.51 + 0.5 * math.cos(math.pi * min((progress - warm) / (1 - warm), 1.0)))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, ema: float, steps: int) -> None:
    """Moves the averaged weights towards the model's, faster in the first steps; counters are copied."""
    decay = min(ema, (1 + steps) / (10 + steps))
    old = average.state_dict()
    for name, new in model.state_dict().items():
        if new.is_floating_point():
            old[name].lerp_(new, 1 - decay)
        else:
            old[name].copy_(new)


def run(training: Training) -> None:
    """Train until the budget is spent, with a progress bar."""
    losses: list[float] = []
    with tqdm(total=100, unit="%", mininterval=10) as bar:
        while training.progress < 1:
            losses.append(training.step())
            bar.set_postfix(images=training.shown, loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
            bar.update(min(100 * training.progress, 100) - bar.n)


def provenance_of(
    training: Training, data: Sequence[str], licence: str, module: str, notes: str, first: str = ""
) -> Provenance:
    """What a file says of the training that led to it.

    Args:
        training: done.
        data: what it saw.
        licence: terms of the weights.
        module: of the command.
        notes: on how it was trained.
        first: what was done before the budget began.
    """
    return Provenance(
        data=tuple(data),
        licence=licence,
        images_seen=training.images_before + training.shown,
        recipe=f"{first}{training.seconds / 60:.0f} minutes, {training.config}",
        command=f"python -m {module}",
        date=datetime.date.today().isoformat(),
        notes=notes,
    )
