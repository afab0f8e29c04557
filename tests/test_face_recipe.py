"""Recipes: exact round trips, honest refusals."""

from __future__ import annotations

import base64
import io
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from editing.errors import EditingError
from editing.face.codes import Codes
from editing.face.compare import diff
from editing.face.edits import ResampleEdit, SliderEdit, SwapEdit, TextEdit, edit_dict
from editing.face.embedded import embed, extract, read_recipe
from editing.face.fields import MAX_BYTES
from editing.face.recipe import VERSION, Recipe
from editing.face.sources import CodesSource, SeedSource
from memorygan.parts import FACE_PARTS


def example() -> Recipe:
    codes = Codes.of(torch.randn(2, 4, 8))
    return Recipe(
        "a" * 64,
        SeedSource(7, 0.6),
        (
            SliderEdit("hair.lightness", 1.5),
            SwapEdit(SeedSource(9), ("nose", "mouth"), "shape", 0.5),
            SwapEdit(CodesSource(codes, None, ("hair", "hat"), "edited"), ("hair",), "all"),
            ResampleEdit("eyes", Codes.of(torch.randn(16)), 12, "texture", 0.8),
        ),
        "b" * 64,
        "faces-128",
    )


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))


def test_json_round_trip():
    recipe = example()
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.to_json().isascii()


def test_photo_codes_survive_exactly():
    codes = torch.randn(13, 10, 32).half().float()
    recipe = Recipe("a" * 64, CodesSource(Codes.of(codes), Codes.of(torch.randn(14, 16))))
    source = Recipe.from_json(recipe.to_json()).source
    assert isinstance(source, CodesSource)
    assert torch.equal(source.codes.tensor(), codes)


def test_png_carries_recipe_and_the_same_pixels():
    recipe = example()
    data = embed(picture(), recipe)
    assert extract(data) == recipe
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(picture()))
    assert read_recipe(data) == extract(data)


def test_a_large_recipe_rides_in_a_png():
    recipe = Recipe("a" * 64, CodesSource(Codes.of(torch.randn(13, 10, 512))))
    data = embed(picture(), recipe)
    assert extract(data) == recipe
    assert Image.open(io.BytesIO(data)).load() is not None, "other programs still open it"


@pytest.mark.parametrize(
    ("data", "part_of_answer"),
    [
        (b"", "no recipe|no readable JSON"),
        (b"\xff\xd8\xff\xe0 a jpeg", "carries no recipe"),
        (b"RIFF....WEBP", "carries no recipe"),
        (b"II*\0 a tiff", "carries no recipe"),
        (b"GIF89a", "only a picture that was saved here"),
        ("[1, 2]", "no recipe"),
        ('{"format": "other"}', "no recipe"),
        ("{" * 100_000, "no readable JSON"),
        (b"\x80\x04pickle", "no readable JSON"),
        (" " * (MAX_BYTES + 1), "at most 8 MiB"),
    ],
    ids=["empty", "jpeg", "webp", "tiff", "gif", "list", "foreign", "deep", "pickle", "huge"],
)
def test_files_without_a_recipe(data, part_of_answer):
    with pytest.raises(EditingError, match=part_of_answer):
        read_recipe(data)


def test_png_without_a_recipe():
    stream = io.BytesIO()
    picture().save(stream, "PNG")
    with pytest.raises(EditingError, match="carries no recipe"):
        read_recipe(stream.getvalue())
    with pytest.raises(EditingError, match="carries no recipe"):
        read_recipe(embed(picture(), example())[:60])


def changed(**values) -> str:
    return json.dumps({**example().to_dict(), **values})


