"""Faces with measured attributes, for training and testing the judges; measured once, then read from a cache."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from editing.guidance.measures import MEASURES, measure
from editing.guidance.training.counterfactual import dyed, dyed_measures, slide, sliders_beside
from editing.guidance.words import WORDS, describe, lean
from memorygan.checkpoint import load_generator
from memorygan.picture import to_uint8
from memorygan.training.parser_data import HeldOut, list_pairs, pack

ATTRIBUTES = tuple(WORDS)
UNKNOWN = -1
_MEASURE_SIZE = 256


@dataclass(frozen=True)
class LabelledFaces(HeldOut):
    """Faces held in memory.

    Attributes:
        name: of the set.
        images: (N, S, S, 3) uint8 RGB.
        labels: (N, A) int64, index into ``WORDS[ATTRIBUTES[a]]``, or UNKNOWN.
        shares: (N, W) float32, how far a face leans to each word of each attribute, all in order; all 0 for an
            attribute of which nothing is known. None: as the labels say.
    """

    labels: np.ndarray
    shares: np.ndarray | None = None

    @property
    def leanings(self) -> np.ndarray:
        """(N, W) shares; those of the labels if there are no others."""
        if self.shares is not None:
            return self.shares
        return np.concatenate(
            [column[:, None] == np.arange(len(WORDS[a])) for a, column in zip(ATTRIBUTES, self.labels.T, strict=True)],
            axis=1,
        ).astype(np.float32)


def label(words: Mapping[str, str | None]) -> list[int]:
    """Words → indices in the order of ATTRIBUTES."""
    found = ((name, words.get(name)) for name in ATTRIBUTES)
    return [UNKNOWN if word is None else WORDS[name].index(word) for name, word in found]


def load_faces(folder: Path, cache: Path, size: int, dye_seed: int | None = None) -> LabelledFaces:
    """The faces of a data folder (see :mod:`memorygan.training.parser_data`) and what is measured of them.

    ``attributes.csv`` beside them, where there is one, adds ``p_man`` and ``p_happy`` by image name. With a
    ``dye_seed``, the same faces in the same order, with dyed hair.

    Raises:
        ValueError: for a folder without faces, or a broken mask.
    """
    small = pack(folder, cache, size)
    names = [image.stem for image, _ in list_pairs(folder)]

    def raw_measures() -> np.ndarray:
        large = pack(folder, cache, _MEASURE_SIZE)
        pairs = zip(large.images, large.masks, strict=True)
        return _measure_all(pairs, len(large), f"measuring {folder.name}")

    raw = _cached(cache / f"{folder.name}-{len(names)}-measures.npz", raw_measures)
    guesses = _guesses(folder / "attributes.csv")
    images, name = np.asarray(small.images), folder.name
    if dye_seed is not None:
        images, name = dyed(images, small.masks, dye_seed), f"{name}, dyed hair"
        file = cache / f"{folder.name}-{len(names)}-dyed-{dye_seed}-{size}.npz"
        raw = _cached(file, lambda: dyed_measures(raw, images, small.masks))
    return _labelled(name, images, raw, [guesses.get(stem, (None, None)) for stem in names])


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
    return _labelled(kind, resize(stored["images"], size), stored["raw"], [(None, None)] * len(stored["raw"]))


def mix_parts(w: Tensor, dice: torch.Generator, chance: float = 0.6) -> Tensor:
    """(B, K, L, D) codes of which each part but the background may be that of another face of the batch."""
    mixed = w.clone()
    for part in range(1, w.shape[1]):
        other = torch.randperm(len(w), generator=dice)
        mixed[:, part] = w[torch.where(torch.rand(len(w), generator=dice) < chance, other, torch.arange(len(w))), part]
    return mixed


def with_generated(
    sets: list[LabelledFaces], checkpoint: Path | None, count: int, cache: Path, size: int
) -> tuple[list[LabelledFaces], list[float]]:
    """The sets and, if there is a checkpoint, its faces; and the share of each set in a batch."""
    shares = [1.0] * len(sets)
    if checkpoint is None:
        return sets, shares
    return [*sets, generated_faces(checkpoint, count, cache, size)], [*shares, 0.35]


def _labelled(
    name: str, images: np.ndarray, raw: np.ndarray, guesses: Sequence[tuple[float | None, float | None]]
) -> LabelledFaces:
    """Puts measures and a classifier's guesses (p_man, p_happy) into words."""
    labels, shares = [], []
    for row, guess in zip(map(_named, raw), guesses, strict=True):
        labels.append(label(describe(row, *guess)))
        found = lean(row, *guess)
        shares.append(np.concatenate([found[a] or (0.0,) * len(WORDS[a]) for a in ATTRIBUTES]))
    return LabelledFaces(name, images, np.array(labels, dtype=np.int64), np.array(shares, dtype=np.float32))


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


def rarity(labels: np.ndarray, most: float = 5.0) -> np.ndarray:
    """(N,) drawing weights: faces with a rare word are drawn up to ``most`` times as often, so that it is learned."""
    weights = np.ones(len(labels))
    for column in labels.T:
        for word in range(column.max() + 1):
            share = max(float((column == word).mean()), 1e-4)
            weights[column == word] = np.maximum(weights[column == word], min(math.sqrt(0.1 / share), most))
    return weights


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


def _guesses(file: Path) -> dict[str, tuple[float, float]]:
    if not file.is_file():
        return {}
    with file.open(newline="") as stream:
        return {row["id"]: (float(row["p_man"]), float(row["p_happy"])) for row in csv.DictReader(stream)}
