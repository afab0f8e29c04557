"""From an opened file to the numbers in it: channels, depth, opacity, the right way up, within a bounded memory."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image

from editing.errors import EditingError
from editing.photo.colour import CHANNELS, ColourSpace
from editing.photo.metadata import read_exif
from editing.photo.original import Original
from editing.photo.rows import MOST_PIXELS, LargeJpeg, library, upright

# What one decode may take.
MEMORY = 400 * 2**20
# Up to here a picture is unpacked at once; beyond it a JPEG is read row by row, and others come back smaller.
FULL_PIXELS = 50_200_000
# Bytes per pixel at the worst moment, as measured: Pillow's picture and ours, or what a decoder needs beside them.
_COST, _COSTS = 5.0, {"AVIF": 10.0, "HEIF": 8.0, "JPEG2000": 19.5, "TIFF": 8.0, "WEBP": 8.0}
# With more than 8 bits per channel: up to eight bytes, and as many again while the channels are sorted.
_DEEP_COST = 16.0
_STRIP = 256
_ROWS = 80 * 2**20  # what a few hundred rows take, being decoded and edited
# The largest values of what cameras and scanners put into 16 bits.
_WHITES = (1023, 4095, 65535)
# Tags of TIFF: bit 0 of the first says that this is a smaller copy, the second where others are, the third the version.
_SUBFILE, _SUB_IFDS, _DNG = 254, 330, 50706
_JPEG, _JPEG_STEPS = ("JPEG", "MPO"), [1, 2, 4, 8]


def reduction(image: Image.Image, data: bytes, side: int | None, limit: int) -> tuple[int, int]:
    """By which whole numbers an opened picture is made smaller.

    Args:
        image: opened, not loaded.
        data: its file.
        side: what suffices for its longer side now, or None for as much as is given back.
        limit: of pixels, where the format cannot be read smaller.

    Returns:
        As it is given back, 1 but for very large pictures; as it is read now, no less.

    Raises:
        EditingError: if it cannot be read within :data:`MEMORY`.
    """
    width, height = image.size
    pixels, deep = width * height, is_deep(image)
    wanted = 1 if side is None else max(1, max(width, height) // side)
    if str(image.format) in (*_JPEG, "JPEG2000"):
        steps = _JPEG_STEPS if str(image.format) in _JPEG else [2**level for level in range(_levels(data) + 1)]
        fitting = [step for step in steps if _bytes(image, step) <= MEMORY]
        given = [step for step in fitting if pixels <= FULL_PIXELS * step**2]
        if not given:
            raise EditingError(too_many(int(pixels * MEMORY / _bytes(image, 1))))
        read = max(given[0], *(step for step in fitting if step <= wanted), 1)
        if given[0] > 1 and streams(image):
            return 1, 1 if side is None else read
        return given[0], read
    most = int(MEMORY / (_DEEP_COST if deep else _COSTS.get(str(image.format), _COST)))
    if deep:
        most = min(most, FULL_PIXELS)
    if pixels > min(most, limit):
        raise EditingError(too_many(min(most, limit)))
    given_back = 1
    while pixels > FULL_PIXELS * given_back**2:
        given_back += 1
    return given_back, given_back


def streams(image: Image.Image) -> bool:
    """Whether an opened picture, too large to be unpacked at once, can be given back whole, see :mod:`.rows`."""
    pixels = image.size[0] * image.size[1]
    fits = str(image.format) in _JPEG and image.mode in ("L", "RGB") and FULL_PIXELS < pixels <= MOST_PIXELS
    if not fits:
        return False
    return pixels * _waiting(image) <= MEMORY - _ROWS and library() is not None


def _bytes(image: Image.Image, step: int) -> float:
    """Most that a decoder needs which makes a picture smaller by ``step`` while it reads."""
    pixels = image.size[0] * image.size[1]
    if str(image.format) == "JPEG2000":
        return _COSTS["JPEG2000"] * pixels / step**2
    return pixels * max(_waiting(image) + 4.0 / step**2, 8.0 / step**2)


def _waiting(image: Image.Image) -> float:
    """Bytes per pixel that a JPEG's decoder keeps until the last has come: two for each progressive coefficient."""
    if not image.info.get("progressive"):
        return 0.0
    layers: Any = getattr(image, "layer", ())
    most = max((layer[1] * layer[2] for layer in layers), default=1)
    return 2.0 * sum(layer[1] * layer[2] for layer in layers) / most


def _levels(data: bytes) -> int:
    """How often a JPEG 2000 can be halved while it is read, at most 5: the byte after nine of its COD segment."""
    at = data.find(b"\xff\x52")
    return min(5, data[at + 9]) if 0 <= at < len(data) - 9 else 0


def too_many(limit: int) -> str:
    """The refusal of more pixels than that."""
    words = f"{limit // 1_000_000} megapixels" if limit >= 1_000_000 else f"{limit} pixels"
    return f"the picture has too many pixels; choose one of at most {words}, or save it as JPEG first"


