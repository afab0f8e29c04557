"""What can be done to a face: one frozen dataclass per kind of edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any, ClassVar

from editing.errors import EditingError, quoted
from editing.face.codes import Codes
from editing.face.fields import (
    MAX_BYTES,
    read_choice,
    read_flag,
    read_mapping,
    read_names,
    read_number,
    read_text,
    read_whole,
)
from editing.face.sources import CodesSource, SeedSource, Source, read_source
from editing.results import MAX_SEED

PART_LAYERS = ("all", "shape", "texture")
SWAP_GROUPS = (*PART_LAYERS, "every")
MAX_PROMPT = 1000


@dataclass(frozen=True)
class SliderEdit:
    """One slider away from its middle.

    Attributes:
        slider: "part.property", for example "hair.lightness".
        value: −10 to 10; ±3 is the useful range.
    """

    op: ClassVar[str] = "slider"
    slider: str
    value: float

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.slider.split(".", 1)[0],)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SliderEdit:
        return cls(read_text(fields.get("slider"), "slider"), read_number(fields.get("value"), "value", -10, 10))

    def describe(self, label: str = "") -> str:
        """In plain words; ``label`` is what a person calls the slider."""
        part, _, name = self.slider.partition(".")
        return f"{_title(part)}: {label or name.replace('_', ' ')} {self.value:+.3g}"


@dataclass(frozen=True)
class SwapEdit:
    """Parts taken from another face, wholly or in part.

    Attributes:
        face: the other face; codes cover at least ``parts``.
        parts: names.
        group: "all" (the paper's layer rule of each part), "shape", "texture", or "every" layer.
        amount: 0 (none) to 1 (all of it).
        base: the whole base code was taken along, as blending every foreground part does, so that base sliders before
            it became part of the face. Kept here because the list of parts no longer tells once one of them was reset.
    """

    op: ClassVar[str] = "swap"
    face: Source
    parts: tuple[str, ...]
    group: str = "all"
    amount: float = 1.0
    base: bool = False

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SwapEdit:
        group = read_choice(fields.get("group"), "layer group", SWAP_GROUPS)
        amount = read_number(fields.get("amount"), "amount", 0, 1)
        base = read_flag(fields.get("base"), "mark of the base code")
        return cls(read_source(fields.get("face")), read_names(fields.get("parts")), group, amount, base)

    def describe(self) -> str:
        what = "" if self.group in ("all", "every") else f" ({self.group} only)"
        share = "" if self.amount == 1.0 else f", {self.amount:.0%}"
        verb = "blended with" if self.group == "every" else "from"
        return f"{_listing(self.parts)}{what} {verb} {self.face.describe()}{share}"


@dataclass(frozen=True)
class ResampleEdit:
    """One part drawn anew from the controller, given the other parts.

    Attributes:
        part: name, or "base".
        code: (Q,) the query code that was drawn; kept so that a replay does not depend on the draw.
        seed: what it was drawn with.
        group: "all", "shape" or "texture".
        truncation: psi of the new code.
    """

    op: ClassVar[str] = "resample"
    part: str
    code: Codes
    seed: int
    group: str = "all"
    truncation: float = 0.7

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.part,)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ResampleEdit:
        return cls(
            read_text(fields.get("part"), "part"),
            Codes(read_text(fields.get("code"), "code", MAX_BYTES)),
            read_whole(fields.get("seed"), "seed", 0, MAX_SEED),
            read_choice(fields.get("group"), "layer group", PART_LAYERS),
            read_number(fields.get("truncation"), "truncation", 0, 1),
        )

    def describe(self) -> str:
        what = "" if self.group == "all" else f" ({self.group} only)"
        return f"{_title(self.part)}{what}: drawn anew ({self.seed})"


@dataclass(frozen=True)
class TextEdit:
    """Parts changed until the picture fits a sentence. A replay needs the codes alone: no judge, no optimisation.

    Attributes:
        prompt: the sentence, as far as it was read.
        parts: names of the P parts that were allowed to change.
        codes: (P, L, D) latent codes of them, without sliders; only those of ``layers`` are taken.
        neutral: the sentence for the face as it was, or "".
        strength: name of the preset.
        weights: of the losses, by name.
        steps: Adam steps that were taken.
        seed: of the random crops.
        judges: name → sha256 of the judges that guided it, for the record.
        layers: of the parts that were allowed to change: "all" (the paper's layer rule of each part), "shape" or
            "texture".
    """

    op: ClassVar[str] = "text"
    prompt: str
    parts: tuple[str, ...]
    codes: Codes
    neutral: str = ""
    strength: str = "normal"
    weights: tuple[tuple[str, float], ...] = ()
    steps: int = 300
    seed: int = 0
    judges: tuple[tuple[str, str], ...] = ()
    layers: str = "all"

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TextEdit:
        weights = read_mapping(fields.get("weights", {}), "loss weights")
        judges = read_mapping(fields.get("judges", {}), "list of judges")
        return cls(
            read_text(fields.get("prompt"), "prompt", MAX_PROMPT),
            read_names(fields.get("parts")),
            Codes(read_text(fields.get("codes"), "codes", MAX_BYTES)),
            read_text(fields.get("neutral", ""), "neutral prompt", MAX_PROMPT),
            read_text(fields.get("strength", ""), "strength"),
            tuple((read_text(name, "loss"), read_number(value, "weight", 0, 1e6)) for name, value in weights.items()),
            read_whole(fields.get("steps"), "steps", 0, 10**6),
            read_whole(fields.get("seed"), "seed", 0, MAX_SEED),
            tuple((read_text(name, "judge"), read_text(value, "judge's hash")) for name, value in judges.items()),
            read_choice(fields.get("layers", "all"), "choice of layers", PART_LAYERS),
        )

    def describe(self) -> str:
        said = self.prompt if len(self.prompt) <= 60 else f"{self.prompt[:59]}…"
        return f"{_listing(self.parts)}: “{said}”"


Edit = SliderEdit | SwapEdit | ResampleEdit | TextEdit
EDITS: dict[str, type[Edit]] = {kind.op: kind for kind in (SliderEdit, SwapEdit, ResampleEdit, TextEdit)}


def read_edit(data: Any) -> Edit:
    """An edit from JSON types.

    Raises:
        EditingError: for an unknown kind, or a damaged one.
    """
    fields = read_mapping(data, "edit")
    op = fields.get("op")
    if not isinstance(op, str) or op not in EDITS:
        raise EditingError(
            f"the recipe holds an edit of an unknown kind ({quoted(op)}); update this program to open it"
        )
    return EDITS[op].from_dict(fields)


def edit_dict(edit: Edit) -> dict[str, Any]:
    """An edit as JSON types, which :func:`read_edit` reads."""
    data = {"op": edit.op} | {item.name: _plain(getattr(edit, item.name)) for item in fields_of(edit)}
    if isinstance(edit, TextEdit):
        data |= {"weights": dict(edit.weights), "judges": dict(edit.judges)}
    return data


def _plain(value: Any) -> Any:
    match value:
        case Codes():
            return value.text
        case SeedSource() | CodesSource():
            return value.to_dict()
        case tuple():
            return list(value)
    return value


def without(edit: Edit, part: str) -> Edit | None:
    """An edit that leaves a part (or "base") alone; None if nothing is left of it."""
    if part not in edit.parts:
        return edit
    rows = [row for row, name in enumerate(edit.parts) if name != part]
    if isinstance(edit, (SliderEdit, ResampleEdit)) or not rows:
        return None
    parts = tuple(edit.parts[row] for row in rows)
    if isinstance(edit, SwapEdit):
        return replace(edit, parts=parts)
    return replace(edit, parts=parts, codes=Codes.of(edit.codes.tensor()[rows]))


def _title(part: str) -> str:
    return part[:1].upper() + part[1:]


def _listing(parts: tuple[str, ...]) -> str:
    return _title(", ".join(parts)) if len(parts) <= 4 else f"{len(parts)} parts"
