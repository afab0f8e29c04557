"""What leads from one recipe to another, in words."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import fields as fields_of
from typing import Any

from editing.face.codes import Codes
from editing.face.edits import Edit
from editing.face.recipe import Recipe
from editing.face.sources import CodesSource, SeedSource


def diff(first: Recipe, second: Recipe) -> tuple[str, ...]:
    """What one has to do to get from ``first`` to ``second``, in plain sentences; empty if they are the same."""
    lines: list[str] = []
    if first.checkpoint != second.checkpoint:
        lines.append(f"model: {first.model or first.checkpoint[:12]} → {second.model or second.checkpoint[:12]}")
    if first.source != second.source:
        lines.append(f"start: {first.source.describe()} → {second.source.describe()}")
    if first.sliders != second.sliders and (first.edits == second.edits or (first.sliders and second.sliders)):
        # Otherwise one of them uses no slider, which the list of edits shows.
        lines.append(f"sliders: {(first.sliders or 'none')[:12]} → {(second.sliders or 'none')[:12]}")
    if first.tuned != second.tuned:
        lines.append(f"{'with' if second.tuned else 'without'}: fine tuning to a photo")
    for tag, a, b, c, d in difflib.SequenceMatcher(None, first.edits, second.edits, autojunk=False).get_opcodes():
        if tag != "equal":
            gone, come = first.edits[a:b], second.edits[c:d]
            lines += [f"without: {edit.describe()}{_told_apart(edit, come)}" for edit in gone]
            lines += [f"with: {edit.describe()}{_told_apart(edit, gone)}" for edit in come]
    return tuple(lines)


def _told_apart(edit: Edit, others: tuple[Edit, ...]) -> str:
    """In brackets, what distinguishes an edit from those that read the same; "" where none does."""
    names: set[str] = set()
    for other in others:
        if type(other) is type(edit) and other.describe() == edit.describe():
            names |= {item.name for item in fields_of(edit) if getattr(edit, item.name) != getattr(other, item.name)}
    told = [f"{item.name} {_brief(getattr(edit, item.name))}" for item in fields_of(edit) if item.name in names]
    return f" [{', '.join(told)}]" if told else ""


def _brief(value: Any) -> str:
    """A field of an edit in a few characters; codes by a short hash."""
    match value:
        case Codes():
            return hashlib.sha256(value.text.encode("ascii", "replace")).hexdigest()[:8]
        case CodesSource():
            return f"{value.describe()} {_brief(value.codes)}"
        case SeedSource():
            return value.describe()
        case tuple():
            return " ".join(_brief(item) for item in value) or "none"
        case str() if len(value) > 60:
            return f"{value[:59]}…"
    return str(value) if value != "" else "none"
