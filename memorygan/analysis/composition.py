"""Figures 9 and 10, Table 3: a face put together part by part, and how much else changes meanwhile (SMSE)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from memorygan.analysis import charts, grids
from memorygan.analysis.blocks import Piece, Table, Text
from memorygan.analysis.lab import Lab
from memorygan.analysis.paper import TABLE_3_MEMORYGAN, TABLE_3_SEMANTICSTYLEGAN, printed
from memorygan.analysis.rarity import rarity_note
from memorygan.analysis.smse import earlier_parts, step_mask_error, step_smse
from memorygan.analysis.study import Study
from memorygan.training.sheets import depth_picture

STRIPS = 2


@torch.no_grad()
def sequence_smse(lab: Lab, seeds: list[int]) -> dict[str, Tensor]:
    """SMSE of every step in the scheme's order.

    Returns:
        ``smse`` (B, K − 1) values of Eq. 15 for pictures in [−1, 1], from the second part on: the background has no
        step before it; ``masks`` (B, K − 1) the same question asked of the segmentation; and ``share`` (B, K) of the
        pixels that each part has in the end.
    """
    smse, masks, before, face = [], [], None, None
    for name, face in zip(lab.parts.names, lab.drawing.compose_sequence(lab.sample(seeds)), strict=True):
        if before is not None:
            part = lab.parts.index(name)
            smse.append(step_smse(before.image, face.image, earlier_parts(face.part_map, part)))
            masks.append(step_mask_error(before.mask, face.mask, part))
        before = face
    assert face is not None
    share = torch.stack([(face.part_map == k).float().mean(dim=(1, 2)) for k in range(len(lab.parts))], dim=1)
    kept = (torch.stack(found, dim=1) if found else share[:, :0] for found in (smse, masks))
    return dict(zip(("smse", "masks", "share"), (*kept, share), strict=True))


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
    smse, masks = ({name: found[key][:, k] for k, name in enumerate(names[1:])} for key in ("smse", "masks"))
    shares = dict(zip(names, found["share"].mean(axis=0).tolist(), strict=True))
    everything = np.concatenate(list(smse.values())) if smse else np.zeros(0)
    rows = [_row(lab.parts[name].label, name, smse[name], masks[name]) for name in smse]
    rows.append(_row("all steps", "", everything, np.concatenate(list(masks.values())) if masks else everything))
    numbers = {f"smse_{name}": float(values.mean()) for name, values in smse.items()}
    numbers["smse"] = float(everything.mean()) if everything.size else float("nan")
    caption = f"SMSE (Eq. 15) per added part; lower is better, 0 means nothing else changed ({footer})."
    columns = (
        "added part", "picture in −1 to 1", "picture in 0 to 1", "MemoryGAN in the paper",
        "SemanticStyleGAN in the paper", "masks",
    )  # fmt: skip
    return Piece(
        (
            *figures,
            Text(
                "SMSE of a step is the squared change of the picture where, once the part is there, the parts before "
                "it are seen: summed over these pixels and the three colours, and divided by the number of pixels. "
                "Beside it stands the same question asked of the segmentation, which the paper does not ask: the mean "
                "squared change of the other parts' masks at these pixels, scaled to 0–1. Faces are composed by the "
                f"fast path ({lab.arithmetic})."
            ),
            Text(
                "The paper does not say which range the picture has. In [−1, 1] the values have the order of magnitude "
                "of its Table 3 for the small parts; in 0–1 they are a quarter of that. The paper's columns are of "
                "10,000 samples of models trained on CelebAMask-HQ at 256 pixels, and do not say how they were "
                f"truncated; ours are of this checkpoint's faces at {lab.config.size} pixels."
            ),
            Table(columns, tuple(rows), caption),
            *rarity_note(lab.parts, shares, "Their SMSE near 0 says only that nothing was added."),
            lab.save(charts.part_boxes(smse, lab.parts, "SMSE", footer), "smse.png", "SMSE per added part", footer),
        ),
        numbers,
    )


def _row(label: str, part: str, smse: np.ndarray, masks: np.ndarray) -> tuple[str, ...]:
    ours = (f"{values.mean():.4f} ± {values.std():.4f}" if values.size else "–" for values in (smse, smse / 4))
    theirs = (printed(table, part) for table in (TABLE_3_MEMORYGAN, TABLE_3_SEMANTICSTYLEGAN))
    return (label, *ours, *theirs, f"{masks.mean():.5f}" if masks.size else "–")


STUDY = Study(
    "composition",
    "Sequential composition",
    "Figures 9 and 10, Table 3",
    run,
    samples=2000,
    paper_samples=10_000,
    version=3,
)
