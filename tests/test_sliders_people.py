"""Sliders of what samples hardly show, learned from labelled photos: age, beard, gray hair, and what is worn."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import toy_assets, toy_generator, toy_sliders  # type: ignore[import-not-found]

from editing.errors import EditingError
from editing.service import EditingService
from editing.sliders import people as people_module
from editing.sliders import traits as traits_module
from editing.sliders.directions import Slider, SliderSet
from editing.sliders.fit import SliderFitter, main
from editing.sliders.people import People
from editing.sliders.probe import Probe
from editing.sliders.properties import Property
from editing.sliders.target import FitSettings
from editing.sliders.traits import Trait, traits_of
from memorygan.analysis.probes import LabelledPhotos
from memorygan.analysis.probes import Probe as Reading
from memorygan.baseline import SemanticStyleGAN
from memorygan.checkpoint import Provenance, save_generator
from memorygan.config import get_preset
from memorygan.encoder import EncoderConfig, PartEncoder
from memorygan.latents import Latents
from memorygan.parser import FaceParser, ParserConfig
from memorygan.parts import FACE_PARTS, LayerGroup
from memorygan.training.packfile import DataError

SETTINGS = FitSettings(faces=64, test_faces=8, components=10, batch=32)
COLUMNS = ("name", "age", "beard", "hair_gray", "p_man", "smile")


def labelled(folder: Path, rows: list[dict[str, object]], size: int = 32) -> Path:
    (folder / "images").mkdir(parents=True)
    random = np.random.RandomState(0)
    for row in rows:
        pixels = random.randint(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{row['name']}.png")
    with (folder / "attributes.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.RandomState(1)
    rows: list[dict[str, object]] = []
    for number in range(160):
        man = int(number % 2)
        # Beards are men's, and older men's: what is learned of one label must not hold the others.
        age = float(random.randint(18, 80))
        beard = float(man and random.rand() < 0.6)
        rows.append(
            {
                "name": f"{number:03}",
                "age": age,
                "beard": beard,
                "hair_gray": float(age > 60),
                "p_man": man,
                "smile": 0.5,
            }
        )
    rows[0]["age"] = ""
    return labelled(tmp_path / "photos", rows)


def people_of(folder: Path, dim: int, owed: dict[str, torch.Tensor]) -> People:
    """Codes of all parts are the sum of what each label gives to them."""
    faces = LabelledPhotos.open(folder, 1000)
    count = len(faces.names)
    random = torch.Generator().manual_seed(0)
    codes = 0.01 * torch.randn(count, 1 + len(FACE_PARTS), dim, generator=random)
    features = 0.1 * torch.randn(count, 1280, generator=random)
    for number, (column, direction) in enumerate(owed.items()):
        label = torch.from_numpy(np.nan_to_num(faces.values(column), nan=40.0)).float()
        codes += label[:, None, None] * direction
        features[:, number] += (label - label.mean()) / label.std().clamp_min(1e-6)
    shares = torch.zeros(count, len(FACE_PARTS))
    shares[::4, FACE_PARTS.index("eyeglass")] = 0.02
    shares[:3, FACE_PARTS.index("hat")] = 0.2
    return People(faces, FACE_PARTS, codes, shares, features, torch.rand(count, 3, generator=random))


def test_labels_are_read_beside_the_photos(folder: Path) -> None:
    faces = LabelledPhotos.open(folder, 12)
    assert faces.names == tuple(f"{number:03}" for number in range(12))
    assert faces.images([3, 4], 16).shape == (2, 3, 16, 16)
    assert np.isnan(faces.values("age")[0]) and np.isfinite(faces.values("age")[1:]).all()
    assert np.isnan(faces.values("shoe size")).all()
    (folder / "attributes.csv").unlink()
    with pytest.raises(DataError, match=r"has no attributes\.csv"):
        LabelledPhotos.open(folder, 12)


def test_a_quantity_is_read_in_its_unit() -> None:
    random = np.random.RandomState(0)
    features = random.randn(500, 8).astype(np.float32)
    years = 40 + 12 * features[:, 2]
    read = Reading.regress(features, years).read(torch.from_numpy(features))
    assert float((read - torch.from_numpy(years)).abs().mean()) < 0.5


def test_a_trait_is_what_its_label_alone_gives(folder: Path) -> None:
    basis = torch.eye(16)
    people = people_of(folder, 16, {"beard": basis[0], "p_man": 5 * basis[1], "age": 0.2 * basis[2], "smile": basis[3]})
    traits = traits_of(people)
    assert {part: [trait.property.name for trait in found] for part, found in traits.items()} == {
        "base": ["age"],
        "skin": ["beard"],
        "hair": ["gray"],
    }
    beard = traits["skin"][0].direction
    assert beard.shape == (16,)
    assert float(beard[0] / beard.norm()) > 0.995, "neither sex nor age comes along"
    age = traits["base"][0].direction
    assert age.shape == (len(FACE_PARTS) - 1, 16)
    worn = [FACE_PARTS.index(name) - 1 for name in ("eyeglass", "hat", "earring")]
    assert not age[worn].any(), "nobody is given glasses by age"
    ratio = age[FACE_PARTS.index("hair") - 1, 2] / age[FACE_PARTS.index("hair") - 1].norm()
    assert float(ratio) > 0.99


def test_probes_of_traits_rise_with_their_label(folder: Path) -> None:
    people = people_of(folder, 16, {"beard": torch.eye(16)[0], "age": torch.eye(16)[1]})
    for part, column in (("skin", "beard"), ("base", "age")):
        item = traits_of(people)[part][0].property

        class Faces:
            features = people.features

        read = item.measure(Faces(), torch.zeros(0))  # type: ignore[arg-type]
        known = np.isfinite(people.faces.values(column))
        assert np.corrcoef(read.numpy()[known], people.faces.values(column)[known])[0, 1] > 0.8


def test_too_few_labels_make_no_slider(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"name": f"{number:03}", "age": "", "beard": float(number < 5), "hair_gray": 0.0, "p_man": 0.5, "smile": 0.5}
        for number in range(64)
    ]
    people = people_of(labelled(tmp_path / "few", rows), 4, {"p_man": torch.ones(4)})
    assert traits_of(people) == {}
    assert {part: len(codes) for part, codes in people.worn().items()} == {"eyeglass": 16}, "three hats are too few"


def test_people_are_read_with_encoder_and_parser(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_module, "image_features", lambda images, name: images.mean(dim=(2, 3)))
    torch.manual_seed(0)
    generator = toy_generator()
    encoder = PartEncoder(EncoderConfig(len(FACE_PARTS), generator.config.query_dim, size=32, channels=(8, 8)))
    parser = FaceParser(ParserConfig(size=32, widths=(4, 6, 8))).eval()
    people = People.read(generator, encoder.eval(), parser, LabelledPhotos.open(folder, 20))
    assert people.codes.shape == (20, 1 + len(FACE_PARTS), generator.config.style_dim)
    assert torch.allclose(people.shares.sum(dim=1), torch.ones(20), atol=1e-5)
    assert people.features.shape == (20, 3) and people.nose.shape == (20, 3)


def test_lent_codes_are_those_of_every_second_face(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = toy_generator()
    for keep in (2**31, 0):
        monkeypatch.setattr("editing.sliders.probe._KEEP_BYTES", keep)
        probe = Probe(generator, None, 8, 0.8)
        faces = probe.sample(5, 6)
        codes = torch.randn(2, generator.config.style_dim)
        lent = probe.lend(faces, "eyeglass", codes)
        k = FACE_PARTS.index("eyeglass")
        first = generator.config.layer_range(LayerGroup.SHAPE).start
        assert torch.equal(lent.own[::2, 1 + k], codes[[0, 1, 0]]) and torch.equal(lent.own[1::2], faces.own[1::2])
        assert torch.equal(lent.latents.w[2, k, first:], codes[1].expand(generator.config.local_layers - first, -1))
        assert torch.equal(lent.latents.w[:, k, :first], faces.latents.w[:, k, :first]), "the base stays"
        others = [other for other in range(len(FACE_PARTS)) if other != k]
        assert torch.equal(lent.latents.w[:, others], faces.latents.w[:, others])
        assert (lent.retrieved is not None) == bool(keep)
        if lent.retrieved is not None:
            whole = generator.retrieve(lent.latents)
            assert torch.equal(lent.retrieved.depth, whole.depth)


def whole_face(generator, value: float = 1.0) -> SliderSet:
    """The toy's own sliders, and one that moves every part in its own way."""
    own = toy_sliders(generator, "toy")
    age = Slider("base.age", "base", "Age", LayerGroup.OWN, "younger", "older", "age", rows=len(FACE_PARTS) - 1)
    rows = torch.zeros(len(FACE_PARTS) - 1, generator.config.style_dim)
    rows[FACE_PARTS.index("hair") - 1] = value
    rows[FACE_PARTS.index("skin") - 1] = -value
    return SliderSet([age, *own.sliders], torch.cat((rows, own.directions)), "toy", "s" * 64)


