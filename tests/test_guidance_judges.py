"""The bundled judges: measured attributes, captions, both networks, their training and the files that ship."""

from __future__ import annotations

import csv
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from editing.device.loading import load_assets
from editing.guidance.captions import (
    LEADS,
    NOUNS,
    PHRASES,
    SIZES,
    VOCABULARY,
    WEAK,
    alternatives,
    compose,
    hard_negative,
    leads,
    read_claims,
    rivals,
    sizes,
    unknown_words,
    weak_phrases,
)
from editing.guidance.face_net import FaceEmbedder, FaceNetConfig, load_face_net, save_face_net
from editing.guidance.measures import DIRECTIONS, MEASURES, measure
from editing.guidance.training import text, text_eval
from editing.guidance.training.anchors import Anchors
from editing.guidance.training.counterfactual import freckles, slide, sliders_beside
from editing.guidance.training.faces import (
    ATTRIBUTES,
    UNKNOWN,
    LabelledFaces,
    changed_faces,
    generated_faces,
    held_out,
    load_source,
)
from editing.guidance.training.opinions import MARKS, Opinion, age_words, merge, read_opinions
from editing.guidance.training.probes import consult
from editing.guidance.words import WORDS, describe, lean
from memorygan.checkpoint import CheckpointError, Provenance, load_generator, save_module
from memorygan.manifest import default_checkpoint
from memorygan.network_file import network_config
from memorygan.parts import FACE_PARTS
from memorygan.training.procedural import ProceduralSource

TINY = FaceNetConfig(size=32, stem=4, stages=((8, 6, 2, 2), (10, 8, 1, 2)), last=16, dim=12)
SIDE = 128
_Y, _X = np.mgrid[0:SIDE, 0:SIDE] + 0.5


def _ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    return np.asarray(((_X - x) / rx) ** 2 + ((_Y - y) / ry) ** 2 < 1)


