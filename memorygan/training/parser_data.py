"""Faces and part masks for the face parser: packed once, drawn at random, augmented in batches.

A data folder holds ``images/NAME.{webp,png,jpg,jpeg}`` and ``masks/NAME.png`` (one channel, part ids of
:data:`memorygan.parts.FACE_PARTS`). The pairs are packed into two uint8 arrays on disk, so that a training step reads
from the page cache and decodes nothing.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from memorygan.parts import FACE_PARTS
from memorygan.picture import from_uint8
from memorygan.training.parser_composites import IGNORE, dress

IMAGE_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")
# How far a training face may stray: the ends of uniform ranges.
ROTATION = 45.0  # degrees to either side
ZOOM = 1.35  # factor either way
SHIFT = 0.1  # share of the image to either side
CAST = 0.4  # relative gain per colour channel, and half of it as offset
GAMMA = 2.2  # exponent either way


Faces = TypeVar("Faces", bound="HeldOut")


@dataclass(frozen=True)
class HeldOut:
    """N faces as arrays of N rows, of which the last can be held out.

    Attributes:
        name: of the set.
        images: (N, S, S, 3) uint8 RGB.
    """

    name: str
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def split(self: Faces, hold_out: int) -> tuple[Faces, Faces]:
        """All but the last ``hold_out`` faces, and those.

        Raises:
            ValueError: if nothing would be left to train on.
        """
        if not 0 <= hold_out < len(self):
            raise ValueError(f"cannot hold out {hold_out} of {len(self)} faces in {self.name!r}; hold out fewer")
        cut = len(self) - hold_out
        return self._rows(slice(0, cut)), self._rows(slice(cut, None))

    def _rows(self: Faces, rows: slice) -> Faces:
        arrays: dict[str, Any] = {
            name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, **arrays)


@dataclass(frozen=True)
class PackedFaces(HeldOut):
    """Faces and masks of one folder as memory-mapped arrays.

    Attributes:
        name: name of the folder.
        images: (N, S, S, 3) uint8 RGB.
        masks: (N, S, S) uint8 part ids.
        presence: (N, K) share of the pixels that each part covers, in [0, 1].
    """

    masks: np.ndarray
    presence: np.ndarray


def list_images(folder: Path) -> list[Path]:
    """Images of a data folder in order of name."""
    return [path for path in sorted((folder / "images").glob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]


def list_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(image, mask) paths of a data folder in order of name.

    Raises:
        ValueError: if the folder holds no image with a mask of the same name.
    """
    pairs = []
    for image in list_images(folder):
        mask = folder / "masks" / f"{image.stem}.png"
        if mask.is_file():
            pairs.append((image, mask))
    if not pairs:
        raise ValueError(f"no faces in {folder}: expected images/NAME.webp (or png, jpg) beside masks/NAME.png")
    return pairs


