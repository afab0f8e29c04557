"""Sliders do what they are called, on faces they were not fitted on; what does nothing is left out."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from toy import measured, toy_generator, toy_sliders  # type: ignore[import-not-found]

from editing.device.loading import Assets, untrained_generator
from editing.errors import EditingError
from editing.service import EditingService
from editing.sliders.directions import Slider, SliderSet
from editing.sliders.fit import SliderFitter, main, report
from editing.sliders.probe import Batch, leak
from editing.sliders.properties import COLOURS, Property, properties_of, scene
from editing.sliders.regression import components, correlation, orthogonal, principal, quieter, ridge, unbroken
from editing.sliders.target import FitSettings, TargetFit, Trial
from memorygan.baseline import SemanticStyleGAN
from memorygan.checkpoint import Provenance, save_generator, save_module
from memorygan.config import get_preset
from memorygan.generator import MemoryGAN, Synthesis
from memorygan.manifest import _verify, read_manifest, update_manifest
from memorygan.parts import FACE_PARTS, LayerGroup

SETTINGS = FitSettings(faces=64, test_faces=8, components=10, batch=32)


@pytest.fixture(scope="module")
def generator():
    return toy_generator()


@pytest.fixture(scope="module")
def fitted(generator) -> SliderSet:
    return SliderFitter(generator, "c" * 64, SETTINGS).fit(["hair", "base"])


def test_fitted_sliders_do_what_they_are_called(generator, fitted):
    named = [slider for slider in fitted.of("hair") if slider.measured]
    assert {slider.group for slider in named} == {LayerGroup.SHAPE, LayerGroup.TEXTURE}
    assert {"hair.lightness", "base.right", "base.up"} <= {slider.id for slider in fitted}
    latents = generator.sample(range(900, 912), truncation=0.8)
    k = generator.config.parts.index("hair")
    for slider in named:
        layers = generator.config.layer_range(slider.group)
        values = []
        for value in (-3.0, 0.0, 3.0):
            w = latents.w.clone()
            w[:, k, layers.start : layers.stop] += value * fitted.direction(slider.id)
            faces = generator.synthesize(latents.with_w(w))
            values.append(float(measured(faces, generator, "hair", slider.measured).nanmean()))
        assert values[0] < values[1] < values[2], slider.id


def test_the_report_tells_effect_and_locality(fitted):
    table = report(fitted)
    for slider in fitted:
        assert f"| {slider.id} |" in table
        assert slider.inside > 2 * slider.outside
        if slider.measured:
            assert slider.correlation >= SETTINGS.min_correlation
            assert slider.strength >= SETTINGS.min_strength
            assert slider.effect > 0


def test_what_a_code_does_not_govern_gets_no_slider(fitted):
    """The toy's heads do not turn, nod, tilt or grow, whatever their base code."""
    assert not {"base.yaw", "base.pitch", "base.tilt", "base.size"} & {slider.id for slider in fitted}


def test_every_part_has_four_to_ten_sliders(fitted):
    for part in ("hair", "base"):
        sliders = fitted.of(part)
        assert 4 <= len(sliders) <= 10
        neutral = [slider for slider in sliders if not slider.measured]
        assert all(slider.label.split()[0] in ("Shape", "Texture", "Base") for slider in neutral)


def test_directions_of_one_group_are_orthogonal_in_units_of_spread(generator, fitted):
    """Otherwise the second slider would do what the first one is called."""
    latents = generator.sample(range(100_000, 100_000 + SETTINGS.faces), truncation=0.8)
    codes = latents.w[:, latents.config.parts.index("hair"), -1].double()
    to_z = principal(codes, SETTINGS.components).to_z
    for group in (LayerGroup.SHAPE, LayerGroup.TEXTURE):
        names = [slider.id for slider in fitted.of("hair") if slider.group == group]
        z = torch.stack([fitted.direction(name).double() @ to_z for name in names])
        long = z.norm(dim=1, keepdim=True)  # a deviation of the codes; up to twice that for what people ask for
        asked = torch.tensor([[name in ("hair.length", "hair.bangs")] for name in names])
        assert torch.allclose(long[~asked], torch.ones(1, dtype=torch.float64), atol=1e-3)
        assert bool(((long > 1 - 1e-3) & (long < 2 + 1e-3)).all())
        assert torch.allclose(z @ z.T / (long * long.T), torch.eye(len(names), dtype=torch.float64), atol=1e-3)