def test_a_slider_can_move_every_part_in_its_own_way(tmp_path: Path) -> None:
    generator = toy_generator()
    config, sliders = generator.config, whole_face(generator)
    w = torch.zeros(1, config.part_count, config.local_layers, config.style_dim)
    sliders.move(w, "base.age", 2.0, config)
    own = config.layer_range(LayerGroup.OWN)
    assert own == range(config.layer_range(LayerGroup.SHAPE).start, config.local_layers)
    assert (w[0, FACE_PARTS.index("hair"), own.start :] == 2).all() and (w[0, 1, own.start :] == -2).all()
    assert not w[0, 0].any() and not w[0, :, : own.start].any() and not w[0, FACE_PARTS.index("nose")].any()
    assert torch.equal(sliders.direction("hair.width"), toy_sliders(generator, "toy").direction("hair.width"))
    path = tmp_path / "sliders.safetensors"
    sliders.save(path)
    loaded = SliderSet.load(path, "toy", FACE_PARTS, config.style_dim)
    assert loaded.sliders == sliders.sliders and torch.equal(loaded.directions, sliders.directions)
    wrong = dataclasses.replace(sliders.sliders[0], rows=2)
    SliderSet([wrong], sliders.directions[:2], "toy").save(path)
    with pytest.raises(EditingError, match="does not fit"):
        SliderSet.load(path, "toy", FACE_PARTS, config.style_dim)
    with pytest.raises(EditingError, match="damaged"):
        SliderSet(sliders.sliders, sliders.directions[1:], "toy")


