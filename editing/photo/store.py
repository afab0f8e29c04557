"""Uploaded photos: decoded once, kept for a short while, found faces and aligned crops."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from editing.errors import EditingError, UnknownSessionError
from editing.face.store import keep_expiring, new_token
from editing.photo.align import Detection, Detector, align, crop, thumbnail
from editing.photo.decode import Photo
from editing.results import FoundFace, PhotoView

_PREVIEW_SIDE = 1024
_THUMBNAIL_SIDE = 128


@dataclass
class _Kept:
    photo: Photo
    faces: list[Detection]
    used: float


class PhotoStore:
    """Bounded, thread-safe; the least recently used photo goes first.

    Args:
        max_photos: kept at a time, up to 12 MB each.
        max_age: seconds without use after which a photo is forgotten.
    """

    def __init__(self, max_photos: int = 24, max_age: float = 3600.0) -> None:
        self.max_photos, self.max_age = max_photos, max_age
        self._lock = threading.Lock()
        self._photos: OrderedDict[str, _Kept] = OrderedDict()
        keep_expiring(self)

    def __len__(self) -> int:
        return len(self._photos)

    def add(self, photo: Photo, detector: Detector | None, problem: str = "") -> PhotoView:
        """Keeps a photo and looks for faces in it.

        Args:
            photo: decoded.
            detector: or None; ``problem`` then says why.
        """
        faces, notices = [], list(photo.notices)
        if detector is None:
            notices.append(problem)
        else:
            faces = [face for face in detector(photo.pixels) if _usable(photo, face)]
            if not faces:
                notices.append("No face was found; draw a square around it to go on.")
            elif len(faces) > 1:
                notices.append(f"{len(faces)} faces were found; choose one.")
        token = new_token()
        with self._lock:
            self._forget()
            self._photos[token] = _Kept(photo, faces, time.monotonic())
            while len(self._photos) > self.max_photos:
                self._photos.popitem(last=False)
        height, width = photo.pixels.shape[:2]
        found = tuple(
            FoundFace(index, face.box, face.score, align(photo.pixels, face.landmarks, _THUMBNAIL_SIDE))
            for index, face in enumerate(faces)
        )
        return PhotoView(token, thumbnail(photo.pixels, _PREVIEW_SIDE), width, height, found, tuple(notices))

    def framed(self, token: str, face: int, square: tuple[float, float, float] | None, size: int) -> np.ndarray:
        """(size, size, 3) uint8: a found face aligned, or a square cut out by hand.

        Raises:
            UnknownSessionError: if the photo is gone.
            EditingError: if there is no such face or the square is unusable.
        """
        with self._lock:
            self._forget()
            kept = self._photos.get(token)
            if kept is None:
                raise UnknownSessionError("this photo is no longer here; upload it again")
            kept.used = time.monotonic()
            self._photos.move_to_end(token)
        if square is not None:
            return crop(kept.photo.pixels, *square, size)
        if not kept.faces:
            raise EditingError("no face was found in this photo; draw a square around it")
        if not 0 <= face < len(kept.faces):
            raise EditingError(f"there is no face {face}; choose one from 0 to {len(kept.faces) - 1}")
        return align(kept.photo.pixels, kept.faces[face].landmarks, size)

    def close(self, token: str) -> None:
        """Forgets a photo; nothing happens if it is gone already."""
        with self._lock:
            self._photos.pop(token, None)

    def expire(self) -> None:
        """Forgets photos that were not used for too long."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        deadline = time.monotonic() - self.max_age
        for token in [token for token, kept in self._photos.items() if kept.used < deadline]:
            del self._photos[token]


def _usable(photo: Photo, face: Detection) -> bool:
    try:
        align(photo.pixels, face.landmarks, 8)
    except EditingError:
        return False
    return True
