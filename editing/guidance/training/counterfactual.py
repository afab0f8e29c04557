"""Faces with something changed on purpose, so that what goes together among people is not taken for the same thing.

Gray hair is worn by the old, red hair by the pale: a judge that has seen only such faces answers to skin when it is
asked for hair. Dyed hair, drawn glasses, freckles and closed eyes, and moved sliders change one thing and leave the
person.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from editing.device.loading import SLIDERS_NAME
from editing.guidance.training.opinions import Opinion
from editing.sliders.directions import BASE, SliderSet
from memorygan.config import GeneratorConfig
from memorygan.latents import Latents
from memorygan.parts import FACE_PARTS
from memorygan.picture import from_uint8, to_uint8
from memorygan.training.dye import DRAWS, draw_colours, dye
from memorygan.training.parser_composites import closed_eyes, glasses

# Sliders moved per face, and how far, in units of the slider: beyond what a person would, as an optimiser may.
_SLIDERS, _FAR = 4, 4.5


@dataclass(frozen=True)
class Change:
    """One face with something changed.

    Attributes:
        image: (S, S, 3) uint8.
        ids: (S, S) uint8.
        silent: attributes of which opinions on the face before it say nothing any more.
        told: what is known of it by the change itself.
    """

    image: np.ndarray
    ids: np.ndarray
    silent: tuple[str, ...] = ()
    told: Opinion = field(default_factory=dict)


def change(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> Change:
    """A face with dyed hair, closed eyes, glasses or freckles, or as it was; masks that fit.

    Args:
        image: (S, S, 3) uint8.
        ids: (S, S) uint8 ids of :data:`memorygan.parts.FACE_PARTS`.
        rng: source of randomness.
    """
    kind = rng.choice(list(_KINDS), p=list(_KINDS.values()))
    if kind == "dyed hair":
        return Change(_dyed(image, ids, rng), ids, ("hair colour",))
    if kind == "freckles":
        # Every second face stays as it was: of the others nobody looked whether they have freckles.
        drawn = rng.random() < 0.5
        changed = freckles(image, ids, rng) if drawn else image
        return Change(changed, ids, (), {"freckles": (0.0, 1.0) if drawn else (1.0, 0.0)})
    changed, new_ids = (glasses if kind == "glasses" else closed_eyes)(image, ids, rng)
    if changed is image:
        return Change(image, ids)
    if kind == "glasses":
        return Change(changed, new_ids, ("glasses", "eyelids", "eye colour", "eye size"))
    return Change(changed, new_ids, ("eye colour", "eye size"), {"eyelids": (0.0, 1.0)})


# How often each is chosen.
_KINDS = {"dyed hair": 0.45, "closed eyes": 0.2, "glasses": 0.15, "freckles": 0.2}


def _dyed(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row = from_uint8(image[None])
    hair = torch.from_numpy(np.array(ids))[None] == FACE_PARTS.index("hair")
    colours = draw_colours(torch.from_numpy(rng.random((1, DRAWS), np.float32)))
    return np.asarray(to_uint8(dye(row, hair, colours))[0])


def freckles(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brown spots on nose and cheeks, fewer on forehead and chin: (S, S, 3) uint8; one part ids (S, S) fit both."""
    size, scale = len(ids), 4
    nose = np.argwhere(ids == FACE_PARTS.index("nose"))
    skin = np.isin(ids, [FACE_PARTS.index("skin"), FACE_PARTS.index("nose")])
    if len(nose) < 0.002 * size**2:
        return image
    row, column = nose.mean(axis=0)
    places = np.argwhere(skin)
    far = ((places[:, 0] - row) / (0.13 * size)) ** 2 + ((places[:, 1] - column) / (0.2 * size)) ** 2
    weight = np.exp(-0.7 * far) + 0.06
    count = min(int(rng.uniform(60, 300)), len(places))
    spots = Image.new("L", (size * scale, size * scale))
    pen = ImageDraw.Draw(spots)
    for y, x in places[rng.choice(len(places), count, replace=False, p=weight / weight.sum())]:
        radius = scale * size / 256 * rng.uniform(0.7, 2.0)
        cx, cy = (x + rng.random()) * scale, (y + rng.random()) * scale
        pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=int(rng.uniform(90, 255)))
    alpha = np.asarray(spots.resize((size, size), Image.Resampling.BOX), np.float32) / 255 * skin * rng.uniform(0.5, 1)
    brown = image * np.array([0.72, 0.56, 0.48], np.float32) * rng.uniform(0.85, 1.05)
    return np.clip(image * (1 - alpha[..., None]) + brown * alpha[..., None] + 0.5, 0, 255).astype(np.uint8)


def slide(latents: Latents, sliders: SliderSet, dice: torch.Generator) -> Latents:
    """Moves some sliders of every face (B, K, L, D), each as far as it goes and half as far again."""
    w = latents.w.clone()
    usable = [slider for slider in sliders if slider.part not in (BASE, "background")]
    for face in range(len(w)):
        for pick in torch.randint(len(usable), (_SLIDERS,), generator=dice).tolist():
            value = (2 * torch.rand((), generator=dice) - 1) * _FAR
            sliders.move(w[face : face + 1], usable[pick].id, value, latents.config)
    return latents.with_w(w)


def sliders_beside(checkpoint: Path, sha256: str, config: GeneratorConfig) -> SliderSet | None:
    """The sliders of a generator; None where it has none.

    Raises:
        EditingError: if those beside it are damaged, or of another generator.
    """
    path = checkpoint.parent / SLIDERS_NAME
    if not path.is_file():
        return None
    return SliderSet.load(path, sha256, config.parts, config.style_dim)
