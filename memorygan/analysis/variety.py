"""Variety beside real people: how widely samples spread, how far they are from photos, and how often rare traits show.

Image features of EfficientNet-Lite judge: Lite0, which the perceptual loss and the projected critics may have used, for
the spread, and Lite1, which no training here has seen, for the distance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.analysis.blocks import Bar, Block, Piece, Table, Text, number
from memorygan.analysis.diversity import diversity_ratio, kernel_distance
from memorygan.analysis.lab import Lab, StudyUnavailable
from memorygan.analysis.probes import INPUT, LabelledPhotos, Probe, image_features
from memorygan.analysis.study import Study
from memorygan.training.backbone import BackboneError
from memorygan.training.data import PackedDataset
from memorygan.training.packfile import DataError
from memorygan.training.rarity import LABELS, PARTS

SPREAD_BAR, DISTANCE_BAR, FACTOR_BAR = 0.85, 80.0, 2.0
LABELLED = 4_000  # faces from which the probes learn
NO_LABELS = (
    "Traits that no part shows (beard, gray hair, age, turned heads) were not counted: name a face set with an "
    "attributes.csv by --labelled."
)


@dataclass(frozen=True)
class Seen:
    """N faces before the judges.

    Attributes:
        lite0, lite1: (N, 1280) image features.
        parser: (N, F) features of the face parser.
        shares: (N, K) share of the picture that the parser gives to every part, 0–1.
    """

    lite0: Tensor
    lite1: Tensor
    parser: Tensor
    shares: Tensor


def run(lab: Lab, samples: int) -> Piece:
    """Spread, kernel distance and the shares of rare traits."""
    if lab.reader.parser is None:
        raise StudyUnavailable("the face parser's weights are not on this machine")
    held_out, training = lab.held_out_pictures, lab.training_pictures

    def draw(seeds: list[int]) -> Tensor:
        return lab.drawing.magnify(lab.drawing.synthesize(lab.sample_shown(seeds, truncation=1.0))).image

    ours = _look(lab, "samples", lab.face_seeds(samples), draw)
    theirs = _look(lab, "held-out faces", lab.face_rows(held_out, samples), _pictures(lab, held_out))
    mix = _look(lab, "training mix", lab.face_rows(training, samples), _pictures(lab, training))
    numbers: dict[str, float] = {}
    blocks, bars = _distances(lab, ours, theirs, numbers)
    shown, shares = _traits(lab, ours, mix, numbers)
    return Piece((*blocks, *shown), numbers, (*bars, *shares))


def _pictures(lab: Lab, faces: PackedDataset) -> Callable[[list[int]], Tensor]:
    return lambda rows: faces.images(rows).to(lab.settings.device).float() / 127.5 - 1.0


def _look(lab: Lab, label: str, faces: Sequence[int], pictures: Callable[[list[int]], Tensor]) -> Seen:
    """Some faces before all judges; what was seen waits on disk until the study is done."""
    parser = lab.reader.parser
    assert parser is not None

    @torch.no_grad()
    def read(chosen: list[int]) -> dict[str, Tensor]:
        images = pictures(chosen).float()
        ids, features = parser.read(images)
        counts = F.one_hot(ids.long().flatten(1), len(parser.parser.parts)).float().mean(dim=1)
        lite = {name: _features(images, name) for name in ("lite0", "lite1")}
        return {**lite, "parser": features, "shares": counts}

    found = lab.gather(label, faces, read)
    return Seen(**{key: torch.from_numpy(found[key]) for key in ("lite0", "lite1", "parser", "shares")})


def _distances(lab: Lab, ours: Seen, theirs: Seen, numbers: dict[str, float]) -> tuple[list[Block], list[Bar]]:
    count, footer = len(ours.lite0), lab.footer(len(ours.lite0), 1.0)
    numbers["spread_lite0"] = diversity_ratio(ours.lite0, theirs.lite0)
    numbers["spread_parser"] = diversity_ratio(ours.parser, theirs.parser)
    numbers["kernel_distance_lite1"] = distance = 1000 * kernel_distance(ours.lite1, theirs.lite1)
    spread = min(numbers["spread_lite0"], numbers["spread_parser"])
    rows = (
        ("spread of image features (Lite0), share of the photos'", f"{100 * numbers['spread_lite0']:.0f} %"),
        ("spread of the parser's features, share of the photos'", f"{100 * numbers['spread_parser']:.0f} %"),
        ("kernel distance × 1000 (Lite1 features)", number(distance)),
    )
    sizes = f"{lab.generator.picture_size} pixels a side, and photos of {lab.held_out_pictures.resolution}"
    caption = f"Samples of {sizes} beside {len(theirs.lite0):,} photos that were held out of training ({footer})."
    bars = [
        Bar("spread of samples' features, of held-out photos', lower of two", spread, SPREAD_BAR, True, count),
        Bar("kernel distance × 1000 to held-out photos, features that no loss has used", distance, DISTANCE_BAR, False,
            count),
    ]  # fmt: skip
    return [Table(("measure", "value"), rows, caption)], bars


def _traits(lab: Lab, ours: Seen, mix: Seen, numbers: dict[str, float]) -> tuple[list[Block], list[Bar]]:
    """How often traits show in samples and in the training mix, both by the same judges."""
    names = lab.reader.parser.parser.parts.names if lab.reader.parser else ()
    shares: dict[str, tuple[float, float]] = {}
    for trait in PARTS:
        column = names.index(trait.part)
        drawn, real = ((seen.shares[:, column] >= trait.share).float().mean() for seen in (ours, mix))
        shares[trait.part] = (float(drawn), float(real))
    blocks: list[Block] = []
    if lab.settings.labelled is None:
        blocks.append(Text(NO_LABELS))
    else:
        for name, probe in _probes(lab, lab.settings.labelled).items():
            shares[name] = (probe.share(ours.lite0), probe.share(mix.lite0))
    for name, (sampled, trained) in shares.items():
        numbers |= {f"share_{name}": sampled, f"share_{name}_training": trained}
    rows = tuple((name, f"{100 * a:.1f} %", f"{100 * b:.1f} %") for name, (a, b) in shares.items())
    footer = lab.footer(len(ours.lite0), 1.0)
    caption = f"How often a trait shows: parts by the parser, others by probes of image features ({footer})."
    worst = max((max(a / b, b / a) if a and b else float("inf")) for a, b in shares.values())
    bar = Bar("traits of samples: largest factor to the training mix", worst, FACTOR_BAR, False, len(ours.lite0))
    return [Table(("trait", "samples", "training mix"), rows, caption), *blocks], [bar]


def _probes(lab: Lab, root: Path) -> dict[str, Probe]:
    """One probe for every labelled trait, by its column.

    Raises:
        StudyUnavailable: if the folder holds no faces with labels.
    """
    try:
        faces = LabelledPhotos.open(root, LABELLED)
    except DataError as error:
        raise StudyUnavailable(f"{error} with --labelled") from error

    def read(rows: list[int]) -> dict[str, Tensor]:
        return {"lite0": _features(faces.images(rows, INPUT, lab.settings.device), "lite0")}

    features = lab.gather("labelled faces", range(len(faces.names)), read)["lite0"]
    probes = {}
    for trait in LABELS:
        values = faces.values(trait.column)
        known = np.isfinite(values)
        holds = np.array([trait.holds(value) for value in values[known]], dtype=bool)
        if holds.any() and not holds.all():
            probes[trait.column] = Probe.fit(features[known], holds)
    return probes


def _features(images: Tensor, name: str) -> Tensor:
    try:
        return image_features(images, name)
    except BackboneError as error:
        raise StudyUnavailable(str(error)) from error


STUDY = Study(
    "variety",
    "Variety beside real people",
    "beyond the paper",
    run,
    samples=2_000,
    paper_samples=10_000,
    uses=("data", "validation", "judges", "enlarging", "prior"),
    version=3,
)
