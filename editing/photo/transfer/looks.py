"""The three pictures a transfer compares: the photo, and what the model shows before and after the edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from editing.photo.transfer.neighbours import without_neighbours
from editing.photo.transfer.planes import Box, fitted, total
from memorygan.matting import matted
from memorygan.parts import FACE_PARTS, PartScheme
from memorygan.soft_masks import along_photo

_FACE = ("skin", "eyes", "eyebrows", "mouth", "nose", "eyeglass")


@dataclass(frozen=True)
class Look:
    """What the model shows.

    Attributes:
        image: (S, S, 3) uint8 RGB; (h, w, 3) of a piece of a picture.
        parts: (S, S, K) float32, share of each part in a pixel, sums to 1.
    """

    image: np.ndarray
    parts: np.ndarray

    @cached_property
    def lab(self) -> np.ndarray:
        """(S, S, 3) float32 CIELAB."""
        return to_lab(self.image)

    @cached_property
    def part_map(self) -> np.ndarray:
        """(S, S) uint8: the part that takes most of each pixel."""
        return self.parts.argmax(axis=2).astype(np.uint8)

    def at(self, size: int) -> Look:
        """The same at another size."""
        if size == self.image.shape[0]:
            return self
        return Look(resized_image(self.image, size), resized(self.parts, size))

    def moved(self, shift: np.ndarray) -> Look:
        """With every pixel taken from elsewhere, see :class:`editing.photo.transfer.fields.Fields`."""
        flow = shift * self.image.shape[0]
        return Look(follow(self.image, flow), follow(self.parts, flow))

    def within(self, box: Box) -> Look:
        """What it shows in a box."""
        return Look(self.image[box], self.parts[box])


@dataclass(frozen=True)
class FramedPhoto:
    """The face of a photo, framed as the model's pictures are, with all that every edit of it needs.

    Attributes:
        pixels: (n, n, 3) uint8 RGB.
        parts: (n, n, K) float32, share of each part in a pixel; borders follow the photo's own edges.
        grain: standard deviation of L of the photo's noise.
        scheme: the parts.
    """

    pixels: np.ndarray
    parts: np.ndarray
    grain: float
    scheme: PartScheme = FACE_PARTS

    @classmethod
    def of(
        cls, pixels: np.ndarray, probabilities: np.ndarray, size: int, scheme: PartScheme = FACE_PARTS
    ) -> FramedPhoto:
        """Prepares a framed face.

        Args:
            pixels: (N, N, 3) uint8 RGB.
            probabilities: (s, s, K) float32 of a face parser, of any size.
            size: n of the fields.
        """
        grain = noise_level(pixels)
        small = resized_image(pixels, size)
        parts = matted(small, along_photo(small, probabilities))
        return cls(small, without_neighbours(parts, scheme), grain, scheme)

    @property
    def size(self) -> int:
        return int(self.pixels.shape[0])

    @cached_property
    def lab(self) -> np.ndarray:
        """(n, n, 3) float32 CIELAB."""
        return to_lab(self.pixels)

    @cached_property
    def facing(self) -> float:
        """How far the face is turned: its features' place between the middle of the face (0) and its sides (±0.5).

        Portraits that look into the camera have up to 0.1, and at 0.3 one cheek is all but hidden.
        """
        names, line = self.scheme.names, (np.arange(self.size) + 0.5) / self.size
        columns = self.parts.sum(axis=0)
        face = columns[:, [names.index(name) for name in _FACE]].sum(axis=1)
        if face.sum() < 1.0:
            return 0.0
        low, high = np.interp((0.05, 0.95), np.cumsum(face) / face.sum(), line)
        places = [
            float((columns[:, k] * line).sum() / columns[:, k].sum())
            for k in map(names.index, ("eyes", "nose", "mouth"))
            if columns[:, k].sum() >= 1.0
        ]
        if not places:
            return 0.0
        return (float(np.mean(places)) - (low + high) / 2.0) / max(high - low, 1e-3)

    @cached_property
    def mirrored(self) -> FramedPhoto:
        """As in a mirror, left and right exchanged."""
        return replace(self, pixels=np.ascontiguousarray(self.pixels[:, ::-1]), parts=self.parts[:, ::-1].copy())

    def moved(self, shift: np.ndarray) -> FramedPhoto:
        """With every pixel taken from elsewhere, see :class:`editing.photo.transfer.fields.Fields`."""
        flow = shift * self.size
        return replace(self, pixels=follow(self.pixels, flow), parts=follow(self.parts, flow))

    @cached_property
    def part_map(self) -> np.ndarray:
        """(n, n) uint8: the part that takes most of each pixel."""
        return self.parts.argmax(axis=2).astype(np.uint8)

    def share(self, parts: Sequence[int]) -> np.ndarray:
        """(n, n) float32: how much of a pixel some parts take."""
        return np.clip(total(self.parts, parts), 0.0, 1.0)


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB → float32 L (0–100), a, b."""
    return cv2.cvtColor(pixels.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)


def resized(planes: np.ndarray, size: int) -> np.ndarray:
    """(s, s) or (s, s, C) float32, smoothly."""
    if planes.shape[0] == size:
        return planes.copy()
    return fitted(planes, (size, size))


def resized_image(pixels: np.ndarray, size: int) -> np.ndarray:
    """(N, N, 3) uint8, antialiased when it gets smaller."""
    if pixels.shape[0] == size:
        return pixels
    smaller = size < pixels.shape[0]
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def noise_level(pixels: np.ndarray) -> float:
    """Standard deviation of the noise in L, from the median of the finest differences (Immerkær 1996, robust)."""
    light = to_lab(pixels)[..., 0]
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    return float(np.median(np.abs(cv2.filter2D(light, -1, kernel))) / 0.6745 / 6.0)


def follow(planes: np.ndarray, flow: np.ndarray, way: int = cv2.INTER_LINEAR) -> np.ndarray:
    """(h, w) or (h, w, C) planes(x + flow), flow (h, w, 2) in pixels; beyond the border the nearest pixel."""
    found: Any = cv2.remap(planes, flow, None, way | cv2.WARP_RELATIVE_MAP, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return found
