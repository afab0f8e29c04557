"""Finding faces in a photo, also in one that lies on its side."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from editing.errors import EditingError
from editing.photo.align import Frame, frame_of, framed

# MTCNN looks at this size; faces below a twentieth of it are not worth editing.
_DETECTION_SIDE = 1024
_MIN_SCORE = 0.9
# Of 40 held-out portraits 38 score more the right way up, and none that lies on its side or stands on its head.
_SURE = 0.999
_MAX_FACES = 48
# Around a photo, as a share of its shorter side, by its border's colours: of 30 held-out portraits cut to their inner
# 60 %, all are framed well with it and 14 without.
_MARGIN = 0.2
# How far beyond the photo a landmark may be guessed, as a share of the face's box.
_BEYOND = 0.08
# Landmarks farther from those of a mean face, in units of its size, are no face; a profile comes to 0.4.
_MAX_SHAPE_ERROR = 0.5
# Beyond this tilt a face is looked at again, turned upright.
_TILTED = 15.0
# A face whose sharpness is below this share of the sharpest one's is out of focus.
_BLURRED = 0.35
# The mean face: where FFHQ's framing has the landmarks, as x + iy about their middle.
_MEAN = np.array([-32.4 - 38.64j, 31.6 - 38.64j, -0.4 - 3.24j, -27.4 + 25.36j, 28.6 + 25.36j])
_MEAN = _MEAN - _MEAN.mean()


@dataclass(frozen=True)
class Detection:
    """One face in a photo.

    Attributes:
        box: left, top, right, bottom in pixels.
        score: confidence, 0 to 1.
        landmarks: (5, 2) float64 x, y in pixels: left and right eye, nose, left and right corner of the mouth, left
            and right as seen when the face is upright.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray

    @property
    def side(self) -> float:
        """Longer side of the box in pixels."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)

    def placed(self, ratio: float = 1.0, by: float = 0.0) -> Detection:
        """The same face in the photo at another size, then that much farther right and down."""
        left, top, right, bottom = (value * ratio + by for value in self.box)
        return replace(self, box=(left, top, right, bottom), landmarks=np.asarray(self.landmarks) * ratio + by)


class Detector(Protocol):
    """Anything that finds faces."""

    def __call__(self, pixels: np.ndarray) -> list[Detection]:
        """(h, w, 3) uint8 RGB → faces in any order."""
        ...


class MtcnnDetector:
    """MTCNN of facenet-pytorch, whose small weights come with the package; runs on the CPU.

    It knows upright faces that are whole. Where one touches the border, the photo is looked at with its border's
    colours around it. Where it is sure of none, the photo is looked at the other three ways round as well, and of
    findings in the same place the surest stays; a tilted face is then looked at again by itself, upright.

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
        """(h, w, 3) uint8 RGB → faces, the best to edit first, see :func:`ranked`."""
        scale = min(1.0, _DETECTION_SIDE / max(pixels.shape[:2]))
        small = pixels
        if scale < 1.0:
            image = Image.fromarray(pixels)
            small = np.asarray(image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale)))))
            scale = small.shape[1] / pixels.shape[1]
        found = self._find(small)
        if not any(face.score >= _SURE for face in found) or any(_at_border(face, small) for face in found):
            # A face that the border cuts is seen where it is only with something around it.
            found = self._find_with_margin(small)
        if not any(face.score >= _SURE for face in found):
            for quarters in (1, 2, 3):
                there = self._find_with_margin(np.ascontiguousarray(np.rot90(small, quarters)))
                found += [_turned_back(face, quarters, small.shape[1], small.shape[0]) for face in there]
            found = _surest(found)
        found = [self._straightened(small, face) for face in found]
        return ranked(pixels, [face.placed(1.0 / scale) for face in found if face.score >= _MIN_SCORE])

    def _find(self, pixels: np.ndarray) -> list[Detection]:
        with self._lock:
            try:
                boxes, scores, points = self._net.detect(Image.fromarray(pixels), landmarks=True)
            except (RuntimeError, ValueError, IndexError):
                return []  # MTCNN stumbles over pictures without any candidate
        if boxes is None:
            return []
        return [
            Detection(_box(np.reshape(box, (2, 2))), float(score), np.asarray(landmarks, dtype=np.float64))
            for box, score, landmarks in zip(boxes, scores, points, strict=True)
            if score is not None
        ]

    def _find_with_margin(self, pixels: np.ndarray) -> list[Detection]:
        margin = round(_MARGIN * min(pixels.shape[:2]))
        wide = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
        return [face.placed(by=-margin) for face in self._find(wide)]

    def _straightened(self, pixels: np.ndarray, face: Detection) -> Detection:
        """A tilted face as it is found when it is looked at upright, twice, since the first tilt is a guess."""
        tilt, limit, size = _tilt(face.landmarks), _TILTED, 320
        for _ in range(2):
            if abs(tilt) < limit:
                break
            limit = _TILTED / 3
            wide = _widened(frame_of(face.landmarks), 1.6)
            there = self._find(framed(pixels, wide, size))
            best = max(there, key=lambda other: other.score - _off_middle(other, size), default=None)
            if best is None or best.score < min(face.score, _SURE):
                break
            matrix, tilt = wide.matrix(size), _tilt(best.landmarks)
            left, top, right, bottom = best.box
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
            face = Detection(_box(_mapped(corners, matrix)), best.score, _mapped(best.landmarks, matrix))
        return face


