"""A JPEG too large to be unpacked at once: its rows come from top to bottom, are edited on their way, and go on.

They come as they lie in the file, which may be on its side: a camera says in EXIF how the picture is to be turned, and
so does the file that is written.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image

from editing.errors import EditingError
from editing.photo.colour import CHANNELS, ColourSpace
from editing.photo.metadata import read_exif
from editing.photo.original import Original
from editing.photo.transfer.fields import Fields, apply, border, reach

# Rows at a time: whole rows of restart intervals, eight of them, of every sampling, see save.py.
STRIP = 256
_FETCH = 32  # libvips keeps several times what it is asked for
# Phones make up to 200 megapixels.
MOST_PIXELS = 256_000_000


class Rows:
    """Rows that are made strip by strip; those that are no longer asked for go.

    Args:
        make: the rows from one to before another, as a picture of their own.
        height: of the whole picture.
    """

    def __init__(self, make: Callable[[int, int], Original], height: int) -> None:
        self._make, self.height = make, height
        self._strips: deque[tuple[int, Original]] = deque()
        self._end = 0

    def __call__(self, top: int, bottom: int) -> Original:
        """Rows ``top`` to before ``bottom``, as far as there are some; ``top`` never falls from call to call."""
        top, bottom = max(0, top), min(self.height, bottom)
        self._forget(top)
        while self._end < bottom:
            last = min(self._end + STRIP, self.height)
            self._strips.append((self._end, self._make(self._end, last)))
            self._end = last
            self._forget(top)
        parts = [strip.rows(max(0, top - at), bottom - at) for at, strip in self._strips if at < bottom]
        return parts[0] if len(parts) == 1 else replace(parts[0], values=np.concatenate([one.values for one in parts]))

    def _forget(self, top: int) -> None:
        while self._strips and self._strips[0][0] + len(self._strips[0][1].values) <= top:
            self._strips.popleft()


@dataclass(frozen=True)
class LargeJpeg:
    """What is known of one before its pixels are read.

    Attributes:
        data: the file.
        size: width and height as they lie in the file.
        space: of its colours, grey or RGB.
        orientation: as in EXIF, 1 to 8.
    """

    data: bytes
    size: tuple[int, int]
    space: ColourSpace
    orientation: int

    @classmethod
    def of(cls, data: bytes, turns: int = 0) -> LargeJpeg:
        """Reads the header.

        Args:
            data: the file.
            turns: right angles by which the picture was turned anticlockwise besides.
        """
        with Image.open(io.BytesIO(data), formats=("JPEG", "MPO")) as image:
            orientation = read_exif(image).get(ExifTags.Base.Orientation, 1)
            return cls(
                data, image.size, ColourSpace.of(image.mode, image.info.get("icc_profile")), _turned(orientation, turns)
            )

    def rows(self, coloured: bool = False) -> Rows:
        """All of it; in colour even if it is grey, if that is wanted.

        Raises:
            EditingError: if the file is damaged, here or when rows are asked for.
        """
        vips = library()
        if vips is None:
            raise EditingError("the library that reads so large a picture is missing; install pyvips[binary]")
        width, height = self.size
        channels = CHANNELS[self.space.mode]
        try:
            image = vips.Image.jpegload_buffer(self.data, access="sequential")
            if (image.width, image.height, image.bands, image.format) != (width, height, channels, "uchar"):
                raise EditingError(DAMAGED)
            region = vips.Region.new(image)
        except vips.Error as error:
            raise EditingError(DAMAGED) from error

        def make(top: int, bottom: int) -> Original:
            values = np.empty((bottom - top, width, channels), np.uint8)
            try:
                for row in range(0, bottom - top, _FETCH):
                    part = values[row : row + _FETCH]
                    part[:] = np.frombuffer(region.fetch(0, top + row, width, len(part)), np.uint8).reshape(part.shape)
            except vips.Error as error:
                raise EditingError(DAMAGED) from error
            strip = Original(values, self.space)
            return strip.coloured() if coloured else strip

        return Rows(make, height)

    def all(self) -> np.ndarray:
        """(H, W, C) uint8, as it lies in the file."""
        rows, (width, height) = self.rows(), self.size
        values = np.empty((height, width, self.space.channels), np.uint8)
        for top in range(0, height, STRIP):
            values[top : top + STRIP] = rows(top, top + STRIP).values
        return values

    def part(self, box: tuple[int, int, int, int]) -> np.ndarray:
        """Left, top, right, bottom of the upright picture as (h, w, 3) uint8 sRGB; it is read no farther than there."""
        corners = np.array(box, np.float64).reshape(2, 2)
        back = cv2.invertAffineTransform(self.upright())
        places = np.rint(corners @ back[:, :2].T + back[:, 2]).astype(int)
        (left, top), (right, bottom) = places.min(axis=0), places.max(axis=0)
        values = self.rows()(int(top), int(bottom)).values[:, left:right]
        return Original(np.ascontiguousarray(upright(values, self.orientation)), self.space).srgb()

    def upright(self) -> np.ndarray:
        """(2, 3) float64: places in the file's picture → places in the upright one, in pixels from the corner."""
        width, height = self.size
        x, y, w_x, h_y = [1, 0, 0], [0, 1, 0], [-1, 0, width], [0, -1, height]
        rows = {1: (x, y), 2: (w_x, y), 3: (w_x, h_y), 4: (x, h_y), 5: (y, x), 6: (h_y, x), 7: (h_y, w_x), 8: (y, w_x)}
        return np.array(rows[self.orientation], np.float64)


