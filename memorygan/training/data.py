"""Faces for training: a packed set decoded into memory, and the order in which they are shown."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from memorygan.training.facefiles import DECODE_ERRORS
from memorygan.training.packfile import DataError, PackHeader, PackReader
from memorygan.training.resample import resize_image, resize_mask
from memorygan.training.sampler import ResumableSampler

__all__ = ["DataError", "PackedDataset", "ResumableSampler", "mirror"]


class PackedDataset:
    """One split of a face set at one resolution, made by ``python -m memorygan.training.prepare``.

    Use :meth:`open`.

    Attributes:
        resolution: side of images and masks in pixels.
    """

    def __init__(self, reader: PackReader, resolution: int | None = None) -> None:
        self._reader = reader
        self.resolution = resolution or reader.header.plan.resolution

    @classmethod
    def open(cls, path: str | Path, verify: bool = True, resolution: int | None = None) -> PackedDataset:
        """Open a packed file; faces stay encoded until they are asked for.

        Args:
            path: a ``.pack`` file.
            verify: check the SHA-256 of the content first.
            resolution: side in pixels to which faces are reduced when they are decoded; None for the file's own.

        Raises:
            DataError: if the file is missing, truncated, damaged or not a packed face file, or its faces are smaller.
        """
        reader = PackReader(Path(path), verify=verify)
        if resolution is not None and resolution > reader.header.plan.resolution:
            raise DataError(
                f"the faces of {path} are {reader.header.plan.resolution} pixels wide, {resolution} are needed; "
                f"prepare them with --size {resolution}"
            )
        return cls(reader, resolution)

    def __len__(self) -> int:
        return len(self.header.names)

    @property
    def header(self) -> PackHeader:
        """Everything the file says about itself: source, names, class frequencies, SHA-256."""
        return self._reader.header

    @property
    def part_names(self) -> tuple[str, ...]:
        """Part names in the order of the mask ids."""
        return self.header.plan.parts

    def images(self, indices: Sequence[int] | None = None) -> Tensor:
        """Images (N, 3, H, W) uint8, 0–255, of the faces at ``indices``, or of all; decoded at every call.

        Raises:
            DataError: if a stored image cannot be decoded.
        """

        def decode(index: int) -> np.ndarray:
            return np.asarray(resize_image(self._decode(index, 0, "RGB"), self.resolution))

        return self._gather(decode, indices, 3).permute(0, 3, 1, 2).contiguous()

    def masks(self, indices: Sequence[int] | None = None) -> Tensor:
        """Masks (N, H, W) uint8 part ids, likewise.

        Raises:
            DataError: if a stored mask cannot be decoded.
        """

        def decode(index: int) -> np.ndarray:
            mask = np.asarray(self._decode(index, 1, "L"))
            if mask.max() >= len(self.part_names):
                raise DataError(
                    f"the mask of {self.header.names[index]} in {self._reader.path} holds an unknown part id"
                )
            return resize_mask(mask, self.resolution)

        return self._gather(decode, indices)

    def _gather(self, decode: Callable[[int], np.ndarray], indices: Sequence[int] | None, *channels: int) -> Tensor:
        indices = range(len(self)) if indices is None else indices
        out = np.empty((len(indices), self.resolution, self.resolution, *channels), dtype=np.uint8)

        def fill(row: int) -> None:
            out[row] = decode(indices[row])

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            list(pool.map(fill, range(len(indices))))
        return torch.from_numpy(out)

    def _decode(self, index: int, which: int, mode: str) -> Image.Image:
        what = f"face {self.header.names[index]} in {self._reader.path}"
        side = self.header.plan.resolution
        try:
            with Image.open(io.BytesIO(self._reader.read(index)[which]), formats=("WEBP", "PNG")) as picture:
                # Before decoding: a forged picture could unpack to any size.
                if picture.mode != mode or picture.size != (side, side):
                    raise DataError(f"{what} is {picture.mode} {picture.size}, expected {mode} {(side, side)}")
                picture.load()
                return picture
        except DECODE_ERRORS as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{what} cannot be decoded: {error}") from error


def mirror(images: Tensor, masks: Tensor, flips: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror the chosen faces left to right; parts need no relabelling, for left and right share an id.

    Args:
        images: (B, C, H, W), any type and device.
        masks: (B, H, W).
        flips: (B,) bool.

    Returns:
        Images and masks of the same shapes and types.
    """
    chosen = flips.to(device=images.device, dtype=torch.bool)
    flipped_images = torch.where(chosen[:, None, None, None], images.flip(-1), images)
    flipped_masks = torch.where(chosen[:, None, None], masks.flip(-1), masks)
    return flipped_images, flipped_masks
