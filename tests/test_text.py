"""A sentence changes the parts it may and nothing else; it can be stopped at any step and never ends in a NaN."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import finish, toy_assets, toy_generator, toy_service, toy_sliders  # type: ignore[import-not-found]

from editing.device.loading import untrained_generator
from editing.errors import BusyError, EditingError, UnknownSessionError
from editing.face.codes import Codes
from editing.face.edits import TextEdit, without
from editing.face.recipe import Recipe
from editing.face.sources import SeedSource
from editing.face.state import GROUPS, run_here
from editing.guidance.clip import ImageTextJudge, Language
from editing.guidance.identity import IdentityNet
from editing.guidance.registry import Guides
from editing.results import CancelToken, GuidanceInfo
from editing.service import EditingService, Limits
from editing.text import losses, worn
from editing.text import optimize as optimisation
from editing.text.led import led
from editing.text.losses import Words
from editing.text.optimize import LOSSES, STRENGTHS, Spreads, TextSettings, optimize
from editing.text.prompts import tidy
from editing.text.results import TextProgress
from memorygan.parts import FACE_PARTS, LayerGroup
from memorygan.picture import to_uint8

WORDS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "grey": (0.5, 0.5, 0.5)}


class Colours(nn.Module):
    """Understands colours: a picture's vector is its mean colour, a sentence's that of the colours it names."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.broken: Callable[[int], bool] = lambda call: False

    def encode_text(self, tokens: Tensor) -> Tensor:
        return torch.stack([torch.tensor(list(WORDS.values()))[row[row >= 0]].sum(dim=0) for row in tokens])

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        value = pixels.mean(dim=(2, 3)) + 0.1
        return value * float("nan") if self.broken(self.calls) else value


class Tokens:
    """Ids of the colours in a sentence, padded with −1."""

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([(self.encode(prompt) + [-1] * 4)[:4] for prompt in prompts])

    def encode(self, prompt: str) -> list[int]:
        return [list(WORDS).index(word) for word in prompt.lower().split() if word in WORDS]


def colour_judge(closed: bool = True) -> ImageTextJudge:
    def unknown(prompt: str) -> tuple[str, ...]:
        words = "".join(c if c.isalpha() else " " for c in prompt.lower()).split()
        return tuple(dict.fromkeys(word for word in words if word not in {*WORDS, "a", "with", "hair", "face"}))

    return ImageTextJudge(
        "colours", "Colour judge", Colours(), Tokens(), 6, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0),
        Language(unknown, frozenset(("a", "with"))) if closed else None,
    )  # fmt: skip


def identity_net() -> IdentityNet:
    return IdentityNet("corner", "Corner", nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten()))


class StandIns(Guides):
    """Judges without files."""

    def __init__(self, closed: bool = True) -> None:
        self.judge, self.net = colour_judge(closed), identity_net()

    def text(self) -> ImageTextJudge:
        return self.judge

    def identity(self) -> IdentityNet:
        return self.net

    def problem(self, kind: str) -> str:
        return ""

    def info(self) -> GuidanceInfo:
        return GuidanceInfo(None, None)

    def hashes(self) -> dict[str, str]:
        return {"text:colours": "c" * 64}


@pytest.fixture
def service():
    with toy_service(Limits(max_jobs=2, max_waiting_jobs=1), guides=StandIns()) as opened:
        yield opened


@pytest.fixture(scope="module")
def toy():
    return toy_generator()


@pytest.fixture(scope="module")
def tiny():
    return untrained_generator()[0]


def settings_of(steps=10, reach=0.45, **weights) -> TextSettings:
    return dataclasses.replace(TextSettings.preset("normal", steps, **weights), reach=reach)


def follow(
    generator, parts=("hair",), prompt="red", neutral="", judge=None, cancel=None, seed=0, face=4, shown=None,
    layers="all", start=None, **settings,
):  # fmt: skip
    with torch.no_grad():
        source = generator.sample([face])
    steps = optimize(
        lambda: generator, judge or colour_judge(), identity_net(), source, parts, prompt, neutral,
        settings_of(**settings), run_here, cancel or CancelToken(), seed, shown=shown, layers=layers,
        start=start,
    )  # fmt: skip
    return source, steps


def redness(image: np.ndarray) -> float:
    """Share of red in the mean colour."""
    mean = image.reshape(-1, 3).mean(axis=0)
    return float(mean[0] / mean.sum())


def hair_of(generator, w: Tensor) -> float:
    with torch.no_grad():
        made = generator.synthesize(generator.sample([0]).with_w(w))
    return redness(to_uint8(made.image)[0][(made.part_map[0] == generator.config.parts.index("hair")).numpy()])


# --- Eq. 16 and 18, term by term --------------------------------------------------------------------------------------


