"""Endpoints for programs: ``generate``, ``edit``, ``swap``, ``describe``, ``compose``, ``invert``, ``retouch`` and
``model``.

A face travels as its recipe, so nothing of a caller is kept between two calls. Reach them with ``gradio_client``, over
HTTP, or, if the program was started with ``--mcp``, as tools of an MCP server; names and arguments are stable.
"""

from __future__ import annotations

import json
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import gradio as gr

from app import uploads
from app.arguments import flag, names, number, one_of, table, text, whole
from app.guard import endpoint
from app.jobs import LongJobs
from app.queue import CONCURRENT, LONG, PROGRAM, RENDER, call_owner, call_token
from app.sizes import RECIPE, allow
from editing.errors import EditingError, quoted
from editing.face.edits import PART_LAYERS
from editing.photo.store import Square
from editing.results import Change, FaceView, InversionProgress
from editing.service import EditingService
from editing.text.optimize import STRENGTHS

T = TypeVar("T")
RECORD: dict[str, Any] = {"type": "object"}
TRUNCATION, STEPS, REFINEMENT, BRIEF, PAUSE = 0.7, 300, 200, 60, 400
KINDS = ("gif", "mp4")
PARTS = '["hair", "mouth"]'
Answer = tuple[str, dict[str, Any], dict[str, Any]]