def test_stored_sliders_come_back_the_same(tmp_path, fitted, generator):
    path = tmp_path / "sliders.safetensors"
    digest = fitted.save(path)
    loaded = SliderSet.load(path, "c" * 64, generator.config.parts, generator.config.style_dim)
    assert loaded.sliders == fitted.sliders
    assert loaded.sha256 == digest
    assert torch.equal(loaded.directions, fitted.directions)


def test_sliders_of_another_checkpoint_are_refused(tmp_path, fitted, generator):
    path = tmp_path / "sliders.safetensors"
    fitted.save(path)
    scheme, dim = generator.config.parts, generator.config.style_dim
    with pytest.raises(EditingError, match="another checkpoint"):
        SliderSet.load(path, "d" * 64, scheme, dim)
    with pytest.raises(EditingError, match="does not fit"):
        SliderSet.load(path, "c" * 64, scheme, dim + 1)
    with pytest.raises(EditingError, match="cannot be read"):
        SliderSet.load(tmp_path / "none.safetensors", "c" * 64, scheme, dim)
    save_module(path, {"directions": torch.zeros(1, dim)}, {"kind": "sliders", "checkpoint": "c", "sliders": [{}]})
    with pytest.raises(EditingError, match="damaged"):
        SliderSet.load(path, "c", scheme, dim)


def test_unknown_sliders_name_the_ones_there_are(generator):
    sliders = toy_sliders(generator, "c")
    with pytest.raises(EditingError, match=r"hair\.lightness"):
        sliders["hair.fluffiness"]
    with pytest.raises(EditingError, match="damaged"):
        SliderSet(sliders.sliders, sliders.directions[1:], "c")


def test_the_command_says_what_is_missing(tmp_path, capsys):
    assert main(["--checkpoint", str(tmp_path / "none.safetensors")]) == 1
    assert "there is no checkpoint" in capsys.readouterr().err


def test_sliders_of_a_bundled_generator_replace_the_bundled_ones(tmp_path, fitted, monkeypatch):
    file = tmp_path / "small.safetensors"
    save_generator(file, MemoryGAN(get_preset("tiny-32").generator), provenance=Provenance(licence="MIT"))
    update_manifest(tmp_path, file.name, title="Small", licence="MIT", default=True)
    monkeypatch.setattr(SliderFitter, "fit", lambda self: fitted)
    assert main(["--checkpoint", str(file), "--device", "cpu"]) == 0
    assert {_verify(tmp_path, entry).name for entry in read_manifest(tmp_path)} == {file.name, "sliders.safetensors"}


# --- measures against known answers -----------------------------------------------------------------------------------


def drawn(boxes: dict[str, tuple[int, int, int, int]], colours: dict[str, float] | None = None) -> Synthesis:
    """A 40-pixel face of rectangles (left, top, right, bottom), everything else background."""
    ids = torch.zeros(1, 40, 40, dtype=torch.long)
    image = torch.full((1, 3, 40, 40), -1.0)
    for name, (left, top, right, bottom) in boxes.items():
        ids[:, top:bottom, left:right] = FACE_PARTS.index(name)
        image[:, :, top:bottom, left:right] = (colours or {}).get(name, 0.0)
    mask = 2.0 * torch.nn.functional.one_hot(ids, len(FACE_PARTS)).permute(0, 3, 1, 2).float() - 1.0
    # No generator made it, so there are no codes: the measures must not need any.
    return Synthesis(image, mask, mask, mask, None)  # type: ignore[arg-type]