@pytest.mark.parametrize(
    ("text", "part_of_answer"),
    [
        (changed(version=VERSION + 1), "newer version"),
        (changed(version="1"), "no valid version"),
        (changed(version=True), "no valid version"),
        (changed(edits=[{"op": "paint"}]), "unknown kind"),
        (changed(edits="none"), "list of at most"),
        (changed(edits=[{"op": "slider", "slider": "a.b", "value": 1}] * 1001), "list of at most"),
        (changed(edits=[{"op": "slider", "slider": "a.b", "value": float("1e9")}]), "value is"),
        (changed(source={"kind": "seed", "seed": -1, "truncation": 0.5}), "seed is -1"),
        (changed(source={"kind": "seed", "seed": 1.5, "truncation": 0.5}), "seed is 1.5"),
        (changed(source={"kind": "dream"}), "does not know"),
        (changed(source=None), "source is missing"),
        (changed(checkpoint="abc"), "checkpoint is missing"),
        (changed(edits=[{**edit_dict(example().edits[1]), "parts": []}]), "list of parts"),
        (changed(edits=[{**edit_dict(example().edits[1]), "group": "most"}]), "layer group"),
        (changed(edits=[{**edit_dict(example().edits[1]), "amount": float("nan")}]), "amount"),
    ],
)
def test_damaged_recipes(text, part_of_answer):
    with pytest.raises(EditingError, match=part_of_answer):
        Recipe.from_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "not base64!",
        base64.b64encode(b"not zlib").decode(),
        base64.b64encode(zlib.compress(b"not safetensors")).decode(),
        base64.b64encode(zlib.compress(b"\0" * (16 * 2**20))).decode(),
    ],
    ids=["base64", "zlib", "safetensors", "bomb"],
)
def test_damaged_codes(text):
    with pytest.raises(EditingError, match=r"damaged|larger than any face"):
        Codes(text).tensor()


def test_codes_refuse_what_is_not_finite():
    with pytest.raises(EditingError, match="finite"):
        Codes.of(torch.tensor([1.0, float("nan")]))
    with pytest.raises(EditingError, match="finite"):
        Codes.of(torch.tensor([1e9]))


def test_another_checkpoint_is_named():
    with pytest.raises(EditingError, match="faces-128"):
        example().require("c" * 64)
    example().require("a" * 64)


def test_diff_tells_what_changed_and_nothing_else():
    first = example()
    second = Recipe(first.checkpoint, SeedSource(8), (*first.edits[1:], SliderEdit("nose.width", -1.0)))
    lines = diff(first, second)
    assert lines == (
        "start: face 7 (truncation 0.6) → face 8 (truncation 0.7)",
        "without: Hair: lightness +1.5",
        "with: Nose: width -1",
    )
    assert diff(first, first) == ()


def test_a_difference_is_named_whatever_it_is():
    """Two recipes that are not the same never differ by nothing, nor by two lines that read the same."""
    recipe = example()
    assert diff(recipe, recipe) == ()
    (line,) = diff(recipe, replace(recipe, sliders="c" * 64))
    assert line == f"sliders: {'b' * 12} → {'c' * 12}"
    assert diff(recipe, replace(recipe, tuned=True)) == ("with: fine tuning to a photo",)
    assert diff(replace(recipe, tuned=True), recipe) == ("without: fine tuning to a photo",)
    assert diff(replace(recipe, edits=()), replace(recipe, edits=(), sliders=None)) == (f"sliders: {'b' * 12} → none",)
    codes = [Codes.of(torch.full((1, 4, 8), value)) for value in (0.0, 1.0)]
    edit = TextEdit("red hair", ("hair",), codes[0])
    for other, said in (
        (
            replace(edit, seed=5),
            "seed 0",
        ),
        (replace(edit, strength="strong"), "strength normal"),
        (replace(edit, weights=(("clip", 2.0),)), "weights none"),
        (replace(edit, codes=codes[1]), "codes "),
    ):
        gone, come = diff(replace(recipe, edits=(edit,)), replace(recipe, edits=(other,)))
        assert gone.startswith("without: Hair: “red hair” [")
        assert said in gone
        assert gone.removeprefix("without: ") != come.removeprefix("with: ")
    unlike = diff(replace(recipe, edits=(edit,)), replace(recipe, edits=(replace(edit, prompt="blue hair"),)))
    assert unlike == ("without: Hair: “red hair”", "with: Hair: “blue hair”")


def test_recipes_of_the_first_version_say_whether_the_base_code_was_taken():
    names = FACE_PARTS.names
    blends = (SwapEdit(SeedSource(9), names, "every", 1.0, True), SwapEdit(SeedSource(9), names[3:], "every", 1.0))
    recipe = replace(example(), edits=(*blends, *example().edits))
    data = recipe.to_dict()
    for edit in data["edits"]:
        edit.pop("base", None)
    assert Recipe.from_dict({**data, "version": 1}) == recipe
    with pytest.raises(EditingError, match="mark of the base code"):
        Recipe.from_dict(data)
