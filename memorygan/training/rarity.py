"""How often a face is shown: those with rare traits more often than others, so that the rare is learned at all.

A trait is read off a face's part map, or off a table of labels beside the pictures (``attributes.csv``, whose first
column names the faces; the others as in the FFHQ features data set). What neither says counts as absent.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memorygan.training.packfile import DataError

ATTRIBUTES = "attributes.csv"


@dataclass(frozen=True)
class PartTrait:
    """A part that covers at least ``share`` of the picture, 0–1."""

    part: str
    share: float
    weight: float


@dataclass(frozen=True)
class LabelTrait:
    """A label for which ``holds``."""

    column: str
    holds: Callable[[float], bool]
    weight: float

    def seen(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds by the labels of a face, column → text; what is no number counts as absent."""
        try:
            return self.holds(float(labels.get(self.column, "")))
        except ValueError:
            return False


# The whole policy: how many times as often as an ordinary face one with this trait is shown.
PARTS = (PartTrait("eyeglass", 0.004, 2.0), PartTrait("hat", 0.02, 2.0), PartTrait("earring", 0.001, 1.25))
LABELS = (
    LabelTrait("beard", lambda value: value >= 0.5, 1.5),
    LabelTrait("bald", lambda value: value >= 0.7, 2.0),
    LabelTrait("hair_gray", lambda value: value >= 0.6, 2.0),
    LabelTrait("hair_red", lambda value: value >= 0.7, 2.0),
    LabelTrait("age", lambda value: value >= 60, 2.0),
    LabelTrait("yaw", lambda value: abs(value) >= 20, 1.5),
)


def showing_weight(shares: Mapping[str, float], labels: Mapping[str, str]) -> float:
    """How often a face is shown, ordinary ones 1: the largest weight of its traits.

    Args:
        shares: part name → share of the picture, 0–1.
        labels: column → text; empty where nothing is known. What is no number counts as absent.
    """
    weights = [1.0] + [trait.weight for trait in PARTS if shares.get(trait.part, 0.0) >= trait.share]
    weights += [trait.weight for trait in LABELS if trait.seen(labels)]
    return max(weights)


def read_labels(folder: Path) -> dict[str, dict[str, str]]:
    """Face name → column → text of ``folder/attributes.csv``; empty if there is none.

    Raises:
        DataError: if the table cannot be read.
    """
    path = folder / ATTRIBUTES
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return {Path(row[0]).stem: dict(zip(rows[0], row, strict=False)) for row in rows[1:] if row}


def epoch_order(weights: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Indices of one epoch in random order, (N,) int64: face i stands in it ⌊w⌋ or ⌈w⌉ times, w times in the mean."""
    times = np.floor(weights + random.random_sample(len(weights))).astype(np.int64)
    return random.permutation(np.repeat(np.arange(len(weights)), times))
