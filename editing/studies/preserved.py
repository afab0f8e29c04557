"""Figures 16 and 17: what a sentence leaves as it was against how well it is followed; few codes free, and all.

A chapter of ``python -m memorygan.analysis``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from editing.guidance.registry import Guides
from editing.studies.text import leaders, moments
from editing.studies.text_trials import FREE, PARTS, WISHES, Bench, Way, Wish, judges_for
from memorygan.analysis import charts, grids
from memorygan.analysis.blocks import Figure, Piece, Table, Text
from memorygan.analysis.lab import Lab
from memorygan.analysis.paper import FIGURE_17_PROMPTS, FIGURE_17_STEPS
from memorygan.analysis.study import Study
from memorygan.analysis.unfinished import Arrays

# Of Adam per edit on a CPU; the trust region is reached before. Elsewhere as many as in the paper.
STEPS = 60
PROMPTS: Sequence[str] = FIGURE_17_PROMPTS
SHOWN = 2
Edits = dict[tuple[str, str], Arrays]


def _try_all(lab: Lab, bench: Bench, samples: int) -> Edits:
    wishes = [wish for wish in WISHES if wish.prompt in PROMPTS]
    edits: Edits = {}
    for way in (PARTS, FREE):
        for wish in wishes:

            def follow(seeds: list[int], way: Way = way, wish: Wish = wish) -> dict[str, np.ndarray]:
                face = bench.face(seeds[0])
                edit = bench.follow(wish, face, way)
                columns = {"before": face.image, "after": edit.image, "map": edit.map}
                columns |= {"gain": edit.gain, "unchanged": edit.unchanged}
                return {name: value[None] for name, value in columns.items()}

            label = f"{way.name} {wish.prompt}"
            edits[way.name, wish.prompt] = lab.gather(label, lab.face_seeds(samples), follow, batch=1)
    return edits


def _column(edits: Edits, way: Way, name: str) -> np.ndarray:
    """(N, M) of all prompts."""
    return np.concatenate([found[name] for (followed, _), found in edits.items() if followed == way.name])


def _sheet(lab: Lab, edits: Edits, footer: str) -> Figure:
    rows, prompts = [], [prompt for way, prompt in edits if way == PARTS.name]
    for prompt in prompts:
        parts, free = edits[PARTS.name, prompt], edits[FREE.name, prompt]
        pictures: list[np.ndarray] = []
        for k in range(min(SHOWN, len(parts["before"]))):
            pictures.append(parts["before"][k])
            for found in (parts, free):
                pictures += [found["after"][k], grids.heat(torch.from_numpy(found["map"][[k]]))[0]]
        rows.append(pictures)
    columns = ["before", "its parts", "change", "all codes", "change"] * (len(rows[0]) // 5)
    picture = grids.grid(rows, prompts, columns, footer)
    caption = "The paper's sentences with only their parts free, and with all codes free (white: 64 of 255 and more)"
    return lab.save(picture, "preserved.webp", caption, footer)


def _table(edits: Edits, bench: Bench, footer: str) -> Table:
    rows = []
    for k, step in enumerate(bench.moments):
        row = [str(step)]
        for way in (PARTS, FREE):
            gain, unchanged = _column(edits, way, "gain")[:, k], 100 * _column(edits, way, "unchanged")[:, k]
            row += [f"{gain.mean():.3f} ± {gain.std():.3f}", f"{unchanged.mean():.2f} ± {unchanged.std():.2f}"]
        rows.append(tuple(row))
    columns = ("step", "gain, its parts", "preserved %, its parts", "gain, all codes", "preserved %, all codes")
    return Table(columns, tuple(rows), f"Mean and standard deviation of all sentences ({footer}).")


def run(lab: Lab, samples: int) -> Piece:
    """The chapter.

    Raises:
        StudyUnavailable: without a judge of picture and words, or for a generator of other parts.
    """
    judge, identity = judges_for(lab, Guides())
    steps = STEPS if lab.settings.device == "cpu" else FIGURE_17_STEPS
    bench = Bench(lab, judge, identity, steps, moments(steps))
    edits = _try_all(lab, bench, samples)
    footer = lab.footer(samples, of=f"faces, {steps} steps per edit")
    series = {way.title: (_column(edits, way, "gain"), 100 * _column(edits, way, "unchanged")) for way in (PARTS, FREE)}
    picture = charts.courses(series, "gain of the judge's score", "preserved, % (complement of L1)", footer)
    caption = (
        "Preserved pixels against the gain of the judge's score: points are single edits after the last step, lines "
        f"the means after {', '.join(map(str, bench.moments))} steps, bars a standard deviation"
    )
    opening = Text(
        f"The four sentences of the paper's Figure 17, on the same {samples} faces. Preserved is, as there, the "
        "complement of the L1 loss between the pictures before and after the edit, with values in 0–1; gain is how "
        "much the judge's score of picture and sentence rose. Three things differ. The paper's counterpart is a "
        "generator in the manner of StyleGAN2, which has no parts; there is none of these faces, so ours is this "
        f"generator **with all codes free**. The paper edits inverted photos for {FIGURE_17_STEPS} steps; here random "
        f"faces are edited for {steps}. And the judge is {judge.title}."
    )
    numbers = {}
    for way in (PARTS, FREE):
        numbers[f"preserved_{way.name}_percent"] = float(100 * _column(edits, way, "unchanged")[:, -1].mean())
        numbers[f"preserved_{way.name}_gain"] = float(_column(edits, way, "gain")[:, -1].mean())
    sheet = _sheet(lab, edits, lab.footer(min(SHOWN, samples), of=f"faces, {steps} steps per edit"))
    chart = lab.save(picture, "preserved.png", caption, footer)
    return Piece((opening, sheet, chart, _table(edits, bench, footer)), numbers)


STUDY = Study(
    "preserved",
    "Preserved pixels against score",
    "Figures 16 and 17",
    run,
    samples=4,
    paper_samples=20,
    sheet=True,
    uses=("judges",),
    version=2,
    depends=leaders,
)
