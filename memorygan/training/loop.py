"""The one training loop: stages in order, checkpoints, budgets, setbacks, sheets."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from memorygan.checkpoint import remove_unfinished, write_atomically
from memorygan.fast.hardware import little_garbage
from memorygan.training.adversarial import MakeReal, PaperAdversarial
from memorygan.training.batches import ResidentFaces
from memorygan.training.colour import LearnColours
from memorygan.training.config import TrainingConfig
from memorygan.training.correct import LearnToCorrect
from memorygan.training.data import PackedDataset
from memorygan.training.distributed import Processes
from memorygan.training.export import export_networks, origin_of
from memorygan.training.metrics import measure
from memorygan.training.plan import LearnToPlan
from memorygan.training.projected import MakeRealProjected
from memorygan.training.sheets import reconstruction_sheet, sample_sheet, save_picture
from memorygan.training.stages import FillMemory, LearnToQuery, Stage
from memorygan.training.state import Progress, TrainingState

STAGES: dict[str, tuple[type[Stage], ...]] = {
    "memory-first": (FillMemory, LearnColours, LearnToQuery, MakeReal, LearnToCorrect, LearnToPlan),
    "projected": (FillMemory, LearnColours, LearnToQuery, MakeRealProjected, LearnToCorrect, LearnToPlan),
    "paper": (PaperAdversarial,),
}
STATE_FILE = "state.safetensors"
MAX_SETBACKS = 5
# Halved by every setback.
RATES = ("generator_lr", "controller_lr", "query_lr", "discriminator_lr", "real_generator_lr")


class TrainingError(ValueError):
    """A run cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class Schedule:
    """When to look, save and stop.

    Attributes:
        minutes: wall-clock budget of this call; None for no limit.
        save_minutes: time between checkpoints.
        sheet_images: images between sheets (and metrics); 0 for none.
        log_steps: steps between lines of ``stats.jsonl``.
        metric_samples: generated faces per measurement; 0 switches metrics off.

    Raises:
        ValueError: for an impossible value, with the remedy.
    """

    minutes: float | None = None
    save_minutes: float = 10.0
    sheet_images: int = 10_000
    log_steps: int = 20
    metric_samples: int = 0

    def __post_init__(self) -> None:
        if self.metric_samples < 0 or self.metric_samples == 1:
            raise ValueError(
                f"metric samples are {self.metric_samples}; distances between faces need at least 2, and 0 means none"
            )
        if self.log_steps < 1:
            raise ValueError(f"log steps are {self.log_steps}; use at least 1")
        for name, value in (("minutes", self.minutes), ("save minutes", self.save_minutes)):
            if value is not None and not value >= 0:
                raise ValueError(f"{name} are {value}; use 0 or more")
        if self.sheet_images < 0:
            raise ValueError(f"sheet images are {self.sheet_images}; use 1 or more, or 0 for no sheets")


