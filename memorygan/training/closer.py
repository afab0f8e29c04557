"""Train a closer look at the eyes or the ears, or measure the parser with it.

    python -m memorygan.training.closer --look eyes --data data/celebamask --minutes 30
    python -m memorygan.training.closer --look eyes --data data/celebamask --evaluate

It begins as the parser, and needs masks that were drawn by hand: those of other networks are no finer than the
parser's own. The run is kept in ``--state`` and gone on from if it is there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from memorygan.closer_look import LOOKS, SIDE, CloserLook, bundled, save_closer_look
from memorygan.command import command
from memorygan.layers import channels_last
from memorygan.manifest import WEIGHTS_DIR
from memorygan.parser import FaceParser, load_parser
from memorygan.parts import FACE_PARTS
from memorygan.training.parser import parsing_loss
from memorygan.training.parser_composites import IGNORE
from memorygan.training.parser_data import FaceSampler, PackedFaces, pack
from memorygan.training.parser_eval import CONDITIONS, evaluate, format_table
from memorygan.training.schedule import (
    Budget,
    KeptRun,
    add_budget_arguments,
    descend,
    learning_rate,
    provenance_of,
    spend,
)

_WARM = 0.03


@dataclass(frozen=True)
class CloserTrainingConfig(Budget):
    """How it is trained, beside its :class:`Budget`.

    Attributes:
        lr: peak learning rate of AdamW.
        dice: weight of the dice term beside cross-entropy.

    Raises:
        ValueError: for a budget or a batch that nothing can be learned from.
    """

    minutes: float = 30.0
    ema: float = 0.995
    lr: float = 1e-3
    dice: float = 0.5


class FullSizeSampler(FaceSampler):
    """Faces of 256 pixels, recoloured as for the parser and moved by less, with a label for every pixel."""

    stray = 0.4  # eyes and ears stay in their boxes
    cell = 1

    def __init__(self, faces: PackedFaces, generator: torch.Generator) -> None:
        super().__init__([faces], [1.0], SIDE, generator)


class CloserTrainer(KeptRun):
    """One training run.

    Args:
        config: of the run.
        look: one of :data:`memorygan.closer_look.LOOKS`.
        faces: with masks drawn by hand.
        parser: as whose coarser levels it begins.
    """

    config: CloserTrainingConfig

    def __init__(self, config: CloserTrainingConfig, look: str, faces: PackedFaces, parser: FaceParser) -> None:
        torch.manual_seed(config.seed)
        self.config, (self.parts, shape) = config, LOOKS[look]
        self.net, self.average = (CloserLook(self.parts, shape) for _ in range(2))
        self.net.begin_as(parser)
        self.average.load_state_dict(self.net.state_dict())
        self.net, self.average = channels_last(self.net.train()), self.average.eval()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=config.lr, weight_decay=0.02)
        self.dice = torch.Generator().manual_seed(config.seed)
        self.sampler = FullSizeSampler(faces, self.dice)
        # Part id → class: none, the first, the second.
        self.classes = torch.full((256,), IGNORE)
        self.classes[: len(FACE_PARTS)] = 0
        for number, name in enumerate(self.parts, 1):
            self.classes[FACE_PARTS.index(name)] = number

    def step(self) -> float:
        """One optimiser step; returns the loss."""
        started = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.lr, self.progress, _WARM)
        images, ids = self.sampler.draw(self.config.batch)
        scores = self.net(self.net.sides(images))
        wanted = self.classes[self.net.sides(ids)]
        loss = parsing_loss(scores, wanted, torch.ones(1 + len(self.parts)), self.config.dice)
        error = descend(loss, self.optimizer, self.net, self.average, self.config.ema, self.steps)
        self.steps += 1
        self.shown += len(images)
        self.seconds += time.perf_counter() - started
        return error


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m memorygan.training.closer", description="Train the closer look.")
    defaults = CloserTrainingConfig
    parser.add_argument("--look", choices=LOOKS, required=True, help="what at")
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and masks/ drawn by hand")
    parser.add_argument("--hold-out", type=int, default=200, help="last faces that are only measured (%(default)s)")
    add_budget_arguments(parser, WEIGHTS_DIR, Path("runs/parser/cache"), defaults.minutes, defaults.batch)
    parser.set_defaults(out=None)
    parser.add_argument("--state", type=Path, help="where the run is kept; default: runs/closer/LOOK.pt")
    parser.add_argument("--evaluate", action="store_true", help="only measure the parser with the weights in --out")
    options = parser.parse_args(arguments)
    out = options.out or bundled(options.look)
    kept, held_out = pack(options.data, options.cache, SIDE).split(options.hold_out)
    if not options.evaluate:
        config = CloserTrainingConfig(options.minutes, options.images, seed=options.seed, batch=options.batch)
        trainer = CloserTrainer(config, options.look, kept, load_parser())
        state = options.state or Path("runs/closer") / f"{options.look}.pt"
        if state.is_file():
            trainer.restore(torch.load(state, weights_only=True))
        spend(trainer, state)
        notes = "exponential moving average of the weights"
        data = [f"{kept.name} ({len(kept)} faces)"]
        provenance = provenance_of(trainer, data, options.licence, "memorygan.training.closer", notes)
        save_closer_look(out, trainer.average, provenance)
        print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if len(held_out):
        for closer in ((), (out,)):
            network = load_parser(closer=closer)
            scores = {name: evaluate(network, held_out, test) for name, test in CONDITIONS.items()}
            print("\nwithout a closer look" if not closer else "\nwith it")
            print(format_table(scores, FACE_PARTS.names))


if __name__ == "__main__":
    sys.exit(main())
