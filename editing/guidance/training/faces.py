"""Faces with measured attributes, for training and testing the judges; measured once, then read from a cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from editing.guidance.measures import MEASURES, measure
from editing.guidance.training.counterfactual import change, slide, sliders_beside
from editing.guidance.training.opinions import Opinion, merge, read_opinions
from editing.guidance.words import WORDS, lean
from memorygan.checkpoint import load_generator
from memorygan.picture import to_uint8
from memorygan.training.parser_data import HeldOut, PackedFaces, list_pairs, pack

ATTRIBUTES = tuple(WORDS)
UNKNOWN = -1
# Share from which a word is clear.
_CLEAR = 0.7
# Held out of every training: every twentieth number, or the last names of sets that were split before.
_EVERY, _REMAINDER = 20, 7
_LAST = {"celebamask": 200, "synthetic": 200}


@dataclass(frozen=True)
class LabelledFaces(HeldOut):
    """Faces held in memory.

    Attributes:
        name: of the set.
        images: (N, S, S, 3) uint8 RGB.
        labels: (N, A) int64, index into ``WORDS[ATTRIBUTES[a]]``, or UNKNOWN.
        leanings: (N, W) float32, how far a face leans to each word of each attribute, all in order; all 0 for an
            attribute of which nothing is known.
    """

    labels: np.ndarray
    leanings: np.ndarray


def held_out(name: str, stems: Sequence[str]) -> np.ndarray:
    """(N,) bool: the fixed validation split of a face set, by the names of its pictures in order.

    Every twentieth number, or the last names of sets that were split before; never trained on.
    """
    if last := _LAST.get(name, 0):
        return np.arange(len(stems)) >= len(stems) - last
    return np.array([stem.isdigit() and int(stem) % _EVERY == _REMAINDER for stem in stems])


@dataclass(frozen=True)
class Source:
    """A data folder: its faces, what is measured of them and what is told of them.

    Attributes:
        faces: packed pictures and masks.
        raw: (N, M) measures.
        told: an opinion per face.
        held: (N,) bool, held-out faces.
    """

    faces: PackedFaces
    raw: np.ndarray
    told: Sequence[Opinion]
    held: np.ndarray

    def labelled(self, told: Sequence[Opinion], held: bool) -> LabelledFaces:
        """One side of the split, with these opinions on all its faces."""
        rows = np.flatnonzero(self.held == held)
        return _labelled(self.faces.name, self.faces.images[rows], self.raw[rows], [told[row] for row in rows.tolist()])


def load_source(folder: Path, cache: Path, size: int) -> Source:
    """A data folder (see :mod:`memorygan.training.parser_data`), measured; with ``attributes.csv``, if it is there.

    Raises:
        ValueError: for a folder without faces, or a broken mask.
    """
    faces = pack(folder, cache, size)
    stems = [image.stem for image, _ in list_pairs(folder)]
    pairs = zip(faces.images, faces.masks, strict=True)
    file = cache / f"{folder.name}-{len(stems)}-{size}-measures.npz"
    raw = _cached(file, lambda: _measure_all(pairs, len(faces), f"measuring {folder.name}"))
    opinions = read_opinions(folder)
    return Source(faces, raw, [opinions.get(stem, {}) for stem in stems], held_out(folder.name, stems))


def changed_faces(
    sources: Sequence[Source], told: Sequence[Sequence[Opinion]], count: int, cache: Path, held: bool
) -> LabelledFaces:
    """Faces of the sources with something changed on purpose, see :func:`change`.

    Args:
        sources: they are drawn from, all alike.
        told: opinions on the faces of each source.
        count: of faces.
        cache: folder for what was drawn and measured.
        held: of held-out faces, or of those trained on.
    """
    rng = np.random.default_rng([0, held])
    pool = [np.flatnonzero(source.held == held) for source in sources]
    usable = [k for k, rows in enumerate(pool) if len(rows)]
    picks = [(k, int(rng.choice(pool[k]))) for k in rng.choice(usable, count)]
    changed = []
    for k, row in tqdm(picks, desc="changing faces", mininterval=10):
        changed.append(change(sources[k].faces.images[row], sources[k].faces.masks[row], rng))
    pairs = ((one.image, one.ids) for one in changed)
    size = sources[0].faces.images.shape[1]
    names = "-".join(f"{source.faces.name}{len(source.faces)}" for source in sources)
    file = cache / f"changed-{'held-' * held}{count}-{names}-{size}-0-measures.npz"
    raw = _cached(file, lambda: _measure_all(pairs, count, "measuring changed faces"))
    opinions = [
        {name: words for name, words in told[k][row].items() if name not in one.silent} | one.told
        for (k, row), one in zip(picks, changed, strict=True)
    ]
    return _labelled("changed", np.stack([one.image for one in changed]), raw, opinions)


def generated_faces(
    checkpoint: Path, count: int, cache: Path, size: int, truncation: float = 0.85, mixed: bool = False
) -> LabelledFaces:
    """Faces of a generator with their own masks; seeds far above those people try.

    Args:
        checkpoint: of the generator.
        count: of faces.
        cache: folder for what was drawn and measured.
        size: side of the pictures.
        truncation: psi in [0, 1].
        mixed: give faces parts of each other, so that what goes together among people no longer does: a mouth that
            smiles is then found with every hair; and move sliders, where there are any beside the checkpoint.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        EditingError: if the sliders beside it cannot be used.
    """
    loaded = load_generator(checkpoint)
    kind = "mixed" if mixed else "generated"
    sliders = sliders_beside(checkpoint, loaded.sha256, loaded.generator.config) if mixed else None
    made_with = loaded.sha256[:12] if sliders is None else f"{loaded.sha256[:12]}-{sliders.sha256[:12]}"
    file = cache / f"{kind}-{made_with}-{count}-{truncation}.npz"
    if not file.is_file():
        images, masks = [], []
        dice = torch.Generator().manual_seed(count) if mixed else None
        for start in tqdm(range(0, count, 16), desc=f"{kind} faces", mininterval=5):
            seeds = range((2 if mixed else 1) * 10**6 + start, (2 if mixed else 1) * 10**6 + min(start + 16, count))
            with torch.no_grad():
                latents = loaded.generator.sample(seeds, truncation)
                if dice is not None:
                    latents = latents.with_w(mix_parts(latents.w, dice))
                    latents = latents if sliders is None else slide(latents, sliders, dice)
                faces = loaded.generator.synthesize(latents)
            images.append(to_uint8(faces.image))
            masks.append(faces.part_map.to(torch.uint8).numpy())
        pictures, ids = np.concatenate(images), np.concatenate(masks)
        raw = _measure_all(zip(pictures, ids, strict=True), count, f"measuring {kind} faces")
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, images=pictures, raw=raw, names=np.array(MEASURES))
    stored = np.load(file)
    return _labelled(kind, resize(stored["images"], size), stored["raw"], [{}] * len(stored["raw"]))


def mix_parts(w: Tensor, dice: torch.Generator, chance: float = 0.6) -> Tensor:
    """(B, K, L, D) codes of which each part but the background may be that of another face of the batch."""
    mixed = w.clone()
    for part in range(1, w.shape[1]):
        other = torch.randperm(len(w), generator=dice)
        mixed[:, part] = w[torch.where(torch.rand(len(w), generator=dice) < chance, other, torch.arange(len(w))), part]
    return mixed


def _labelled(name: str, images: np.ndarray, raw: np.ndarray, told: Sequence[Opinion]) -> LabelledFaces:
    """Weighs measures and opinions, and puts into words what is clear."""
    labels, shares = [], []
    for row, opinion in zip(map(_named, raw), told, strict=True):
        found = merge(lean(row, opinion["person"][1] if "person" in opinion else None), opinion)
        labels.append([_clear(found[name]) for name in ATTRIBUTES])
        shares.append(np.concatenate([found[a] or (0.0,) * len(WORDS[a]) for a in ATTRIBUTES]))
    return LabelledFaces(name, images, np.array(labels, dtype=np.int64), np.array(shares, dtype=np.float32))


def _clear(shares: tuple[float, ...] | None) -> int:
    """The word that shares lean to, UNKNOWN where they do not say clearly."""
    return int(np.argmax(shares)) if shares and max(shares) >= _CLEAR else UNKNOWN


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W, 3) uint8 → (N, size, size, 3) uint8."""
    if images.shape[1:3] == (size, size):
        return images
    pieces = []
    for start in range(0, len(images), 64):
        x = torch.from_numpy(images[start : start + 64]).permute(0, 3, 1, 2).float()
        x = F.interpolate(x, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
        pieces.append(x.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(pieces)


def to_float(images: np.ndarray) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float32 in [0, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div_(255)


def _measure_all(pairs: object, count: int, title: str) -> np.ndarray:
    rows = np.full((count, len(MEASURES)), np.nan, np.float32)
    for row, (image, ids) in zip(rows, tqdm(pairs, total=count, desc=title, mininterval=5), strict=True):  # type: ignore[call-overload]
        found = measure(image, ids)
        row[:] = [math.nan if (value := found[name]) is None else float(value) for name in MEASURES]
    return rows


def _cached(file: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    if file.is_file():
        stored = np.load(file)
        if tuple(stored["names"]) == MEASURES:
            return np.asarray(stored["raw"])
    raw = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, raw=raw, names=np.array(MEASURES))
    return raw


def _named(row: np.ndarray) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else float(value) for name, value in zip(MEASURES, row, strict=True)}
