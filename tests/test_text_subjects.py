"""What a sentence is about: whose codes may change, where it may show, and in which layers."""

from __future__ import annotations

import pytest

from editing.face.state import GROUPS
from editing.text.subjects import read_subject
from memorygan.parts import FACE_PARTS

FACE = ("skin", "eyes", "eyebrows", "mouth", "nose", "hair")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a woman with red hair", {"hair"}),
        ("blond", {"hair"}),
        ("a curly-haired man", {"hair"}),
        ("blue eyes", {"eyes", "skin", "hair"}),
        ("a man with a beard", {"skin", "mouth"}),
        ("a smiling woman", {"mouth", "skin"}),
        ("Lipstick!", {"mouth"}),
        ("a big nose and thick eyebrows", {"nose", "eyebrows"}),
        ("wearing glasses", {"eyeglass"}),
        ("a hat and earrings", {"hat", "earring"}),
        ("in a green shirt", {"cloth"}),
        ("in front of a dark background", {"background"}),
        ("an old man", {"skin", "eyes", "eyebrows", "mouth", "nose", "hair"}),
        ("a woman", {"skin", "eyes", "eyebrows", "mouth", "nose", "hair"}),
        ("ein Zeppelin", {"skin", "eyes", "eyebrows", "mouth", "nose", "hair"}),
        ("🦊", {"skin", "eyes", "eyebrows", "mouth", "nose", "hair"}),
        ("", {"skin", "eyes", "eyebrows", "mouth", "nose", "hair"}),
        ("in a hoodie", {"cloth"}),
        ("in a hood", {"hat"}),
        ("a double chin", {"skin"}),
        # Words that only begin like one of the list say nothing of that part.
        *((word, {"skin", "eyes", "eyebrows", "mouth", "nose", "hair"}) for word in ("Chinese", "Irish", "studious")),
    ],
)
def test_suggested_parts(prompt, expected):
    assert set(read_subject(prompt).parts) == expected


def test_the_order_is_that_of_the_parts():
    said = "earrings, a hat, glasses, clothes, hair, ears, a nose, a mouth, brows, eyes, skin, a neck and a background"
    assert read_subject(said).parts == FACE_PARTS.names


def test_suggestions_keep_to_the_model():
    assert read_subject("a hat and hair", lambda part: part != "hat").parts == ("hair",)
    assert read_subject("blue eyes", lambda part: part != "hair").parts == ("skin", "eyes")


@pytest.mark.parametrize(
    ("prompt", "parts", "shown"),
    [
        ("a woman with red hair", ("hair",), ("hair",)),
        ("a person with blue eyes", ("skin", "eyes", "hair"), ("eyes",)),
        ("a blond man with blue eyes", ("skin", "eyes", "hair"), ("eyes", "hair")),
        ("an old man with blue eyes", FACE, FACE),
        ("a person with big eyes", ("eyes",), ("eyes",)),
        ("a person with big blue eyes", ("skin", "eyes", "hair"), ("eyes",)),
        ("a man with a beard", ("skin", "mouth"), ("skin", "mouth")),
    ],
)
def test_a_change_shows_in_what_the_sentence_is_about(prompt, parts, shown):
    subject = read_subject(prompt)
    assert set(subject.parts) == set(parts)
    assert set(subject.helpers) == set(parts) - set(shown)
    assert set(subject.shown) == set(shown)


@pytest.mark.parametrize(
    ("prompt", "allowed", "region"),
    [
        ("blue eyes", ("skin", "eyes", "hair"), ("eyes",)),
        ("blue eyes", ("skin", "hair"), ("eyes",)),
        ("blue eyes", ("eyes",), ("eyes",)),
        ("blue eyes", ("hair", "nose"), ("eyes", "nose")),
        ("blue eyes", ("nose",), ("nose",)),
        ("a woman", ("hair",), ("hair",)),
        ("red hair", ("cloth", "hair"), ("hair", "cloth")),
    ],
)
def test_chosen_parts_count_and_those_that_only_help_show_elsewhere(prompt, allowed, region):
    assert read_subject(prompt).region(allowed) == region


@pytest.mark.parametrize(
    ("prompt", "layers"),
    [
        ("a person with long hair", "shape"),
        ("short-haired", "shape"),
        ("a bald man", "shape"),
        ("a woman with bangs", "shape"),
        ("a person with red hair", "texture"),
        ("a blonde woman", "texture"),
        ("gray-haired", "texture"),
        ("long red hair", "all"),
        ("a blond man with bangs", "all"),
        ("curly hair", "all"),
        ("messy hair", "all"),
        ("long hair and a big smile", "all"),
        ("a man in a black shirt with long hair", "all"),
        ("a person with blue eyes", "all"),
        ("a smiling woman", "all"),
        ("a woman", "all"),
        ("", "all"),
    ],
)
def test_what_is_said_of_the_cut_leaves_the_colour_alone(prompt, layers):
    assert read_subject(prompt).layers == layers
    assert layers in GROUPS
