"""Averaging networks: the mean of every weight, and nothing that does not fit together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from memorygan.checkpoint import CheckpointError, Provenance, load_generator, save_generator
from memorygan.config import get_preset
from memorygan.encoder import EncoderConfig, PartEncoder, load_encoder, save_encoder
from memorygan.generator import MemoryGAN
from memorygan.training.average import average, main


def run(folder: Path, seed: int, images: int, looks: int = 0) -> Path:
    """A run's exported networks with random weights."""
    torch.manual_seed(seed)
    config = get_preset("tiny-32").generator
    folder.mkdir()
    generator = MemoryGAN(config)
    generator.mean_w.normal_()
    origin = Provenance(data=("drawn",), licence="unrestricted", images_seen=images, notes="stage real")
    save_generator(folder / "generator.safetensors", generator, provenance=origin)
    encoder = EncoderConfig(query_dim=config.query_dim, part_count=config.part_count, looks=looks)
    save_encoder(folder / "encoder.safetensors", PartEncoder(encoder), images)
    return folder / "generator.safetensors"


def test_networks_are_averaged_weight_by_weight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = run(tmp_path / "a", 0, 500), run(tmp_path / "b", 1, 800)
    assert main([str(first), str(second), "--out", str(tmp_path / "mean")]) == 0
    assert "wrote" in capsys.readouterr().out
    mean = load_generator(tmp_path / "mean" / "generator.safetensors")
    states = [load_generator(path).generator.state_dict() for path in (first, second)]
    for name, value in mean.generator.state_dict().items():
        wanted = (states[0][name].float() + states[1][name].float()) / 2
        assert torch.allclose(value.float(), wanted, rtol=2e-3, atol=2e-3), name
    assert mean.images_seen == 800
    assert mean.provenance.notes == "stage real; mean of the weights of 2 networks"
    encoders = [load_encoder(tmp_path / name / "encoder.safetensors").state_dict() for name in "ab"]
    for name, value in load_encoder(tmp_path / "mean" / "encoder.safetensors").state_dict().items():
        assert torch.allclose(value, (encoders[0][name] + encoders[1][name]) / 2, rtol=2e-3, atol=2e-3), name


def test_a_network_averaged_with_itself_stays() -> None:
    generator = MemoryGAN(get_preset("tiny-32").generator)
    state = average([generator, generator, generator])
    assert all(torch.allclose(state[name], value) for name, value in generator.state_dict().items())


def test_controllers_that_plan_differently_have_no_mean() -> None:
    plain, planned = MemoryGAN(get_preset("tiny-32").generator), MemoryGAN(get_preset("tiny-32").generator)
    planned.controller.idle[3, :2] = True
    with pytest.raises(ValueError, match="before the stage plan"):
        average([plain, planned])
    assert torch.equal(average([planned, planned])["controller.idle"], planned.controller.idle)


def test_what_does_not_fit_together_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, other = run(tmp_path / "a", 0, 500), run(tmp_path / "b", 1, 800, looks=1)
    out = tmp_path / "mean"
    for arguments, message in (
        ([first], "name two or more"),
        ([first, other], "different configurations"),
        ([first, tmp_path / "nothing" / "generator.safetensors"], "nothing"),
    ):
        assert main([*map(str, arguments), "--out", str(out)]) == 1
        assert message in capsys.readouterr().err
        assert not out.exists()
    config = get_preset("tiny-32").generator
    with pytest.raises(ValueError, match="differ in shape"):
        average([MemoryGAN(config), MemoryGAN(replace(config, style_dim=config.style_dim * 2))])
    with pytest.raises(CheckpointError):
        load_generator(out / "generator.safetensors")
