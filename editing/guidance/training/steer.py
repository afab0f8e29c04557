"""Follow the image-text judge and see, without it, whether what was asked for happens.

    python -m editing.guidance.training.steer --generator weights/faces-128.safetensors

Two ways, both measured by :mod:`editing.guidance.attributes`: the latent codes of generated faces, and bare pixels,
which show whether the judge can be satisfied by patterns that nobody sees. A face that came apart has no hair to be
blond: it counts as broken, whatever a measure says of its remains. Look at the sheet before believing a figure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from editing.guidance.measures import DIRECTIONS, measure
from editing.guidance.training.augment import place
from editing.guidance.training.text import DEFAULT_OUT, NAME, create_judge
from editing.guidance.training.text_eval import normalise
from memorygan.checkpoint import load_generator
from memorygan.command import add_threads, command
from memorygan.generator import ComposedGenerator
from memorygan.parts import FACE_PARTS

# Prompt, and which of DIRECTIONS it asks for.
WISHES: tuple[tuple[str, str], ...] = (
    ("a person with blond hair", "blond hair"),
    ("a person with black hair", "black hair"),
    ("a person with red hair", "red hair"),
    ("a person with gray hair", "gray hair"),
    ("a smiling person", "smile"),
    ("a person with red lipstick", "lipstick"),
    ("a man with a beard", "beard"),
    ("a person with a big nose", "big nose"),
    ("a person with thick eyebrows", "thick brows"),
    ("a person with blue eyes", "blue eyes"),
    ("a person wearing glasses", "glasses"),
    ("a person with bangs", "bangs"),
    ("a person with long hair", "long hair"),
    ("a person with pale skin", "pale skin"),
)
# Shapes belong to the part ids, which pixels alone do not move.
_SHAPES = ("smile.strength", "nose.size", "brows.thickness", "glasses.area", "hair.bangs", "hair.length")


@dataclass(frozen=True)
class Outcome:
    """What came of one wish.

    Attributes:
        moved: how many faces moved in the direction asked for and stayed faces.
        whole: how many stayed faces and could be measured before and after.
        change: mean change of the measure over those, positive in the direction asked for.
    """

    moved: int
    whole: int
    change: float


def steer_latents(
    judge: Any, generator: ComposedGenerator, prompt: str, seeds: Sequence[int], steps: int = 30, reach: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Moves latent codes towards a prompt: images (B, S, S, 3) uint8 and part ids (B, S, S), last step.

    No code leaves its start by more than ``reach``.
    """
    with torch.no_grad():
        start = generator.sample(seeds, 0.7)
    w = start.w.clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr=0.02)
    target, dice = _target(judge, prompt), torch.Generator().manual_seed(0)
    for _ in range(steps):
        image = generator.synthesize(start.with_w(w)).image
        loss = _distance(judge, (image + 1) / 2, target, dice)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            w.copy_(torch.clamp(w, start.w - reach, start.w + reach))
    with torch.no_grad():
        face = generator.synthesize(start.with_w(w))
    return _pictures((face.image + 1) / 2), face.part_map.to(torch.uint8).numpy()


def steer_pixels(judge: Any, images: Tensor, prompt: str, steps: int = 60) -> np.ndarray:
    """Moves pixels (B, 3, S, S) in [0, 1], slightly blurred, towards a prompt: (B, S, S, 3) uint8."""
    change = torch.zeros_like(images, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=0.01)
    target, dice = _target(judge, prompt), torch.Generator().manual_seed(0)

    def picture() -> Tensor:
        return (images + F.avg_pool2d(F.pad(change, (2, 2, 2, 2), mode="replicate"), 5, 1)).clamp(0, 1)

    for _ in range(steps):
        loss = _distance(judge, picture(), target, dice) + 5 * change.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _pictures(picture().detach())


def _target(judge: Any, prompt: str) -> Tensor:
    with torch.no_grad():
        said: Tensor = judge.encode_text(open_clip.get_tokenizer(NAME)([prompt]), normalize=True)
    return said


