"""Locality of sliders: what each of them changes inside its part and outside, and whether it does what it is called.

A chapter of ``python -m memorygan.analysis``. It stands here because sliders belong to the editor, which the generator
knows nothing of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from editing.device.loading import SLIDERS_NAME
from editing.errors import EditingError
from editing.sliders.directions import BASE, Slider, SliderSet
from editing.sliders.properties import Property, measure, properties_of, scene
from memorygan.analysis import grids
from memorygan.analysis.blocks import Piece, Table, Text, number
from memorygan.analysis.lab import Lab, StudyUnavailable, sha256_of
from memorygan.analysis.locality import (
    MEASURES,
    TOLERANCE,
    Change,
    Summary,
    columns_of,
    measure_change,
    summarise,
)
from memorygan.analysis.study import Study
from memorygan.generator import ComposedGenerator, Synthesis
from memorygan.latents import Latents
from memorygan.memory import Retrieved
from memorygan.parts import PartScheme

VALUES = (-2.0, 2.0)
SHOWN = 2


@dataclass(frozen=True)
class Effect:
    """What a slider did to the property it is named after, from −2 to +2.

    Attributes:
        mean: mean change over the faces that show the property, in its unit; nan if none does.
        right: share of them whose property grew.
        faces: how many they are.
    """

    mean: float
    right: float
    faces: int


def effect_of(item: Property, low: np.ndarray, high: np.ndarray) -> Effect:
    """Sums up a property (N,) at the slider's low and high value; nan where it has no meaning."""
    change = item.difference(torch.from_numpy(high), torch.from_numpy(low)).double().numpy()
    change = change[np.isfinite(change)]
    if not len(change):
        return Effect(float("nan"), float("nan"), 0)
    return Effect(float(change.mean()), float((change > 0).mean()), len(change))


def property_of(slider: Slider) -> Property | None:
    """The property a slider is named after; None for a principal component."""
    return next((item for item in properties_of(slider.part) if item.name == slider.measured), None)


def indices_of(part: str, parts: PartScheme) -> list[int]:
    """The parts whose codes a slider of this part moves: for the base, all but the background."""
    return list(range(1, len(parts))) if part == BASE else [parts.index(part)]


def sliders_of(lab: Lab) -> SliderSet:
    """The sliders beside the checkpoint.

    Raises:
        StudyUnavailable: if there are none, or they belong to another checkpoint.
    """
    path = lab.settings.checkpoint.parent / SLIDERS_NAME
    if not path.is_file():
        raise StudyUnavailable(f"there is no {SLIDERS_NAME} beside the checkpoint; run 'python -m editing.sliders.fit'")
    try:
        sliders = SliderSet.load(path, lab.sha256, lab.parts, lab.config.style_dim)
    except EditingError as error:
        raise StudyUnavailable(str(error).rstrip(".")) from error
    sliders.directions = sliders.directions.to(lab.settings.device)
    return sliders


def moved(
    generator: ComposedGenerator, face: Synthesis, retrieved: Retrieved, sliders: SliderSet, name: str, value: float
) -> Synthesis:
    """Faces with one slider moved; only the parts it moves are retrieved anew.

    Args:
        generator: of the faces.
        face: B faces.
        retrieved: all their parts.
        sliders: on the same device.
        name: which of them.
        value: where to.
    """
    config, w = generator.config, face.latents.w.clone()
    sliders.move(w, name, value, config)
    indices, latents = indices_of(sliders[name].part, config.parts), Latents(w, config, face.latents.shared_base)
    return generator.compose(retrieved.with_parts(indices, generator.retrieve(latents, indices)), latents)


@torch.no_grad()
def _moves(
    lab: Lab, sliders: SliderSet, chosen: Sequence[Slider], seeds: list[int]
) -> Iterator[tuple[Slider, Synthesis, Synthesis, Change]]:
    """(slider, faces, moved faces, difference) of each chosen slider at each of its two values."""
    generator = lab.drawing
    face = generator.synthesize(lab.sample(seeds))
    retrieved = generator.retrieve(face.latents)
    for slider in chosen:
        region = torch.tensor(indices_of(slider.part, lab.parts), device=face.image.device)
        for value in VALUES:
            made = moved(generator, face, retrieved, sliders, slider.id, value)
            inside = torch.isin(face.part_map, region) | torch.isin(made.part_map, region)
            yield slider, face, made, measure_change(face.image, made.image, inside)


def _measure(lab: Lab, sliders: SliderSet, seeds: list[int]) -> dict[str, Tensor]:
    """(B, 2·N) of every measure of a change, and the properties (B, 2·N), each slider at −2 and then at +2."""
    changes, values = [], []
    for slider, _, made, change in _moves(lab, sliders, tuple(sliders), seeds):
        item = property_of(slider)
        changes.append(change)
        if item is None:
            values.append(torch.full((len(seeds),), torch.nan, dtype=torch.float64))
        else:
            values.append(measure((item,), scene(made, lab.parts), slider.part)[:, 0])
    return {**columns_of(changes), "property": torch.stack(values, dim=1)}