def read_pair(image: Path, mask: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One face (size, size, 3) uint8 RGB and its mask (size, size) uint8.

    Raises:
        ValueError: if the mask holds an id outside the part scheme.
    """
    face = read_face(image, size)
    with Image.open(mask) as opened:
        ids = opened if opened.mode in ("L", "P") else opened.convert("L")
        ids = ids.resize((size, size), Image.Resampling.NEAREST)
    array = np.array(ids, dtype=np.uint8)
    known = array[array != IGNORE]
    if len(known) and known.max() >= len(FACE_PARTS):
        raise ValueError(
            f"{mask} holds part id {known.max()}; expected 0 to {len(FACE_PARTS) - 1}, or {IGNORE} for pixels to ignore"
        )
    return face, array


def read_face(path: Path, size: int) -> np.ndarray:
    """One face (size, size, 3) uint8 RGB."""
    with Image.open(path) as opened:
        face = opened.convert("RGB")
    if face.size != (size, size):
        face = face.resize((size, size), Image.Resampling.LANCZOS)
    return np.array(face, dtype=np.uint8)


def pack(folder: Path, cache: Path, size: int = 256) -> PackedFaces:
    """Pack a data folder into ``cache`` (reused when the file list is unchanged) and open it memory-mapped.

    Raises:
        ValueError: see :func:`list_pairs` and :func:`read_pair`.
    """
    pairs = list_pairs(folder)
    listing = "\n".join([str(folder.resolve()), str(size), *(image.name for image, _ in pairs)])
    stem = f"{folder.name}-{size}-{hashlib.sha256(listing.encode()).hexdigest()[:12]}"
    files = {kind: cache / f"{stem}-{kind}.npy" for kind in ("images", "masks", "presence")}
    if not all(file.is_file() for file in files.values()):
        cache.mkdir(parents=True, exist_ok=True)
        _write_pack(pairs, files, size)
    images, masks = (np.load(files[kind], mmap_mode="r") for kind in ("images", "masks"))
    return PackedFaces(folder.name, images, masks, np.load(files["presence"]))


def _write_pack(pairs: list[tuple[Path, Path]], files: dict[str, Path], size: int) -> None:
    count = len(pairs)
    temporary = {kind: file.with_suffix(".part") for kind, file in files.items()}
    images = np.lib.format.open_memmap(temporary["images"], "w+", np.uint8, (count, size, size, 3))
    masks = np.lib.format.open_memmap(temporary["masks"], "w+", np.uint8, (count, size, size))
    presence = np.zeros((count, len(FACE_PARTS)), np.float32)

    def store(index: int) -> None:
        images[index], masks[index] = read_pair(*pairs[index], size)
        presence[index] = np.bincount(masks[index].ravel(), minlength=256)[: len(FACE_PARTS)] / size**2

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(store, range(count)))
    images.flush()
    masks.flush()
    with temporary["presence"].open("wb") as stream:
        np.save(stream, presence)
    # Renamed last: an interrupted pack is never mistaken for a complete one.
    for kind, file in files.items():
        temporary[kind].replace(file)


class FaceSampler:
    """Draws random augmented batches; everything random comes from one generator, so a stored state replays it.

    Attributes:
        stray: share of :data:`ROTATION`, :data:`ZOOM` and :data:`SHIFT` by which faces are moved.
        cell: pixels along a side that share a label.
    """

    stray = 1.0
    cell = 2

    def __init__(
        self,
        faces: list[PackedFaces],
        shares: list[float],
        size: int,
        generator: torch.Generator,
    ) -> None:
        """Prepare to draw.

        Args:
            faces: training faces of each folder.
            shares: share of every batch that comes from each folder.
            size: side of the images drawn, in pixels; masks are drawn at half of it.
            generator: source of all randomness.

        Raises:
            ValueError: if there is not one positive share per folder.
        """
        if len(faces) != len(shares) or min(shares, default=0) <= 0:
            raise ValueError(f"need one positive share per data folder, got {shares} for {len(faces)} folders")
        self.faces, self.size, self.generator = faces, size, generator
        self.offsets = np.cumsum([0, *(len(f) for f in faces)])
        total = sum(shares)
        weights = [_rarity(f.presence) for f in faces]
        self.weights = torch.cat(
            [torch.from_numpy(w / w.sum() * s / total) for w, s in zip(weights, shares, strict=True)]
        )

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """Images (batch, 3, size, size) float in [-1, 1] and part ids (batch, size/2, size/2) int64, with IGNORE."""
        picks = torch.multinomial(self.weights, batch, replacement=True, generator=self.generator).tolist()
        images, masks = zip(*(self._face(pick) for pick in picks), strict=True)
        image = from_uint8(np.stack(images))
        mask = torch.from_numpy(np.stack(masks))
        image, mask = self._move(image, mask)
        return self._recolour(image), mask

    def _face(self, pick: int) -> tuple[np.ndarray, np.ndarray]:
        folder = int(np.searchsorted(self.offsets, pick, side="right")) - 1
        index = pick - int(self.offsets[folder])
        face = self.faces[folder].images[index], self.faces[folder].masks[index]
        seed = int(torch.randint(2**31, (1,), generator=self.generator))
        return dress(*face, np.random.default_rng(seed))

    def _uniform(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=self.generator) * (high - low) + low

    def _move(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Flip, rotate, scale and shift image and mask together."""
        batch = len(image)
        # Squared towards 0: most photos are nearly upright, and they must not pay for the tilted ones.
        tilt = self._uniform(batch)
        angle = torch.deg2rad(self.stray * ROTATION * tilt * tilt.abs())
        scale = torch.exp(self._uniform(batch) * self.stray * math.log(ZOOM))
        flip = torch.where(self._uniform(batch) < 0, -1.0, 1.0)
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        shift = self._uniform(2, batch) * 2 * self.stray * SHIFT
        theta = torch.stack([cos * flip, -sin, shift[0], sin * flip, cos, shift[1]], dim=1).view(batch, 2, 3)
        padding = ("zeros", "border", "reflection")[int(torch.randint(3, (1,), generator=self.generator))]

        grid = F.affine_grid(theta, [batch, 3, self.size, self.size], align_corners=False)
        image = F.grid_sample(image, grid, mode="bilinear", padding_mode=padding, align_corners=False)
        if padding == "zeros":  # label 0 outside is the background: right as it is
            image = image.clamp_(-1, 1)

        return image, self._labels(mask, theta, padding)

    def _labels(self, mask: Tensor, theta: Tensor, padding: str) -> Tensor:
        """(B, size/cell, size/cell) int64 ids of moved masks (B, S, S), padded as by grid_sample."""
        batch, side = len(mask), self.size // self.cell
        cells = F.affine_grid(theta, [batch, 1, side, side], align_corners=False)
        # One random point in each larger cell: in expectation the label is the share each part has of the
        # cell, so that enlarged scores put borders between pixels, and no one-hot map is ever built.
        if self.cell > 1:
            cells = cells + self._uniform(batch, side, side, 2) / side
        ids = F.grid_sample(mask[:, None].float(), cells, mode="nearest", padding_mode=padding, align_corners=False)
        return ids[:, 0].long()

    def _recolour(self, x: Tensor) -> Tensor:
        """Everything that changes the look of a photo and leaves its mask alone."""
        x = x.add(1).div_(2).clamp_(0, 1)

        def change(chance: float, effect: Callable[[Tensor], Tensor]) -> None:
            hit = torch.nonzero(self._uniform(len(x), low=0) < chance).flatten()
            if len(hit):
                x[hit] = effect(x[hit])

        change(0.1, lambda y: y.mean(dim=1, keepdim=True).expand_as(y))  # a grey photo
        change(0.5, self._cast)
        change(0.4, lambda y: y.pow(torch.exp(self._uniform(len(y), 1, 1, 1) * math.log(GAMMA))))
        change(0.15, lambda y: y * self._uniform(len(y), 1, 1, 1, low=0.1, high=0.6))  # underexposed
        change(0.25, lambda y: (y * self._light(len(y))).clamp_(0, 1))
        change(0.25, self._blur)
        change(0.15, lambda y: jpeg_blocks(y, self._uniform(len(y), 1, 1, 1, low=0.01, high=0.06)))
        change(0.2, self._noise)
        # What a file can hold.
        return x.clamp_(0, 1).mul_(255).round_().div_(127.5).sub_(1)

    def _cast(self, x: Tensor) -> Tensor:
        gain = 1 + CAST * self._uniform(len(x), 3, 1, 1)
        offset = CAST / 2 * self._uniform(len(x), 3, 1, 1) * self._uniform(len(x), 1, 1, 1, low=0)
        return (x * gain + offset).clamp_(0, 1)

    def _blur(self, x: Tensor) -> Tensor:
        small = self.size // int(torch.randint(2, 6, (1,), generator=self.generator))
        lost = F.interpolate(x, size=(small, small), mode="area")
        return F.interpolate(lost, size=x.shape[-2:], mode="bilinear", align_corners=False)

    def _noise(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=self.generator)
        return x + noise * self._uniform(len(x), 1, 1, 1, low=0.01, high=0.07)

    def _light(self, batch: int) -> Tensor:
        """(batch, 1, size, size) gains of a light from one side, or of patches of shade, up to two stops either way."""
        cells = 2 if self._uniform(1) < 0 else 5
        stops = 2 * self._uniform(batch, 1, 1, 1, low=0) * self._uniform(batch, 1, cells, cells)
        return F.interpolate(stops, size=(self.size, self.size), mode="bicubic", align_corners=True).exp2()


def jpeg_blocks(x: Tensor, step: Tensor) -> Tensor:
    """Quantise 8×8 cosine coefficients of (B, 3, H, W), H and W multiples of 8, coarser for finer detail."""
    batch, channels, height, width = x.shape
    n = torch.arange(8.0)
    basis = torch.cos((2 * n[None] + 1) * n[:, None] * math.pi / 16) * math.sqrt(0.25)
    basis[0] *= math.sqrt(0.5)
    blocks = x.view(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coarse = step[..., None, None] * (1 + n[:, None] + n[None])
    coefficients = torch.round(basis @ blocks @ basis.T / coarse) * coarse
    return (basis.T @ coefficients @ basis).transpose(3, 4).reshape(x.shape)


def _rarity(presence: np.ndarray) -> np.ndarray:
    """(N,) drawing weight: faces that show a rarely shown part are drawn up to four times as often."""
    shown = presence > 0.0005
    share = np.maximum(shown.mean(axis=0), 1e-3)
    boost = np.clip(np.sqrt(0.5 / share), 1.0, 4.0)
    return np.where(shown, boost, 1.0).max(axis=1).astype(np.float64)
