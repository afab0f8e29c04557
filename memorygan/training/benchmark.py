"""``python -m memorygan.training.benchmark``: every training stage beside a plain float32 step of the same model.

Both run in one process, in turns, on random faces already in memory. The plain step computes the paper's formulas
literally (:mod:`memorygan.fast.reference`): float32, one part after another, up-convolutions on the enlarged map. In
the real stage its critic looks at the fakes once for each player (:mod:`memorygan.training.reference`). On a CPU the
fast step is also timed beside programs that keep every core busy.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from memorygan.analysis.benchmark import HEADINGS, TITLE, kind_of, machine
from memorygan.analysis.blocks import markdown_table
from memorygan.analysis.sections import write_section
from memorygan.analysis.speed import interleaved, wait_for
from memorygan.command import add_threads, command
from memorygan.config import PRESETS, get_preset
from memorygan.fast.hardware import choose_device, little_garbage, reuse_memory
from memorygan.fast.reference import reference_synthesis
from memorygan.parts import FACE_PARTS
from memorygan.training.adversarial import MakeReal
from memorygan.training.batches import ResidentFaces
from memorygan.training.config import recipe_config
from memorygan.training.distributed import start_processes
from memorygan.training.loop import STAGES
from memorygan.training.reference import TextbookMakeReal
from memorygan.training.stages import Stage
from memorygan.training.state import TrainingState

SPEEDUP_TARGET = 4.0
# With every core shared fairly, half of it is left for each: twice as long.
SHARED_TARGET = 2.2
# What is measured: (recipe, stage).
MEASURED = (("memory-first", "fill"), ("memory-first", "query"), ("memory-first", "real"), ("paper", "paper"))

# Operators that run on matrix units; everything else is element-wise work, copies and bookkeeping.
MATRIX_OPERATORS = ("conv", "aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "gemm")


@dataclass(frozen=True)
class StageSpeed:
    """Speed of one training stage.

    Attributes:
        recipe, stage, preset: what ran.
        images_per_second: median of the fast step; faces' codes for the query stage, which sees no images.
        plain_images_per_second: median of the plain float32 step.
        outside_matrix_units: share of the fast step's operator time outside convolutions and matrix products, 0–1; on a
            GPU of the time that kernels run there.
        shared: seconds of a fast step beside one busy process per thread, over seconds alone; None on a GPU.
    """

    recipe: str
    stage: str
    preset: str
    images_per_second: float
    plain_images_per_second: float
    outside_matrix_units: float
    shared: float | None = None

    @property
    def ratio(self) -> float:
        return self.images_per_second / self.plain_images_per_second


class RandomFaces:
    """Random images and masks with the interface of a packed split."""

    part_names = FACE_PARTS.names

    def __init__(self, size: int, count: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        self._images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
        blocks = torch.randint(0, len(FACE_PARTS), (count, 1, 8, 8), generator=generator).float()
        self._masks = torch.nn.functional.interpolate(blocks, size=(size, size)).squeeze(1).to(torch.uint8)

    def images(self) -> Tensor:
        return self._images

    def masks(self) -> Tensor:
        return self._masks


def make_stage(
    recipe: str, name: str, preset: str, batch: int, precision: str, device: str | None, plain: bool = False
) -> Stage:
    """One stage on random faces, ready to step; ``plain`` takes its textbook step where it has one."""
    config = recipe_config(recipe, {"preset": preset, "batch": batch, "accumulate": 1, "precision": precision})
    processes = start_processes(device)
    state = TrainingState(config, 32, processes)
    state.progress.stage = name
    faces = ResidentFaces(RandomFaces(get_preset(preset).generator.size), processes.device, state.dtype)
    kind = next(s for s in STAGES[recipe] if s.name == name)
    stage = (TextbookMakeReal if plain and kind is MakeReal else kind)(state, faces)
    state.optimizers = stage.make_optimizers()
    return stage


def measure_stage(recipe: str, name: str, preset: str, batch: int, repeats: int, device: str | None) -> StageSpeed:
    """Times fast and plain steps in turns, both without the lazy regularisers."""
    fast = make_stage(recipe, name, preset, batch, "auto", device)
    plain = make_stage(recipe, name, preset, batch, "float32", device, plain=True)
    generator = plain.state.generator
    plain_synthesis: Any = partial(reference_synthesis, generator)
    generator.synthesize = plain_synthesis  # type: ignore[method-assign]
    with little_garbage():  # as in a run
        steps = {"fast": partial(_step, fast), "plain": partial(_step, plain)}
        seconds = interleaved(steps, repeats, fast.state.processes.device)
    fast.state.progress.steps = 1
    outside = outside_matrix_units(fast)
    faces = fast.config.query_batch if name == "query" else batch
    rates = [faces / statistics.median(taken) for taken in seconds.values()]
    return StageSpeed(recipe, name, preset, rates[0], rates[1], outside, beside_busy_processes(fast, repeats))


def beside_busy_processes(stage: Stage, repeats: int) -> float | None:
    """A step's wall-clock time with one busy process per thread, in proportion to its time alone; None on a GPU."""
    if stage.state.processes.device.type != "cpu":
        return None
    taken: dict[int, list[float]] = {0: [], torch.get_num_threads(): []}
    for _ in range(repeats):
        for count, times in taken.items():
            with busy_processes(count):
                both = [_step_seconds(stage) for _ in range(2)]
                times.append(both[1])  # by then the scheduler has found out who is busy
    alone, shared = (statistics.median(times) for times in taken.values())
    return shared / alone


