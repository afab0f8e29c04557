"""What the trainings of parser and judges share: a budget, a learning rate over it, averaged weights, a kept run."""

from __future__ import annotations

import argparse
import datetime
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from memorygan.checkpoint import Provenance
from memorygan.command import add_threads
from memorygan.manifest import default_checkpoint
from memorygan.training.packfile import DataError


@dataclass(frozen=True)
class Budget:
    """What every such training is configured with.

    Attributes:
        minutes: wall-clock budget, counted where ``images`` is 0.
        images: budget in images shown.
        ema: decay per step of the averaged weights, which are the ones that ship.
        seed: of everything random.
        batch: faces per step.

    Raises:
        ValueError: for a budget or a batch that nothing can be learned from.
    """

    minutes: float
    images: int = 0
    ema: float = 0.99
    seed: int = 0
    batch: int = 16

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.images < 0:
            raise ValueError("need minutes above 0, and images of 0 or more")
        if self.batch < 2:
            raise ValueError(f"need a batch of 2 or more, got {self.batch}")


class Training(Protocol):
    """A run that :func:`provenance_of` tells of; ``shown`` counts images."""

    shown: int
    images_before: int
    seconds: float

    @property
    def config(self) -> Budget: ...


class KeptRun:
    """A run that another process can go on with.

    Attributes:
        kept: names of the attributes whose ``state_dict`` is kept.
        config: of the run.
        dice: what everything random is drawn with.
        images_before: that its weights had seen.
        shown, seconds, steps: images shown in this run, what it took, and steps done.
    """

    kept: ClassVar[tuple[str, ...]] = ("net", "average", "optimizer")
    config: Budget
    dice: torch.Generator
    images_before, shown, seconds, steps = 0, 0, 0.0, 0

    @property
    def progress(self) -> float:
        """Share of the budget spent, 0 and up."""
        return share_spent(self.config, self.shown, self.seconds)

    def step(self) -> float:
        """One step; returns the loss."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """All that another process needs to go on."""
        state = {name: getattr(self, name).state_dict() for name in self.kept}
        return state | {"dice": self.dice.get_state(), "counts": [self.shown, self.seconds, self.steps]}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from :meth:`state`."""
        for name in self.kept:
            getattr(self, name).load_state_dict(state[name])
        self.dice.set_state(state["dice"])
        self.shown, self.seconds, self.steps = state["counts"]


def save_state(path: Path, training: KeptRun) -> None:
    """Write all that another process needs to go on; a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    torch.save(training.state(), temporary)
    temporary.replace(path)


def spend(training: KeptRun, state: Path, every: float = 300.0) -> None:
    """Train until the budget is spent, keeping the run in ``state`` every so many seconds."""
    saved, losses = time.monotonic(), []
    while training.progress < 1:
        losses.append(training.step())
        if time.monotonic() - saved > every or training.progress >= 1:
            save_state(state, training)
            spent = f"{training.shown} images, {training.seconds / 60:.1f} minutes"
            print(f"{spent}: loss {sum(losses) / len(losses):.4f}", flush=True)
            saved, losses = time.monotonic(), []


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


def descend(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    net: nn.Module,
    average: nn.Module,
    ema: float,
    steps: int,
    longest: float = 5.0,
) -> float:
    """One step of the optimiser down the loss, which it returns; the averaged weights follow.

    Args:
        loss: of the network.
        optimizer: of its weights.
        net: the network.
        average, ema, steps: see :func:`update_average`.
        longest: norm to which a longer gradient is cut.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), longest)
    optimizer.step()
    update_average(average, net, ema, steps)
    return float(loss.detach())


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


def named_generator(named: Path | None) -> Path:
    """The checkpoint that a training is for: the named one, else the bundled one.

    Raises:
        DataError: if there is neither.
    """
    if (checkpoint := named or default_checkpoint()) is None:
        raise DataError("there is no bundled generator; name one with --generator")
    return checkpoint


def add_budget_arguments(
    parser: argparse.ArgumentParser, out: Path, cache: Path, minutes: float, batch: int, shown: str = "faces per step"
) -> None:
    """Adds the options that every training has; the values are defaults, and ``shown`` says what a batch holds."""
    parser.add_argument("--out", type=Path, default=out, help="weights to write, or to evaluate")
    parser.add_argument("--cache", type=Path, default=cache, help="what is made of the data once")
    parser.add_argument("--minutes", type=float, default=minutes, help="wall-clock budget of the whole run")
    parser.add_argument("--images", type=int, default=0, help="budget in images instead, for a busy machine")
    parser.add_argument("--batch", type=int, default=batch, help=shown)
    add_threads(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--licence", default="non-commercial research and demonstration only", help="terms written into the weights"
    )


def add_arguments(parser: argparse.ArgumentParser, out: Path, minutes: float, batch: int, generated: int) -> None:
    """Adds the options of trainings on measured faces; the numbers are defaults."""
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with images/ and masks/")
    parser.add_argument("--generator", type=Path, help="checkpoint whose faces are mixed in")
    parser.add_argument("--generated", type=int, default=generated, help="how many of its faces")
    parser.add_argument("--size", type=int, default=128, help="size the faces are kept at")
    add_budget_arguments(parser, out, Path("runs/judges/cache"), minutes, batch, "photographed faces per step")


def add_start_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a training that may go on from others' weights, or only be measured."""
    parser.add_argument("--start", type=Path, help="weights to go on from, with a schedule of their own")
    parser.add_argument("--evaluate", action="store_true", help="only measure the weights in --out")