def summary_of(found: dict[str, np.ndarray], numbers: Sequence[int]) -> Summary:
    """All moves of some sliders, by their place in the set.

    Args:
        found: measure → (N, 2·sliders) as in :func:`memorygan.analysis.locality.summarise`, both values of a slider
            side by side.
        numbers: places of the sliders.
    """
    columns = [2 * k + side for k in numbers for side in range(2)]
    return summarise(*(found[key][:, columns].ravel() for key in MEASURES))


def _label(part: str, parts: PartScheme) -> str:
    return "Whole face" if part == BASE else parts[part].label


def _strongest(sliders: SliderSet) -> list[Slider]:
    """One slider per part: the named one that does most of what it is called, else the first."""
    chosen: dict[str, Slider] = {}
    for slider in sliders:
        best = chosen.setdefault(slider.part, slider)
        if slider.measured and (not best.measured or abs(slider.strength) > abs(best.strength)):
            chosen[slider.part] = slider
    return list(chosen.values())


def _sheet(lab: Lab, sliders: SliderSet, count: int) -> tuple[list[list[np.ndarray]], list[str]]:
    """One row per part: −2, face, +2, both changes, for a few faces; and the rows' labels."""
    chosen = _strongest(sliders)
    rows: list[list[np.ndarray]] = []
    moves = _moves(lab, sliders, chosen, lab.face_seeds(count))
    for (_, face, low, less), (_, _, high, more) in zip(moves, moves, strict=True):
        pictures = [grids.faces(shown.image) for shown in (low, face, high)]
        five = (*pictures, grids.heat(less.map), grids.heat(more.map))
        rows.append([picture for pictures in zip(*five, strict=True) for picture in pictures])
    return rows, [f"{_label(slider.part, lab.parts)}: {slider.label}" for slider in chosen]


def run(lab: Lab, samples: int) -> Piece:
    """Table per part, sheet, table of all sliders.

    Raises:
        StudyUnavailable: without sliders of this checkpoint.
    """
    sliders = sliders_of(lab)
    if not len(sliders):
        raise StudyUnavailable(f"{SLIDERS_NAME} holds no slider; run 'python -m editing.sliders.fit'")
    found = lab.gather("sliders", lab.face_seeds(samples), lambda seeds: _measure(lab, sliders, seeds))
    numbers: dict[str, float] = {}
    rows = []
    for k, slider in enumerate(sliders):
        of, item = summary_of(found, [k]), property_of(slider)
        did, right = "–", "–"
        if item is not None:
            effect = effect_of(item, found["property"][:, 2 * k], found["property"][:, 2 * k + 1])
            numbers[f"slider_{slider.id}_effect"] = effect.mean
            if effect.faces:
                did = f"{effect.mean:+.3g} {slider.unit}"
                right = f"{100 * effect.right:.0f} % of {effect.faces:,}"
        rows.append((_label(slider.part, lab.parts), slider.label, *of.cells(), did, right))
    of_parts = []
    for part in dict.fromkeys(slider.part for slider in sliders):
        places = [k for k, slider in enumerate(sliders) if slider.part == part]
        of = summary_of(found, places)
        worst = max((summary_of(found, [k]).outside, k) for k in places)
        numbers |= {f"sliders_{part}_{key}": getattr(of, key) for key in ("inside", "outside", "preserved")}
        furthest = f"{number(worst[0])} ({list(sliders)[worst[1]].label})"
        of_parts.append((_label(part, lab.parts), f"{len(places)}", *of.cells(), furthest))
    shown = min(SHOWN, samples)
    footer = lab.footer(samples, of="faces per slider, moved to −2 and +2")
    of_sheet = lab.footer(shown)
    pictures, labels = _sheet(lab, sliders, shown)
    columns = ["−2", "face", "+2", "change −2", "change +2"] * shown
    changes = ("change inside", "change outside", "preserved outside")
    return Piece(
        (
            Text(
                f"Each of the {len(sliders)} sliders is moved to −2 and to +2, one at a time. Inside is where its part "
                "lies before or after, by the generator's masks; for the whole face, everything but the background. A "
                f"pixel is preserved if no channel moved by more than {TOLERANCE:g} of 255. The effect is that on the "
                "property a slider is named after, measured in the generator's own picture and mask from −2 to +2; the "
                "right way is up; what image features are needed for (age, beard, gray) is told by docs/sliders.md. "
                "Sliders named by a letter are principal components and promise nothing. Pictures are "
                f"those of the fast path ({lab.arithmetic}), whose rounding counts as change."
            ),
            Table(
                ("part", "sliders", *changes, "largest change outside"),
                tuple(of_parts),
                f"Mean absolute change in steps of 255 over all sliders of a part ({footer}).",
            ),
            lab.save(
                grids.grid(pictures, labels, columns, of_sheet),
                "sliders.webp",
                "One slider per part, that which does most of what it is called (change: white is 64 of 255 and more)",
                of_sheet,
            ),
            Table(("part", "slider", *changes, "effect", "right way"), tuple(rows), f"All sliders ({footer})."),
        ),
        numbers,
    )


STUDY = Study(
    "sliders",
    "Locality of sliders",
    "beyond the paper",
    run,
    samples=48,
    paper_samples=256,
    version=2,
    depends=lambda lab: {"sliders": sha256_of(lab.settings.checkpoint.parent / SLIDERS_NAME)},
)
