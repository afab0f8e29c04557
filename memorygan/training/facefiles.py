"""Reading the image and mask files of a face set."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from memorygan.parts import PartScheme
from memorygan.training.packfile import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# What Pillow raises for broken files, depending on where they are broken.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class UnreadableFace(DataError):
    """A file of this face cannot be decoded: the face is listed and left out."""


class UnusableFace(DataError):
    """A face whose files contradict the data set: stops the preparation unless such faces are to be left out."""


def index_by_stem(folder: Path) -> dict[str, Path]:
    """Image files of a folder by name without suffix, in sorted order.

    Raises:
        DataError: if the folder is missing or two images share a stem.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise DataError(f"{folder} holds both {found[path.stem].name} and {path.name}: names must be unique")
            found[path.stem] = path
    return found


def read_mask(path: Path, parts: PartScheme) -> np.ndarray:
    """(H, W) uint8 part ids from a one-channel or palette picture.

    Raises:
        UnreadableFace: if the file cannot be decoded.
        UnusableFace: if it is not square, has several channels or an id the parts do not have.
    """
    picture = open_picture(path)
    if picture.mode not in ("L", "P"):
        raise UnusableFace(f"{path} is a picture of mode {picture.mode}, but a mask has one 8-bit channel of part ids")
    mask = np.asarray(picture)
    if mask.shape[0] != mask.shape[1]:
        raise UnusableFace(f"{path} is {mask.shape[1]}x{mask.shape[0]}, but masks are square")
    if mask.max() >= len(parts):
        raise UnusableFace(f"{path} holds part id {mask.max()}, but ids go from 0 to {len(parts) - 1}")
    return mask


def open_picture(path: Path) -> Image.Image:
    """A decoded picture of any mode.

    Raises:
        UnreadableFace: if the file cannot be decoded.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except DECODE_ERRORS as error:
        raise UnreadableFace(f"{path} cannot be decoded: {error}") from error