def _step(stage: Stage) -> None:
    stage.state.progress.steps = 1  # no lazy regulariser is due
    stage.step()


def _step_seconds(stage: Stage) -> float:
    started = time.perf_counter()
    _step(stage)
    return time.perf_counter() - started


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Other programs that compute without pause for as long as the block lasts."""
    code = "print(flush=True)\nwhile True: pass"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()  # it has started
        yield
    finally:
        for process in running:
            process.kill()
            process.communicate()


def outside_matrix_units(stage: Stage) -> float:
    """Share of one step's operator time outside convolutions and matrix products, where the device spends it."""
    device = stage.state.processes.device
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as recorded:
        stage.step()
        wait_for(device)  # kernels still running belong to the step
    spent = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in recorded.key_averages()
        if event.key.startswith(("aten", "mkldnn"))
    }
    inside = sum(time for key, time in spent.items() if any(word in key for word in MATRIX_OPERATORS))
    return 1.0 - inside / max(sum(spent.values()), 1e-9)


def table(speeds: list[StageSpeed]) -> str:
    """Markdown table."""
    columns = ("Recipe, stage", "Images/s", "Plain float32, images/s", "Ratio", "Outside matrix units",
               "Beside a busy process")  # fmt: skip
    rows = [
        (
            f"{s.recipe}, {s.stage}",
            f"{s.images_per_second:.1f}",
            f"{s.plain_images_per_second:.1f}",
            f"{s.ratio:.1f}",
            f"{100 * s.outside_matrix_units:.0f} %",
            "–" if s.shared is None else f"{s.shared:.2f} times as long",
        )
        for s in speeds
    ]
    return markdown_table(columns, rows)


_QUERY = (
    "The query stage fits the controller to stored codes: it sees no images, its rate is in faces' codes, and it "
    "computes the same in both columns, in float32."
)
_SHARED = (
    "Beside a busy process: beside one per thread, each of which would take a core for itself; wall-clock time of a "
    "step over its time alone."
)


def report(speeds: list[StageSpeed], batch: int, repeats: int, on: list[str], device: str = "cpu") -> str:
    """The Markdown section: what it was measured on, the table, and which stages reach the target."""
    lines = [f"## Training, {speeds[0].preset}, on {HEADINGS[kind_of(device)]}", "", *(f"- {line}" for line in on), ""]
    lines += [f"Batch {batch}, median of {repeats} interleaved steps, without the lazy regularisers.", ""]
    lines.append(table(speeds))
    if any(s.stage == "query" for s in speeds):
        lines += ["", _QUERY]
    if measured := [(s.stage, s.shared) for s in speeds if s.shared is not None]:
        slow = [f"{stage} ({times:.2f})" for stage, times in measured if times > SHARED_TARGET]
        lines += [
            "",
            _SHARED,
            f"Target, at most {SHARED_TARGET:g} times: "
            + (f"**missed** by {', '.join(slow)}." if slow else "reached."),
        ]
    judged = [s for s in speeds if s.stage != "query"]
    short = [f"{s.stage} ({s.ratio:.1f})" for s in judged if s.ratio < SPEEDUP_TARGET]
    verdict = f"**not reached** by {', '.join(short)}" if short else "reached by every stage but query"
    return "\n".join([*lines, "", f"Target, {SPEEDUP_TARGET:g} times the plain float32 step: {verdict}."])


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m memorygan.training.benchmark", description=__doc__)
    parser.add_argument(
        "--preset", nargs="+", choices=sorted(PRESETS), default=["faces-64", "faces-128"], metavar="PRESET",
        help="one or more presets; default: faces-64 faces-128",
    )  # fmt: skip
    parser.add_argument(
        "--stage", nargs="+", choices=[name for _, name in MEASURED], default=[name for _, name in MEASURED],
        help="default: all four",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=16, help="images per step (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each kind (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    add_threads(parser)
    parser.add_argument("--write", type=Path, metavar="FILE", help="page for the figures, such as docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if min(options.batch, options.repeats) < 1 or options.batch % 2:
        parser.error("batch and repeats are at least 1, and batch is even")
    reuse_memory()
    device = choose_device(options.device).type
    for preset in options.preset:
        on, speeds = machine(device), []
        for recipe, name in MEASURED:
            if name in options.stage:
                speeds.append(measure_stage(recipe, name, preset, options.batch, options.repeats, device))
        section = report(speeds, options.batch, options.repeats, on, device)
        print(section + "\n", flush=True)
        if options.write:
            write_section(options.write, f"training/{kind_of(device)}/{preset}", section, TITLE)


if __name__ == "__main__":
    sys.exit(main())
