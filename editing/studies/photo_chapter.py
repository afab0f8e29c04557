"""What edits do to real photos, as a chapter of ``python -m memorygan.analysis``.

Its table is of photos that no training has seen; its pictures are of generated portraits alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from editing.device.loading import choose_device, load_assets
from editing.service import EditingService
from editing.studies.photo import EDITS, HEADINGS, Judge, Measured, edited_by, of_model, recognition, rows, study
from memorygan.analysis import grids
from memorygan.analysis.blocks import Bar, Block, Figure, Piece, Table, Text
from memorygan.analysis.lab import Lab, StudyUnavailable, sha256_of
from memorygan.analysis.study import Study
from memorygan.parser import FaceParser

# The promises.
IDENTITY, CHANGE, SHARPNESS, SEAM = 0.85, 0.8, 0.8, 1.3
SAME_PERSON = ("hair lighter", "hair darker", "hair redder", "skin darker", "lips redder", "smile", "brows thicker")
SHOWN, _SHOWN_SIDE = 3, 160
_SUFFIXES = (".webp", ".png", ".jpg")


def pictures_in(folder: Path | None, option: str) -> list[Path]:
    """The pictures of a folder in the order of their names.

    Raises:
        StudyUnavailable: if none was named, or there is no picture in it.
    """
    if folder is None:
        raise StudyUnavailable(f"it needs framed faces that no training has seen; name a folder of them with {option}")
    found = sorted(file for file in folder.glob("*") if file.suffix.lower() in _SUFFIXES)
    if not found:
        raise StudyUnavailable(f"{folder} holds no picture; name a folder of framed faces with {option}")
    return found


def _spread(files: Sequence[Path], count: int) -> list[Path]:
    return [files[int(place)] for place in np.linspace(0, len(files) - 1, min(count, len(files)))]


def _judge(lab: Lab) -> Judge | None:
    path = lab.settings.recognition
    try:
        return None if path is None else recognition(path)
    except (ValueError, OSError) as error:
        raise StudyUnavailable(f"{path} cannot judge who somebody is: {error}") from error


def _measured(
    lab: Lab, service: EditingService, parser: FaceParser, files: Sequence[Path]
) -> list[dict[str, Measured]]:
    judge = _judge(lab)

    def measure(chosen: list[int]) -> dict[str, np.ndarray]:
        with Image.open(files[chosen[0]]) as picture:
            found = study(service, parser, picture, judge)
        lines = np.full((1, len(EDITS), len(fields(Measured))), np.nan)
        for place, name in enumerate(EDITS):
            if name in found:
                lines[0, place] = [np.nan if value is None else value for value in astuple(found[name])]
        return {"measured": lines}

    table = lab.gather("edited photos", list(range(len(files))), measure, batch=1)["measured"]
    return [
        {name: _one(line) for name, line in zip(EDITS, lines, strict=True) if not np.isnan(line[0])} for lines in table
    ]


def _one(line: np.ndarray) -> Measured:
    found = Measured(*map(float, line))
    return replace(found, identity=None) if found.identity is None or np.isnan(found.identity) else found


def _bars(photos: Sequence[dict[str, Measured]]) -> tuple[Bar, ...]:
    some = [one for photo in photos for one in photo.values()]
    judged = [one.identity for photo in photos for name, one in photo.items() if name in SAME_PERSON]
    known = [value for value in judged if value is not None and np.isfinite(value)]
    names = [name for name in EDITS if any(name in photo for photo in photos)]
    shares = [share for name in names if (share := of_model(photos, name)) is not None]
    means = {
        field: [float(np.mean([getattr(photo[name], field) for photo in photos if name in photo])) for name in names]
        for field in ("sharpness", "seam")
    }
    count = len(photos)
    bars = [
        Bar("edits in photos: pixels outside the change that are the same to the bit, %",
            100 * min(one.identical for one in some), 100.0, True, count),
        Bar("edits in photos: of the model's change, the edit that shows least", min(shares), CHANGE, True, count),
        Bar("edits in photos: sharpness kept, the edit that keeps least", min(means["sharpness"]), SHARPNESS, True,
            count),
        Bar("edits in photos: gradient along the border, the edit with most", max(means["seam"]), SEAM, False, count),
    ]  # fmt: skip
    if known:
        text = "edits in photos: who it is (MobileFaceNet), after colours, smile and brows"
        bars.append(Bar(text, float(np.mean(known)), IDENTITY, True, count))
    return tuple(bars)


def _sheet(lab: Lab, service: EditingService, footer: str) -> Figure | None:
    """Edits of generated portraits; a real person's picture never gets into a report."""
    if lab.settings.portraits is None:
        return None
    files = _spread(pictures_in(lab.settings.portraits, "--portraits"), SHOWN)

    def show(chosen: list[int]) -> dict[str, np.ndarray]:
        with Image.open(files[chosen[0]]) as picture:
            pictures = edited_by(service, picture, EDITS)
        size = _SHOWN_SIDE, _SHOWN_SIDE
        return {"pictures": np.stack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in pictures])[None]}

    found = lab.gather("portraits", list(range(len(files))), show, batch=1)["pictures"]
    picture = grids.grid([list(row) for row in found], (), ["photo", *EDITS], footer, _SHOWN_SIDE)
    return lab.save(picture, "edits-in-photos.webp", "The same edits in portraits that another network made", footer)


