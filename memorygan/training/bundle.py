"""``python -m memorygan.training.bundle``: makes a run's networks the bundled ones, with a gallery of good seeds."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from memorygan.analysis.agreement import agreement, confusion_matrix
from memorygan.analysis.diversity import pixel_vectors
from memorygan.analysis.readings import Reader
from memorygan.checkpoint import Provenance, load_generator, save_generator
from memorygan.command import command
from memorygan.encoder import load_encoder, save_encoder
from memorygan.generator import ComposedGenerator
from memorygan.manifest import WEIGHTS_DIR, update_manifest
from memorygan.training.rarity import PARTS

BATCH = 16
# Of everything that few wear, this many faces.
WEARERS = 2


@torch.no_grad()
def choose_gallery(
    generator: ComposedGenerator, reader: Reader, count: int = 24, candidates: int = 800, truncation: float = 0.7
) -> list[int]:
    """Seeds worth showing first: the parser agrees with their masks, little stirs behind them, and they differ.

    Of those who wear what few do (glasses, a hat, earrings), the best are among them.

    Args:
        generator: in evaluation mode.
        reader: the parser, see :class:`memorygan.analysis.readings.Reader`.
        count: how many seeds to choose.
        candidates: seeds 0 to ``candidates`` − 1 are looked at; the better half by the sum of both ranks may be chosen.
        truncation: as the editor samples.

    Raises:
        ValueError: if there are fewer than two candidates per wanted seed, or no parser.
    """
    if candidates < 2 * count:
        raise ValueError(f"{candidates} candidates are too few to choose {count} from; use at least {2 * count}")
    parts = generator.config.parts
    agreements, unrest, vectors = [], [], []
    wearing: dict[str, list[Tensor]] = {trait.part: [] for trait in PARTS if trait.part in parts.names}
    for first in tqdm(range(0, candidates, BATCH), desc="gallery"):
        face = generator.synthesize(generator.sample(range(first, min(first + BATCH, candidates)), truncation))
        found = reader.read(face.image, parts).ids
        if found is None:
            raise ValueError("the gallery is chosen by the bundled parser, but weights/parser.safetensors is missing")
        for own, other in zip(face.part_map.cpu(), found.cpu(), strict=True):
            confusion = confusion_matrix(own[None], other[None], len(parts))
            agreements.append(agreement(confusion, parts.names).mean())
        for trait in PARTS:
            if trait.part in wearing:
                both = (face.part_map == parts.index(trait.part)) & (found == parts.index(trait.part))
                wearing[trait.part].append(both.float().mean(dim=(1, 2)).cpu() >= trait.share)
        unrest.append(background_unrest(face.image, face.part_map == 0))
        vectors.append(pixel_vectors(face.image, 16))
    scores = _rank(torch.tensor(agreements)) + _rank(-torch.cat(unrest).cpu())
    worn: list[int] = []
    for shown in wearing.values():
        wearers = torch.cat(shown).nonzero().flatten().tolist()
        worn += sorted(set(wearers) - set(worn), key=lambda seed: -int(scores[seed]))[:WEARERS]
    return _spread(scores, torch.cat(vectors), count, worn[: count // 2])


def background_unrest(image: Tensor, background: Tensor) -> Tensor:
    """(B,) mean difference of neighbouring background pixels; 0 where no two are neighbours.

    Args:
        image: (B, 3, H, W).
        background: (B, H, W) bool.
    """
    total = image.new_zeros(len(image))
    pairs = image.new_zeros(len(image))
    for dim in (1, 2):
        length = background.shape[dim] - 1
        both = background.narrow(dim, 0, length) & background.narrow(dim, 1, length)
        step = image.narrow(dim + 1, 1, length) - image.narrow(dim + 1, 0, length)
        total += (step.abs().mean(dim=1) * both).sum(dim=(1, 2))
        pairs += both.sum(dim=(1, 2))
    return total / pairs.clamp_min(1)


def _rank(values: Tensor) -> Tensor:
    """(N,) place of every value in ascending order."""
    return values.argsort().argsort()


def _spread(scores: Tensor, vectors: Tensor, count: int, first: Sequence[int] = ()) -> list[int]:
    """Farthest-point choice among the better half, beginning with the best; those in ``first`` come right after it."""
    good = scores.argsort(descending=True)[: len(scores) // 2]
    chosen = [int(good[0])]
    chosen += [seed for seed in first if seed not in chosen]
    distance = torch.cdist(vectors[good], vectors[chosen]).amin(dim=1)
    while len(chosen) < count:
        chosen.append(int(good[distance.argmax()]))
        distance = torch.minimum(distance, torch.cdist(vectors[good], vectors[chosen[-1:]]).squeeze(1))
    return chosen


def bundle(run: Path, weights: Path, name: str, provenance: Provenance, title: str) -> None:
    """Writes generator, encoder and gallery of a run into the weights folder and its manifest.

    Args:
        run: folder with ``generator.safetensors`` and ``encoder.safetensors``.
        weights: the folder of bundled files.
        name: file name of the generator, without ending.
        provenance: images seen and recipe are taken from the run.
        title: the name a person sees.

    Raises:
        CheckpointError: if a file of the run is missing or damaged.
    """
    loaded = load_generator(run / "generator.safetensors")
    file = f"{name}.safetensors"
    origin = replace(
        loaded.provenance,
        data=provenance.data,
        licence=provenance.licence,
        command=provenance.command,
        date=datetime.date.today().isoformat(),
    )
    sha256 = save_generator(weights / file, loaded.generator, provenance=origin)
    save_encoder(weights / "encoder.safetensors", load_encoder(run / "encoder.safetensors"), loaded.images_seen)
    update_manifest(weights, file, title=title, licence=provenance.licence, default=True)
    update_manifest(weights, "encoder.safetensors", title="Part encoder", licence=provenance.licence)
    seeds = choose_gallery(loaded.generator, Reader.load())
    (weights / "gallery.json").write_text(json.dumps({"checkpoint": sha256, "seeds": seeds}) + "\n")


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m memorygan.training.bundle", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder with generator and encoder of a run")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIR)
    parser.add_argument("--name", required=True, help="file name of the generator, for example people-128")
    parser.add_argument("--title", required=True, help="the name a person sees")
    parser.add_argument("--data", action="append", required=True, help="a data set it was trained on; repeatable")
    parser.add_argument("--licence", required=True)
    parser.add_argument("--command", default="see docs/training.md", help="the command that trained it")
    options = parser.parse_args(arguments)
    origin = Provenance(data=tuple(options.data), licence=options.licence, command=options.command)
    bundle(options.run, options.weights, options.name, origin, options.title)
    print(f"bundled {options.name} in {options.weights}")


if __name__ == "__main__":
    sys.exit(main())
