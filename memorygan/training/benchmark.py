"""``python -m memorygan.training.benchmark``: every training stage beside a plain float32 step of the same model.

Both run in one process, in turns, on random faces already in memory. The plain step computes the paper's formulas
literally (:mod:`memorygan.reference`): float32, one part after another, up-convolutions on the enlarged map.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from memorygan.config import get_preset
from memorygan.parts import FACE_PARTS
from memorygan.reference import reference_synthesis
from memorygan.training.batches import ResidentFaces
from memorygan.training.config import recipe_config
from memorygan.training.distributed import start_processes
from memorygan.training.loop import STAGES
from memorygan.training.stages import Stage
from memorygan.training.state import TrainingState

# Operators that run on matrix units; everything else is element-wise work, copies and bookkeeping.
MATRIX_OPERATORS = ("conv", "aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "gemm")


@dataclass(frozen=True)
class StageSpeed:
    """Speed of one training stage.

    Attributes:
        recipe, stage, preset: what ran.
        images_per_second: median of the fast step.
        plain_images_per_second: median of the plain float32 step.
        outside_matrix_units: share of the fast step's operator time outside convolutions and matrix products, 0–1.
    """

    recipe: str
    stage: str
    preset: str
    images_per_second: float
    plain_images_per_second: float
    outside_matrix_units: float

    @property
    def ratio(self) -> float:
        return self.images_per_second / self.plain_images_per_second


class RandomFaces:
    """Random images and masks with the interface of a packed split."""

    def __init__(self, size: int, count: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        self._images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
        blocks = torch.randint(0, len(FACE_PARTS), (count, 1, 8, 8), generator=generator).float()
        self._masks = torch.nn.functional.interpolate(blocks, size=(size, size)).squeeze(1).to(torch.uint8)

    @property
    def part_names(self) -> tuple[str, ...]:
        return FACE_PARTS.names

    def images(self) -> Tensor:
        return self._images

    def masks(self) -> Tensor:
        return self._masks


def make_stage(recipe: str, name: str, preset: str, batch: int, precision: str, device: str | None) -> Stage:
    """One stage on random faces, ready to step."""
    config = recipe_config(recipe, {"preset": preset, "batch": batch, "accumulate": 1, "precision": precision})
    processes = start_processes(device)
    state = TrainingState(config, 32, processes)
    state.progress.stage = name
    faces = ResidentFaces(RandomFaces(get_preset(preset).generator.size), processes.device, state.dtype)
    stage = next(s for s in STAGES[recipe] if s.name == name)(state, faces)
    state.optimizers = stage.make_optimizers()
    return stage


def measure_stage(recipe: str, name: str, preset: str, batch: int, repeats: int, device: str | None) -> StageSpeed:
    """Times fast and plain steps in turns, both without the lazy regularisers."""
    fast = make_stage(recipe, name, preset, batch, "bf16", device)
    plain = make_stage(recipe, name, preset, batch, "float32", device)
    generator = plain.state.generator
    plain_synthesis: Any = partial(reference_synthesis, generator)
    generator.synthesize = plain_synthesis  # type: ignore[method-assign]
    times: dict[Stage, list[float]] = {fast: [], plain: []}
    for repeat in range(repeats + 1):
        for stage, taken in times.items():
            stage.state.progress.steps = 1  # no lazy regulariser is due
            started = _now(stage)
            stage.step()
            if repeat:
                taken.append(_now(stage) - started)
    fast.state.progress.steps = 1
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        fast.step()
    operators = [
        (event.key, event.self_cpu_time_total) for event in recorded.key_averages() if event.key.startswith("aten")
    ]
    inside = sum(spent for key, spent in operators if any(word in key for word in MATRIX_OPERATORS))
    total = sum(spent for _, spent in operators)
    rates = [batch / statistics.median(times[stage]) for stage in (fast, plain)]
    return StageSpeed(recipe, name, preset, rates[0], rates[1], 1.0 - inside / max(total, 1e-9))


def _now(stage: Stage) -> float:
    if stage.state.processes.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def table(speeds: list[StageSpeed]) -> str:
    """Markdown table."""
    lines = [
        "| preset | recipe, stage | images/s | plain float32 images/s | ratio | outside matrix units |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {s.preset} | {s.recipe}, {s.stage} | {s.images_per_second:.1f} | {s.plain_images_per_second:.1f} "
        f"| {s.ratio:.1f}× | {100 * s.outside_matrix_units:.0f} % |"
        for s in speeds
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m memorygan.training.benchmark", description=__doc__)
    parser.add_argument("--preset", action="append", help="may be given several times; default faces-64")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    options = parser.parse_args(arguments)
    speeds = []
    for preset in options.preset or ["faces-64"]:
        for recipe, name in (("memory-first", "fill"), ("memory-first", "real"), ("paper", "paper")):
            speeds.append(measure_stage(recipe, name, preset, options.batch, options.repeats, options.device))
            print(table(speeds[-1:]).splitlines()[-1], flush=True)
    print("\n" + table(speeds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
