"""Masks of the pictures that super-resolution made sharp: what is made of them, and how that is learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.checkpoint import Provenance, load_module, save_generator
from memorygan.config import get_preset
from memorygan.fast.folding import fold
from memorygan.generator import MemoryGAN
from memorygan.parser import ParsedFaces
from memorygan.super_resolution import (
    KIND,
    SuperResolution,
    SuperResolutionConfig,
    load_super_resolution,
    save_super_resolution,
)
from memorygan.training import mask_head as training
from memorygan.training.mask_head import MaskHeadConfig, MaskHeadTrainer
from memorygan.training.packfile import DataError
from memorygan.training.schedule import save_state

TINY = SuperResolutionConfig(32, (4, 6, 8), 4)


class Halves:
    """A parser that takes the left half for one part and the right for another, whatever the picture.

    Both are parts that faces of :func:`_generator` have, for no other can appear.
    """

    def __init__(self) -> None:
        generator = _generator()
        maps = generator.synthesize(generator.sample(range(8))).part_map
        self.parts = [int(part) for part in torch.bincount(maps.flatten()).topk(2).indices]

    def parse(self, images: Tensor) -> ParsedFaces:
        ids = torch.full((len(images), *images.shape[2:]), self.parts[0], dtype=torch.uint8)
        ids[..., images.shape[-1] // 2 :] = self.parts[1]
        return ParsedFaces(ids, torch.empty(0))


def _generator(enlarging: bool = True) -> MemoryGAN:
    torch.manual_seed(0)
    generator = MemoryGAN(get_preset("tiny-32").generator).eval().requires_grad_(False)
    if enlarging:
        net = SuperResolution(TINY).eval().requires_grad_(False)
        net.head.weight.normal_(0.0, 0.2)
        generator.enlarge_by(net)
    return generator


def test_untaught_masks_are_the_enlarged_ones() -> None:
    generator = _generator()
    face = generator.synthesize(generator.sample([0, 1]))
    shown = generator.magnify(face)
    want = F.interpolate(face.mask, size=64, mode="bilinear", align_corners=False)
    there = torch.stack([face.part_map == k for k in range(13)], dim=1).any(dim=(2, 3))
    torch.testing.assert_close(shown.mask[there], want[there])
    assert (shown.mask[~there] < shown.mask[there].min()).all()


def test_what_is_taught_moves_borders_and_leaves_the_picture() -> None:
    generator = _generator()
    face = generator.synthesize(generator.sample([0]))
    before = generator.magnify(face)
    net = generator.super_resolution
    assert net is not None
    last = net.outline[-1]
    assert isinstance(last, torch.nn.Conv2d)
    last.weight.normal_(0.0, 0.5)
    after = generator.magnify(face)
    torch.testing.assert_close(after.image, before.image)
    assert (after.mask - before.mask).abs().mean() > 0.05
    torch.testing.assert_close(fold(generator, torch.float32).magnify(face).mask, after.mask, atol=1e-4, rtol=1e-4)


def test_parts_that_are_not_there_do_not_appear() -> None:
    generator = _generator()
    net = generator.super_resolution
    assert net is not None
    last = net.outline[-1]
    assert isinstance(last, torch.nn.Conv2d) and last.bias is not None
    last.bias.normal_(0.0, 5.0)
    latents = generator.sample([0])
    retrieved = generator.retrieve(latents)
    for parts in (["background"], ["background", "skin", "hair"]):
        face = generator.compose(retrieved, latents, parts)
        shown = generator.magnify(face)
        assert set(shown.part_map.unique().tolist()) <= set(face.part_map.unique().tolist())


def test_a_network_for_other_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="masks of 5 parts, not of 13"):
        _generator(False).enlarge_by(SuperResolution(dataclasses.replace(TINY, parts=5)))


def test_it_learns_what_the_parser_sees_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config = MaskHeadConfig(images=4 * 60, batch=4, lr=2e-2)
    trainer = MaskHeadTrainer(config, _generator(), Halves())  # type: ignore[arg-type]
    kept = {name: value.clone() for name, value in trainer.net.state_dict().items() if "outline" not in name}
    losses = [trainer.step() for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert all(torch.equal(value, trainer.net.state_dict()[name]) for name, value in kept.items())
    save_state(tmp_path / "state.pt", trainer)
    again = MaskHeadTrainer(config, _generator(), Halves())  # type: ignore[arg-type]
    again.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.shown == 160 and again.step() == pytest.approx(trainer.step(), rel=1e-4)


def test_half_of_the_faces_wear_a_part_of_another() -> None:
    generator = _generator()
    trainer = MaskHeadTrainer(MaskHeadConfig(), generator, Halves())  # type: ignore[arg-type]
    drawn: list[Tensor] = []
    synthesize = trainer.generator.synthesize
    trainer.generator.synthesize = lambda latents: (drawn.append(latents.w), synthesize(latents))[1]  # type: ignore
    features, masks, ids = trainer.seen(4)
    assert features.shape == (4, 4, 32, 32) and masks.shape == (4, 13, 32, 32) and ids.shape == (4, 64, 64)
    seeds = torch.randint(2**31, (8,), generator=torch.Generator().manual_seed(0)).tolist()
    changed = (drawn[0] != generator.sample(seeds[:4]).w).flatten(2).any(dim=2)  # (4, K)
    assert changed[:2].sum(dim=1).tolist() == [1, 1] and not changed[2:].any()


def test_without_super_resolution_there_is_nothing_to_teach() -> None:
    with pytest.raises(DataError, match=r"no super-resolution\.safetensors beside"):
        MaskHeadTrainer(MaskHeadConfig(), _generator(False), Halves())  # type: ignore[arg-type]


def test_the_command_teaches_what_lies_beside_the_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "load_parser", lambda closer: Halves())
    generator = _generator()
    assert generator.super_resolution is not None
    save_generator(tmp_path / "faces.safetensors", generator, provenance=Provenance())
    before = Provenance(data=("photos",), recipe="an hour", notes="of before")
    save_super_resolution(tmp_path / "super-resolution.safetensors", generator.super_resolution, before)
    arguments = ["--generator", str(tmp_path / "faces.safetensors"), "--batch", "2", "--images", "4"]
    arguments += [f"--{name}={tmp_path / name}" for name in ("state", "out")]
    assert training.main(arguments) == 0 and "wrote" in capsys.readouterr().out
    assert load_super_resolution(tmp_path / "out").config == TINY
    told = load_module(tmp_path / "out", KIND)[1]["provenance"]
    assert told["data"][0] == "photos" and "an hour" in told["recipe"] and told["notes"] == "of before"
