"""Super-resolution: what it makes of pictures, where they are shown, its file and its training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy import toy_assets  # type: ignore[import-not-found]

from editing.device.loading import load_assets
from editing.device.renderer import Renderer
from editing.service import EditingService
from memorygan.checkpoint import CheckpointError, Provenance, save_generator
from memorygan.config import get_preset
from memorygan.encoder import EncoderConfig, PartEncoder, save_encoder
from memorygan.fast.folding import fold
from memorygan.generator import MemoryGAN
from memorygan.parser import FaceParser, ParserConfig
from memorygan.super_resolution import (
    SuperResolution,
    SuperResolutionConfig,
    folded,
    load_super_resolution,
    save_super_resolution,
)
from memorygan.training import super_resolution as training
from memorygan.training.data import PackedDataset
from memorygan.training.prepare import main as prepare
from memorygan.training.schedule import save_state
from memorygan.training.softened import blurred, painted, redrawn, softened
from memorygan.training.super_resolution import SuperResolutionTrainer, SuperResolutionTrainingConfig, rebuilds

TINY = SuperResolutionConfig(32, (4, 6, 8), 4)


def _network(config: SuperResolutionConfig = TINY) -> SuperResolution:
    """One whose detail is not nothing, and whose batch norms are not idle."""
    torch.manual_seed(0)
    net = SuperResolution(config)
    with torch.no_grad():
        net.head.weight.normal_(0.0, 0.3)
        for name, buffer in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5)
    return net.eval()


def _photos(count: int, size: int) -> Tensor:
    """(B, 3, size, size) in [−1, 1]: stripes of several widths and colours."""
    dice = torch.Generator().manual_seed(0)
    line = torch.arange(size) / size
    waves = torch.rand(count, 3, 1, generator=dice) * 40 + 4
    return (torch.sin(waves * line) * 0.8)[..., None, :].expand(-1, -1, size, -1).contiguous()


def test_it_begins_as_the_enlarged_picture_and_may_have_any_shape() -> None:
    images = torch.rand(2, 3, 32, 24) * 2 - 1
    larger = SuperResolution(TINY).eval()(images)
    assert larger.shape == (2, 3, 64, 48)
    torch.testing.assert_close(larger, F.interpolate(images, scale_factor=2.0, mode="bicubic"))


def test_detail_is_added_where_it_is_wanted() -> None:
    net, images, wanted = _network(), torch.rand(1, 3, 32, 32) * 2 - 1, torch.zeros(1, 1, 32, 32)
    wanted[..., 16:] = 1.0
    some, all_of_it = net(images, wanted), net(images)
    plain = F.interpolate(images, scale_factor=2.0, mode="bicubic")
    torch.testing.assert_close(some[..., :30], plain[..., :30])
    torch.testing.assert_close(some[..., 34:], all_of_it[..., 34:])
    assert (all_of_it - plain).abs().mean() > 0.01


@pytest.mark.parametrize(
    "wrong", [{"size": 30}, {"size": 8}, {"size": 2048}, {"widths": (4,)}, {"fine": 0}, {"widths": (4, 9999)}]
)
def test_a_shape_that_cannot_be_built_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="got"):
        dataclasses.replace(TINY, **wrong)  # type: ignore[arg-type]


def test_a_file_comes_back_and_one_of_another_kind_does_not(tmp_path: Path) -> None:
    net, images = _network().half().float(), torch.rand(1, 3, 32, 32)
    save_super_resolution(tmp_path / "net.safetensors", net, Provenance())
    back = load_super_resolution(tmp_path / "net.safetensors")
    assert back.config == TINY
    torch.testing.assert_close(back(images), net(images))
    save_generator(tmp_path / "other.safetensors", MemoryGAN(get_preset("tiny-32").generator), provenance=Provenance())
    with pytest.raises(CheckpointError, match="super-resolution"):
        load_super_resolution(tmp_path / "other.safetensors")


def test_batch_norms_can_be_multiplied_into_convolutions() -> None:
    net, images = _network(), torch.rand(2, 3, 32, 32) * 2 - 1
    quick = folded(net)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in quick.modules())
    torch.testing.assert_close(quick(images), net(images), atol=1e-4, rtol=1e-4)


# --- where it is shown


def _generator() -> MemoryGAN:
    torch.manual_seed(0)
    return MemoryGAN(get_preset("tiny-32").generator).eval().requires_grad_(False)


def test_a_generator_shows_larger_pictures_and_stays_what_it_is() -> None:
    generator, before = _generator(), set(_generator().state_dict())
    face = generator.synthesize(generator.sample([1]))
    assert generator.magnify(face) is face and generator.picture_size == 32
    generator.enlarge_by(_network())
    assert set(generator.state_dict()) == before and generator.picture_size == 64
    shown = generator.magnify(face)
    assert shown.image.shape == (1, 3, 64, 64) and shown.mask.shape == (1, 13, 64, 64)
    somebody = 0.5 - 0.5 * face.mask[:, :1].clamp(-1, 1)
    torch.testing.assert_close(shown.image, _network()(face.image.clamp(-1, 1), somebody))
    drawn = sorted(set(face.part_map.flatten().tolist()))
    assert (F.avg_pool2d(shown.mask, 2) - face.mask)[:, drawn].abs().mean() < 0.1 * face.mask[:, drawn].abs().mean()
    assert generator.synthesize(face.latents).image.shape[-1] == 32
    quick = fold(generator, torch.float32)
    torch.testing.assert_close(quick.magnify(face).image, shown.image, atol=1e-4, rtol=1e-4)
    generator.enlarge_by(None)
    assert generator.picture_size == 32


def test_a_network_for_pictures_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="64 pixels, not of 32"):
        _generator().enlarge_by(SuperResolution(dataclasses.replace(TINY, size=64)))


def test_the_renderer_enlarges_pictures_of_no_certain_size_alone() -> None:
    generator = _generator()
    generator.enlarge_by(_network())
    renderer, latents = Renderer(generator), generator.sample([2])
    full, own = renderer.render("a", latents), renderer.render("a", latents, 32)
    assert full.image.shape == (64, 64, 3) and full.part_map.shape == (64, 64)
    assert own.image.shape == (32, 32, 3) and own.shares is not None
    assert [one.image.shape[0] for one in renderer.render_batch(latents)] == [64]
    assert np.array_equal(renderer.render("a", latents).image, full.image)
    moved = renderer.render("a", latents, generator=_generator())  # a face's own render net
    assert moved.image.shape == (64, 64, 3)


def test_faces_of_the_page_are_shown_large_and_dragged_small() -> None:
    assets = toy_assets()
    assets.generator.enlarge_by(_network())
    with EditingService(assets) as service:
        assert (service.size, service.picture_size) == (32, 64)
        view = service.new_face(3)
        assert view.image.shape == (64, 64, 3) and view.part_map.shape == (64, 64)
        assert service.preview_sliders(view.session, {"hair.lightness": 2.0}).image.shape == (32, 32, 3)
        edited = service.set_sliders(view.session, {"hair.lightness": 2.0})
        assert edited.image.shape == (64, 64, 3) and edited.change is not None
        assert {frame.image.shape for frame in service.compose(view.session)} == {(64, 64, 3)}
        assert {frame.image.shape for frame in service.compose(view.session, size=32)} == {(32, 32, 3)}
        assert service.health()["size"] == 64


def test_it_lies_beside_its_checkpoint_or_pictures_stay_as_they_are(tmp_path: Path) -> None:
    checkpoint, file = tmp_path / "faces.safetensors", tmp_path / "super-resolution.safetensors"
    save_generator(checkpoint, _generator(), provenance=Provenance())
    assets = load_assets(checkpoint, torch.device("cpu"))
    assert assets.generator.picture_size == 32 and "enlarge" not in assets.missing
    save_super_resolution(file, _network(), Provenance())
    assert load_assets(checkpoint, torch.device("cpu")).generator.picture_size == 64
    save_super_resolution(file, _network(dataclasses.replace(TINY, size=64)), Provenance())
    assets = load_assets(checkpoint, torch.device("cpu"))
    assert assets.generator.picture_size == 32 and "64 pixels, not of 32" in assets.missing["enlarge"]


def test_the_bundled_one_draws_finer_detail_of_the_same_faces() -> None:
    generator = load_assets(None, torch.device("cpu")).generator
    assert (generator.config.size, generator.picture_size) == (128, 256)
    with torch.inference_mode():
        face = generator.synthesize(generator.sample([3, 12], 0.7))
        shown = generator.magnify(face).image.clamp(-1, 1)
    plain = F.interpolate(face.image.clamp(-1, 1), scale_factor=2.0, mode="bicubic")
    fine = [(one - F.avg_pool2d(one, 3, 1, 1)).abs().mean((1, 2, 3)) for one in (shown, plain)]
    assert (fine[0] > 1.3 * fine[1]).all()
    assert (F.avg_pool2d(shown, 2) - face.image.clamp(-1, 1)).abs().mean() < 12 / 127.5
    ground = face.mask[:, :1].amax((1,), keepdim=True) > 0.9
    far = F.interpolate((F.max_pool2d((~ground).float(), 5, 1, 2) == 0).float(), scale_factor=2.0) > 0
    assert (shown - plain.clamp(-1, 1)).abs()[far.expand_as(shown)].mean() < 1 / 127.5


# --- its training


def test_blurs_are_each_picture_s_own() -> None:
    images = torch.zeros(2, 3, 33, 33)
    images[..., 16, 16] = 1.0
    soft = blurred(images, torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(soft.sum((2, 3)), torch.ones(2, 3))
    places = torch.arange(33.0) - 16
    spread = (soft.sum(2) * places.square()).sum(-1).sqrt()
    torch.testing.assert_close(spread, torch.tensor([[0.5], [2.0]]).expand(2, 3), atol=0.06, rtol=0.05)


def test_painting_evens_out_what_differs_little_and_keeps_edges() -> None:
    torch.manual_seed(0)
    image = torch.where(torch.arange(32) < 16, -0.6, 0.6).expand(1, 3, 32, 32)
    noisy = image + 0.03 * torch.randn(1, 1, 32, 32)
    clean = painted(noisy, torch.tensor([2.0]), torch.tensor([0.3]))
    assert (clean - image)[..., 4:-4, 4:-4].std() < 0.4 * (noisy - image).std()
    assert (clean[..., 15] + 0.6).abs().max() < 0.1 and (clean[..., 16] - 0.6).abs().max() < 0.1


def test_soft_pictures_keep_what_is_coarse() -> None:
    images, dice = _photos(8, 32), torch.Generator().manual_seed(0)
    soft = softened(images, dice)
    assert soft.shape == images.shape
    edges = [(one[..., 1:] - one[..., :-1]).abs().mean((1, 2, 3)) for one in (soft, images)]
    assert (edges[0] < edges[1]).all()
    assert (F.avg_pool2d(soft, 8) - F.avg_pool2d(images, 8)).abs().mean() < 0.1
    other = torch.rand(8, 3, 32, 32, generator=dice) - 0.5
    mixed = redrawn(images, other, dice)
    torch.testing.assert_close(redrawn(images, images, dice), images)
    wide = torch.full((8,), 5.0)
    assert (blurred(mixed, wide) - blurred(images, wide)).abs().mean() < 0.03
    fine = [one - blurred(one, torch.full((8,), 0.5)) for one in (mixed, other)]
    assert torch.corrcoef(torch.stack([one.flatten() for one in fine]))[0, 1] > 0.8


def _encoder() -> PartEncoder:
    torch.manual_seed(0)
    config = get_preset("tiny-32").generator
    return PartEncoder(EncoderConfig(config.part_count, config.query_dim, 32, (4, 8), 8)).eval().requires_grad_(False)


def _parser() -> FaceParser:
    torch.manual_seed(0)
    return FaceParser(ParserConfig(32, (4, 6, 8))).eval()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    folder = tmp_path_factory.mktemp("drawn")
    assert prepare(["--procedural", "8", "--size", "64", "--holdout", "1", "--out", str(folder)]) == 0
    return PackedDataset.open(next(folder.glob("*-train.pack")))


def test_training_makes_photos_sharper_and_goes_on_where_it_stopped(tmp_path: Path, packed: PackedDataset) -> None:
    config = SuperResolutionTrainingConfig(images=400, batch=4, lr=4e-3, warm=8)
    none = np.zeros((0, 32, 32, 3), np.uint8)
    trainer = SuperResolutionTrainer(config, packed, [], none, _parser(), 32)
    losses = [trainer.step() for _ in range(24)]
    assert trainer.steps == 24 and trainer.shown == 96 and np.mean(losses[-6:]) < np.mean(losses[:6])
    save_state(tmp_path / "state.pt", trainer)
    again = SuperResolutionTrainer(config, packed, [], none, _parser(), 32)
    again.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.shown == 96 and again.step() == pytest.approx(trainer.step(), rel=1e-4)


def test_half_of_a_batch_has_the_generator_s_own_strands(packed: PackedDataset) -> None:
    black = np.zeros((1, 32, 32, 3), np.uint8)
    black[:, ::2] = 255
    trainer = SuperResolutionTrainer(SuperResolutionTrainingConfig(), packed, [3], black, _parser(), 32)
    soft, sharp = trainer.draw(4)
    assert soft.shape == (4, 3, 32, 32) and sharp.shape == (4, 3, 64, 64)
    rough = (soft[..., 1:, :] - soft[..., :-1, :]).abs().mean((1, 2, 3))
    assert rough[:2].min() > 2.0 * rough[2:].max()
    want = packed.images([3]).float() / 127.5 - 1.0
    assert all(torch.equal(one, want[0]) or torch.equal(one.flip(-1), want[0]) for one in sharp[:2])


def test_rebuilds_are_made_once(tmp_path: Path, packed: PackedDataset) -> None:
    generator = _generator()
    encoder = _encoder()
    made = rebuilds(packed, generator, encoder, [0, 2], tmp_path / "kept.npy")
    assert made.shape == (2, 32, 32, 3) and made.dtype == np.uint8 and not np.array_equal(made[0], made[1])
    assert np.array_equal(rebuilds(packed, generator, encoder, [], tmp_path / "kept.npy"), made)


def test_the_command_trains_for_the_generator_it_is_given(
    tmp_path: Path, packed: PackedDataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "load_parser", _parser)
    save_generator(tmp_path / "faces.safetensors", _generator(), provenance=Provenance())
    save_encoder(tmp_path / "encoder.safetensors", _encoder())
    arguments = ["--data", str(packed._reader.path), "--generator", str(tmp_path / "faces.safetensors")]
    arguments += ["--batch", "2", "--images", "4", "--rebuilt", "3"]
    arguments += [f"--{name}={tmp_path / name}" for name in ("cache", "state", "out")]
    assert training.main(arguments) == 0
    assert "wrote" in capsys.readouterr().out
    net = load_super_resolution(tmp_path / "out")
    assert net.config == SuperResolutionConfig(32, (4, 6, 8))
