"""How far a judge of identity agrees with the teacher on faces that were never trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from editing.guidance.face_net import RECOGNITION_FRAME, inner_face
from editing.guidance.training.faces import to_float
from editing.guidance.training.taught import NOBODY, SAME_PERSON, TaughtFaces
from memorygan.analysis.blocks import markdown_table

Embed = Callable[[Tensor], Tensor]
# How far off a cosine may be to count as agreeing.
NEAR = 0.08


def pixels(images: Tensor) -> Tensor:
    """What a network has to beat: the inner face's pixels, without their mean, as a unit vector."""
    x = inner_face(images, 32, RECOGNITION_FRAME)
    return F.normalize((x - x.mean(dim=(2, 3), keepdim=True)).flatten(1), dim=-1)


@torch.no_grad()
def embed_all(embed: Embed, pictures: np.ndarray, size: int) -> np.ndarray:
    """(N, S, S, 3) uint8 → (N, E); brought to ``size`` pixels first, as a generator of that size would draw them."""
    vectors = []
    for start in range(0, len(pictures), 64):
        images = to_float(pictures[start : start + 64])
        if size != images.shape[-1]:
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        vectors.append(embed(images * 2 - 1))
    return torch.cat(vectors).numpy()


def persons(embed: Embed, faces: TaughtFaces, size: int) -> dict[str, float]:
    """Tells another photo of the same person from photos of others, among the held-out pictures of real people.

    Nobody's name is known: the teacher says which pictures show one person (cosine above :data:`SAME_PERSON`); all
    other pairs count as different, also those in doubt. "area" is that under the ROC curve; 0.5 is guessing.
    """
    from sklearn.metrics import roc_auc_score  # slow to import, and only wanted here

    held = np.flatnonzero(faces.held)
    first, second = np.triu_indices(len(held), 1)
    vectors = embed_all(embed, faces.pictures[held], size)
    taught = (faces.codes[held] @ faces.codes[held].T)[first, second]
    found = (vectors @ vectors.T)[first, second]
    same = taught > SAME_PERSON
    if not same.any():
        raise ValueError(f"no two held-out pictures of {faces.name} show one person")
    off = np.abs(taught - found)
    result = {"pairs of one person": float(same.sum()), "area": float(roc_auc_score(same, found))}
    for name, where in (("same person", same), ("others", ~same)):
        result |= {
            f"{name}: teacher": float(taught[where].mean()),
            f"{name}: judge": float(found[where].mean()),
            f"{name}: spread": float(found[where].std()),
            f"{name}: off by": float(off[where].mean()),
            f"{name}: within {NEAR}": float((off[where] < NEAR).mean()),
        }
    return result


def against_parents(
    embed: Embed, made: TaughtFaces, photos: Sequence[TaughtFaces], size: int
) -> dict[str, dict[str, float]]:
    """What was made of photos, compared with the photo or the photos that it was made of.

    Args:
        embed: (B, 3, H, W) in [−1, 1] → unit vectors.
        made: distorted or rebuilt faces.
        photos: in the order in which ``parents`` counts.
        size: of the pictures in pixels.

    Returns:
        way of distortion → mean cosines, how far they are apart, and how many pairs there are.
    """
    offsets = np.cumsum([0, *(len(s) for s in photos)])
    child, column = np.nonzero(made.parents != NOBODY)
    shown, place = np.unique(made.parents[child, column], return_inverse=True)
    which = np.searchsorted(offsets, shown, side="right") - 1
    pictures = np.stack([photos[k].pictures[i - offsets[k]] for k, i in zip(which, shown, strict=True)])
    codes = np.stack([photos[k].codes[i - offsets[k]] for k, i in zip(which, shown, strict=True)])
    taught = (made.codes[child] * codes[place]).sum(1)
    found = (embed_all(embed, made.pictures, size)[child] * embed_all(embed, pictures, size)[place]).sum(1)
    off = np.abs(taught - found)
    table = {}
    for way in dict.fromkeys(made.names.tolist()):
        where = made.names[child] == way
        table[way] = {
            "teacher": float(taught[where].mean()),
            "judge": float(found[where].mean()),
            "off by": float(off[where].mean()),
            f"within {NEAR}": float((off[where] < NEAR).mean()),
            "pairs": float(where.sum()),
        }
    return table


def format_table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table: one row per figure, one column per judge or way."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = []
    for name in names:
        values = [column.get(name) for column in columns.values()]
        # Cosines and areas are at most 1; what is larger is a count.
        rows.append([name, *("" if v is None else f"{v:.0f}" if v >= 2 else f"{v:.3f}" for v in values)])
    return markdown_table(["", *columns], rows)


def report(embed: Embed, photos: Sequence[TaughtFaces], held: Sequence[TaughtFaces], sizes: Sequence[int]) -> str:
    """Both measurements as Markdown; persons at every size, parents at the first.

    Args:
        embed: the judge.
        photos: all photos.
        held: what was made of held-out ones.
        sizes: of the pictures, in pixels.
    """
    columns: dict[str, dict[str, float]] = {}
    for faces in photos:
        if faces.real:
            columns |= {f"{faces.name}, {size} px": persons(embed, faces, size) for size in sizes}
            columns[f"{faces.name}, pixels"] = persons(pixels, faces, sizes[0])
    parents: dict[str, dict[str, float]] = {}
    for made in held:
        parents |= against_parents(embed, made, photos, sizes[0])
    ways = {title: {way: row[title] for way, row in parents.items()} for title in next(iter(parents.values()), {})}
    return "\n\n".join(format_table(table) for table in (columns, ways) if table)