class Programs:
    """The endpoints' functions; their docstrings are what programs are shown."""

    def __init__(self, service: EditingService, jobs: LongJobs) -> None:
        self._service, self._jobs, self._results = service, jobs, uploads.Results()
        # Opening faces and reading sentences is quick, but many at once would hold up what others do on the page.
        self._starting = threading.BoundedSemaphore(2)

    def generate(self, seed: float | None = None, truncation: float = 0.7) -> tuple[str, dict[str, Any]]:
        """Sample a face.

        Args:
            seed: a whole number; the same seed always gives the same face. Leave it out for a random face.
            truncation: how much variety, from 0 (ordinary faces) to 1 (all of it).

        Returns:
            The picture (PNG with the recipe inside), and the recipe as JSON, which the other endpoints take.
        """
        wanted, share = whole(seed, "seed"), number(truncation, "truncation", TRUNCATION)
        with self._closing(self._service.new_face(wanted, share)) as view:
            return self._picture(view), self._recipe(view)

    def edit(self, recipe: Any, sliders: Any, photo: Any = None, face_only: bool = False) -> Answer:
        """Move sliders of a face; the endpoint `model` lists them.

        Args:
            recipe: that of the face, as `generate` returns it.
            sliders: an object of slider ids and values, for example {"hair.lightness": 2}; 0 is the middle, -3 to 3
                are of use, and -10 to 10 allowed.
            photo: the file of the photo that the recipe names, if the face comes from one; the picture is then the
                whole photo with the edits in it, in the format it came in. Leave it out otherwise.
            face_only: true for the framed face alone as PNG.

        Returns:
            The picture, the new recipe, and how local the change was: mean change inside and outside the edited parts
            in 8-bit steps, and the share of untouched pixels.
        """
        values = table(sliders, "sliders", '{"hair.lightness": 2}') or {}
        values = {name: number(value, f"slider {quoted(name)}") for name, value in values.items()}
        alone = flag(face_only, "face_only")
        with self._opened(recipe, photo=photo) as view:
            return self._answer(self._service.set_sliders(view.session, values), alone)

    def swap(
        self,
        recipe: Any,
        other: Any,
        parts: list[str] | None = None,
        group: str = "all",
        amount: float = 1.0,
        photo: Any = None,
        face_only: bool = False,
    ) -> Answer:
        """Take parts from another face.

        Args:
            recipe: that of the face to change.
            other: the recipe of the face to take from.
            parts: names, for example ["hair", "mouth"]; the endpoint `model` lists them. Leave it out for all parts.
            group: which layers to take: "all", "shape" or "texture".
            amount: how much to take, from 0 (nothing) to 1 (all of it).
            photo: the file of the photo that the recipe names, if the face comes from one; the picture is then the
                whole photo with the edits in it, in the format it came in. Leave it out otherwise.
            face_only: true for the framed face alone as PNG.

        Returns:
            The picture, the new recipe, and how local the change was, as in `edit`.
        """
        wanted, layers = names(parts, "parts", PARTS), one_of(group, "group", [*PART_LAYERS], "all")
        share, alone = number(amount, "amount", 1.0), flag(face_only, "face_only")
        with self._opened(recipe, photo=photo) as view, self._opened(other, "other") as source:
            made = self._service.swap(view.session, source.session, wanted, layers or "all", share)
            return self._answer(made, alone)

    def describe(
        self,
        recipe: Any,
        prompt: str,
        parts: list[str] | None = None,
        strength: str = "normal",
        steps: float = 300,
        neutral: str = "",
        weights: Any = None,
        seed: float | None = None,
        layers: str | None = None,
        photo: Any = None,
        face_only: bool = False,
    ) -> Answer:
        """Change a face until it agrees with a sentence.

        Args:
            recipe: that of the face to change.
            prompt: what the face should look like, for example "a woman with red hair".
            parts: names of those that may change; the endpoint `model` lists them. Leave it out for those that the
                words point to.
            strength: how far to go: "subtle", "normal" or "strong".
            steps: how many steps of optimisation to take; more are slower and closer.
            neutral: what the face is now, in words; may be left out.
            weights: those of the losses "clip", "latent", "identity", "segmentation" and "outside", for example
                {"identity": 0.2}. Leave it out for those of the strength.
            seed: a whole number; the same seed gives the same result. Leave it out for a random one.
            layers: those of the parts that may change: "all", "shape" or "texture". Leave it out for those that the
                words are about.
            photo: the file of the photo that the recipe names, if the face comes from one; the picture is then the
                whole photo with the edits in it, in the format it came in. Leave it out otherwise.
            face_only: true for the framed face alone as PNG.

        Returns:
            The picture, the new recipe, and how local the change was, as in `edit`.
        """
        losses = table(weights, "weights", '{"identity": 0.2}')
        losses = losses and {name: number(value, f"weight {quoted(name)}") for name, value in losses.items()}
        count = whole(steps, "steps")
        asked = (
            text(prompt, "prompt"),
            names(parts, "parts", PARTS),
            text(neutral, "neutral"),
            one_of(strength, "strength", [*STRENGTHS], "normal") or "normal",
            losses,
            STEPS if count is None else count,
            whole(seed, "seed"),
        )
        region, alone = one_of(layers, "layers", [*PART_LAYERS]), flag(face_only, "face_only")
        with ExitStack() as opened:
            with self._starting:
                view = opened.enter_context(self._opened(recipe, photo=photo))
                steps_of = self._jobs.describe(
                    view.session, *asked, cancel=call_token(), owner=call_owner(), layers=region
                )
            last = _last(steps_of)
            if last.proposal is None:
                raise EditingError("the description could not be followed; try again")
            return self._answer(self._service.apply_description(view.session, last.proposal), alone)

    def compose(
        self,
        recipe: Any,
        order: list[str] | None = None,
        rows: list[str] | None = None,
        kind: str = "gif",
        frame_ms: float = 400,
    ) -> str:
        """Make a clip of a face being put together part by part.

        Args:
            recipe: that of the face.
            order: names of the parts in the order to add them. Leave it out for the model's own.
            rows: what to show: any of "image", "mask" and "depth", side by side; ["image"] if left out.
            kind: the kind of file, "gif" or "mp4".
            frame_ms: how many milliseconds each step lasts.

        Returns:
            The clip, a file.
        """
        ending, pause = one_of(kind, "kind", KINDS, "gif"), round(number(frame_ms, "frame_ms", PAUSE))
        sequence, shown = names(order, "order", PARTS), names(rows, "rows", '["image", "mask"]') or ["image"]
        with self._opened(recipe) as view:
            make = self._service.export_gif if ending == "gif" else self._service.export_mp4
            return self._results.give(make(view.session, sequence, tuple(shown), pause), f"clip.{ending}")

    def invert(self, photo: Any, face: float = 0, steps: float = 200, crop: Any = None) -> Answer:
        """Turn a photo of a face into an editable one.

        Args:
            photo: a JPEG, PNG, WebP, HEIC, AVIF or TIFF file.
            face: which of the faces that are found, 0 is the best to edit.
            steps: how many steps of refinement to take, 0 to 2000; more are slower and closer.
            crop: [left, top, side] of a square in pixels of the photo, and a fourth number for a square that is turned
                clockwise by so many degrees, instead of a face that is found. Leave it out otherwise.

        Returns:
            The framed face of the photo, its recipe, which names the photo, and scores of the reconstruction: mean
            difference to the photo in 8-bit steps, share of pixels whose part is the same, the cosine of the two
            faces' identities, and likeness in words ("same person", "similar" or "someone else"); null without a
            judge.
        """
        data, square = uploads.take(photo), _square(crop)
        wanted, count = whole(face, "face") or 0, whole(steps, "steps")
        count = REFINEMENT if count is None else count
        with self._rebuilt(data, wanted, square, count) as (view, last):
            scores = {"error": last.error, "mask_agreement": last.mask_agreement, "identity": last.identity}
            told = None if last.identity is None else self._service.likeness(last.identity)
            found = {name: _finite(value) for name, value in scores.items()} | {"likeness": told and told.word}
            return self._picture(view), self._recipe(view), found

    def retouch(
        self, photo: Any, recipe: Any, face: float = 0, steps: float = 60, face_only: bool = False, crop: Any = None
    ) -> tuple[str, dict[str, Any]]:
        """Do to the face in a photo what was done to another face.

        Args:
            photo: a JPEG, PNG, WebP, HEIC, AVIF or TIFF file.
            recipe: whose edits are done, wherever they were made.
            face: which of the faces that are found, 0 is the best to edit.
            steps: how many steps of refinement to take, 0 to 2000; colours need few.
            face_only: true for the framed face alone as PNG.
            crop: a square instead of a face that is found, as in `invert`.

        Returns:
            The whole photo at its size and in its format with the edits in it, every other pixel as it was, and the
            recipe.
        """
        data, square, alone = uploads.take(photo), _square(crop), flag(face_only, "face_only")
        wanted, count = whole(face, "face") or 0, whole(steps, "steps")
        with (
            self._opened(recipe) as edited,
            self._rebuilt(data, wanted, square, BRIEF if count is None else count) as (rebuilt, _),
        ):
            view = self._service.apply_edits(rebuilt.session, self._service.recipe(edited.session))
            return self._picture(view, alone), self._recipe(view)

    def model(self) -> dict[str, Any]:
        """Tell what is in use.

        Returns:
            The model's name, the side of its pictures, its parts, and its sliders with what they do.
        """
        service = self._service
        return {
            "model": service.model,
            "checkpoint": service.checkpoint,
            "size": service.picture_size,
            "notice": service.notice,
            "parts": [{"name": part.name, "label": part.label} for part in service.parts],
            "sliders": [
                {"id": slider.id, "part": slider.part, "label": slider.label, "low": slider.low, "high": slider.high}
                for slider in service.sliders()
            ],
            "unavailable": {name: reason for name, reason in service.capabilities.items() if reason},
        }

    # --- what they share

    @contextmanager
    def _closing(self, view: FaceView) -> Iterator[FaceView]:
        try:
            yield view
        finally:
            self._service.close_session(view.session)

    @contextmanager
    def _rebuilt(
        self, data: bytes, face: int, square: Square | None, steps: int
    ) -> Iterator[tuple[FaceView, InversionProgress]]:
        """A face of a photo, open, and how well it was rebuilt."""
        opened = self._service.open_photo(data)
        try:
            last = _last(self._jobs.invert(opened.photo, face, square, steps, cancel=call_token(), owner=call_owner()))
            if last.view is None:
                raise EditingError("the photo could not be reconstructed; try again")
            with self._closing(last.view) as view:
                yield view, last
        finally:
            self._service.close_photo(opened.photo)

    @contextmanager
    def _opened(self, recipe: Any, name: str = "recipe", photo: Any = None) -> Iterator[FaceView]:
        if not isinstance(recipe, (dict, str)):
            raise EditingError(f"{name} is {quoted(recipe)}; use what the endpoint generate returns")
        written = text(recipe, name) if isinstance(recipe, str) else json.dumps(recipe)
        data = None if photo is None else uploads.take(photo)
        with self._closing(self._service.open_recipe(written)) as view:
            if data is None:
                yield view
                return
            given = self._service.open_photo(data).photo
            try:
                yield self._service.give_photo(view.session, given)
            finally:
                for token in self._service.beside(view.session):
                    self._service.close_session(token)
                for one in {given, *self._service.photos_of(view.session)}:
                    self._service.close_photo(one)

    def _answer(self, view: FaceView, alone: bool) -> Answer:
        return self._picture(view, alone), self._recipe(view), _change(view.change)

    def _picture(self, view: FaceView, alone: bool = True) -> str:
        if view.in_photo and not alone:
            saved = self._service.export_photo(view.session)
            return self._results.give(saved.data, f"photo.{saved.suffix}")
        return self._results.give(self._service.export_png(view.session), "face.png")

    def _recipe(self, view: FaceView) -> dict[str, Any]:
        return self._service.recipe(view.session).to_dict()