def run(lab: Lab, samples: int) -> Piece:
    """The chapter.

    Raises:
        StudyUnavailable: without photos, or without a parser.
    """
    files = _spread(pictures_in(lab.settings.photos, "--photos"), samples)
    assets = load_assets(lab.settings.checkpoint, choose_device(lab.settings.device))
    if assets.parser is None:
        raise StudyUnavailable("the face parser is missing, so parts cannot be measured")
    with EditingService(assets, detector=lambda pixels: []) as service:
        photos = _measured(lab, service, assets.parser, files)
        if not any(photos):
            raise StudyUnavailable("this generator has none of the sliders that are measured")
        footer = lab.plain_footer(len(files), "photos no training has seen, of 512 pixels")
        sheet = _sheet(lab, service, lab.plain_footer(SHOWN, "generated portraits no training has seen"))
    opening = Text(
        "A photo is rebuilt, the rebuild is edited, and what changes there is done to the photo's own pixels. "
        "**Outside identical**: the least share of the pixels outside the change that are the same to the bit. "
        "**Identity**: cosine similarity of the edited photo and the photo in a recognition network (another photo of "
        "the same person: about 0.9, strangers: about 0). **Of the model's change**: what the edit's property moves by "
        "in the photo, of what it moves by in the model's own picture, both summed over the photos, ± the standard "
        "error over them; of smiles and noses how far pixels go along, by a flow that has no part in the edit, and of "
        "hair made shorter how much less of the picture hair takes. **Sharpness**: high frequencies in the changed "
        "region, after relative to before. **Seam**: gradient along the border of the change, likewise."
    )
    table = Table(HEADINGS, tuple(rows(photos)), f"Means over the photos ({footer}).")
    blocks: list[Block] = [opening, table, *([] if sheet is None else [sheet])]
    numbers = {
        f"photo_{name.replace(' ', '_')}_of_model": share
        for name in EDITS
        if (share := of_model(photos, name)) is not None
    }
    return Piece(tuple(blocks), numbers, _bars(photos))


def _inputs(lab: Lab) -> dict[str, str]:
    """The photos by name and size, and the judge."""
    found = {}
    for kind in ("photos", "portraits"):
        folder = getattr(lab.settings, kind)
        files = [] if folder is None else pictures_in(folder, f"--{kind}")
        names = repr([(file.name, file.stat().st_size) for file in files])
        found[kind] = hashlib.sha256(names.encode()).hexdigest() if files else ""
    return found | {"recognition": sha256_of(lab.settings.recognition)}


STUDY = Study(
    "photo",
    "Edits in photos",
    "beyond the paper",
    run,
    samples=48,
    paper_samples=48,
    sheet=True,
    uses=("encoder", "judges"),
    depends=_inputs,
    version=7,
)