def value(synthesis: Synthesis, part: str, name: str) -> float:
    item = next(item for item in properties_of(part) if item.name == name)
    faces = scene(synthesis, FACE_PARTS)
    weight = faces.weight.sum(dim=1) if part == "base" else faces.of(part)
    return float(item.measure(faces, weight)[0])


def test_sizes_and_places():
    face = drawn({"nose": (10, 20, 14, 28)})
    assert value(face, "nose", "size") == pytest.approx(100 * 4 * 8 / 1600, rel=0.15)
    assert value(face, "nose", "width") == pytest.approx(10.0, abs=2.5)
    assert value(face, "nose", "length") == pytest.approx(20.0, abs=2.5)
    assert value(face, "nose", "position") == pytest.approx(100 - 60.0, abs=1.5)


def test_hair_length_is_counted_from_the_chin():
    short = drawn({"hair": (5, 2, 35, 20), "skin": (10, 8, 30, 30)})
    long = drawn({"hair": (5, 2, 9, 38), "skin": (10, 8, 30, 30)})
    assert value(short, "hair", "length") < 0 < value(long, "hair", "length")
    assert value(long, "hair", "length") == pytest.approx(100 * (38 - 30) / 40, abs=4)


def test_smile_openness_and_pose():
    smile = drawn({"mouth": (12, 20, 28, 24)})
    frown = drawn({"mouth": (12, 20, 28, 24)})
    mouth = FACE_PARTS.index("mouth")
    for x in range(12, 28):
        rise = round(((x - 19.5) / 8) ** 2 * 5)
        for face, sign in ((smile, -1), (frown, 1)):
            face.mask[:, :, :, x] = drawn({}).mask[:, :, :, x]
            face.mask[:, 0, 24 + sign * rise : 27 + sign * rise, x] = -1.0
            face.mask[:, mouth, 24 + sign * rise : 27 + sign * rise, x] = 1.0
    assert value(smile, "mouth", "smile") > 5 > -5 > value(frown, "mouth", "smile")
    tall, flat = drawn({"mouth": (12, 20, 28, 32)}), drawn({"mouth": (12, 20, 28, 23)})
    assert value(tall, "mouth", "openness") > 2 * value(flat, "mouth", "openness")
    left = drawn({"skin": (8, 8, 32, 34), "nose": (12, 18, 16, 24)})
    right = drawn({"skin": (8, 8, 32, 34), "nose": (24, 18, 28, 24)})
    assert value(left, "base", "yaw") < 0 < value(right, "base", "yaw")


def test_gaze_teeth_and_bangs():
    looks = {}
    for side, (left, right) in {"left": (8, 24), "right": (12, 28)}.items():
        face = drawn({"eyes": (8, 16, 16, 20)}, {"eyes": 0.9})
        eyes = FACE_PARTS.index("eyes")
        face.image[:, :, 16:20, 24:32] = 0.9
        face.mask[:, :, 16:20, 24:32] = face.mask[:, :, 16:20, 8:16]
        assert face.mask[0, eyes, 17, 25] == 1.0
        for start in (left, right):
            face.image[:, :, 16:20, start : start + 4] = -0.9
        looks[side] = value(face, "eyes", "gaze")
    assert looks["left"] == pytest.approx(-25, abs=5) and looks["right"] == pytest.approx(25, abs=5)
    mouth = drawn({"mouth": (12, 24, 28, 32)}, {"mouth": -0.4})
    closed = value(mouth, "mouth", "teeth")
    mouth.image[:, :, 27:29, 12:28] = 0.8
    assert closed < 1 and value(mouth, "mouth", "teeth") == pytest.approx(25, abs=3)
    brows = {"eyebrows": (12, 18, 28, 20), "hair": (8, 2, 32, 8)}
    bare = value(drawn({"skin": (8, 8, 32, 36), **brows}), "hair", "bangs")
    covered = value(drawn({"skin": (8, 14, 32, 36), **brows}), "hair", "bangs")
    assert bare == pytest.approx(-100 * 11 / 40, abs=3) and covered == pytest.approx(-100 * 5 / 40, abs=3)


