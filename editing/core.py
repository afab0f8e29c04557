"""The inside of the service: what the public methods share. Sessions, pictures, previews, measures, device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from editing.device.loading import Assets
from editing.device.renderer import PreviewRequest, Rendered, Renderer, together
from editing.device.turns import Turnstile
from editing.device.worker import Worker
from editing.errors import EditingError, UnknownSessionError, quoted
from editing.face.codes import Codes
from editing.face.edits import SliderEdit, SwapEdit
from editing.face.fields import between
from editing.face.measure import change_between
from editing.face.photo_ref import PhotoRef
from editing.face.recipe import Recipe
from editing.face.session import Edits, Session
from editing.face.sources import CodesSource, SeedSource, Source
from editing.face.state import FaceEditor, differing, parts_source
from editing.face.store import SessionStore
from editing.guidance.registry import Guides
from editing.photo.detect import Detector, MtcnnDetector
from editing.photo.face import PREVIEW_FIELD_SIDE, PREVIEW_SIDE, PhotoFace, look, plan_of, shares_of
from editing.photo.faces import PhotoFaces, coloured_parts
from editing.photo.store import PhotoStore
from editing.photo.transfer.borrow import Lent, lends
from editing.photo.transfer.fields import Fields
from editing.photo.transfer.transfer import Plan
from editing.results import SEEN, CancelToken, Change, FaceView, JobState
from editing.text.led import led
from editing.text.optimize import Spreads, optimize
from editing.text.results import TextProgress, TextProposal
from editing.text.seen import seen
from editing.text.wish import Wish
from memorygan.config import GeneratorConfig
from memorygan.generator import ComposedGenerator, MemoryGAN
from memorygan.latents import Latents
from memorygan.parts import FACE_PARTS, PartScheme

# Uploads unpacked at the same time, each up to some hundred megabytes.
_DECODES = 2


@dataclass(frozen=True)
class Limits:
    """What one service takes on.

    Attributes:
        max_sessions: faces kept ready; more are kept as recipes and restored on demand.
        max_batch: previews computed together.
        batch_window: seconds a preview waits for companions.
        max_jobs, max_waiting_jobs: reconstructions and edits by sentences that run and that wait.
    """

    max_sessions: int = 64
    max_batch: int = 8
    batch_window: float = 0.003
    max_jobs: int = 2
    max_waiting_jobs: int = 16


class ServiceCore:
    """What the public methods of :class:`editing.service.EditingService` share; arguments are described there."""

    def __init__(
        self,
        assets: Assets,
        limits: Limits | None = None,
        detector: Detector | None = None,
        guides: Guides | None = None,
        renderer: Renderer | None = None,
        threads: int = 1,
    ) -> None:
        self.limits = limits or Limits()
        self._guides, self._spreads = guides, Spreads()
        self._assets, self._detector = assets, detector
        self._missing = dict(assets.missing)
        self._notices = [assets.notice] if assets.notice else []
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._renderer = renderer or Renderer(assets.generator)
        self._worker = Worker(
            self._preview_batch,
            self._leave_gpu,
            self._renderer.cache.clear,
            max_batch=self.limits.max_batch,
            batch_window=self.limits.batch_window,
            threads=threads,
        )
        self._editor = FaceEditor(
            assets.generator, assets.sliders, lambda work: self._worker.call("sample", work), assets.prior
        )
        self._store = SessionStore(self._editor, self.limits.max_sessions, self._forget)
        self._photos = PhotoStore()
        self._jobs = Turnstile(self.limits.max_jobs, self.limits.max_waiting_jobs)
        self._decoding = threading.BoundedSemaphore(_DECODES)
        self._unwanted: set[str] = set()  # photos that are to go with the last face that is edited in them
        self._faces = PhotoFaces(self._photos, self._scheme, self._parse if self._parses else None, self._decoding)

    @property
    def notice(self) -> str | None:
        """Sentences to show permanently, or None."""
        return " ".join(self._notices) or None

    @property
    def size(self) -> int:
        """Side in pixels of the pictures in which the model sees and draws."""
        return self._assets.generator.config.size

    @property
    def picture_size(self) -> int:
        """Side in pixels of the full pictures of faces that come from no photo."""
        return self._assets.generator.picture_size

    @property
    def config(self) -> GeneratorConfig:
        """Sizes of the generator in use."""
        return self._assets.generator.config

    @property
    def kind(self) -> str:
        """Kind of the generator in use, a key of :data:`memorygan.checkpoint.GENERATORS`."""
        return "memorygan" if isinstance(self._assets.generator, MemoryGAN) else "semanticstylegan"

    @property
    def preview_size(self) -> int:
        """Side of previews in pixels: half, but at least 128 where the model has as many.

        Below that a full picture takes no time to speak of, and a network trained to be looked at in full size may draw
        eyes as black holes at half of it.
        """
        return max(min(128, self.size), self.size // 2)

    @property
    def trained(self) -> bool:
        """False for the untrained stand-in."""
        return self._assets.trained

    @property
    def checkpoint(self) -> str:
        """sha256 of the generator's checkpoint."""
        return self._assets.sha256

    @property
    def model(self) -> str:
        """Name of the checkpoint."""
        return self._assets.name

    @property
    def device(self) -> str:
        """Where pictures are computed now."""
        return str(self._renderer.device)

    @property
    def _scheme(self) -> PartScheme:
        return self._assets.generator.config.parts

    @property
    def _parses(self) -> bool:
        """Whether a face parser of the generator's parts is there."""
        return self._assets.parser is not None and self._scheme.names == FACE_PARTS.names

    def _part(self, part: str) -> int:
        try:
            return self._scheme.index(part)
        except ValueError as error:
            raise EditingError(str(error)) from None

    def _side(self, size: int | None) -> int | None:
        """The smallest side the model renders that is no less than ``size``; None for :attr:`picture_size`."""
        if size is None or size > self.size:
            return None
        wanted = int(between(size, "size", 8, 4096))
        return next(side for side in self._assets.generator.config.render_sizes if side >= wanted)

    def _slider_hash(self) -> str | None:
        return None if self._assets.sliders is None else self._assets.sliders.sha256

    def _slider_values(self, values: Mapping[str, float]) -> dict[str, float]:
        found = self._assets.sliders
        if found is None:
            raise EditingError(self._missing.get("sliders", "This model has no sliders."))
        for name, value in values.items():
            found[name]  # refuses an unknown one
            between(value, name, -10, 10)
        return {name: float(value) for name, value in values.items()}

    def _swap_edit(self, session: str, other: str, parts: Sequence[str] | None, group: str, amount: float) -> SwapEdit:
        if group not in ("all", "shape", "texture", "every"):
            raise EditingError(f"group is {quoted(group)}; use 'all', 'shape' or 'texture'")
        between(amount, "amount", 0, 1)
        names = self._scheme.names if parts is None else tuple(dict.fromkeys(parts))
        if not names:
            raise EditingError("no part was chosen; name at least one")
        for name in names:
            self._part(name)
        with self._store.using(other) as found:
            source: Source = found.source
            if found.edits or not isinstance(source, SeedSource):
                source = parts_source(found.state(), found.latents(), names)
            ref, token = found.photo, found.photo_token
            if ref is not None and token and not set(names) & set(found.edited_parts((), found.edits)):
                source = replace(source, photo=ref) if isinstance(source, CodesSource) else source
        if isinstance(source, CodesSource) and source.photo is not None:
            with self._store.using(session) as found:
                found.lenders[source.photo] = token
        base = group == "every" and set(names) >= set(self._scheme.names[1:])
        return SwapEdit(source, names, group, float(amount), base)

    def _open(self, recipe: Recipe, notices: Sequence[str] = ()) -> FaceView:
        """A new session; the photo of a recipe has to be given to it."""
        opened = self._store.open(recipe.source)
        try:
            with self._store.using(opened.id) as session:
                if recipe.edits:
                    session.load(recipe.edits)
                session.lost_tuning, session.photo, session.others = recipe.tuned, recipe.photo, recipe.others
                return self._view(session, notices)
        except EditingError:
            self._store.close(opened.id)
            raise

    def _followed(
        self, session: str, wish: Wish, cancel: CancelToken, owner: str, resume: JobState | None
    ) -> Iterator[TextProgress]:
        """The steps of an edit by a sentence, seen in the photo if the face comes from one."""
        with self._store.using(session) as found:
            before, state, since, own = self._rendered(found, found.edits), found.state(), found.edits, found.generator
            side = self._full_side(found)
            face = self._photo_face(found)
            seen_before = None
            if face is not None:
                seen_before = self._rendered(found, ()), found.latents(()), self._picture(found, since)
        edit, source = wish.edit, self._editor.codes(state)

        def steps() -> Generator[TextProgress, None, None]:
            """Waits for its turn and follows the wish; yields after every step, and last with a proposal."""
            waiting = TextProgress("waiting", 0, edit.steps, before.image, before.part_map, notices=wish.notices)
            work = optimize(
                lambda: self._renderer.of(own),
                wish.judge,
                wish.identity,
                source,
                edit.parts,
                edit.prompt,
                edit.neutral,
                wish.settings,
                lambda step: self._worker.step(owner, step),
                cancel,
                edit.seed,
                self._spreads,
                wish.notices,
                wish.shown,
                edit.layers,
                resume,
                led(source, self._assets.sliders, wish.judge, edit.prompt, edit.neutral, wish.settings),
            )
            result = yield from self._jobs.in_turn(owner, cancel, waiting, work)
            if result is None:
                return
            last = result.progress
            if torch.equal(result.w, source.w):
                nothing = "Nothing better than the face as it is was found; allow other parts, or try another strength."
                yield replace(last, notices=(*wish.notices, nothing))
                return
            # What a recipe keeps lacks the sliders that stay on top of it; codes that were frozen are kept as 0.
            under, free = self._editor.under_text(state, edit.parts, edit.layers)
            moved = torch.where(free[None, :, :, None], under.anchor.w + (result.w - source.w), 0.0)
            codes = Codes.of(moved[0, [self._scheme.index(part) for part in edit.parts]])
            made = replace(edit, steps=last.step, codes=codes)
            latents = self._editor.codes(self._editor.apply(state, made))
            after = self._worker.call("render", lambda: self._renderer.render(session, latents, side, own))
            change = change_between(before, after, differing(source, latents), self._scheme)
            proposal = TextProposal(session, since, made, after.image, after.part_map, change)
            yield replace(last, image=after.image, part_map=after.part_map, proposal=proposal)

        if face is None or seen_before is None:
            return steps()
        first, start, shown = seen_before
        done = plan_of(start.w, source.w, self.config)
        chosen = {self._scheme.index(name) for name in edit.parts}
        textured = chosen if edit.layers != "shape" else set()
        shaped = chosen if edit.layers != "texture" else set()
        plan = Plan(tuple(sorted(textured | set(done.textured))), tuple(sorted(shaped | set(done.shaped))))
        coloured = coloured_parts((*since, edit))

        def preview(picture: Rendered) -> Rendered:
            return face.shown(face.fields(first, picture, plan, PREVIEW_FIELD_SIDE, coloured), PREVIEW_SIDE)

        def finish(last: TextProgress) -> TextProgress:
            if last.proposal is None:
                return replace(last, image=shown.image, part_map=shown.part_map)
            with self._store.using(session) as found:
                after = self._picture(found, (*since, last.proposal.edit))
            change = change_between(shown, after, last.proposal.change.parts, self._scheme)
            if max(change.inside, change.outside) < SEEN:
                said = (*last.notices, "Nothing of it would be seen in the photo; try another strength, or a slider.")
                return replace(last, image=shown.image, part_map=shown.part_map, proposal=None, notices=said)
            proposal = replace(last.proposal, image=after.image, part_map=after.part_map, change=change)
            return replace(last, image=after.image, part_map=after.part_map, proposal=proposal)

        return seen(steps(), len(self._scheme), preview, finish)

    def _commit(self, session: str, edits: Callable[[Session], Edits]) -> FaceView:
        with self._store.using(session) as found:
            found.commit(edits(found))
            self._note(found)
            return self._view(found)

    def _note(self, session: Session) -> None:
        """Of the sessions of one face of a photo, this is now the one that counts; the session is locked."""
        if session.photo is not None and session.photo_token:
            self._faces.edited(session.photo_token, session.photo.frame, session.id)

    def _preview(self, session: str, kind: str, edits: Callable[[Session], Edits]) -> FaceView:
        side = self._side(self.preview_size)
        with self._store.using(session) as found:
            wanted = edits(found)
            state = found.state(wanted, remember=False)
            request = PreviewRequest(session, found.latents(), self._editor.codes(state), side, found.generator)
            view = self._describe(found, wanted, state.sliders)
            face = self._photo_face(found)
            beginning = None if face is None else (self._rendered(found, ()), found.latents(()))
            lent = () if face is None else self._lent(found, wanted, PREVIEW_FIELD_SIDE)
        # Waits outside the lock: a newer preview of the same face and kind may then replace this one.
        # What is said of it travels along, so that whoever asked first gets sliders that fit the picture.
        asked = self._worker.preview((session, kind), id(request.generator), (request, view, wanted))
        picture, request, view, wanted = asked.result()
        if face is not None and beginning is not None:
            picture = self._in_photo(face, *beginning, picture, request.latents, wanted, lent)
        return replace(view, image=picture.image, part_map=picture.part_map, preview=True)

    def _preview_batch(
        self, asked: Sequence[tuple[PreviewRequest, FaceView, Edits]]
    ) -> list[tuple[Rendered, PreviewRequest, FaceView, Edits]]:
        """Pictures for previews with the same generator, before what was asked for; called on the device thread."""
        pictures = self._renderer.preview_batch([request for request, *_ in asked])
        return [(picture, *one) for one, picture in zip(asked, pictures, strict=True)]

    def _batch(self, latents: Sequence[Latents], generator: ComposedGenerator | None = None) -> list[Rendered]:
        """Small pictures of several faces."""
        faces, side = together(latents), self._side(self.preview_size)
        return self._worker.call("batch_render", lambda: self._renderer.render_batch(faces, side, generator))

    def _picture(self, session: Session, edits: Edits) -> Rendered:
        """The full picture of a face, in its photo if it comes from one; the session is locked."""
        face = self._photo_face(session)
        if face is None:
            return self._rendered(session, edits)
        return self._faces.picture(session.id, edits, lambda: face.shown(self._fields(session, face, edits)))

    def _fields(self, session: Session, face: PhotoFace, edits: Edits) -> Fields:
        """What edits do to the photo of a face; the session is locked."""

        def make(size: int) -> Fields:
            plan = plan_of(session.latents(()).w, session.latents(edits).w, self.config)
            before, after = self._rendered(session, ()), self._rendered(session, edits)
            return face.fields(before, after, plan, size, coloured_parts(edits), self._lent(session, edits, size))

        return self._faces.fields(session.id, edits, make)

    def _in_photo(
        self,
        face: PhotoFace,
        before: Rendered,
        start: Latents,
        after: Rendered,
        codes: Latents,
        edits: Edits,
        lent: Sequence[Lent] = (),
    ) -> Rendered:
        """A preview of edits in the photo."""
        plan = plan_of(start.w, codes.w, self.config)
        fields = face.fields(before, after, plan, PREVIEW_FIELD_SIDE, coloured_parts(edits), lent)
        return face.shown(fields, PREVIEW_SIDE)

    def _lent(self, session: Session, edits: Edits, size: int) -> tuple[Lent, ...]:
        """Parts of other photos that edits took; the session is locked."""
        found = []
        for number, edit in enumerate(edits):
            if not isinstance(edit, SwapEdit) or not (refs := lent_by((edit,))):
                continue
            (ref,) = refs
            token, later = session.lenders.get(ref, ""), edits[number + 1 :]
            replaced = {name for one in later if not isinstance(one, SliderEdit) for name in one.parts}
            names = [name for name in edit.parts if name not in replaced]
            if not (token and names and self._parses):
                continue
            try:
                other = self._faces.of(token, ref.frame, lambda: np.zeros((1, 1, len(self._scheme)))).prepared(size)
            except UnknownSessionError:
                continue
            ids = tuple(k for k in map(self._scheme.index, names) if lends(self._scheme.names, k, other))
            moved = any(set(one.parts) & set(names) for one in later)
            middle = look(self._rendered(session, edits[: number + 1])) if moved else None
            found.append(Lent(other, ids, middle))
        return tuple(found)

    def _photo_face(self, session: Session) -> PhotoFace | None:
        """The photo's face a session edits; None without one, or while the photo is gone. The session is locked."""
        if session.photo is None or not session.photo_token:
            return None
        try:
            return self._faces.of(
                session.photo_token, session.photo.frame, lambda: look(self._rendered(session, ())).parts
            )
        except UnknownSessionError:
            session.photo_token = ""
            return None

    def _missing_photos(self, session: Session) -> tuple[PhotoRef, ...]:
        """Photos that a face needs and that are not here, its own first; the session is locked."""
        if session.photo is None:
            return ()
        own = () if self._photo_face(session) is not None else (session.photo,)
        lent = lent_by(session.edits) if self._parses else ()
        return (*own, *(ref for ref in lent if not self._photos.has(session.lenders.get(ref, ""))))

    def _parse(self, pixels: np.ndarray) -> np.ndarray:
        parser = self._assets.parser
        assert parser is not None
        return self._worker.call("parse", lambda: shares_of(parser, pixels, self._renderer.device))

    def _forget(self, session: str) -> None:
        """Frees what was kept for a session that is no longer ready."""
        self._renderer.cache.drop(session)
        self._faces.forget(session)

    def _full_side(self, session: Session) -> int | None:
        """Of full pictures: what is done to a photo is told from what the render net draws, and not from details that
        are made up for every picture anew."""
        return None if session.photo is None else self.size

    def _rendered(self, session: Session, edits: Edits) -> Rendered:
        """The full picture the model makes of a face, by :meth:`_full_side`; the session is locked."""
        known = session.picture(edits)
        if known is not None and (known.shares is not None or session.photo is None):
            return known
        latents, side = session.latents(edits), self._full_side(session)
        picture = self._worker.call(
            "render", lambda: self._renderer.render(session.id, latents, side, session.generator)
        )
        # The shares of the parts are many bytes, which only photos need.
        session.remember(edits, picture if session.photo is not None else replace(picture, shares=None))
        return picture

    def _change(self, session: Session, since: Edits | None, now: Rendered | None = None) -> Change | None:
        if since is None or since == session.edits:
            return None
        parts = session.edited_parts(since, session.edits)
        if not parts:
            return None
        after = now or self._picture(session, session.edits)
        return change_between(self._picture(session, since), after, parts, self._scheme)

    def _describe(self, session: Session, edits: Edits, sliders: Mapping[str, float]) -> FaceView:
        """A view without its picture; the session is locked."""
        source = session.source if isinstance(session.source, SeedSource) else None
        labels = {slider.id: slider.label for slider in self._assets.sliders or ()}
        return FaceView(
            session=session.id,
            image=_NO_IMAGE,
            part_map=_NO_MAP,
            revision=session.revision,
            seed=source.seed if source else None,
            truncation=source.truncation if source else None,
            sliders=dict(sliders),
            history=tuple(
                edit.describe(labels.get(edit.slider, "")) if isinstance(edit, SliderEdit) else edit.describe()
                for edit in edits
            ),
            can_undo=session.can_undo,
            can_redo=session.can_redo,
            in_photo=session.photo is not None and bool(session.photo_token),
        )

    def _view(self, session: Session, notices: Sequence[str] = ()) -> FaceView:
        picture = self._picture(session, session.edits)
        sentences = list(notices)
        if session.lost_tuning:
            sentences.append("The fine tuning to the photo was not kept; tune the photo again to get it back.")
        missing = self._missing_photos(session)
        if session.photo is not None and session.photo in missing:
            sentences.append(
                f"This face was edited in {session.photo.describe()}, which is not here; open that photo again to see "
                "the edits in it. Until then you see what the model sees."
            )
        elif missing:
            sentences.append(
                f"Parts of this face were taken from {missing[0].describe()}, which is not here; open that photo again "
                "to see them as they are there. Until then they are the model's."
            )
        return replace(
            self._describe(session, session.edits, session.state().sliders),
            image=picture.image,
            part_map=picture.part_map,
            change=self._change(session, session.previous, picture),
            notice=" ".join(sentences) or None,
        )

    def _recipe(self, session: Session, others: tuple[Recipe, ...] = ()) -> Recipe:
        edits = session.edits
        sliders = self._slider_hash() if any(isinstance(edit, SliderEdit) for edit in edits) else None
        tuned = session.generator is not None or session.lost_tuning
        return Recipe(
            self.checkpoint, session.source, edits, sliders, self.model, tuned, session.photo, others or session.others
        )

    def _face_detector(self) -> tuple[Detector | None, str]:
        with self._lock:
            if self._detector is None and "align" not in self._missing:
                try:
                    self._detector = MtcnnDetector()
                except EditingError as error:
                    self._missing["align"] = f"{str(error)[:1].upper()}{str(error)[1:]}."
            return self._detector, self._missing.get("align", "")

    def _leave_gpu(self) -> bool:
        """Out of memory with a single face: go on on the CPU. Called on the device thread."""
        if self._renderer.device.type == "cpu":
            return False
        self._renderer.move("cpu")
        for module in (self._assets.encoder, self._assets.parser):
            if module is not None:
                module.to("cpu")
        self._notices.append("The graphics card ran out of memory, so the work goes on, more slowly, on the processor.")
        return True


def lent_by(edits: Edits) -> tuple[PhotoRef, ...]:
    """The faces of photos whose parts edits took as they are there."""
    return tuple(
        dict.fromkeys(
            edit.face.photo
            for edit in edits
            if isinstance(edit, SwapEdit)
            and isinstance(edit.face, CodesSource)
            and edit.face.photo is not None
            and edit.group in ("all", "every")
            and edit.amount == 1.0
        )
    )


_NO_IMAGE = np.zeros((0, 0, 3), dtype=np.uint8)
_NO_MAP = np.zeros((0, 0), dtype=np.uint8)