def test_a_slider_of_both_layer_groups_stays_in_the_one_that_is_drawn_anew() -> None:
    """Drawing a part's shape anew takes the slider off; what it did to the texture stays."""
    own = toy_sliders(toy_generator(), "toy")
    both = Slider("hair.both", "hair", "Both", LayerGroup.OWN, "less", "more")
    direction = own.direction("hair.lightness")[None]
    assets = dataclasses.replace(
        toy_assets(), sliders=SliderSet([both, *own.sliders], torch.cat((direction, own.directions)), "toy", "s" * 64)
    )
    with EditingService(assets) as service:
        session = service.new_face(3).session
        before = service.set_sliders(session, {"hair.both": 3.0})
        variant = service.variants(session, "hair", group="shape")[0]
        after = service.apply_variant(session, variant)
        assert after.sliders == {}
        hair = (before.part_map == FACE_PARTS.index("hair")) & (after.part_map == FACE_PARTS.index("hair"))
        assert hair.sum() > 20
        assert np.abs(before.image[hair].astype(int) - after.image[hair]).mean() < 2


def test_a_slider_of_the_whole_face_stays_on_top_until_the_whole_face_is_another() -> None:
    generator = toy_generator()
    age = whole_face(generator, float(generator.spread))
    with EditingService(dataclasses.replace(toy_assets(), sliders=age)) as service:
        session = service.new_face(3).session
        aged = service.set_sliders(session, {"base.age": 2.0, "base.right": 1.0})
        other = service.new_face(4).session
        assert service.swap(session, other, ["hair"]).sliders == {"base.age": 2.0, "base.right": 1.0}
        service.undo(session)
        turned = service.apply_variant(session, service.variants(session, "base")[0])
        assert turned.sliders == {"base.age": 2.0}, "another pose is no other age"
        assert not np.array_equal(turned.image, aged.image)
        assert service.blend(session, other, amount=1.0).sliders == {}


