"""Faces that are edited in their photos: which there are, what of them is kept ready, and how they look."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import numpy as np

from editing.device.renderer import Rendered
from editing.face.edits import Edit, SliderEdit, TextEdit
from editing.photo.align import Frame
from editing.photo.face import FIELD_SIDE, SHOWN_SIDE, PhotoFace
from editing.photo.store import PhotoStore
from editing.photo.transfer.fields import Fields
from editing.photo.transfer.tone import COMPLEXION
from memorygan.parts import PartScheme

Place = tuple[float, float, float, float]
Key = tuple[str, tuple[Edit, ...]]  # session and edits
Made = TypeVar("Made")
_KEPT_FACES, _KEPT_FIELDS, _KEPT_PICTURES, _KEPT_ALBUMS = 8, 24, 8, 256
# Sliders whose last word is one of these ask for a colour, also of a black-and-white photo.
_COLOURS = ("redness", "warmth", "hue", "saturation")


class PhotoFaces:
    """Bounded and thread-safe; what is not kept is made again.

    Args:
        store: of the photos.
        scheme: the parts.
        parse: (N, N, 3) uint8 → (s, s, K) shares of the parts, or None without a parser.
        decoding: held while a photo is unpacked at full size.
    """

    def __init__(
        self,
        store: PhotoStore,
        scheme: PartScheme,
        parse: Callable[[np.ndarray], np.ndarray] | None,
        decoding: AbstractContextManager[object],
    ) -> None:
        self._store, self._scheme, self._parse, self._decoding = store, scheme, parse, decoding
        self._lock = threading.Lock()
        self._faces: OrderedDict[tuple[str, Place], PhotoFace] = OrderedDict()
        self._fields: OrderedDict[Key, Fields] = OrderedDict()
        self._pictures: OrderedDict[Key, Rendered] = OrderedDict()
        self._albums: OrderedDict[str, dict[Place, str]] = OrderedDict()

    def of(self, photo: str, place: Place, shares: Callable[[], np.ndarray]) -> PhotoFace:
        """A face of a photo.

        Args:
            photo: token of the store.
            place: left, top, across and down of its frame.
            shares: of the parts as the model shows them, for where there is no parser.

        Raises:
            UnknownSessionError: if the photo is gone.
        """
        found = self._store.photo(photo)  # also marks it as used
        with self._lock:
            if (face := self._faces.get((photo, place))) is not None:
                self._faces.move_to_end((photo, place))
                return face
        frame = Frame(*place)
        coarse = found.scale < 1.0 and frame.side * found.scale < min(SHOWN_SIDE, frame.side)

        def sharp(box: tuple[int, int, int, int]) -> np.ndarray:
            with self._decoding:
                return found.part(box)

        face = PhotoFace(found, frame, self._parse or (lambda _: shares()), self._scheme, sharp if coarse else None)
        with self._lock:
            self._faces[photo, place] = face
            while len(self._faces) > _KEPT_FACES:
                self._faces.popitem(last=False)
        return face

    def fields(self, session: str, edits: tuple[Edit, ...], make: Callable[[int], Fields]) -> Fields:
        """What the edits of a session do to its photo, made once by ``make`` for a size of the fields."""
        return self._kept(self._fields, _KEPT_FIELDS, (session, edits), lambda: make(FIELD_SIDE))

    def picture(self, session: str, edits: tuple[Edit, ...], make: Callable[[], Rendered]) -> Rendered:
        """The photo's face with the edits of a session, made once while few others are asked for."""
        return self._kept(self._pictures, _KEPT_PICTURES, (session, edits), make)

    def _kept(self, kept: OrderedDict[Key, Made], most: int, key: Key, make: Callable[[], Made]) -> Made:
        with self._lock:
            if (known := kept.get(key)) is not None:
                kept.move_to_end(key)
                return known
        made = make()
        with self._lock:
            kept[key] = made
            while len(kept) > most:
                kept.popitem(last=False)
        return made

    def edited(self, photo: str, place: Place, session: str) -> None:
        """Of the sessions of one face, this is the one that was edited last."""
        with self._lock:
            self._albums.setdefault(photo, {})[place] = session
            self._albums.move_to_end(photo)
            while len(self._albums) > _KEPT_ALBUMS:
                self._albums.popitem(last=False)

    def others(self, photo: str, place: Place) -> tuple[str, ...]:
        """Sessions of the photo's other faces, in the order in which they were first edited."""
        with self._lock:
            return tuple(token for where, token in self._albums.get(photo, {}).items() if where != place)

    def forget(self, session: str) -> None:
        """Frees what was kept for a session."""
        with self._lock:
            for kept in (self._fields, self._pictures):
                for key in [key for key in kept if key[0] == session]:
                    del kept[key]


def coloured_parts(edits: tuple[Edit, ...]) -> frozenset[str]:
    """Parts that get colours by these edits also in a black-and-white photo; what is skin takes those of the skin."""
    found = {
        part
        for edit in edits
        if isinstance(edit, TextEdit) or (isinstance(edit, SliderEdit) and edit.slider.endswith(_COLOURS))
        for part in edit.parts
    }
    return frozenset(found | set(COMPLEXION)) if "skin" in found else frozenset(found)
