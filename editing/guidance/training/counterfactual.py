"""Faces with something changed on purpose, so that what goes together among people is not taken for the same thing.

Gray hair is worn by the old, red hair by the pale: a judge that has seen only such faces answers to skin when it is
asked for hair. Dyed hair and moved sliders change one thing and leave the person.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from editing.device.loading import SLIDERS_NAME
from editing.guidance.measures import MEASURES, measure
from editing.sliders.directions import BASE, SliderSet
from memorygan.config import GeneratorConfig
from memorygan.latents import Latents
from memorygan.parts import FACE_PARTS
from memorygan.picture import from_uint8, to_uint8
from memorygan.training.dye import DRAWS, draw_colours, dye

_HAIR_COLOUR = ("lightness", "redness", "yellowness", "saturation", "hue")
_BATCH = 64
# Sliders moved per face, and how far, in units of the slider: beyond what a person would, as an optimiser may.
_SLIDERS, _FAR = 4, 4.5


def dyed(images: np.ndarray, masks: np.ndarray, seed: int) -> np.ndarray:
    """(N, S, S, 3) uint8 faces with hair of random natural colours.

    Args:
        images: (N, S, S, 3) uint8.
        masks: (N, S, S) uint8 ids of :data:`memorygan.parts.FACE_PARTS`.
        seed: of the colours.
    """
    dice, found = torch.Generator().manual_seed(seed), []
    for start in range(0, len(images), _BATCH):
        rows = from_uint8(images[start : start + _BATCH])
        hair = torch.from_numpy(np.array(masks[start : start + _BATCH])) == FACE_PARTS.index("hair")
        changed = dye(rows, hair, draw_colours(torch.rand(len(rows), DRAWS, generator=dice)))
        found.append(to_uint8(changed))
    return np.concatenate(found)


def dyed_measures(raw: np.ndarray, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N, M) measures of dyed faces: those of the hair's colour anew, all others as they were."""
    columns = [MEASURES.index(f"hair.{name}") for name in _HAIR_COLOUR]
    changed = raw.copy()
    for row, image, ids in zip(changed, tqdm(images, desc="measuring dyed hair", mininterval=5), masks, strict=True):
        found = measure(image, ids)
        for name, column in zip(_HAIR_COLOUR, columns, strict=True):
            value = found[f"hair.{name}"]
            row[column] = np.nan if value is None else value
    return changed


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
