"""Closer looks at eyes and ears: how they join the parser, their files, their training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from editing.device import loading
from memorygan.checkpoint import CheckpointError, Provenance, save_module
from memorygan.closer_look import CloserConfig, CloserLook, bundled, load_closer_look, save_closer_look
from memorygan.parser import FaceParser, ParserConfig, load_parser, save_parser
from memorygan.parts import FACE_PARTS
from memorygan.training import closer
from memorygan.training.closer import CloserTrainer, CloserTrainingConfig, FullSizeSampler
from memorygan.training.parser_data import PackedFaces
from memorygan.training.schedule import save_state

EYES, BROWS, SKIN, HAIR = (FACE_PARTS.index(name) for name in ("eyes", "eyebrows", "skin", "hair"))
EARRING, EARS = (FACE_PARTS.index(name) for name in ("earring", "ears"))
AT_EYES, AT_EARS = ("eyes", "eyebrows"), ("earring", "ears")
TINY = CloserConfig((80, 160, 32, 224), (4, 6), 4)
TWO_SIDED = CloserConfig((128, 256, 0, 112), (4, 6), 4)


class _Sees(CloserLook):
    """Sees the first of its parts where its box is light, and nothing elsewhere."""

    def forward(self, near: Tensor) -> Tensor:
        scores = torch.zeros(len(near), 3, *near.shape[-2:])
        light = near.mean(1) > 0
        scores[:, 0] = torch.where(light, -20.0, 20.0)
        scores[:, 1] = torch.where(light, 20.0, -20.0)
        scores[:, 2] = -20.0
        return scores


def _halves(size: int) -> Tensor:
    images = torch.full((1, 3, size, size), -0.5)
    images[..., : size // 2] = 0.5
    return images


def _probabilities(size: int) -> Tensor:
    shares = torch.zeros(1, len(FACE_PARTS), size, size)
    shares[:, SKIN], shares[:, EYES], shares[:, HAIR] = 0.3, 0.6, 0.1
    return shares


@pytest.mark.parametrize("size", [256, 512])
def test_eyes_are_where_they_are_seen_from_near_by(size: int) -> None:
    before = _probabilities(size)
    after = _Sees(AT_EYES, TINY).refine(_halves(size), before)
    torch.testing.assert_close(after.sum(1), torch.ones(1, size, size))
    unit = size // 256
    seen, unseen = after[..., 100 * unit : 140 * unit, 40 * unit : 120 * unit], after[..., 120 * unit, 140 * unit :]
    assert seen[:, EYES].min() > 0.99 and seen[:, SKIN].max() < 0.01
    inside = unseen[..., : 70 * unit]
    assert inside[:, EYES].max() < 0.01
    torch.testing.assert_close(inside[:, SKIN] / inside[:, HAIR], torch.full_like(inside[:, SKIN], 3.0))
    beyond = torch.ones(size, size, dtype=torch.bool)
    beyond[78 * unit : 162 * unit, 30 * unit : 226 * unit] = False
    torch.testing.assert_close(after[..., beyond], before[..., beyond])


@pytest.mark.parametrize("size", [256, 512])
def test_both_sides_of_a_face_are_seen_from_near_by_and_its_middle_is_not(size: int) -> None:
    look, images = _Sees(AT_EARS, TWO_SIDED), _halves(size)
    assert len(look.sides(_halves(256))) == 2 and len(_Sees(AT_EYES, TINY).sides(_halves(256))) == 1
    unit = size // 256
    images[..., 200 * unit : 220 * unit, 230 * unit : 246 * unit] = 0.5  # hangs at the ear on the right
    before = torch.zeros(1, len(FACE_PARTS), size, size)
    before[:, HAIR] = 1.0
    ids = look.refine(images, before).argmax(1)[0]
    wanted = torch.full((size, size), HAIR)
    wanted[128 * unit :, : 112 * unit] = EARRING
    wanted[200 * unit : 220 * unit, 230 * unit : 246 * unit] = EARRING
    assert (ids != wanted).float().mean() < (1e-9 if unit == 1 else 5e-3)  # borders of the box are soft at 512


def test_a_look_that_has_half_the_say_agrees_with_the_parser() -> None:
    class Doubts(CloserLook):
        def forward(self, near: Tensor) -> Tensor:  # 8 of 10 for an earring, 1 of 10 for an ear
            return torch.tensor([0.1, 0.8, 0.1]).log().view(1, 3, 1, 1).expand(len(near), -1, *near.shape[-2:])

    look, before = Doubts(AT_EARS, dataclasses.replace(TWO_SIDED, trust=50)), torch.zeros(1, len(FACE_PARTS), 256, 256)
    before[:, EARRING], before[:, HAIR], before[:, EARS] = 0.2, 0.7, 0.1
    after = look.refine(_halves(256), before)[0, :, 200, 50]
    roots = torch.tensor([0.1 * 0.7, 0.8 * 0.2, 0.1 * 0.1]).sqrt()
    torch.testing.assert_close(after[[HAIR, EARRING, EARS]], roots / roots.sum())


def test_what_was_surely_an_eye_and_is_none_is_skin() -> None:
    before = torch.zeros(1, len(FACE_PARTS), 256, 256)
    before[:, EYES] = 1.0
    after = _Sees(AT_EYES, TINY).refine(torch.full((1, 3, 256, 256), -0.5), before)
    assert after[0, SKIN, 120, 128] > 0.99 and torch.isfinite(after).all()
    torch.testing.assert_close(after.sum(1), torch.ones(1, 256, 256))


def test_the_parser_looks_closer_where_there_are_the_pixels() -> None:
    parser = FaceParser(ParserConfig(32, (4, 6))).eval()
    plain = [parser.parse(_halves(size)) for size in (128, 256)]
    parser.closer = (_Sees(AT_EYES, TINY),)
    small, large = (parser.parse(_halves(size)) for size in (128, 256))
    assert torch.equal(small.probabilities, plain[0].probabilities)
    assert (large.ids[0, 100:140, 40:120] == EYES).all() and not torch.equal(large.ids, plain[1].ids)
    assert torch.equal(parser.parse(_halves(256), closely=False).probabilities, plain[1].probabilities)


def test_scores_have_the_size_of_the_band_and_move_with_the_picture() -> None:
    net = CloserLook(AT_EYES, TINY).eval()
    band = net.cut(_halves(256)).requires_grad_()
    scores = net(band)
    assert scores.shape == (1, 3, 80, 192)
    scores.sum().backward()
    assert band.grad is not None and band.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"box": (80, 160, 32)},
        {"box": (80, 161, 32, 224)},
        {"box": (160, 80, 32, 224)},
        {"box": (80, 160, 32, 288)},
        {"widths": (4,)},
        {"fine": 0},
        {"trust": 0},
        {"widths": (4, 10**6)},
    ],
)
def test_impossible_looks_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        dataclasses.replace(TINY, **wrong)


def test_a_look_is_kept_in_a_file(tmp_path: Path) -> None:
    net = CloserLook(AT_EYES, TINY).eval()
    save_closer_look(tmp_path / "eyes.safetensors", net, Provenance(data=("drawn",)))
    loaded = load_closer_look(tmp_path / "eyes.safetensors")
    assert loaded.config == TINY and loaded.parts == AT_EYES and not loaded.training
    band = net.cut(_halves(256))
    torch.testing.assert_close(loaded(band), net(band), atol=2e-2, rtol=0)


@pytest.mark.parametrize(
    "meta",
    [
        {"kind": "face-parser", "config": dataclasses.asdict(TINY), "parts": ["eyes", "eyebrows"]},
        {"kind": "closer-look", "config": dataclasses.asdict(TINY), "parts": ["eyes"]},
        {"kind": "closer-look", "config": dataclasses.asdict(TINY), "parts": ["eyes", "eyes"]},
        {"kind": "closer-look", "config": dataclasses.asdict(TINY), "parts": ["eyes", "horns"]},
        {"kind": "closer-look", "config": dataclasses.asdict(TINY), "parts": [["eyes"], "eyebrows"]},
        {"kind": "closer-look", "config": dataclasses.asdict(TINY), "parts": 2},
        {"kind": "closer-look", "parts": ["eyes", "eyebrows"]},
        {
            "kind": "closer-look",
            "config": {"box": [80, 160, 32, 224], "widths": [4, 6.5], "fine": 4, "trust": 100},
            "parts": ["eyes", "eyebrows"],
        },
        {
            "kind": "closer-look",
            "config": {"box": [80, 160, 32, 224], "widths": [4, 8], "fine": 4, "trust": 100},
            "parts": ["eyes", "eyebrows"],
        },
    ],
)
def test_files_of_anything_else_are_refused(tmp_path: Path, meta: dict[str, Any]) -> None:
    save_module(tmp_path / "eyes.safetensors", CloserLook(AT_EYES, TINY).state_dict(), meta)
    with pytest.raises(CheckpointError):
        load_closer_look(tmp_path / "eyes.safetensors")


def test_the_editor_looks_closer_and_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_parser(tmp_path / "parser.safetensors", FaceParser(ParserConfig(32, (4, 6))), Provenance())
    monkeypatch.setattr(loading, "bundled", lambda look: tmp_path / f"{look}.safetensors")
    missing: dict[str, str] = {}
    parser = loading._parser(missing, tmp_path, torch.device("cpu"))
    assert parser is not None and not parser.closer and not missing
    save_closer_look(tmp_path / "eyes.safetensors", CloserLook(AT_EYES, TINY), Provenance())
    parser = loading._parser(missing, tmp_path, torch.device("cpu"))
    assert parser is not None and [look.parts for look in parser.closer] == [AT_EYES] and not parser.closer[0].training
    save_closer_look(tmp_path / "ears.safetensors", CloserLook(AT_EARS, TWO_SIDED), Provenance())
    parser = loading._parser(missing, tmp_path, torch.device("cpu"))
    assert parser is not None and {look.parts for look in parser.closer} == {AT_EYES, AT_EARS} and not missing
    (tmp_path / "eyes.safetensors").write_bytes(b"damaged")
    assert loading._parser(missing, tmp_path, torch.device("cpu")) is None
    assert "eyes.safetensors" in missing["parse"]


@pytest.mark.parametrize(("look", "part"), [("eyes", EYES), ("ears", EARS)])
def test_the_bundled_looks_agree_with_the_parser_about_drawn_faces(look: str, part: int) -> None:
    """On a face of the bundled generator, which neither has seen: the same eyes and ears, with other borders."""
    from editing.service import EditingService

    with EditingService.open(None, "cpu") as service:
        picture = np.asarray(service.new_face(7).image)
    large = np.array(Image.fromarray(picture).resize((256, 256), Image.Resampling.BICUBIC))
    images = torch.from_numpy(large).permute(2, 0, 1)[None].float() / 127.5 - 1
    plain, near = (load_parser(closer=files).parse(images).ids == part for files in ((), (bundled(look),)))
    assert (plain & near).sum() > 0.6 * (plain | near).sum() > 0


def _faces(count: int) -> PackedFaces:
    """Grey faces with two dark eyes and brows over them, at places of their own."""
    dice = np.random.default_rng(0)
    images, masks = np.full((count, 256, 256, 3), 170, np.uint8), np.full((count, 256, 256), SKIN, np.uint8)
    for image, mask in zip(images, masks, strict=True):
        y, x = dice.integers(115, 125), dice.integers(85, 95)
        for left in (x, x + 64):
            for part, top, colour in ((EYES, y, 30), (BROWS, y - 22, 80)):
                mask[top : top + 10, left : left + 24] = part
                image[top : top + 10, left : left + 24] = colour
    return PackedFaces("drawn", images, masks, np.full((count, len(FACE_PARTS)), 0.1, np.float32))


def test_every_pixel_has_a_label() -> None:
    faces = _faces(4)
    sampler = FullSizeSampler(faces, torch.Generator().manual_seed(0))
    still = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])[None]
    mask = torch.from_numpy(faces.masks[:1])
    assert torch.equal(sampler._labels(mask, still, "zeros"), mask.long())
    images, ids = sampler.draw(2)
    assert images.shape == (2, 3, 256, 256) and ids.shape == (2, 256, 256)


def test_it_begins_as_the_parser_down_to_its_own_coarsest_level() -> None:
    torch.manual_seed(0)
    parser, net, band = FaceParser(ParserConfig(32, (4, 6, 8))).eval(), CloserLook(AT_EYES, TINY).eval(), _halves(64)
    net.begin_as(parser)
    shorter = parser.decoder[1](parser.features(band)[1], parser.features(band)[0])  # without the level below
    assert torch.equal(net.decoded(band), shorter)
    with pytest.raises(ValueError, match="bundled"):
        net.begin_as(FaceParser(ParserConfig(32, (4, 8))))


def _tiny_looks(monkeypatch: pytest.MonkeyPatch) -> FaceParser:
    torch.manual_seed(0)
    monkeypatch.setattr(closer, "LOOKS", {"eyes": (AT_EYES, TINY), "ears": (AT_EARS, TWO_SIDED)})
    return FaceParser(ParserConfig(32, (4, 6, 8))).eval()


def test_training_finds_eyes_and_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, parser = CloserTrainingConfig(images=120, batch=4, lr=2e-2), _tiny_looks(monkeypatch)
    trainer = CloserTrainer(config, "eyes", _faces(8), parser)
    losses = [trainer.step() for _ in range(24)]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    save_state(tmp_path / "state.pt", trainer)
    again = CloserTrainer(config, "eyes", _faces(8), parser)
    again.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.shown == 96 and again.step() == pytest.approx(trainer.step())


def test_the_command_trains_and_measures_with_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = _tiny_looks(monkeypatch)
    monkeypatch.setattr(closer, "CONDITIONS", {"clean": None})
    faces = _faces(4)
    save_parser(tmp_path / "parser.safetensors", parser, Provenance())
    monkeypatch.setattr(
        closer, "load_parser", lambda closer=(): load_parser(tmp_path / "parser.safetensors", closer=closer)
    )
    for kind, pictures in (("images", faces.images), ("masks", faces.masks)):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / "data" / kind / f"{number}.png")
    arguments = ["--look", "ears", "--data", str(tmp_path / "data"), "--hold-out", "1", "--batch", "2", "--images", "4"]
    arguments += [f"--{name}={tmp_path / name}" for name in ("cache", "state", "out")]
    assert closer.main(arguments) == 0
    said = capsys.readouterr().out
    assert "without a closer look" in said and "with it" in said and said.count("| ears |") == 2
    look = load_closer_look(tmp_path / "out")
    assert look.config == TWO_SIDED and look.parts == AT_EARS
