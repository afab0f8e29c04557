"""The training loop on tiny presets: resuming, several processes, setbacks, growing, refusals."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from memorygan.checkpoint import CheckpointError, load_generator, load_module, save_module
from memorygan.config import PRESETS, get_preset
from memorygan.discriminator import Critique, Discriminator
from memorygan.encoder import PartEncoder, Reading, load_encoder
from memorygan.generator import MemoryGAN
from memorygan.manifest import default_checkpoint
from memorygan.parts import FACE_PARTS
from memorygan.training import __main__ as cli
from memorygan.training import bundle, loop
from memorygan.training.adversarial import MakeReal, PaperAdversarial
from memorygan.training.augment import draw_transform
from memorygan.training.colour import LearnColours
from memorygan.training.config import TrainingConfig, recipe_config
from memorygan.training.correct import LearnToCorrect
from memorygan.training.data import PackedDataset
from memorygan.training.distributed import Draws, Processes, start_processes
from memorygan.training.dye import PALETTES
from memorygan.training.grow import grow, start_from
from memorygan.training.loop import STATE_FILE, Schedule, Trainer, TrainingError
from memorygan.training.prepare import main as prepare
from memorygan.training.reference import TextbookMakeReal
from memorygan.training.stages import FillMemory, Stage
from memorygan.training.state import KIND

QUIET = Schedule(sheet_images=0, log_steps=2)
TINY = {
    "preset": "tiny-32",
    "batch": 4,
    "precision": "float32",
    "fill_images": 24,
    "query_steps": 4,
    "real_images": 24,
    "correct_images": 8,
}
TINY["parsing"] = 0.0  # the parser works at 192 pixels, six times the side of these faces


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    out = {}
    for size in (32, 64):
        folder = tmp_path_factory.mktemp(f"faces{size}")
        assert prepare(["--procedural", "12", "--size", str(size), "--out", str(folder), "--holdout", "2"]) == 0
        out[size] = next(folder.glob("*train*.pack"))
    return out


def make(packs: dict[int, Path], out: Path, schedule: Schedule = QUIET, **changes: Any) -> Trainer:
    config = recipe_config(str(changes.pop("recipe", "memory-first")), {**TINY, **changes})
    size = get_preset(config.preset).generator.size
    data = PackedDataset.open(packs[size])
    return Trainer(config, data, data, out, schedule, start_processes("cpu"))


def skip_to(trainer: Trainer, stage: str) -> None:
    """Enters a stage without those before it."""
    while trainer.state.progress.stage != stage:
        trainer._next_stage()


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, network in {**trainer.state.networks}.items()
        for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("memory-first", {"fill_images": 12, "query_steps": 2, "real_images": 16}),
        ("memory-first", {"fill_images": 4, "colour_images": 8, "query_steps": 1, "real_images": 8, "dyed": 0.5}),
        ("memory-first", {"fill_images": 4, "query_steps": 1, "real_images": 8, "parsing": 2.0}),
        ("projected", {"fill_images": 4, "query_steps": 1, "real_images": 12, "critic_images": 4, "correct_images": 4}),
        (
            "projected",
            {"fill_images": 4, "real_images": 12, "query_steps": 0, "correct_images": 0, "finest_only": True},
        ),
        ("memory-first", {"fill_images": 8, "query_steps": 1, "real_images": 8, "correct_images": 4, "plan_steps": 3}),
        ("paper", {"paper_images": 24, "accumulate": 1}),
    ],
    ids=[
        "memory-first",
        "memory-first with colours",
        "memory-first with the parser",
        "projected",
        "finest",
        "plan",
        "paper",
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    packs: dict[int, Path], tmp_path: Path, recipe: str, changes: dict[str, Any]
) -> None:
    changes = {**changes, "recipe": recipe, "style_mixing": 0.9, "augment_images": 64, "augment": "ada"}
    changes |= {"r1_interval": 3, "path_interval": 2, "augment_target": 0.0}
    whole = make(packs, tmp_path / "whole", **changes)
    whole.run()
    # Stopping after every step crosses every stage, and every lazy regularisation, with a reload in between.
    schedule = Schedule(minutes=0.0, sheet_images=0, log_steps=2)
    part = make(packs, tmp_path / "parts", schedule, **changes)
    for _ in range(12):
        part = make(packs, tmp_path / "parts", schedule, **changes)
        part.resume()
        if part.run().stage == "done":
            break
    assert part.state.progress.stage == "done"
    assert part.state.progress.images == whole.state.progress.images
    assert part.state.progress.augment == whole.state.progress.augment
    assert (whole.state.progress.augment > 0) == (recipe != "projected")
    assert part.state.progress.path_mean == whole.state.progress.path_mean
    assert (whole.state.progress.path_mean > 0) == (recipe == "paper")
    expected, found = weights(whole), weights(part)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    averages = zip(whole.state.average_generator.parameters(), part.state.average_generator.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in averages)


def test_training_changes_what_it_should_and_exports_usable_networks(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path / "run", Schedule(sheet_images=8, log_steps=2), fill_images=120, precision="bf16")
    before = weights(trainer)
    progress = trainer.run()
    assert progress.stage == "done" and progress.images == 144
    after = weights(trainer)
    moved = {key.split(".")[0] for key in after if not torch.equal(before[key], after[key])}
    assert moved == {"generator", "encoder", "discriminator"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    filling = [line for line in lines if line["stage"] == "fill"]
    assert np.mean([line["fine_mask"] for line in filling[-5:]]) < 0.9 * filling[0]["fine_mask"]
    assert {line["stage"] for line in lines} == {"fill", "query", "real", "correct"}
    assert list((tmp_path / "run" / "sheets").glob("*samples.png"))
    generator = load_generator(tmp_path / "run" / "generator.safetensors").generator
    assert generator.mean_w.abs().sum() > 0
    faces = trainer.faces.batch(torch.arange(2))
    assert load_encoder(tmp_path / "run" / "encoder.safetensors")(
        faces.image.float(), faces.one_hot.float()
    ).mean.shape == (2, 14, 16)


def test_the_last_stage_trains_the_encoder_alone_until_photos_come_back_better(
    packs: dict[int, Path], tmp_path: Path
) -> None:
    trainer = make(packs, tmp_path, correct_images=400, generator_lr=5e-3)
    skip_to(trainer, "correct")
    state, stage = trainer.state, trainer.stage
    assert isinstance(stage, LearnToCorrect)
    batch, encoder, generator = stage.faces.batch(torch.arange(8)), state.average_encoder, state.average_generator

    @torch.no_grad()
    def error(looks: bool) -> float:
        seen = batch.image, batch.one_hot
        reading = encoder.read(generator, *seen) if looks else Reading(encoder(*seen).mean)
        face = generator.synthesize(reading.latents(generator))
        return float((face.image - batch.image).abs().mean())

    with torch.no_grad():
        next(encoder.base_in.parameters()).mul_(0.1)  # an average that differs from what was trained last
        cast(PartEncoder, state.encoder.residual).part_embedding.mul_(0.1)
    untrained = error(looks=False)
    before = {f"{name}.{key}": v.clone() for name, net in state.averages.items() for key, v in net.state_dict().items()}
    while not stage.finished():
        stage.step()
    for networks in (state.averages, {name: state.networks[name] for name in state.averages}):
        after = {f"{name}.{key}": v for name, net in networks.items() for key, v in net.state_dict().items()}
        moved = {key for key in after if not torch.equal(before[key], after[key])}
        assert moved and all(key.startswith("encoder.") for key in moved)
        assert {key.startswith("encoder.residual.") for key in moved} == {True}
        assert {key.startswith("encoder.residual.style_out.") for key in moved} == {True, False}
    assert state.progress.images == 0 and state.progress.stage_images == 400
    assert error(looks=False) == untrained
    assert error(looks=True) < 0.995 * untrained, "what the first look missed, as far as an untrained generator can"


def test_an_encoder_that_looked_once_gets_a_silent_residual_encoder(packs: dict[int, Path], tmp_path: Path) -> None:
    once = make(packs, tmp_path / "once", fill_images=4, query_steps=1, real_images=0, looks=0)
    assert once.run().stage == "done"  # there is nothing to correct with
    assert load_encoder(tmp_path / "once" / "encoder.safetensors").residual is None
    twice = make(packs, tmp_path / "twice")
    start_from(twice.state, tmp_path / "once" / "generator.safetensors")
    batch, encoder, generator = twice.faces.batch(torch.arange(2)), twice.state.encoder, twice.state.generator
    assert encoder.residual is not None
    with torch.no_grad():
        mean = encoder(batch.image, batch.one_hot).mean
        assert torch.equal(encoder.read(generator, batch.image, batch.one_hot).codes, mean)
    with pytest.raises(ValueError, match="no residual encoder"):
        once.state.encoder.correction(batch.image, batch.one_hot, generator.synthesize(generator.sample([0])))


def test_learning_to_query_raises_the_likelihood_of_the_codes(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, fill_images=4, query_steps=60, real_images=0)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    nll = [line["negative_log_likelihood"] for line in lines if line["stage"] == "query"]
    assert nll[-1] < nll[0] - 1.0


@pytest.mark.parametrize("recipe", ["memory-first", "paper"])
def test_two_processes_equal_one_with_the_double_batch(packs: dict[int, Path], tmp_path: Path, recipe: str) -> None:
    common = ["--preset", "tiny-32", "--precision", "float32", "--fill-images", "16", "--query-steps", "2"]
    common += [
        "--real-images",
        "16",
        "--correct-images",
        "8",
        "--query-batch",
        "8",
        "--data",
        str(packs[32]),
        "--device",
        "cpu",
    ]
    common += ["--sheet-images", "0", "--augment-images", "64", "--threads", "1", "--recipe", recipe]
    common += ["--paper-images", "24", "--accumulate", "1", "--style-mixing", "0.5", "--path-interval", "2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "memorygan.training", *common, "--batch", "4", "--out", str(tmp_path / "two")]
    subprocess.run(command, check=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    # The query stage counts its own batch, so it is doubled too.
    single = [*common, "--batch", "8", "--query-batch", "16", "--out", str(tmp_path / "one")]
    assert cli.main(single) == 0
    # Adam turns rounding errors of near-zero gradients into full steps, so single weights may differ: the mean tells.
    control = [*common, "--batch", "4", "--out", str(tmp_path / "control")]
    assert cli.main(control) == 0
    loaded = [load_module(tmp_path / name / STATE_FILE, KIND) for name in ("one", "two", "control")]
    assert loaded[1][1]["progress"]["path_mean"] == pytest.approx(loaded[0][1]["progress"]["path_mean"], rel=1e-4)
    for network in ("generator", "discriminator", *(["encoder"] if recipe == "memory-first" else [])):
        one, two, other = (
            torch.cat([state[key].flatten() for key in sorted(state) if key.startswith(f"network.{network}.")])
            for state, _ in loaded
        )
        assert (one - two).abs().mean() < 3e-2 * (one - other).abs().mean(), network


@pytest.mark.parametrize("recipe", ["memory-first", "paper"])
def test_two_micro_batches_give_the_gradients_of_one_of_double_size(
    packs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    preset = PRESETS["tiny-32"]
    # Noise is drawn anew for every pass of the render net.
    monkeypatch.setitem(PRESETS, "tiny-32", replace(preset, generator=replace(preset.generator, noise=False)))
    monkeypatch.setattr(Stage, "apply", lambda self, optimizer: None)
    found = []
    for batch, accumulate in ((8, 1), (4, 2)):
        trainer = make(packs, tmp_path, batch=batch, accumulate=accumulate, recipe=recipe, augment="none")
        trainer._enter_stage(trainer.state)
        if isinstance(trainer.stage, PaperAdversarial):
            # What is drawn from the random stream comes in another order here: every face is the same face.
            monkeypatch.setattr(trainer.state.draws, "normal", lambda batch, *shape: torch.ones(batch, *shape))
            monkeypatch.setattr(trainer.state.draws, "uniform", lambda batch, *shape: torch.ones(batch, *shape))
            terms = trainer.stage.train_discriminator()
        else:
            assert trainer.stage is not None
            terms = trainer.stage.step()
        names = {
            f"{name}.{key}": p.grad for name, net in trainer.state.networks.items() for key, p in net.named_parameters()
        }
        found.append((terms, {key: value.clone() for key, value in names.items() if value is not None}))
    (one, gradients), (two, accumulated) = found
    assert one.keys() == two.keys() and all(torch.allclose(one[key], two[key], rtol=1e-4) for key in one)
    assert gradients.keys() == accumulated.keys() and gradients
    for key, value in gradients.items():
        torch.testing.assert_close(accumulated[key], value, rtol=1e-3, atol=1e-4 * float(value.abs().max()) + 1e-8)


def test_nothing_of_the_process_group_outlives_leaving_it(tmp_path: Path) -> None:
    script = tmp_path / "leave.py"
    script.write_text(
        "import sys, weakref\n"
        "import torch, torch.distributed as dist\n"
        "from memorygan.training.distributed import start_processes\n"
        "processes = start_processes('cpu')\n"
        "group = weakref.ref(dist.distributed_c10d._get_default_group())\n"
        "parameter = torch.nn.Parameter(torch.ones(2))\n"
        "parameter.grad = torch.ones(2)\n"
        "processes.average_gradients([parameter])\n"
        "torch.optim.Adam([parameter]).step()\n"
        "processes.leave()\n"
        "sys.exit(group() is not None)\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(torchrun, check=True, timeout=120, env=environment)


def test_a_process_joins_the_first_save_of_the_others(
    packs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(packs, tmp_path, fill_images=0, query_steps=0, real_images=0, correct_images=0)
    trainer.save()  # by the main process, between the look for a checkpoint that decided for all and this one's
    monkeypatch.setattr(type(trainer.processes), "any", lambda self, flag: flag)
    trainer.processes = Processes(1, 1, torch.device("cpu"))
    saved: list[bool] = []
    monkeypatch.setattr(trainer, "save", lambda: saved.append(True))
    trainer.run()
    assert saved == [True]


def test_every_process_reads_the_state_of_the_main_one(packs: dict[int, Path], tmp_path: Path) -> None:
    """Hosts without a common disk: the second process has a folder of its own, with nothing in it."""
    common = [
        "--preset",
        "tiny-32",
        "--precision",
        "float32",
        "--batch",
        "4",
        "--query-steps",
        "1",
        "--real-images",
        "0",
        "--correct-images",
        "0",
    ]
    common += ["--data", str(packs[32]), "--device", "cpu", "--sheet-images", "0", "--threads", "1"]
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys\n"
        "from memorygan.training.__main__ import main\n"
        "sys.exit(main([*sys.argv[1:], '--out', f'{os.environ[\"FOLDER\"]}/{os.environ[\"RANK\"]}']))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    for images in ("8", "16"):
        subprocess.run(
            [*torchrun, *common, "--fill-images", images],
            check=True,
            timeout=240,
            env={**environment, "FOLDER": str(tmp_path / "hosts")},
        )
    progress = load_module(tmp_path / "hosts" / "0" / STATE_FILE, KIND)[1]["progress"]
    assert progress["images"] == 8, "a finished run stays finished"
    assert not (tmp_path / "hosts" / "1" / STATE_FILE).exists()


def test_a_kill_while_saving_leaves_the_previous_checkpoint(packs: dict[int, Path], tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from memorygan.training.loop import *\n"
        "from memorygan.training.config import recipe_config\n"
        "from memorygan.training.data import PackedDataset\n"
        "from memorygan.training.distributed import start_processes\n"
        "data = PackedDataset.open(sys.argv[1])\n"
        "config = recipe_config('memory-first', {'preset': 'tiny-32', 'batch': 4, 'precision': 'float32'})\n"
        "t = Trainer(config, data, None, pathlib.Path(sys.argv[2]), Schedule(sheet_images=0), start_processes('cpu'))\n"
        "t._enter_stage(t.state)\n"
        "t.save(); print('saved', flush=True)\n"
        "while True: t.save()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(packs[32]), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline().strip() == "saved"
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert make(packs, tmp_path).resume()


def test_a_loss_that_is_not_finite_steps_back_and_goes_on(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, fill_images=40, query_steps=2, real_images=4)
    trainer._enter_stage(trainer.state)
    trainer.save()
    with torch.no_grad():
        trainer.state.generator.memory.weight[0, 0, 0] = float("nan")
    progress = trainer.run()
    assert progress.stage == "done" and progress.setbacks == 1
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())
    for name in ("generator_lr", "controller_lr", "query_lr", "discriminator_lr", "real_generator_lr"):
        assert getattr(trainer.config, name) == pytest.approx(getattr(TrainingConfig(), name) / 2)


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(
    packs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(packs, tmp_path, fill_images=8, query_steps=0, real_images=0)
    spoiled: list[bool] = []

    def spoil(stage: Stage, optimizer: torch.optim.Optimizer) -> None:
        original(stage, optimizer)
        if trainer.state.progress.images == 4 and not spoiled:  # after the losses of the stage's last step
            spoiled.append(True)
            trainer.state.generator.memory.weight.data[0, 0, 0] = float("nan")

    original = Stage.apply
    monkeypatch.setattr(Stage, "apply", spoil)
    progress = trainer.run()
    assert spoiled and progress.stage == "done" and progress.setbacks == 1
    saved, _ = load_module(tmp_path / STATE_FILE, KIND)
    assert all(torch.isfinite(value).all() for key, value in saved.items() if not key.startswith("random."))


def test_setbacks_are_counted_from_the_last_checkpoint(
    packs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(
        packs,
        tmp_path,
        Schedule(sheet_images=0, log_steps=1, save_minutes=0.0),
        fill_images=28,
        query_steps=0,
        real_images=0,
    )
    monkeypatch.setattr(loop, "MAX_SETBACKS", 1)
    steps: list[int] = []
    original = FillMemory.step

    def step(stage: FillMemory) -> dict[str, torch.Tensor]:
        steps.append(1)
        terms = original(stage)
        return {**terms, "pixel": torch.tensor(float("nan"))} if len(steps) % 4 == 2 else terms

    monkeypatch.setattr(FillMemory, "step", step)
    progress = trainer.run()  # more than one setback in all, never two in a row
    assert progress.stage == "done" and progress.setbacks > 1


def test_a_run_that_never_recovers_says_so(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, generator_lr=1e30, fill_images=400)
    with pytest.raises(TrainingError, match="6 times in a row"):
        trainer.run()


def test_growing_starts_as_an_enlarged_picture(packs: dict[int, Path], tmp_path: Path) -> None:
    small = make(packs, tmp_path, preset="faces-64", batch=2)
    small._enter_stage(small.state)
    for parameter in small.state.generator.parameters():  # biases and heads that are not at their neutral start
        parameter.data += 0.02 * torch.randn_like(parameter)
    small.save()
    large_state = type(small.state)(
        recipe_config("memory-first", {**TINY, "preset": "faces-128", "batch": 2}), 10, start_processes("cpu")
    )
    grow(large_state, tmp_path / STATE_FILE)
    noise = torch.randn(2, 14, 64)
    with torch.no_grad():
        before, after = small.state.generator(noise), large_state.generator(noise)
    enlarged = F.interpolate(before.image, scale_factor=2, mode="bilinear")
    error = (after.image - enlarged).abs().mean() / enlarged.std()
    assert after.image.shape[-1] == 128 and error < 0.15
    agreement = (F.interpolate(before.mask, scale_factor=2).argmax(1) == after.part_map).float().mean()
    assert agreement > 0.75  # borders of a random net's mask move a little on the finer grid
    with pytest.raises(CheckpointError, match="grow"):
        grow(make(packs, tmp_path / "other").state, tmp_path / STATE_FILE)


def test_the_finest_block_alone_learns_and_keeps_to_the_picture_at_half_the_size(
    packs: dict[int, Path], tmp_path: Path
) -> None:
    trainer = make(packs, tmp_path, finest_only=True, query_steps=0, correct_images=0, fill_images=8, real_images=24)
    before, noise = weights(trainer), torch.randn(2, 14, 16)

    def at_half_the_size() -> torch.Tensor:
        generator = trainer.state.generator
        with torch.no_grad():
            return generator.synthesize(generator.map(noise).expand(generator.config), size=16).image

    half = at_half_the_size()
    trainer.run()
    finest = f"generator.render.blocks.{len(trainer.state.generator.render.blocks) - 1}."
    changed = {name for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    mine = {name for name in changed if not name.startswith("discriminator.") and not name.endswith("mean_w")}
    assert mine and all(name.startswith(finest) for name in mine)
    assert torch.equal(at_half_the_size(), half)
    # What the half-size picture pulls at is the full one.
    skip = make(packs, tmp_path / "pull", finest_only=True, query_steps=0, correct_images=0, fill_images=0)
    skip_to(skip, "real")
    face = skip.state.generator.draw(noise)
    assert isinstance(skip.stage, MakeReal)
    skip.stage.preview(face).backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in skip.state.generator.render.blocks[-1].parameters())
    with pytest.raises(ValueError, match="set colour_images, query_steps, correct_images, plan_steps to 0"):
        replace(trainer.config, correct_images=8)
    with pytest.raises(ValueError, match="finest_only"):
        recipe_config("paper", {"finest_only": True, "query_steps": 0, "correct_images": 0})


def test_a_wider_run_begins_as_the_narrow_networks(packs: dict[int, Path], tmp_path: Path) -> None:
    narrow = make(packs, tmp_path, preset="faces-64", batch=2)
    narrow._enter_stage(narrow.state)
    for network in narrow.state.networks.values():  # biases, heads and styles that are not at their neutral start
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    narrow.save()
    wide = make(packs, tmp_path / "wide", preset="people-64", batch=2)
    start_from(wide.state, tmp_path / STATE_FILE)
    before, after = narrow.state, wide.state
    codes = torch.randn(2, 14, 64)
    longer = torch.cat((codes, torch.zeros(2, 14, 64)), dim=-1)
    faces = wide.faces.batch(torch.arange(2))
    with torch.no_grad():
        small, large = before.generator.draw(codes), after.generator.draw(longer)
        old, new = (state.encoder(faces.image, faces.one_hot) for state in (before, after))
        corrected = after.encoder.read(after.generator, faces.image, faces.one_hot).codes
    torch.testing.assert_close(large.image, small.image, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(large.mask, small.mask, rtol=1e-3, atol=1e-3)
    assert torch.equal(new.mean[..., :64], old.mean) and torch.equal(new.log_variance[..., :64], old.log_variance)
    assert not new.mean[..., 64:].any() and bool((new.log_variance[..., 64:] < -4).all())
    assert torch.equal(corrected, new.mean)  # a residual encoder of another shape starts anew, and silent
    # What is new learns: nothing is stuck at zero.
    wide._enter_stage(after)
    assert wide.stage is not None
    wide.stage.step()
    kept = make(packs, tmp_path / "kept", preset="people-64", batch=2)
    start_from(kept.state, tmp_path / STATE_FILE)
    for key, value in after.generator.state_dict().items():
        if key in ("memory.weight", "memory.to_feature.weight", "mapping.layers.0.weight"):
            assert not torch.equal(value, kept.state.generator.state_dict()[key]), key
    with pytest.raises(CheckpointError, match="a wider one"):
        wide.save()
        start_from(make(packs, tmp_path / "back", preset="faces-64").state, tmp_path / "wide" / STATE_FILE)


def test_a_run_starts_from_a_checkpoint_with_fresh_optimisers(packs: dict[int, Path], tmp_path: Path) -> None:
    first = make(packs, tmp_path / "first", fill_images=8)
    first.run()
    again = make(packs, tmp_path / "again")
    start_from(again.state, tmp_path / "first" / "generator.safetensors")
    for name in ("generator", "encoder"):
        kept = first.state.averages[name].state_dict()
        for key, value in again.state.networks[name].state_dict().items():
            torch.testing.assert_close(value, kept[key], rtol=1e-3, atol=1e-4)  # stored in half precision
    assert again.state.progress.images == first.state.progress.images and again.state.progress.stage == "fill"
    of_state = make(packs, tmp_path / "third")
    start_from(of_state.state, tmp_path / "first" / STATE_FILE)
    assert of_state.state.origins == again.state.origins == first.origin.data
    with pytest.raises(CheckpointError, match="--grow-from"):
        start_from(make(packs, tmp_path / "other", preset="faces-64").state, tmp_path / "first" / STATE_FILE)


def test_sampled_masks_learn_from_the_parser_and_pictures_do_not(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, fill_images=0, query_steps=0, parsing=1.0)
    skip_to(trainer, "real")
    stage = trainer.stage
    assert isinstance(stage, MakeReal) and stage.parser is not None
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    mask = torch.zeros(1, 13, 32, 32, requires_grad=True)
    loss = stage.parsing_loss(stage.parser, image, mask)
    loss.backward()
    assert image.grad is None and mask.grad is not None
    found = stage.parser.parse(image.detach()).ids.long()
    expected = stage.weights[found].mean() * math.log(13)  # all parts equally likely
    assert loss.item() == pytest.approx(float(expected), rel=1e-4)
    assert "parsing" in stage.step()


def test_a_share_of_the_faces_is_shown_dyed(packs: dict[int, Path], tmp_path: Path) -> None:
    trainers = [make(packs, tmp_path / str(share), dyed=share) for share in (0.0, 1.0)]
    drawn = [trainer.state.draws.generator.get_state() for trainer in trainers]
    plain, dyed = (next(FillMemory(trainer.state, trainer.faces).micro_batches()) for trainer in trainers)
    after = [trainer.state.draws.generator.get_state() for trainer in trainers]
    assert torch.equal(drawn[0], after[0]) and not torch.equal(drawn[1], after[1]), "none takes no random numbers"
    assert torch.equal(plain.part_ids, dyed.part_ids), "the same faces"
    changed = (plain.image != dyed.image).any(dim=1)
    names = get_preset("tiny-32").generator.parts.names
    parts = torch.zeros_like(changed)
    for part in PALETTES:
        assert changed[plain.part_ids == names.index(part)].float().mean() > 0.5
        parts |= plain.part_ids == names.index(part)
    near = F.max_pool2d(parts[:, None].float(), 5, 1, 2)[:, 0] > 0
    assert not changed[~near].any(), "beyond the borders nothing changes"


def test_who_is_taught_no_colour_lacks_nothing(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, dyed=0.0, tint=1.0)
    state = trainer.state
    stage = LearnColours(state, trainer.faces)
    lesson = stage.teach(next(stage.micro_batches()))
    assert not lesson.dyed.any()
    terms = stage.terms(lesson)
    assert {name for name, value in terms.items() if value.item() > 1e-5} == {"kl"}


def test_colours_are_taught_in_the_generators_own_faces(
    packs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(packs, tmp_path, fill_images=600, colour_images=160, query_steps=0, real_images=0, correct_images=0,
                   dyed=1.0, tint=10.0, generator_lr=5e-3)  # fmt: skip
    state, names = trainer.state, trainer.state.generator.config.parts.names
    trainer._enter_stage(state)
    while state.progress.stage == "fill":
        assert trainer.stage is not None
        if trainer.stage.finished():
            trainer._next_stage()
        else:
            trainer.stage.step()
    stage = trainer.stage
    assert isinstance(stage, LearnColours)
    teacher = {key: value.clone() for key, value in state.average_generator.state_dict().items()}
    lesson = stage.teach(next(stage.micro_batches()))
    monkeypatch.setattr(stage, "teach", lambda batch: lesson)
    seen = [stage.step()["tint"].item() for _ in range(39)]
    kept = state.average_generator.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in teacher.items()), "the teacher stands still"
    seen.append(stage.step()["tint"].item())
    assert stage.finished() and np.mean(seen[-8:]) < 0.75 * np.mean(seen[:3])
    learned = state.networks["generator"].state_dict()
    assert all(torch.equal(value, learned[key]) for key, value in state.average_generator.state_dict().items())
    # What is not dyed is the teacher's own picture; codes change where something is.
    parts = torch.stack([lesson.wanted.part_ids == names.index(part) for part in PALETTES]).any(dim=0)
    near = F.max_pool2d(parts[:, None].float(), 5, 1, 2)[:, 0] > 0
    changed = (lesson.wanted.image != lesson.before.image).any(dim=1)
    assert changed.any() and not changed[~near].any()
    assert lesson.dyed.sum(dim=1).eq(len(PALETTES)).all() and not lesson.dyed[:, 0].any()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_swapped_sample_differs_from_its_photo_in_one_part(
    packs: dict[int, Path], tmp_path: Path, share: float
) -> None:
    trainer = make(packs, tmp_path, fill_images=0, query_steps=0, swapped=share)
    skip_to(trainer, "real")
    stage = trainer.stage
    assert isinstance(stage, MakeReal)
    batch = next(stage.micro_batches())
    made = stage.generate(batch)
    face, swapped = made.face, made.swapped
    w = face.latents.w[:, :, -1]  # (B, K, D); the first layers take the base code
    changed = (w[::2] != w[1::2]).any(dim=-1)  # (B / 2, K)
    if share == 0:
        assert (swapped == -1).all() and changed.all()
        assert stage.locality(face, swapped).item() == 0.0  # nothing of such a face was to stay
    else:
        assert torch.equal(changed.nonzero()[:, 1], swapped) and changed.sum() == len(swapped)
        assert stage.locality(face, swapped).item() > 0.0
    drawn = stage.draw_swapped_parts(4000)
    assert (drawn >= 0).all() if share else (drawn == -1).all()
    if share:
        shares = torch.bincount(drawn, minlength=13) / 4000
        expected = stage.faces.frequencies.sqrt() / stage.faces.frequencies.sqrt().sum()
        torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)
    assert {"locality", "preview"} <= set(stage.step())
    assert "preview" not in stage.step()  # every fourth step


@pytest.mark.parametrize("augment", [0.0, 1.0])
def test_one_look_at_the_fakes_gives_both_players_their_textbook_gradients(
    packs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: float
) -> None:
    monkeypatch.setattr(Stage, "apply", lambda self, optimizer: None)
    found = []
    for kind in (MakeReal, TextbookMakeReal):
        trainer = make(packs, tmp_path, precision="float32")
        trainer.state.progress.augment = augment
        torch.manual_seed(0)  # of the render net's noise
        stage = kind(trainer.state, trainer.faces)
        trainer.state.optimizers = stage.make_optimizers()
        values = stage.step()
        networks = trainer.state.networks.items()
        named = {f"{name}.{key}": p.grad for name, net in networks for key, p in net.named_parameters()}
        found.append((values, {key: value for key, value in named.items() if value is not None}))
    (one, gradients), (two, textbook) = found
    assert one.keys() == two.keys() and all(torch.allclose(one[key], two[key], rtol=1e-5) for key in one)
    assert gradients.keys() == textbook.keys() and {key.split(".")[0] for key in textbook} == {
        "generator", "encoder", "discriminator"
    }  # fmt: skip
    for key, value in textbook.items():
        torch.testing.assert_close(gradients[key], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()) + 1e-9)


def test_a_fresh_critic_learns_first_while_other_weights_stand_still(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, fill_images=0, query_steps=0, critic_images=6)  # two steps of four
    skip_to(trainer, "real")
    assert trainer.stage is not None
    before = weights(trainer)
    losses = [trainer.stage.step() for _ in range(2)]
    moved = {key.split(".")[0] for key, value in weights(trainer).items() if not torch.equal(value, before[key])}
    assert moved == {"discriminator"}
    assert "r1_image" in losses[0] and "adversarial" not in losses[0]
    assert trainer.state.progress.images == 0 and trainer.state.progress.stage_images == 8
    assert "adversarial" in trainer.stage.step()
    moved = {key.split(".")[0] for key, value in weights(trainer).items() if not torch.equal(value, before[key])}
    assert moved == {"discriminator", "generator", "encoder"}


def test_augmentation_moves_image_and_mask_alike_and_is_off_at_zero() -> None:
    draws = Draws(0, start_processes("cpu"))
    image = torch.rand(4, 3, 16, 16)
    mask = image.mean(dim=1, keepdim=True).repeat(1, 2, 1, 1)
    same = draw_transform(draws, 4, 0.0)(image, mask)
    assert torch.equal(same[0], image) and torch.equal(same[1], mask)
    transform = draw_transform(draws, 4, 1.0)
    moved, moved_mask = transform(image, mask)
    assert (moved - image).abs().mean() > 0.05
    colour_free = type(transform)(transform.rows, transform.affine, torch.eye(3, 4).expand(4, 3, 4))
    grey, _ = colour_free(image, mask)
    assert torch.allclose(grey.mean(dim=1), moved_mask[:, 0], atol=1e-5)


def test_bad_runs_are_refused_and_nothing_is_overwritten(
    packs: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(packs, tmp_path, fill_images=8, query_steps=1, real_images=0)
    trainer.run()
    saved = (tmp_path / STATE_FILE).read_bytes()
    common = ["--out", str(tmp_path), "--data", str(packs[64])]
    assert cli.main([*common, "--preset", "faces-64"]) == 2
    assert "preset" in capsys.readouterr().err
    assert cli.main(["--out", str(tmp_path / "x"), "--data", str(packs[32]), "--preset", "faces-64"]) == 2
    assert "--size 64" in capsys.readouterr().err
    assert cli.main(["--out", str(tmp_path / "x"), "--data", str(packs[32]), "--preset", "huge"]) == 2
    assert "unknown preset" in capsys.readouterr().err
    assert cli.main(["--out", str(tmp_path / "x")]) == 2
    assert "--data" in capsys.readouterr().err
    assert (tmp_path / STATE_FILE).read_bytes() == saved
    assert cli.main([*common, "--procedural", "12"]) == 2
    assert "either --data" in capsys.readouterr().err
    again = ["--out", str(tmp_path), "--data", str(packs[32])]
    assert cli.main([*again, "--recipe", "paper"]) == 2
    assert "leave out --recipe" in capsys.readouterr().err
    other = tmp_path / "other"
    assert prepare(["--procedural", "12", "--seed", "1", "--size", "32", "--out", str(other), "--holdout", "2"]) == 0
    assert cli.main(["--out", str(tmp_path), "--data", str(next(other.glob("*train*.pack")))]) == 2
    assert "other faces" in capsys.readouterr().err
    assert (tmp_path / STATE_FILE).read_bytes() == saved
    with pytest.raises(ValueError, match="batch"):
        TrainingConfig(batch=0)
    for share in ("dyed", "swapped", "style_mixing"):
        with pytest.raises(ValueError, match=f"{share} is 1.5; it is a share, use 0 to 1"):
            recipe_config("memory-first", {share: 1.5})
    for wrong in ({"metric_samples": 1}, {"log_steps": 0}, {"minutes": -1.0}, {"sheet_images": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", " ")):
            Schedule(**wrong)  # type: ignore[arg-type]


def test_a_run_resumes_from_its_state_alone(packs: dict[int, Path], tmp_path: Path) -> None:
    make(packs, tmp_path, fill_images=8, query_steps=1, real_images=0).run()
    (tmp_path / "config.json").write_text("{")  # cut short, by an older version or a person
    leftover = tmp_path / f".{STATE_FILE}.0a1b2c3d.tmp"
    leftover.write_bytes(b"half a state")
    assert cli.main(["--out", str(tmp_path), "--data", str(packs[32]), "--fill-images", "8", "--device", "cpu"]) == 0
    assert not leftover.exists()
    options = cli.parse_arguments(["--out", str(tmp_path)])
    assert cli.configure(options, start_processes("cpu")).query_steps == 1


def test_a_state_of_the_first_version_is_resumed(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, fill_images=8, query_steps=1, real_images=0)
    trainer.run()
    tensors, meta = load_module(tmp_path / STATE_FILE, KIND)
    del meta["data"], meta["origins"], meta["progress"]["best_of"]
    save_module(tmp_path / STATE_FILE, tensors, meta)
    again = make(packs, tmp_path, fill_images=8, query_steps=1, real_images=0)
    assert again.resume() and again.state.progress.images == 8


def test_best_holds_the_weights_of_the_lowest_distance(
    packs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"accumulate": 1, "paper_images": 12, "generator_lr": 0.05}  # steps that half precision can tell apart
    trainer = make(packs, tmp_path, Schedule(metric_samples=4), recipe="paper", **changes)
    records = iter([3.0, 2.0, 4.0])
    seen = []

    def judge(generator: MemoryGAN, *rest: Any) -> dict[str, float | str]:
        seen.append(generator.memory.weight.clone())
        return {"frechet_distance": next(records), "frechet_features": "a judge"}

    monkeypatch.setattr(loop, "measure", judge)
    trainer._enter_stage(trainer.state)
    assert trainer.stage is not None
    for _ in range(3):
        trainer.stage.step()
        trainer.look()
    kept = load_generator(tmp_path / "best" / "generator.safetensors").generator
    assert isinstance(kept, MemoryGAN)
    errors = [float((kept.memory.weight - weight).abs().max()) for weight in seen]
    assert errors.index(min(errors)) == 1 and errors[1] < 1e-3 < min(errors[0], errors[2])
    assert trainer.state.progress.best == 2.0
    # Another number of samples, or another judge, starts anew: its distances do not compare.
    trainer.schedule = Schedule(metric_samples=8)
    records = iter([9.0])
    trainer.look()
    assert trainer.state.progress.best == 9.0 and "8 samples" in trainer.state.progress.best_of


def test_what_is_looked_at_reaches_tensorboard(packs: dict[int, Path], tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    schedule = Schedule(log_steps=1, metric_samples=2)
    make(packs, tmp_path, schedule, fill_images=4, query_steps=1, real_images=4).run()
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert {"fill/pixel", "query/negative_log_likelihood", "real/adversarial", "real/diversity"} <= set(
        found.Tags()["scalars"]
    )
    assert [event.step for event in found.Scalars("fill/pixel")] == [4]
    assert set(found.Tags()["images"]) == {"samples", "reconstructions"}


def test_the_budget_counts_from_the_start_and_keeps_time_for_saving(
    packs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(float(tick) for tick in range(10_000))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    trainer = make(packs, tmp_path, Schedule(minutes=100 / 60, sheet_images=0), fill_images=4000)
    trainer.started = -60.0
    monkeypatch.setattr(trainer, "look", lambda: pytest.fail("there is no time for sheets"))
    trainer.run()
    # Every look at the clock takes a second, and 60 of 100 had gone before: the last step ends at 40, not at 42.
    assert next(clock) <= 44.0
    assert trainer.state.progress.images > 4


def test_one_command_draws_faces_and_trains_on_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--procedural", "12", "--preset", "tiny-32", "--batch", "4", "--precision", "float32", "--device", "cpu"]
    command += ["--fill-images", "8", "--query-steps", "1", "--real-images", "0", "--correct-images", "0"]
    command += ["--out", str(tmp_path / "run")]
    assert cli.main([*command, "--dry-run"]) == 0
    assert not (tmp_path / "run").exists()
    assert cli.main([*command, "--metric-samples", "0"]) == 0
    assert {path.name for path in (tmp_path / "run" / "data").glob("*.pack")} == {
        "procedural-32-train.pack",
        "procedural-32-val.pack",
    }
    origin = load_generator(tmp_path / "run" / "generator.safetensors").provenance
    assert origin.data[0].startswith("drawn faces") and origin.licence.startswith("unrestricted")
    capsys.readouterr()
    assert cli.main([*command, "--dry-run"]) == 2, "a dry run looks at the run that would be resumed"
    assert "this run is done" in capsys.readouterr().err
    longer = [*command, "--real-images", "8", "--start-from", str(tmp_path / "run" / STATE_FILE)]
    assert cli.main([*longer, "--out", str(tmp_path / "more"), "--dry-run"]) == 0
    assert not (tmp_path / "more").exists()


def test_the_paper_recipe_is_the_papers() -> None:
    config = recipe_config("paper")
    expected = {
        "preset": "paper-256", "batch": 16, "accumulate": 2, "generator_lr": 0.002, "discriminator_lr": 0.002,
        "controller_lr": 1e-4, "beta1": 0.0, "beta2": 0.99, "ema_half_life": 10_000, "consistency_real": 100.0,
        "kl_controller": 1e-4, "r1_image": 10.0, "r1_mask": 1000.0, "r1_interval": 16, "path_length": 0.5,
        "path_interval": 4, "path_shrink": 2, "style_mixing": 0.3, "adversarial": 1.0, "augment": "none",
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.paper_images == 150_000 * 16 * 2


def paper_stage(packs: dict[int, Path], out: Path, **changes: Any) -> PaperAdversarial:
    trainer = make(packs, out, recipe="paper", accumulate=1, **changes)
    trainer._enter_stage(trainer.state)
    assert isinstance(trainer.stage, PaperAdversarial)
    return trainer.stage


def test_rates_of_the_paper_recipe_are_corrected_for_the_lazy_steps(packs: dict[int, Path], tmp_path: Path) -> None:
    optimizers = paper_stage(packs, tmp_path).state.optimizers
    main, controller = optimizers["generator"].param_groups
    assert main["lr"] == pytest.approx(0.002 * 4 / 5) and controller["lr"] == pytest.approx(1e-4 * 4 / 5)
    (critic,) = optimizers["discriminator"].param_groups
    assert critic["lr"] == pytest.approx(0.002 * 16 / 17)
    assert main["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
    assert critic["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_lazy_regularisers_of_the_paper_recipe_take_steps_of_their_own(
    packs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = paper_stage(packs, tmp_path)
    names = {id(optimizer): name for name, optimizer in stage.state.optimizers.items()}
    taken: list[str] = []
    original = Stage.apply

    def apply(self: Stage, optimizer: torch.optim.Optimizer) -> None:
        taken.append(names[id(optimizer)])
        original(self, optimizer)

    monkeypatch.setattr(Stage, "apply", apply)
    for _ in range(17):
        stage.step()
    lazy = 2 * ["discriminator"] + 2 * ["generator"]  # steps 0 and 16
    assert taken[:4] == lazy and taken[-4:] == lazy
    assert taken.count("discriminator") == 17 + 2 and taken.count("generator") == 17 + 5


class LinearCritic(Discriminator):
    """Score a·Σimage + b·Σmask, whose squared gradients are a² and b² times the number of values."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.a, self.b = (torch.nn.Parameter(torch.tensor(value)) for value in (0.5, 0.25))

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> Critique:
        return Critique(self.a * image.sum(dim=(1, 2, 3)) + self.b * mask.sum(dim=(1, 2, 3)), ())


