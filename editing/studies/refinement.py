"""Reconstruction of held-out faces after refinement of the codes, as the editor does it with a photo.

A chapter of ``python -m memorygan.analysis``. It stands here because refinement belongs to the editor.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch

from editing.face.state import run_here
from editing.guidance.guide import DEFAULT_GUIDE
from editing.guidance.registry import Guides
from editing.photo.inversion import InversionResult, InversionSettings, invert
from editing.results import CancelToken
from memorygan.analysis.blocks import Bar, Block, Piece, Table, Text
from memorygan.analysis.lab import Lab, sha256_of
from memorygan.analysis.reconstruction import show_sheets
from memorygan.analysis.study import Study
from memorygan.picture import to_uint8

STEPS = 100
ERROR_BAR = 6.5
NO_PARSER = "The parser's weights are not on this machine, so refinement starts from the nearest of some sampled faces."
BAR = f"reconstruction of held-out faces after {STEPS} refinement steps: mean absolute error, of 255"


def error_of(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference of two (S, S, 3) uint8 pictures, in steps of 255."""
    return float(np.abs(first.astype(np.float64) - second.astype(np.float64)).mean())


def refine(lab: Lab, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One face through the editor's inversion.

    Args:
        lab: the bench.
        pixels: (S, S, 3) uint8.

    Returns:
        (S, S, 3) uint8 pictures of where it started, and of the refined codes as a recipe keeps them.
    """
    parser = lab.reader.parser.parser if lab.reader.parser is not None else None
    steps = invert(
        lab.drawing, lab.encoder, parser, pixels, InversionSettings(steps=STEPS), run_here, CancelToken(),
        guide=Guides().guide(),
    )  # fmt: skip
    start = next(steps).image
    with torch.no_grad():
        return start, to_uint8(lab.drawing.synthesize(_result(steps).latents.to(lab.settings.device)).image)[0]


def _result(steps: Generator[Any, None, InversionResult]) -> InversionResult:
    """What is left when all steps are done."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: InversionResult = stop.value
            return result


def _original(lab: Lab, row: int) -> np.ndarray:
    return to_uint8(lab.held_out_faces.batch(torch.tensor([row])).image)[0]


def _measure(lab: Lab, rows: list[int]) -> dict[str, np.ndarray]:
    pairs = [refine(lab, _original(lab, row)) for row in rows]
    return {"encoded": np.stack([start for start, _ in pairs]), "refined": np.stack([end for _, end in pairs])}


def run(lab: Lab, samples: int) -> Piece:
    """Errors before and after, a sheet of what came back, and a private one beside the originals."""
    rows = lab.face_rows(lab.held_out_faces, samples)
    # One at a time: each takes seconds, and is kept.
    found = lab.gather("refined faces", rows, lambda some: _measure(lab, some), batch=1)
    originals = [_original(lab, row) for row in rows]
    errors = {name: np.array([error_of(*pair) for pair in zip(originals, found[name], strict=True)]) for name in found}
    footer = lab.plain_footer(len(rows), f"held-out faces, {STEPS} steps")
    titles = {"encoded": "where it starts", "refined": f"after {STEPS} steps"}
    table = [
        (title, f"{errors[name].mean():.2f} ± {errors[name].std():.2f}", f"{errors[name].max():.2f}")
        for name, title in titles.items()
    ]
    blocks: list[Block] = [
        Text(
            "Every face that training never saw is taken as a photo: the face parser finds its parts, the part encoder "
            f"gives the codes to start from, and {STEPS} steps of Adam refine the codes of all parts and layers "
            "towards the picture, led by the guide of reconstructions to who is in it. The render net stays as it is, "
            "and the masks of the data set are not used." + ("" if lab.reader.parser else f" {NO_PARSER}")
        ),
        Table(("reconstruction", "mean absolute error, of 255", "worst face"), tuple(table), f"Errors ({footer})."),
    ]
    pictures = {"original": np.stack(originals), "start": found["encoded"], "refined": found["refined"]}
    caption, of = "Held-out faces as refinement finds and leaves them", f"held-out faces, {STEPS} steps"
    ours = ("start", "refined")
    private = show_sheets(lab, "refinements", pictures, ours, ("original", *ours), caption, of, blocks)
    means = {name: float(values.mean()) for name, values in errors.items()}
    numbers = {f"refinement_error_{name}": mean for name, mean in means.items()}
    return Piece(tuple(blocks), numbers, (Bar(BAR, means["refined"], ERROR_BAR, False, len(rows)),), private)


STUDY = Study(
    "refinement",
    "Refinement of held-out faces",
    "beyond the paper",
    run,
    samples=24,
    paper_samples=200,
    sheet=True,
    uses=("encoder", "validation", "judges"),
    version=2,
    depends=lambda lab: {"guide": sha256_of(DEFAULT_GUIDE)},
)
