"""Whether a reconstruction is the same person, as a recogniser sees it (identity loss, Richardson et al. 2021)."""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.training.alignment import align
from memorygan.training.teacher import LANDMARKS, SIZE, load_teacher

# Of faces framed as in FFHQ, in shares of the side: eyes, tip of the nose, corners of the mouth. Framing goes by the
# eyes and the mouth, so that they stray by 1 to 2 % of the side.
FRAMED = ((0.377, 0.470), (0.623, 0.470), (0.500, 0.620), (0.388, 0.732), (0.612, 0.732))


class Likeness:
    """1 − cosine between what a recogniser says of reconstructions and of their photos.

    Args:
        teacher: its weights, see :mod:`memorygan.training.teacher`.
        device, dtype: of its arithmetic.

    Raises:
        OSError, ValueError: see :func:`memorygan.training.teacher.load_teacher`.
    """

    def __init__(self, teacher: str | os.PathLike[str], device: torch.device, dtype: torch.dtype) -> None:
        self.teacher, self.dtype = load_teacher(teacher, device).to(dtype), dtype

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Mean over B faces (B, 3, S, S) in [−1, 1], framed as in FFHQ."""
        with torch.no_grad():
            wanted = self._codes(target)
        return 1.0 - (self._codes(image) * wanted).sum(dim=1).mean()

    def _codes(self, image: Tensor) -> Tensor:
        """(B, 128) unit vectors."""
        marks = image.new_tensor(FRAMED, dtype=torch.float32).expand(len(image), -1, -1)
        aligned = align(image.float() / 2 + 0.5, marks, LANDMARKS, SIZE)
        return F.normalize(self.teacher(aligned.to(self.dtype)).float(), dim=1)
