"""A photo becomes a face: codes get nearer, stop when told, never get worse; tuning touches the render net alone."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from test_photo import detector, face_landmarks  # type: ignore[import-not-found]
from toy import finish, toy_assets  # type: ignore[import-not-found]

from editing.device.loading import Assets, untrained_generator
from editing.device.turns import Turnstile, fair_order
from editing.errors import BusyError, EditingError, UnknownSessionError
from editing.face.state import run_here
from editing.guidance.face_net import save_face_net
from editing.guidance.guide import DEFAULT_GUIDE, FaceGuide, GuideConfig, load_guide
from editing.guidance.registry import Guides
from editing.photo import inversion
from editing.photo.inversion import InversionSettings, Target, invert, objective, with_own_render
from editing.photo.store import PhotoStore
from editing.results import CancelToken
from editing.service import EditingService, Limits
from memorygan.baseline import SemanticStyleGAN
from memorygan.checkpoint import Provenance
from memorygan.config import get_preset
from memorygan.encoder import EncoderConfig, PartEncoder
from memorygan.parser import FaceParser, ParserConfig
from memorygan.picture import to_uint8


@pytest.fixture(scope="module")
def generator():
    return untrained_generator()[0]


@pytest.fixture(scope="module")
def pixels(generator) -> np.ndarray:
    with torch.no_grad():
        return to_uint8(generator.synthesize(generator.sample([123])).image)[0]


def run(generator, pixels, cancel=None, **settings):
    return invert(generator, None, None, pixels, InversionSettings(**settings), run_here, cancel or CancelToken(), None)


def test_refinement_gets_nearer_and_reports_it(generator, pixels):
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    seen, result = finish(run(generator, pixels, steps=30))
    assert [progress.phase for progress in seen] == ["encode"] + ["refine"] * 30
    assert [progress.step for progress in seen] == list(range(31))
    assert result.progress.phase == "done"
    assert result.progress.error < 0.7 * seen[0].error
    errors = [progress.loss for progress in seen]
    assert all(math.isfinite(loss) for loss in errors)
    assert result.latents.w.shape == (1, 13, 10, 32)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items()), "it is shared"
    made = to_uint8(generator.synthesize(result.latents).image)[0]
    assert np.abs(made.astype(float) - pixels).mean() == pytest.approx(result.progress.error, abs=0.5)


def test_cancelling_ends_within_a_step_with_the_best_so_far(generator, pixels):
    cancel = CancelToken()
    steps = run(generator, pixels, cancel, steps=500, tune_steps=500)
    last = [next(steps) for _ in range(4)][-1]
    cancel.cancel()
    rest, result = finish(steps)
    assert rest == []
    assert result.progress.cancelled
    assert result.progress.error == pytest.approx(last.error)
    assert result.generator is None


def test_tuning_changes_the_render_net_of_this_face_alone(generator, pixels):
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    seen, result = finish(run(generator, pixels, steps=5, tune_steps=25))
    assert [progress.phase for progress in seen].count("tune") == 25
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    own = result.generator
    assert own is not None
    assert own.memory is generator.memory
    changed = [name for name, value in own.state_dict().items() if not torch.equal(value, before[name])]
    assert changed
    assert all(name.startswith("render.") for name in changed)
    tuned = to_uint8(own.synthesize(result.latents).image)[0].astype(float)
    plain = to_uint8(generator.synthesize(result.latents).image)[0].astype(float)
    assert np.abs(tuned - pixels).mean() < np.abs(plain - pixels).mean()


def test_a_step_that_explodes_is_taken_back(generator, pixels, monkeypatch):
    calls = iter(range(1000))

    def sometimes_nan(*arguments):
        loss = objective(*arguments)
        return loss * float("nan") if next(calls) % 3 == 2 else loss

    monkeypatch.setattr("editing.photo.inversion.objective", sometimes_nan)
    seen, result = finish(run(generator, pixels, steps=24))
    assert any(math.isnan(progress.loss) for progress in seen)
    assert torch.isfinite(result.latents.w).all()
    assert result.progress.error <= seen[0].error


def test_encoder_and_parser_are_used(generator, pixels):
    torch.manual_seed(0)
    config = generator.config
    encoder = (
        PartEncoder(EncoderConfig(config.part_count, config.query_dim, 32, (4, 8), 8)).eval().requires_grad_(False)
    )
    parser = FaceParser(ParserConfig(32, (4, 8))).eval().requires_grad_(False)
    told = []

    def judge(first, second):
        told.append((first.shape, second.shape))
        return 0.25

    steps = invert(generator, encoder, parser, pixels, InversionSettings(steps=2), run_here, CancelToken(), judge)
    seen, result = finish(steps)
    assert result.queries.shape == (1, 14, config.query_dim)
    assert 0 <= seen[0].mask_agreement <= 1
    assert result.progress.identity == 0.25
    assert told == [((32, 32, 3), (32, 32, 3))] * 2, "at the beginning and at the end, not at every step"
    assert math.isnan(finish(run(generator, pixels, steps=0))[1].progress.mask_agreement)


def test_all_that_touches_the_device_goes_through_the_runner(generator, pixels, monkeypatch):
    """What another thread did at the same time could meet a network on its way between two devices."""
    inside: list[bool] = []
    outside: list[str] = []

    def run(function):
        inside.append(True)
        try:
            return function()
        finally:
            inside.pop()

    def watched(name, function):
        def call(*arguments):
            if not inside:
                outside.append(name)
            return function(*arguments)

        return call

    monkeypatch.setattr("editing.photo.inversion.with_own_render", watched("copy", with_own_render))
    monkeypatch.setattr("editing.photo.inversion._Tuning.go_back", watched("go back", inversion._Tuning.go_back))
    judge = watched("identity", lambda first, second: 0.5)
    settings = InversionSettings(steps=1, tune_steps=1)
    _, result = finish(invert(generator, None, None, pixels, settings, run, CancelToken(), judge))
    assert result.progress.identity == 0.5
    assert outside == []


def test_the_mask_steers_the_codes(generator, pixels):
    ids = np.zeros((32, 32), dtype=np.uint8)
    with torch.no_grad():
        made = generator.synthesize(generator.sample([1]))
    target = Target(pixels, ids)
    with_mask = objective(made, target.image(made.image.device), target.ids(made.image.device))
    assert with_mask > objective(made, target.image(made.image.device), None)


def test_features_of_a_parser_steer_the_codes(generator, pixels, monkeypatch):
    torch.manual_seed(0)
    parser = FaceParser(ParserConfig(64, (4, 8))).eval().requires_grad_(False)
    target = Target(pixels, None, parser)
    image = target.image(torch.device("cpu"))
    perceptual = target.perceptual(image.device)
    assert perceptual is not None
    assert float(perceptual(image)) == 0.0
    found = image.mean(dim=(2, 3), keepdim=True).repeat(1, 1, 32, 32).requires_grad_(True)
    distance = perceptual(found)
    assert distance.item() > 0.1
    distance.backward()
    assert found.grad is not None and found.grad.abs().amax() > 0
    with torch.no_grad():
        made = generator.synthesize(generator.sample([1]))
        monkeypatch.setattr(inversion, "_PERCEPTUAL", 2.0)
        assert objective(made, image, None, perceptual) == objective(made, image, None) + 2.0 * perceptual(made.image)

    def distance_after(weight):
        monkeypatch.setattr(inversion, "_PERCEPTUAL", weight)
        settings = InversionSettings(steps=20)
        _, result = finish(invert(generator, None, parser, pixels, settings, run_here, CancelToken()))
        return float(perceptual(generator.synthesize(result.latents).image))

    assert distance_after(3.0) < distance_after(0.0)


@pytest.mark.parametrize(("steps", "share"), [(6, 0.1), (60, 1.0), (200, 1.0)])
def test_few_steps_are_small_ones(generator, pixels, steps, share):
    start = generator.sample([1])
    fit = inversion._Refinement(generator, Target(pixels, None), start, steps, None)
    fit.step()
    fit.step()  # of Adam, as far in every code as the rate is
    far = float(fit.moved.detach().abs().max())
    full = inversion._RATE * sum(inversion._schedule(done / steps) for done in range(2))
    assert far == pytest.approx(share * full, rel=0.35)


def test_a_guide_leads_the_codes_to_who_is_in_the_photo(generator, pixels):
    torch.manual_seed(0)
    guide = FaceGuide(GuideConfig(32, (4, 8), (1,), 16)).eval().requires_grad_(False)
    target = Target(pixels, None, guide=guide)
    image, resemblance = target.image(torch.device("cpu")), target.resemblance(torch.device("cpu"))
    assert resemblance is not None and float(resemblance(image)) == pytest.approx(0.0, abs=1e-5)
    with torch.no_grad():
        made = generator.synthesize(generator.sample([1]))
        far = resemblance(made.image)
        plain = objective(made, image, None)
        assert objective(made, image, None, None, resemblance) == pytest.approx(float(plain + 0.1 * far), abs=1e-5)

    def distance_after(led):
        settings = InversionSettings(steps=30)
        _, result = finish(
            invert(generator, None, None, pixels, settings, run_here, CancelToken(), guide=guide if led else None)
        )
        return float(resemblance(generator.synthesize(result.latents).image))

    assert distance_after(True) < distance_after(False)


def test_the_service_asks_its_guide(pixels, monkeypatch):
    asked: list[object] = []

    def stand_in(*arguments):
        asked.extend(arguments)
        return iter(())

    monkeypatch.setattr("editing.own_photo.invert", stand_in)
    with EditingService(assets(), guides=(guides := Guides())) as service, contextlib.suppress(ValueError):
        list(service.invert(service.open_photo(upload(pixels)).photo, crop=(0, 0, 32)))
    assert asked and asked[-1] is guides.guide() is not None


def test_the_bundled_guide_says_who_it_is_in_unit_vectors():
    faces = load_guide(DEFAULT_GUIDE)(torch.rand(3, 3, 64, 64) * 2 - 1)
    torch.testing.assert_close(faces.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("wrong", [{"size": 40}, {"blocks": (1,)}, {"widths": (4,)}, {"dim": 1}])
def test_impossible_guides_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        GuideConfig(**wrong)


def test_a_guide_is_kept_in_a_file_and_done_without(tmp_path, monkeypatch, caplog):
    file = tmp_path / "guide.safetensors"
    monkeypatch.setattr("editing.guidance.registry.DEFAULT_GUIDE", tmp_path / "missing.safetensors")
    assert Guides().guide() is None and "without a guide" in caplog.text
    monkeypatch.setattr("editing.guidance.registry.DEFAULT_GUIDE", file)
    save_face_net(file, FaceGuide(GuideConfig(32, (4, 8), (1,), 16)), Provenance())
    guides = Guides()
    found = guides.guide()
    assert found is not None and found is guides.guide() and not found.training and found.config.size == 32
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"damaged")
    monkeypatch.setattr("editing.guidance.registry.DEFAULT_GUIDE", damaged)
    assert Guides().guide() is None


def test_own_render_is_independent(generator):
    own = with_own_render(generator)
    assert own.render is not generator.render
    with torch.no_grad():
        next(own.render.parameters()).add_(1.0)
    assert not torch.equal(next(own.render.parameters()), next(generator.render.parameters()))
    assert own.mapping is generator.mapping


@pytest.mark.parametrize("values", [{"steps": -1}, {"steps": 10**6}, {"tune_steps": 1.5}, {"steps": True}])
def test_settings_out_of_range(values):
    with pytest.raises(EditingError, match="whole number"):
        InversionSettings(**values)


@pytest.mark.parametrize("tune_steps", [0, 8])
def test_the_baseline_is_inverted_as_well(tune_steps):
    torch.manual_seed(0)
    baseline = SemanticStyleGAN(get_preset("tiny-32").generator).eval().requires_grad_(False)
    with torch.no_grad():
        target = to_uint8(baseline.synthesize(baseline.sample([123])).image)[0]
    seen, result = finish(run(baseline, target, steps=20, tune_steps=tune_steps))
    assert result.queries is None, "it has no controller"
    assert result.progress.error < 0.9 * seen[0].error
    assert (result.generator is not None) == bool(tune_steps)
    shown = to_uint8((result.generator or baseline).synthesize(result.latents).image)[0]
    assert np.abs(shown.astype(float) - target).mean() == pytest.approx(result.progress.error, abs=0.5)


# --- through the service ----------------------------------------------------------------------------------------------


def upload(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((96, 96)).save(stream, "PNG")
    return stream.getvalue()


def assets() -> Assets:
    generator, sha256 = untrained_generator()
    return Assets(generator, sha256, "tiny", None, None, None, (), {}, False, None)


@pytest.fixture
def service():
    with EditingService(assets(), Limits(max_jobs=1, max_waiting_jobs=1), detector(face_landmarks(96 / 256))) as opened:
        yield opened


def test_a_photo_is_opened_edited_and_replayed(service, pixels):
    photo = service.open_photo(upload(pixels))
    assert len(photo.faces) == 1
    *_, last = service.invert(photo.photo, steps=3)
    assert last.phase == "done"
    view = last.view
    assert view is not None
    assert view.seed is None
    assert np.array_equal(view.image, service.view(view.session).image)
    other = service.new_face(5)
    edited = service.swap(view.session, other.session, ["hair"])
    again = service.open_recipe(service.export_png(view.session))
    assert np.array_equal(again.image, service.model_view(view.session).image)
    assert again.history == edited.history
    assert np.array_equal(service.give_photo(again.session, photo.photo).image, edited.image)
    assert service.variants(view.session, "mouth", 2)[0].image.shape == (512, 512, 3)


def test_a_tuned_face_keeps_its_render_net_while_it_lives(service, pixels):
    photo = service.open_photo(upload(pixels)).photo
    *_, last = service.invert(photo, crop=(0, 0, 96), steps=1, tune_steps=20)
    view = service.model_view(last.view.session)
    assert np.abs(view.image.astype(float) - last.image).mean() < 1.0, "what was shown is what was opened"
    copy = service.duplicate(view.session)
    assert np.array_equal(service.model_view(copy.session).image, view.image)
    preview = service.preview_blend(view.session, service.new_face(3).session, 0.0)
    assert np.array_equal(preview.image, last.view.image), "nothing changed, so it is the photo"
    again = service.open_recipe(service.export_json(view.session))
    assert "tuning" in (again.notice or "")
    assert not np.array_equal(again.image, view.image)


def test_jobs_wait_in_line_and_a_full_line_is_refused(service, pixels):
    photo = service.open_photo(upload(pixels)).photo
    first = service.invert(photo, steps=2)
    assert next(first).phase == "encode"
    second = service.invert(photo, steps=2)
    waiting = next(second)
    assert (waiting.phase, waiting.position) == ("waiting", 1)
    with pytest.raises(BusyError):
        next(service.invert(photo, steps=2))
    assert list(first)[-1].phase == "done"
    assert next(second).phase == "encode"
    assert list(second)[-1].view is not None
    assert service.health()["jobs"] == 0


def test_an_abandoned_job_makes_room(service, pixels):
    photo = service.open_photo(upload(pixels)).photo
    first = service.invert(photo, steps=50)
    next(first)
    first.close()
    assert service.health()["jobs"] == 0
    cancel = CancelToken()
    second = service.invert(photo, steps=50, cancel=cancel)
    next(second)
    cancel.cancel()
    (last,) = list(second)
    assert last.cancelled
    assert last.view is not None


def test_cancelled_while_waiting(service, pixels):
    photo = service.open_photo(upload(pixels)).photo
    first, cancel = service.invert(photo, steps=2), CancelToken()
    next(first)
    second = service.invert(photo, steps=2, cancel=cancel)
    next(second)
    cancel.cancel()
    (last,) = list(second)
    assert last.cancelled
    assert last.view is None
    first.close()


def test_what_cannot_be_inverted(service, pixels):
    with pytest.raises(UnknownSessionError):
        service.invert("nothing")
    photo = service.open_photo(upload(pixels)).photo
    with pytest.raises(EditingError, match="no face 3"):
        service.invert(photo, face=3)
    with pytest.raises(EditingError, match="whole number"):
        service.invert(photo, steps=-1)
    service.close_photo(photo)
    with pytest.raises(UnknownSessionError):
        service.invert(photo)


def test_without_a_detector_the_crop_remains(pixels):
    missing = {"align": "Faces are not found by themselves here; crop by hand."}
    with EditingService(dataclasses.replace(assets(), missing=missing)) as service:
        photo = service.open_photo(upload(pixels))
        assert photo.faces == ()
        assert missing["align"] in photo.notices
        assert service.capabilities["align"] == missing["align"]
        *_, last = service.invert(photo.photo, crop=(0, 0, 96), steps=0)
        assert last.view is not None


def test_turnstile_keeps_the_order():
    turns = Turnstile(1, 2)
    first, second, third = (turns.enter(owner) for owner in "abc")
    assert [turns.position(ticket) for ticket in (first, second, third)] == [0, 1, 2]
    turns.leave(second)
    assert turns.position(third) == 1
    turns.leave(first)
    turns.leave(first)
    assert turns.position(third) == 0


def test_nobody_fills_the_line_alone():
    """Whoever comes late with one job does not wait for all the jobs of somebody who came early with many."""
    turns = Turnstile(2, 5, per_owner=4)
    mine = [turns.enter("me") for _ in range(4)]
    with pytest.raises(BusyError, match="4 of your long jobs"):
        turns.enter("me")
    yours = [turns.enter("you") for _ in range(2)]
    assert [turns.position(ticket) for ticket in mine] == [0, 0, 2, 3]
    assert [turns.position(ticket) for ticket in yours] == [0, 1], "all places were taken by one, so there is one more"
    turns.leave(mine[0])
    assert [turns.position(ticket) for ticket in (*yours, *mine[1:])] == [0, 2, 0, 1, 3]
    turns.enter("somebody else")
    turns.enter("anybody")
    # The line is full, and somebody who has less in it takes the last place of who has the most.
    turns.enter("one too many")
    with pytest.raises(BusyError, match="others came"):
        turns.position(mine[3])
    with pytest.raises(BusyError, match="few minutes"):
        turns.enter("me")


def test_clients_take_turns_before_their_pages_do():
    waiting = ["a/1", "a/1", "a/2", "b/1", "a/3"]
    assert fair_order([], waiting) == [0, 3, 2, 4, 1]
    assert fair_order(["a/1"], waiting) == [3, 2, 4, 0, 1]
    assert fair_order([], []) == [] and fair_order(["a"], ["a", "b"]) == [1, 0]


def test_a_client_that_holds_every_place_does_not_make_others_wait():
    turns = Turnstile(2, 8)
    first, second, third = (turns.enter(f"a/{page}") for page in "123")
    assert [turns.position(ticket) for ticket in (first, second, third)] == [0, 0, 1]
    other = turns.enter("b/1")
    assert turns.position(other) == 0, "one more is let in"
    assert turns.position(turns.enter("c/1")) == 1, "and only one"


def test_photos_of_one_service_do_not_leak_into_another():
    assert PhotoStore().max_photos > 0
    with EditingService(toy_assets()) as one, EditingService(toy_assets()) as two:
        token = one.new_face(1).session
        with pytest.raises(UnknownSessionError):
            two.view(token)
