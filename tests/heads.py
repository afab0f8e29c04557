"""Heads drawn by hand, as the photo and as the model's pictures, for the tests of the transfer."""

from __future__ import annotations

import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look
from memorygan.parts import FACE_PARTS

N, S = 128, 64
PARTS = len(FACE_PARTS)
HAIR, SKIN, MOUTH, NOSE, GLASSES = map(FACE_PARTS.index, ("hair", "skin", "mouth", "nose", "eyeglass"))
BROWS, CLOTH = FACE_PARTS.index("eyebrows"), FACE_PARTS.index("cloth")
WHOLE = np.array([[1 / N, 0, 0], [0, 1 / N, 0]])


def ids(size: int, mouth: tuple[float, float] = (0.12, 0.05), hair: float = 0.4) -> np.ndarray:
    """(size, size) a head: hair of some radius behind a face with a mouth."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    found = np.zeros((size, size), np.uint8)
    found[(np.hypot(x, y) < hair) & (y < 0.1)] = HAIR
    found[np.hypot(x, y) < 0.28] = SKIN
    found[(np.abs(x) < mouth[0]) & (np.abs(y - 0.14) < mouth[1])] = MOUTH
    return found


def one_hot(part_ids: np.ndarray) -> np.ndarray:
    return np.eye(PARTS, dtype=np.float32)[part_ids]


COLOURS = {0: (90, 120, 150), HAIR: (90, 60, 40), SKIN: (220, 170, 140), MOUTH: (170, 60, 60)}


def painted(part_ids: np.ndarray, colours: dict[int, tuple[int, int, int]] | None = None) -> np.ndarray:
    image = np.zeros((*part_ids.shape, 3), np.uint8)
    for part, colour in (COLOURS | (colours or {})).items():
        image[part_ids == part] = colour
    return image


def look(part_ids: np.ndarray, colours: dict[int, tuple[int, int, int]] | None = None) -> Look:
    return Look(painted(part_ids, colours), one_hot(part_ids))


def photo(size: int = N) -> tuple[np.ndarray, FramedPhoto]:
    """A picture of a head with grain, and what is prepared of it."""
    part_ids = ids(size)
    noise = np.random.default_rng(0).normal(0, 4, (size, size, 1))
    pixels = np.clip(painted(part_ids) + noise, 0, 255).astype(np.uint8)
    return pixels, FramedPhoto.of(pixels, one_hot(part_ids), size)