def test_hue_is_an_angle():
    hue = next(item for item in properties_of("hair") if item.name == "hue")

    def of(*rgb: float) -> float:
        face = drawn({"hair": (5, 2, 35, 12)})
        face.image[0, :, 2:12, 5:35] = torch.tensor(rgb)[:, None, None]
        return value(face, "hair", "hue")

    assert of(1.0, -1.0, -1.0) == pytest.approx(40, abs=8)
    assert of(1.0, 1.0, -1.0) == pytest.approx(103, abs=8)
    assert of(-1.0, -1.0, 1.0) == pytest.approx(-54, abs=8)
    assert math.isnan(of(0.0, 0.0, 0.0)), "grey has none"
    after, before = torch.tensor([-170.0, 10.0]), torch.tensor([170.0, 30.0])
    assert hue.difference(after, before).tolist() == [20.0, -20.0], "the shorter way round"
    around = torch.tensor([179.0, -179.0] * 8)
    assert hue.deviation(around) == pytest.approx(1.0, abs=0.1)
    assert hue.deviation(around[:7]) == 0.0


def test_a_direction_can_avoid_what_leaks_out_of_the_part():
    slope = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    leaks = torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 0.1]], dtype=torch.float64)
    found = quieter(slope, leaks)
    assert float((found @ leaks).norm() / (found @ slope)) < 0.5 * float((slope @ leaks).norm() / (slope @ slope))
    assert torch.equal(quieter(slope, torch.zeros_like(leaks)), slope)
    old = Batch(torch.zeros(1, 0), torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.bool))
    region = old.region.clone()
    region[:, :, 8:] = True
    areas = leak(old, Batch(old.measures, torch.full((1, 3, 16, 16), 4.0), region)).unflatten(1, (3, 8, 8))
    assert torch.equal(areas[..., :4], torch.full_like(areas[..., :4], 4.0))
    assert not areas[..., 4:].any(), "inside is not outside"


def test_what_can_hardly_be_seen_gets_no_slider(generator, monkeypatch):
    """Whatever it is called."""
    monkeypatch.setattr("editing.sliders.target._VISIBLE", 300.0)
    fitter = SliderFitter(generator, "c", dataclasses.replace(SETTINGS, faces=64))
    with pytest.raises(EditingError, match="changes anything visible"):
        fitter.fit(["mouth"])
    assert any(line.startswith("mouth.lightness: only a mean change of") for line in fitter.left_out)


def test_a_slider_is_shortened_until_it_changes_little_outside(generator, monkeypatch):
    settings = dataclasses.replace(SETTINGS, min_strength=0.1, min_correlation=0.4)  # weaker ones are kept as well
    fitted = SliderFitter(generator, "c", settings).fit(["hair"])
    before = {slider.id: slider.outside for slider in fitted if slider.measured}
    limit = sorted(before.values())[-2]
    monkeypatch.setattr("editing.sliders.target._FARTHEST", limit)
    found = SliderFitter(generator, "c", settings).fit(["hair"])
    loudest = max(before, key=lambda name: before[name])
    assert before[loudest] > limit >= found[loudest].outside > 0.8 * limit
    old, new = fitted.direction(loudest), found.direction(loudest)
    assert new.norm() < old.norm() and torch.cosine_similarity(old, new, dim=0) > 0.999
    assert found[loudest].strength < fitted[loudest].strength
    for name in set(before) - {loudest}:
        assert torch.equal(found.direction(name), fitted.direction(name))


def test_the_report_names_what_is_not_local_and_what_is_missing(fitted):
    loud = dataclasses.replace(fitted.sliders[0], outside=4.5)
    table = report(SliderSet([loud], fitted.directions[:1], "c"), ["base.yaw: only correlation 0.10"])
    assert f"more than 2 steps outside the part: {loud.id} (4.50)." in table
    assert table.endswith("Measured, but without a slider:\n\n- base.yaw: only correlation 0.10")


