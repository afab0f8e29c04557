"""Figure 15: faces changed by sentences, and what else changed with them.

A chapter of ``python -m memorygan.analysis``. It stands here because it needs the editor and its judges, which the
generator knows nothing of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from editing.device.loading import SLIDERS_NAME
from editing.errors import EditingError
from editing.face.measure import TOLERANCE
from editing.guidance.registry import Guides
from editing.studies.text_trials import (
    ANYONE,
    FREE,
    PARTS,
    WISHES,
    Bench,
    Face,
    Outcome,
    Way,
    Wish,
    judges_for,
    verdict,
)
from editing.text.optimize import TextSettings
from editing.text.subjects import Subject
from memorygan.analysis import grids
from memorygan.analysis.blocks import Bar, Block, Figure, Piece, Table, Text, number
from memorygan.analysis.lab import Lab, sha256_of
from memorygan.analysis.study import Study
from memorygan.analysis.unfinished import Arrays
from memorygan.parts import FACE_PARTS

VERSION = 6
# Steps of Adam per edit: the editor's own number for the full count of faces where there is an accelerator, else as
# many as it takes to reach the trust region.
STEPS, FULL_STEPS, FULL_FACES = 30, TextSettings().steps, 20
SHOWN = 3
# Faces on which sentences are also followed in the other ways.
COMPARED_FACES = 4
# What the project promises of edits by sentences.
RIGHT_BAR, OUTSIDE_BAR = 80.0, 4.0
PROMISED = ("hair colour", "smile", "lipstick", "beard")
Edits = dict[tuple[str, Wish], list[Outcome]]


@dataclass(frozen=True)
class _Trials:
    """Everything that was tried.

    Attributes:
        faces: before any edit.
        edits: (name of the way, wish) → one edit per face, in the ways that are compared of the first few faces.
        spread: measure → standard deviation among sampled faces.
    """

    faces: list[Face]
    edits: Edits
    spread: dict[str, float]

    @property
    def compared(self) -> list[Wish]:
        """The wishes that were followed in every way."""
        return [wish for wish in WISHES if (FREE.name, wish) in self.edits]

    def all(self, way: Way, wishes: Sequence[Wish]) -> list[tuple[Wish, Outcome]]:
        """The edits of these wishes, each with its wish."""
        return [(wish, edit) for wish in wishes for edit in self.edits[way.name, wish]]

    def alike(self, way: Way) -> list[tuple[Wish, Outcome]]:
        """The edits of the compared wishes on the faces that were edited in every way."""
        return [
            (wish, edit)
            for wish in self.compared
            for edit in self.edits[way.name, wish][: len(self.edits[FREE.name, wish])]
        ]


# --- Trying -----------------------------------------------------------------------------------------------------------


def leaders(lab: Lab) -> dict[str, str]:
    """Name → sha256 of what leads sentences on this machine, judges and sliders: finished pieces depend on them."""
    guides = Guides()
    try:
        guides.text(), guides.identity()
        found = dict(guides.hashes())
    except EditingError as error:
        found = {"judges": str(error)}
    return found | {"sliders": sha256_of(lab.settings.checkpoint.parent / SLIDERS_NAME)}


def moments(steps: int) -> tuple[int, ...]:
    """Steps at which the course of an edit is recorded."""
    return tuple(sorted({max(1, round(share * steps)) for share in (0.1, 0.2, 0.4, 0.7, 1.0)}))


def _try_all(lab: Lab, bench: Bench, samples: int) -> _Trials:
    faces = {seed: bench.face(seed) for seed in lab.face_seeds(samples)}
    ways = [FREE] if bench.identity is None else [FREE, ANYONE]
    jobs = [(PARTS, wish) for wish in WISHES]
    jobs += [(way, wish) for way in ways for wish in WISHES if wish.compared]
    edits: Edits = {}
    for way, wish in jobs:

        def follow(seeds: list[int], way: Way = way, wish: Wish = wish) -> dict[str, np.ndarray]:
            edit = bench.follow(wish, faces[seeds[0]], way)
            return {field.name: np.asarray(getattr(edit, field.name))[None] for field in fields(Outcome)}

        edited = list(faces)[: samples if way is PARTS else COMPARED_FACES]
        edits[way.name, wish] = _outcomes(lab.gather(f"{way.name} {wish.prompt}", edited, follow, batch=1))
    return _Trials(list(faces.values()), edits, bench.spread())


def _outcomes(arrays: Arrays) -> list[Outcome]:
    """One edit per row of the arrays, which have the names of its fields."""
    columns: list[Any] = [arrays[field.name] for field in fields(Outcome)]
    columns = [column if column.ndim > 1 else column.tolist() for column in columns]
    return [Outcome(*row) for row in zip(*columns, strict=True)]


# --- Showing ----------------------------------------------------------------------------------------------------------


def _spread_text(values: np.ndarray) -> str:
    """Mean and spread for a table."""
    values = values[np.isfinite(values)]
    if not len(values):
        return "–"
    return f"{number(float(values.mean()))} ± {number(float(values.std()))}"


def _column(edits: Sequence[tuple[Wish, Outcome]], name: str) -> np.ndarray:
    """(N,) or (N, M) of one field of the edits."""
    return np.stack([getattr(edit, name) for _, edit in edits])


def _sheet(lab: Lab, trials: _Trials, footer: str) -> Figure:
    shown = trials.faces[:SHOWN]
    rows, labels = [], []
    for wish in WISHES:
        pictures: list[np.ndarray] = []
        for face, edit in zip(shown, trials.edits[PARTS.name, wish], strict=False):
            pictures += [face.image, edit.image, *grids.heat(torch.from_numpy(edit.map)[None])]
        rows.append(pictures)
        labels.append(wish.prompt)
    picture = grids.grid(rows, labels, ["before", "after", "change"] * len(shown), footer)
    caption = "Edits by a sentence, which may change only the parts it speaks of (change: white is 64 of 255 and more)"
    return lab.save(picture, "text-edits.webp", caption, footer)


def _outside(change: float) -> str:
    return number(change) if change <= OUTSIDE_BAR else f"**{number(change)}**"


def _about(subject: Subject) -> str:
    """The parts that a sentence is about, the layers where not all are free, and the parts that help."""
    named = (subject.shown, subject.helpers)
    about, by = (", ".join(FACE_PARTS[part].label.lower() for part in parts) for parts in named)
    return about + (f": {subject.layers}" if subject.layers != "all" else "") + (f" (with {by})" if by else "")


def _wish_table(trials: _Trials, bench: Bench, footer: str) -> Table:
    rows = []
    for wish in WISHES:
        edits = trials.all(PARTS, [wish])
        found, (name, sign) = verdict(edits, trials.spread), wish.aim
        rows.append(
            (
                wish.prompt,
                _about(bench.subject(wish)),
                f"{name} {'up' if sign > 0 else 'down'}",
                f"{found.right} of {found.judged}",
                number(found.shift, 2),
                number(float(_column(edits, "inside").mean())),
                _outside(float(_column(edits, "outside").mean())),
                number(float(_column(edits, "identity").mean())),
                number(float(_column(edits, "gain")[:, -1].mean())),
            )
        )
    columns = (
        "sentence", "parts", "measured", "right way", "shift", "change inside", "change outside", "identity", "gain",
    )  # fmt: skip
    caption = (
        "Right way: edits whose measure moved as the sentence says. Shift: mean change of the measure that way, in "
        f"standard deviations among sampled faces. Changes in steps of 255, in bold above {OUTSIDE_BAR:g}. Identity: "
        f"cosine of the identity vectors. Gain: of the judge's score ({footer})."
    )
    return Table(columns, tuple(rows), caption)


def _ways_table(trials: _Trials, footer: str) -> Table:
    """What the identity loss does, and what freeing all codes does."""
    ways = [way for way in (PARTS, ANYONE, FREE) if (way.name, trials.compared[0]) in trials.edits]
    rows = []
    for way in ways:
        edits = trials.alike(way)
        found = verdict(edits, trials.spread)
        rows.append(
            (
                way.title,
                _spread_text(_column(edits, "identity")),
                f"{found.right} of {found.judged}",
                number(found.shift, 2),
                _spread_text(_column(edits, "outside")),
                _spread_text(100 * _column(edits, "preserved")[:, -1]),
                _spread_text(_column(edits, "gain")[:, -1]),
            )
        )
    columns = ("edits", "identity", "right way", "shift", "change outside", "preserved %", "gain")
    sentences = "; ".join(wish.prompt for wish in trials.compared)
    return Table(columns, tuple(rows), f"The sentences that were followed in every way: {sentences} ({footer}).")


def _numbers(trials: _Trials) -> Iterator[tuple[str, float]]:
    for wish in WISHES:
        edits, name = trials.all(PARTS, [wish]), wish.word.replace(" ", "_")
        found = verdict(edits, trials.spread)
        yield f"text_{name}_right_percent", found.share
        yield f"text_{name}_shift", found.shift
        for field in ("inside", "outside", "identity"):
            yield f"text_{name}_{field}", float(_column(edits, field).mean())
    for way in (PARTS, FREE, ANYONE):
        if (way.name, trials.compared[0]) in trials.edits:
            edits = trials.alike(way)
            for field in ("identity", "outside"):
                yield f"text_way_{way.name}_{field}", float(_column(edits, field).mean())
            for field in ("gain", "preserved"):
                yield f"text_way_{way.name}_{field}", float(_column(edits, field)[:, -1].mean())


def _bars(trials: _Trials) -> tuple[Bar, ...]:
    bars = []
    for group in PROMISED:
        found = verdict(trials.all(PARTS, [wish for wish in WISHES if wish.group == group]), trials.spread)
        what = f"sentences: edits whose {group} moved the right way, %"
        bars.append(Bar(what, found.share, RIGHT_BAR, True, found.judged))
    every = _column(trials.all(PARTS, WISHES), "outside")
    what = "sentences: mean change outside the edited parts, of 255"
    bars.append(Bar(what, float(every.mean()), OUTSIDE_BAR, False, len(every)))
    outside = {wish: float(_column(trials.all(PARTS, [wish]), "outside").mean()) for wish in WISHES}
    worst = max(outside, key=lambda wish: outside[wish])
    what = f"sentences: the same, of the sentence that is worst in it, “{worst.prompt}”"
    return (*bars, Bar(what, outside[worst], OUTSIDE_BAR, False, len(trials.faces)))


def _opening(lab: Lab, guides: Guides, bench: Bench, samples: int) -> tuple[Text, ...]:
    info = guides.info()
    title, name = (info.text.title, info.text.name) if info.text else (bench.judge.title, bench.judge.name)
    judge = f"The judge of picture and words is **{title}**"
    if name != "openai":
        judge += ", not the CLIP of the paper, so that its scores do not compare with the paper's"
    person = f"the judge of identity is **{bench.identity.title}**." if bench.identity else "nothing judges identity."
    masks = "the face parser's masks" if lab.reader.parser is not None else "the generator's own masks"
    return (
        Text(
            f"Each of {len(WISHES)} sentences is followed on the same {samples} faces, {bench.steps} steps each, at "
            "the editor's normal strength and without any choice between results. "
            f"{judge}; {person}"
        ),
        Text(
            "Whether an edit succeeded is not asked of the judge that led it: colours, sizes and forms are measured in "
            f"the picture with {masks}, before and after. A face whose measure cannot be taken beforehand is left "
            "out, and one whose measure the edit made impossible counts against it. The right way alone says little: a "
            "shift below half a standard deviation is hardly seen. Inside is where the parts that the sentence is "
            "about lie before or after, by the generator's masks; codes of other parts may help them to change. A "
            "pixel of the picture is preserved if no channel moved by more than "
            f"{TOLERANCE:g} of 255. Identity is measured by the network whose loss takes part in the edit: that it is "
            "kept shows the loss at work, and is no independent proof."
        ),
    )


def run(lab: Lab, samples: int) -> Piece:
    """The chapter.

    Raises:
        StudyUnavailable: without a judge of picture and words, or for a generator of other parts.
    """
    guides = Guides()
    judge, identity = judges_for(lab, guides)
    steps = FULL_STEPS if samples >= FULL_FACES and lab.settings.device != "cpu" else STEPS
    bench = Bench(lab, judge, identity, steps, moments(steps))
    trials = _try_all(lab, bench, samples)
    footer = lab.footer(samples, of=f"faces, {steps} steps per edit")
    sheet = lab.footer(min(SHOWN, samples), of=f"faces, {steps} steps per edit")
    few = lab.footer(min(COMPARED_FACES, samples), of=f"faces, {steps} steps per edit")
    blocks: tuple[Block, ...] = (
        *_opening(lab, guides, bench, samples),
        _sheet(lab, trials, sheet),
        _wish_table(trials, bench, footer),
        _ways_table(trials, few),
    )
    return Piece(blocks, dict(_numbers(trials)), _bars(trials))


STUDY = Study(
    "text",
    "Edits by a sentence",
    "Figure 15",
    run,
    samples=3,
    paper_samples=FULL_FACES,
    sheet=True,
    uses=("judges",),
    version=VERSION,
    depends=leaders,
)