def test_clip_distance():
    words = Words(colour_judge(), "red")
    image = torch.stack([torch.full((16, 16), value) for value in (0.6, -0.2, 0.0)])[None]
    red, green, blue = 0.8 + 0.1, 0.4 + 0.1, 0.5 + 0.1
    expected = 1 - red / math.sqrt(red**2 + green**2 + blue**2)
    assert float(words(image, image)) == pytest.approx(expected, abs=1e-5)


def test_directional_distance_compares_changes():
    words = Words(colour_judge(), "red", "grey")
    before = torch.zeros(1, 3, 16, 16)
    after = before + torch.tensor([0.8, -0.4, -0.4]).reshape(1, 3, 1, 1)
    unit = lambda *v: np.array(v) / np.linalg.norm(v)  # noqa: E731
    picture = unit(1.0, 0.4, 0.4) - unit(0.6, 0.6, 0.6)
    said = unit(1, 0, 0) - unit(1, 1, 1)
    expected = 1 - picture @ said / np.linalg.norm(said) / (np.linalg.norm(picture) + 1e-2)
    assert float(words(after, before)) == pytest.approx(expected, abs=1e-5)
    assert float(words(before, before)) == pytest.approx(1.0), "no change has no direction"
    with pytest.raises(EditingError, match="mean the same"):
        Words(colour_judge(), "red face", "a red")


def test_rivals_count_by_how_far_the_words_are_ahead_of_them():
    judge = colour_judge()
    judge.language.rivals = lambda prompt: ("blue", "grey")
    words = Words(judge, "red")
    image = torch.stack([torch.full((16, 16), value) for value in (0.6, -0.2, 0.0)])[None]
    colour = np.array([0.8 + 0.1, 0.4 + 0.1, 0.5 + 0.1])
    colour /= np.linalg.norm(colour)
    red, blue, grey = colour[0], colour[2], colour.sum() / math.sqrt(3)
    behind = np.exp(20 * (0.1 + blue - red)) + np.exp(20 * (0.1 + grey - red))
    assert float(words(image, image)) == pytest.approx(math.log(1 + behind) / 20, abs=1e-4)
    plain = torch.zeros(1, 3, 16, 16)
    assert float(words(image, image)) < float(words(plain, plain))
    assert Words(judge, "red", "grey").rivals is None, "a sentence for the face as it is takes their place"


def test_latent_identity_and_segmentation_terms():
    shift = torch.tensor([[[3.0, 1.0], [9.0, 9.0]]])
    assert float(losses.latent_loss(shift, torch.tensor([[True, False]]))) == pytest.approx((9 + 1) / 2)
    assert float(losses.identity_loss(torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]]))) == pytest.approx(0.4)
    first, second = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    second[0, 0, 0, 0] = 2.0
    assert float(losses.segmentation_loss(first, second)) == pytest.approx(4 / 8)


def test_change_is_measured_in_one_place_only():
    source = torch.zeros(1, 3, 2, 2)
    image = source.clone()
    image[..., 0, 0], image[..., 1, 1] = 1.0, -0.6
    where = torch.tensor([[[False, True], [True, True]]])
    assert float(losses.change_loss(image, source, where)) == pytest.approx(0.6 / 3)
    assert float(losses.change_loss(image, source, torch.zeros_like(where))) == 0


def test_size_loss_is_the_growth_that_is_missing():
    def masks(half: float) -> Tensor:
        found = torch.full((1, 2, 8, 8), -1.2)  # masks are not clipped
        found[0, 1, :2, :4] = 1.1
        found[0, 1, 2, :4] = half
        return found

    source = masks(-1.0)  # 8 of 64 pixels
    assert float(losses.size_loss(source, source, 1, 1)) == pytest.approx(math.log(1.25))
    assert float(losses.size_loss(source, source, 1, -1)) == pytest.approx(math.log(1.25))
    half = masks(-0.5)  # four pixels, each a quarter covered
    assert float(losses.size_loss(half, source, 1, 1)) == pytest.approx(math.log(1.25) - math.log(9 / 8))
    assert float(losses.size_loss(half, source, 1, -1)) == pytest.approx(math.log(1.25) + math.log(9 / 8))
    assert float(losses.size_loss(masks(1.0), source, 1, 1)) == 0, "large enough"
    assert float(losses.size_loss(half, source, 0, 1)) == 0, "what hardly shows has no size"


def test_the_total_is_the_weighted_sum(toy):
    weights = {"clip": 2.0, "latent": 0.3, "identity": 0.7, "segmentation": 5.0, "outside": 0.4}
    _, steps = follow(toy, steps=3, **weights)
    *_, last = finish(steps)[0]
    assert all(last.losses[name] > 0 for name in LOSSES)
    assert last.losses["total"] == pytest.approx(sum(weights[name] * last.losses[name] for name in LOSSES), rel=1e-5)