def test_colours_are_measured_inside_the_part_only():
    dark = drawn({"hair": (5, 2, 35, 12)}, {"hair": -0.8})
    light = drawn({"hair": (5, 2, 35, 12)}, {"hair": 0.8})
    assert value(light, "hair", "lightness") > value(dark, "hair", "lightness") + 40
    assert abs(value(light, "hair", "redness")) < 3, "grey is neither red nor green"


def test_an_absent_part_is_not_a_measurement():
    assert value(drawn({}), "hat", "worn") == pytest.approx(0.0, abs=0.1)
    assert value(drawn({}), "hat", "lightness") != value(drawn({}), "hat", "lightness"), "not a number"


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_ridge_finds_the_slope_and_ignores_what_is_missing():
    x = torch.randn(200, 6, dtype=torch.float64)
    slope = torch.tensor([1.0, -2.0, 0.0, 0.0, 0.5, 0.0], dtype=torch.float64)
    y = x @ slope
    y[::10] = float("nan")
    found, explained = ridge(x, y)
    assert found is not None
    assert torch.allclose(found, slope, atol=0.01)
    assert explained > 0.99
    assert ridge(x, torch.zeros(200, dtype=torch.float64))[0] is None


def test_orthogonal_and_components():
    first = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    second = orthogonal(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), [first])
    assert second is not None
    assert abs(float(second @ first)) < 1e-12
    assert orthogonal(first * 3, [first]) is None
    scale = principal(torch.randn(40, 3, dtype=torch.float64), 3)
    found = list(components([first], scale, 5))
    assert len(found) == 2
    assert all(abs(float(direction @ first)) < 1e-12 for direction in found)
    assert correlation(torch.arange(5.0), -2.0 * torch.arange(5.0)) == pytest.approx(-1.0)


def test_a_fit_that_finds_nothing_says_so(generator):
    deaf = toy_generator()
    deaf.colour.zero_()
    deaf.extent.zero_()
    with pytest.raises(EditingError, match="changes anything visible"):
        SliderFitter(deaf, "c", dataclasses.replace(SETTINGS, faces=32, test_faces=4, components=4)).fit(["mouth"])


@pytest.mark.parametrize("group", [LayerGroup.TEXTURE, LayerGroup.BASE])
def test_the_baseline_gets_sliders_as_well(monkeypatch, group):
    """An untrained one shows nearly nothing, so the bar for what can be seen is taken away."""
    monkeypatch.setattr("editing.sliders.target._VISIBLE", 0.0)
    torch.manual_seed(0)
    baseline = SemanticStyleGAN(get_preset("tiny-32").generator).eval().requires_grad_(False)
    settings = FitSettings(faces=32, test_faces=4, components=4)
    target = "base" if group is LayerGroup.BASE else "mouth"
    found = SliderFitter(baseline, "c", settings).fit([target])
    assert 4 <= len(found) <= 10
    assert any(slider.group is group for slider in found)
    assets = Assets(baseline, "c", "tiny", found, None, None, (), {}, True, None)
    with EditingService(assets) as service:
        face = service.new_face(7)
        slider = max(found, key=lambda slider: slider.inside)
        moved = service.set_sliders(face.session, {slider.id: 10.0})
        assert not np.array_equal(moved.image, face.image)
        assert np.array_equal(service.set_sliders(face.session, {slider.id: 0.0}).image, face.image)


def test_a_real_network_is_fitted_with_and_without_keeping_what_it_retrieved(monkeypatch):
    """An untrained one shows nearly nothing, so the bar for what can be seen is taken away."""
    monkeypatch.setattr("editing.sliders.target._VISIBLE", 0.0)
    settings = FitSettings(faces=32, test_faces=4, components=4)
    fits = []
    for keep in (2**31, 0):
        monkeypatch.setattr("editing.sliders.probe._KEEP_BYTES", keep)
        fits.append(SliderFitter(untrained_generator()[0], "c", settings).fit(["mouth"]))
    # Some processors multiply in another order where less is asked for at once.
    numbers = ("effect", "strength", "correlation", "inside", "outside")
    for kept, anew in zip(*(fit.sliders for fit in fits), strict=True):
        for name in numbers:
            assert getattr(kept, name) == pytest.approx(getattr(anew, name), rel=1e-3, abs=2e-3)
        others = (dataclasses.replace(one, **dict.fromkeys(numbers, 0.0)) for one in (kept, anew))
        assert next(others) == next(others)
    assert torch.allclose(fits[0].directions, fits[1].directions, rtol=1e-3, atol=1e-4)
    assert 4 <= len(fits[0]) <= 10