def face(
    hair: tuple[int, int, int] = (90, 60, 40), *, lips: tuple[int, int, int] = (190, 120, 115), smile: float = 0.0,
    nose: float = 1.0, brows: float = 1.0, iris: tuple[int, int, int] = (80, 55, 35), jaw: float = 1.0,
    long: bool = True, glasses: bool = False, hat: bool = False, bangs: bool = False, bald: bool = False,
    teeth: bool = False, dark_lenses: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A face of flat colours with exact part ids; ``smile`` in pixels, ``jaw`` darkens where a beard would be."""
    image = np.full((SIDE, SIDE, 3), 210, np.float32)
    ids = np.zeros((SIDE, SIDE), np.uint8)

    def paint(where: np.ndarray, color: tuple[int, int, int], part: str) -> None:
        image[where] = color
        ids[where] = FACE_PARTS.index(part)

    skin = (225, 180, 155)
    if not bald:
        paint(_ellipse(64, 56, 48, 50) & (_Y < 62), hair, "hair")
        if long:
            paint((np.abs(_X - 64) < 46) & (np.abs(_X - 64) > 24) & (_Y > 56), hair, "hair")
    paint(_ellipse(64, 66, 34, 46), skin, "skin")
    if bangs:
        paint(_ellipse(64, 66, 34, 46) & (_Y < 46), hair, "hair")
    lower = _ellipse(64, 66, 34, 46) & (np.where(np.abs(_X - 64) < 14, 79, 87) < _Y)
    grain = np.random.RandomState(0).uniform(0.75, 1.25, (SIDE, SIDE, 1))
    image[lower] *= jaw * (np.where(jaw < 1, grain, 1.0)[lower])
    for side in (-1, 1):
        middle = 64 + side * 15
        paint(_ellipse(middle, 56, 8, 4), (240, 240, 240), "eyes")
        paint(_ellipse(middle, 56, 3.4, 3.4) & _ellipse(middle, 56, 8, 4), iris, "eyes")
        paint((np.abs(_X - middle) < 9) & (np.abs(_Y - 47) < 1.6 * brows), (60, 45, 40), "eyebrows")
        if glasses:
            paint(_ellipse(middle, 57, 11, 8), (30, 30, 30), "eyeglass")
            if not dark_lenses:
                image[_ellipse(middle, 57, 9.5, 6.5)] = (200, 160, 140)
    paint(_ellipse(64, 71, 7 * nose, 9), (215, 165, 140), "nose")
    bow = smile * (1 - ((_X - 64) / 14) ** 2)
    paint((np.abs(_X - 64) < 14 + smile / 2) & (np.abs(_Y - 89 - bow) < 4), lips, "mouth")
    if teeth:
        paint((np.abs(_X - 64) < 11) & (np.abs(_Y - 89 - bow) < 2), (250, 250, 250), "mouth")
    if hat:
        paint((_Y < 32) & (np.abs(_X - 64) < 50), (20, 60, 160), "hat")
    return image.clip(0, 255).astype(np.uint8), ids


@pytest.mark.parametrize(
    ("attribute", "word", "options"),
    [
        ("hair colour", "black", {"hair": (12, 10, 10)}),
        ("hair colour", "brown", {"hair": (75, 50, 32)}),
        ("hair colour", "blond", {"hair": (215, 180, 115)}),
        ("hair colour", "red", {"hair": (165, 75, 40)}),
        ("hair colour", "gray", {"hair": (140, 140, 142)}),
        ("hair length", "long", {"long": True}),
        ("hair length", "short", {"long": False}),
        ("bangs", "bangs", {"bangs": True}),
        ("bangs", "none", {}),
        ("bald", "bald", {"bald": True}),
        ("bald", "none", {}),
        ("beard", "beard", {"jaw": 0.6}),
        ("beard", "none", {}),
        ("glasses", "glasses", {"glasses": True}),
        ("glasses", "sunglasses", {"glasses": True, "dark_lenses": True}),
        ("glasses", "none", {}),
        ("hat", "hat", {"hat": True}),
        ("teeth", "teeth", {"teeth": True}),
        ("teeth", "none", {}),
        ("lipstick", "lipstick", {"lips": (200, 40, 60)}),
        ("lipstick", "none", {"lips": (215, 165, 145)}),
        ("nose", "big", {"nose": 2.0}),
        ("nose", "small", {"nose": 0.6}),
        ("brows", "thick", {"brows": 2.2}),
        ("brows", "thin", {"brows": 0.7}),
        ("eye colour", "blue", {"iris": (70, 110, 170)}),
        ("eye colour", "brown", {"iris": (95, 60, 35)}),
        ("pose", "front", {}),
        ("background", "white", {}),
    ],
)
def test_words_of_drawn_faces(attribute: str, word: str, options: dict) -> None:
    assert measure(*face(**options))[attribute] == word


@pytest.mark.parametrize(
    ("wish", "options"),
    [
        ("red hair", {"hair": (150, 60, 40)}),
        ("blond hair", {"hair": (200, 170, 110)}),
        ("black hair", {"hair": (20, 18, 18)}),
        ("gray hair", {"hair": (90, 90, 90)}),
        ("smile", {"smile": 4.0}),
        ("lipstick", {"lips": (200, 60, 80)}),
        ("beard", {"jaw": 0.8}),
        ("big nose", {"nose": 1.3}),
        ("small nose", {"nose": 0.8}),
        ("thick brows", {"brows": 1.6}),
        ("thin brows", {"brows": 0.7}),
        ("glasses", {"glasses": True}),
        ("blue eyes", {"iris": (70, 100, 150)}),
        ("bald", {"bald": True}),
        ("bangs", {"bangs": True}),
        ("short hair", {"long": False}),
        ("hat", {"hat": True}),
        ("teeth", {"teeth": True}),
    ],
)
def test_directions_move_with_the_picture(wish: str, options: dict) -> None:
    name, sign = DIRECTIONS[wish]
    before, after = measure(*face())[name], measure(*face(**options))[name]
    assert isinstance(before, float) and isinstance(after, float)
    assert sign * (after - before) > 0


def test_saturation_is_chroma_in_proportion_to_lightness() -> None:
    """Black hair turned gray has more chroma than before, and is gray all the same."""
    hairs = {"black": (40, 32, 28), "gray": (120, 114, 110), "light brown": (120, 96, 78), "white": (215, 213, 212)}
    found = {name: measure(*face(rgb)) for name, rgb in hairs.items()}
    saturation = {name: float(values["hair.saturation"] or 0) for name, values in found.items()}
    assert saturation["white"] < saturation["gray"] < 0.5 * saturation["black"]
    assert saturation["light brown"] > 0.8 * saturation["black"]


def test_measures_and_words_are_complete() -> None:
    found = measure(*face())
    assert set(found) == {*MEASURES, *WORDS}
    assert {name for name, _ in DIRECTIONS.values()} <= set(MEASURES)
    assert not set(MEASURES) & set(WORDS)
    for name in WORDS:
        assert found[name] is None or found[name] in WORDS[name]
    # Nothing is said of a picture without a face.
    nothing = measure(np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8))
    assert all(value is None for value in nothing.values())


def test_a_classifier_settles_what_pixels_do_not() -> None:
    raw = {"smile.strength": 3.0, "beard.strength": 20.0, "lips.redness": 20.0}
    assert describe(raw)["person"] is None
    assert describe(raw, p_man=0.9)["person"] == "man"
    assert describe(raw, p_man=0.1)["beard"] == "none"
    assert describe(raw, p_man=0.9)["beard"] == "beard"


def test_every_word_has_phrases() -> None:
    for name, words in WORDS.items():
        if name != "person":
            assert set(PHRASES[name]) == set(words)
            assert all(PHRASES[name][word] for word in words)


def test_captions_claim_what_is_known() -> None:
    dice = random.Random(1)
    words = {"person": "man", "beard": "beard", "hair colour": "gray", "nose": None}
    texts = set()
    for _ in range(300):
        caption = compose(words, dice, 2)
        assert set(caption.claims.items()) <= {(k, v) for k, v in words.items() if v}
        assert not unknown_words(caption.text)
        texts.add(caption.text)
    assert len(texts) > 200
    assert {"a man with a beard", "a man with gray hair"} <= {
        compose({"person": "man", key: words[key]}, dice, 1).text
        for key in ("beard", "hair colour")
        for _ in range(4000)
    }


def test_hard_negatives_change_one_attribute() -> None:
    dice = random.Random(2)
    for _ in range(300):
        words = {name: dice.choice([None, *options]) for name, options in WORDS.items()}
        caption = compose(words, dice, 3)
        if not caption.claims:
            continue
        other, changed = hard_negative(caption, dice)
        differing = [name for name in caption.claims if caption.claims[name] != other.claims[name]]
        assert differing == [changed]
        assert other.text != caption.text
        assert other.layout == caption.layout


def test_alternatives_differ_in_the_word_alone() -> None:
    for name in WORDS:
        captions = alternatives(name, random.Random(3), "woman")
        assert [caption.claims[name] for caption in captions] == list(WORDS[name])
        assert len({caption.text for caption in captions}) == len(WORDS[name])


def test_unknown_words() -> None:
    for prompt in (
        "a man with a beard", "a man with gray hair", "A smiling woman!", "a woman with a big nose",
        "a person with blue eyes", "a woman with red hair", "a woman's face with thick eyebrows", "",
        "an old man in a cap and sunglasses", "a young, middle-aged person with wavy, curly or straight white hair",
        "a freckled woman with make-up, earrings and closed green eyes", "angry, surprised, sad",
    ):  # fmt: skip
        assert unknown_words(prompt) == ()
    assert unknown_words("a gloomy Elf with purple dreadlocks, an elf") == ("gloomy", "elf", "dreadlocks")
    assert unknown_words("eine Frau mit rötlichem Haar") == ("eine", "frau", "mit", "rötlichem", "haar")
    assert unknown_words("a 'zeppelin', a “blimp” and a woman's ‘hat’") == ("zeppelin", "blimp")
    assert all(word == word.lower() for word in VOCABULARY)


@pytest.mark.parametrize(
    ("prompt", "weak"),
    [
        ("a woman with a big nose, pink clothes and red lips", ("pink clothes",)),
        ("a blue-eyed girl with bushy brows looking left", ()),
        ("a man with sunglasses", ()),
        ("a man with white hair", ()),
        ("a woman with freckles and green eyes", ("freckles", "green eyes")),
        ("a man without glasses", ()),
        ("a man with a beard, gray hair and a smile", ()),
    ],
)
def test_what_the_bundled_judge_hardly_tells_apart(prompt: str, weak: tuple[str, ...]) -> None:
    assert weak_phrases(prompt) == weak
    assert all(set(words) <= set(WORDS[attribute]) for attribute, words in WEAK.items())


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a woman with a big nose", (("nose", 1),)),
        ("a man with a small nose and thick eyebrows", (("nose", -1), ("eyebrows", 1))),
        ("a person with big eyes", (("eyes", 1),)),
        ("a big smile", ()),
        ("a woman with red hair", ()),
    ],
)
def test_sizes_are_read_off_the_sentence(prompt: str, wanted: tuple[tuple[str, int], ...]) -> None:
    assert sizes(prompt) == wanted
    assert all(word in WORDS[attribute] and part in FACE_PARTS.names for (attribute, word), (part, _) in SIZES.items())


@pytest.mark.parametrize(
    ("prompt", "claims"),
    [
        ("a woman with red hair", [{"hair colour": w} for w in ("black", "brown", "blond", "gray", "white")]),
        ("a smiling man", [{"smile": "none"}]),
        ("a bald man with a beard", [{"bald": "none", "beard": "beard"}, {"bald": "bald", "beard": "none"}]),
    ],
)
def test_rivals_differ_in_one_claim(prompt: str, claims: list[dict[str, str]]) -> None:
    found = rivals(prompt)
    assert [{a: word for a, (word, _) in read_claims(said).items()} for said in found] == claims
    person = "woman" if "woman" in prompt else "man"
    assert all(set(said.split()) & set(NOUNS[person]) for said in found)


def test_rivals_of_what_claims_nothing_or_only_who_it_is() -> None:
    assert rivals("a person") == rivals("") == rivals("zeppelin") == ()
    (other,) = rivals("a lady")
    assert set(other.split()) & set(NOUNS["man"])


def test_measures_lean_to_both_words_between_the_cuts() -> None:
    """Openness of the mouth is cut at 0.04 and 0.2."""
    shares = [lean({"mouth.inside": value})["mouth"] for value in (0.0, 0.1, 0.12, 0.14, 0.3)]
    opened = [share[1] for share in shares if share is not None]
    assert opened == sorted(opened) and len(set(opened)) == 5
    assert opened[2] == pytest.approx(0.5)
    assert all(sum(share) == pytest.approx(1) for share in shares if share is not None)
    assert lean({})["mouth"] is None
    assert lean({"glasses.area": 0.01})["glasses"] is None, "glasses are there or not"
    assert lean({"glasses.area": 0.1})["glasses"] == (0.0, 1.0, 0.0)


def test_what_else_decides_a_word_decides_how_a_face_leans() -> None:
    turned = {"nose.size": 0.085, "pose.turn": 0.2}
    assert lean(turned)["nose"] is None
    assert lean(turned | {"pose.turn": 0.0})["nose"] == pytest.approx((0.5, 0.5))
    assert lean({"beard.strength": 8.5}, p_man=0.1)["beard"] == (1.0, 0.0)


def test_words_that_a_slider_does_lead_to_it() -> None:
    assert leads("an old man with a beard, without a smile") == (
        *LEADS["age", "old"],
        *LEADS["beard", "beard"],
        ("mouth.smile", -2.0),
    )
    assert leads("a woman with a big nose") == () and leads("without a beard")[0][1] < 0
    assert all(word in WORDS[name] for name, word in LEADS)
    there = {slider.id for slider in load_assets(None, torch.device("cpu")).sliders or ()}
    assert {name for found in LEADS.values() for name, _ in found} <= there


def test_captions_fit_the_context() -> None:
    text.create_judge()
    tokenizer = open_clip.get_tokenizer(text.NAME)
    dice = random.Random(4)
    words = {name: options[-1] for name, options in WORDS.items()}
    tokens = tokenizer([compose(words, dice, 3).text for _ in range(500)])
    cut_off = (tokens[:, -1] == 49407) & (tokens[:, -2] != 0)
    assert cut_off.float().mean() < 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn faces as a data folder."""
    root = tmp_path_factory.mktemp("data") / "drawn"
    source = ProceduralSource(12, size=64)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    rows = ["id,p_man,p_happy"]
    for index, name in enumerate(source.names()):
        image, mask = source.load(name)
        image.resize((128, 128)).save(root / "images" / f"{index:05d}.png")
        Image.fromarray(mask).resize((128, 128), Image.Resampling.NEAREST).save(root / "masks" / f"{index:05d}.png")
        rows.append(f"{index:05d},{index % 2},{index % 3 / 2}")
    (root / "attributes.csv").write_text("\n".join(rows))
    return root


def test_text_command_trains_goes_on_and_writes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, state = tmp_path / "judge.safetensors", tmp_path / "state.pt"
    arguments = ["--data", str(folder), "--out", str(out), "--cache", str(tmp_path / "cache"), "--state", str(state)]
    arguments += ["--size", "96", "--batch", "6", "--word-steps", "2", "--changed", "10", "--no-probes"]
    text.main([*arguments, "--images", "12"])
    told = capsys.readouterr().out
    assert "12 images in all" in told and "changed" in told
    model = text.create_judge(str(out))
    table = model.token_embedding.weight
    tokenizer = open_clip.get_tokenizer(text.NAME)
    zebra, beard = (int(tokenizer([word])[0, 1]) for word in ("zebra", "beard"))
    walrus = int(tokenizer(["walrus"])[0, 1])
    assert torch.equal(table[zebra], table[walrus])
    assert not torch.equal(table[zebra], table[beard])
    text.main([*arguments, "--images", "18"])
    told = capsys.readouterr().out
    assert "18 images in all" in told and state.is_file(), "it goes on from the state"
    assert "one word changed" in told


def test_a_kept_run_goes_on_as_if_it_had_not_stopped() -> None:
    faces = flat_faces()
    config = text.TextTrainingConfig(images=10**4, batch=8)
    first, second = (text.TextTrainer(config, [faces], [1.0]) for _ in range(2))
    while first._batch is not None or first.steps < 2:
        first.step()
    second.restore(first.state())
    assert first.step() == pytest.approx(second.step(), rel=1e-4)


def flat_faces() -> LabelledFaces:
    """Eight faces of one colour each, dark ones with closed and bright ones with open mouths; labels are silent."""
    colours = np.random.RandomState(0).randint(0, 60, (8, 1, 1, 3)) + np.array([0, 180] * 4)[:, None, None, None]
    shares = np.zeros((8, sum(map(len, WORDS.values()))), np.float32)
    mouth = sum(len(WORDS[a]) for a in ATTRIBUTES[: ATTRIBUTES.index("mouth")])
    shares[:, mouth : mouth + 2] = [[0.9, 0.1], [0.2, 0.8]] * 4
    images = np.broadcast_to(colours, (8, 96, 96, 3)).astype(np.uint8)
    return LabelledFaces("flat", images, np.full((8, len(ATTRIBUTES)), UNKNOWN), shares)


def test_anchors_of_attributes_stand_at_right_angles() -> None:
    start = torch.randn(sum(map(len, WORDS.values())), 128, generator=torch.Generator().manual_seed(0))
    anchors = Anchors(start)
    words = anchors()
    for a, first in enumerate(words):
        inside = first @ first.T
        assert torch.allclose(inside.diagonal(), torch.ones(len(first)), atol=1e-4)
        assert torch.allclose(first.sum(dim=0), torch.zeros(128), atol=1e-4)
        assert all(float((first @ other.T).abs().max()) < 1e-4 for other in words[a + 1 :])
    # Not any such frame: the one near where the words were.
    kept = [
        F.cosine_similarity(new, start[run] - start[run].mean(dim=0))
        for new, run in zip(words, anchors.runs, strict=True)
    ]
    assert float(torch.cat(kept).mean()) > 0.5


def test_training_tells_faces_apart_by_how_they_lean() -> None:
    config = text.TextTrainingConfig(images=10**4, batch=8)
    trainer = text.TextTrainer(config, [flat_faces()], [1.0], text.DEFAULT_OUT)
    losses = [trainer.step() for _ in range(16)]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


@pytest.mark.parametrize("way", range(6))
def test_broken_pictures_say_less(way: int) -> None:
    """Two faces, one of a man and one of a woman; of anything else nothing is known."""
    leanings = torch.zeros(2, 5)
    leanings[0, 0] = leanings[1, 1] = 1
    images = torch.stack([torch.full((3, 96, 96), value) for value in (0.2, 0.8)])
    runs = [slice(0, 2), slice(2, 5)]
    shown, said = text.broken(images, leanings, runs, torch.Generator().manual_seed(1), way)
    assert shown.shape == images.shape and shown.min() >= 0 and shown.max() <= 1
    assert torch.allclose(said[:, :2].sum(1), torch.ones(2), atol=1e-5), "what was known stays known"
    assert (said[:, 2:] == 0).all(), "and what was not, unknown"
    if way == 3:
        assert torch.equal(said, leanings), "noise changes nothing that is said"
    else:
        assert said.max() < 1


def test_every_word_is_drawn_about_as_often() -> None:
    leanings = np.zeros((100, 4), np.float32)
    leanings[:98, 0] = leanings[98:, 1] = 1
    leanings[:, 2] = 1
    chances = text.even(leanings)
    assert float(chances.sum()) == pytest.approx(1)
    assert 3 < float(chances[99] / chances[0]) <= 17


def test_mixed_faces_have_parts_of_each_other(tmp_path: Path) -> None:
    checkpoint = default_checkpoint()
    assert checkpoint is not None
    plain, mixed = (generated_faces(checkpoint, 4, tmp_path, 64, mixed=flag) for flag in (False, True))
    assert (plain.name, mixed.name) == ("generated", "mixed")
    assert mixed.images.shape == plain.images.shape and not np.array_equal(mixed.images, plain.images)
    assert mixed.leanings.sum(axis=1).min() > 0
    again = generated_faces(checkpoint, 4, tmp_path, 64, mixed=True)
    assert np.array_equal(again.images, mixed.images)


def test_moved_sliders_change_only_their_parts_of_a_face() -> None:
    checkpoint = default_checkpoint()
    assert checkpoint is not None
    loaded = load_generator(checkpoint)
    latents = loaded.generator.sample(range(3))
    sliders = sliders_beside(checkpoint, loaded.sha256, latents.config)
    assert sliders is not None
    moved = slide(latents, sliders, torch.Generator().manual_seed(0))
    changed = (moved.w != latents.w).any(dim=3)
    assert not changed[:, 0].any(), "the background stays"
    assert (changed.any(dim=2).sum(dim=1) >= 1).all() and (changed.any(dim=2).sum(dim=1) <= 4).all()
    assert sliders_beside(Path("nowhere/faces.safetensors"), loaded.sha256, latents.config) is None


def test_changed_faces_say_what_was_changed(folder: Path, tmp_path: Path) -> None:
    source = load_source(folder, tmp_path, 96)
    freckles, lids = (sum(len(WORDS[a]) for a in ATTRIBUTES[: ATTRIBUTES.index(n)]) for n in ("freckles", "eyelids"))
    told = [{"hair colour": (1.0, 0, 0, 0, 0, 0), "age": (0.0, 0.0, 1.0)} for _ in source.told]
    faces = changed_faces([source], [told], 24, tmp_path, held=False)
    age = ATTRIBUTES.index("age")
    assert (faces.labels[:, age] == WORDS["age"].index("old")).all(), "what the change does not touch stays as it was"
    assert (faces.leanings[:, freckles : freckles + 2].sum(1) > 0).any()
    assert (faces.leanings[:, lids + WORDS["eyelids"].index("closed")] == 1).any()
    originals = {image.tobytes() for image in np.asarray(source.faces.images)}
    assert sum(image.tobytes() not in originals for image in faces.images) >= 12
    again = changed_faces([source], [told], 24, tmp_path, held=False)
    assert np.array_equal(again.images, faces.images) and np.array_equal(again.labels, faces.labels)


def test_freckles_are_brown_spots_on_skin() -> None:
    image, ids = face()
    spotted = freckles(image, ids, np.random.default_rng(0))
    changed = (spotted != image).any(axis=2)
    assert 0.01 < changed.mean() < 0.2
    assert set(np.unique(ids[changed])) <= {FACE_PARTS.index("skin"), FACE_PARTS.index("nose")}
    assert (spotted[changed].mean(axis=0) < image[changed].mean(axis=0)).all()


def test_the_validation_split_is_fixed() -> None:
    stems = [f"{n:05d}" for n in range(300)]
    assert np.flatnonzero(held_out("ffhq", stems)).tolist() == list(range(7, 300, 20))
    assert np.flatnonzero(held_out("celebamask", stems)).tolist() == list(range(100, 300))
    assert not held_out("others", ["anna", "bert"]).any()


def test_a_table_of_labels_becomes_opinions(tmp_path: Path) -> None:
    columns = (
        "name,age,p_man,smile,glasses,beard,moustache,bald,hair_hidden,hair_black,hair_brown,hair_blond,hair_red,"
        "hair_gray,headwear,eye_makeup,lip_makeup"
    )
    rows = [
        "00000,70,1,0,Sunglasses,0.6,0.0,0.9,0,0,0,0,0,1,0,0,0",
        "00001,20,0,1,NoGlasses,0,0,0,0,1,0,0,0,0,1,1,0",
        "00002,45,0,1,NoGlasses,0,0,0,0,1,0,0,0,0,0,1,1",
    ]
    (tmp_path / "attributes.csv").write_text("\n".join([columns, *rows]))
    first, second, third = read_opinions(tmp_path).values()
    assert [told["age"] for told in (first, second, third)] == [(0, 0, 1), (1, 0, 0), (0, 1, 0)]
    assert [told["glasses"] for told in (first, second)] == [(0, 0, 1), (1, 0, 0)]
    assert [told["make-up"] for told in (first, second, third)] == [(1, 0), (0.5, 0.5), (0, 1)]
    assert (first["bald"], first["beard"], second["hat"]) == ((1, 0), (0, 1), (0, 1))
    assert "bald" not in second, "nobody sees the head below a hat"
    assert "hair colour" not in first and "hair colour" not in second and third["hair colour"][0] == 1
    assert read_opinions(tmp_path / "nowhere") == {}


def test_marks_name_words_that_there_are() -> None:
    with MARKS.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({(row["set"], row["name"], row["attribute"]) for row in rows}) == len(rows) > 100
    assert all(row["word"] in WORDS[row["attribute"]] for row in rows)


@pytest.mark.parametrize("years", [18, 29, 35, 45, 56, 62, 90])
def test_ages_pass_gradually(years: float) -> None:
    words = age_words(years)
    assert sum(words) == pytest.approx(1) and min(words) >= 0
    assert (words[0] == 1) == (years <= 29) and (words[2] == 1) == (years >= 62)


def test_measures_and_opinions_are_weighed() -> None:
    measured = {"glasses": (0.0, 1.0, 0.0), "hat": None, "mouth": (1.0, 0.0)}
    told: Opinion = {"glasses": (1.0, 0.0, 0.0), "hat": (0.0, 1.0)}
    merged = merge(measured, told)
    assert merged["glasses"] == pytest.approx((0.6, 0.4, 0.0))
    assert merged["hat"] == (0.0, 1.0) and merged["mouth"] == (1.0, 0.0)
    white = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    gray = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert merge({"hair colour": white}, {"hair colour": gray})["hair colour"] == white


def test_probes_tell_labels_to_faces_without_any() -> None:
    dice = np.random.default_rng(0)
    glasses = dice.integers(0, 3, 400)
    features = (np.eye(3)[glasses] @ dice.normal(size=(3, 20)) + 0.1 * dice.normal(size=(400, 20))).astype(np.float16)
    told: list[Opinion] = [{"glasses": tuple(np.eye(3)[g])} for g in glasses[:200]]
    # One label in ten is wrong, and every twentieth face is held out.
    for row in range(0, 200, 10):
        told[row] = {"glasses": tuple(np.eye(3)[(glasses[row] + 1) % 3])}
    held = np.arange(200) % 20 == 7
    others = np.zeros(200, dtype=bool)
    (known, unknown), agreement = consult([features[:200], features[200:]], [told, [{}] * 200], [held, others])
    assert [int(np.argmax(o["glasses"])) for o in unknown] == glasses[200:].tolist()
    assert max(known[10]["glasses"]) < 0.7, "a wrong label is not believed"
    assert known[7] == told[7], "held-out faces stay as they were told"
    assert 0.8 < agreement["glasses"] < 1


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> LabelledFaces:
    checkpoint = default_checkpoint()
    assert checkpoint is not None
    return generated_faces(checkpoint, 48, tmp_path_factory.mktemp("cache"), 128)


def test_bundled_text_judge_understands_generated_faces(generated: LabelledFaces) -> None:
    model = text.create_judge(str(text.DEFAULT_OUT)).eval()
    found = text_eval.evaluate(model, open_clip.get_tokenizer(text.NAME), generated)
    assert found[text_eval.CHANGED].right > 0.7
    gains = [score.right - score.chance for name, score in found.items() if name != text_eval.CHANGED]
    assert np.mean(gains) > 0.15


@pytest.mark.parametrize(
    ("right", "wrong", "options"),
    [
        ("a person with blond hair", "a person with black hair", {"hair": (215, 180, 115)}),
        ("a person with black hair", "a person with blond hair", {"hair": (12, 10, 10)}),
    ],
)
def test_bundled_text_judge_follows_a_drawn_change(right: str, wrong: str, options: dict) -> None:
    """The change from the plain drawing must speak for the right sentence, though it has never seen such a drawing."""
    model = text.create_judge(str(text.DEFAULT_OUT)).eval()
    tokens = open_clip.get_tokenizer(text.NAME)([right, wrong])
    pictures = np.stack([face()[0], face(**options)[0]])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    images = F.interpolate(images, size=model.visual.image_size, mode="bilinear", antialias=True)
    with torch.no_grad():
        said = model.encode_text(tokens, normalize=True)
        scores = model.encode_image(text_eval.normalise(images), normalize=True) @ (said[0] - said[1])
    assert scores[1] > scores[0]


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (200, 200)])
def test_embedder_gives_unit_vectors_and_gradients(size: tuple[int, int]) -> None:
    images = (torch.rand(2, 3, *size) * 2 - 1).requires_grad_()
    vectors = FaceEmbedder(TINY).eval()(images)
    assert vectors.shape == (2, TINY.dim)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    vectors[:, 0].sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


