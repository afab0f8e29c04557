"""Judges of identity: face recognition networks behind one function, with gradients to the picture."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing.guidance.face_net import inner_face
from memorygan.picture import from_uint8


class IdentityNet:
    """Pictures of faces → unit vectors that are near for the same person.

    Args:
        name, title: short name, and what a person calls it.
        model: (B, 3, s, s) in [−1, 1] → (B, E); taken over without gradients for its weights.
        image_size: s, side that the inner face is resized to; None for a network that frames pictures itself.
    """

    def __init__(self, name: str, title: str, model: nn.Module, image_size: int | None = None) -> None:
        self.name, self.title, self.image_size = name, title, image_size
        self._model = model.eval().requires_grad_(False)
        self._device = torch.device("cpu")

    def to(self, device: torch.device | str) -> IdentityNet:
        """Moves it, in place."""
        self._device = torch.device(device)
        self._model.to(self._device)
        return self

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [−1, 1] → (B, E) float32 unit vectors; gradients reach the pictures."""
        images = images.clamp(-1.0, 1.0)
        if self.image_size is not None:
            images = inner_face(images, self.image_size)
        return F.normalize(self._model(images).float(), dim=1)

    @torch.no_grad()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> float:
        """Cosine similarity in [−1, 1] of two (S, S, 3) uint8 faces, as :mod:`editing.photo.inversion` asks for it."""
        pair = from_uint8(np.stack([first, second]), self._device)
        one, other = self.embed(pair)
        return float(one @ other)