class Trainer:
    """Runs the stages of a recipe from wherever the state stands.

    Args:
        config: hyper-parameters.
        train, validation: packed splits; the validation split is for sheets and metrics.
        out: folder of the run.
        schedule: budgets.
        processes: this process among all.
        started: when the budget of ``schedule.minutes`` began, by ``time.monotonic()``; None for when it runs.
        licence: of the exported weights; None for what the kind of the data says, see :mod:`memorygan.training.export`.

    Raises:
        TrainingError: if the data does not fit the preset, or another process has other data.
    """

    def __init__(
        self,
        config: TrainingConfig,
        train: PackedDataset,
        validation: PackedDataset | None,
        out: Path,
        schedule: Schedule,
        processes: Processes,
        started: float | None = None,
        licence: str | None = None,
    ) -> None:
        self.config, self.out, self.schedule, self.processes = config, out, schedule, processes
        digest = train.header.sha256
        if processes.any(processes.share(digest.encode()) != digest.encode()):
            raise TrainingError("the processes were given different training faces; copy one file to every host")
        self.state = TrainingState(config, len(train), processes, digest, train.header.weights or None)
        self.origin = origin_of(train.header.plan, licence)
        self.started = started
        generator = self.state.generator.config
        for split in [train] + ([validation] if validation else []):
            if split.resolution != generator.size:
                raise TrainingError(
                    f"the faces are {split.resolution} pixels wide, preset {config.preset} needs {generator.size}; "
                    f"prepare them with --size {generator.size}"
                )
            if tuple(split.part_names) != generator.parts.names:
                raise TrainingError("the faces were packed with other parts than this version has; prepare them again")
        self.faces = ResidentFaces(train, processes.device, self.state.dtype)
        self.held_out = ResidentFaces(validation, processes.device, self.state.dtype) if validation else None
        self.stage: Stage | None = None
        self._asked_to_stop = False
        self._setbacks = 0  # since the last checkpoint
        self._step_seconds = self._save_seconds = 0.0  # the longest so far
        self.state_path = out / STATE_FILE

    def has_checkpoint(self) -> bool:
        """Whether the main process finds one; the same answer everywhere."""
        return self.processes.any(self.processes.is_main and self.state_path.exists())

    def resume(self) -> bool:
        """Loads the last checkpoint of the run folder; False if there is none.

        Raises:
            TrainingError: if the main process has none, but another one does: starting anew would leave that behind.
            CheckpointError: see :meth:`TrainingState.load`.
        """
        if not self.has_checkpoint():
            if self.processes.any(self.state_path.exists()):
                raise TrainingError(
                    f"the main process finds no checkpoint in {self.out}, but one on another host does; "
                    "start that host as the first (--node-rank 0), or share the folder between the hosts"
                )
            return False
        self.state.load(self.state_path, self._enter_stage)
        return True

    def dry_run(self) -> dict[str, float]:
        """The losses of one step; nothing is written."""
        if self.stage is None:
            self._enter_stage(self.state)
        while self.stage is not None and self.stage.finished():
            self._next_stage()
        if self.stage is None:
            raise TrainingError("this run is done; raise the length of a stage to go on")
        return {key: float(value.float().mean()) for key, value in self.stage.step().items()}

    def _enter_stage(self, state: TrainingState) -> None:
        kinds = {stage.name: stage for stage in STAGES[self.config.recipe]}
        kind = kinds.get(state.progress.stage)  # none when all is done
        self.stage = kind(state, self.faces) if kind else None
        state.optimizers = self.stage.make_optimizers() if self.stage else {}

    def _next_stage(self) -> None:
        order, progress = [*(stage.name for stage in STAGES[self.config.recipe]), "done"], self.state.progress
        progress.stage = order[order.index(progress.stage) + 1]
        progress.stage_images = progress.steps = 0
        self._enter_stage(self.state)

    def run(self) -> Progress:
        """Trains until the recipe is done or the time is up; always ends with a saved checkpoint."""
        try:
            with little_garbage():
                return self._run()
        finally:
            if writer := vars(self).pop("_tensorboard", None):
                writer.close()  # its thread must not meet the end of the interpreter

    def _run(self) -> Progress:
        if self.stage is None:
            self._enter_stage(self.state)
        started = last_save = time.monotonic()
        deadline = None
        if self.schedule.minutes is not None:
            deadline = (started if self.started is None else self.started) + self.schedule.minutes * 60
        self._stop_gracefully()
        before = self.state.progress.minutes
        logged: list[dict[str, Tensor]] = []
        # Images that any network has learned from in this call; those of the generator are counted in the progress.
        seen = last_sheet = log_images = 0
        log_time = started
        if self.processes.is_main:
            remove_unfinished(self.out)
            remove_unfinished(self.out / "best")
        # Asked together: a process that finds what another has just saved would not join it in the saving.
        if not self.has_checkpoint():
            self.save()
        while self.stage is not None:
            if self.stage.finished():  # of length zero, or shortened since the last run
                self._next_stage()
                continue
            step_started, position = time.monotonic(), self.state.progress.stage_images
            logged.append(self.stage.step())
            progress, now = self.state.progress, time.monotonic()
            seen += (progress.stage_images - position) * self.stage.counts_images
            progress.minutes = before + (now - started) / 60
            self._step_seconds = max(self._step_seconds, now - step_started)
            stage_ends = self.stage.finished()
            # One more step, and the saving after it, have to fit into the budget.
            reserve = self._step_seconds + self._save_seconds
            out_of_time = self.processes.any(self._asked_to_stop or (deadline is not None and now + reserve > deadline))
            saves = self.processes.any(out_of_time or stage_ends or now - last_save > self.schedule.save_minutes * 60)
            looks = bool(self.schedule.sheet_images) and seen - last_sheet >= self.schedule.sheet_images
            looks = stage_ends or (looks and not out_of_time)
            logs = len(logged) >= self.schedule.log_steps or stage_ends
            # Losses are those from before the last update, so that weights are looked at before they are saved.
            unsound = (logs or looks or saves) and not self._finite(logged)
            if unsound or (saves and self.processes.any(not self.state.is_finite())):
                self._step_back()
                logged, last_save = [], time.monotonic()
                last_sheet = log_images = seen
                continue
            if logs:
                self._log(logged, (seen - log_images) / max(1e-9, now - log_time))
                logged, log_time, log_images = [], now, seen
            if looks:
                self.look()
                last_sheet, log_time = seen, time.monotonic()
            if stage_ends:
                self._next_stage()
                self._step_seconds = 0.0
            if saves:
                self.save()
                last_save = time.monotonic()
            if out_of_time:
                break
        return self.state.progress

    def _stop_gracefully(self) -> None:
        """The first Ctrl-C or SIGTERM finishes the step and saves; a second Ctrl-C stops at once."""
        if threading.current_thread() is not threading.main_thread():
            return

        def ask(number: int, frame: object) -> None:
            self._asked_to_stop = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask)

    def save(self) -> None:
        """Writes the state and the exported networks; a kill during this leaves the previous files whole."""
        started = time.monotonic()
        if self.processes.is_main:
            text = json.dumps(self.config.to_dict(), indent=2) + "\n"
            write_atomically(self.out / "config.json", text.encode())
            self.state.measure_mean_latents()
            self.state.origins = tuple(dict.fromkeys((*self.state.origins, *self.origin.data)))
            self.state.save(self.state_path)
            export_networks(self.state, self.out, self.origin)
        self.processes.wait()
        self._setbacks = 0
        self._save_seconds = max(self._save_seconds, time.monotonic() - started)

    @torch.no_grad()
    def look(self) -> None:
        """Sheets and metrics of the averaged networks."""
        if not self.processes.is_main:
            return
        state, progress = self.state, self.state.progress
        name = f"{progress.images:08d}-{progress.stage}"
        record: dict[str, Any] = {
            "images": progress.images,
            "stage": progress.stage,
            "minutes": round(progress.minutes, 2),
        }
        generator = state.average_generator
        if "encoder" in state.averages and self.held_out is not None:
            sheet, error = reconstruction_sheet(generator, state.average_encoder, self.held_out)
            self._show("reconstructions", sheet, name)
            record["reconstruction_error"] = round(error, 3)
        if progress.stage not in ("fill", "colour", "correct"):  # no sample changes while photos are
            temperature = self.config.temperature if self.config.reconstructs else 1.0
            self._show("samples", sample_sheet(generator, temperature), name)
            if self.schedule.metric_samples and self.held_out is not None:
                record |= measure(generator, self.faces, self.schedule.metric_samples, temperature)
                self._keep_best(record)
        self._append("looks.jsonl", record)
        self._scalars(record)

    def _show(self, kind: str, sheet: Image.Image, name: str) -> None:
        save_picture(sheet, self.out / "sheets" / f"{name}-{kind}.png")
        self._tensorboard.add_image(kind, np.asarray(sheet), self.state.progress.images, dataformats="HWC")

    def _keep_best(self, record: dict[str, Any]) -> None:
        """Exports the networks if no measurement with the same judge and number of samples was better."""
        distance = record.get("frechet_distance")  # missing where no feature network is installed
        if distance is None:
            return
        progress = self.state.progress
        measured = f"{record.get('frechet_features')}, {self.schedule.metric_samples} samples"
        comparable = progress.best is not None and progress.best_of in ("", measured)
        if not comparable or distance < progress.best:
            progress.best, progress.best_of = distance, measured
            self.state.measure_mean_latents()
            export_networks(self.state, self.out / "best", self.origin)

    def _finite(self, logged: list[dict[str, Tensor]]) -> bool:
        values = torch.stack([value.float().mean() for terms in logged for value in terms.values()])
        return not self.processes.any(not bool(torch.isfinite(values).all()))

    def _step_back(self) -> None:
        """Returns to the last checkpoint with other random numbers and half the learning rates.

        Raises:
            TrainingError: after several setbacks in a row, without a checkpoint in between.
        """
        self._setbacks += 1
        if self._setbacks > MAX_SETBACKS:
            raise TrainingError(
                f"a loss or a weight was not finite {self._setbacks} times in a row; the last good state is in "
                f"{self.state_path.name}: lower the learning rates or use --precision float32"
            )
        rates = {name: getattr(self.config, name) / 2 for name in RATES}
        self.config = self.state.config = replace(self.config, **rates)
        self.state.load(self.state_path, self._enter_stage)
        setbacks = self.state.progress.setbacks = self.state.progress.setbacks + self._setbacks
        self.state.draws.generator.manual_seed(self.config.seed + 7919 * setbacks)
        self._append("stats.jsonl", {"images": self.state.progress.images, "setback": setbacks})

    def _log(self, logged: list[dict[str, Tensor]], speed: float) -> None:
        progress = self.state.progress
        means = {
            key: round(float(torch.stack([t[key].float().mean() for t in logged if key in t]).mean()), 5)
            for key in {key for terms in logged for key in terms}
        }
        record = {
            "stage": progress.stage,
            "images": progress.images,
            "stage_images": progress.stage_images,
            "minutes": round(progress.minutes, 2),
            "images_per_second": round(speed, 2),
            **dict(sorted(means.items())),
        }
        self._append("stats.jsonl", record)
        if self.processes.is_main:
            self._scalars(record)
            shown = " ".join(
                f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, (int, float)) and math.isfinite(v)
            )
            print(f"{progress.stage}: {shown}", flush=True)

    def _append(self, name: str, record: dict[str, Any]) -> None:
        if self.processes.is_main:
            self.out.mkdir(parents=True, exist_ok=True)
            with (self.out / name).open("a") as stream:
                stream.write(json.dumps(record) + "\n")

    @cached_property
    def _tensorboard(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only wanted here

        return SummaryWriter(str(self.out / "tensorboard"))

    def _scalars(self, record: dict[str, Any]) -> None:
        for key, value in record.items():
            if isinstance(value, (int, float)):
                self._tensorboard.add_scalar(f"{record['stage']}/{key}", value, record["images"])
