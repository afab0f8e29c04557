"""Between the service and the widgets: opens and changes faces of one page, and says how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from app import pictures
from app.guard import refuse, sentence, tell
from app.visit import Opened, Visit
from editing.errors import EditingError, UnknownSessionError
from editing.results import SEEN, Candidate, Change, FaceView, PhotoView
from editing.service import EditingService
from editing.sliders.directions import Slider
from memorygan.parts import LayerGroup

BASE = "base"
BASE_LABEL = "Pose and framing"
# Browsers give a page some 5 million characters.
MAX_STORED = 1_500_000
_FIRST_SEED = 7
_MOST = {"eyeglass.worn": 6}  # rebuilt photos wear glasses from 4 or 5 on only
_GALLERY_SHOWN = 12


class Desk:
    """What all tabs share, made once per program; everything about one page is in its :class:`Visit`."""

    def __init__(self, service: EditingService) -> None:
        self.service = service
        self.labels = {part.name: part.label for part in service.parts} | {BASE: BASE_LABEL}
        self.parts: list[dict[str, Any]] = [
            {"name": part.name, "label": part.label, "color": list(part.color)} for part in service.parts
        ]
        self.sliders = [
            {
                "id": slider.id,
                "part": slider.part,
                "label": slider.label,
                "low": slider.low,
                "high": slider.high,
                "help": _slider_help(slider),
                "most": _MOST.get(slider.id, 3),
            }
            for slider in service.sliders()
        ]
        seeds = service.gallery()
        self.first_seed = seeds[0] if seeds else _FIRST_SEED
        self.gallery: tuple[Candidate, ...] = (
            service.faces_of(seeds[:_GALLERY_SHOWN]) if seeds else service.candidates(_GALLERY_SHOWN, _FIRST_SEED)
        )
        self.first = self._first()

    def off(self, capability: str) -> str:
        """Why a capability is off, as a sentence; "" if it is there."""
        reason = self.service.capabilities.get(capability, "")
        return sentence(reason) if reason else ""

    def parts_with_base(self) -> list[dict[str, Any]]:
        """The parts to choose from where pose and framing is one of them."""
        base = {"name": BASE, "label": BASE_LABEL, "color": None}
        return [*self.parts, base] if self.service.sliders(BASE) else self.parts

    # --- opening faces

    def enter(self, visit: Visit, view: FaceView, label: str) -> Opened:
        """Puts a face that was just opened on show."""
        opened = self.opened(visit, view, label)
        for token in visit.enter(opened):
            self.service.close_session(token)
        visit.variants = ()
        if view.notice:
            tell(view.notice)
        return opened

    def opened(self, visit: Visit, view: FaceView, label: str) -> Opened:
        """A face of this page that is not on show yet."""
        return Opened(
            token=view.session,
            number=next(visit.numbers),
            label=label,
            thumb=pictures.thumb(view.image),
            recipe=self.service.export_json(view.session),
            before=pictures.jpeg(view.image) if not view.history else "",
        )

    def open_file(self, visit: Visit, data: bytes) -> FaceView:
        """Puts a saved face on show; of a project also its photo, and the other faces that were edited there."""
        view = self.service.open_recipe(data)
        if view.in_photo:
            self.keep_photos(visit, view.session)
            own = self.service.photos_of(view.session)[0]
            job = visit.rebuilding
            if job is None or job.task.ended:
                self.put_photo(visit, self.service.show_photo(own))
        self.enter(visit, view, self.label_of(view))
        return view

    def keep_photos(self, visit: Visit, session: str) -> None:
        """Keeps the photos of a face as long as the page, and takes other faces of its photo into the history."""
        visit.photos.update(self.service.photos_of(session))
        for token in self.service.beside(session):
            if visit.find(token) is None:
                view = self.service.view(token)
                for gone in visit.add(self.opened(visit, view, self.label_of(view))):
                    self.service.close_session(gone)

    def label_of(self, view: FaceView) -> str:
        """A few words for a face; those of one photo are numbered."""
        if view.seed is not None:
            return f"Face {view.seed}"
        if not view.in_photo:
            return "Opened face"
        number, count = self.service.number_in_photo(view.session)
        return f"Photo, face {number}" if count > 1 else "Photo"

    def put_photo(self, visit: Visit, found: PhotoView) -> dict[str, Any]:
        """Puts a photo in the place of the last one in the Photo tab, and ends what went on with that."""
        with visit.lock:
            previous, visit.photo = visit.photo, found.photo
            rebuilt, visit.rebuilt = visit.rebuilt, {}
            if visit.rebuilding is not None:
                visit.rebuilding.task.cancel.cancel()
            visit.rebuilding = None
        if previous is not None and previous != found.photo and previous not in visit.photos:
            self.service.close_photo(previous)
        for token in rebuilt.values():
            self.service.close_session(token)
        visit.photo_shown = {
            "id": next(visit.numbers),
            "image": pictures.jpeg(found.image, pictures.AS_IS, quality=88),
            "alt": f"Your photo; {len(found.faces) or 'no'} face{'s' * (len(found.faces) != 1)} found",
            "width": found.width,
            "height": found.height,
            "faces": [{"box": list(face.box), "notice": face.notice} for face in found.faces],
        }
        return visit.photo_shown

    def reunite(self, visit: Visit, photo: str) -> bool:
        """Brings the faces of this page that wait for a photo together with it, if it is the one their recipes name.

        Returns:
            Whether there was one.
        """
        met = []
        for face in visit.opened():
            with suppress(EditingError):  # another photo, or a face that is gone
                if not self.service.awaits(face.token):
                    continue
                view = self.service.give_photo(face.token, photo)
                self.keep_photos(visit, face.token)
                face.number, face.before = next(visit.numbers), ""
                face.thumb, face.recipe = pictures.thumb(view.image), self.service.export_json(face.token)
                if face.label in ("Opened face", "Photo"):
                    face.label = self.label_of(view)
                met.append(face)
        if visit.current in met:
            tell("This is the photo of the face on show: its edits are in the photo again.")
        elif met:
            tell("This is a photo of faces of this visit: their edits are in the photo again.")
        return bool(met)

    def run(self, visit: Visit, action: Callable[[str], FaceView], face: Opened | None = None) -> FaceView:
        """Does something with a face, or else that on show; one that the server forgot is opened from its recipe."""
        here = face or visit.here()
        try:
            return action(here.token)
        except UnknownSessionError:
            if not here.recipe:
                raise
            here.token = self.service.open_recipe(here.recipe).session
            here.number = next(visit.numbers)
            view = action(here.token)
            tell("The server had put this face aside; it was opened again from its recipe.")
            return view

    def commit(
        self, visit: Visit, action: Callable[[str], FaceView], seq: int | None = None, owner: int = 0
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """An edit; returns the face to show and what the browser keeps. A refusal is said, and the face shown again.

        Args:
            visit: of the page.
            action: makes the edit, given a session.
            seq: number of the gesture, see :meth:`face`.
            owner: :attr:`app.visit.Opened.id` of the face it is meant for; 0 for the one on show.
        """
        view = None
        try:
            own = visit.called(owner)
            if own is visit.here():
                view = self.run(visit, action)
            elif own is not None:
                # Another face was opened meanwhile; the edit is kept with its own.
                own.thumb = pictures.thumb(action(own.token).image)
                own.recipe = self.service.export_json(own.token)
        except EditingError as error:
            refuse(error)
        if view is None or view.session != visit.here().token:
            # Refused, or another face was opened before or meanwhile.
            return self.show(visit), self.stored(visit)
        visit.forward.clear()
        return self.face(visit, view, seq), self.stored(visit)

    def step(self, visit: Visit, by: int) -> FaceView:
        """Undo (−1) or redo (1), across faces where the edits of one end."""
        now = self.run(visit, self.service.view)
        if now.can_undo if by < 0 else now.can_redo:
            return self.run(visit, self.service.undo if by < 0 else self.service.redo)
        visit.step(by)
        return self.run(visit, self.service.view)

    # --- what the browser gets

    def show(self, visit: Visit) -> dict[str, Any]:
        """The face on show as it stands."""
        return self.face(visit, self.run(visit, self.service.view))

    def face(self, visit: Visit, view: FaceView, seq: int | None = None) -> dict[str, Any]:
        """A committed face for the stage.

        Args:
            visit: of the page; its current face is the one in ``view``.
            view: the face.
            seq: number of the gesture that made the change, see ``static/studio.js``.
        """
        here = visit.here()
        here.recipe = self.service.export_json(here.token)
        here.thumb = pictures.thumb(view.image)
        image = pictures.jpeg(view.image)
        if not here.before:
            here.before = pictures.jpeg(self.service.before(here.token).image)
        model = pictures.jpeg(self.service.model_view(here.token).image) if view.in_photo else ""
        total = self.service.change(here.token, "source") if len(view.history) > 1 else view.change
        rebuilding = visit.rebuilding
        return {
            # Gradio tells a widget only about a value that differs from the last one.
            "n": next(visit.numbers),
            "face": here.number,
            "id": here.id,
            "revision": view.revision,
            "seq": seq,
            "image": image,
            "map": pictures.ids(pictures.reduced_map(view.part_map)),
            "before": here.before,
            "change": pictures.jpeg(pictures.reduced(pictures.heat(view.change, view.image))) if view.change else image,
            "change_all": pictures.jpeg(pictures.reduced(pictures.heat(total, view.image))) if total else image,
            "title": here.label,
            "caption": self._caption("The last step", view.change, view),
            "caption_all": self._caption("All edits together", total, view),
            "alt": self._alt(here, view),
            "sliders": dict(view.sliders),
            "edits": len(view.history),
            "in_photo": view.in_photo,
            "model": model,
            "undo": view.can_undo or bool(visit.back),
            "redo": view.can_redo or bool(visit.forward),
            "job": "describe" if visit.description else "photo" if rebuilding and not rebuilding.taken else "",
            "photo": visit.photo_shown["id"] if visit.photo_shown else 0,
        }

    def whole(self, visit: Visit) -> dict[str, Any]:
        """The photo of the face on show with all edits in it, and the face's frame."""
        here = visit.here()
        picture, corners = self.service.whole(here.token)
        return {
            "n": next(visit.numbers),
            "face": here.number,
            "revision": self.service.view(here.token).revision,
            "image": pictures.jpeg(pictures.outlined(picture, corners), pictures.AS_IS),
            "alt": f"The whole photo of {here.label}, with the edits of all its faces",
        }

    def live(self, visit: Visit, view: FaceView, seq: int) -> dict[str, Any]:
        """A preview for the stage: little to compute, little to send."""
        opened = visit.find(view.session)
        return {
            "face": opened.number if opened else 0,
            "revision": view.revision,
            "seq": seq,
            "image": pictures.jpeg(view.image, pictures.SHOWN // 2, quality=85),
        }

    def strip(self, visit: Visit) -> dict[str, Any]:
        """The history of faces."""
        with visit.lock:
            items = [
                {"image": face.thumb, "label": face.label, "alt": f"{face.label}, as it was left"}
                for face in visit.faces
            ]
            chosen = visit.faces.index(visit.current) if visit.current in visit.faces else None
        return {"items": items, "chosen": chosen}

    def stored(self, visit: Visit) -> dict[str, Any]:
        """What the browser keeps, so that a reload restores the work."""
        here = visit.here()
        return {"recipe": here.recipe if len(here.recipe) <= MAX_STORED else "", "label": here.label}

    def candidates(self, found: Sequence[Candidate]) -> dict[str, Any]:
        """Faces to choose from."""
        return {
            "items": [
                {
                    "image": pictures.thumb(face.image),
                    "label": str(face.seed),
                    "alt": f"Sampled face, seed {face.seed}",
                    "title": f"Open the face with seed {face.seed}",
                }
                for face in found
            ],
            "chosen": None,
        }

    def names(self, parts: Sequence[str]) -> str:
        """ "the hair", "the hair and nose", "5 parts"."""
        words = [self.labels.get(name, name).lower() for name in parts]
        if not words:
            return ""
        if len(words) > 4:
            return f"{len(words)} parts"
        return " and ".join([f"the {', '.join(words[:-1])}", words[-1]] if len(words) > 1 else [f"the {words[0]}"])

    # --- words

    def _caption(self, what: str, change: Change | None, view: FaceView) -> str:
        if change is None:
            if view.history:
                return f"{what} changed nothing that can be seen."
            return "Nothing is edited yet. Click a part of the face to begin."
        if not change.map.any() or (change.parts and change.area and change.inside < SEEN):
            more = "a stronger setting, or take the part from another face" if view.in_photo else "a stronger setting"
            return f"{what} changed nothing that can be seen. Try {more}."
        untouched = f"{change.preserved:.0%} of all pixels are untouched"
        if not change.parts:
            return f"{what} concerned the whole picture; {untouched}."
        return (
            f"{what} changed {self.names(change.parts)}. Changed outside: {change.outside:.1f} of 255 on average "
            f"(inside: {change.inside:.1f}); {untouched}."
        )

    def _alt(self, here: Opened, view: FaceView) -> str:
        if not view.history:
            return f"{here.label}, not edited"
        return f"{here.label}, edited: {'; '.join(view.history[-4:])}"

    def _first(self) -> dict[str, Any]:
        """The face everybody sees until their own is open: part of the page, so it is there at once."""
        view = self.service.new_face(self.first_seed)
        visit = Visit()
        visit.current = self.opened(visit, view, self.label_of(view))
        try:
            return self.face(visit, view) | {"face": 0, "id": 0, "n": 0}
        finally:
            self.service.close_session(view.session)


def _slider_help(slider: Slider) -> str:
    """The technical side of a slider, in a few words."""
    layers = "shape and texture layers" if slider.group == LayerGroup.OWN else f"{slider.group.value} layers"
    if not slider.measured:
        return f"{layers}, a main direction of their variety"
    return f"{layers}, measured: {slider.measured}, r = {slider.correlation:.2f}"
