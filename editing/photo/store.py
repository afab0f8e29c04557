"""Uploaded photos: kept for a short while with the faces found in them; framing of a face or of a square."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from editing.errors import EditingError, UnknownSessionError
from editing.face.store import keep_expiring, new_token
from editing.photo.align import Frame, frame_of, framed, square, thumbnail
from editing.photo.decode import Photo
from editing.photo.detect import Detection, Detector
from editing.results import FoundFace, PhotoView

_PREVIEW_SIDE = 1024
_THUMBNAIL_SIDE = 128
# Of a frame, how much may lie beyond the photo without a word.
_CUT = 0.05
# Frames whose middles lie nearer than this, in sides, are about the same face.
_SAME_FACE = 0.25
# A square drawn by hand: left, top and side in pixels of the photo, and degrees by which it is turned clockwise.
Square = tuple[float, float, float] | tuple[float, float, float, float]


@dataclass
class _Kept:
    photo: Photo
    faces: list[Detection]
    used: float
    problem: str = ""
    frames: list[Frame] = field(default_factory=list)  # of the found faces, and of those that were framed otherwise

    @property
    def bytes(self) -> int:
        return len(self.photo.data) + self.photo.pixels.nbytes


class PhotoStore:
    """Bounded, thread-safe; the least recently used photo goes first.

    What takes a photo's token raises an :class:`UnknownSessionError` once that is gone.

    Attributes:
        max_photos: kept at a time.
        max_age: seconds without use after which a photo is forgotten.
        max_bytes: of files and their small pictures, all together; the newest photo stays in any case.
    """

    max_photos = 24
    max_age = 3600.0
    max_bytes = 384 * 2**20

    def __init__(self) -> None:
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
        faces = [] if detector is None else [face.placed(1.0 / photo.scale) for face in detector(photo.pixels)]
        found, frames = [], []
        for face in faces:
            with suppress(EditingError):  # too small
                frames.append(frame_of(face.landmarks))
                found.append(face)
        token, kept = new_token(), _Kept(photo, found, time.monotonic(), problem if detector is None else "", frames)
        with self._lock:
            self._forget()
            self._photos[token] = kept
            while len(self._photos) > self.max_photos or (len(self._photos) > 1 and self._bytes() > self.max_bytes):
                self._photos.popitem(last=False)
        return _view(token, kept)

    def view(self, token: str) -> PhotoView:
        """A photo as :meth:`add` showed it."""
        return _view(token, self._use(token))

    def has(self, token: str) -> bool:
        """Whether a photo is still here; it does not count as used."""
        with self._lock:
            self._forget()
            return token in self._photos

    def same(self, sha256: str, among: Iterable[str]) -> str | None:
        """Of some photos, the token of one whose file has this hash; the last of several."""
        with self._lock:
            self._forget()
            kept = {token: self._photos[token] for token in among if token in self._photos}
        return next((token for token, one in reversed(kept.items()) if one.photo.sha256 == sha256), None)

    def number(self, token: str, frame: Frame) -> tuple[int, int]:
        """Which face of a photo a frame is about, from 1, and how many there are: found ones, then framed by hand."""
        kept = self._use(token)
        with self._lock:
            middles = [one.corners().mean(axis=0) for one in kept.frames]
            far = [float(np.hypot(*(middle - frame.corners().mean(axis=0)))) / frame.side for middle in middles]
            if far and min(far) < _SAME_FACE:
                place = far.index(min(far))
            else:
                place = len(kept.frames)
                kept.frames.append(frame)
            return place + 1, len(kept.frames)

    def photo(self, token: str) -> Photo:
        """The photo itself."""
        return self._use(token).photo

    def frame(self, token: str, face: int, by_hand: Square | None) -> Frame:
        """The square around a found face, or one drawn by hand, in pixels of the full photo.

        Raises:
            EditingError: if there is no such face or the square is unusable.
        """
        kept = self._use(token)
        if by_hand is not None:
            return square(kept.photo.width, kept.photo.height, *by_hand)
        if not kept.faces:
            raise EditingError("no face was found in this photo; draw a square around it")
        if not 0 <= face < len(kept.faces):
            raise EditingError(f"there is no face {face}; choose one from 0 to {len(kept.faces) - 1}")
        return frame_of(kept.faces[face].landmarks)

    def framed(self, token: str, face: int, by_hand: Square | None, size: int) -> np.ndarray:
        """(size, size, 3) uint8 sRGB: what lies in :meth:`frame`; what lies beyond the photo is filled neutrally."""
        frame, photo = self.frame(token, face, by_hand), self.photo(token)
        return framed(photo.pixels, frame.scaled(photo.scale), size)

    def close(self, token: str) -> None:
        """Forgets a photo; nothing happens if it is gone already."""
        with self._lock:
            self._photos.pop(token, None)

    def expire(self) -> None:
        """Forgets photos that were not used for too long."""
        with self._lock:
            self._forget()

    def _use(self, token: str) -> _Kept:
        with self._lock:
            self._forget()
            kept = self._photos.get(token)
            if kept is None:
                raise UnknownSessionError("this photo is no longer here; upload it again")
            kept.used = time.monotonic()
            self._photos.move_to_end(token)
            return kept

    def _bytes(self) -> int:
        return sum(kept.bytes for kept in self._photos.values())

    def _forget(self) -> None:
        deadline = time.monotonic() - self.max_age
        for token in [token for token, kept in self._photos.items() if kept.used < deadline]:
            del self._photos[token]


def _view(token: str, kept: _Kept) -> PhotoView:
    photo = kept.photo
    found: list[FoundFace] = []
    for face in kept.faces:
        frame = frame_of(face.landmarks)
        picture = framed(photo.pixels, frame.scaled(photo.scale), _THUMBNAIL_SIDE)
        beyond, notice = frame.outside(photo.width, photo.height), ""
        if beyond > _CUT:
            notice = (
                f"The photo ends within this face’s frame ({beyond:.0%} of it lies outside). "
                "What lies there is made up and never gets into the photo."
            )
        found.append(FoundFace(len(found), face.box, face.score, picture, notice))
    notices = list(photo.notices)
    if kept.problem:
        notices.append(kept.problem)
    elif not found:
        notices.append("No face was found; turn the photo if it does not stand upright, or draw a square by hand.")
    elif len(found) > 1:
        notices.append(f"{len(found)} faces were found; choose one.")
    shown = thumbnail(photo.pixels, _PREVIEW_SIDE)
    return PhotoView(token, shown, photo.width, photo.height, tuple(found), tuple(notices), photo.grey)