def test_at_the_start_only_the_words_cost_anything(toy):
    _, steps = follow(toy)
    first = next(steps)
    assert (first.step, first.losses["latent"], first.losses["segmentation"]) == (0, 0.0, 0.0)
    assert first.losses["identity"] == pytest.approx(0.0, abs=1e-5)
    assert first.losses["total"] == pytest.approx(first.losses["clip"], abs=1e-4)


def test_crops_lie_within_the_picture_and_show_it_enlarged():
    boxes = losses.crop_boxes(50, torch.Generator().manual_seed(0))
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-6).all()
    assert 0.85 <= float(boxes[:, 2].min()) < 0.87 and float(boxes[:, 2].max()) <= 1
    image = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
    views = losses.crops(image, torch.tensor([[0.5, 0.0, 0.5]]))
    assert torch.equal(views[:1], image)
    assert views.shape == (2, 3, 4, 4)
    assert (float(views[1].min()), float(views[1].max())) == (2.0, 7.0), "the upper right quarter"


@pytest.mark.parametrize(
    ("weight", "name"), [("latent", "latent"), ("identity", "identity"), ("segmentation", "segmentation")]
)
def test_each_weight_holds_its_loss_down(toy, weight, name):
    free = finish(follow(toy, ("hair", "skin"), steps=25, **dict.fromkeys(LOSSES[1:], 0.0))[1])[0][-1]
    held = finish(follow(toy, ("hair", "skin"), steps=25, **{**dict.fromkeys(LOSSES[1:], 0.0), weight: 50.0})[1])[0][-1]
    assert held.losses[name] < 0.5 * free.losses[name]


# --- The optimisation -------------------------------------------------------------------------------------------------


def test_hair_gets_redder_and_greener_as_asked(toy):
    found = {}
    before = hair_of(toy, toy.sample([4]).w)
    for prompt in ("red", "green"):
        _, steps = follow(toy, prompt=prompt, steps=40)
        seen, result = finish(steps)
        assert [progress.step for progress in seen] == list(range(41))
        assert result.progress.phase == "done" and result.progress.best_step > 0
        assert result.progress.losses["clip"] < seen[0].losses["clip"]
        found[prompt] = hair_of(toy, result.w)
    assert found["green"] < before - 0.01 < before + 0.01 < found["red"]


def test_a_neutral_sentence_works_too(toy):
    source, steps = follow(toy, prompt="red", neutral="grey", steps=40)
    assert hair_of(toy, finish(steps)[1].w) > hair_of(toy, source.w) + 0.01


def area_of(generator, w: Tensor, part: str) -> float:
    with torch.no_grad():
        made = generator.synthesize(generator.sample([0]).with_w(w))
    return float((made.part_map == generator.config.parts.index(part)).float().mean())


def test_what_a_sentence_calls_big_or_small_becomes_so(toy):
    before, found = area_of(toy, toy.sample([4]).w, "hair"), {}
    for sign in (1, -1):
        judge = colour_judge()
        said = {"red": (("hair", sign), ("tail", 1))}
        judge.language.sizes = lambda prompt, said=said: said.get(prompt, ())  # type: ignore[misc]
        _, steps = follow(toy, judge=judge, steps=40)
        found[sign] = area_of(toy, finish(steps)[1].w, "hair")
        assert Words(judge, "red", "grey").sizes == judge.language.sizes("red")
    assert found[-1] < 0.95 * before < 1.05 * before < found[1]


def test_a_size_that_the_face_is_said_to_have_already_asks_for_nothing():
    judge = colour_judge()
    judge.language.sizes = lambda prompt: (("hair", 1),)
    assert Words(judge, "red", "grey").sizes == ()


@pytest.mark.parametrize(("layers", "group"), [("shape", LayerGroup.SHAPE), ("texture", LayerGroup.TEXTURE)])
def test_only_the_chosen_layers_move(toy, layers, group):
    source, steps = follow(toy, layers=layers, outside=0.0)
    moved = (finish(steps)[1].w != source.w).any(dim=3)
    assert torch.equal(moved, source.selection(["hair"], [group])[None])


def test_parts_that_only_help_keep_their_looks(toy):
    hair, skin = (toy.config.parts.index(part) for part in ("hair", "skin"))
    changes = {}
    for shown in (("hair",), ("hair", "skin")):
        source, steps = follow(toy, ("hair", "skin"), steps=40, shown=shown, outside=5.0)
        w = finish(steps)[1].w
        with torch.no_grad():
            before, after = toy.synthesize(source), toy.synthesize(source.with_w(w))
        change = (after.image - before.image).abs().mean(dim=1)
        both = before.part_map == after.part_map
        changes[shown] = [float(change[both & (before.part_map == part)].mean()) for part in (hair, skin)]
        assert not torch.equal(w[0, skin], source.w[0, skin]), "their codes may move"
    (_, helping), (_, free) = changes.values()
    assert helping < 0.2 * free
    assert changes["hair",][0] > 5 * helping


