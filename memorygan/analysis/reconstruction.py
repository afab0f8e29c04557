"""Reconstruction of faces that were held out of training, by the part encoder alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from memorygan.analysis import grids
from memorygan.analysis.agreement import agreement, confusion_matrix
from memorygan.analysis.blocks import Bar, Block, Piece, Table, Text, number
from memorygan.analysis.lab import Lab
from memorygan.analysis.locality import Change, measure_change
from memorygan.analysis.study import Study
from memorygan.generator import Synthesis
from memorygan.training.batches import FaceBatch

ERROR_BAR = 12.0
COLUMNS, SHOWN = 8, 16
BAR = "reconstruction of held-out faces by the encoder alone: mean absolute error, of 255"
ORIGINALS_ELSEWHERE = (
    "The originals belong to the data set and are not shown here; the command writes a sheet with both into the folder "
    "--private-out."
)


def part_errors(change: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sums of a change map per part.

    Args:
        change: (B, H, W).
        ids: (B, H, W) part ids below ``count``.
        count: K.

    Returns:
        (K,) float64 sum of the change over the pixels of each part, and (K,) float64 their number.
    """
    flat = ids.flatten().long().cpu()
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, flat, change.flatten().double().cpu())
    return total, torch.bincount(flat, minlength=count).double()


@dataclass
class _Gathered:
    """What is kept of all faces: sums per part, the error of every face with and without the encoder's corrections,
    and pictures of the first few."""

    total: Tensor
    pixels: Tensor
    confusion: Tensor
    errors: list[float] = field(default_factory=list)
    first_errors: list[float] = field(default_factory=list)
    ours: list[np.ndarray] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    originals: list[np.ndarray] = field(default_factory=list)


def error_of(batch: FaceBatch, face: Synthesis) -> Change:
    """The difference as a change of the whole picture."""
    return measure_change(batch.image, face.image, torch.ones_like(batch.part_ids, dtype=torch.bool))


@torch.no_grad()
def _gather(lab: Lab, samples: int) -> _Gathered:
    faces, count = lab.held_out_faces, len(lab.parts)
    zeros = torch.zeros(count, dtype=torch.float64)
    kept = _Gathered(zeros, zeros, torch.zeros(count, count, dtype=torch.int64))
    for rows in lab.rows(faces, samples, "reconstructions"):
        batch = faces.batch(rows)
        first = lab.memorygan.draw(lab.encoder(batch.image, batch.one_hot).mean)
        face = (
            lab.memorygan.synthesize(lab.encoder.read(lab.memorygan, batch.image, batch.one_hot).latents(lab.memorygan))
            if lab.encoder.config.looks
            else first
        )
        change = error_of(batch, face)
        total, pixels = part_errors(change.map, batch.part_ids, count)
        kept.total, kept.pixels = kept.total + total, kept.pixels + pixels
        kept.confusion += confusion_matrix(batch.part_ids.long(), face.part_map, count)
        kept.errors += change.inside.tolist()
        kept.first_errors += error_of(batch, first).inside.tolist()
        if len(kept.ours) < SHOWN:
            kept.ours += grids.faces(face.image)
            kept.masks += grids.masks(face.part_map, lab.parts)
            kept.originals += grids.faces(batch.image)
    return kept


def run(lab: Lab, samples: int) -> Piece:
    """Mean absolute error, whole and per part, and a sheet of reconstructions."""
    kept = _gather(lab, samples)
    count, error, spread = len(kept.errors), float(np.mean(kept.errors)), float(np.std(kept.errors))
    footer = lab.plain_footer(count, "held-out faces")
    scores = agreement(kept.confusion, lab.parts.names)
    numbers = {"reconstruction_error": error}
    rows = [("whole picture", f"{error:.2f} ± {spread:.2f}", "")]
    looks, how = lab.encoder.config.looks, "once"
    if looks:
        numbers["reconstruction_error_first_look"] = first = float(np.mean(kept.first_errors))
        rows.append(("… after its first look", f"{first:.2f} ± {float(np.std(kept.first_errors)):.2f}", ""))
        times = f"{looks} times" if looks > 1 else "once"
        how = f"which then compares them {times} with the rendering of its codes and corrects those"
    for k, part in enumerate(lab.parts.parts):
        mean = float(kept.total[k] / kept.pixels[k]) if kept.pixels[k] else float("nan")
        numbers[f"reconstruction_error_{part.name}"] = mean
        rows.append((part.label, number(mean), number(scores.iou[part.name])))
    caption = f"Reconstruction error where the original shows the part ({footer})."
    blocks: list[Block] = [
        Text(
            f"{count:,} faces that training never saw go through the part encoder, {how}, with the masks of their data "
            "set; nothing is optimised. Refinement of the codes belongs to the editor and is measured there."
        ),
        Table(("part", "mean absolute error, of 255", "IoU of the mask"), tuple(rows), caption),
    ]
    private = _sheets(lab, kept, blocks)
    return Piece(tuple(blocks), numbers, (Bar(BAR, error, ERROR_BAR, False, count),), private)


def _sheets(lab: Lab, kept: _Gathered, blocks: list[Block]) -> tuple[str, ...]:
    shown = min(SHOWN, len(kept.ours))
    footer = lab.plain_footer(shown, "held-out faces")
    lines = range(0, shown, COLUMNS)

    def sheet(first: list[np.ndarray], second: list[np.ndarray], labels: list[str]) -> grids.Image.Image:
        rows = [row for at in lines for row in (first[at : at + COLUMNS], second[at : at + COLUMNS])]
        return grids.grid(rows, labels * len(lines), footer=footer)

    beside = sheet(kept.originals[:shown], kept.ours[:shown], ["original", "encoder"])
    alone = sheet(kept.ours[:shown], kept.masks[:shown], ["image", "mask"])
    caption = "Held-out faces as encoder and generator give them back, with the masks drawn along"
    return show_sheets(lab, "reconstructions", alone, beside, caption, footer, blocks)


def show_sheets(
    lab: Lab,
    name: str,
    alone: grids.Image.Image,
    beside: grids.Image.Image,
    caption: str,
    footer: str,
    blocks: list[Block],
) -> tuple[str, ...]:
    """Adds what came back to the report; with the originals, or of celebrities, it goes to the private folder.

    Args:
        lab: the bench.
        name: of both files, without ending.
        alone, beside: the sheet without and with the originals.
        caption, footer: of the sheet in the report.
        blocks: the chapter so far; a figure, where it may be shown, and a sentence are added.

    Returns:
        the private files.
    """
    private = [lab.save_private(beside, f"{name}-beside-originals.png")]
    if lab.held_out_may_be_people:
        private.append(lab.save_private(alone, f"{name}.png"))
    else:
        blocks.append(lab.save(alone, f"{name}.webp", caption, footer))
    blocks.append(Text(ORIGINALS_ELSEWHERE))
    return tuple(private)


STUDY = Study(
    "reconstruction",
    "Reconstruction of held-out faces",
    "beyond the paper",
    run,
    samples=200,
    paper_samples=200,
    uses=("encoder", "validation"),
    version=2,
)