DAMAGED = "the picture is damaged or cut short; choose another copy of it"


def edited(rows: Rows, size: tuple[int, int], fields: Fields, frame: np.ndarray) -> Rows:
    """Rows after an edit; as in :func:`editing.photo.transfer.fields.apply`, and all other pixels the same to the bit.

    Args:
        rows: of the picture.
        size: its width and height.
        fields: of the edit.
        frame: (2, 3) float64: places in the picture → places in the frame, in its sides.
    """
    box = reach(fields, frame, (size[1], size[0]))
    if box is None:
        return rows
    left, first_row, right, last_row = box
    margin = border(fields, frame)[1]

    def make(top: int, bottom: int) -> Original:
        start = max(0, top - margin)
        around = rows(start, bottom + margin)
        strip = around.rows(top - start, bottom - start)
        if bottom <= first_row or top >= last_row:
            return strip
        matrix = frame.copy()
        matrix[:, 2] += matrix[:, :2] @ (left, start)
        before = around.space.to_srgb(around.values[:, left:right])
        after, _ = apply(before, fields, matrix, (left, start), (top - start, bottom - start))
        if strip.space.mode == "L":
            after = cv2.cvtColor(cv2.cvtColor(after, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return strip.edited(left, 0, after)

    return Rows(make, rows.height)


@lru_cache
def library() -> Any:
    """libvips, which reads a JPEG row by row; None where it is not installed."""
    try:
        import pyvips  # type: ignore[import-untyped]
    except (ImportError, OSError):
        return None
    pyvips.cache_set_max(0)  # it would keep files
    return pyvips


# EXIF's orientations: which way the rows and the columns of a picture run; from 5 on they are exchanged as well.
_RUNS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """(h, w, …) as EXIF says that it is to be shown; no copy is made."""
    rows, columns = _RUNS.get(orientation, (1, 1))
    turned = values[::rows, ::columns]
    return turned.swapaxes(0, 1) if 5 <= orientation <= 8 else turned


def _turned(orientation: int, turns: int) -> int:
    """The orientation of a picture that is turned anticlockwise by right angles besides."""
    probe = np.arange(6).reshape(2, 3)
    wanted = np.rot90(upright(probe, orientation), turns)
    return next(one for one in range(1, 9) if np.array_equal(upright(probe, one), wanted))