@pytest.mark.parametrize("parts", [("hair",), ("mouth", "skin")])
def test_frozen_codes_are_bit_identical(tiny, parts):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    source, steps = follow(tiny, parts, steps=4, outside=0.0)  # untrained, it cannot change one part alone
    w = finish(steps)[1].w
    free = source.selection(parts)
    assert torch.equal(w[0][~free], source.w[0][~free])
    assert (w[0][free] != source.w[0][free]).float().mean() > 0.9
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items()), "it is shared"


def leading_judge() -> ImageTextJudge:
    judge = colour_judge()
    said = {"red": (("hair.lightness", 2.0), ("hair.tail", 3.0)), "grey": (("hair.lightness", 2.0),)}
    judge.language.leads = lambda prompt: said.get(prompt, ())  # type: ignore[misc]
    return judge


def test_a_sentence_that_says_what_a_slider_does_begins_with_it(toy):
    source, sliders, judge = toy.sample([4]), toy_sliders(toy, "toy"), leading_judge()
    moved = source.w.clone()
    sliders.move(moved, "hair.lightness", 2.0, toy.config)
    assert torch.equal(led(source, sliders, judge, "red").w, moved), "and of a slider that is not there nothing comes"
    strong = led(source, sliders, judge, "red", settings=TextSettings.preset("strong")).w - source.w
    torch.testing.assert_close(strong, (moved - source.w) * 0.6 / 0.45, rtol=1e-3, atol=1e-4)
    for unled in (
        led(source, None, judge, "red"),
        led(source, sliders, judge, "green"),
        led(source, sliders, judge, "red", "grey"),
    ):
        assert torch.equal(unled.w, source.w)


@pytest.mark.parametrize("layers", ["all", "shape"])
def test_what_a_sentence_begins_with_keeps_to_the_layers_that_may_change(toy, layers):
    begin = toy.sample([5])
    source, steps = follow(toy, layers=layers, start=begin, steps=1)
    first, free = next(steps), source.selection(["hair"], GROUPS[layers])
    wanted = source.with_w(torch.where(free[None, ..., None], begin.w, source.w))
    assert np.array_equal(first.image, to_uint8(toy.synthesize(wanted).image)[0])
    result = finish(steps)[1].w
    assert torch.equal(result[0][~free], source.w[0][~free]) and not torch.equal(result, source.w)


