"""``python -m memorygan.training``: trains a generator from packed faces."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from memorygan.training.config import RECIPES, TrainingConfig, recipe_config
from memorygan.training.data import PackedDataset
from memorygan.training.distributed import start_processes
from memorygan.training.grow import grow, start_from
from memorygan.training.loop import STATE_FILE, Schedule, Trainer, TrainingError

TRAINED = "a run's state.safetensors, or a generator with encoder.safetensors beside it"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m memorygan.training", description=__doc__)
    parser.add_argument("--data", type=Path, help="packed training split (.pack)")
    parser.add_argument("--validation", type=Path, help="packed validation split, for sheets and metrics")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing run is resumed")
    parser.add_argument("--start-from", type=Path, help=f"trained networks of the same size: {TRAINED}")
    parser.add_argument("--grow-from", type=Path, help="trained networks of half the size, likewise")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: CUDA where available")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--minutes", type=float, help="stop and save in time for this wall-clock budget")
    parser.add_argument("--save-minutes", type=float, default=10.0)
    parser.add_argument("--sheet-images", type=int, default=10_000, help="images between sheets; 0 for none")
    parser.add_argument("--log-steps", type=int, default=20)
    parser.add_argument("--metric-samples", type=int, default=0, help="generated faces per measurement; 0 for none")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the settings and one step's losses, write nothing"
    )
    parser.add_argument("--recipe", choices=RECIPES, default="memory-first")
    group = parser.add_argument_group("hyper-parameters", "defaults come from the recipe, or from the resumed run")
    for item in fields(TrainingConfig):
        if item.name != "recipe":
            kind = KINDS.get(str(item.type), str)
            group.add_argument("--" + item.name.replace("_", "-"), type=kind, default=None, metavar="VALUE")
    return parser.parse_args(arguments)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "yes", "1")


# How a setting's text on the command line becomes its value.
KINDS: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": _boolean, "str": str}


def configure(options: argparse.Namespace) -> TrainingConfig:
    """The configuration of the run: a resumed run's own, else the recipe's, with the given values changed."""
    changes: dict[str, Any] = {
        item.name: value
        for item in fields(TrainingConfig)
        if item.name != "recipe" and (value := getattr(options, item.name)) is not None
    }
    saved = options.out / "config.json"
    if (options.out / STATE_FILE).exists() and saved.exists():
        return TrainingConfig.from_dict({**json.loads(saved.read_text()), **changes})
    return recipe_config(options.recipe, changes)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        config = configure(options)
        processes = start_processes(options.device)
        if options.data is None:
            raise TrainingError(
                "no training faces were named; pass --data FILE.pack made by memorygan.training.prepare"
            )
        train = PackedDataset.open(options.data)
        validation = PackedDataset.open(options.validation) if options.validation else None
        schedule = Schedule(
            minutes=options.minutes,
            save_minutes=options.save_minutes,
            sheet_images=options.sheet_images,
            log_steps=options.log_steps,
            metric_samples=options.metric_samples,
        )
        trainer = Trainer(config, train, validation, options.out, schedule, processes)
        if options.dry_run:
            print(json.dumps(config.to_dict(), indent=2))
            print(json.dumps(trainer.dry_run(), indent=2))
            return 0
        if options.start_from and options.grow_from:
            raise TrainingError("pass either --start-from or --grow-from, not both")
        if not trainer.resume():
            if options.start_from:
                start_from(trainer.state, options.start_from)
            elif options.grow_from:
                grow(trainer.state, options.grow_from)
        progress = trainer.run()
        processes.leave()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{progress.stage}: {progress.images:,} images in {progress.minutes:.1f} minutes, saved in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
