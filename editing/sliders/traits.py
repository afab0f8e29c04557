"""What no mask shows of a face, age, beard and gray hair: directions and probes learned from labelled photos.

A direction is what the codes of photographed people owe to a label alone, other labels and the colour of the skin being
equal: otherwise a beard would bring dark skin along, and age a man.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from editing.sliders.directions import BASE
from editing.sliders.people import People
from editing.sliders.properties import Property, Scene
from memorygan.analysis.probes import Probe
from memorygan.parts import LayerGroup
from memorygan.training.rarity import PARTS

# Below the first a face service is sure that there is none, from the second on that there is.
_ABSENT, _SHOWN = 0.2, 0.6
_FEWEST = 16
_GLASSES = next(trait for trait in PARTS if trait.part == "eyeglass")


@dataclass(frozen=True)
class Trait:
    """A property, and where it lies among the codes of people.

    Attributes:
        property: measured by a probe of image features.
        direction: float64, what a slider's unit adds to the codes: (D,) of one part, (K − 1, D) of all in front.
    """

    property: Property
    direction: Tensor


@dataclass(frozen=True)
class _Wish:
    """A label that becomes a slider.

    Attributes:
        part: whose codes move, or "base" for all of the face.
        column: of the labels; age in years, anything else 0–1.
        name, label, low, high: of the property.
        group: which layers move.
        equal: columns that are held equal.
        step: how much of the label a unit of the slider is; more than people show, since codes say less than labels.
    """

    part: str
    column: str
    name: str
    label: str
    low: str
    high: str
    group: LayerGroup
    equal: tuple[str, ...]
    step: float


_SKIN = ("nose_l", "nose_a", "nose_b")
_WISHES = (
    _Wish(BASE, "age", "age", "Age", "younger", "older", LayerGroup.OWN, ("p_man", "smile", "glasses", *_SKIN), 20.0),
    _Wish("skin", "beard", "beard", "Beard", "shaven", "bearded", LayerGroup.TEXTURE, ("p_man", "age", *_SKIN), 2.0),
    _Wish("hair", "hair_gray", "gray", "Gray", "coloured", "gray", LayerGroup.TEXTURE, ("p_man", "hair_blond"), 1.0),
)


def traits_of(people: People) -> dict[str, tuple[Trait, ...]]:
    """Part name (or "base") → its traits; only those that enough photos have labels for."""
    features, found = people.features.numpy(), dict[str, list[Trait]]()
    for wish in _WISHES:
        others = [_column(people, name) for name in wish.equal]
        equal = [column for column in others if np.isfinite(column).any()]  # labels may lack some
        table = np.stack((_column(people, wish.column), *equal), axis=1)
        label, known = table[:, 0], np.isfinite(table).all(axis=1)
        if wish.column == "age":
            if known.sum() < 4 * _FEWEST or label[known].std() == 0:
                continue
            probe, unit = Probe.regress(features[known], label[known]), "years"
        else:
            known &= (label <= _ABSENT) | (label >= _SHOWN)
            holds = label[known] >= _SHOWN
            if min(holds.sum(), (~holds).sum()) < _FEWEST:
                continue
            probe, unit = Probe.fit(features[known], holds), "log odds"
        item = Property(wish.name, wish.label, wish.group, wish.low, wish.high, unit, _reading(probe), asked=True)
        direction = wish.step * _owed(people, wish.part, table, known)
        found.setdefault(wish.part, []).append(Trait(item, direction))
    return {part: tuple(items) for part, items in found.items()}


def _column(people: People, name: str) -> np.ndarray:
    """(N,) a label, whether glasses are worn, or one of the colours of the nose."""
    if name in _SKIN:
        return people.nose[:, _SKIN.index(name)].double().numpy()
    if name == "glasses":
        return (people.shares[:, people.parts.index(_GLASSES.part)] >= _GLASSES.share).double().numpy()
    return people.faces.values(name)


def _owed(people: People, part: str, table: np.ndarray, known: np.ndarray) -> Tensor:
    """(D,) or (K − 1, D): slope of the codes on the first column, in a regression on all of them."""
    chosen = people.codes[torch.from_numpy(known)].double()
    if part == BASE:
        codes = chosen[:, 2:].clone()  # without the base code and the background's
        # What is worn is no part of a face's age.
        codes[:, [people.parts.index(worn.part) - 1 for worn in PARTS if worn.part in people.parts.names]] = 0
    else:
        codes = chosen[:, 1 + people.parts.index(part)]
    columns = table[known] - table[known].mean(axis=0)
    centred = (codes - codes.mean(dim=0)).flatten(1).numpy()
    slopes = np.linalg.lstsq(columns, centred, rcond=None)[0][0]
    return torch.from_numpy(slopes).unflatten(0, codes.shape[1:])


def _reading(probe: Probe) -> Callable[[Scene, Tensor], Tensor]:
    return lambda scene, weight: probe.read(scene.features)
