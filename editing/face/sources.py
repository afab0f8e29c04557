"""Where a face comes from: a seed, or latent codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from editing.errors import EditingError, quoted
from editing.face.codes import Codes
from editing.face.fields import MAX_BYTES, read_mapping, read_names, read_number, read_text, read_whole
from editing.face.photo_ref import PhotoRef, read_photo_ref
from editing.results import MAX_SEED


@dataclass(frozen=True)
class SeedSource:
    """A sampled face.

    Attributes:
        seed: 0 to 2^53 − 1.
        truncation: psi, 0 (mean face) to 1 (all variety).
        prior: sha256 of the prior that drew its query codes, or "" for the controller.
    """

    kind: ClassVar[str] = "seed"
    seed: int
    truncation: float = 0.7
    prior: str = ""

    def __post_init__(self) -> None:
        read_whole(self.seed, "seed", 0, MAX_SEED)
        read_number(self.truncation, "truncation", 0.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        data = {"kind": self.kind, "seed": self.seed, "truncation": self.truncation}
        return data | {"prior": self.prior} if self.prior else data

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
        photo: whose pixels the parts are, if they come from a photo and were not edited there.
    """

    kind: ClassVar[str] = "codes"
    codes: Codes
    queries: Codes | None = None
    parts: tuple[str, ...] | None = None
    origin: str = "photo"
    photo: PhotoRef | None = None

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "kind": self.kind,
            "origin": self.origin,
            "parts": None if self.parts is None else list(self.parts),
            "codes": self.codes.text,
            "queries": None if self.queries is None else self.queries.text,
        }
        return data if self.photo is None else data | {"photo": self.photo.to_dict()}

    def describe(self) -> str:
        return "a photo" if self.origin == "photo" else "an edited face"


Source = SeedSource | CodesSource


def read_source(data: Any) -> Source:
    """A source from JSON types.

    Raises:
        EditingError: for an unknown kind, or a damaged one.
    """
    fields = read_mapping(data, "source")
    match fields.get("kind"):
        case SeedSource.kind:
            return SeedSource(
                read_whole(fields.get("seed"), "seed", 0, MAX_SEED),
                read_number(fields.get("truncation"), "truncation", 0, 1),
                read_text(fields.get("prior", ""), "prior"),
            )
        case CodesSource.kind:
            parts = fields.get("parts")
            queries = fields.get("queries")
            return CodesSource(
                Codes(read_text(fields.get("codes"), "codes", MAX_BYTES)),
                None if queries is None else Codes(read_text(queries, "queries", MAX_BYTES)),
                None if parts is None else read_names(parts),
                read_text(fields.get("origin"), "origin"),
                None if fields.get("photo") is None else read_photo_ref(fields["photo"]),
            )
    raise EditingError(
        f"the recipe starts from {quoted(fields.get('kind'))}, which this version does not know; update it"
    )