@pytest.mark.parametrize("images", [torch.rand(3, 64, 64), torch.rand(1, 3, 20, 64), torch.zeros(1, 3, 64, 64).byte()])
def test_embedder_refuses_what_is_no_batch_of_faces(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="images must be"):
        FaceEmbedder(TINY)(images)


def test_embedder_round_trip(tmp_path: Path) -> None:
    net = FaceEmbedder(TINY).eval()
    file = tmp_path / "net.safetensors"
    save_face_net(file, net, Provenance(data=("drawn",)))
    state = torch.random.get_rng_state()
    loaded = load_face_net(file)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loaded.config == TINY
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(loaded(images), net(images), atol=2e-2, rtol=0)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _other_kind(file: Path) -> None:
    save_module(file, FaceEmbedder(TINY).state_dict(), {"kind": "face-parser", "config": {}})


def _no_config(file: Path) -> None:
    save_module(file, FaceEmbedder(TINY).state_dict(), {"kind": "face-embedder"})


def _other_shape(file: Path) -> None:
    config = {**dataclasses.asdict(TINY), "dim": 13}
    save_module(file, FaceEmbedder(TINY).state_dict(), {"kind": "face-embedder", "config": config})


def _huge(file: Path) -> None:
    config = {**dataclasses.asdict(TINY), "stages": [[8, 6, 2, 2], [10**9, 8, 1, 2]]}
    save_module(file, FaceEmbedder(TINY).state_dict(), {"kind": "face-embedder", "config": config})


