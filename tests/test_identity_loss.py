"""A recogniser of people tells a reconstruction from its photo, and training listens to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from memorygan.training.config import recipe_config
from memorygan.training.data import PackedDataset
from memorygan.training.distributed import start_processes
from memorygan.training.likeness import Likeness
from memorygan.training.loop import Schedule, Trainer
from memorygan.training.prepare import main as prepare
from memorygan.training.teacher import MobileFaceNet


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = MobileFaceNet()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of what it is shown next
    with torch.no_grad():
        net.train()(torch.rand(8, 3, 112, 112))
    state = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(state, path)
    return path


def test_the_same_picture_is_the_same_person(teacher: Path) -> None:
    likeness = Likeness(teacher, torch.device("cpu"), torch.float32)
    torch.manual_seed(1)
    photo = torch.rand(2, 3, 64, 64) * 2 - 1
    assert float(likeness(photo, photo)) == pytest.approx(0.0, abs=1e-5)
    made = torch.rand(2, 3, 64, 64).mul(2).sub(1).requires_grad_(True)
    distance = likeness(made, photo)
    distance.backward()
    assert distance.item() > 1e-3
    assert made.grad is not None and made.grad.abs().amax() > 0
    with torch.no_grad():  # downhill is nearer
        assert float(likeness(made - 3.0 * made.grad / made.grad.norm(), photo)) < distance.item()


def test_a_run_listens_to_it(teacher: Path, tmp_path: Path) -> None:
    assert prepare(["--procedural", "6", "--size", "32", "--out", str(tmp_path / "data"), "--holdout", "1"]) == 0
    data = PackedDataset.open(next((tmp_path / "data").glob("*train*.pack")))
    stages = {"fill_images": 0, "query_steps": 0, "real_images": 0, "correct_images": 4}
    changes = {"preset": "tiny-32", "batch": 2, "precision": "float32", "identity": 1.0, "teacher": str(teacher)}
    config = recipe_config("memory-first", {**stages, **changes})
    out = tmp_path / "run"
    trainer = Trainer(config, data, None, out, Schedule(sheet_images=0, log_steps=1), start_processes("cpu"))
    assert trainer.run().stage == "done"
    lines = [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]
    assert lines and all(0 < line["identity"] < 2 and "restyle" in line for line in lines)


def test_without_a_teacher_nobody_is_recognised() -> None:
    with pytest.raises(ValueError, match="name its weights as teacher"):
        recipe_config("memory-first", {"identity": 1.0})
