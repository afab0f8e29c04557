"""The door's part for a person's own photo: in, found and rebuilt, and back at full size with what was edited in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from editing.core import ServiceCore, lent_by
from editing.errors import EditingError, UnknownSessionError
from editing.face.fields import between
from editing.face.photo_ref import PhotoRef
from editing.photo.align import Frame, thumbnail
from editing.photo.decode import decode
from editing.photo.face import PhotoFace, ref_of
from editing.photo.inversion import InversionSettings, invert
from editing.photo.original import Original
from editing.photo.store import Square
from editing.photo.transfer.fields import Fields
from editing.results import (
    CancelToken,
    FaceView,
    InversionProgress,
    JobState,
    PhotoView,
)


class OwnPhotos(ServiceCore):
    """The methods of :class:`editing.service.EditingService` that take or give a photo.

    What takes the token of a session or of a photo raises an :class:`UnknownSessionError` once that is gone.
    """

    def open_photo(self, data: bytes, known: Iterable[str] = ()) -> PhotoView:
        """Decodes an upload and looks for faces; the photo is kept for a while under its token.

        Args:
            data: the file.
            known: tokens of photos; if the file is that of one of them, this one is shown again and none is added.

        Raises:
            EditingError: if the file is no usable picture.
        """
        held = self._photos.same(hashlib.sha256(data).hexdigest(), known)
        if held is not None:
            return self._photos.view(held)
        with self._decoding:
            photo = decode(data)
        detector, problem = self._face_detector()
        return self._photos.add(photo, detector, problem)

    def turn_photo(self, photo: str, quarters: int = 1) -> PhotoView:
        """Turns a photo anticlockwise by right angles and looks for faces again; the old token stays good.

        It is also given back that way round.

        Raises:
            EditingError: for something else than a whole number of right angles.
        """
        between(quarters, "quarters", -3, 3)
        detector, problem = self._face_detector()
        return self._photos.add(self._photos.photo(photo).turned(int(quarters)), detector, problem)

    def close_photo(self, photo: str) -> None:
        """Forgets a photo, once no open face is edited in it; nothing happens if it is gone already."""
        with self._lock:
            self._unwanted.add(photo)
        self._close_photos()

    def _close_photos(self) -> None:
        in_use = self._store.photos()
        with self._lock:
            free = self._unwanted - in_use
            self._unwanted -= free
        for photo in free:
            self._photos.close(photo)

    def framed(self, photo: str, face: int = 0, crop: Square | None = None) -> np.ndarray:
        """The aligned face, or the square cut out by hand, that :meth:`invert` works on.

        Returns:
            (S, S, 3) uint8 RGB.

        Raises:
            EditingError: for a face or crop that is not there.
        """
        return self._photos.framed(photo, face, crop, self.size)

    def invert(
        self,
        photo: str,
        face: int = 0,
        crop: Square | None = None,
        steps: int = 200,
        tune_steps: int = 0,
        cancel: CancelToken | None = None,
        owner: str = "",
        resume: JobState | None = None,
    ) -> Iterator[InversionProgress]:
        """Turns a photo into an editable face; yields after every step, and last the opened session.

        Args:
            photo: token.
            face: index of a found face.
            crop: left, top and side in pixels of the photo, and degrees of a clockwise turn if it has one, instead of a
                found face.
            steps: of the refinement of the codes; 0 takes the encoder's.
            tune_steps: of the render net, for this face alone; edits stay exact, a saved recipe does not carry it.
            cancel: ends the job within a step; the best so far is opened.
            owner: jobs of one owner take turns with those of others; default: the photo.
            resume: where the same job stood when it was cut off, see :attr:`InversionProgress.state`.

        Raises:
            EditingError: for a face or crop that is not there, or steps out of range.
            BusyError: on the first step, if too many jobs are waiting.
        """
        settings = InversionSettings(steps=steps, tune_steps=tune_steps)
        frame, pixels = self._photos.frame(photo, face, crop), self.framed(photo, face, crop)
        token, whose = cancel or CancelToken(), owner or photo

        def progress() -> Iterator[InversionProgress]:
            waiting = InversionProgress("waiting", 0, steps + tune_steps, pixels, pixels)
            work = invert(
                self._assets.generator,
                self._assets.encoder,
                self._assets.parser,
                pixels,
                settings,
                lambda step: self._worker.step(whose, step),
                token,
                None if self._guides is None else self._guides.identity(),
                resume,
                None if self._guides is None else self._guides.guide(),
            )
            result = yield from self._jobs.in_turn(whose, token, waiting, work)
            if result is not None:
                opened = self._store.open(result.source(), result.generator)
                yield replace(result.progress, view=self._placed(opened.id, photo, frame))

        return progress()

    def place(self, session: str, photo: str, face: int = 0, crop: Square | None = None) -> FaceView:
        """Puts a face that was rebuilt elsewhere into the photo it was rebuilt from; :meth:`invert` does so itself.

        Raises:
            EditingError: for a face or crop that is not there.
        """
        return self._placed(session, photo, self._photos.frame(photo, face, crop))

    def show_photo(self, photo: str) -> PhotoView:
        """A photo that was opened, as :meth:`open_photo` showed it."""
        return self._photos.view(photo)

    def photos_of(self, session: str) -> tuple[str, ...]:
        """Tokens of the photos a face is shown in and takes parts from, its own first; empty if it has none here."""
        with self._store.using(session) as found:
            self._photo_face(found)  # notices if it is gone
            return tuple(dict.fromkeys(token for token in (found.photo_token, *found.lenders.values()) if token))

    def number_in_photo(self, session: str) -> tuple[int, int]:
        """Which face of its photo a face is, from 1, and how many are known there; (0, 0) without its photo."""
        with self._store.using(session) as found:
            if found.photo is None or self._photo_face(found) is None:
                return 0, 0
            return self._photos.number(found.photo_token, Frame(*found.photo.frame))

    def beside(self, session: str) -> tuple[str, ...]:
        """Sessions of the edited other faces of the photo of a face, in the order in which they were first edited."""
        with self._store.using(session) as found:
            token, ref = found.photo_token, found.photo
        return self._faces.others(token, ref.frame) if ref is not None and token else ()

    def awaits(self, session: str) -> tuple[PhotoRef, ...]:
        """The photos that are not here: the one a face of a recipe belongs into, and those it took parts from."""
        with self._store.using(session) as found:
            return self._missing_photos(found)

    def give_photo(self, session: str, photo: str) -> FaceView:
        """Brings a face of a recipe and a photo it belongs into, or took parts from, together again.

        Other faces that the recipe has in the photo are opened as well, see :meth:`beside`.

        Args:
            session: token of the face.
            photo: token of the photo.

        Raises:
            EditingError: if the face belongs into no photo, or another one.
        """
        found = self._photos.photo(photo)
        with self._store.using(session) as face:
            ref, others, lent = face.photo, face.others, lent_by(face.edits)
        wanted = [one for one in (ref, *lent) if one is not None]
        if not wanted:
            raise EditingError("this face does not come from a photo; rebuild the photo's face instead")
        fitting = [one for one in wanted if one.sha256 == found.sha256]
        if not fitting:
            raise EditingError(
                f"this is another photo than the recipe's, which is {wanted[0].describe()}; choose that one"
            )
        turned = {found.turns: photo}
        for one in fitting:
            if one.turns not in turned:
                turned[one.turns] = self.turn_photo(photo, (one.turns - found.turns) % 4).photo
        if ref in fitting:
            own = turned[ref.turns]
            self._photos.number(own, Frame(*ref.frame))  # the first one of those that are framed by hand
            for other in others:
                if other.photo is not None and other.photo.sha256 == ref.sha256:
                    opened = self._store.open(other.source)
                    with self._store.using(opened.id) as beside:
                        beside.load(other.edits)
                    self._placed(opened.id, own, Frame(*other.photo.frame))
        with self._store.using(session) as face:
            face.lenders |= {one: turned[one.turns] for one in lent if one in fitting}
            self._faces.forget(session)  # what was kept was made without
            if ref not in fitting:
                return self._view(face)
        return self._placed(session, turned[ref.turns], Frame(*ref.frame))

    def _placed(self, session: str, photo: str, frame: Frame) -> FaceView:
        found = self._photos.photo(photo)
        self._photos.number(photo, frame)
        with self._store.using(session) as face:
            face.photo = ref_of(found, frame)
            face.photo_token, face.others = photo, ()
            if face.edits:
                self._note(face)
            return self._view(face)

    def model_view(self, session: str) -> FaceView:
        """The face as the model sees it: of a photo its rebuild; of any other face as :meth:`view`."""
        with self._store.using(session) as found:
            picture = self._rendered(found, found.edits)
            shown = replace(self._view(found), image=picture.image, part_map=picture.part_map, in_photo=False)
        return shown

    def whole(self, session: str, side: int = 1024) -> tuple[np.ndarray, np.ndarray]:
        """The photo with the edits of all its faces, small.

        Returns:
            (h, w, 3) uint8 with a longer side of at most ``side`` pixels, and (4, 2) x, y: the corners of the face's
            frame in it.

        Raises:
            EditingError: if the face does not come from a photo, or the photo is not here.
        """
        layers = self._layers(session)
        photo, frame = layers[-1][0].photo, layers[-1][0].frame
        pixels = thumbnail(photo.pixels, side)
        for face, fields in layers:
            pixels = face.put_on(fields, pixels)
        return pixels, frame.scaled(pixels.shape[1] / photo.width).corners()

    def edited_photo(self, session: str) -> Original:
        """The photo at full size with the edits of all its faces; all other pixels are the same to the bit.

        Raises:
            EditingError: if the face does not come from a photo, or the photo is not here.
        """
        layers = self._layers(session)
        with self._decoding:  # few are unpacked at the same time
            photo = layers[-1][0].photo.original()
        for face, fields in layers:
            photo = face.put_back(fields, photo)
        return photo

    def _layers(self, session: str) -> list[tuple[PhotoFace, Fields]]:
        """What the edits of a photo's faces do to it, in order; those of the session last."""
        with self._store.using(session) as found:
            token, ref = found.photo_token, found.photo
        if ref is None or not token:
            raise EditingError("the photo of this face is not here; open it again first")
        layers: list[tuple[PhotoFace, Fields]] = []
        for one in (*self._faces.others(token, ref.frame), session):
            try:
                with self._store.using(one) as found:
                    face = self._photo_face(found)
                    if face is not None:
                        layers.append((face, self._fields(found, face, found.edits)))
            except UnknownSessionError:
                if one == session:
                    raise
        if not layers or layers[-1][0].ref != ref:
            raise EditingError("the photo of this face is not here; open it again first")
        return layers