def test_a_face_that_is_as_the_sentence_says_begins_as_it_is(toy):
    judge = colour_judge()
    judge.language.rivals = lambda prompt: ("green",)  # type: ignore[misc]
    for margin, begun in ((-0.3, False), (2.0, True)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(losses, "_MARGIN", margin)
            own = next(follow(toy, judge=judge)[1]).losses["clip"]
            first = next(follow(toy, judge=judge, start=toy.sample([5]))[1]).losses["clip"]
        assert (first != pytest.approx(own)) == begun


def test_the_service_begins_with_sliders():
    guides = StandIns()
    guides.judge.language.leads = lambda prompt: (("hair.lightness", 3.0),)  # type: ignore[misc]
    with toy_service(guides=guides) as service:
        before = service.new_face(4)
        last = list(service.describe(before.session, "red hair", steps=1))[-1]
        assert last.proposal is not None
        hair = before.part_map == FACE_PARTS.index("hair")
        assert last.image[hair].mean() > before.image[hair].mean() + 5


def _shape_of_glasses(generator, w: Tensor) -> Tensor:
    shape = generator.config.layer_range(LayerGroup.SHAPE)
    return w[..., generator.config.parts.index("eyeglass"), shape.start : shape.stop, :]


def test_glasses_begin_as_those_of_the_sampled_face_that_suit_the_words_best(toy, monkeypatch):
    monkeypatch.setattr(optimisation, "_BETTER", 0.0)  # the toy's are a few pixels
    source, steps = follow(toy, ("eyeglass",), "red glasses", steps=8)
    shown, result = finish(steps)
    ours, others = _shape_of_glasses(toy, result.w), _shape_of_glasses(toy, Spreads().samples(toy))
    assert not torch.equal(ours[0], _shape_of_glasses(toy, source.w)[0])
    assert (ours == others).flatten(1).all(dim=1).any(), "their shape is theirs, to the bit"
    _, moved = follow(toy, ("eyeglass",), "red", steps=8)
    begun = next(moved)
    assert shown[0].losses["clip"] < begun.losses["clip"], "a sentence that speaks of none begins with the face"
    untouched = [k for k, name in enumerate(toy.config.parts.names) if name != "eyeglass"]
    assert torch.equal(result.w[:, untouched], source.w[:, untouched])


def test_glasses_that_are_no_better_are_not_taken(toy, monkeypatch):
    monkeypatch.setattr(optimisation, "candidates", lambda g, face, depth, sampled, free, part, on: face.w[:, part])
    source, steps = follow(toy, ("eyeglass",), "red goggles", steps=8)
    shown, result = finish(steps)
    assert shown[0].losses["clip"] == pytest.approx(next(follow(toy, ("eyeglass",), "red")[1]).losses["clip"])
    assert not torch.equal(_shape_of_glasses(toy, result.w), _shape_of_glasses(toy, source.w)), "and may be reshaped"


def test_sunglasses_are_the_darkest_and_stay_as_they_are(toy, monkeypatch):
    dark, tried = iter([3.0, 9.0, *[1.0] * 18]), []

    def darkness(made):
        tried.append(made.image)
        return next(dark)

    monkeypatch.setattr(optimisation, "darkness", darkness)
    monkeypatch.setattr(optimisation, "area", lambda part_map, part: 0.0)
    _, steps = follow(toy, ("eyeglass",), "red sunglasses", steps=8)
    shown, _ = finish(steps)
    assert np.array_equal(shown[-1].image, to_uint8(tried[1])[0]) and shown[-1].step == 0


def test_who_wears_none_has_none_to_take_off(toy, monkeypatch):
    for worn_by, changed in ((0.0, False), (0.1, True)):
        monkeypatch.setattr(optimisation, "area", lambda part_map, part, worn_by=worn_by: worn_by)
        monkeypatch.setattr(optimisation, "_BETTER", -1.0)
        source, steps = follow(toy, ("eyeglass",), "red without glasses", steps=1)
        first = next(steps)
        assert (not np.array_equal(first.image, to_uint8(toy.synthesize(source).image)[0])) == changed


def test_glasses_are_tried_on_whose_part_shows_most_or_least(toy):
    face, part = toy.sample([4]), toy.config.parts.index("eyeglass")
    sampled = Spreads().samples(toy)[:, part]
    free = face.selection(["eyeglass"]).cpu()[part]
    on, off = (
        worn.candidates(toy, face, toy.retrieve(face).depth, sampled, free, part, kind) for kind in (True, False)
    )
    assert torch.equal(on[:, ~free], face.w[:, part][:, ~free].expand(20, -1, -1))

    def share(codes: Tensor) -> float:
        w = face.w.clone()
        w[0, part] = codes
        return float(toy.retrieve(face.with_w(w)).depth.softmax(dim=1)[0, part].mean())

    all_of_them = sorted(share(torch.where(free[:, None], one, face.w[0, part])) for one in sampled)
    assert sorted(map(share, on)) == pytest.approx(all_of_them[-20:])
    assert sorted(map(share, off)) == pytest.approx(all_of_them[:4])


def test_the_trust_region_bounds_every_layer(toy, monkeypatch):
    monkeypatch.setattr("editing.text.optimize._RATE", 0.5)
    source, steps = follow(toy, steps=60, reach=0.3, latent=0.0)
    w = finish(steps)[1].w
    with torch.no_grad():
        faces = toy.sample(range(64)).w
    k, layers = toy.config.parts.index("hair"), source.selection(["hair"])[toy.config.parts.index("hair")]
    moved = (w - source.w)[0, k, layers].square().sum(dim=1).sqrt()
    natural = (faces[:, k, -1] - faces[:, k, -1].mean(dim=0)).square().sum(dim=1).mean().sqrt()
    assert 0.0 < float(moved.max()) < float(natural)


def test_cancelling_ends_within_a_step_with_the_best_so_far(toy):
    cancel = CancelToken()
    _, steps = follow(toy, steps=500, cancel=cancel)
    last = [next(steps) for _ in range(8)][-1]
    cancel.cancel()
    rest, result = finish(steps)
    assert rest == []
    assert result.progress.cancelled and result.progress.step == 7
    assert 0 < result.progress.best_step <= 7
    assert np.array_equal(result.progress.image, last.image)


def test_a_judge_that_answers_nan_never_reaches_the_result(toy):
    judge, colours = colour_judge(), Colours()
    judge._model = colours
    colours.broken = lambda call: call % 3 == 2
    source, steps = follow(toy, judge=judge, steps=30)
    seen, result = finish(steps)
    assert sum(math.isnan(progress.losses["total"]) for progress in seen) > 5
    assert torch.isfinite(result.w).all()
    assert hair_of(toy, result.w) > hair_of(toy, source.w)
    colours.broken = lambda call: True
    source, steps = follow(toy, judge=judge, steps=5)
    result = finish(steps)[1]
    assert result.progress.best_step == 0
    assert torch.equal(result.w, source.w)
    assert result.progress.image.shape == (32, 32, 3)


def test_gradients_that_explode_are_not_followed(toy, monkeypatch):
    monkeypatch.setattr("editing.text.optimize.latent_loss", lambda shift, free: (shift[free] * 0).sqrt().sum())
    source, steps = follow(toy, steps=5)
    result = finish(steps)[1]
    assert torch.equal(result.w, source.w), "the root has no slope at zero"


def test_same_seed_same_result(toy):
    results = [finish(follow(toy, seed=seed, steps=6)[1])[1].w for seed in (1, 1, 2)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    "values",
    [{"steps": 0}, {"steps": 10**6}, {"steps": 2.5}, {"clip": -1.0}, {"latent": math.nan}, {"identity": True},
     {"segmentation": "much"}],
)  # fmt: skip
def test_settings_out_of_range(values):
    with pytest.raises(EditingError, match=f"{next(iter(values))} is .*; use a"):
        settings_of(**values)


def test_presets_are_ordered_and_can_be_changed():
    subtle, normal, strong = (TextSettings.preset(name) for name in STRENGTHS)
    assert normal == TextSettings()
    assert subtle.reach < normal.reach < strong.reach
    assert subtle.weights["latent"] > normal.weights["latent"] > strong.weights["latent"]
    assert TextSettings.preset("strong", steps=5, clip=2.0).weights["clip"] == 2.0
    with pytest.raises(EditingError, match="'violent'; use one of subtle, normal, strong"):
        TextSettings.preset("violent")


# --- Sentences --------------------------------------------------------------------------------------------------------


def test_sentences_are_tidied():
    assert tidy("  red\n\thair\x00 \u202e ") == ("red hair", ())
    assert tidy("a\ud800b")[0] == "a b"
    long, notices = tidy("red hair " * 1111)
    assert 900 < len(long) <= 1000 and long.endswith(("red", "hair"))
    assert "beginning" in notices[0]
    assert len(tidy("x" * 10_000)[0]) == 1000
    for text in ("", " \n ", "\x00", "\u200b"):
        with pytest.raises(EditingError, match="empty"):
            tidy(text)
    with pytest.raises(EditingError, match="characters"):
        tidy("x" * 100_001)


@pytest.mark.parametrize(
    "prompt", ["🦊🔥", "红头发的女人", "рыжие волосы", "zeppelin", "'zeppelin'", "zeppelin's", "a with", "?!", "42"]
)
def test_a_sentence_without_a_known_word_is_refused(service, prompt):
    face = service.new_face(1).session
    with pytest.raises(EditingError, match="Colour judge knows no word of this"):
        service.describe(face, prompt)


def test_what_the_judge_does_not_read_is_said(service):
    face = service.new_face(1).session
    first = next(service.describe(face, "red hair like a zeppelin"))
    assert "not taught the words “like”, “zeppelin”" in first.notices[0]
    long = next(service.describe(face, "red " * 9))
    assert "its end is not used" in long.notices[0]
    assert next(service.describe(face, "red hair")).notices == ()
    service._guides.judge.language.weak = lambda prompt: ("red",) if "red" in prompt else ()
    (notice,) = next(service.describe(face, "red hair")).notices
    assert "hardly sees “red”" in notice
    service._guides.judge.language.weak = lambda prompt: ()
    very_long = next(service.describe(face, "red hair " * 1111))
    assert "only its beginning is used" in very_long.notices[0]


def test_a_judge_of_open_vocabulary_takes_anything_it_can_spell():
    judge = colour_judge(closed=False)
    assert judge.understands("red zeppelin")
    assert not judge.understands("…")


# --- Through the service ----------------------------------------------------------------------------------------------


def described(service, face, prompt="red hair", **changes):
    *_, last = service.describe(face, prompt, **{"steps": 20, "seed": 1, **changes})
    assert last.phase == "done"
    return last


def test_described_applied_undone_and_replayed(service):
    face = service.new_face(4)
    last = described(service, face.session)
    proposal = last.proposal
    assert proposal.edit.parts == ("hair",)
    assert proposal.change.parts == ("hair",)
    assert proposal.change.inside > 5 * proposal.change.outside
    assert np.array_equal(service.view(face.session).image, face.image), "nothing is committed yet"
    view = service.apply_description(face.session, proposal)
    assert np.array_equal(view.image, proposal.image) and np.array_equal(view.image, last.image)
    assert view.history == ("Hair: “red hair”",)
    assert np.array_equal(view.change.map, proposal.change.map)
    assert np.array_equal(service.undo(face.session).image, face.image)
    assert np.array_equal(service.redo(face.session).image, view.image)
    saved = service.export_png(face.session)
    with EditingService(toy_assets()) as without_judges:
        again = without_judges.open_recipe(saved)
    assert np.array_equal(again.image, view.image)
    assert again.history == view.history
    edit = json.loads(service.export_json(face.session))["edits"][0]
    assert (edit["op"], edit["prompt"], edit["judges"]) == ("text", "red hair", {"text:colours": "c" * 64})
    assert np.array_equal(service.reset_part(face.session, "hair").image, face.image)


def test_what_a_sentence_is_about_keeps_to_the_model(service):
    assert service.subject("wearing glasses and a hat").parts == ("eyeglass", "hat")
    assert service.subject("red hair").layers == "texture"


def test_a_sentence_about_colour_leaves_the_cut_alone(service):
    face = service.new_face(4)
    moved = {}
    for layers in (None, "shape", "all"):
        edit = described(service, face.session, layers=layers, weights={"outside": 0.0}).proposal.edit
        with service._store.using(face.session) as session:
            moved[edit.layers] = (session.latents((edit,)).w != session.latents(()).w).any(dim=3)[0]
    assert list(moved) == ["texture", "shape", "all"]
    assert torch.equal(moved["texture"] | moved["shape"], moved["all"])
    assert not (moved["texture"] & moved["shape"]).any()
    # What the edit cannot change stays adjustable on top of it.
    service.set_sliders(face.session, {"hair.width": 1.0, "hair.lightness": 1.0})
    proposal = described(service, face.session).proposal
    view = service.apply_description(face.session, proposal)
    assert np.array_equal(view.image, proposal.image)
    assert set(view.sliders) == {"hair.width"}


def test_what_only_helps_keeps_its_looks_through_the_service(service):
    face, changes = service.new_face(4), {}
    for prompt in ("red eyes", "red skin"):  # of skin, the judge of colours knows as little as of eyes
        image = described(service, face.session, prompt, parts=["skin", "eyes", "hair"], layers="all").image
        hair = face.part_map == service._scheme.index("hair")
        changes[prompt] = np.abs(image.astype(int) - face.image)[hair].mean()
    assert changes["red eyes"] < 0.5 * changes["red skin"]


def test_resetting_one_of_several_parts_keeps_the_others(service):
    face = service.new_face(4)
    proposal = described(service, face.session, parts=["skin", "hair"]).proposal
    both = service.apply_description(face.session, proposal)
    one = service.reset_part(face.session, "skin")
    assert one.history == ("Hair: “red hair”",)
    with service._store.using(face.session) as session:
        w, source = session.latents().w, session.latents(()).w
        full = session.latents((proposal.edit,)).w
    hair, skin = (service._scheme.index(name) for name in ("hair", "skin"))
    assert torch.equal(w[0, hair], full[0, hair]) and not torch.equal(w[0, hair], source[0, hair])
    assert torch.equal(w[0, skin], source[0, skin])
    assert not np.array_equal(one.image, both.image)


def test_only_the_allowed_parts_move_whatever_was_done_before(service):
    face = service.new_face(4).session
    other = service.new_face(9).session
    service.set_sliders(face, {"hair.lightness": 1.5, "hair.width": -1.0, "mouth.width": 2.0, "base.right": 1.0})
    service.swap(face, other, ["nose"])
    before = service.view(face)
    with service._store.using(face) as session:
        source = session.latents().w
    proposal = described(service, face, parts=["hair", "eyes"]).proposal
    view = service.apply_description(face, proposal)
    assert np.array_equal(view.image, proposal.image)
    with service._store.using(face) as session:
        w = session.latents().w
    frozen = [k for k, name in enumerate(service._scheme.names) if name not in ("hair", "eyes")]
    assert torch.equal(w[:, frozen], source[:, frozen])
    assert set(view.sliders) == {"mouth.width", "base.right", "hair.width"}, "hair's lightness became part of it"
    assert np.array_equal(service.open_recipe(service.export_json(face)).image, view.image)
    # What stays on top can still be taken back.
    moved = service.set_sliders(face, {"base.right": 0.0})
    assert not np.array_equal(moved.image, view.image)
    assert np.array_equal(service.set_sliders(face, {"base.right": 1.0}).image, view.image)
    assert before.revision < view.revision


def test_a_proposal_fits_the_face_it_was_made_for_alone(service):
    face, other = service.new_face(4).session, service.new_face(4).session
    proposal = described(service, face).proposal
    with pytest.raises(EditingError, match="another face"):
        service.apply_description(other, proposal)
    service.set_sliders(face, {"mouth.width": 1.0})
    with pytest.raises(EditingError, match="has changed since"):
        service.apply_description(face, proposal)
    service.undo(face)
    assert service.apply_description(face, proposal).history == ("Hair: “red hair”",)
    with pytest.raises(UnknownSessionError):
        service.describe("nothing", "red hair")


def test_cancelled_through_the_service(service):
    face, cancel = service.new_face(4).session, CancelToken()
    steps = service.describe(face, "red hair", steps=500, cancel=cancel)
    for _ in range(6):
        next(steps)
    cancel.cancel()
    (last,) = list(steps)
    assert (last.phase, last.cancelled, last.step) == ("done", True, 5)
    assert last.proposal is not None and last.proposal.edit.steps == 5
    assert service.health()["jobs"] == 0
    early = CancelToken()
    early.cancel()
    *_, last = service.describe(face, "red hair", cancel=early)
    assert last.proposal is None
    assert "Nothing better" in last.notices[-1]


def test_two_sentences_take_turns_and_a_third_waits(service):
    faces = [service.new_face(seed).session for seed in (1, 2, 3)]
    jobs = [service.describe(face, "red hair", steps=12, seed=0) for face in faces]
    alone = described(service, faces[0], steps=12, seed=0)
    next(jobs[0]), next(jobs[1])
    waiting = next(jobs[2])
    assert (waiting.phase, waiting.position, waiting.losses) == ("waiting", 1, {})
    with pytest.raises(BusyError):
        next(service.describe(faces[0], "red hair"))
    order: list[int] = []
    done: dict[int, TextProgress] = {}

    def work(number: int) -> None:
        for progress in jobs[number]:
            order.append(number)
            done[number] = progress

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    proposals = [done[number].proposal for number in range(3)]
    first = order[: order.index(1) + 12]
    assert {0, 1} <= set(first), "neither waits for the other to end"
    assert all(proposal is not None for proposal in proposals)
    assert np.array_equal(done[0].image, alone.image), "company changes no result"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": "  "}, "is empty"),
        ({"prompt": None}, "not a text"),
        ({"parts": ["hair", "wings"]}, "unknown part 'wings'"),
        ({"parts": []}, "choose at least one"),
        ({"strength": "violent"}, "use one of subtle"),
        ({"weights": {"beauty": 1.0}}, "no loss 'beauty'"),
        ({"weights": {"clip": -1.0}}, "clip is -1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"neutral": "zeppelin"}, "knows no word"),
        ({"layers": "every"}, "the layers are 'every'; use one of all, shape, texture"),
    ],
)
def test_what_is_refused_at_once(service, changes, sentence):
    face = service.new_face(1).session
    with pytest.raises(EditingError, match=sentence):
        service.describe(face, **{"prompt": "red hair", **changes})