def test_the_gradient_penalty_is_half_gamma_times_the_interval(packs: dict[int, Path], tmp_path: Path) -> None:
    stage = paper_stage(packs, tmp_path)
    critic = stage.state.discriminator = LinearCritic()
    terms = stage.penalize(stage.faces.batch(torch.arange(2)), draw_transform(stage.state.draws, 2, 0.0))
    pixels, classes = 3 * 32 * 32, 13 * 32 * 32
    assert terms["r1_image"].item() == pytest.approx(0.5**2 * pixels)
    assert terms["r1_mask"].item() == pytest.approx(0.25**2 * classes)
    # d/da of 0.5 · γ · a² · n · 16
    assert critic.a.grad is not None and critic.a.grad.item() == pytest.approx(0.5 * 10 * 2 * 0.5 * pixels * 16)
    assert critic.b.grad is not None and critic.b.grad.item() == pytest.approx(0.5 * 1000 * 2 * 0.25 * classes * 16)


def test_a_damaged_state_is_refused(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, fill_images=4, query_steps=1, real_images=0)
    trainer.run()
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        make(packs, tmp_path).resume()


def test_dry_run_writes_nothing(packs: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert (
        cli.main(["--dry-run", "--preset", "tiny-32", "--batch", "4", "--data", str(packs[32]), "--out", str(out)]) == 0
    )
    assert '"fine_mask"' in capsys.readouterr().out
    assert not out.exists()


def test_bundling_makes_a_run_the_default_and_chooses_distinct_faces(
    packs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEMORYGAN_CHECKPOINT", raising=False)
    trainer = make(packs, tmp_path / "run", fill_images=4, query_steps=1, real_images=0)
    trainer.run()
    weights_dir = tmp_path / "weights"
    weights_dir.mkdir()
    monkeypatch.setattr(bundle, "choose_gallery", lambda generator, reader: [3, 1])
    arguments = ["--run", str(tmp_path / "run"), "--weights", str(weights_dir), "--name", "small", "--title", "Small"]
    assert bundle.main([*arguments, "--data", "drawn faces", "--licence", "MIT"]) == 0
    path = default_checkpoint(weights_dir)
    assert path == weights_dir / "small.safetensors"
    loaded = load_generator(path)
    assert loaded.images_seen == 4 and loaded.provenance.data == ("drawn faces",)
    gallery = json.loads((weights_dir / "gallery.json").read_text())
    assert gallery == {"checkpoint": loaded.sha256, "seeds": [3, 1]}


def test_a_gallery_shows_those_who_wear_what_few_do() -> None:
    """Seed 13 alone wears glasses, on a face that is like every other and no better."""
    parts, glasses = FACE_PARTS, FACE_PARTS.index("eyeglass")

    def ids(seeds: Sequence[int]) -> torch.Tensor:
        found = torch.ones(len(seeds), 16, 16, dtype=torch.long)
        found[:, :4] = torch.tensor(seeds)[:, None, None] % 4  # what the parser is told differs from seed to seed
        found[[seed == 13 for seed in seeds], 8:10] = glasses
        return found

    generator = SimpleNamespace(
        config=SimpleNamespace(parts=parts),
        sample=lambda seeds, truncation: list(seeds),
        synthesize=lambda seeds: SimpleNamespace(
            image=torch.tensor(seeds)[:, None, None, None].expand(-1, 3, 16, 16) / 100.0, part_map=ids(seeds)
        ),
    )

    def reader(seen: list[int]) -> Any:
        def read(image: torch.Tensor, scheme: object) -> SimpleNamespace:
            seeds = [round(float(value)) for value in 100 * image[:, 0, 0, 0]]
            return SimpleNamespace(ids=torch.where(ids(seeds) == glasses, seen[0], ids(seeds)))

        return SimpleNamespace(read=read)

    assert 13 in bundle.choose_gallery(generator, reader([glasses]), count=4, candidates=32)  # type: ignore[arg-type]
    assert 13 not in bundle.choose_gallery(generator, reader([1]), count=4, candidates=32), "nobody else sees them"  # type: ignore[arg-type]


def test_unrest_is_that_of_the_background_alone() -> None:
    image = torch.zeros(2, 3, 4, 4)
    image[0, :, :, 1] = 1.0  # a line, half of it before the background
    background = torch.zeros(2, 4, 4, dtype=torch.bool)
    background[:, :2] = True
    # Rows 0 and 1: six horizontal pairs, four of which cross the line's two edges, and four vertical ones.
    torch.testing.assert_close(bundle.background_unrest(image, background), torch.tensor([4 / 10, 0.0]))
    assert torch.equal(bundle.background_unrest(image, ~background & False), torch.zeros(2))


def test_a_gallery_starts_with_the_best_face_and_spreads_over_the_better_half() -> None:
    scores = torch.tensor([0.1, 0.9, 0.8, 0.7, 0.2, 0.3])
    vectors = torch.tensor([[9.0], [0.0], [0.1], [5.0], [7.0], [8.0]])
    assert bundle._spread(scores, vectors, 2) == [1, 3]
    assert bundle._spread(scores, vectors, 3, first=[0, 1]) == [1, 0, 3], "who wears what few do is among them"
