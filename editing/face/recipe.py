"""Recipes: a face and what was done to it as plain data, versioned, replayable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from editing.errors import EditingError, quoted
from editing.face.edits import Edit, SliderEdit, SwapEdit, edit_dict, read_edit
from editing.face.fields import MAX_BYTES, MAX_EDITS, read_mapping, read_text
from editing.face.photo_ref import PhotoRef, read_photo_ref
from editing.face.sources import Source, read_source
from memorygan.parts import FACE_PARTS

FORMAT = "memorygan-studio/recipe"
VERSION = 3
MAX_OTHERS = 64


@dataclass(frozen=True)
class Recipe:
    """A face and its edits, in order.

    Attributes:
        checkpoint: sha256 of the generator's checkpoint.
        source: where the face comes from.
        edits: what was done, oldest first.
        sliders: sha256 of the slider file that was in use, or None.
        model: name of the checkpoint, for messages.
        tuned: the face was shown through a render net tuned to a photo, which a recipe does not carry.
        photo: where the edits belong, or None; the photo itself is not in the recipe.
        others: the other faces of that photo which were edited before this one; they have no others themselves.
    """

    checkpoint: str
    source: Source
    edits: tuple[Edit, ...] = ()
    sliders: str | None = None
    model: str = ""
    tuned: bool = False
    photo: PhotoRef | None = None
    others: tuple[Recipe, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; inverse of :meth:`from_dict`."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "checkpoint": {"sha256": self.checkpoint, "name": self.model},
            "sliders": self.sliders,
            "tuned": self.tuned,
            "source": self.source.to_dict(),
            "edits": [edit_dict(edit) for edit in self.edits],
        }
        if self.photo is not None:
            data["photo"] = self.photo.to_dict()
        if self.others:
            data["others"] = [other.to_dict() for other in self.others]
        return data

    @classmethod
    def from_dict(cls, data: Any) -> Recipe:
        """Reads JSON types.

        Raises:
            EditingError: if this is no recipe, was written by a newer version, or is damaged.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise EditingError("this file holds no recipe of this program; choose a PNG or JSON that was saved here")
        version = data.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise EditingError("the recipe has no valid version number; use another copy of the file")
        if version > VERSION:
            raise EditingError(
                f"the recipe was made by a newer version (format {quoted(version)}, this program reads up to "
                f"{VERSION}); update this program to open it"
            )
        edits = data.get("edits")
        if version == 1:
            edits = _edits_of_version_1(edits)
        if not isinstance(edits, list) or len(edits) > MAX_EDITS:
            raise EditingError(f"the recipe needs a list of at most {MAX_EDITS} edits; use another copy of the file")
        others = data.get("others", [])
        if not isinstance(others, list) or len(others) > MAX_OTHERS or any("others" in _plain(item) for item in others):
            raise EditingError("the recipe's list of other faces is damaged; use another copy of the file")
        photo = data.get("photo")
        checkpoint = read_mapping(data.get("checkpoint"), "checkpoint")
        sliders = data.get("sliders")
        return cls(
            read_text(checkpoint.get("sha256"), "checkpoint hash"),
            read_source(data.get("source")),
            tuple(read_edit(item) for item in edits),
            None if sliders is None else read_text(sliders, "slider hash"),
            read_text(checkpoint.get("name", ""), "checkpoint name"),
            data.get("tuned") is True,
            None if photo is None else read_photo_ref(photo),
            tuple(cls.from_dict(item) for item in others),
        )

    def to_json(self) -> str:
        """Pure ASCII text; see :meth:`from_json`."""
        return json.dumps(self.to_dict(), ensure_ascii=True, allow_nan=False, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """Reads what :meth:`to_json` wrote.

        Raises:
            EditingError: see :meth:`from_dict`; also for text that is not JSON or longer than 8 MiB.
        """
        if len(text) > MAX_BYTES:
            raise EditingError(f"a recipe has at most {MAX_BYTES >> 20} MiB; choose a file that was saved here")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EditingError(
                "this file is not a recipe (no readable JSON); choose one that was saved here"
            ) from error
        return cls.from_dict(data)

    def require(self, checkpoint: str) -> None:
        """Refuses a recipe of another generator.

        Raises:
            EditingError: with the name of the checkpoint it needs.
        """
        if self.checkpoint != checkpoint:
            name = self.model[:60] or self.checkpoint[:12]
            raise EditingError(
                f"the recipe was made with another model ({name}); start the program with that checkpoint to open it"
            )

    def misfits(self, sliders: str | None) -> tuple[str, ...]:
        """What will look different with these sliders (sha256 of their file), in sentences."""
        used = any(isinstance(edit, SliderEdit) for edit in self.edits)
        if not used or self.sliders == sliders:
            return ()
        return ("This recipe was made with another set of sliders; the face may look different.",)


def _plain(item: Any) -> dict[str, Any]:
    return item if isinstance(item, dict) else {}


def _edits_of_version_1(edits: Any) -> Any:
    """Swaps did not say whether they took the base code: those of every layer of every foreground part did."""
    if not isinstance(edits, list):
        return edits
    return [
        {**edit, "base": edit.get("group") == "every" and _all_foreground(edit.get("parts"))}
        if isinstance(edit, dict) and edit.get("op") == SwapEdit.op
        else edit
        for edit in edits
    ]


def _all_foreground(parts: Any) -> bool:
    return isinstance(parts, list) and all(name in parts for name in FACE_PARTS.names[1:])
