"""Figures 9 and 10, Table 3: a face put together part by part, and how far the segmentation moves meanwhile (SMSE)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from memorygan.analysis import charts, grids
from memorygan.analysis.blocks import Piece, Table, Text
from memorygan.analysis.lab import Lab
from memorygan.analysis.rarity import rarity_note
from memorygan.analysis.smse import step_smse
from memorygan.analysis.study import Study
from memorygan.training.sheets import depth_picture

STRIPS = 2
NO_PAPER_COLUMN = (
    "There is no column of the paper's Table 3: its printed values could not be looked up with certainty, and none is "
    "guessed here."
)


@torch.no_grad()
def sequence_smse(lab: Lab, seeds: list[int]) -> dict[str, Tensor]:
    """SMSE of every step in the scheme's order.

    Returns:
        ``smse`` (B, K − 1) values of Eq. 15, from the second part on: the background has no step before it; and
        ``share`` (B, K) of the pixels that each part has in the end.
    """
    found, before, face = [], None, None
    for name, face in zip(lab.parts.names, lab.drawing.compose_sequence(lab.sample(seeds)), strict=True):
        if before is not None:
            found.append(step_smse(before, face.mask, lab.parts.index(name)))
        before = face.mask
    assert face is not None
    share = torch.stack([(face.part_map == k).float().mean(dim=(1, 2)) for k in range(len(lab.parts))], dim=1)
    return {"smse": torch.stack(found, dim=1) if found else share[:, :0], "share": share}


@torch.no_grad()
def strips(lab: Lab, order: list[str]) -> list[list[np.ndarray]]:
    """Three rows (image, depth, mask) per face, one column per added part; one scale of depth per face."""
    rows: list[list[np.ndarray]] = []
    for seed in lab.face_seeds(STRIPS):
        steps = list(lab.generator.compose_sequence(lab.sample([seed]), order))
        rows.append([grids.faces(face.image)[0] for face in steps])
        rows.append([depth_picture(face, steps[-1])[0] for face in steps])
        rows.append([grids.masks(face.part_map, lab.parts)[0] for face in steps])
    return rows


def run(lab: Lab, samples: int) -> Piece:
    """Strips in two orders, and the table of SMSE per part."""
    names = list(lab.parts.names)
    footer, of_strips = lab.footer(samples), lab.footer(STRIPS)
    labels = ["image", "depth", "mask"] * STRIPS
    reverse = names[:1] + names[:0:-1]
    figures = []
    for file, order, caption in (
        ("composition.webp", names, "Sequential composition in the scheme's order"),
        ("composition-reversed.webp", reverse, "The same faces composed in the opposite order"),
    ):
        picture = grids.grid(strips(lab, order), labels, ["+ " + lab.parts[name].label for name in order], of_strips)
        figures.append(lab.save(picture, file, caption + ": image, pseudo-depth, mask after each part", of_strips))
    found = lab.gather("SMSE", lab.face_seeds(samples), lambda seeds: sequence_smse(lab, seeds))
    smse = {name: found["smse"][:, k] for k, name in enumerate(names[1:])}
    shares = dict(zip(names, found["share"].mean(axis=0).tolist(), strict=True))
    everything = np.concatenate(list(smse.values())) if smse else np.zeros(0)
    rows = tuple(_row(lab.parts[name].label, values) for name, values in smse.items())
    numbers = {f"smse_{name}": float(values.mean()) for name, values in smse.items()}
    numbers["smse"] = float(everything.mean()) if everything.size else float("nan")
    caption = f"SMSE (Eq. 15) per added part; lower is better, 0 means nothing else moved ({footer})."
    columns = ("added part", "mean ± std", "25 %", "median", "75 %")
    return Piece(
        (
            *figures,
            Text(
                "SMSE is the mean squared difference between the segmentation before and after a part is added, over "
                "the pixels that the new part does not take and the channels of the other parts, with masks scaled to "
                "0–1. The equation leaves some of this open, so these values compare between checkpoints of this "
                "project, not to the digit with the paper's. Faces are composed by the fast path "
                f"({lab.arithmetic})."
            ),
            Text(NO_PAPER_COLUMN),
            Table(columns, rows + (_row("all steps", everything),), caption),
            *rarity_note(lab.parts, shares, "Their SMSE near 0 says only that nothing was added."),
            lab.save(charts.part_boxes(smse, lab.parts, "SMSE", footer), "smse.png", "SMSE per added part", footer),
        ),
        numbers,
    )


def _row(name: str, values: np.ndarray) -> tuple[str, ...]:
    if not values.size:
        return (name, "–", "–", "–", "–")
    low, middle, high = np.percentile(values, (25, 50, 75))
    return (name, f"{values.mean():.5f} ± {values.std():.5f}", f"{low:.5f}", f"{middle:.5f}", f"{high:.5f}")


STUDY = Study(
    "composition",
    "Sequential composition",
    "Figures 9 and 10, Table 3",
    run,
    samples=2000,
    paper_samples=10_000,
    version=2,
)
