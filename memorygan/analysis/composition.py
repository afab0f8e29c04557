"""Figures 9 and 10, Table 3: a face put together part by part, and how far the segmentation moves meanwhile (SMSE)."""

from __future__ import annotations

import numpy as np
import torch

from memorygan.analysis import charts, grids
from memorygan.analysis.blocks import Piece, Table, Text
from memorygan.analysis.lab import Lab
from memorygan.analysis.smse import step_smse
from memorygan.analysis.study import Study
from memorygan.training.sheets import depth_picture

STRIPS = 2


@torch.no_grad()
def sequence_smse(lab: Lab, samples: int) -> dict[str, np.ndarray]:
    """SMSE of every step in the scheme's order.

    Returns:
        part name → (N,) values of Eq. 15, from the second part on: the background has no step before it.
    """
    steps: dict[str, list[np.ndarray]] = {name: [] for name in lab.parts.names[1:]}
    for seeds in lab.seeds(samples, "SMSE"):
        before = None
        for name, face in zip(lab.parts.names, lab.generator.compose_sequence(lab.sample(seeds)), strict=True):
            if before is not None:
                steps[name].append(step_smse(before, face.mask, lab.parts.index(name)).cpu().numpy())
            before = face.mask
    return {name: np.concatenate(values) for name, values in steps.items()}


@torch.no_grad()
def strips(lab: Lab, order: list[str]) -> list[list[np.ndarray]]:
    """Three rows (image, depth, mask) per face, one column per added part."""
    rows: list[list[np.ndarray]] = []
    for seed in range(lab.settings.seed, lab.settings.seed + STRIPS):
        steps = list(lab.generator.compose_sequence(lab.sample([seed]), order))
        rows.append([grids.faces(face.image)[0] for face in steps])
        rows.append([depth_picture(face)[0] for face in steps])
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
        ("composition.png", names, "Sequential composition in the scheme's order"),
        ("composition-reversed.png", reverse, "The same faces composed in the opposite order"),
    ):
        picture = grids.grid(strips(lab, order), labels, ["+ " + lab.parts[name].label for name in order], of_strips)
        figures.append(lab.save(picture, file, caption + ": image, pseudo-depth, mask after each part", of_strips))
    smse = sequence_smse(lab, samples)
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
                "project, not to the digit with the paper's."
            ),
            Table(columns, rows + (_row("all steps", everything),), caption),
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
    "composition", "Sequential composition", "Figures 9 and 10, Table 3", run, samples=200, paper_samples=10_000
)
