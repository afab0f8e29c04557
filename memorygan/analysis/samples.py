"""Figure 8: random faces with their masks."""

from __future__ import annotations

import torch

from memorygan.analysis import grids
from memorygan.analysis.blocks import Piece, Text
from memorygan.analysis.lab import Lab
from memorygan.analysis.study import Study
from memorygan.training.sheets import depth_picture

COLUMNS = 8


@torch.no_grad()
def run(lab: Lab, samples: int) -> Piece:
    """A sheet of faces, and one of faces with masks and pseudo-depths."""
    plain: list[list] = []
    detailed: list[list] = []
    labels: list[str] = []
    for seeds in lab.seeds(samples, "samples"):
        for start in range(0, len(seeds), COLUMNS):
            face = lab.generator.magnify(lab.generator.synthesize(lab.sample_shown(seeds[start : start + COLUMNS])))
            pictures = grids.faces(face.image)
            plain.append(pictures)
            if len(detailed) < 9:
                detailed += [pictures, grids.masks(face.part_map, lab.parts), list(depth_picture(face))]
                labels += ["image", "mask", "depth"]
    footer = lab.footer(samples)
    shown = sum(len(row) for row in detailed) // 3
    return Piece(
        (
            Text("Faces are drawn in the order of their seeds; none was chosen."),
            lab.save(grids.grid(plain, footer=footer), "samples.webp", "Random faces", footer),
            lab.save(
                grids.grid(detailed, labels, footer=lab.footer(shown)),
                "samples-masks.webp",
                "Faces, the generator's own masks, and pseudo-depths (brighter is nearer)",
                lab.footer(shown),
            ),
        )
    )


STUDY = Study(
    "samples",
    "Samples and masks",
    "Figure 8",
    run,
    samples=64,
    paper_samples=64,
    sheet=True,
    uses=("enlarging", "prior"),
    version=3,
)
