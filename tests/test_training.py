"""The training loop on tiny presets: resuming, several processes, setbacks, growing, refusals."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from memorygan.checkpoint import CheckpointError, load_generator, load_module
from memorygan.config import get_preset
from memorygan.encoder import load_encoder
from memorygan.manifest import default_checkpoint
from memorygan.training import __main__ as cli
from memorygan.training import bundle
from memorygan.training.adversarial import MakeReal
from memorygan.training.augment import draw_transform
from memorygan.training.config import TrainingConfig, recipe_config
from memorygan.training.data import PackedDataset
from memorygan.training.distributed import Draws, start_processes
from memorygan.training.grow import grow, start_from
from memorygan.training.loop import STATE_FILE, Schedule, Trainer, TrainingError
from memorygan.training.prepare import main as prepare
from memorygan.training.state import KIND

QUIET = Schedule(sheet_images=0, log_steps=2)
TINY = {"preset": "tiny-32", "batch": 4, "precision": "float32", "fill_images": 24, "query_steps": 4, "real_images": 24}
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


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, network in {**trainer.state.networks}.items()
        for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("recipe", ["memory-first", "paper"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    packs: dict[int, Path], tmp_path: Path, recipe: str
) -> None:
    changes: dict[str, Any] = {
        "recipe": recipe,
        "fill_images": 12,
        "query_steps": 2,
        "real_images": 16,
        "paper_images": 16,
    }
    changes |= {"style_mixing": 0.9, "augment_images": 64, "augment": "ada", "r1_interval": 3, "path_interval": 2}
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
    assert part.state.progress.augment == whole.state.progress.augment > 0
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
    assert {line["stage"] for line in lines} == {"fill", "query", "real"}
    assert list((tmp_path / "run" / "sheets").glob("*samples.png"))
    generator = load_generator(tmp_path / "run" / "generator.safetensors").generator
    assert generator.mean_w.abs().sum() > 0
    faces = trainer.faces.batch(torch.arange(2))
    assert load_encoder(tmp_path / "run" / "encoder.safetensors")(
        faces.image.float(), faces.one_hot.float()
    ).mean.shape == (2, 14, 16)


def test_learning_to_query_raises_the_likelihood_of_the_codes(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, fill_images=4, query_steps=60, real_images=0)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    nll = [line["negative_log_likelihood"] for line in lines if line["stage"] == "query"]
    assert nll[-1] < nll[0] - 1.0


def test_two_processes_equal_one_with_the_double_batch(packs: dict[int, Path], tmp_path: Path) -> None:
    common = ["--preset", "tiny-32", "--precision", "float32", "--fill-images", "16", "--query-steps", "2"]
    common += ["--real-images", "16", "--query-batch", "8", "--data", str(packs[32]), "--device", "cpu"]
    common += ["--sheet-images", "0", "--augment-images", "64", "--threads", "1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "memorygan.training", *common, "--batch", "4", "--out", str(tmp_path / "two")]
    subprocess.run(command, check=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    # The query stage counts its own batch, so it is doubled too.
    single = [*common, "--batch", "8", "--query-batch", "16", "--out", str(tmp_path / "one")]
    assert cli.main(single) == 0
    # Adam turns rounding errors of near-zero gradients into full steps, so single weights may differ: the mean tells.
    control = [*common, "--batch", "4", "--out", str(tmp_path / "control")]
    assert cli.main(control) == 0
    states = [load_module(tmp_path / name / STATE_FILE, KIND)[0] for name in ("one", "two", "control")]
    for network in ("generator", "encoder", "discriminator"):
        one, two, other = (
            torch.cat([state[key].flatten() for key in sorted(state) if key.startswith(f"network.{network}.")])
            for state in states
        )
        assert (one - two).abs().mean() < 1e-3 * (one - other).abs().mean(), network


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
    trainer = make(packs, tmp_path, fill_images=0, query_steps=0, real_images=0)
    trainer.save()  # by a faster process, between its look for a checkpoint and this one's
    saved: list[bool] = []
    monkeypatch.setattr(trainer, "save", lambda: saved.append(True))
    monkeypatch.setattr(type(trainer.processes), "any", lambda self, flag: True)
    trainer.run()
    assert saved == [True]


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
    assert trainer.config.generator_lr == pytest.approx(TrainingConfig().generator_lr / 2)


def test_a_run_that_never_recovers_says_so(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, generator_lr=1e30, fill_images=400)
    with pytest.raises(TrainingError, match="not finite"):
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
    with pytest.raises(CheckpointError, match="--grow-from"):
        start_from(make(packs, tmp_path / "other", preset="faces-64").state, tmp_path / "first" / STATE_FILE)


def test_sampled_masks_learn_from_the_parser_and_pictures_do_not(packs: dict[int, Path], tmp_path: Path) -> None:
    trainer = make(packs, tmp_path, fill_images=0, query_steps=0, parsing=1.0)
    trainer._next_stage()
    trainer._next_stage()
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


def test_augmentation_moves_image_and_mask_alike_and_is_off_at_zero() -> None:
    draws = Draws(0, start_processes("cpu"))
    image = torch.rand(4, 3, 16, 16)
    mask = image.mean(dim=1, keepdim=True).repeat(1, 2, 1, 1)
    same = draw_transform(draws, 4, 0.0)(image, mask)
    assert torch.equal(same[0], image) and torch.equal(same[1], mask)
    transform = draw_transform(draws, 4, 1.0)
    moved, moved_mask = transform(image, mask)
    assert (moved - image).abs().mean() > 0.05
    colour_free = type(transform)(transform.affine, torch.eye(3, 4).expand(4, 3, 4))
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
    assert cli.main(["--out", str(tmp_path / "x"), "--data", str(packs[64]), "--preset", "tiny-32"]) == 2
    assert "--size 32" in capsys.readouterr().err
    assert cli.main(["--out", str(tmp_path / "x"), "--data", str(packs[32]), "--preset", "huge"]) == 2
    assert "unknown preset" in capsys.readouterr().err
    assert cli.main(["--out", str(tmp_path / "x")]) == 2
    assert "--data" in capsys.readouterr().err
    assert (tmp_path / STATE_FILE).read_bytes() == saved
    with pytest.raises(ValueError, match="batch"):
        TrainingConfig(batch=0)


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


def test_a_gallery_starts_with_the_best_face_and_spreads_over_the_better_half() -> None:
    scores = torch.tensor([0.1, 0.9, 0.8, 0.7, 0.2, 0.3])
    vectors = torch.tensor([[9.0], [0.0], [0.1], [5.0], [7.0], [8.0]])
    assert bundle._spread(scores, vectors, 2) == [1, 3]
