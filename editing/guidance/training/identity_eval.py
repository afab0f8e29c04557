"""How far a judge of identity agrees with the teacher on faces that were never trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from editing.guidance.face_net import RECOGNITION_FRAME, inner_face
from editing.guidance.training.faces import to_float
from editing.guidance.training.taught import NOBODY, PERHAPS_SAME, SAME_PERSON, TaughtFaces
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
    child, taught, found = _parent_pairs(embed, made, photos, size)
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


def _parent_pairs(
    embed: Embed, made: TaughtFaces, photos: Sequence[TaughtFaces], size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) which face was made of a photo, and the pair's cosines by the teacher and by the judge."""
    offsets = np.cumsum([0, *(len(s) for s in photos)])
    child, column = np.nonzero(made.parents != NOBODY)
    shown, place = np.unique(made.parents[child, column], return_inverse=True)
    which = np.searchsorted(offsets, shown, side="right") - 1
    pictures = np.stack([photos[k].pictures[i - offsets[k]] for k, i in zip(which, shown, strict=True)])
    codes = np.stack([photos[k].codes[i - offsets[k]] for k, i in zip(which, shown, strict=True)])
    taught = (made.codes[child] * codes[place]).sum(1)
    found = (embed_all(embed, made.pictures, size)[child] * embed_all(embed, pictures, size)[place]).sum(1)
    return child, taught, found


def limits(
    embed: Embed, photos: Sequence[TaughtFaces], held: Sequence[TaughtFaces], size: int
) -> dict[str, dict[str, float]]:
    """What to say from which cosine on, see :mod:`editing.guidance.likeness`.

    Args:
        embed: (B, 3, H, W) in [−1, 1] → unit vectors.
        photos: in the order in which ``parents`` counts, photos of real people among them.
        held: what was made of held-out ones.
        size: of the pictures in pixels.

    Returns:
        cosine → of the faces made of photos that reach it, the share that the teacher takes for the same person (above
        :data:`PERHAPS_SAME`); of those that the teacher takes for the same person, the share that reach it; and the
        share of strangers that do, held-out photos of real people below that.
    """
    pairs = [_parent_pairs(embed, made, photos, size)[1:] for made in held]
    taught, found = (np.concatenate(column) for column in zip(*pairs, strict=True))
    strange = []
    for faces in photos:
        if faces.real:
            kept = np.flatnonzero(faces.held)
            vectors = embed_all(embed, faces.pictures[kept], size)
            others = np.triu(faces.codes[kept] @ faces.codes[kept].T < PERHAPS_SAME, 1)
            strange.append((vectors @ vectors.T)[others])
    strangers = np.concatenate(strange)
    same = taught > PERHAPS_SAME
    return {
        f"from {limit:.2f}": {
            "teacher agrees": _share(same[found >= limit]),
            "of those it takes for the same": _share(found[same] >= limit),
            "strangers": _share(strangers >= limit),
        }
        for limit in np.arange(0.3, 0.75, 0.05)
    }


def _share(true: np.ndarray) -> float:
    return float(true.mean()) if true.size else float("nan")


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
    """The measurements as Markdown; persons at every size, the others at the first.

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
    found = limits(embed, photos, held, sizes[0]) if held and columns else {}
    return "\n\n".join(format_table(table) for table in (columns, ways, found) if table)
