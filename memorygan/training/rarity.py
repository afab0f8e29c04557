"""How often a face is shown: those with rare traits more often than others, so that the rare is learned at all.

A trait is read off a face's part map, or off a table of labels beside the pictures (``attributes.csv``, whose first
column names the faces; the others as in the FFHQ features data set). What neither says counts as absent.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from memorygan.training.packfile import DataError

ATTRIBUTES = "attributes.csv"


# The whole policy: from which share of the picture (0–1) or which value on a trait counts, and how many times as often
# as an ordinary face one with this trait is shown.
PARTS = {"eyeglass": (0.004, 2.0), "hat": (0.02, 2.0), "earring": (0.001, 1.25)}
LABELS = {
    "beard": (0.5, 1.5),
    "bald": (0.7, 2.0),
    "hair_gray": (0.6, 2.0),
    "hair_red": (0.7, 2.0),
    "age": (60, 2.0),
    "yaw": (20, 1.5),
}


def showing_weight(shares: Mapping[str, float], labels: Mapping[str, str]) -> float:
    """How often a face is shown, ordinary ones 1: the largest weight of its traits.

    Args:
        shares: part name → share of the picture, 0–1.
        labels: column → text; empty where nothing is known. What is no number counts as absent.
    """
    weights = [1.0] + [weight for part, (least, weight) in PARTS.items() if shares.get(part, 0.0) >= least]
    for column, (least, weight) in LABELS.items():
        with suppress(ValueError):
            value = float(labels.get(column, ""))
            if (abs(value) if column == "yaw" else value) >= least:  # heads turn either way
                weights.append(weight)
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