def test_what_people_show_becomes_sliders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = toy_generator()
    hair = generator.colour[FACE_PARTS.index("hair")].sum(dim=1)
    people = people_of(folder, generator.config.style_dim, {"hair_gray": 20 * generator.spread * hair / hair.norm()})
    glasses = generator.extent[FACE_PARTS.index("eyeglass")].sum(dim=1)
    people.codes[:, 1 + FACE_PARTS.index("eyeglass")] = generator.mean_w[1 + FACE_PARTS.index("eyeglass")]
    people.codes[::4, 1 + FACE_PARTS.index("eyeglass")] += 6 * generator.spread * glasses / glasses.norm()

    def lightness(scene, weight):
        return scene.lab[:, 0].mean(dim=1)

    monkeypatch.setattr(traits_module, "_reading", lambda probe: lightness)
    fitter = SliderFitter(generator, "c" * 64, SETTINGS, people=people)
    found = fitter.fit(["hair", "eyeglass"])
    assert "hair.gray" in found and found["hair.gray"].group is LayerGroup.TEXTURE
    assert torch.cosine_similarity(found.direction("hair.gray"), hair, dim=0) > 0.98
    worn = found["eyeglass.worn"]
    assert worn.group is LayerGroup.OWN and worn.effect > 0 and worn.strength > 1
    bare, part = generator.sample(range(40), 0.8), FACE_PARTS.index("eyeglass")
    dressed, wearers = (Latents(bare.w.clone(), generator.config) for _ in range(2))
    found.move(dressed.w, "eyeglass.worn", 3.0, generator.config)
    wearers.w[:, part] = people.codes[:40:4, 1 + part].repeat_interleave(4, 0)[:, None]
    without, worn_now, lent = (
        (generator.synthesize(faces).part_map == part).float().mean(dim=(1, 2)) for faces in (bare, dressed, wearers)
    )
    assert (without < 0.5 * lent.median()).float().mean() > 0.1
    assert (worn_now >= 0.5 * lent.median()).float().mean() >= 0.9, "at +3 nearly everybody wears some"
    assert "hair.gray" not in SliderFitter(generator, "c" * 64, SETTINGS).fit(["hair"])


def test_a_trait_that_shows_nothing_is_left_out(folder: Path) -> None:
    generator = toy_generator()
    fitter = SliderFitter(generator, "c" * 64, SETTINGS)
    flat = Property("flat", "Flat", LayerGroup.TEXTURE, "less", "more", "", lambda scene, weight: scene.lab[:, 0, 0])
    trait = Trait(flat, torch.zeros(generator.config.style_dim, dtype=torch.float64))
    fitter.traits = {"hair": (trait,)}
    assert "hair.flat" not in fitter.fit(["hair"])
    assert any(line.startswith("hair.flat: only") for line in fitter.left_out)


def test_photos_need_a_generator_with_an_encoder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "base.safetensors"
    save_generator(file, SemanticStyleGAN(get_preset("tiny-32").generator), provenance=Provenance())
    arguments = ["--checkpoint", str(file), "--device", "cpu", "--labelled", str(folder)]
    assert main(arguments) == 1
    assert "leave out --labelled" in capsys.readouterr().err
