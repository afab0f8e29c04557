"""Diversity of the generated set, and whether it repeats training faces."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from memorygan.analysis import charts, grids
from memorygan.analysis.blocks import Bar, Block, Piece, Table, Text, number
from memorygan.analysis.diversity import (
    Neighbours,
    diversity_ratio,
    mean_pairwise_distance,
    nearest_neighbours,
    pixel_vectors,
)
from memorygan.analysis.lab import Lab
from memorygan.analysis.study import Study
from memorygan.training.batches import ResidentFaces

DIVERSITY_BAR = 0.6
CLOSEST, NEIGHBOURS = 8, 4
MAX_REFERENCE = 10_000
HELD_OUT_READING = (
    "A copy of a training face would lie near 0. Faces held out of training, which cannot be copies, say what an "
    "honest distance is; generated faces are smoother than photos, which alone brings them nearer to everything."
)
PLAIN_READING = "A copy of a training face would lie near 0."
SHEET_ELSEWHERE = (
    "The sheet that sets the generated faces nearest to a training face beside their neighbours shows faces of the "
    "data set, and so is no part of this report; the command writes it into the folder --private-out."
)


@torch.no_grad()
def run(lab: Lab, samples: int) -> Piece:
    """Distances between generated faces, and to the nearest training face."""
    numbers: dict[str, float] = {}
    footer = lab.footer(samples, 1.0)
    table, bars = _diversity(lab, samples, numbers, footer)
    blocks, private = _memorisation(lab, samples, numbers, footer)
    return Piece((table, *blocks), numbers, bars, (private,))


def _diversity(lab: Lab, samples: int, numbers: dict[str, float], footer: str) -> tuple[Table, tuple[Bar, ...]]:
    generated, real = lab.generated(samples)[0], lab.real(samples)
    spaces = [("pixels", generated.pixels, real.pixels)]
    if generated.features is not None and real.features is not None and lab.reader.features is not None:
        spaces.append((f"{lab.reader.features.name} features", generated.features, real.features))
    rows, bars = [], []
    for name, ours, theirs in spaces:
        ratio = diversity_ratio(ours, theirs)
        numbers[f"diversity_{name.replace(' ', '_')}"] = ratio
        distances = (number(mean_pairwise_distance(ours)), number(mean_pairwise_distance(theirs)))
        rows.append((name, *distances, f"{100 * ratio:.0f} %"))
        bars.append(Bar(f"diversity relative to the real set, {name}", ratio, DIVERSITY_BAR, True, samples))
    caption = f"Mean distance between two faces; pixels as root mean square difference in steps of 255 ({footer})."
    return Table(("compared by", "generated", "training faces", "ratio"), tuple(rows), caption), tuple(bars)


def _memorisation(lab: Lab, samples: int, numbers: dict[str, float], footer: str) -> tuple[list[Block], str]:
    faces = lab.training_faces
    reference, indices = _vectors(lab, faces, "training faces")
    # A mirrored copy is a copy too.
    mirrored, _ = _vectors(lab, faces, "mirrored faces", mirror=True)
    both = torch.cat((reference, mirrored))
    # Twice as many as are shown: a face and its mirror image may both be near.
    nearest = nearest_neighbours(lab.generated(samples)[0].pixels, both, min(2 * NEIGHBOURS, len(both)))
    distances = {"generated": nearest.distances[:, 0].cpu().numpy()}
    if lab.settings.validation is not None:
        held_out, _ = _vectors(lab, lab.held_out_faces, "held-out faces")
        distances["held out"] = nearest_neighbours(held_out, both).distances[:, 0].cpu().numpy()
    rows = []
    for name, values in distances.items():
        least, low, middle = (float(np.percentile(values, q)) for q in (0, 5, 50))
        rows.append((name, number(least), number(low), number(middle)))
        key = "nearest_" + name.replace(" ", "_")
        numbers |= {f"{key}_min": least, f"{key}_median": middle}
    reading = HELD_OUT_READING if "held out" in distances else PLAIN_READING
    picture = charts.part_boxes(distances, lab.parts, "distance to the nearest training face", footer)
    blocks: list[Block] = [
        Text(f"{reading} Compared with {len(reference):,} training faces and their mirror images."),
        Table(
            ("faces", "nearest of all", "5 %", "median"),
            tuple(rows),
            f"Distance to the nearest training face, root mean square in steps of 255 ({footer}).",
        ),
        lab.save(picture, "nearest.png", "Distance to the nearest training face", footer),
        Text(SHEET_ELSEWHERE),
    ]
    return blocks, lab.save_private(_sheet(lab, nearest, indices), "nearest-neighbours.png")


def _vectors(lab: Lab, faces: ResidentFaces, label: str, mirror: bool = False) -> tuple[Tensor, Tensor]:
    """Pixel vectors (M, P) of real faces, and which faces (M,) they are."""
    rows = list(lab.rows(faces, MAX_REFERENCE, label))
    images = (faces.batch(some).image for some in rows)
    return torch.cat([pixel_vectors(image.flip(-1) if mirror else image) for image in images]), torch.cat(rows)


def _sheet(lab: Lab, nearest: Neighbours, indices: Tensor) -> Image.Image:
    """The closest generated faces on the left, their nearest training faces with the distance on the right."""
    rows, labels = [], []
    for index in nearest.distances[:, 0].argsort()[:CLOSEST].tolist():
        seed = lab.settings.seed + index
        row = grids.faces(lab.generator.synthesize(lab.sample_shown([seed], truncation=1.0)).image)
        shown: set[int] = set()
        for place in nearest.indices[index].tolist():
            face = place % len(indices)
            if face in shown or len(shown) == NEIGHBOURS:
                continue
            shown.add(face)
            image = lab.training_faces.batch(indices[face][None]).image
            row += grids.faces(image.flip(-1) if place >= len(indices) else image)
        rows.append(row)
        labels.append(f"seed {seed}: {float(nearest.distances[index, 0]):.1f}")
    columns = ["generated"] + ["training"] * NEIGHBOURS
    return grids.grid(rows, labels, columns, lab.footer(len(nearest.indices), 1.0))


STUDY = Study(
    "memorisation",
    "Diversity and memorisation",
    "beyond the paper",
    run,
    samples=10_000,
    paper_samples=10_000,
    uses=("data", "validation", "judges", "prior"),
    version=3,
)
