"""The editing service: one object owns the device, and is the only door for a user interface.

Public methods are safe to call from many threads; pictures are uint8 numpy arrays, see :mod:`editing.results`.

- what there is: ``open``, ``parts``, ``sliders``, ``capabilities``, ``guidance``, ``likeness``, ``health``, ``close``,
  and the attributes ``notice``, ``size``, ``kind``, ``config``
- faces: ``new_face``, ``gallery``, ``candidates``, ``open_recipe``, ``duplicate``, ``close_session``, ``view``,
  ``before``, ``change``
- edits, each one undo step, with ``preview_*`` twins that commit nothing and render smaller and faster:
  ``set_sliders``, ``swap``, ``blend``, ``variants`` and ``apply_variant``, ``apply_edits``, ``undo``, ``redo``,
  ``reset_part``, ``reset_all``
- sentences: ``subject``, ``describe``, whose last item carries a proposal for ``apply_description``
- composition: ``compose``, ``export_gif``, ``export_mp4``
- one's own photo, see :mod:`editing.own_photo`: ``open_photo``, ``show_photo``, ``turn_photo``, ``close_photo``,
  ``framed``, ``invert``, whose last item carries the view, ``place``, ``awaits`` and ``give_photo``, ``photos_of``,
  ``number_in_photo`` and ``beside``; a face that comes from a photo is shown in the photo's own
  pixels by everything above, and ``model_view``, ``whole`` and ``edited_photo`` show the rest
- keeping: ``recipe``, ``export_json``, ``export_png``, ``export_photo``, ``export_project``, ``diff``

Every refusal is an :class:`editing.errors.EditingError` with one sentence to show: :class:`BusyError` when too much is
waiting, :class:`UnknownSessionError` when the session is gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from editing.core import Limits, lent_by
from editing.device.loading import choose_device, load_assets
from editing.errors import EditingError, UnknownSessionError, quoted
from editing.face.codes import Codes
from editing.face.compare import diff
from editing.face.edits import ResampleEdit
from editing.face.embedded import embed, read_recipe
from editing.face.fields import between, checked_seed
from editing.face.recipe import Recipe
from editing.face.sequence import PICTURE, Order, Rows, composition_order, frames_of, gif, mp4, mp4_writer
from editing.face.session import Edits, Session
from editing.face.state import BASE
from editing.face.swap import variant_edits
from editing.guidance.likeness import SCALES, LikenessScale
from editing.guidance.registry import Guides
from editing.own_photo import OwnPhotos
from editing.photo.decode import MAX_BYTES
from editing.photo.face import places
from editing.photo.project import is_project, pack, unpack
from editing.photo.save import SavedPhoto, save, save_rows
from editing.results import (
    CancelToken,
    Candidate,
    Change,
    CompositionFrame,
    FaceView,
    GuidanceInfo,
    JobState,
    Likeness,
    Variant,
)
from editing.sliders.directions import Slider
from editing.text.results import TextProgress, TextProposal
from editing.text.subjects import Subject, subject_of
from editing.text.wish import read_wish
from memorygan.generator import ComposedGenerator
from memorygan.latents import Latents
from memorygan.memory import Retrieved
from memorygan.parts import Part

__all__ = ["EditingService", "Limits"]

_MAX_CANDIDATES = 64
_MAX_VARIANTS = 24


class EditingService(OwnPhotos):
    """See the top of this file for everything it does.

    A method that takes the token of a session or of a photo raises an :class:`UnknownSessionError` once that is gone.

    Args:
        assets: what to work with, see :func:`editing.device.loading.load_assets`.
        limits: what to take on.
        detector: finds faces in photos; None for MTCNN, made when the first photo comes.
        guides: judges of words and identity, loaded when first needed; None for none.
        renderer: makes the pictures; None for one on the generator's device.
        threads: that ask the renderer; more than one only if others do its work.
    """

    @classmethod
    def open(
        cls,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        limits: Limits | None = None,
        text_judge: str = "auto",
        identity_judge: str = "auto",
    ) -> EditingService:
        """A service for a checkpoint (default: the bundled one, or an untrained stand-in with a notice).

        Args:
            checkpoint, device, limits: see there.
            text_judge: "auto", "openai" or "bundled", see :mod:`editing.guidance.registry`.
            identity_judge: "auto", "vggface2", "bundled" or "none".

        Raises:
            EditingError: if the named checkpoint or device cannot be used, or for an unknown judge.
        """
        path = None if checkpoint is None else Path(checkpoint)
        guides = Guides(text_judge, identity_judge)
        return cls(load_assets(path, choose_device(device)), limits, guides=guides)

    def close(self) -> None:
        """Ends the device thread; every later call is refused."""
        self._worker.close()

    def __enter__(self) -> EditingService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what there is

    @property
    def parts(self) -> tuple[Part, ...]:
        """The editable parts, the background first; index = id in a part map."""
        return self._scheme.parts

    @property
    def capabilities(self) -> dict[str, str]:
        """Capability → "" if available, else one sentence that says why not."""
        names = ("sliders", "resample", "photo", "align", "parse", "encode", "text", "identity", "mp4")
        reasons = dict(self._missing)
        absent = {
            "text": "No judge of words is in use, so faces cannot be edited by sentences.",
            "identity": "No identity judge is in use, so identity similarity is not reported.",
        }
        for kind, reason in absent.items():
            reasons[kind] = reason if self._guides is None else self._guides.problem(kind)
        return {name: reasons.get(name, "") for name in names}

    def sliders(self, part: str | None = None) -> tuple[Slider, ...]:
        """The sliders of one part, of "base", or all of them; empty if there are none.

        Raises:
            EditingError: for an unknown part.
        """
        if part is not None and part != BASE:
            self._part(part)
        found = self._assets.sliders
        if found is None:
            return ()
        return found.sliders if part is None else found.of(part)

    def gallery(self) -> tuple[int, ...]:
        """Seeds of faces worth showing first."""
        return self._assets.gallery

    def guidance(self) -> GuidanceInfo:
        """Which judges of words and identity are in use, or will be when they are needed; nothing is loaded."""
        return GuidanceInfo(None, None) if self._guides is None else self._guides.info()

    def likeness_scale(self) -> LikenessScale | None:
        """How the cosines of the identity judge are read; None without one, or for one whose scale is not known."""
        judge = self.guidance().identity
        return None if judge is None else SCALES.get(judge.name)

    def likeness(self, cosine: float) -> Likeness | None:
        """What a progress's ``identity`` means in words; None where the scale is not known."""
        scale = self.likeness_scale()
        return None if scale is None else scale.read(cosine)

    def health(self) -> dict[str, Any]:
        """Plain JSON values: is it well, what is it doing, how fast was it."""
        waiting, steps = self._worker.waiting()
        cache, guidance = self._renderer.cache, self.guidance()
        figures: dict[str, Any] = {
            "status": "ok",
            "model": self.model,
            "checkpoint": self.checkpoint,
            "trained": self.trained,
            "device": self.device,
            "size": self.picture_size,
            "notice": self.notice,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "sessions": len(self._store),
            "archived": self._store.archived,
            "photos": len(self._photos),
            "queue": waiting,
            "jobs": len(self._jobs),
            "job_steps_waiting": steps,
            "cache": {"bytes": cache.bytes, "hits": cache.hits, "misses": cache.misses},
            "timings": self._worker.timings(),
            "judges": {
                kind: judge and judge.name for kind, judge in (("text", guidance.text), ("identity", guidance.identity))
            },
        }
        if self._renderer.device.type == "cuda":
            figures["gpu_bytes"] = torch.cuda.memory_allocated(self._renderer.device)
        return figures

    # --- faces

    def new_face(self, seed: int | None = None, truncation: float = 0.7) -> FaceView:
        """Opens a session with a sampled face.

        Args:
            seed: 0 to 2^53 − 1; None for a random one.
            truncation: psi, 0 (mean face) to 1 (all variety).

        Raises:
            EditingError: for a seed or truncation out of range.
        """
        return self._open(Recipe(self.checkpoint, self._editor.sampled(checked_seed(seed), truncation)))

    def candidates(self, count: int = 12, seed: int | None = None, truncation: float = 0.7) -> tuple[Candidate, ...]:
        """Small pictures of faces to choose from.

        Args:
            count: 1 to 64.
            seed: same seed, same candidates; None for random ones.
            truncation: psi, 0 to 1.

        Raises:
            EditingError: for a value out of range.
        """
        between(count, "count", 1, _MAX_CANDIDATES)
        draws = np.random.default_rng(checked_seed(seed)).integers(0, 2**31, count)
        return self.faces_of([int(draw) for draw in draws], truncation)

    def faces_of(self, seeds: Sequence[int], truncation: float = 0.7) -> tuple[Candidate, ...]:
        """Small pictures of given faces, for example of :meth:`gallery`.

        Raises:
            EditingError: for more than 64 seeds, or a value out of range.
        """
        between(len(seeds), "the number of seeds", 1, _MAX_CANDIDATES)
        sources = [self._editor.sampled(seed, truncation) for seed in seeds]
        latents = [self._editor.start(source).anchor for source in sources]
        pictures = self._batch(latents)
        return tuple(
            Candidate(source.seed, source.truncation, picture.image)
            for source, picture in zip(sources, pictures, strict=True)
        )

    def open_recipe(self, data: bytes | str) -> FaceView:
        """Opens a session from a picture, JSON or project made by this program.

        The photos of a project stay open until :meth:`close_photo`, see :meth:`photos_of`; so do the other faces that
        were edited in them, see :meth:`beside`.

        Raises:
            EditingError: if there is no recipe in it, or it needs another model or a newer version.
        """
        if isinstance(data, bytes) and is_project(data):
            files, recipe = unpack(data, MAX_BYTES)
            recipe.require(self.checkpoint)
            view, photos = self._open(recipe), []
            try:
                for file in files:
                    photos.append(self.open_photo(file).photo)
                    view = self.give_photo(view.session, photos[-1])
            except EditingError:
                self.close_session(view.session)
                for photo in photos:
                    self.close_photo(photo)
                raise
            return view
        found = read_recipe(data)
        found.require(self.checkpoint)
        return self._open(found, found.misfits(self._slider_hash()))

    def duplicate(self, session: str) -> FaceView:
        """Opens an independent copy, history included."""
        with self._store.using(session) as found:
            copy = self._store.duplicate(found)
        with self._store.using(copy.id) as copy:
            return self._view(copy)

    def close_session(self, session: str) -> None:
        """Forgets a face and frees what was kept for it; nothing happens if it is gone already."""
        self._store.close(session)
        if self._unwanted:
            self._close_photos()

    def view(self, session: str) -> FaceView:
        """The face as it stands."""
        with self._store.using(session) as found:
            return self._view(found)

    def before(self, session: str) -> FaceView:
        """The face before every edit, under the same token."""
        with self._store.using(session) as found:
            picture = self._picture(found, ())
            now = self._view(found)
            return replace(
                now, image=picture.image, part_map=picture.part_map, sliders={}, history=(), change=None, notice=None
            )

    def change(self, session: str, since: str = "previous") -> Change | None:
        """How the face differs from the one before the last edit ("previous") or before every edit ("source").

        Returns:
            None if nothing was done since.

        Raises:
            EditingError: for another value of ``since``.
        """
        if since not in ("previous", "source"):
            raise EditingError(f"since is {quoted(since)}; use 'previous' or 'source'")
        with self._store.using(session) as found:
            return self._change(found, found.previous if since == "previous" else ())

    # --- edits

    def set_sliders(self, session: str, values: Mapping[str, float]) -> FaceView:
        """Moves sliders as one step that can be undone; sliders that are not named stay.

        Args:
            session: token.
            values: slider id → value; ±3 is the useful range, 0 the middle.

        Raises:
            EditingError: for an unknown slider or a value beyond ±10.
        """
        checked = self._slider_values(values)
        return self._commit(session, lambda found: found.with_sliders(checked))

    def preview_sliders(self, session: str, values: Mapping[str, float]) -> FaceView:
        """What :meth:`set_sliders` would show: smaller, faster, not committed; the newest preview of a face wins."""
        checked = self._slider_values(values)
        return self._preview(session, "sliders", lambda found: found.with_sliders(checked))

    def swap(
        self, session: str, other: str, parts: Sequence[str] | None = None, group: str = "all", amount: float = 1.0
    ) -> FaceView:
        """Takes parts from another face.

        Args:
            session: token of the face to change.
            other: token of the face to take from, as it stands now.
            parts: names; None for all.
            group: "all" (the paper's layer rule of each part), "shape" or "texture".
            amount: 0 (nothing) to 1 (all of it).

        Raises:
            EditingError: for an unknown part or group, or an amount out of range.
        """
        edit = self._swap_edit(session, other, parts, group, amount)
        return self._commit(session, lambda found: (*found.edits, edit))

    def preview_swap(
        self, session: str, other: str, parts: Sequence[str] | None = None, group: str = "all", amount: float = 1.0
    ) -> FaceView:
        """What :meth:`swap` would show: smaller, faster, not committed."""
        edit = self._swap_edit(session, other, parts, group, amount)
        return self._preview(session, "swap", lambda found: (*found.edits, edit))

    def blend(self, session: str, other: str, amount: float, parts: Sequence[str] | None = None) -> FaceView:
        """Interpolates every layer of some parts (default: all) towards another face; otherwise as :meth:`swap`."""
        edit = self._swap_edit(session, other, parts, "every", amount)
        return self._commit(session, lambda found: (*found.edits, edit))

    def preview_blend(self, session: str, other: str, amount: float, parts: Sequence[str] | None = None) -> FaceView:
        """What :meth:`blend` would show: smaller, faster, not committed."""
        edit = self._swap_edit(session, other, parts, "every", amount)
        return self._preview(session, "blend", lambda found: (*found.edits, edit))

    def variants(
        self, session: str, part: str, count: int = 6, seed: int | None = None, group: str = "all"
    ) -> tuple[Variant, ...]:
        """Other versions of one part that suit the rest of the face, see :mod:`editing.face.swap`.

        Args:
            session: token.
            part: name, or "base" for pose and framing.
            count: 1 to 24.
            seed: same seed, same variants; None for random ones.
            group: "all", "shape" or "texture".

        Raises:
            EditingError: for an unknown part or group, or a value out of range.
        """
        between(count, "count", 1, _MAX_VARIANTS)
        if part != BASE:
            self._part(part)
        seed = checked_seed(seed)
        with self._store.using(session) as found:
            state, revision, own = found.state(), found.revision, found.generator
        edits, scores = variant_edits(
            self._editor, state, part, count, seed, group, lambda draw: self._worker.call("sample", draw)
        )
        latents = [self._editor.codes(self._editor.apply(state, edit)) for edit in edits]
        pictures = self._batch(latents, own)
        with self._store.using(session) as found:
            if (shown := self._photo_face(found)) is not None:
                start = self._rendered(found, ()), found.latents(())
                pictures = [
                    self._in_photo(shown, *start, picture, codes, (*found.edits, edit))
                    for picture, codes, edit in zip(pictures, latents, edits, strict=True)
                ]
        return tuple(
            Variant(session, revision, part, seed, group, edit.code.tensor().numpy(), score, picture.image)
            for edit, score, picture in zip(edits, scores, pictures, strict=True)
        )

    def apply_edits(self, session: str, recipe: Recipe) -> FaceView:
        """Does to a face what was done to another one, as one step that can be undone.

        Raises:
            EditingError: for a recipe of another model, or an edit that does not fit.
        """
        recipe.require(self.checkpoint)
        return self._commit(session, lambda found: (*found.edits, *recipe.edits))

    def apply_variant(self, session: str, variant: Variant) -> FaceView:
        """Takes a variant over into the face.

        Raises:
            EditingError: for a variant of another face or model.
        """
        if variant.session != session:
            raise EditingError("this variant was drawn for another face; ask for new ones")

        def edits(found: Session) -> Edits:
            code = Codes.of(torch.from_numpy(np.asarray(variant.code, dtype=np.float32)))
            truncation = found.state().truncation
            return (*found.edits, ResampleEdit(variant.part, code, variant.seed, variant.group, truncation))

        return self._commit(session, edits)

    def undo(self, session: str) -> FaceView:
        """One step back; nothing happens at the beginning."""
        return self._moved(session, -1)

    def redo(self, session: str) -> FaceView:
        """One undone step forward again; nothing happens at the end."""
        return self._moved(session, 1)

    def _moved(self, session: str, step: int) -> FaceView:
        with self._store.using(session) as found:
            found.move(step)
            self._note(found)
            return self._view(found)

    def reset_part(self, session: str, part: str) -> FaceView:
        """Takes every edit back as far as it concerns one part, or "base"; one step that can be undone.

        Raises:
            EditingError: for an unknown part.
        """
        if part != BASE:
            self._part(part)
        return self._commit(session, lambda found: found.without(part))

    def reset_all(self, session: str) -> FaceView:
        """Takes every edit back; one step that can be undone."""
        return self._commit(session, lambda found: ())

    # --- sentences

    def subject(self, prompt: str) -> Subject:
        """What a sentence is about, in parts that the model has; the whole face where it speaks of none."""
        return subject_of(prompt, self._scheme)

    def describe(
        self,
        session: str,
        prompt: str,
        parts: Sequence[str] | None = None,
        neutral: str = "",
        strength: str = "normal",
        weights: Mapping[str, float] | None = None,
        steps: int = 300,
        seed: int | None = None,
        cancel: CancelToken | None = None,
        owner: str = "",
        layers: str | None = None,
        resume: JobState | None = None,
    ) -> Iterator[TextProgress]:
        """Changes parts until the face fits a sentence; yields after every step, and last a proposal.

        Nothing is committed: see :meth:`apply_description`.

        Args:
            session: token.
            prompt: what the face should look like, such as "a person with red hair".
            parts: names of those that may change; None for those of :meth:`subject`. The codes of all others stay as
                they are, bit by bit.
            neutral: what the face looks like now, such as "a face"; then only the change of the words counts.
            strength: "subtle", "normal" or "strong".
            weights: of the losses in :data:`editing.text.optimize.LOSSES`, instead of the strength's.
            steps: of Adam, 1 to 2000.
            seed: of the random crops; None for a random one.
            cancel: ends the job within a step; the best so far is proposed.
            owner: jobs of one owner take turns with those of others; default: the session.
            layers: of the parts that may change: "all" (the paper's rule of each part), "shape" or "texture"; None for
                those that the sentence is about: "long hair" keeps its colour, "red hair" its cut.
            resume: where the same job stood when it was cut off, see :attr:`TextProgress.state`; it goes on from there.

        Raises:
            EditingError: if sentences cannot be used here, for a sentence the judge cannot read, an unknown part,
                strength, weight or choice of layers, or a value out of range.
            BusyError: on the first step, if too many jobs are waiting.
        """
        if self._guides is None:
            raise EditingError(self.capabilities["text"])
        wish = read_wish(
            self._guides, self._scheme, prompt, parts, neutral, strength, weights, steps, checked_seed(seed), layers
        )
        return self._followed(session, wish, cancel or CancelToken(), owner or session, resume)

    def apply_description(self, session: str, proposal: TextProposal) -> FaceView:
        """Takes a proposal of :meth:`describe` over into the face, as one step that can be undone.

        Raises:
            EditingError: for a proposal that was made for another face, or for this one as it no longer is.
        """
        if proposal.session != session:
            raise EditingError("this proposal was made for another face; describe this one anew")

        def edits(found: Session) -> Edits:
            if found.edits != proposal.since:
                raise EditingError("the face has changed since this proposal was made; describe it anew, or undo first")
            return (*found.edits, proposal.edit)

        return self._commit(session, edits)

    # --- composition

    def compose(self, session: str, order: Order = None, size: int | None = None) -> tuple[CompositionFrame, ...]:
        """The face put together part by part.

        Args:
            session: token.
            order: part names in any order; None for the model's own.
            size: side in pixels, rounded up to one the model renders; None for the full size.

        Raises:
            EditingError: for an empty order, or an unknown or repeated part.
        """
        names, side = composition_order(self._assets.generator, order), self._side(size)
        with self._store.using(session) as found:
            latents, own = found.latents(), found.generator

        return self._frames(session, latents, own, names, side)

    def _frames(
        self, session: str, latents: Latents, own: ComposedGenerator | None, names: tuple[str, ...], side: int | None
    ) -> tuple[CompositionFrame, ...]:
        def provide() -> tuple[ComposedGenerator, Retrieved]:
            return self._renderer.of(own), self._renderer.retrieve(session, latents)

        return frames_of(provide, latents, names, side, lambda work: self._worker.step(session, work))

    def export_gif(self, session: str, order: Order = None, rows: Rows = PICTURE, frame_ms: int = 400) -> bytes:
        """An endless GIF of the composition; ``rows`` ("image", "mask", "depth") lie side by side.

        Raises:
            EditingError: as in :meth:`compose`, for unknown rows, or an unusable duration.
        """
        return gif(self.compose(session, order), rows, frame_ms)

    def export_mp4(self, session: str, order: Order = None, rows: Rows = PICTURE, frame_ms: int = 400) -> bytes:
        """An H.264 clip of the composition; otherwise as :meth:`export_gif`, and refused where ffmpeg is missing."""
        mp4_writer()
        return mp4(self.compose(session, order), rows, frame_ms)

    # --- keeping

    def recipe(self, session: str) -> Recipe:
        """The face and its edits as plain data."""
        with self._store.using(session) as found:
            token, ref = found.photo_token, found.photo
        others = []
        for other in self._faces.others(token, ref.frame) if ref is not None and token else ():
            with suppress(UnknownSessionError), self._store.using(other) as found:
                if found.edits:
                    others.append(replace(self._recipe(found), others=()))
        with self._store.using(session) as found:
            return self._recipe(found, tuple(others))

    def export_json(self, session: str) -> str:
        """The recipe as JSON text."""
        return self.recipe(session).to_json()

    def export_photo(self, session: str) -> SavedPhoto:
        """The photo at full size with the edits of all its faces, in the format it came in, with the recipe inside.

        Raises:
            EditingError: if the face does not come from a photo, or the photo is not here.
        """
        recipe, layers = self.recipe(session), self._layers(session)
        photo = layers[-1][0].photo
        with self._decoding:
            if photo.streamed:
                return save_rows(photo, [(fields, places(face.frame)) for face, fields in layers], recipe)
            edited = photo.original()
            for face, fields in layers:
                edited = face.put_back(fields, edited)
            return save(photo, edited, recipe)

    def export_project(self, session: str) -> bytes:
        """The photo's file, those that parts were taken from, and the recipe in one ZIP; :meth:`open_recipe` opens it.

        Raises:
            EditingError: if the face does not come from a photo, the photo is not here, or the project is too large.
        """
        photo, recipe = self._layers(session)[-1][0].photo, self.recipe(session)
        with self._store.using(session) as found:
            lent = {ref.sha256: found.lenders.get(ref, "") for ref in lent_by(found.edits)}
        lenders = [
            self._photos.photo(token)
            for sha256, token in lent.items()
            if sha256 != photo.sha256 and self._photos.has(token)
        ]
        return pack([photo, *lenders], recipe)

    def export_png(self, session: str) -> bytes:
        """The picture of the face alone as PNG, with the recipe inside."""
        with self._store.using(session) as found:
            return embed(Image.fromarray(self._picture(found, found.edits).image), self._recipe(found))

    def diff(self, session: str, other: str) -> tuple[str, ...]:
        """What leads from one face to another, in plain sentences; empty if they are the same."""
        return diff(self.recipe(session), self.recipe(other))
