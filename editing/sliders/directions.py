"""Sliders: directions in the latent codes of a part that were measured to do what they are called.

``python -m editing.sliders.fit`` fits them to a checkpoint and writes them beside it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editing.errors import EditingError, quoted
from memorygan.checkpoint import CheckpointError, load_module, save_module
from memorygan.config import GeneratorConfig
from memorygan.parts import LayerGroup, PartScheme

KIND = "sliders"
BASE = "base"
USEFUL_RANGE = 3.0


@dataclass(frozen=True)
class Slider:
    """One direction and what it was measured to do.

    Attributes:
        id: "part.name", unique.
        part: part name, or "base" for pose and framing.
        label: the word a person sees.
        group: the layers it moves: shape, texture, both (own), or base.
        low, high: what the face becomes at −3 and at +3, in a word or two.
        measured: name of the property it was fitted to; "" for a principal component.
        unit: of the property.
        effect: mean change of the property from −3 to +3, in ``unit``; 0 for a principal component.
        strength: the same in standard deviations of the property among random faces.
        correlation: between slider value and property over held-out faces, −1 to 1.
        inside, outside: mean |Δ| in 8-bit steps in and outside the part between the slider's middle and ±3.
        rows: how many directions it has: 1, or one for every foreground part, for what changes the whole face.
    """

    id: str
    part: str
    label: str
    group: LayerGroup
    low: str = "less"
    high: str = "more"
    measured: str = ""
    unit: str = ""
    effect: float = 0.0
    strength: float = 0.0
    correlation: float = 0.0
    inside: float = 0.0
    outside: float = 0.0
    rows: int = 1

    @property
    def limit(self) -> float:
        """The useful range is −limit to +limit."""
        return USEFUL_RANGE


class SliderSet:
    """All sliders of one generator.

    Args:
        sliders: in the order a person sees them.
        directions: (sum of their rows, D), what a value of 1 adds to every layer of the slider's group.
        checkpoint: sha256 of the generator they were fitted to.
        sha256: of the file they came from; "" for ones that were not stored.

    Raises:
        EditingError: if sliders and directions do not fit together.
    """

    def __init__(self, sliders: Iterable[Slider], directions: Tensor, checkpoint: str, sha256: str = "") -> None:
        self.sliders, self.directions = tuple(sliders), directions
        self.checkpoint, self.sha256 = checkpoint, sha256
        self._index = {slider.id: number for number, slider in enumerate(self.sliders)}
        self._first = [0, *accumulate(slider.rows for slider in self.sliders)]
        if directions.ndim != 2 or len(directions) != self._first[-1] or len(self._index) != len(self.sliders):
            raise EditingError("the slider file is damaged; fit the sliders again with 'python -m editing.sliders.fit'")

    def __len__(self) -> int:
        return len(self.sliders)

    def __iter__(self) -> Iterator[Slider]:
        return iter(self.sliders)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __getitem__(self, name: str) -> Slider:
        if name not in self._index:
            part = name.split(".", 1)[0]
            there = [slider.id for slider in self.of(part)] or sorted({slider.part for slider in self.sliders})
            raise EditingError(f"there is no slider {quoted(name)}; this model has {', '.join(there)}")
        return self.sliders[self._index[name]]

    def of(self, part: str) -> tuple[Slider, ...]:
        """The sliders of one part, or of "base"."""
        return tuple(slider for slider in self.sliders if slider.part == part)

    def direction(self, name: str) -> Tensor:
        """(D,) float32; (rows, D) of a slider with a direction for every part."""
        number = self._index[name]
        found = self.directions[self._first[number] : self._first[number + 1]]
        return found[0] if len(found) == 1 else found

    def move(self, w: Tensor, name: str, value: float | Tensor, config: GeneratorConfig) -> None:
        """Adds ``value`` times a slider to codes (B, K, L, D) in place; the base is that of all foreground parts."""
        slider = self[name]
        layers = config.layer_range(slider.group)
        first = 1 if slider.part == BASE else config.parts.index(slider.part)
        rows = slice(first, None if slider.part == BASE else first + 1)
        w[:, rows, layers.start : layers.stop] += value * self.direction(name)[..., None, :]

    def in_order(self, names: Iterable[str]) -> list[str]:
        """The names in the set's own order, so that sums of directions do not depend on the order of edits."""
        return sorted(names, key=lambda name: self._index.get(name, -1))

    def save(self, path: Path, report: Mapping[str, Any] | None = None) -> str:
        """Writes the sliders; returns the sha256 of the file.

        Raises:
            CheckpointError: if the file cannot be written.
        """
        rows = [{**asdict(slider), "group": slider.group.value} for slider in self.sliders]
        meta = {"kind": KIND, "checkpoint": self.checkpoint, "sliders": rows, "report": dict(report or {})}
        return save_module(path, {"directions": self.directions}, meta)

    @classmethod
    def load(cls, path: Path, checkpoint: str, parts: PartScheme, style_dim: int) -> SliderSet:
        """Reads the sliders of a generator.

        Args:
            path: the file.
            checkpoint: sha256 of the generator in use.
            parts, style_dim: of that generator.

        Raises:
            EditingError: if the file is missing, damaged, or was fitted to another checkpoint.
        """
        try:
            tensors, meta = load_module(path, KIND)
        except CheckpointError as error:
            raise EditingError(f"the sliders cannot be read: {error}") from error
        if meta.get("checkpoint") != checkpoint:
            raise EditingError(
                f"the sliders in {path.name} were fitted to another checkpoint; "
                "run 'python -m editing.sliders.fit' for this one"
            )
        try:
            sliders = [_slider(row) for row in meta["sliders"]]
            directions = tensors["directions"]
        except (KeyError, TypeError, ValueError) as error:
            raise EditingError(
                f"{path.name} is damaged ({error}); run 'python -m editing.sliders.fit' again"
            ) from error
        found = cls(sliders, directions, checkpoint, hashlib.sha256(path.read_bytes()).hexdigest())
        rows = {BASE: (1, len(parts) - 1)} | dict.fromkeys(parts.names, (1,))
        if directions.shape[1] != style_dim or any(slider.rows not in rows.get(slider.part, ()) for slider in sliders):
            raise EditingError(f"{path.name} does not fit this model; run 'python -m editing.sliders.fit' again")
        if not bool(torch.isfinite(directions).all()):
            raise EditingError(
                f"{path.name} holds numbers that are not finite; run 'python -m editing.sliders.fit' again"
            )
        return found


def _slider(row: Mapping[str, Any]) -> Slider:
    row = {"rows": 1, **row}  # files from before there were others
    if set(row) != {item.name for item in fields(Slider)}:
        raise ValueError("a slider lacks a field or has one too many")
    kinds: dict[Any, Callable[[Any], Any]] = {"str": str, "int": int, "float": float, "LayerGroup": LayerGroup}
    slider = Slider(**{item.name: kinds[item.type](row[item.name]) for item in fields(Slider)})
    if not all(math.isfinite(value) for value in asdict(slider).values() if isinstance(value, float)):
        raise ValueError("a measured value is not finite")
    return slider
