"""Guarded decoding of uploaded pictures: any file → a photo in sRGB, the right way up, or one clear sentence."""

from __future__ import annotations

import ctypes
import hashlib
import io
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from editing.errors import EditingError
from editing.photo.mending import filled_up, mended, turned_by
from editing.photo.metadata import Kept, kept_of
from editing.photo.original import Original
from editing.photo.rows import DAMAGED, MOST_PIXELS, LargeJpeg
from editing.photo.unpacking import is_deep, is_raw, reduction, streams, too_many, unpack

# What decoders that come with the program read without help of others; never EPS, PDF or the like.
FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "GIF", "BMP", "TIFF", "MPO", "JPEG2000", "PPM")
MIN_SIDE = 32
# Detection and alignment gain nothing from more.
WORKING_SIDE = 2048
# What is accepted: bytes of the file, and pixels where the format cannot be read at a fraction of its size (JPEG and
# JPEG 2000 can).
MAX_BYTES, MAX_PIXELS = 64 * 2**20, 80_000_000
_MOST_MISSING = 0.75
_COLOURS, _YCBCR, _PACKING, _JPEG = 262, 6, 259, (6, 7)  # of TIFF 6.0
_LAST = (2**8, 2**12, 2**16, 2**20)  # bytes


@dataclass(frozen=True)
class Photo:
    """A decoded upload.

    Attributes:
        pixels: (h, w, 3) uint8 sRGB, upright, at most 2048 pixels on its longer side: to look at and to find faces in.
        width, height: in pixels, of the upright picture as it can be given back. Whatever is said about places in a
            photo is said in these.
        notices: what was done to it, in plain sentences.
        data: the file.
        kept: what a saved copy takes over from the file.
        grey: the picture has no colours; edits are to give it none unless they ask for one.
        turns: right angles by which a person turned it anticlockwise.
        streamed: it is too large to be unpacked at once, and is edited row by row when it is saved.
    """

    pixels: np.ndarray
    width: int
    height: int
    notices: tuple[str, ...] = ()
    data: bytes = field(default=b"", repr=False)
    kept: Kept = field(default_factory=Kept)
    grey: bool = False
    turns: int = 0
    streamed: bool = False

    @cached_property
    def sha256(self) -> str:
        """Of the file, in hexadecimal: what a recipe knows it by."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def scale(self) -> float:
        """Pixels of :attr:`pixels` per pixel of the full picture, at most 1."""
        return self.pixels.shape[1] / self.width

    def original(self) -> Original:
        """The picture at full size in its own colours, decoded again; not to be kept without need.

        Raises:
            EditingError: if there is no memory for it.
        """
        with _sentences():
            return _read(self.data, None).original.turned(self.turns)

    def part(self, box: tuple[int, int, int, int]) -> np.ndarray:
        """Left, top, right, bottom of the full picture as (h, w, 3) uint8 sRGB.

        Raises:
            EditingError: if there is no memory for it.
        """
        if not self.streamed:
            return self.original().srgb(box)
        with _sentences():
            return LargeJpeg.of(self.data, self.turns).part(box)

    def turned(self, quarters: int) -> Photo:
        """The photo turned anticlockwise by a number of right angles."""
        width, height = (self.height, self.width) if quarters % 2 else (self.width, self.height)
        pixels = np.ascontiguousarray(np.rot90(self.pixels, quarters))
        return replace(self, pixels=pixels, width=width, height=height, turns=(self.turns + quarters) % 4)


def decode(data: bytes) -> Photo:
    """Decodes an uploaded file, whatever it is called.

    Raises:
        EditingError: for a file that is empty, too large, no picture, damaged or too small.
    """
    if not data:
        raise EditingError("the file is empty; choose a JPEG, PNG, WebP or HEIC picture")
    if len(data) > MAX_BYTES:
        raise EditingError(too_long(len(data), MAX_BYTES))
    try:
        with _sentences():
            found = _read(data, WORKING_SIDE)
            (width, height), pixels = found.size, found.original.reduced(WORKING_SIDE)
            if min(pixels.shape[:2]) < MIN_SIDE:
                raise EditingError(
                    f"the picture is too narrow ({width} × {height} pixels); crop it around the face first"
                )
            notices, grey = found.notices, is_grey(pixels)
            if grey:
                notices += ("The picture is black and white; edits keep it so unless they ask for a colour.",)
            return Photo(pixels, width, height, notices, data, found.kept, grey, streamed=found.streamed)
    finally:
        give_back()


def suffixes() -> frozenset[str]:
    """How names of files in these formats end: in small letters, with a dot."""
    known = _known()
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in known)


def too_long(size: int, limit: int) -> str:
    """The refusal of a file of ``size`` bytes; rounded up, so that it never seems to be as large as what is allowed."""
    return f"the file has {math.ceil(size / 2**20 * 10) / 10:g} MiB; choose one of at most {limit / 2**20:g} MiB"


def is_grey(pixels: np.ndarray) -> bool:
    """Whether (h, w, 3) uint8 has no colours but what compression leaves behind."""
    spread = pixels.max(axis=-1) - pixels.min(axis=-1)
    return bool(np.percentile(spread, 99.5) <= 6)


def give_back() -> None:
    """Returns freed memory to the system: glibc keeps the large blocks of a decoder for good otherwise."""
    if (trim := _trim()) is not None:
        trim(0)


@lru_cache
def _trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None


@dataclass(frozen=True)
class _Read:
    """What was read: ``original`` may be smaller than ``size``, which is how the picture is given back."""

    original: Original
    size: tuple[int, int]
    kept: Kept
    notices: tuple[str, ...]
    streamed: bool


def _read(data: bytes, side: int | None) -> _Read:
    """Decodes a file: in full, or with a longer side of no less than ``side`` where that saves time."""
    if (full := filled_up(data)) is not None:
        # Of a HEIC without its last tiles libheif says nothing, and shows them green.
        found, fine = _as_far_as_it_goes(data, full, side), "less than 1% of the picture is missing"
    else:
        try:
            return _unpacked(data, side)
        except (OSError, SyntaxError) as error:
            whole = None if isinstance(error, UnidentifiedImageError) else mended(data)
            if whole is None or (data.startswith(b"\xff\xd8") and "truncated" not in str(error)):
                raise
        # A progressive one comes as a whole, first coarse and then finer.
        found, fine = _unpacked(whole, side), "its finest details are missing"
    missing = _missing(found.original.values)
    if missing > _MOST_MISSING:
        raise EditingError(DAMAGED)
    told = f"The file is cut short; {f'{missing:.0%} of the picture is missing' if missing >= 0.01 else fine}."
    return replace(found, notices=(*found.notices, told))


def _as_far_as_it_goes(data: bytes, full: bytes, side: int | None) -> _Read:
    """A file that was filled up, grey from where it does not stand for itself: see :func:`mending.filled_up`."""
    turns = turned_by(data)  # the picture is turned already: what is missing need not lie below
    found = _unpacked(full, side)
    values = found.original.values.copy()
    lines = np.rot90(values, -turns)
    marks, known = _marks(lines), len(lines)
    for without in _LAST:
        less = filled_up(data, without)
        if less is None and without == _LAST[0]:
            raise EditingError(DAMAGED)  # hardly anything is there
        if less is None or less == full:
            break
        # Of tiles that cannot be read nothing is shown, with fewer bytes neither.
        same = marks == _marks(np.rot90(_unpacked(less, side).original.values, -turns))
        if not same.all():
            known = int(np.argmin(same))
            break
    lines[known:] = found.original.white // 2
    return replace(found, original=replace(found.original, values=values))


def _marks(values: np.ndarray) -> np.ndarray:
    """Checksums of rows."""
    return np.array([zlib.crc32(np.ascontiguousarray(row).data) for row in values], np.uint32)


def _missing(values: np.ndarray) -> float:
    """Share of rows at an end of the picture, or columns if it was turned, that are one flat colour."""
    shares = []
    for lines in (values[::-1], values, values.swapaxes(0, 1)[::-1], values.swapaxes(0, 1)):
        flat = (lines == lines[:1, :1]).all(axis=(1, 2))
        shares.append(float(np.argmin(flat)) / len(flat) if not flat.all() else 1.0)
    return max(shares)


def _unpacked(data: bytes, side: int | None) -> _Read:
    with Image.open(io.BytesIO(data), formats=_known()) as image:
        if is_raw(image, data):
            raise EditingError("this is a camera's raw file; save it as JPEG in a photo program, and choose that")
        tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
        if tags.get(_COLOURS) == _YCBCR and tags.get(_PACKING) not in _JPEG:
            raise EditingError("a TIFF of YCbCr colours cannot be read; save it as JPEG or PNG, and choose that")
        width, height = image.size
        given, read = reduction(image, data, side, MAX_PIXELS)
        if min(width, height) < MIN_SIDE:
            raise EditingError(
                f"the picture has only {width} × {height} pixels; choose one of at least {MIN_SIDE} × {MIN_SIDE}"
            )
        # The tiles are gone once they are loaded, and the size is what was read.
        notices, deep, streamed = [], is_deep(image), given == 1 and streams(image)
        if getattr(image, "n_frames", 1) > 1 and image.format not in ("MPO", "HEIF"):
            image.seek(0)
            pages = image.format == "TIFF"
            told = "The file holds several pictures; only" if pages else "The picture is animated; only"
            notices.append(f"{told} its first {'one' if pages else 'frame'} is used.")
        original = unpack(image, data, given, read)
        kept = kept_of(image, data)
    if (original.size[0] > original.size[1]) != (width > height):
        width, height = height, width
    if given > 1:
        width, height = -(-width // given), -(-height // given)
        notices.append(
            f"The picture is too large to be given back whole; it comes back with {width} × {height} pixels."
        )
    if deep:
        notices.append("The picture has more than 8 bits per channel; what is edited has 8.")
    if original.space.mode == "CMYK":
        notices.append("The picture has print colours (CMYK); they may look a little different on a screen.")
    if original.alpha is not None:
        notices.append("Transparent areas are shown on white.")
    return _Read(original, (width, height), kept, tuple(notices), streamed)


@lru_cache
def _known() -> tuple[str, ...]:
    """Of :data:`FORMATS`, those that can be read here."""
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False)
    Image.init()
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # what is refused beyond the double, unseen; the rest is weighed here
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _sentences() -> Iterator[None]:
    """Turns what decoders raise into one sentence; none of it may reach the page."""
    try:
        with warnings.catch_warnings():
            # Sizes are looked at before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    except EditingError:
        raise
    except Image.DecompressionBombError:
        raise EditingError(too_many(MAX_PIXELS)) from None
    except UnidentifiedImageError:
        raise EditingError(
            "this file is not a picture that can be read here; choose a JPEG, PNG, WebP or HEIC file"
        ) from None
    except MemoryError:
        raise EditingError(too_many(MAX_PIXELS // 2)) from None
    # Decoders of damaged files raise almost anything.
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        cv2.error,
    ) as error:
        raise EditingError(DAMAGED) from error
