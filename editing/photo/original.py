"""A photo in full: every pixel in its own colours and depth, so that what is not edited stays the same to the bit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from editing.errors import EditingError
from editing.photo.colour import ColourSpace

# A pixel that moves by this many 8-bit steps takes nothing over from what it was beyond sRGB.
_FAR = 32.0
# Two channels of a grey pixel differ by no more.
_GREY = 2
_STRIP = 256  # rows


@dataclass(frozen=True)
class Original:
    """The upright picture as it is in the file, at full size.

    Attributes:
        values: (H, W, C) uint8 or uint16 in the photo's own space; C is 1 (grey), 3 or 4 (inks). Not to be written to.
        space: what the values mean.
        white: the largest value, 255 or for example 4095 or 65535.
        alpha: (H, W) of the same type, 0 (clear) to ``white``, or None.
    """

    values: np.ndarray
    space: ColourSpace
    white: int = 255
    alpha: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.values.shape[1], self.values.shape[0]

    def srgb(self, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """The picture, or left, top, right, bottom of it, as (h, w, 3) uint8 sRGB; clear areas are white.

        Raises:
            EditingError: if the box leaves the picture.
        """
        left, top, right, bottom = self._inside(box)
        colours = self.space.to_srgb(_eight(self.values[top:bottom, left:right], self.white))
        if self.alpha is None:
            return colours.copy() if colours.base is not None else colours
        return _on_white(colours, self._opacity((left, top, right, bottom)))

    def reduced(self, side: int) -> np.ndarray:
        """The picture in sRGB with a longer side of at most ``side`` pixels, (h, w, 3) uint8; clear areas are white."""
        width, height = self.size
        scale = min(1.0, side / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        values, alpha = self.values, self.alpha
        if scale < 1.0:
            # Averages of areas, in the photo's own depth.
            values = cv2.resize(np.ascontiguousarray(values), size, interpolation=cv2.INTER_AREA)
            values = values.reshape(size[1], size[0], self.space.channels)
            if alpha is not None:
                alpha = cv2.resize(np.ascontiguousarray(alpha), size, interpolation=cv2.INTER_AREA)
        return Original(values, self.space, self.white, alpha).srgb()

    def edited(self, left: int, top: int, after: np.ndarray) -> Original:
        """The photo with a part of it replaced.

        Pixels that equal :meth:`srgb` keep their own values, whatever the space. Others take the change over into the
        photo's space; what they had beyond sRGB (colours, depth, inks) fades as the change grows.

        Args:
            left, top: where the part lies.
            after: (h, w, 3) uint8 sRGB. Colours in a grey photo turn all of it into a colour one.

        Raises:
            EditingError: if the part leaves the picture.
        """
        box = left, top, left + after.shape[1], top + after.shape[0]
        self._inside(box)
        if self.space.mode == "L" and self._asks_for_colour(left, top, after):
            return self.coloured().edited(left, top, after)
        values, alpha = self.values.copy(), None if self.alpha is None else self.alpha.copy()
        # What is computed along the way takes many times what the picture does.
        changed = False
        for row in range(0, len(after), _STRIP):
            strip = after[row : row + _STRIP]
            changed |= self._write(values, alpha, (left, top + row, box[2], top + row + len(strip)), strip)
        return replace(self, values=values, alpha=alpha) if changed else self

    def _write(
        self, values: np.ndarray, alpha: np.ndarray | None, box: tuple[int, int, int, int], after: np.ndarray
    ) -> bool:
        """Puts a few rows of :meth:`edited` into copies of the values and the opacity; returns whether they changed."""
        moved = np.abs(after.astype(np.int16) - self.srgb(box)).max(axis=-1)
        changed = moved > 0
        if not changed.any():
            return False
        place = np.s_[box[1] : box[3], box[0] : box[2]]
        own, scale = self.values[place], self.white / 255.0
        was, now = self.space.to_srgb(_eight(own, self.white)), after
        if alpha is not None:
            # Where something is drawn on clear ground, it has to show.
            opacity = np.maximum(self._opacity(box), np.minimum(1.0, moved / _FAR))
            now = _under_white(after, opacity)
            alpha[place][changed] = np.round(opacity * self.white)[changed]
        rest = own - self.space.from_srgb(was) * scale
        kept = np.clip(1.0 - moved / _FAR, 0.0, 1.0)[..., None]
        new = np.clip(np.round(self.space.from_srgb(now) * scale + kept * rest), 0, self.white)
        values[place][changed] = new.astype(values.dtype)[changed]
        return True

    def _asks_for_colour(self, left: int, top: int, after: np.ndarray) -> bool:
        """Whether changed pixels of a part are not grey."""
        for row in range(0, len(after), _STRIP):
            strip = after[row : row + _STRIP]
            before = self.srgb((left, top + row, left + strip.shape[1], top + row + len(strip)))
            changed = strip[(strip != before).any(axis=-1)].astype(np.int16)
            if len(changed) and np.ptp(changed, axis=-1).max() > _GREY:
                return True
        return False

    def rows(self, first: int, last: int) -> Original:
        """Some rows as a picture of their own; nothing is copied."""
        alpha = None if self.alpha is None else self.alpha[first:last]
        return replace(self, values=self.values[first:last], alpha=alpha)

    def turned(self, quarters: int) -> Original:
        """The photo turned anticlockwise by a number of right angles."""
        alpha = None if self.alpha is None else np.rot90(self.alpha, quarters)
        return replace(self, values=np.rot90(self.values, quarters), alpha=alpha)

    def coloured(self) -> Original:
        """A grey photo as a colour one that looks the same."""
        if self.space.profile is None:
            values, white = np.repeat(self.values, 3, axis=-1), self.white
            return Original(values, ColourSpace("RGB"), white, self.alpha)
        values = self.space.to_srgb(_eight(self.values, self.white))
        alpha = None if self.alpha is None else _eight(self.alpha, self.white)
        return Original(values, ColourSpace("RGB"), 255, alpha)

    def _opacity(self, box: tuple[int, int, int, int]) -> np.ndarray:
        left, top, right, bottom = box
        alpha = self.alpha if self.alpha is not None else np.full(self.values.shape[:2], self.white)
        return alpha[top:bottom, left:right].astype(np.float32) / self.white

    def _inside(self, box: tuple[int, int, int, int] | None) -> tuple[int, int, int, int]:
        width, height = self.size
        left, top, right, bottom = box or (0, 0, width, height)
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise EditingError(
                f"the area {left}, {top}, {right}, {bottom} leaves the photo of {width} × {height} pixels"
            )
        return left, top, right, bottom


def _eight(values: np.ndarray, white: int) -> np.ndarray:
    """To 0 … 255 as uint8."""
    if white == 255 and values.dtype == np.uint8:
        return values
    scaled: np.ndarray = np.minimum((values.astype(np.uint32) * 255 + white // 2) // white, 255).astype(np.uint8)
    return scaled


def _on_white(colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 over white."""
    over = colours * opacity[..., None] + 255.0 * (1.0 - opacity[..., None])
    return np.round(over).astype(np.uint8)


def _under_white(shown: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """The colours that look like ``shown`` over white at that opacity."""
    clear = 1.0 - opacity[..., None]
    colours = (shown - 255.0 * clear) / np.maximum(opacity[..., None], 1e-3)
    return np.clip(np.round(colours), 0, 255).astype(np.uint8)
