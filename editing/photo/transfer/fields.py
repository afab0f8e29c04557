"""What an edit does to a photo, as fields over the framed face, and the one function that applies them to pixels.

Fields know nothing of resolution: places and shifts are fractions of the frame, so the same fields are applied to a
small preview and, through the frame's matrix, to the full photo, whose pixels are resampled only where they move.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from editing.photo.transfer.planes import chosen_by, largest, times
from editing.photo.transfer.threads import side_by_side

# Below this the change cannot be seen in 8 bits; such pixels are left alone.
_LEAST_SHIFT = 2e-4  # of the frame's side
_LEAST_TONE = 0.25  # of L, a or b
_LEAST_ALPHA = 1 / 512
_STRIP = 2**17  # pixels worked on at a time, which bounds the memory and stays near the processor


@dataclass(frozen=True)
class Fields:
    """What happens at each place of the framed face; (n, n) fields of float32, n of any size.

    Attributes:
        shift: (n, n, 2) x, y: a pixel is taken from this far away, in sides of the frame; 0 where nothing moves.
        gain: (n, n) factor of L of CIELAB.
        offset: (n, n, 3) added to L, a and b (0–100, about ±100) after the gain.
        drawn: (n, n, 3) L, a, b of what is drawn.
        alpha: (n, n) its opacity, 0 to 1.
        grain: standard deviation of L of the noise on what is drawn, as in the photo.
        part_map: (n, n) uint8 part ids of the edited face, or None.
    """

    shift: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    drawn: np.ndarray
    alpha: np.ndarray
    grain: float = 0.0
    part_map: np.ndarray | None = None

    @property
    def size(self) -> int:
        return int(self.alpha.shape[0])

    @classmethod
    def nothing(cls, size: int) -> Fields:
        """Fields that change nothing."""
        plane = np.zeros((size, size), np.float32)
        colour = np.zeros((size, size, 3), np.float32)
        return cls(np.zeros((size, size, 2), np.float32), np.ones_like(plane), colour, colour, plane)

    def faded(self, share: np.ndarray) -> Fields:
        """With less of everything where the (n, n) share of 0 to 1 is below 1."""
        return replace(
            self,
            shift=times(self.shift, share),
            gain=1.0 + share * (self.gain - 1.0),
            offset=times(self.offset, share),
            alpha=self.alpha * share,
        )

    def coloured(self, parts: Collection[int]) -> Fields:
        """For a black-and-white photo: lightness alone, but for some parts of the edited face."""
        ids = self.part_map if self.part_map is not None else np.full(self.alpha.shape, 255)
        there = cv2.GaussianBlur(np.isin(ids, list(parts)).astype(np.float32), (0, 0), self.size / 256)
        share = cv2.merge([np.ones_like(there), there, there])
        return replace(self, offset=self.offset * share, drawn=self.drawn * share)

    def has_colour(self) -> bool:
        """Whether a grey photo would get colours."""
        drawn = largest(self.drawn[..., 1:]) * self.alpha
        return bool(max(float(np.abs(self.offset[..., 1:]).max()), float(drawn.max())) > _LEAST_TONE)

    def changed(self) -> np.ndarray:
        """(n, n) bool: where a pixel may change."""
        moved = largest(self.shift) > _LEAST_SHIFT
        toned = (largest(self.offset) > _LEAST_TONE) | (np.abs(self.gain - 1.0) > 0.003)
        return moved | toned | (self.alpha > _LEAST_ALPHA)


def apply(
    pixels: np.ndarray,
    fields: Fields,
    frame: np.ndarray,
    corner: tuple[int, int] = (0, 0),
    rows: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The picture after the edit; every pixel outside the change is the same, bit by bit.

    Args:
        pixels: (h, w, 3) uint8 RGB.
        fields: of the framed face.
        frame: (2, 3) float64: places in the photo, in pixels → places in the frame, in its sides; both from the upper
            left corner, so that the centre of the first pixel is (0.5, 0.5).
        corner: where the pixels begin in the full photo, so that noise goes on from one part of it to the next.
        rows: from the first to before the last that is wanted; None for all.

    Returns:
        (h, w, 3) uint8, the rows that are wanted, and (h, w) bool: where they may differ from ``pixels``.
    """
    first, last = rows or (0, len(pixels))
    result = pixels[first:last].copy()
    mask = np.zeros(result.shape[:2], bool)
    changed = fields.changed()
    if not changed.any():
        return result, mask
    left, top, right, bottom = _box(changed, frame, pixels.shape)
    top, bottom = max(top, first), min(bottom, last)
    if left >= right or top >= bottom:
        return result, mask
    strip = max(1, _STRIP // (right - left))
    shown = changed.astype(np.float32)

    def draw(row: int) -> None:
        end = min(bottom, row + strip)
        new, where = _strip(pixels, fields, shown, frame, (left, row, right, end), corner)
        place = np.s_[row - first : end - first, left:right]
        result[place] = chosen_by(where, new, result[place])
        mask[place] = where

    side_by_side(draw, range(top, bottom, strip))
    return result, mask


def reach(fields: Fields, frame: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom, in pixels of an (h, w) photo, of all that :func:`apply` looks at; None for nothing."""
    changed = fields.changed()
    if not changed.any():
        return None
    left, top, right, bottom = _box(changed, frame, shape)
    if left >= right or top >= bottom:
        return None
    x, y = border(fields, frame)
    return max(0, left - x), max(0, top - y), min(shape[1], right + x), min(shape[0], bottom + y)


def border(fields: Fields, frame: np.ndarray) -> tuple[int, int]:
    """How far beyond what it changes :func:`apply` looks at most, across and down, in pixels of the photo."""
    back = np.linalg.inv(np.asarray(frame, np.float64)[:, :2]).astype(np.float32)
    across, down = (float(np.abs(fields.shift @ line).max()) for line in back)
    return int(np.ceil(across)) + 8, int(np.ceil(down)) + 8


def _box(changed: np.ndarray, frame: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what may change, in pixels of the photo."""
    size = changed.shape[0]
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    x = np.array([columns[0] - 1, columns[-1] + 2]) / size
    y = np.array([rows[0] - 1, rows[-1] + 2]) / size
    corners = np.array([(a, b) for a in x for b in y])
    back = cv2.invertAffineTransform(np.asarray(frame, np.float64))
    places = corners @ back[:, :2].T + back[:, 2]
    x0, y0 = (int(value) for value in np.floor(places.min(axis=0)))
    x1, y1 = (int(value) + 1 for value in np.ceil(places.max(axis=0)))
    return max(0, x0), max(0, y0), min(shape[1], x1), min(shape[0], y1)


def _strip(
    pixels: np.ndarray,
    fields: Fields,
    changed: np.ndarray,
    frame: np.ndarray,
    box: tuple[int, int, int, int],
    corner: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the box after the edit, and where they may differ."""
    left, top, right, bottom = box
    shape = (right - left, bottom - top)
    # From pixels of the box, whose centres are whole numbers to OpenCV, to those of the fields.
    matrix = fields.size * np.asarray(frame, np.float64)
    matrix[:, 2] += matrix[:, :2] @ (left + 0.5, top + 0.5) - 0.5

    def sample(field: np.ndarray, outside: float = 0.0) -> Any:
        way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(field, matrix, shape, flags=way, borderValue=(outside,) * 4)

    where = sample(changed) > 0
    before = pixels[top:bottom, left:right]
    source = before
    shift = sample(fields.shift)
    moved = largest(shift) > _LEAST_SHIFT
    if moved.any():
        back = np.linalg.inv(np.asarray(frame, np.float64)[:, :2])
        taken = _take(pixels, box, cv2.transform(shift, back))
        source = chosen_by(moved, taken, before)
    lab = cv2.cvtColor(source.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)
    lab[..., 0] *= sample(fields.gain, 1.0)
    lab += sample(fields.offset)
    alpha = sample(fields.alpha)
    if alpha.any():
        drawn = sample(fields.drawn)
        if fields.grain:
            drawn[..., 0] += fields.grain * _noise(
                left + corner[0], top + corner[1], right + corner[0], bottom + corner[1]
            )
        lab += times(drawn - lab, alpha)
    np.clip(lab[..., 0], 0.0, 100.0, out=lab[..., 0])
    rgb = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    return np.clip(np.rint(rgb * 255.0), 0, 255).astype(np.uint8), where


def _take(pixels: np.ndarray, box: tuple[int, int, int, int], shift: np.ndarray) -> np.ndarray:
    """Pixels from (h, w, 2) shifts away from those of a box; beyond the border the nearest one.

    With OpenCV's cubic, which is as sharp as Lanczos' window in half the time.
    """
    height, width = pixels.shape[:2]
    across, down = cv2.split(shift)
    left, right = _bounds(box[0], box[2], across, width)
    top, bottom = _bounds(box[1], box[3], down, height)
    # OpenCV addresses at most 32,767 rows or columns: cut out what is needed.
    found: Any = cv2.remap(
        np.ascontiguousarray(pixels[top:bottom, left:right]),
        across + (box[0] - left),
        down + (box[1] - top),
        cv2.INTER_CUBIC | cv2.WARP_RELATIVE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return found


def _bounds(first: int, last: int, shift: np.ndarray, length: int) -> tuple[int, int]:
    """From where to before where pixels are looked at, of a line of some length."""
    low, high = first + int(np.floor(shift.min())) - 4, last + int(np.ceil(shift.max())) + 4
    return min(max(low, 0), length - 1), max(min(high, length), 1)


def _noise(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Standard normal noise that depends on the place alone, so that strips of a picture fit together."""
    tile = _tile()
    return tile[np.ix_(np.arange(top, bottom) % tile.shape[0], np.arange(left, right) % tile.shape[1])]


@lru_cache(maxsize=1)
def _tile() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((509, 521)).astype(np.float32)
    fine: Any = cv2.GaussianBlur(noise, (0, 0), 0.6)  # as fine as what a camera's own processing leaves
    return fine / fine.std()
