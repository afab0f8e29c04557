"""One table or figure of the report: how it is made, and when it need not be made again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorygan.analysis.blocks import Figure, Piece
from memorygan.analysis.lab import Lab

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


def load_piece(path: Path, key: dict[str, Any], out: Path, private: Path) -> Piece | None:
    """A finished piece, if it was made from the same key and its figures still exist."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["key"] != key:
            return None
        piece = Piece.from_json(data["piece"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
    files = [out / block.file for block in piece.blocks if isinstance(block, Figure)]
    files += [private / name for name in piece.private]
    return piece if all(file.is_file() for file in files) else None


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
    if not force and (known := load_piece(path, key, lab.settings.out, lab.settings.private)) is not None:
        return Finished(study, known, samples, reused=True)
    with lab.studying(key) as begun:
        if force:
            begun.clear()
        piece = study.run(lab, samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    text = json.dumps({"key": key, "piece": piece.to_json()}, indent=1, ensure_ascii=False) + "\n"
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
    begun.clear()
    return Finished(study, piece, samples, reused=False)