def ranked(pixels: np.ndarray, faces: list[Detection]) -> list[Detection]:
    """Faces worth editing, best first: by size, those out of focus after the others; what is no face is left out.

    Args:
        pixels: (h, w, 3) uint8 RGB.
        faces: in these pixels, in any order.
    """
    height, width = pixels.shape[:2]
    good = [face for face in faces if _is_face(face, width, height)]
    sharpness = [_sharpness(pixels, face) for face in good]
    least = _BLURRED * max(sharpness, default=0.0)
    order = sorted(range(len(good)), key=lambda i: (sharpness[i] < least, -good[i].side))
    return [good[i] for i in order][:_MAX_FACES]


def shape_error(landmarks: np.ndarray) -> float:
    """How far landmarks are from those of a mean face that is turned, moved and scaled to fit: RMS, in its size."""
    points = np.asarray(landmarks, dtype=np.float64) @ np.array([1, 1j])
    points = points - points.mean()
    size = float(np.square(np.abs(_MEAN)).sum())
    turn = (np.conj(_MEAN) * points).sum() / size
    if abs(turn) < 1e-9:
        return float("inf")
    return float(np.sqrt(np.square(np.abs(points - turn * _MEAN)).sum() / size) / abs(turn))


def _is_face(face: Detection, width: int, height: int) -> bool:
    """Landmarks make a face that lies in the photo: two eyes or a mouth beyond the border cannot have been seen."""
    points, slack = np.asarray(face.landmarks), _BEYOND * face.side
    inside = ((points >= -slack) & (points <= np.array([width, height]) + slack)).all(axis=1)
    try:
        frame_of(points)
    except EditingError:
        return False
    return int(inside.sum()) >= 4 and shape_error(points) < _MAX_SHAPE_ERROR


def _tilt(landmarks: np.ndarray) -> float:
    """Of a face against upright, in degrees; 0 if its landmarks coincide."""
    try:
        frame = frame_of(landmarks)
    except EditingError:
        return 0.0
    return float(np.degrees(np.arctan2(frame.down, frame.across)))


def _off_middle(face: Detection, size: int) -> float:
    """How far a face lies from the middle of a square, as a share of its side."""
    return float(np.abs(np.asarray(face.landmarks).mean(axis=0) / size - 0.5).max())


def _at_border(face: Detection, pixels: np.ndarray) -> bool:
    left, top, right, bottom = face.box
    near = 0.02 * face.side
    return min(left, top) < near or right > pixels.shape[1] - near or bottom > pixels.shape[0] - near


def _sharpness(pixels: np.ndarray, face: Detection) -> float:
    """Size of the finest differences in the inner face at 64 pixels, where all faces are equally large."""
    inner = framed(pixels, _widened(frame_of(face.landmarks), 0.6), 64).mean(axis=-1)
    fine = inner[1:-1, 1:-1] * 4 - inner[:-2, 1:-1] - inner[2:, 1:-1] - inner[1:-1, :-2] - inner[1:-1, 2:]
    return float(np.sqrt(np.square(fine).mean()) / (inner.std() + 8.0))


def _widened(frame: Frame, by: float) -> Frame:
    """The square with the same middle and ``by`` times the side."""
    middle = frame.corners().mean(axis=0)
    x = np.array([frame.across, frame.down]) * by
    first = middle - (x + np.array([-x[1], x[0]])) / 2
    return Frame(float(first[0]), float(first[1]), float(x[0]), float(x[1]))


def _turned_back(face: Detection, quarters: int, width: int, height: int) -> Detection:
    """A face found in a photo turned anticlockwise, in the photo of that size as it was."""

    def back(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0], points[:, 1]
        match quarters:
            case 1:
                return np.stack([width - y, x], axis=1)
            case 2:
                return np.stack([width - x, height - y], axis=1)
        return np.stack([y, height - x], axis=1)

    corners = np.reshape(face.box, (2, 2))
    return Detection(_box(back(corners)), face.score, back(np.asarray(face.landmarks)))


def _surest(faces: list[Detection]) -> list[Detection]:
    """Of faces in the same place the one with the highest score."""
    kept: list[Detection] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(_overlap(face.box, other.box) < 0.3 for other in kept):
            kept.append(face)
    return kept


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Area in common by the area of the smaller box."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return max(0.0, width) * max(0.0, height) / max(1e-9, min(areas))


def _mapped(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(n, 2) from a framed picture to its photo; both count from the corner of the first pixel here."""
    return (points - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5


def _box(points: np.ndarray) -> tuple[float, float, float, float]:
    """The upright box around some points."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return float(left), float(top), float(right), float(bottom)
