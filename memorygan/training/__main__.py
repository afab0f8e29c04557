"""``python -m memorygan.training``: trains a generator from packed faces."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from memorygan.checkpoint import read_metadata
from memorygan.command import add_threads, command
from memorygan.config import get_preset
from memorygan.fast.hardware import reuse_memory
from memorygan.training.config import RECIPES, TrainingConfig, recipe_config
from memorygan.training.data import PackedDataset
from memorygan.training.distributed import Processes, start_processes
from memorygan.training.grow import grow, start_from
from memorygan.training.loop import STATE_FILE, Schedule, Trainer, TrainingError
from memorygan.training.packing import prepare
from memorygan.training.procedural import ProceduralSource
from memorygan.training.state import KIND

METRIC_SAMPLES = 128
TRAINED = "a run's state.safetensors, or a generator with encoder.safetensors beside it"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m memorygan.training", description=__doc__)
    parser.add_argument("--data", type=Path, help="packed training split (.pack)")
    parser.add_argument("--validation", type=Path, help="packed validation split, for sheets and metrics")
    parser.add_argument(
        "--procedural", type=int, metavar="N", help="draw N faces into the run's folder and train on them"
    )
    parser.add_argument("--licence", help="of the exported weights; default: what the kind of the data allows")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing run is resumed")
    parser.add_argument("--start-from", type=Path, help=f"trained networks of the same size: {TRAINED}")
    parser.add_argument("--grow-from", type=Path, help="trained networks of half the size, likewise")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: CUDA where available")
    add_threads(parser)
    parser.add_argument("--minutes", type=float, help="stop and save in time for this wall-clock budget")
    parser.add_argument("--save-minutes", type=float, default=10.0)
    parser.add_argument("--sheet-images", type=int, default=10_000, help="images between sheets; 0 for none")
    parser.add_argument("--log-steps", type=int, default=20)
    parser.add_argument(
        "--metric-samples", type=int,
        help=f"generated faces per measurement, 0 for none; default: {METRIC_SAMPLES} if there is a validation split",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="print the settings and one step's losses, write nothing"
    )
    parser.add_argument("--recipe", choices=RECIPES, help="default: memory-first, or the resumed run's")
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


def configure(options: argparse.Namespace, processes: Processes) -> TrainingConfig:
    """The configuration of the run: a resumed run's own, else the recipe's, with the given values changed.

    The main process finds it for all, and reads it from the state itself, which is whole where anything is.

    Raises:
        TrainingError: if a run would be resumed with another recipe.
        ValueError: for an impossible value, or a damaged state.
    """
    found = b""
    if processes.is_main:
        found = json.dumps(_find_configuration(options).to_dict()).encode()
    return TrainingConfig.from_dict(json.loads(processes.share(found) or b""))


def _find_configuration(options: argparse.Namespace) -> TrainingConfig:
    changes: dict[str, Any] = {
        item.name: value
        for item in fields(TrainingConfig)
        if item.name != "recipe" and (value := getattr(options, item.name)) is not None
    }
    state = options.out / STATE_FILE
    if not state.exists():
        return recipe_config(options.recipe or "memory-first", changes)
    saved = read_metadata(state, KIND)["config"]
    if options.recipe not in (None, saved["recipe"]):
        raise TrainingError(
            f"{options.out} holds a run of recipe {saved['recipe']!r}; leave out --recipe to resume it, "
            "or choose another --out"
        )
    return TrainingConfig.from_dict({**saved, **changes})


def draw_faces(count: int, folder: Path, size: int, processes: Processes) -> tuple[Path, Path | None]:
    """Prepares drawn faces; what is finished already is kept.

    Returns:
        the training and the validation split; a set of fewer than ten faces has no validation split.
    """
    source = ProceduralSource(count, size=size)
    if processes.is_main:
        prepare(source, folder, "procedural", size)
    processes.wait()
    paths = prepare(source, folder, "procedural", size)
    return paths["train"], paths.get("val")


def make_trainer(options: argparse.Namespace, config: TrainingConfig, processes: Processes, started: float) -> Trainer:
    size = get_preset(config.preset).generator.size
    train = PackedDataset.open(options.data, resolution=size)
    validation = PackedDataset.open(options.validation, resolution=size) if options.validation else None
    samples = options.metric_samples
    schedule = Schedule(
        minutes=options.minutes,
        save_minutes=options.save_minutes,
        sheet_images=options.sheet_images,
        log_steps=options.log_steps,
        metric_samples=samples if samples is not None else METRIC_SAMPLES if validation else 0,
    )
    return Trainer(config, train, validation, options.out, schedule, processes, started, options.licence)


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    started = time.monotonic()
    options = parse_arguments(arguments)
    reuse_memory()
    if (options.data is None) == (options.procedural is None):
        raise TrainingError(
            "name the training faces: either --data FILE.pack made by memorygan.training.prepare, or --procedural N"
        )
    if options.procedural is not None and options.validation:
        raise TrainingError("--procedural draws its own validation faces; leave out --validation")
    if options.start_from and options.grow_from:
        raise TrainingError("pass either --start-from or --grow-from, not both")
    processes = start_processes(options.device)
    config = configure(options, processes)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        # --dry-run writes nothing into the run's folder.
        if options.procedural is not None:
            folder = Path(scratch) if options.dry_run else options.out / "data"
            size = get_preset(config.preset).generator.size
            options.data, options.validation = draw_faces(options.procedural, folder, size, processes)
        trainer = make_trainer(options, config, processes, started)
    if trainer.resume():
        if processes.is_main and (options.start_from or options.grow_from):
            print(f"{options.out} is resumed; other networks are for a new run", file=sys.stderr)
    else:
        if options.start_from:
            start_from(trainer.state, options.start_from)
        elif options.grow_from:
            grow(trainer.state, options.grow_from)
    if options.dry_run:
        print(json.dumps(config.to_dict(), indent=2))
        print(json.dumps(trainer.dry_run(), indent=2))
        return
    progress = trainer.run()
    processes.leave()
    if processes.is_main:
        print(f"{progress.stage}: {progress.images:,} images in {progress.minutes:.1f} minutes, saved in {options.out}")


if __name__ == "__main__":
    sys.exit(main())
