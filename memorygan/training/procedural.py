"""Drawn faces with exact masks: a freely usable set for tests and first experiments.

Nobody is depicted, so the set and anything trained on it may be used and shared without restriction.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from memorygan.training.cartoon import DRAWING_VERSION, draw_face, roll_traits
from memorygan.training.packfile import DataError
from memorygan.training.sources import Source

_MIN_CANVAS, _MAX_CANVAS, _SUPERSAMPLING = 256, 1024, 4


class ProceduralSource(Source):
    """``count`` drawn faces as a source for :func:`memorygan.training.packing.prepare`.

    Args:
        count: number of faces, at least 1.
        seed: 0 to 2**32 - 1.
        size: resolution they are going to be sampled down to.

    Raises:
        DataError: for a count or seed out of range.
    """

    kind = "procedural"

    def __init__(self, count: int, seed: int = 0, size: int = 64) -> None:
        if count < 1:
            raise DataError(f"cannot draw {count} faces; ask for at least one")
        if not 0 <= seed < 2**32:
            raise DataError(f"the seed must lie between 0 and 2**32 - 1, got {seed}")
        self.description = f"drawn faces, version {DRAWING_VERSION}, seed {seed}"
        self._count = count
        self._seed = seed
        self._canvas = min(_MAX_CANVAS, max(_MIN_CANVAS, _SUPERSAMPLING * size))

    def names(self) -> list[str]:
        return [f"{index:06d}" for index in range(self._count)]

    def stamp(self, name: str) -> list[object]:
        return [DRAWING_VERSION]

    def load(self, name: str) -> tuple[Image.Image, np.ndarray]:
        """See :class:`memorygan.training.sources.Source`."""
        return draw_face(roll_traits(self._seed, int(name)), self._canvas)
