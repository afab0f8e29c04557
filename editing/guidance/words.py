"""Measures of a face put into words.

A word is what a person would say, and is left out where the measure is near the border between two words or cannot be
taken at all: a caption must not claim what cannot be seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeAlias

Words: TypeAlias = "dict[str, str | None]"

COLOURS = ("black", "gray", "white", "red", "pink", "orange", "brown", "yellow", "green", "blue", "purple")
# Every attribute and the words it can be put into. Nothing here measures age, form of hair, mood, closed eyes, make-up
# and freckles: what the judge learns of them is told by labels, see :mod:`editing.guidance.training.opinions`.
WORDS: Mapping[str, tuple[str, ...]] = {
    "person": ("woman", "man"),
    "age": ("young", "middle-aged", "old"),
    "hair colour": ("black", "brown", "blond", "red", "gray", "white"),
    "hair length": ("short", "medium", "long"),
    "hair form": ("straight", "wavy", "curly"),
    "bangs": ("none", "bangs"),
    "bald": ("bald", "none"),
    "beard": ("none", "beard"),
    "moustache": ("none", "moustache"),
    "glasses": ("none", "glasses", "sunglasses"),
    "hat": ("none", "hat"),
    "earrings": ("none", "earrings"),
    "smile": ("none", "smile"),
    "teeth": ("none", "teeth"),
    "mouth": ("closed", "open"),
    "mood": ("calm", "angry", "surprised", "sad"),
    "eyelids": ("open", "closed"),
    "lipstick": ("none", "lipstick"),
    "make-up": ("none", "make-up"),
    "freckles": ("none", "freckles"),
    "brows": ("thin", "thick"),
    "nose": ("small", "big"),
    "face": ("narrow", "wide"),
    "skin": ("dark", "tanned", "pale"),
    "eye colour": ("blue", "green", "brown"),
    "eye size": ("small", "big"),
    "pose": ("left", "front", "right"),
    "backdrop": ("dark", "bright"),
    "background": COLOURS,
    "clothes": COLOURS,
}

# Attribute → measure, the value below which the first word holds, the one above which the second does, both words.
_CUT: Mapping[str, tuple[str, float, float, tuple[str, str]]] = {
    "hair length": ("hair.length", -0.65, 0.05, ("short", "long")),
    "bangs": ("hair.bangs", 0.06, 0.4, ("none", "bangs")),
    "bald": ("hair.crown", 0.3, 0.6, ("bald", "none")),
    "beard": ("beard.strength", 4.5, 12.5, ("none", "beard")),
    "moustache": ("moustache.darkness", 4.0, 13.0, ("none", "moustache")),
    "glasses": ("glasses.area", 0.002, 0.02, ("none", "glasses")),
    "hat": ("hat.area", 0.002, 0.1, ("none", "hat")),
    "earrings": ("earrings.area", 0.0005, 0.008, ("none", "earrings")),
    "smile": ("smile.strength", -1.2, 1.2, ("none", "smile")),
    "teeth": ("smile.teeth", 0.03, 0.14, ("none", "teeth")),
    "mouth": ("mouth.inside", 0.04, 0.2, ("closed", "open")),
    # Masks show that an eye is open; where it is closed they show little or nothing, as under a lens.
    "eyelids": ("eyes.openness", -1.0, 0.05, ("closed", "open")),
    "lipstick": ("lips.redness", 8.0, 13.5, ("none", "lipstick")),
    "brows": ("brows.thickness", 0.046, 0.072, ("thin", "thick")),
    "nose": ("nose.size", 0.0755, 0.0945, ("small", "big")),
    "face": ("face.width", 0.9, 1.02, ("narrow", "wide")),
    "skin": ("skin.tone", 1.0, 50.0, ("dark", "pale")),
    "eye size": ("eyes.size", 0.0135, 0.0245, ("small", "big")),
}


def split_words(text: str) -> list[str]:
    """The words of a text in lower case; "woman's" is "woman", while quotes around a word are left out."""
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[^\W\d_])['’][^\W\d_]*", "", text.lower()))


def describe(raw: Mapping[str, float | None], p_man: float | None = None) -> Words:
    """Puts measures into words.

    Args:
        raw: see :data:`editing.guidance.measures.MEASURES`; what is missing counts as None.
        p_man: probability from a classifier that this is a man, if one was asked; pixels alone do not tell.

    Returns:
        attribute → word for every attribute of :data:`WORDS`; None where nothing can be said.
    """
    words: Words = {
        name: _between(raw.get(measure), low, high, *names) for name, (measure, low, high, names) in _CUT.items()
    }
    words |= {name: None for name in WORDS if name not in words}
    words["person"] = _between(p_man, 0.25, 0.75, "woman", "man")
    words["hair colour"] = _hair_colour(raw)
    if words["bald"] == "bald" or words["hat"] == "hat":
        words["bangs"] = None
        words["bald"] = words["bald"] if words["hat"] != "hat" else None
    if words["bald"] == "bald":
        words["hair colour"] = words["hair length"] = None
    length = raw.get("hair.length")
    if words["hair length"] is None and length is not None and -0.5 < length < -0.1 and words["bald"] != "bald":
        words["hair length"] = "medium"
    lens = raw.get("glasses.darkness")
    if words["glasses"] == "glasses" and lens is not None and lens > 38:
        words["glasses"] = "sunglasses"
    if words["beard"] == "beard" and p_man is not None and p_man < 0.5:
        words["beard"] = words["moustache"] = None
    if words["lipstick"] == "lipstick" and p_man is not None and p_man > 0.6:
        words["lipstick"] = None
    if p_man is not None and p_man < 0.2:
        words["beard"], words["moustache"] = "none", "none"
    tone = raw.get("skin.tone")
    if tone is not None and 18 < tone < 32:
        words["skin"] = "tanned"
    words["eye colour"] = None if words["glasses"] != "none" else _eye_colour(raw)
    if words["glasses"] == "sunglasses":
        words["eye size"] = words["eyelids"] = None
    words["background"], words["clothes"] = _colour_name(raw, "background"), _colour_name(raw, "clothes")
    light = raw.get("background.lightness")
    words["backdrop"] = _between(light, 22.0, 82.0, "dark", "bright")
    turn = raw.get("pose.turn")
    words["pose"] = None
    if turn is not None:
        if abs(turn) > 0.12:  # seen from the side, everything is as wide as it looks
            words["nose"] = words["face"] = None
        words["pose"] = "left" if turn < -0.11 else "right" if turn > 0.11 else "front" if abs(turn) < 0.05 else None
    return words


# Attributes of two words between which a measure passes gradually; the others are there or not.
_GRADUAL = (
    "bangs", "beard", "moustache", "smile", "teeth", "mouth", "lipstick", "brows", "nose", "face", "eye size",
)  # fmt: skip


def lean(raw: Mapping[str, float | None], p_man: float | None = None) -> dict[str, tuple[float, ...] | None]:
    """How far measures lean to each word, for training: a face between two words says something of both.

    Args:
        raw, p_man: as of :func:`describe`.

    Returns:
        attribute → shares in the order of its words, sum 1; None where nothing can be said.
    """
    words = describe(raw, p_man)
    shares: dict[str, tuple[float, ...] | None] = {
        name: None if word is None else tuple(float(word == other) for other in WORDS[name])
        for name, word in words.items()
    }
    for name in _GRADUAL:
        measure, low, high, pair = _CUT[name]
        value, width = raw.get(measure), high - low
        if value is None or math.isnan(value):
            continue
        # Whether anything else decides: would this face be called one word below the cut, and the other above it?
        ends = [describe({**raw, measure: end}, p_man)[name] for end in (low - width, high + width)]
        if ends == list(pair):
            second = 1 / (1 + math.exp(-max(-20.0, min(20.0, 4 * (value - (low + high) / 2) / width))))
            shares[name] = (1 - second, second)
    return shares


def _between(value: float | None, low: float, high: float, below: str, above: str) -> str | None:
    """The word below ``low`` or above ``high``; None between, where people would disagree."""
    if value is None or math.isnan(value):
        return None
    return below if value < low else above if value > high else None


def _lab(raw: Mapping[str, float | None], part: str) -> tuple[float, float, float] | None:
    lightness, red, yellow = (raw.get(f"{part}.{name}") for name in ("lightness", "redness", "yellowness"))
    return None if lightness is None or red is None or yellow is None else (lightness, red, yellow)


def _hair_colour(raw: Mapping[str, float | None]) -> str | None:
    if (colour := _lab(raw, "hair")) is None:
        return None
    lightness, red, yellow = colour
    chroma, hue = math.hypot(red, yellow), math.degrees(math.atan2(yellow, red))
    if lightness < 9 and chroma < 9:
        return "black"
    if lightness > 15 and red > 12.5 and hue < 61:
        return "red"
    if lightness > 66 and chroma < 9:
        return "white"
    if (lightness > 28 and chroma < 6) or (lightness > 62 and chroma < 9):
        return "gray"
    if lightness > 40 and chroma > 12 and hue > 58:
        return "blond"
    if 13 < lightness < 35 and chroma > 7 and red < 10.5 and hue < 80:
        return "brown"
    return None


def _eye_colour(raw: Mapping[str, float | None]) -> str | None:
    if (colour := _lab(raw, "eyes")) is None:
        return None
    lightness, red, yellow = colour
    if lightness > 14 and yellow < 1.5 and red < 5:
        return "blue"
    if lightness > 16 and yellow > 3 and red < 1.5:
        return "green"
    if yellow > 6.5 and red > 5:
        return "brown"
    return None


def _colour_name(raw: Mapping[str, float | None], part: str) -> str | None:
    if (colour := _lab(raw, part)) is None:
        return None
    lightness, red, yellow = colour
    chroma, hue = math.hypot(red, yellow), math.degrees(math.atan2(yellow, red)) % 360
    if chroma < 8:
        return "black" if lightness < 14 else "white" if lightness > 82 else "gray" if 30 < lightness < 72 else None
    if chroma < 16 or lightness < 12:
        return None
    name = next((name for limit, name in _HUES if hue < limit), "red")
    if name == "red" and lightness > 62:
        return "pink"
    if name == "orange" and lightness < 48:
        return "brown"
    return name


# Upper ends of the CIELAB hue angles of each colour name; from the last on it is red again.
_HUES = ((48, "red"), (80, "orange"), (108, "yellow"), (190, "green"), (312, "blue"), (342, "purple"))
