"""Figures 11, 12 and 18: parts mixed between faces, interpolated, and transferred with and without their shape."""

from __future__ import annotations

import numpy as np
import torch

from memorygan.analysis import grids
from memorygan.analysis.blocks import Figure, Piece, Text
from memorygan.analysis.lab import Lab
from memorygan.analysis.study import Study
from memorygan.latents import Latents
from memorygan.parts import LayerGroup

# Those a person would change first.
SHOWN_PARTS = ("hair", "skin", "eyes", "eyebrows", "nose", "mouth", "cloth", "background")
STEPS = 7
PAIRS = 3


def shown_parts(lab: Lab) -> list[str]:
    """The shown parts that this generator has; all of them if it has none of these."""
    return [part for part in SHOWN_PARTS if part in lab.parts.names] or list(lab.parts.names)


def _pictures(lab: Lab, latents: Latents) -> list[np.ndarray]:
    return grids.faces(lab.generator.synthesize(latents).image)


def mixing(lab: Lab, targets: int) -> Figure:
    """Figure 11: every column a face, every row one part taken from the face on the left."""
    parts, seed = shown_parts(lab), lab.settings.seed
    faces = lab.sample(range(seed, seed + targets))
    rows: list[list[np.ndarray | None]] = [[None, *_pictures(lab, faces)]]
    for row, part in enumerate(parts):
        source = lab.sample([seed + targets + row])
        rows.append([*_pictures(lab, source), *_pictures(lab, faces.mix(source, [part]))])
    footer = lab.footer(targets + len(parts))
    picture = grids.grid(rows, [""] + [lab.parts[p].label for p in parts], ["taken from"] + ["face"] * targets, footer)
    return lab.save(
        picture, "mixing.webp", "Style mixing: one part of the left face, put into every face of the top row", footer
    )


def interpolation(lab: Lab) -> Figure:
    """Figure 12: from one face to another, whole and part by part."""
    parts, seed = shown_parts(lab), lab.settings.seed
    first, second = lab.sample([seed]), lab.sample([seed + 1])
    amounts = [step / (STEPS - 1) for step in range(STEPS)]
    rows = [[_pictures(lab, first.lerp(second, a))[0] for a in amounts]]
    rows += [[_pictures(lab, first.mix(second, [part], amount=a))[0] for a in amounts] for part in parts]
    footer = lab.footer(2)
    labels = ["everything"] + [lab.parts[part].label for part in parts]
    picture = grids.grid(rows, labels, [f"{a:.2f}" for a in amounts], footer)
    return lab.save(
        picture, "interpolation.webp", "Interpolation from one face to another: all codes, then one part alone", footer
    )


def transfer(lab: Lab) -> Figure:
    """Figure 18: texture alone, and shape with texture."""
    parts, seed = shown_parts(lab), lab.settings.seed
    rows: list[list[np.ndarray]] = [[] for _ in parts]
    for pair in range(PAIRS):
        target, source = lab.sample([seed + 2 * pair]), lab.sample([seed + 2 * pair + 1])
        for row, part in zip(rows, parts, strict=True):
            texture = target.mix(source, [part], [LayerGroup.TEXTURE])
            both = target.mix(source, [part], [LayerGroup.SHAPE, LayerGroup.TEXTURE])
            row += [_pictures(lab, face)[0] for face in (target, source, texture, both)]
    footer = lab.footer(2 * PAIRS)
    labels = [lab.parts[part].label for part in parts]
    columns = ["face", "source", "texture", "shape + texture"] * PAIRS
    caption = "Transfer of a part's texture alone, and of its shape with its texture"
    return lab.save(grids.grid(rows, labels, columns, footer), "transfer.webp", caption, footer)


@torch.no_grad()
def run(lab: Lab, samples: int) -> Piece:
    """The three grids; ``samples`` is the number of columns of the first."""
    return Piece(
        (
            Text(
                "Which layers are exchanged follows the paper's rule of each part: all of them for the background, "
                "shape and texture for skin and hair, and the last base layer too for eyes, eyebrows, mouth and nose."
            ),
            mixing(lab, samples),
            interpolation(lab),
            transfer(lab),
        )
    )


STUDY = Study(
    "mixing", "Mixing, interpolation and transfer", "Figures 11, 12 and 18", run, samples=6, paper_samples=6, sheet=True
)
