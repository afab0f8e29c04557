"""Finding faces in a photo, and framing one as the training pictures are framed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from editing.errors import EditingError

# MTCNN looks at this size; faces below a twentieth of it are not worth editing.
_DETECTION_SIDE = 1024
_MIN_SCORE = 0.9
_MAX_FACES = 12
_MIN_FACE_PIXELS = 20.0


@dataclass(frozen=True)
class Detection:
    """One face in a photo.

    Attributes:
        box: left, top, right, bottom in pixels.
        score: confidence, 0 to 1.
        landmarks: (5, 2) float64 x, y in pixels: left and right eye, nose, left and right corner of the mouth, left
            and right as seen in the picture.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray


class Detector(Protocol):
    """Anything that finds faces."""

    def __call__(self, pixels: np.ndarray) -> list[Detection]:
        """(h, w, 3) uint8 RGB → faces, largest first."""
        ...


class MtcnnDetector:
    """MTCNN of facenet-pytorch, whose small weights come with the package; runs on the CPU.

    Raises:
        EditingError: if the package cannot be used here.
    """

    def __init__(self) -> None:
        try:
            from facenet_pytorch import MTCNN

            self._net: Any = MTCNN(keep_all=True, min_face_size=40, device=torch.device("cpu"))
        except Exception as error:  # the package's own dependencies fail in many ways
            raise EditingError(
                "faces cannot be found automatically because facenet-pytorch is not usable here; crop the photo by hand"
            ) from error
        self._lock = threading.Lock()

    def __call__(self, pixels: np.ndarray) -> list[Detection]:
        """(h, w, 3) uint8 RGB → faces, largest first."""
        image = Image.fromarray(pixels)
        scale = min(1.0, _DETECTION_SIDE / max(image.size))
        if scale < 1.0:
            image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        with self._lock:
            try:
                boxes, scores, points = self._net.detect(image, landmarks=True)
            except (RuntimeError, ValueError, IndexError):
                return []  # MTCNN stumbles over pictures without any candidate
        if boxes is None:
            return []
        found = [
            Detection(
                tuple(float(v) / scale for v in box),  # type: ignore[arg-type]
                float(score),
                np.asarray(landmarks, dtype=np.float64) / scale,
            )
            for box, score, landmarks in zip(boxes, scores, points, strict=True)
            if score is not None and score >= _MIN_SCORE
        ]
        found.sort(key=lambda face: -(face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))
        return found[:_MAX_FACES]


def align(pixels: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """Rotates and crops a face to the framing of FFHQ and CelebA-HQ.

    The square stands upright between the eyes and the mouth, is centred a little below the eyes, and is 4 eye distances
    or 3.6 eye–mouth distances wide, whichever is more. Beyond its border the photo is mirrored.

    Args:
        pixels: (h, w, 3) uint8 RGB.
        landmarks: see :class:`Detection`.
        size: side of the result.

    Returns:
        (size, size, 3) uint8.

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
    y = np.array([-x[1], x[0]])
    centre = eyes + down * 0.1
    return _sample(pixels, centre - x - y, 2 * x, 2 * y, size)


def crop(pixels: np.ndarray, left: float, top: float, side: float, size: int) -> np.ndarray:
    """A square chosen by hand, (size, size, 3) uint8; beyond its border the photo is mirrored.

    Raises:
        EditingError: if the square does not meet the photo or is smaller than 20 pixels.
    """
    height, width = pixels.shape[:2]
    values = np.array([left, top, side], dtype=np.float64)
    if not np.isfinite(values).all() or side < _MIN_FACE_PIXELS or side > 3 * max(height, width):
        raise EditingError(f"the crop is {side:g} pixels wide; draw a square of at least 20 pixels inside the photo")
    if left + side <= 0 or top + side <= 0 or left >= width or top >= height:
        raise EditingError("the crop lies outside the photo; draw a square over the face")
    return _sample(pixels, np.array([left, top]), np.array([side, 0.0]), np.array([0.0, side]), size)


def _sample(pixels: np.ndarray, origin: np.ndarray, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """The parallelogram origin, origin + x, origin + y as a square picture, antialiased."""
    step = np.hypot(*x) / size
    # First reduce the photo so that neighbouring samples are at most about a pixel apart.
    image = Image.fromarray(pixels)
    if step > 1.0:
        reduced = (max(1, round(image.width / step)), max(1, round(image.height / step)))
        ratio = np.array([reduced[0] / image.width, reduced[1] / image.height])
        image = image.resize(reduced, Image.Resampling.LANCZOS)
        origin, x, y = origin * ratio, x * ratio, y * ratio
    source = np.asarray(image, dtype=np.float32)
    place = (np.arange(size) + 0.5) / size
    points = origin + place[None, :, None] * x + place[:, None, None] * y - 0.5  # (size, size, 2) x, y of pixel centres
    return _bilinear(source, points)


def _bilinear(source: np.ndarray, points: np.ndarray) -> np.ndarray:
    height, width = source.shape[:2]
    low = np.floor(points).astype(np.int64)
    fraction = (points - low)[..., None, :].astype(np.float32)
    columns = [_mirror(low[..., 0] + i, width) for i in (0, 1)]
    rows = [_mirror(low[..., 1] + i, height) for i in (0, 1)]
    fx, fy = fraction[..., 0], fraction[..., 1]
    top = source[rows[0], columns[0]] * (1 - fx) + source[rows[0], columns[1]] * fx
    bottom = source[rows[1], columns[0]] * (1 - fx) + source[rows[1], columns[1]] * fx
    return np.clip(np.round(top * (1 - fy) + bottom * fy), 0, 255).astype(np.uint8)


def _mirror(index: np.ndarray, count: int) -> np.ndarray:
    """Reflects indices back into 0 … count − 1."""
    if count == 1:
        return np.zeros_like(index)
    period = 2 * count - 2
    folded = np.abs(index) % period
    return np.minimum(folded, period - folded)


def thumbnail(pixels: np.ndarray, side: int) -> np.ndarray:
    """(h, w, 3) uint8 reduced so that the longer side has at most ``side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image).copy()