def test_a_reading_that_broke_is_no_change() -> None:
    values = torch.tensor([0.6, 0.2, 0.5, 27.0, math.nan, 0.4, 0.3, -0.1])
    kept = unbroken(values)
    assert torch.equal(torch.isnan(kept), torch.tensor([False, False, False, True, True, False, False, False]))
    assert torch.equal(kept[:3], values[:3])
    # Column by column, and nothing is broken where most stay as they are: every tenth wears a hat.
    columns = torch.stack((values, torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 20.0])), dim=1)
    assert torch.equal(torch.isnan(unbroken(columns)[:, 0]), torch.isnan(kept))
    assert torch.equal(unbroken(columns)[:, 1], columns[:, 1])
    gaussian = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    assert not unbroken(gaussian).isnan().any()
    smile = Property("smile", "Smile", LayerGroup.SHAPE, "down", "up", "%", lambda scene, weight: weight)
    broken = torch.cat((gaussian, torch.tensor([500.0])))
    assert smile.deviation(broken) == pytest.approx(float(gaussian.std()), rel=1e-6)


@pytest.mark.parametrize(
    ("now", "then", "outside", "factor"),
    [
        (1.0, 1.4, 1.0, 1.5),  # up to what people should see
        (0.5, 0.9, 1.0, 2.0),  # but no more than twice as far
        (1.6, 9.9, 1.0, 1.0),  # far enough
        (1.0, 1.4, 3.1, 1.0),  # it would change too much outside
        (1.0, 0.9, 1.0, 1.0),  # it would do less
        (-1.0, 9.9, 1.0, 1.0),  # it does the opposite
    ],
)
def test_what_people_ask_for_goes_further(now: float, then: float, outside: float, factor: float) -> None:
    fit = object.__new__(TargetFit)
    fit.target = "mouth"
    steps: list[float] = []

    def tried(group: LayerGroup, w: torch.Tensor, properties: object, values: object) -> Trial:
        steps.append(float(w))
        return Trial({3.0: torch.full((4,), then)}, (0.0, 1.0), (outside, 1.0))

    def described(slider: Slider, trial: Trial, item: object, spread: float) -> Slider:
        return dataclasses.replace(slider, strength=float(trial.effects[3.0][0]), outside=trial.outside[0])

    fit._trial, fit._described = tried, described  # type: ignore[method-assign, assignment]
    slider = Slider("mouth.smile", "mouth", "Smile", LayerGroup.SHAPE)
    item = Property("smile", "Smile", LayerGroup.SHAPE, "down", "up", "%", lambda scene, weight: weight, asked=True)
    first = Trial({3.0: torch.full((4,), now)}, (0.0, 1.0), (0.5, 1.0))
    w, trial = fit._stretched(slider, torch.tensor(1.0), first, item, 1.0)
    assert float(w) == factor and (trial is first) == (factor == 1.0)