def _distance(judge: Any, images: Tensor, target: Tensor, dice: torch.Generator, views: int = 2) -> Tensor:
    """Mean of 1 - cosine over slightly moved and noisy views."""
    size = judge.visual.image_size
    large = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    batch = torch.cat([place(large, size, dice, shift=0.04, zoom=(0.92, 1.1), tilt=4) for _ in range(views)])
    batch = batch + 0.03 * torch.randn(batch.shape, generator=dice)
    return 1 - (judge.encode_image(normalise(batch), normalize=True) * target).sum(dim=1).mean()


def _pictures(images: Tensor) -> np.ndarray:
    return images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def outcome(wish: str, before: Sequence[Any], after: Sequence[Any], whole: Sequence[bool]) -> Outcome:
    """Compares what :func:`measure` says of the faces before and after; only of those that are still ``whole``."""
    name, sign = DIRECTIONS[wish]
    pairs = [(a[name], b[name]) for a, b, face in zip(before, after, whole, strict=True) if face]
    changes = [sign * (b - a) for a, b in pairs if isinstance(a, float) and isinstance(b, float)]
    return Outcome(sum(c > 0 for c in changes), len(changes), float(np.mean(changes)) if changes else 0.0)


def still_faces(before: np.ndarray, after: np.ndarray) -> list[bool]:
    """Part ids (B, S, S) twice: whether each face keeps four fifths of its pixels, and eyes, nose and mouth at all."""
    needed = [FACE_PARTS.index(name) for name in ("skin", "eyes", "nose", "mouth")]
    return [
        bool((a == b).mean() > 0.8 and all((b == part).sum() > 0.4 * (a == part).sum() for part in needed))
        for a, b in zip(before, after, strict=True)
    ]


def _measured(pictures: np.ndarray, ids: np.ndarray) -> list[Any]:
    return [measure(picture, parts) for picture, parts in zip(pictures, ids, strict=True)]


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m editing.guidance.training.steer", description="Follow the image-text judge and measure."
    )
    parser.add_argument("--generator", type=Path, required=True, help="checkpoint whose faces are edited")
    parser.add_argument("--judge", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--faces", type=int, default=4)
    parser.add_argument("--sheet", type=Path, help="picture to write: a row per wish; before, latents, pixels")
    add_threads(parser)
    options = parser.parse_args(arguments)
    judge = create_judge(str(options.judge)).eval().requires_grad_(False)
    generator = load_generator(options.generator).generator.requires_grad_(False)
    seeds = range(100, 100 + options.faces)
    with torch.no_grad():
        plain = generator.synthesize(generator.sample(seeds, 0.7))
    ids, images = plain.part_map.to(torch.uint8).numpy(), (plain.image.clamp(-1, 1) + 1) / 2
    before = _measured(_pictures(images), ids)
    rows = []
    print("| prompt | measure | latent codes | mean change | pixels | mean change |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for prompt, wish in WISHES:
        edited, parts = steer_latents(judge, generator, prompt, seeds)
        painted = steer_pixels(judge, images, prompt)
        by_latents = outcome(wish, before, _measured(edited, parts), still_faces(ids, parts))
        name, sign = DIRECTIONS[wish]
        direction = "up" if sign > 0 else "down"
        cells = [
            prompt,
            f"{name} {direction}",
            f"{by_latents.moved} of {options.faces}, {by_latents.whole} whole",
            f"{by_latents.change:+.3g}",
        ]
        if name in _SHAPES:
            cells += ["", ""]
        else:
            by_pixels = outcome(wish, before, _measured(painted, ids), [True] * len(ids))
            cells += [f"{by_pixels.moved} of {by_pixels.whole}", f"{by_pixels.change:+.3g}"]
        print("| " + " | ".join(cells) + " |", flush=True)
        rows.append(np.concatenate([*_pictures(images), *edited, *painted], axis=1))
    if options.sheet:
        Image.fromarray(np.concatenate(rows)).save(options.sheet)


if __name__ == "__main__":
    sys.exit(main())