def _pickle(file: Path) -> None:
    torch.save(FaceEmbedder(TINY).state_dict(), file)


@pytest.mark.parametrize("damage", [_cut, _empty, _other_kind, _no_config, _other_shape, _huge, _pickle, Path.unlink])
def test_damaged_embedders_are_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = tmp_path / "net.safetensors"
    save_face_net(file, FaceEmbedder(TINY), Provenance())
    damage(file)
    with pytest.raises(CheckpointError):
        load_face_net(file)


def test_an_embedder_with_values_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    net = FaceEmbedder(TINY).eval()
    with torch.no_grad():
        net.get_parameter("head.6.bias")[0] = float("nan")
    save_face_net(tmp_path / "net.safetensors", net, Provenance())
    with pytest.raises(CheckpointError, match="not finite"):
        load_face_net(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 60},
        {"size": 24},
        {"stages": ()},
        {"stages": ((8, 6, 0, 2),)},
        {"stages": ((8, 6, 1, 3),)},
        {"stem": 0},
        {"last": 10**6},
        {"dim": 1},
    ],
)
def test_impossible_embedders_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        dataclasses.replace(TINY, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"size": 32.0}, {"stages": 3}, {"stages": [[8, 6, 1]]}, {"stages": [[8, 6, 1, "2"]]}, {"width": 8}]
)
def test_configurations_of_another_form_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its configuration must have"):
        network_config(FaceNetConfig, {"config": {**dataclasses.asdict(TINY), **wrong}})


def test_an_embedder_with_its_normalisations_folded_in_says_the_same() -> None:
    torch.manual_seed(1)
    net, images = FaceEmbedder(TINY), torch.rand(4, 3, 40, 40) * 2 - 1
    for _ in range(3):
        net(images)  # measures means and spreads
    folded = net.eval().folded()
    torch.testing.assert_close(folded(images), net(images), atol=1e-5, rtol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules()), "the first one stays as it is"


def test_bundled_embedder_keeps_a_face_together(generated: LabelledFaces) -> None:
    """The same face in other light, blurred and shifted stays closer than other faces do."""
    net = load_face_net()
    images = torch.from_numpy(generated.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    changed = F.avg_pool2d(images.roll(2, dims=3), 3, 1, 1) * 0.8 - 0.1
    scores = net(images) @ net(changed).T
    same = scores.diagonal()
    other = scores[~torch.eye(len(scores), dtype=torch.bool)]
    assert same.mean() > other.mean() + 0.3
    assert (same[:, None] > other[None]).float().mean() > 0.98