@pytest.mark.parametrize(
    ("gain", "strength", "outside", "factor"),
    [
        (3.0, 1.0, 1.0, 1.1**4),  # until nine in ten wear it
        (10.0, 1.0, 1.0, 0.9**8),  # and no further
        (1.0, 2.0, 1.0, 1.1**7),  # by four deviations at most
        (1.0, 0.1, 2.0, 1.1**4),  # unless too much changes outside
        (0.0, 6.0, 1.0, 0.9**4),  # nor by more from the beginning
    ],
)
def test_what_is_worn_goes_on_nearly_everybody(gain: float, strength: float, outside: float, factor: float) -> None:
    fit = object.__new__(TargetFit)
    fit.target = "eyeglass"
    item = Property("worn", "Glasses", LayerGroup.OWN, "off", "on", "%", lambda scene, weight: weight, asked=True)
    fit.properties = (item,)
    lent = torch.arange(40) % 2 == 1  # every second one wears some, worth 8; of the others one never will
    wear = torch.where(lent, 8.0, 0.0)[:, None]
    fit.start = [Batch(wear[rows], torch.zeros(0), torch.zeros(0)) for rows in (slice(0, 16), slice(16, 40))]

    def tried(group: LayerGroup, w: torch.Tensor, properties: object, values: object) -> Trial:
        effect = torch.where(lent | (torch.arange(40) < 2), 0.0, gain * float(w))
        return Trial({-3.0: -effect, 3.0: effect}, (strength * float(w), 1.0), (outside * float(w), 1.0))

    def described(slider: Slider, trial: Trial, item: object = None, spread: float = 1.0) -> Slider:
        return dataclasses.replace(slider, strength=trial.inside[0], outside=trial.outside[0])

    fit._trial, fit._described = tried, described  # type: ignore[method-assign, assignment]
    slider, one = Slider("eyeglass.worn", "eyeglass", "Glasses", LayerGroup.OWN), torch.tensor(1.0)
    w, trial = fit._put_on(slider, one, tried(LayerGroup.OWN, one, (item,), (-3.0, 3.0)), item, 1.0)
    assert float(w) == pytest.approx(factor)
    assert trial.outside[0] == pytest.approx(outside * factor, rel=1e-5), "the trial is that of the step"


@pytest.mark.parametrize(
    ("red", "light", "level"),
    [
        ((2.0, 4.0), (0.0, 8.0), (1.0, -0.5)),  # as light as before, and as red
        ((2.0, 0.4), (0.0, 8.0), (1.0, 0.0)),  # it hardly gets lighter
        ((2.0, 4.0), (4.0, 8.0), (1.0, 0.0)),  # all its red is the lightness's
    ],
)
def test_lips_that_get_redder_do_not_get_lighter(
    red: tuple[float, float], light: tuple[float, float], level: tuple[float, float]
) -> None:
    """What a step of (redness, lightness) does to (a*, L*) of lips: a colour does not change how light they are."""
    fit = object.__new__(TargetFit)
    fit.target = "mouth"
    fit.properties = COLOURS
    faces = torch.arange(8.0)[:, None].expand(8, len(COLOURS))
    fit.start = [Batch(faces, torch.zeros(0), torch.zeros(0))]

    def tried(group: LayerGroup, w: torch.Tensor, item: Property | None, values: object) -> Trial:
        number = 1 if item is not None and item.name == "lightness" else 0
        effect = float(w[0]) * red[number] + float(w[1]) * light[number]
        return Trial({-3.0: torch.full((8,), -effect), 3.0: torch.full((8,), effect)}, (9.0, 1.0), (1.0, 1.0))

    fit._trial = tried  # type: ignore[method-assign, assignment]
    slider = Slider("mouth.redness", "mouth", "Redness", LayerGroup.TEXTURE)
    kept = [
        (Slider("mouth.lightness", "mouth", "L", LayerGroup.TEXTURE, measured="lightness"), torch.tensor([0.0, 1.0]))
    ]
    first, item = torch.tensor([1.0, 0.0]), COLOURS[1]
    trial = tried(LayerGroup.TEXTURE, first, item, ())
    w, found = fit._level(slider, first, trial, item, 1.0, kept)
    assert w.tolist() == pytest.approx(level) and (found is trial) == (level[1] == 0.0)
    assert torch.equal(fit._level(slider, first, trial, item, 1.0, [])[0], first), "no slider of lightness"
    assert torch.equal(fit._level(slider, first, trial, COLOURS[0], 1.0, [])[0], first)