def test_the_same_sentence_twice_is_refused(service):
    with pytest.raises(EditingError, match="mean the same"):
        list(service.describe(service.new_face(1).session, "red hair", neutral="a red face"))
    assert service.health()["jobs"] == 0


def test_without_judges_sentences_are_off_and_say_so():
    with EditingService(toy_assets()) as service:
        assert "sentences" in service.capabilities["text"]
        assert service.guidance() == GuidanceInfo(None, None)
        with pytest.raises(EditingError, match="sentences"):
            service.describe(service.new_face(1).session, "red hair")


def test_the_judges_work_in_inversion_too(service):
    assert service.capabilities["identity"] == ""
    judge = service._guides.identity()
    first = np.zeros((32, 32, 3), dtype=np.uint8)
    first[:16] = 255
    assert judge(first, first) == pytest.approx(1.0, abs=1e-6)
    assert judge(first, 255 - first) == pytest.approx(-1.0, abs=1e-6)


# --- As plain data ----------------------------------------------------------------------------------------------------


def edit(**changes) -> TextEdit:
    codes = Codes.of(torch.arange(2 * 10 * 32).reshape(2, 10, 32) / 640)
    return dataclasses.replace(TextEdit("red hair", ("skin", "hair"), codes, judges=(("text:x", "a" * 64),)), **changes)


