"""Recipes: a face and what was done to it as plain data, versioned, replayable, small enough to ride inside a PNG."""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import io
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any, ClassVar

import safetensors
import safetensors.torch
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from editing.errors import EditingError
from editing.results import MAX_SEED
from memorygan.parts import FACE_PARTS

FORMAT = "memorygan-studio/recipe"
VERSION = 2
PNG_KEY = "memorygan-recipe"
MAX_BYTES = 8 * 2**20
MAX_EDITS = 1000
MAX_CODES_BYTES = 2 * 2**20
PART_LAYERS = ("all", "shape", "texture")
SWAP_GROUPS = (*PART_LAYERS, "every")
MAX_PROMPT = 1000
_NAME_LENGTH = 100
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Codes:
    """A float16 tensor as text: base64 of compressed safetensors bytes, so that a recipe stays JSON and runs no code.

    Attributes:
        text: ASCII; equal texts are equal codes.
    """

    text: str

    @classmethod
    def of(cls, tensor: Tensor) -> Codes:
        """Rounds to float16; :meth:`tensor` gives the rounded values back.

        Raises:
            EditingError: for values that float16 cannot hold.
        """
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        if not bool(torch.isfinite(half).all()):
            raise EditingError("these codes are not finite numbers, so they cannot be kept; undo the last edit")
        return cls(base64.b64encode(zlib.compress(safetensors.torch.save({"codes": half}), 6)).decode("ascii"))

    def tensor(self) -> Tensor:
        """Float32 copy.

        Raises:
            EditingError: if the text is damaged or unpacks to more than 2 MiB.
        """
        try:
            unpack = zlib.decompressobj()
            data = unpack.decompress(base64.b64decode(self.text, validate=True), MAX_CODES_BYTES)
            if unpack.unconsumed_tail:
                raise EditingError("the recipe's codes are larger than any face; it is damaged, use another file")
            codes = safetensors.torch.load(data)["codes"]
        except (binascii.Error, zlib.error, safetensors.SafetensorError, KeyError, ValueError) as error:
            if isinstance(error, EditingError):
                raise
            raise EditingError("the recipe's codes are damaged; use another copy of the file") from error
        if codes.dtype != torch.float16 or not bool(torch.isfinite(codes).all()):
            raise EditingError("the recipe's codes are not finite float16 numbers; use another copy of the file")
        return codes.float()


# --- Where a face comes from ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedSource:
    """A sampled face.

    Attributes:
        seed: 0 to 2^53 − 1.
        truncation: psi, 0 (mean face) to 1 (all variety).
    """

    kind: ClassVar[str] = "seed"
    seed: int
    truncation: float = 0.7

    def __post_init__(self) -> None:
        _whole(self.seed, "seed", 0, MAX_SEED)
        _number(self.truncation, "truncation", 0.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "seed": self.seed, "truncation": self.truncation}

    def describe(self) -> str:
        return f"face {self.seed} (truncation {self.truncation:g})"


@dataclass(frozen=True)
class CodesSource:
    """A face given by its latent codes: a photo, or the edited face a part was taken from.

    Attributes:
        codes: (P, L, D) latent codes w of ``parts``.
        queries: (1 + P, Q) query codes, base first, or None; they only steer later re-sampling.
        parts: names of the P parts; None for all K of the generator.
        origin: "photo" or "edited".
    """

    kind: ClassVar[str] = "codes"
    codes: Codes
    queries: Codes | None = None
    parts: tuple[str, ...] | None = None
    origin: str = "photo"

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "origin": self.origin,
            "parts": None if self.parts is None else list(self.parts),
            "codes": self.codes.text,
            "queries": None if self.queries is None else self.queries.text,
        }

    def describe(self) -> str:
        return "a photo" if self.origin == "photo" else "an edited face"


Source = SeedSource | CodesSource


def _source(data: Any) -> Source:
    fields = _mapping(data, "source")
    match fields.get("kind"):
        case SeedSource.kind:
            return SeedSource(
                _whole(fields.get("seed"), "seed", 0, MAX_SEED), _number(fields.get("truncation"), "truncation", 0, 1)
            )
        case CodesSource.kind:
            parts = fields.get("parts")
            queries = fields.get("queries")
            return CodesSource(
                Codes(_text(fields.get("codes"), "codes", MAX_BYTES)),
                None if queries is None else Codes(_text(queries, "queries", MAX_BYTES)),
                None if parts is None else _names(parts),
                _text(fields.get("origin"), "origin"),
            )
    raise EditingError(f"the recipe starts from {fields.get('kind')!r}, which this version does not know; update it")