def build(service: EditingService, jobs: LongJobs) -> None:
    """Adds the endpoints to the page that is being built; nothing of them is seen."""
    programs = Programs(service, jobs)
    parts_of_it = [part.name for part in service.parts]
    with gr.Row(visible=False):
        picture = gr.Image(label="Picture", type="filepath", format="png", visible=False)
        recipe = allow(_json("Recipe", RECORD), RECIPE)
        other = allow(_json("Recipe of the other face", RECORD), RECIPE)
        result, scores = _json("New recipe", RECORD), _json("Scores", RECORD)
        seed = gr.Number(None, label="Seed", precision=0, visible=False)
        truncation = gr.Slider(0, 1, TRUNCATION, label="Truncation", visible=False)
        sliders = _json("Slider id → value", {"type": "object", "additionalProperties": {"type": "number"}})
        parts = gr.CheckboxGroup(parts_of_it, label="Parts", visible=False)
        group = gr.Radio(list(PART_LAYERS), value="all", label="Layers", visible=False)
        amount = gr.Slider(0, 1, 1.0, label="Amount", visible=False)
        order = _json("Order of the parts", {"type": "array", "items": {"type": "string", "enum": parts_of_it}})
        rows = gr.CheckboxGroup(["image", "mask", "depth"], value=["image"], label="Rows", visible=False)
        kind = gr.Radio([*KINDS], value="gif", label="Kind", visible=False)
        frame_ms = gr.Number(PAUSE, label="Milliseconds per step", visible=False)
        clip = gr.File(label="Clip", visible=False)
        photo = gr.File(label="Photo", visible=False)
        face = gr.Number(0, label="Face", precision=0, visible=False)
        steps = gr.Number(REFINEMENT, label="Steps", precision=0, visible=False)
        brief = gr.Number(BRIEF, label="Steps", precision=0, visible=False)
        face_only = gr.Checkbox(False, label="The face alone", visible=False)
        crop = _json("Square: left, top, side", {"type": "array", "items": {"type": "number"}})
        prompt = gr.Textbox(label="Prompt", visible=False)
        strength = gr.Radio(list(STRENGTHS), value="normal", label="Strength", visible=False)
        rounds = gr.Number(STEPS, label="Steps", precision=0, visible=False)
        neutral = gr.Textbox("", label="What the face is now", visible=False)
        weights = _json("Loss → weight", {"type": "object", "additionalProperties": {"type": "number"}})
        layers = gr.Radio(list(PART_LAYERS), value=None, label="Layers", visible=False)
        facts = _json("Model", RECORD)

        def add(function: Callable[..., Any], inputs: list[Any], outputs: list[Any], kind: str = PROGRAM) -> None:
            gr.Button(visible=False).click(
                endpoint(function),
                inputs,
                outputs,
                api_name=function.__name__,
                show_progress="hidden",
                concurrency_id=kind,
                concurrency_limit=CONCURRENT[kind],
                # As it was sent: Gradio would round numbers and leave an upload on the disk.
                preprocess=False,
            )

        add(programs.generate, [seed, truncation], [picture, recipe])
        add(programs.edit, [recipe, sliders, photo, face_only], [picture, result, scores])
        add(programs.swap, [recipe, other, parts, group, amount, photo, face_only], [picture, result, scores])
        asked = [recipe, prompt, parts, strength, rounds, neutral, weights, seed, layers, photo, face_only]
        add(programs.describe, asked, [picture, result, scores], LONG)
        add(programs.compose, [recipe, order, rows, kind, frame_ms], [clip], RENDER)
        add(programs.invert, [photo, face, steps, crop], [picture, result, scores], LONG)
        add(programs.retouch, [photo, recipe, face, brief, face_only, crop], [picture, result], LONG)
        add(programs.model, [], [facts])


def _json(label: str, schema: dict[str, Any]) -> gr.JSON:
    """An unseen JSON field whose type programs are told; Gradio itself would say "any", which no JSON schema allows."""
    field = gr.JSON(label=label, visible=False)
    field.api_info = lambda: schema  # type: ignore[method-assign]
    return field


def _square(crop: Any) -> Square | None:
    if crop is None:
        return None
    if not isinstance(crop, (list, tuple)) or len(crop) not in (3, 4):
        raise EditingError("crop is no square; use [left, top, side] in pixels, or leave it out")
    left, top, side, *turn = (number(value, "each value of crop") for value in crop)
    return left, top, side, turn[0] if turn else 0.0


def _change(change: Change | None) -> dict[str, Any]:
    if change is None:
        return {"parts": [], "inside": 0.0, "outside": 0.0, "preserved": 1.0}
    return {
        "parts": list(change.parts),
        "inside": round(change.inside, 3),
        "outside": round(change.outside, 3),
        "preserved": round(change.preserved, 4),
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 4)


def _last(steps: Iterable[T]) -> T:
    """The last of some steps, which pass one by one: all their pictures together would fill the memory."""
    return deque(steps, maxlen=1)[0]
