"""Reconstruction of faces that were held out of training, by the part encoder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def error_of(batch: FaceBatch, face: Synthesis) -> Change:
    """The difference as a change of the whole picture."""
    return measure_change(batch.image, face.image, torch.ones_like(batch.part_ids, dtype=torch.bool))


@torch.no_grad()
def _measure(lab: Lab, rows: list[int]) -> dict[str, Tensor | np.ndarray]:
    """Errors (B,) of some faces with and without the encoder's corrections, sums per part, and pictures."""
    batch, memory, count = lab.held_out_faces.batch(torch.tensor(rows)), lab.memorygan, len(lab.parts)
    face = first = memory.draw(lab.encoder(batch.image, batch.one_hot).mean)
    if lab.encoder.config.looks:
        face = memory.synthesize(lab.encoder.read(memory, batch.image, batch.one_hot).latents(memory))
    change = error_of(batch, face)
    total, pixels = part_errors(change.map, batch.part_ids, count)
    return {
        "errors": change.inside,
        "first_errors": error_of(batch, first).inside,
        "total": total[None],
        "pixels": pixels[None],
        "confusion": confusion_matrix(batch.part_ids.long(), face.part_map, count)[None],
        "image": np.stack(grids.faces(face.image)),
        "mask": np.stack(grids.masks(face.part_map, lab.parts)),
        "original": np.stack(grids.faces(batch.image)),
    }


def run(lab: Lab, samples: int) -> Piece:
    """Mean absolute error, whole and per part, and a sheet of reconstructions."""
    kept = lab.gather("reconstructions", lab.face_rows(lab.held_out_faces, samples), lambda rows: _measure(lab, rows))
    errors, first_errors = kept["errors"], kept["first_errors"]
    count, error = len(errors), float(errors.mean())
    footer = lab.plain_footer(count, "held-out faces")
    scores = agreement(torch.from_numpy(kept["confusion"]).sum(dim=0), lab.parts.names)
    numbers = {"reconstruction_error": error}
    rows = [("whole picture", f"{error:.2f} ± {errors.std():.2f}", "")]
    looks, how = lab.encoder.config.looks, "once"
    if looks:
        numbers["reconstruction_error_first_look"] = first = float(first_errors.mean())
        rows.append(("… after its first look", f"{first:.2f} ± {first_errors.std():.2f}", ""))
        times = f"{looks} times" if looks > 1 else "once"
        how = f"which then compares them {times} with the rendering of its codes and corrects those"
    total, pixels = kept["total"].sum(axis=0), kept["pixels"].sum(axis=0)
    for k, part in enumerate(lab.parts.parts):
        mean = float(total[k] / pixels[k]) if pixels[k] else float("nan")
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
    caption = "Held-out faces as encoder and generator give them back, with the masks drawn along"
    pictures = {**kept, "encoder": kept["image"]}
    alone, beside = ("image", "mask"), ("original", "encoder")
    private = show_sheets(lab, "reconstructions", pictures, alone, beside, caption, "held-out faces", blocks)
    return Piece(tuple(blocks), numbers, (Bar(BAR, error, ERROR_BAR, False, count),), private)


def show_sheets(
    lab: Lab,
    name: str,
    pictures: Mapping[str, np.ndarray],
    alone: Sequence[str],
    beside: Sequence[str],
    caption: str,
    of: str,
    blocks: list[Block],
) -> tuple[str, ...]:
    """Adds what came back to the report; with the originals, or of celebrities, it goes to the private folder.

    Args:
        lab: the bench.
        name: of both files, without ending.
        pictures: label → (N, S, S, 3) uint8, of which the first few are shown.
        alone, beside: labels on the sheet without and with the originals.
        caption: of the sheet in the report.
        of: what the faces are.
        blocks: the chapter so far; a figure, where it may be shown, and a sentence are added.

    Returns:
        the private files.
    """
    shown = min(SHOWN, len(pictures[beside[0]]))
    footer, lines = lab.plain_footer(shown, of), range(0, shown, COLUMNS)

    def sheet(labels: Sequence[str]) -> grids.Image.Image:
        rows = [list(pictures[label][at : min(at + COLUMNS, shown)]) for at in lines for label in labels]
        return grids.grid(rows, [*labels] * len(lines), footer=footer)

    private = [lab.save_private(sheet(beside), f"{name}-beside-originals.png")]
    if lab.held_out_may_be_people:
        private.append(lab.save_private(sheet(alone), f"{name}.png"))
    else:
        blocks.append(lab.save(sheet(alone), f"{name}.webp", caption, footer))
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