# --- What was done to it ----------------------------------------------------------------------------------------------


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

    def without(self, part: str) -> SliderEdit | None:
        """The edit with ``part`` left alone; None if nothing is left of it."""
        return None if part in self.parts else self

    def to_dict(self) -> dict[str, Any]:
        return {"op": self.op, "slider": self.slider, "value": self.value}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SliderEdit:
        return cls(_text(fields.get("slider"), "slider"), _number(fields.get("value"), "value", -10, 10))

    def describe(self) -> str:
        part, _, name = self.slider.partition(".")
        return f"{_title(part)}: {name.replace('_', ' ')} {self.value:+.3g}"


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

    def without(self, part: str) -> SwapEdit | None:
        """The edit with ``part`` left alone; None if nothing is left of it."""
        if part not in self.parts:
            return self
        left = tuple(name for name in self.parts if name != part)
        return replace(self, parts=left) if left else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "op": self.op,
            "face": self.face.to_dict(),
            "parts": list(self.parts),
            "group": self.group,
            "amount": self.amount,
            "base": self.base,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SwapEdit:
        group = _choice(fields.get("group"), "layer group", SWAP_GROUPS)
        amount = _number(fields.get("amount"), "amount", 0, 1)
        base = _flag(fields.get("base"), "mark of the base code")
        return cls(_source(fields.get("face")), _names(fields.get("parts")), group, amount, base)

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

    def without(self, part: str) -> ResampleEdit | None:
        """The edit with ``part`` left alone; None if nothing is left of it."""
        return None if part == self.part else self

    def to_dict(self) -> dict[str, Any]:
        return {
            "op": self.op,
            "part": self.part,
            "code": self.code.text,
            "seed": self.seed,
            "group": self.group,
            "truncation": self.truncation,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ResampleEdit:
        return cls(
            _text(fields.get("part"), "part"),
            Codes(_text(fields.get("code"), "code", MAX_BYTES)),
            _whole(fields.get("seed"), "seed", 0, MAX_SEED),
            _choice(fields.get("group"), "layer group", PART_LAYERS),
            _number(fields.get("truncation"), "truncation", 0, 1),
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

    def without(self, part: str) -> TextEdit | None:
        """The edit with ``part`` left alone; None if nothing is left of it."""
        if part not in self.parts:
            return self
        left = tuple(name for name in self.parts if name != part)
        if not left:
            return None
        rows = [self.parts.index(name) for name in left]
        return replace(self, parts=left, codes=Codes.of(self.codes.tensor()[rows]))

    def to_dict(self) -> dict[str, Any]:
        return {
            "op": self.op,
            "prompt": self.prompt,
            "neutral": self.neutral,
            "parts": list(self.parts),
            "codes": self.codes.text,
            "strength": self.strength,
            "weights": dict(self.weights),
            "steps": self.steps,
            "seed": self.seed,
            "judges": dict(self.judges),
            "layers": self.layers,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TextEdit:
        weights = _mapping(fields.get("weights", {}), "loss weights")
        judges = _mapping(fields.get("judges", {}), "list of judges")
        return cls(
            _text(fields.get("prompt"), "prompt", MAX_PROMPT),
            _names(fields.get("parts")),
            Codes(_text(fields.get("codes"), "codes", MAX_BYTES)),
            _text(fields.get("neutral", ""), "neutral prompt", MAX_PROMPT),
            _text(fields.get("strength", ""), "strength"),
            tuple((_text(name, "loss"), _number(value, "weight", 0, 1e6)) for name, value in weights.items()),
            _whole(fields.get("steps"), "steps", 0, 10**6),
            _whole(fields.get("seed"), "seed", 0, MAX_SEED),
            tuple((_text(name, "judge"), _text(value, "judge's hash")) for name, value in judges.items()),
            _choice(fields.get("layers", "all"), "choice of layers", PART_LAYERS),
        )

    def describe(self) -> str:
        said = self.prompt if len(self.prompt) <= 60 else f"{self.prompt[:59]}…"
        return f"{_listing(self.parts)}: “{said}”"


Edit = SliderEdit | SwapEdit | ResampleEdit | TextEdit
EDITS: dict[str, Callable[[Mapping[str, Any]], Edit]] = {
    SliderEdit.op: SliderEdit.from_dict,
    SwapEdit.op: SwapEdit.from_dict,
    ResampleEdit.op: ResampleEdit.from_dict,
    TextEdit.op: TextEdit.from_dict,
}


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
    """

    checkpoint: str
    source: Source
    edits: tuple[Edit, ...] = ()
    sliders: str | None = None
    model: str = ""
    tuned: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; inverse of :meth:`from_dict`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "checkpoint": {"sha256": self.checkpoint, "name": self.model},
            "sliders": self.sliders,
            "tuned": self.tuned,
            "source": self.source.to_dict(),
            "edits": [edit.to_dict() for edit in self.edits],
        }

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
                f"the recipe was made by a newer version (format {version}, this program reads up to {VERSION}); "
                "update this program to open it"
            )
        edits = data.get("edits")
        if version == 1:
            edits = _edits_of_version_1(edits)
        if not isinstance(edits, list) or len(edits) > MAX_EDITS:
            raise EditingError(f"the recipe needs a list of at most {MAX_EDITS} edits; use another copy of the file")
        checkpoint = _mapping(data.get("checkpoint"), "checkpoint")
        sliders = data.get("sliders")
        return cls(
            _text(checkpoint.get("sha256"), "checkpoint hash"),
            _source(data.get("source")),
            tuple(_edit(item) for item in edits),
            None if sliders is None else _text(sliders, "slider hash"),
            _text(checkpoint.get("name", ""), "checkpoint name"),
            data.get("tuned") is True,
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
            name = self.model or self.checkpoint[:12]
            raise EditingError(
                f"the recipe was made with another model ({name}); start the program with that checkpoint to open it"
            )

    def misfits(self, sliders: str | None) -> tuple[str, ...]:
        """What will look different with these sliders (sha256 of their file), in sentences."""
        used = any(isinstance(edit, SliderEdit) for edit in self.edits)
        if not used or self.sliders == sliders:
            return ()
        return ("This recipe was made with another set of sliders; the face may look different.",)

    def describe(self) -> tuple[str, ...]:
        """One plain sentence per edit."""
        return tuple(edit.describe() for edit in self.edits)


def _edit(data: Any) -> Edit:
    fields = _mapping(data, "edit")
    op = fields.get("op")
    if not isinstance(op, str) or op not in EDITS:
        raise EditingError(f"the recipe holds an edit of an unknown kind ({op!r}); update this program to open it")
    return EDITS[op](fields)


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


# --- Inside a PNG -----------------------------------------------------------------------------------------------------


def embed(image: Image.Image, recipe: Recipe) -> bytes:
    """PNG bytes of the picture with the recipe in a text chunk.

    Raises:
        EditingError: if the recipe is longer than 8 MiB.
    """
    text = recipe.to_json()
    if len(text) > MAX_BYTES:
        raise EditingError("this recipe is too long to be kept; duplicate the face and go on from there")
    info = PngImagePlugin.PngInfo()
    info.add_text(PNG_KEY, text)  # the codes in it are compressed already
    info.add_text("Software", "MemoryGAN Studio")
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def extract(data: bytes) -> Recipe:
    """The recipe inside a PNG. Only chunk headers are walked: no picture is decoded.

    Raises:
        EditingError: if this is no PNG or has no recipe; see also :meth:`Recipe.from_json`.
    """
    if not data.startswith(_PNG_SIGNATURE):
        raise EditingError("only a PNG that was saved here carries a recipe; choose one, or the JSON file")
    prefix = PNG_KEY.encode("ascii") + b"\0"
    for kind, body in _png_chunks(data):
        if kind == b"tEXt" and body.startswith(prefix):
            return Recipe.from_json(body[len(prefix) :])
    raise EditingError("this picture carries no recipe; it was not saved here, or another program removed it")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        if len(body) < length:
            return
        yield kind, body
        position += 12 + length


def read_recipe(data: bytes | str) -> Recipe:
    """A recipe from PNG bytes, JSON bytes or JSON text.

    Raises:
        EditingError: see :func:`extract` and :meth:`Recipe.from_json`.
    """
    if isinstance(data, bytes):
        if data.startswith(_PNG_SIGNATURE):
            return extract(data)
        if data.startswith((b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")):
            raise EditingError("only a PNG that was saved here carries a recipe; choose one, or the JSON file")
    return Recipe.from_json(data)


# --- Checked reading of JSON values -----------------------------------------------------------------------------------


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EditingError(f"the recipe's {name} is missing or damaged; use another copy of the file")
    return value


def _text(value: Any, name: str, limit: int = _NAME_LENGTH) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise EditingError(f"the recipe's {name} is missing or damaged; use another copy of the file")
    return value


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value or len(value) > MAX_EDITS:
        raise EditingError("the recipe's list of parts is missing or damaged; use another copy of the file")
    return tuple(_text(name, "part") for name in value)


def _choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise EditingError(f"{name} is {value!r}; use one of {', '.join(choices)}")
    return str(value)


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise EditingError(f"the recipe's {name} is missing or damaged; use another copy of the file")
    return value


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise EditingError(f"{name} is {value!r}; use a whole number from {low} to {high}")
    return value


def _number(value: Any, name: str, low: float, high: float) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high:
        raise EditingError(f"{name} is {value!r}; use a number from {low:g} to {high:g}")
    return float(value)


def _title(part: str) -> str:
    return part[:1].upper() + part[1:]


def _listing(parts: tuple[str, ...]) -> str:
    return _title(", ".join(parts)) if len(parts) <= 4 else f"{len(parts)} parts"
