"""Framing a face of a photo as the training pictures are framed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from editing.errors import EditingError

_MIN_FACE_PIXELS = 20.0
# How fast a photo's border fades beyond it, as a share of the frame.
_FADE = 0.12


@dataclass(frozen=True)
class Frame:
    """A square over a photo: what the networks look at. It may be turned, and may reach beyond the photo.

    Attributes:
        left, top: its first corner in pixels, x from the left and y from the top.
        across, down: the edge from there to the second corner, as x and y; the other edge is the same, turned clockwise
            by a right angle.
    """

    left: float
    top: float
    across: float
    down: float

    @property
    def side(self) -> float:
        """Length of an edge in pixels of the photo."""
        return float(np.hypot(self.across, self.down))

    def scaled(self, ratio: float) -> Frame:
        """The same square over the photo at another size."""
        return Frame(self.left * ratio, self.top * ratio, self.across * ratio, self.down * ratio)

    def matrix(self, size: int) -> np.ndarray:
        """(2, 3) float64: (x, y, 1) of a pixel of the framed picture of ``size`` → x, y of a pixel of the photo.

        Both count pixels from the middle of the first one, as OpenCV does: `cv2.warpAffine(photo, matrix, (size, size),
        flags=cv2.WARP_INVERSE_MAP)` frames a photo, and without that flag the result goes back into it.
        """
        a, b = self.across / size, self.down / size
        # The middle of pixel i lies at i + 0.5 of the picture.
        x = self.left + (a - b) * 0.5 - 0.5
        y = self.top + (b + a) * 0.5 - 0.5
        return np.array([[a, -b, x], [b, a, y]])

    def corners(self) -> np.ndarray:
        """(4, 2) float64 x, y: clockwise from the first."""
        x = np.array([self.across, self.down])
        y, first = np.array([-self.down, self.across]), np.array([self.left, self.top])
        return np.stack([first, first + x, first + x + y, first + y])

    def outside(self, width: int, height: int) -> float:
        """Share of the square, 0 to 1, that lies beyond a photo of that size."""
        corners = self.corners().astype(np.float32)
        photo = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
        area, _ = cv2.intersectConvexConvex(corners, photo)
        return float(1.0 - min(1.0, area / max(self.side**2, 1e-9)))


def frame_of(landmarks: np.ndarray) -> Frame:
    """The framing of FFHQ and CelebA-HQ.

    The square stands upright between the eyes and the mouth, is centred a little below the eyes, and is 4 eye distances
    or 3.6 eye–mouth distances wide, whichever is more.

    Args:
        landmarks: (5, 2) x, y, see :class:`editing.photo.detect.Detection`.

    Raises:
        EditingError: if the landmarks coincide.
    """
    left_eye, right_eye, _, left_mouth, right_mouth = np.asarray(landmarks, dtype=np.float64)
    eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
    across, down = right_eye - left_eye, mouth - eyes
    # The horizontal axis of the face: the eyes' line and the normal of the eyes–mouth line, averaged.
    axis = across + np.array([down[1], -down[0]])
    length = np.hypot(*axis)
    half = max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8)
    if length < 1e-6 or half * 2 < _MIN_FACE_PIXELS:
        raise EditingError("the face is too small or unclear to be aligned; crop the photo by hand")
    x = axis / length * half
    first = eyes + down * 0.1 - x - np.array([-x[1], x[0]])
    return Frame(float(first[0]), float(first[1]), float(2 * x[0]), float(2 * x[1]))


def square(width: int, height: int, left: float, top: float, side: float, turn: float = 0.0) -> Frame:
    """A square chosen by hand in a photo of that size.

    Args:
        width, height: of the photo in pixels.
        left, top, side: before it is turned, in pixels.
        turn: clockwise about its middle, in degrees.

    Raises:
        EditingError: if the square does not meet the photo or is smaller than 20 pixels.
    """
    values = np.array([left, top, side, turn], dtype=np.float64)
    if not np.isfinite(values).all() or side < _MIN_FACE_PIXELS or side > 3 * max(width, height):
        raise EditingError(f"the crop is {side:g} pixels wide; draw a square of at least 20 pixels inside the photo")
    middle, angle = np.array([left, top]) + side / 2, np.deg2rad(turn)
    x = np.array([np.cos(angle), np.sin(angle)]) * side
    first = middle - (x + np.array([-x[1], x[0]])) / 2
    found = Frame(float(first[0]), float(first[1]), float(x[0]), float(x[1]))
    if found.outside(width, height) >= 1.0:
        raise EditingError("the crop lies outside the photo; draw a square over the face")
    return found


def framed(pixels: np.ndarray, frame: Frame, size: int) -> np.ndarray:
    """What lies in a frame, antialiased; beyond the photo its border fades into the border's mean colour.

    Args:
        pixels: (h, w, 3) uint8 RGB.
        frame: in these pixels.
        size: side of the result.

    Returns:
        (size, size, 3) uint8.
    """
    image = Image.fromarray(pixels)
    step = frame.side / size
    if step > 1.0:
        # First reduce the photo so that neighbouring samples are at most about a pixel apart.
        reduced = max(1, round(image.width / step)), max(1, round(image.height / step))
        frame = frame.scaled(reduced[0] / image.width)
        image = image.resize(reduced, Image.Resampling.LANCZOS)
    source, matrix = np.asarray(image, dtype=np.float32), frame.matrix(size)
    found = _warped(source, matrix, size, cv2.BORDER_REPLICATE)
    beyond = 1.0 - _warped(np.ones(source.shape[:2], dtype=np.float32), matrix, size, cv2.BORDER_CONSTANT)
    if beyond.max() > 0.01:
        found = _faded(found, beyond)
    return np.clip(np.round(found), 0, 255).astype(np.uint8)


def _warped(source: np.ndarray, matrix: np.ndarray, size: int, border: int) -> np.ndarray:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(source, matrix, (size, size), flags=flags, borderMode=border)


def _faded(found: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """Replaces what lies beyond the photo: near it by the border's colours, blurred, then by their mean."""
    outside = beyond > 0.5
    if outside.all():
        return found
    size = len(found)
    distance = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L2, 5)
    edge = cv2.dilate(outside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~outside
    mean = found[edge].mean(axis=0) if edge.any() else found[~outside].mean(axis=0)
    soft = cv2.GaussianBlur(found, (0, 0), 0.04 * size)
    depth = np.minimum(1.0, distance / (0.06 * size))[..., None]  # blurred step by step, without a seam
    near = found * (1.0 - depth) + soft * depth
    kept = np.exp(-np.square(distance / (_FADE * size)))[..., None]
    return np.where(outside[..., None], near * kept + mean * (1.0 - kept), found)


def thumbnail(pixels: np.ndarray, side: int) -> np.ndarray:
    """(h, w, 3) uint8 reduced so that the longer side has at most ``side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image).copy()