def test_edits_survive_json_and_lose_parts():
    recipe = Recipe("c", SeedSource(4), (edit(neutral="a face", weights=(("clip", 1.0),), seed=3),))
    assert Recipe.from_json(recipe.to_json()) == recipe
    before = recipe.to_dict()
    del before["edits"][0]["layers"]  # as recipes were before there was a choice
    assert Recipe.from_dict(before) == recipe
    hair = without(edit(), "skin")
    assert isinstance(hair, TextEdit) and hair.parts == ("hair",)
    assert torch.equal(hair.codes.tensor(), edit().codes.tensor()[1:])
    assert without(hair, "hair") is None
    assert without(edit(), "nose") == edit()
    assert edit(prompt="x" * 200).describe() == f"Skin, hair: “{'x' * 59}…”"


@pytest.mark.parametrize(
    ("key", "value"),
    [("prompt", None), ("prompt", "x" * 1001), ("parts", []), ("codes", 3), ("weights", {"clip": "1"}), ("steps", -1),
     ("seed", 1.5), ("judges", ["x"]), ("layers", "deep")],
)  # fmt: skip
def test_damaged_edits_are_refused(key, value):
    data = Recipe("c", SeedSource(4), (edit(),)).to_dict()
    data["edits"][0][key] = value
    with pytest.raises(EditingError):
        Recipe.from_dict(data)


def test_codes_of_another_shape_are_refused(service):
    face = service.new_face(4)
    recipe = service.recipe(face.session)
    wrong = dataclasses.replace(recipe, edits=(edit(codes=Codes.of(torch.zeros(1, 10, 32))),))
    with pytest.raises(EditingError, match=r"shape \(1, 10, 32\), this edit needs \(2, 10, 32\)"):
        service.open_recipe(wrong.to_json())