def unpack(image: Image.Image, data: bytes, given: int, read: int) -> Original:
    """The numbers of an opened picture, the right way up.

    Args:
        image: opened, not loaded.
        data: its file.
        given, read: see :func:`reduction`.

    Raises:
        EditingError, OSError and whatever else decoders of damaged files raise.
    """
    kind, deep = str(image.format), is_deep(image)
    if read == 1 and streams(image):
        if image.width * image.height * len(image.getbands()) > MEMORY:
            raise EditingError("the picture is too large to be unpacked at once; save it instead")
        whole = LargeJpeg.of(data)
        return Original(upright(whole.all(), whole.orientation), whole.space)
    if kind in _JPEG:
        image.draft("RGB", (image.width // read, image.height // read))
    elif kind == "JPEG2000" and read > 1:
        image.reduce = read.bit_length() - 1  # type: ignore[method-assign, assignment]
    profile = image.info.get("icc_profile")
    white = 255
    if (deep and image.mode in ("RGB", "RGBA")) or kind == "WEBP":
        # OpenCV turns a TIFF by itself, and nothing else if it is to change nothing.
        orientation = 1 if kind == "TIFF" else read_exif(image).get(ExifTags.Base.Orientation, 1)
        values, white = _by_opencv(data, image.size)
    else:
        image.load()
        # Of a PNG it may stand behind the pixels; Pillow turns a TIFF by itself, and forgets it.
        orientation = read_exif(image).get(ExifTags.Base.Orientation, 1)
        if deep and image.mode.startswith(("I", "F")):
            values, white = _grey_depth(np.asarray(image))
        else:
            values = _array(image, 1 if kind in (*_JPEG, "JPEG2000") else given)
    channels = values.shape[2]
    alpha = None
    if channels in (2, 4) and image.mode != "CMYK":
        values, alpha = values[..., :-1], values[..., -1]
        if alpha.min() == white:
            alpha = None
    mode = next(mode for mode, count in CHANNELS.items() if count == values.shape[2])
    turned = None if alpha is None else upright(alpha, orientation)
    return Original(upright(values, orientation), ColourSpace.of(mode, profile), white, turned)


def is_deep(image: Image.Image) -> bool:
    """Whether a channel has more than 8 bits. Pillow reads 16-bit colour as 8-bit without a word; its tiles tell."""
    if image.mode.startswith("I") or image.mode == "F":
        return True
    for tile in getattr(image, "tile", ()):
        for value in tile[3] if isinstance(tile[3], tuple) else (tile[3],):
            if isinstance(value, str) and re.search(";16[BLN]", value):
                return True
            if image.format == "PPM" and isinstance(value, int) and value > 255:
                return True
    return False


def is_raw(image: Image.Image, data: bytes) -> bool:
    """Whether a TIFF is a camera's raw file (DNG, CR2, NEF, ARW …), of which Pillow reads the small preview."""
    tags: Any = getattr(image, "tag_v2", {})
    preview = bool(tags.get(_SUBFILE, 0) & 1) and _SUB_IFDS in tags
    return str(image.format) == "TIFF" and (_DNG in tags or preview or data[8:10] == b"CR")


def _plain(image: Image.Image) -> Image.Image:
    """In a mode whose numbers are channels."""
    clear = "transparency" in image.info
    if clear and image.mode in ("1", "L"):
        return image.convert("LA")  # grey may have a profile of its own
    if (image.mode in ("L", "RGB", "CMYK") and not clear) or image.mode in ("LA", "RGBA"):
        return image
    if image.mode == "1" and not clear:
        return image.convert("L")
    return image.convert("RGBA" if clear or image.mode in ("PA", "RGBa", "La") else "RGB")


def _array(image: Image.Image, factor: int) -> np.ndarray:
    """(h, w, C) uint8, made smaller by a whole number; in strips, since Pillow makes copies of what it works on."""
    width, height = image.size
    values: np.ndarray | None = None
    for top in range(0, height, _STRIP * factor):
        strip = _plain(image.crop((0, top, width, min(height, top + _STRIP * factor)))).reduce(factor)
        if values is None:
            values = np.empty((-(-height // factor), strip.width, len(strip.getbands())), dtype=np.uint8)
        values[top // factor :][: strip.height] = np.asarray(strip).reshape(strip.height, strip.width, -1)
    if values is None:
        raise OSError("the picture has no rows")
    return values


def _by_opencv(data: bytes, size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """(h, w, C) uint8 or uint16 in the order of RGBA, and white; what Pillow reads in 8 bits, or in four copies."""
    values = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.shape[1::-1] != size or values.dtype not in (np.uint8, np.uint16):
        raise OSError("the picture could not be decoded")
    values = values.reshape(*values.shape[:2], -1)
    if values.shape[2] >= 3:
        code = cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB
        values = cv2.cvtColor(values, code, dst=values)
    if values.dtype == np.uint8:
        return values, 255
    colours = values[..., :3] if values.shape[2] == 4 else values
    white = _white(int(colours.max()))
    if values.shape[2] == 4 and white < 65535:
        # Opacity has a range of its own.
        clear = values[..., 3].astype(np.uint32)
        values[..., 3] = clear * white // _white(int(clear.max()))
    return values, white


def _white(most: int) -> int:
    """12 bits in a file of 16 are common, and black as they stand."""
    return next(white for white in _WHITES if most <= white)


def _grey_depth(values: np.ndarray) -> tuple[np.ndarray, int]:
    """(h, w) of 16 or 32 bits or float → (h, w, 1) uint16 and white, or 8 bits if the range is the picture's own."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    whole = values.dtype.kind in "iu" and low >= 0 and high <= 65535
    if whole and high > 255:
        return values.astype(np.uint16)[..., None], _white(int(high))
    if low >= 0 and high <= 255 and (whole or high > 1.0):
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 1.0:
        low, high = 0.0, 1.0
    scaled = (values.astype(np.float32) - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)[..., None], 255
