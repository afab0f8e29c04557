"""The prior of query codes: what it draws, what it leaves as given, where it is used, its file and its training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import toy_assets  # type: ignore[import-not-found]

from editing.device.loading import load_assets
from editing.errors import EditingError
from editing.face.recipe import Recipe
from editing.face.sources import SeedSource, read_source
from editing.face.state import FaceEditor
from editing.face.swap import draw_variants, variant_edits
from editing.service import EditingService
from memorygan.checkpoint import CheckpointError, Provenance, save_generator
from memorygan.config import get_preset
from memorygan.encoder import EncoderConfig, PartEncoder, Posterior, save_encoder
from memorygan.generator import MemoryGAN
from memorygan.latents import seeded_noise
from memorygan.prior import CodePrior, PriorConfig, load_prior, save_prior
from memorygan.training import prior as training
from memorygan.training.fading import FADING, Fading, shown_more
from memorygan.training.packfile import DataError
from memorygan.training.prepare import main as prepare
from memorygan.training.prior import PriorTrainer, PriorTrainingConfig, calibrate, describe, plainly_rare
from memorygan.training.schedule import save_state

TINY = PriorConfig(14, 16, 4, 16, 2, 2, 4)


def _prior(config: PriorConfig = TINY, seed: int = 0) -> CodePrior:
    """One with a velocity and places of its own."""
    torch.manual_seed(seed)
    prior = CodePrior(config)
    with torch.no_grad():
        prior.leave.normal_(0.0, 0.1)
        axes = torch.linalg.qr(torch.randn(config.slots, config.query_dim, config.rank))[0]
        prior.axes.copy_(2.0 * axes)
        prior.reading.copy_(0.5 * axes)
        prior.mean.normal_()
        prior.spread.fill_(0.1)
    return prior.eval()


def _generator() -> MemoryGAN:
    torch.manual_seed(0)
    return MemoryGAN(get_preset("tiny-32").generator).eval().requires_grad_(False)


def _noise(count: int) -> Tensor:
    return seeded_noise(range(count), (TINY.slots, TINY.query_dim))


# --- What it draws ----------------------------------------------------------------------------------------------------


def test_an_untaught_prior_draws_gaussians_where_codes_lie() -> None:
    prior = _prior()
    with torch.no_grad():
        prior.leave.zero_()
    codes = prior.draw(_noise(400))
    assert codes.shape == (400, 14, 16) and torch.allclose(codes.mean(0), prior.mean, atol=0.35)
    along = prior.coordinates(codes)
    assert torch.allclose(along, _noise(400)[..., :4], atol=1e-5)
    beside = codes - prior.mean - torch.einsum("bsr,sqr->bsq", along, prior.axes)
    assert float(beside.std()) == pytest.approx(0.1 * (12 / 16) ** 0.5, rel=0.05)


def test_a_face_depends_on_its_own_noise() -> None:
    prior = _prior()
    together, alone = prior.draw(_noise(3)), prior.draw(_noise(3)[1:2])
    assert torch.allclose(together[1], alone[0], atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_codes_that_are_given_stay_and_the_others_see_them() -> None:
    prior = _prior()
    codes, given = prior.draw(_noise(2)), torch.arange(14) != 5
    again = prior.draw(_noise(2).flip(0), codes, given)
    assert torch.equal(again[:, given], codes[:, given]) and not torch.allclose(again[:, 5], codes[:, 5], atol=1e-3)
    other = codes.clone()
    other[:, 7] += 3.0
    assert not torch.allclose(prior.draw(_noise(2).flip(0), other, given)[:, 5], again[:, 5], atol=1e-4)


def test_noise_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise of shape \(B, 14, 16\), got \(2, 14, 8\)"):
        _prior().draw(torch.zeros(2, 14, 8))


@pytest.mark.parametrize("change", [{"slots": 1}, {"rank": 17}, {"width": 15}, {"heads": 3}, {"steps": 0}])
def test_shapes_that_cannot_be_built_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="got"):
        dataclasses.replace(TINY, **change)


def test_its_file_gives_it_back(tmp_path: Path) -> None:
    prior = _prior()
    save_prior(tmp_path / "prior.safetensors", prior, Provenance())
    back = load_prior(tmp_path / "prior.safetensors")
    assert back.config == TINY and torch.allclose(back.draw(_noise(2)), prior.draw(_noise(2)), atol=0.05)
    save_generator(tmp_path / "other.safetensors", _generator(), provenance=Provenance())
    with pytest.raises(CheckpointError, match="code-prior"):
        load_prior(tmp_path / "other.safetensors")


# --- Where it is used -------------------------------------------------------------------------------------------------


def test_a_generator_draws_its_faces_by_it() -> None:
    generator = _generator()
    own = generator.sample_codes([3])
    assert torch.equal(own, generator.sample_queries([3]).codes)
    generator.draw_by(_prior())
    drawn = generator.sample_codes([3])
    assert torch.equal(drawn, _prior().draw(seeded_noise([3], (14, 16))))
    assert torch.equal(generator.sample([3]).w, generator.map(drawn).expand(generator.config).w)
    assert torch.equal(generator.sample([3], 0.7).w, generator.latents_of(drawn, 0.7, keep_worn=True).w)
    with pytest.raises(ValueError, match="14 codes of 8 numbers, not 14 of 16"):
        generator.draw_by(_prior(dataclasses.replace(TINY, query_dim=8)))


def test_what_a_face_wears_is_truncated_half_as_much() -> None:
    generator = _generator()
    generator.mean_w.normal_()
    codes = generator.sample_queries([3]).codes
    whole, mean = generator.map(codes).w, generator.mean_w[None]
    plain = generator.map(codes).truncate(generator.mean_latents, 0.7).expand(generator.config)
    assert torch.equal(generator.latents_of(codes, 0.7).w, plain.w)
    names, texture = generator.config.parts.names, generator.config.local_layers - 1
    for psi, worn in ((0.7, 1.0), (0.25, 0.5), (0.0, 0.0)):
        own = generator.latents_of(codes, psi, keep_worn=True).w[0, :, texture]
        for part, name in enumerate(names):
            share = worn if name in ("eyeglass", "hat", "earring") else psi
            torch.testing.assert_close(own[part], torch.lerp(mean, whole, share)[0, 1 + part])


def test_glasses_that_are_drawn_anew_are_whole() -> None:
    generator = _generator()
    state = FaceEditor(generator).start(SeedSource(3))
    for name, prior, psi in (("eyeglass", "a" * 64, 1.0), ("hair", "a" * 64, 0.7), ("eyeglass", "", 0.7)):
        editor = FaceEditor(generator, prior=prior)
        edits, _ = variant_edits(editor, state, name, 2, 0, "all", lambda work: work())
        assert [edit.truncation for edit in edits] == [psi, psi]


def test_recipes_name_the_prior_and_older_ones_stay_with_the_controller() -> None:
    generator = _generator()
    before = FaceEditor(generator).start(SeedSource(3))
    generator.draw_by(_prior())
    editor = FaceEditor(generator, prior="a" * 64)
    new = editor.sampled(3, 0.7)
    assert new.prior == "a" * 64 and read_source(new.to_dict()) == new
    assert not torch.equal(editor.start(new).anchor.w, before.anchor.w)
    assert torch.equal(editor.start(SeedSource(3)).anchor.w, before.anchor.w)
    with pytest.raises(EditingError, match="drawn by another prior of this model"):
        editor.start(dataclasses.replace(new, prior="b" * 64))


def test_a_part_is_drawn_anew_in_sight_of_all_others() -> None:
    generator, slot = _generator(), 8
    generator.draw_by(_prior())
    codes = generator.sample_codes([0])
    drawn, likelihood = draw_variants(generator, codes, slot, 5, 7)
    assert drawn.shape == (5, 16) and torch.equal(likelihood, torch.zeros(5))
    assert torch.equal(draw_variants(generator, codes, slot, 5, 7)[0], drawn)
    other = codes.clone()
    other[:, slot + 1] += 2.0  # a part that comes later
    assert not torch.allclose(draw_variants(generator, other, slot, 5, 7)[0], drawn, atol=1e-4)
    alone, _ = draw_variants(generator, None, slot, 5, 7)
    assert alone.shape == (5, 16) and not torch.allclose(alone, drawn, atol=1e-3)


def test_one_beside_the_checkpoint_is_used(tmp_path: Path) -> None:
    checkpoint, file = tmp_path / "faces.safetensors", tmp_path / "prior.safetensors"
    save_generator(checkpoint, _generator(), provenance=Provenance())
    assert load_assets(checkpoint, torch.device("cpu")).prior == ""
    save_prior(file, _prior(), Provenance())
    assets = load_assets(checkpoint, torch.device("cpu"))
    assert isinstance(assets.generator, MemoryGAN) and assets.generator.prior is not None
    assert assets.prior == hashlib.sha256(file.read_bytes()).hexdigest() and "draw" not in assets.missing
    for named, seeds in ((assets.prior, (4, 8)), ("d" * 64, ())):  # good seeds are those of a prior
        gallery = {"checkpoint": assets.sha256, "prior": named, "seeds": [4, 8]}
        (tmp_path / "gallery.json").write_text(json.dumps(gallery))
        assert load_assets(checkpoint, torch.device("cpu")).gallery == seeds
    save_prior(file, _prior(dataclasses.replace(TINY, query_dim=8)), Provenance())
    assets = load_assets(checkpoint, torch.device("cpu"))
    assert assets.prior == "" and "14 codes of 8 numbers" in assets.missing["draw"]


def test_the_service_shows_its_faces_and_writes_its_name() -> None:
    assets = toy_assets()
    assert isinstance(assets.generator, MemoryGAN)
    config = assets.generator.config
    assets.generator.draw_by(_prior(dataclasses.replace(TINY, slots=1 + config.part_count, query_dim=config.query_dim)))
    with EditingService(assets=dataclasses.replace(assets, prior="c" * 64)) as service:
        face = service.new_face(3)
        recipe = service.recipe(face.session)
        assert Recipe.from_json(recipe.to_json()) == recipe and recipe.source == SeedSource(3, 0.7, "c" * 64)


# --- Its training -----------------------------------------------------------------------------------------------------


def _hatted(count: int) -> Posterior:
    """Codes of faces, every fifth of which wears a hat: in slot 12, and in the hair of slot 8."""
    torch.manual_seed(1)
    mean = 0.3 * torch.randn(count, 14, 16)
    wears = torch.where(torch.arange(count) % 5 == 0, 4.0, -1.0)
    mean[:, 12, 0] = wears + 0.1 * torch.randn(count)
    mean[:, 8, 0] = -wears + 0.1 * torch.randn(count)
    return Posterior(mean, torch.full(mean.shape, -4.6))


def test_what_it_learned_are_faces_with_and_without_and_no_mixtures(tmp_path: Path) -> None:
    config = PriorTrainingConfig(images=64 * 600, batch=64, ema=0.98, lr=4e-3)
    faces = _hatted(500)
    trainer = PriorTrainer(config, faces, torch.ones(500), dataclasses.replace(TINY, width=32))
    losses = [trainer.step() for _ in range(600)]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    drawn = trainer.average.draw(_noise(500))
    hat, hair = drawn[:, 12, 0], drawn[:, 8, 0]
    assert 0.1 < float((hat > 2.5).float().mean()) < 0.3
    assert float(((hat > 0.0) & (hat < 2.5)).float().mean()) < 0.1
    assert float(torch.corrcoef(torch.stack((hat, hair)))[0, 1]) < -0.9
    # And given the hair, the hat is known.
    codes = faces.mean[:100]
    again = trainer.average.draw(_noise(100), codes, torch.arange(14) != 12)
    assert ((again[:, 12, 0] > 1.5) == (codes[:, 12, 0] > 1.5)).sum() >= 97


def test_faces_that_are_shown_more_often_are_drawn_more_often() -> None:
    faces, prior = _hatted(500), CodePrior(TINY)
    often = torch.where(torch.arange(500) % 5 == 0, 4.0, 1.0)
    describe(prior, faces, often)
    assert float(prior.mean[12, 0]) == pytest.approx(1.5, abs=0.1)  # half of them wear one
    trainer = PriorTrainer(PriorTrainingConfig(images=64, batch=64), faces, often, TINY)
    drawn = torch.searchsorted(trainer.shown_share, torch.rand(4000, dtype=torch.float64))
    assert float((drawn % 5 == 0).float().mean()) == pytest.approx(0.5, abs=0.03)


def test_coordinates_have_unit_variance_and_lead_back_to_codes() -> None:
    faces, prior = _hatted(500), CodePrior(TINY)
    matters = describe(prior, faces, torch.ones(500))
    along = prior.coordinates(faces.sample(torch.randn(faces.mean.shape)))
    assert torch.allclose(along.std(dim=0), torch.ones(14, 4), atol=0.1)
    assert torch.allclose(
        prior.coordinates(prior.mean + torch.einsum("bsr,sqr->bsq", along, prior.axes)), along, atol=1e-4
    )
    assert float(matters.mean()) == pytest.approx(1.0) and matters[12, 0] == matters.max()


def test_noise_reaches_as_far_as_draws_need_to_be_as_wide_as_faces() -> None:
    faces, prior = _hatted(500), CodePrior(TINY)
    describe(prior, faces, torch.ones(500))
    assert calibrate(prior, faces, torch.ones(500)) == pytest.approx(1.0, abs=0.03)
    # A flow that contracts: the velocity of every coordinate leads inwards.
    prior.forward = lambda x, time: -0.1 * x  # type: ignore[method-assign]
    assert calibrate(prior, faces, torch.ones(500)) == pytest.approx(math.exp(0.1), abs=0.03)
    drawn = prior.coordinates(prior.draw(_noise(500)))
    assert float(drawn.var(dim=0).mean()) == pytest.approx(1.0, abs=0.05)


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config = PriorTrainingConfig(images=640, batch=8)
    trainer = PriorTrainer(config, _hatted(40), torch.ones(40), TINY)
    for _ in range(3):
        trainer.step()
    save_state(tmp_path / "state.pt", trainer)
    again = PriorTrainer(config, _hatted(40), torch.ones(40), TINY)
    again.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.shown == 24 and again.step() == pytest.approx(trainer.step(), rel=1e-5)


def test_the_command_trains_for_the_generator_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "_CALIBRATED", 4)
    assert prepare(["--procedural", "6", "--size", "32", "--holdout", "1", "--out", str(tmp_path)]) == 0
    generator = _generator()
    save_generator(tmp_path / "faces.safetensors", generator, provenance=Provenance())
    torch.manual_seed(0)
    encoder = PartEncoder(EncoderConfig(generator.config.part_count, generator.config.query_dim, 32, (4, 8), 16))
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    pack = next(tmp_path.glob("*-train.pack"))
    arguments = ["--data", str(pack), "--generator", str(tmp_path / "faces.safetensors"), "--batch", "4"]
    arguments += ["--images", "8", *(f"--{name}={tmp_path / name}" for name in ("cache", "state", "out"))]
    assert training.main(arguments) == 0 and "wrote" in capsys.readouterr().out
    kept = sorted((tmp_path / "cache").iterdir())
    assert load_prior(tmp_path / "out").config.query_dim == generator.config.query_dim
    assert training.main(arguments) == 0 and sorted((tmp_path / "cache").iterdir()) == kept


# --- Rare traits that fade --------------------------------------------------------------------------------------------


def _old(count: int) -> tuple[Tensor, list[dict[str, str]]]:
    """Codes and labels: every tenth face is over sixty, and in the codes of half of these it is plain."""
    torch.manual_seed(2)
    codes, rows = torch.randn(count, 6), torch.arange(count)
    codes[rows % 20 == 0, 3] += 6.0
    labels = [{"age": "70" if row % 10 == 0 else "30", "hair_red": "", "bald": "none"} for row in range(count)]
    return codes, labels


def test_faces_in_whose_codes_a_trait_is_plain_are_shown_more_often() -> None:
    codes, labels = _old(2000)
    times = shown_more(codes, labels, [Fading("age", 8.0)])
    often, plain = times == 8.0, torch.arange(2000) % 20 == 0
    assert set(times.tolist()) == {1.0, 8.0}
    assert float((often == plain).float().mean()) > 0.98
    # Faces of which nothing is known are read from their codes alone.
    unknown = [row if number < 1000 else {} for number, row in enumerate(labels)]
    again = shown_more(codes, unknown, [Fading("age", 8.0)])
    assert float((again[1000:] == times[1000:]).float().mean()) > 0.98


def test_the_most_frequent_of_several_traits_counts() -> None:
    codes, labels = _old(2000)
    for row in range(0, 2000, 20):
        labels[row]["bald"] = "1.0"
    times = shown_more(codes, labels, [Fading("age", 2.0), Fading("bald", 8.0)])
    assert set(times.tolist()) <= {1.0, 2.0, 8.0} and 40 < int((times == 8.0).sum()) < 60
    assert all(trait.times > 1.0 for trait in FADING)


def test_a_trait_that_nobody_is_labelled_with_is_asked_for() -> None:
    codes, labels = _old(200)
    with pytest.raises(DataError, match="labels of hair_red are needed"):
        shown_more(codes, labels)


def test_labels_are_those_of_the_packs_folder(tmp_path: Path) -> None:
    folder, numbers = tmp_path / "photos", range(500)
    folder.mkdir()
    rows = [f"{n:05d},{30 if n % 5 else 70},{int(n % 7 == 0)},{int(n % 9 == 0)}" for n in numbers]
    (folder / "attributes.csv").write_text("\n".join(["name,age,hair_red,bald", *rows]))
    faces = _hatted(500)
    both, even = Posterior(*(torch.cat([one, one]) for one in (faces.mean, faces.log_variance))), torch.ones(1000)
    times = plainly_rare(both, even, [f"photos/{n:05d}" for n in numbers], folder)
    assert torch.equal(times[:500], times[500:])
    often, old = times[:500] == 8.0, torch.arange(500) % 5 == 0  # all of them wear a hat
    assert float(often[old].float().mean()) > 0.4 > 0.2 > float(often[~old].float().mean())
    assert torch.equal(times, plainly_rare(both, even, [f"{n:05d}" for n in numbers], folder))
    with pytest.raises(DataError, match="with labels of the packed faces"):
        plainly_rare(both, even, [f"drawings/{n:05d}" for n in numbers], folder)


def test_training_goes_on_from_the_weights_of_another(tmp_path: Path) -> None:
    faces, config = _hatted(40), PriorTrainingConfig(images=8, batch=8)
    save_prior(tmp_path / "first", _prior(), Provenance(images_seen=100))
    trainer = PriorTrainer(config, faces, torch.ones(40), TINY, tmp_path / "first")
    assert trainer.images_before == 100
    saved = load_prior(tmp_path / "first").state_dict()
    assert all(torch.equal(saved[name], now) for name, now in trainer.net.state_dict().items())
    with pytest.raises(DataError, match="another shape"):
        PriorTrainer(config, faces, torch.ones(40), dataclasses.replace(TINY, width=32), tmp_path / "first")
