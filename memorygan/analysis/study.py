"""One table or figure of the report: how it is made, and when it need not be made again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memorygan.analysis.blocks import Figure, Piece
from memorygan.analysis.lab import Lab, StudyUnavailable
from memorygan.checkpoint import write_atomically

PIECES = "pieces"


@dataclass(frozen=True)
class Study:
    """A subcommand and a chapter of the report.

    Attributes:
        name: of the subcommand.
        title: of the chapter.
        paper: what it corresponds to in the paper, or "beyond the paper".
        run: measures on this many faces.
        samples: faces on a CPU.
        paper_samples: faces in the paper, or as many as a GPU does in minutes.
        sheet: the count belongs to the study: pictures to show, or runs that take minutes each.
        uses: inputs besides the checkpoint, see :meth:`Lab.inputs`.
        version: raise it when the study changes, so that finished pieces are made again.
        depends: gives more inputs, name → hash, that the lab itself does not know.
    """

    name: str
    title: str
    paper: str
    run: Callable[[Lab, int], Piece]
    samples: int
    paper_samples: int
    sheet: bool = False
    uses: tuple[str, ...] = ()
    version: int = 1
    depends: Callable[[Lab], Mapping[str, str]] = lambda lab: {}


@dataclass(frozen=True)
class Finished:
    """A study with its result, and whether it was taken from an earlier run."""

    study: Study
    piece: Piece
    samples: int
    reused: bool


def _key(study: Study, lab: Lab, samples: int) -> dict[str, Any]:
    settings = lab.settings
    return {
        "study": study.name,
        "version": study.version,
        "samples": samples,
        "seed": settings.seed,
        "temperature": settings.temperature,
        "truncation": settings.truncation,
        "features": settings.features if "judges" in study.uses else None,
        "inputs": lab.inputs(study.uses) | dict(study.depends(lab)),
    }


def _stored(study: Study, lab: Lab) -> tuple[dict[str, Any], Piece] | None:
    """The finished piece of a study with the key it was made from, if its figures still exist."""
    out = lab.settings.out
    try:
        data = json.loads((out / PIECES / f"{study.name}.json").read_text(encoding="utf-8"))
        key, piece = dict(data["key"]), Piece.from_json(data["piece"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
    figures = [out / block.file for block in piece.blocks if isinstance(block, Figure)]
    return (key, piece) if all(file.is_file() for file in figures) else None


def load_piece(study: Study, lab: Lab, key: dict[str, Any]) -> Piece | None:
    """A finished piece, if it was made from the same key and all its pictures still exist."""
    stored = _stored(study, lab)
    if stored is None or stored[0] != key:
        return None
    pictures = [lab.settings.private / name for name in stored[1].private]
    return stored[1] if all(picture.is_file() for picture in pictures) else None


def standing_study(study: Study, lab: Lab) -> Finished:
    """A study as it stands in the report, whatever data, judges and counts it was made with.

    Raises:
        StudyUnavailable: if it does not stand there, or is of another checkpoint.
    """
    stored = _stored(study, lab)
    if stored is None:
        raise StudyUnavailable("it was left out of this run")
    key, piece = stored
    try:
        checkpoint, samples = key["inputs"]["checkpoint"], int(key["samples"])
    except (KeyError, TypeError, ValueError):
        raise StudyUnavailable("what stands in the report does not say what it was made from") from None
    if checkpoint != lab.sha256:
        raise StudyUnavailable("what stands in the report is of another checkpoint")
    return Finished(study, piece, samples, reused=True)


def run_study(study: Study, lab: Lab, samples: int, force: bool = False) -> Finished:
    """Runs a study, or takes its finished piece if inputs, sample count and seed are unchanged.

    One that was interrupted goes on with what it had measured, see :meth:`Lab.gather`.

    Args:
        study: which.
        lab: on what.
        samples: faces.
        force: run it in any case, from the start.

    Raises:
        StudyUnavailable: if something it needs is missing.
    """
    path = lab.settings.out / PIECES / f"{study.name}.json"
    key = _key(study, lab, samples)
    if not force and (known := load_piece(study, lab, key)) is not None:
        return Finished(study, known, samples, reused=True)
    with lab.studying(key) as begun:
        if force:
            begun.clear()
        piece = study.run(lab, samples)
    text = json.dumps({"key": key, "piece": piece.to_json()}, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())
    begun.clear()
    return Finished(study, piece, samples, reused=False)
