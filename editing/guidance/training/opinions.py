"""What is told of faces beside what is measured of them: tables of labels, marks by eye, and how all of it is weighed.

An opinion is, per attribute of :data:`editing.guidance.words.WORDS`, how likely each of its words is.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from editing.guidance.words import WORDS
from memorygan.training.rarity import read_labels

Opinion: TypeAlias = "dict[str, tuple[float, ...]]"
Shares: TypeAlias = "Mapping[str, tuple[float, ...] | None]"

# Set, name, attribute, word: faces that were looked at, for words of which no table tells.
MARKS = Path(__file__).with_name("marks.csv")
# Years below which a face is young, between which it is middle-aged, and above which it is old; between them, something
# of both.
YOUNG, MIDDLE, OLD = 29.0, (40.0, 51.0), 62.0
# How much an opinion counts where something was measured too; 1 where it is not listed.
_WEIGHTS = {
    "hair colour": 0.5, "glasses": 0.6, "hat": 0.6, "bald": 0.6, "beard": 0.7, "moustache": 0.7, "lipstick": 0.4,
    "smile": 0.6,
}  # fmt: skip
_LENSES = {"NoGlasses": 0, "ReadingGlasses": 1, "Sunglasses": 2}
_HAIR = ("black", "brown", "blond", "red", "gray")


def age_words(years: float) -> tuple[float, float, float]:
    """How far an age is called young, middle-aged and old."""
    young = float(np.interp(years, (YOUNG, MIDDLE[0]), (1, 0)))
    old = float(np.interp(years, (MIDDLE[1], OLD), (0, 1)))
    return young, 1 - young - old, old


def read_opinions(folder: Path) -> dict[str, Opinion]:
    """Name of a picture → what ``attributes.csv`` beside the pictures says, and what was marked by eye.

    The table is that of a face service (age, glasses, headwear, …, as of ffhq-features-dataset) or of a classifier of
    expressions, of which only the person is taken.
    """
    told: dict[str, Opinion] = defaultdict(dict)
    for name, row in read_labels(folder).items():
        told[name].update(_opinion(row))
    if MARKS.is_file():
        with MARKS.open(newline="") as stream:
            for row in csv.DictReader(stream):
                if row["set"] == folder.name:
                    words = WORDS[row["attribute"]]
                    told[row["name"]][row["attribute"]] = tuple(float(word == row["word"]) for word in words)
    return dict(told)


def _opinion(row: Mapping[str, str]) -> Opinion:
    opinion: Opinion = {"person": _two(float(row["p_man"]))}
    if "headwear" not in row:
        return opinion
    number = {key: float(row[key]) for key in ("age", "smile", "beard", "moustache", "bald", "headwear")}
    opinion["age"] = age_words(number["age"])
    opinion["smile"], opinion["hat"] = _two(number["smile"]), _two(number["headwear"])
    opinion["beard"], opinion["moustache"] = (
        _two(float(np.interp(number[key], (0, 0.1, 0.4, 0.6), (0, 0.3, 0.85, 1)))) for key in ("beard", "moustache")
    )
    if number["headwear"] < 0.5:
        opinion["bald"] = _two(1 - float(np.interp(number["bald"], (0.15, 0.75), (0, 1))))
        colours = np.array([float(row[f"hair_{name}"]) for name in _HAIR]) ** 3
        if not float(row["hair_hidden"]) and number["bald"] < 0.7 and colours.sum() > 0.2:
            opinion["hair colour"] = (*(colours / colours.sum()).tolist(), 0.0)
    if row["glasses"] in _LENSES:
        opinion["glasses"] = tuple(float(k == _LENSES[row["glasses"]]) for k in range(3))
    lips = float(row["lip_makeup"])
    opinion["make-up"], opinion["lipstick"] = _two((float(row["eye_makeup"]) + lips) / 2), _two(lips)
    return opinion


def _two(second: float) -> tuple[float, float]:
    return 1 - second, second


def merge(measured: Shares, told: Opinion) -> dict[str, tuple[float, ...] | None]:
    """Measures and opinion weighed against each other; what only one of them knows is taken from that."""
    merged = dict(measured)
    for name, opinion in told.items():
        found, weight = measured.get(name), _WEIGHTS.get(name, 1.0)
        if name == "hair colour" and found is not None and found[-1] == 1:
            # Nobody tells white from gray but the measure.
            opinion = (*opinion[:-2], 0.0, opinion[-2])
        merged[name] = (
            opinion if found is None
            else tuple((1 - weight) * a + weight * b for a, b in zip(found, opinion, strict=True))
        )  # fmt: skip
    return merged
