"""Long jobs on Hugging Face's ZeroGPU, which lends a GPU to one call at a time.

The GPU exists only inside functions that ``spaces.GPU`` decorates, and these run in a forked process: no thread of the
program is there, and only plain data goes in and comes out. So the page and everything that is quick stay on the
processor, and each long job is described by plain data (a recipe, or a framed photo), carried out by a service that is
opened on the GPU in the forked process, and told step by step. What comes back is plain data again, which the service
of the page takes over.
"""

from __future__ import annotations

import importlib
import inspect
import io
import math
import mmap
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import torch
from PIL import Image

from editing.errors import EditingError
from editing.results import CancelToken, FaceView, InversionProgress
from editing.service import EditingService
from editing.text.results import TextProgress

# Seconds of GPU time to ask for: what opening the service takes, and a step of each kind, with room to spare. A job
# that needs less gives the rest back, but a visitor's quota has to cover what was asked for, so it is bounded; a job
# that would take longer ends in time, with its best so far.
OPENING = 15.0
PER_STEP = {"describe": 0.12, "invert": 0.08}
LONGEST = 120
# Before the end of that time, to hand over the result.
MARGIN = 3.0
# Jobs that can be told to stop at the same time; more wait.
SLOTS = 64


def import_spaces() -> Any:
    """The package ``spaces`` on a ZeroGPU Space, else None. To be called before anything touches CUDA."""
    if os.environ.get("SPACES_ZERO_GPU", "").lower() not in ("1", "t", "true"):
        return None
    try:
        return importlib.import_module("spaces")
    except ImportError:
        return None


def seconds(kind: str, slot: int, data: Any, options: Mapping[str, Any]) -> int:
    """How long a job may take; the arguments are those of the decorated function."""
    return min(LONGEST, math.ceil(OPENING + max(0, options["steps"]) * PER_STEP[kind]))


@dataclass(frozen=True)
class Refused:
    """What the forked process says instead of raising: of an exception only the type would come through."""

    words: str


class ZeroJobs:
    """See :class:`app.jobs.LongJobs`; to be made before the page is launched, because Spaces looks for it then.

    Args:
        service: of the page, on the processor.
        open_service: opens the same checkpoint on the GPU; called in the forked process.
        gpu: the decorator ``spaces.GPU``.
    """

    def __init__(
        self, service: EditingService, open_service: Callable[[], EditingService], gpu: Callable[..., Any]
    ) -> None:
        self._service = service
        # Memory both processes see: one byte per job, 1 to stop it.
        stops = self._stops = mmap.mmap(-1, SLOTS)
        self._free = list(range(SLOTS))
        self._slots = threading.Condition()
        opened: list[EditingService] = []  # in the forked process, which may serve several jobs

        def work(kind: str, slot: int, data: Any, options: dict[str, Any]) -> Iterator[Any]:
            """Carries out a job in the forked process."""
            deadline = time.monotonic() + seconds(kind, slot, data, options) - MARGIN
            if not opened:
                # The pool of threads that the processor's work uses did not come along either.
                torch.set_num_threads(1)
                opened.append(open_service())
            try:
                yield from _JOBS[kind](opened[0], data, options, _SharedToken(stops, slot, deadline))
            except EditingError as error:
                yield Refused(str(error))

        self._work = gpu(duration=seconds)(work)

    def invert(
        self,
        photo: str,
        *args: Any,
        cancel: CancelToken | None = None,
        owner: str = "",
        **options: Any,
    ) -> Iterator[InversionProgress]:
        """As :meth:`editing.service.EditingService.invert`, without tuning: a tuned render net would not come back."""
        asked = _arguments(EditingService.invert, photo, *args, **options)
        stream = io.BytesIO()
        Image.fromarray(self._service.framed(photo, asked["face"], asked["crop"])).save(stream, "PNG")
        notices = ("A closer likeness is not possible on this machine; the face was rebuilt without.",)
        return self._inverting(
            stream.getvalue(),
            {"steps": asked["steps"]},
            cancel or CancelToken(),
            notices if asked["tune_steps"] else (),
            lambda session: self._service.place(session, photo, asked["face"], asked["crop"]),
        )

    def _inverting(
        self,
        photo: bytes,
        options: dict[str, Any],
        cancel: CancelToken,
        notices: tuple[str, ...],
        place: Callable[[str], FaceView],
    ) -> Iterator[InversionProgress]:
        for now, recipe in self._stream("invert", photo, options, cancel):
            if recipe is not None:
                view = place(self._service.open_recipe(recipe).session)
                now = replace(now, view=view, notices=(*now.notices, *notices))
            yield now

    def describe(
        self,
        session: str,
        prompt: str,
        *args: Any,
        cancel: CancelToken | None = None,
        owner: str = "",
        **options: Any,
    ) -> Iterator[TextProgress]:
        """As :meth:`editing.service.EditingService.describe`."""
        asked = _arguments(EditingService.describe, session, prompt, *args, **options)
        del asked["session"]
        revision = self._service.view(session).revision
        recipe = self._service.export_json(session)
        return self._describing(session, revision, recipe, asked, cancel or CancelToken())

    def _describing(
        self, session: str, revision: int, recipe: str, options: dict[str, Any], cancel: CancelToken
    ) -> Iterator[TextProgress]:
        for now in self._stream("describe", recipe, options, cancel):
            if now.proposal is not None:
                # It was made for a session of the forked process.
                now = replace(now, proposal=replace(now.proposal, session=session, revision=revision))
            yield now

    def _stream(self, kind: str, data: Any, options: dict[str, Any], cancel: CancelToken) -> Iterator[Any]:
        """What the forked process yields; stops it when asked to."""
        with self._slots:
            while not self._free:
                self._slots.wait()
            slot = self._free.pop()
        self._stops[slot] = 0
        try:
            with closing(self._work(kind, slot, data, options)) as items:
                try:
                    for item in items:
                        if isinstance(item, Refused):
                            raise EditingError(item.words)
                        if cancel.cancelled:
                            self._stops[slot] = 1
                        yield item
                finally:
                    # Also when nobody reads on.
                    self._stops[slot] = 1
        except gr.Error as error:
            # What Spaces says, of a quota that is used up for example; some of it is marked up.
            raise EditingError(re.sub(r"<[^>]*>", "", str(error.message))) from error
        finally:
            with self._slots:
                self._free.append(slot)
                self._slots.notify()


def _arguments(method: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    """What a method of the service is asked for, by name, its defaults included; without token and owner."""
    asked = inspect.signature(method).bind(None, *args, **options)
    asked.apply_defaults()
    return {name: value for name, value in asked.arguments.items() if name not in ("self", "cancel", "owner")}


class _SharedToken(CancelToken):
    """A token that the other process sets, or time."""

    def __init__(self, stops: mmap.mmap, slot: int, deadline: float) -> None:
        super().__init__()
        self._stops, self._slot, self._deadline = stops, slot, deadline

    @property
    def cancelled(self) -> bool:
        return self._stops[self._slot] != 0 or time.monotonic() > self._deadline


def _invert(
    service: EditingService, photo: bytes, options: dict[str, Any], cancel: CancelToken
) -> Iterator[tuple[InversionProgress, str | None]]:
    """Yields progress, the last with the reconstruction's recipe in place of its session."""
    opened = service.open_photo(photo)
    whole = (0.0, 0.0, float(opened.width))
    last = None
    try:
        for now in service.invert(opened.photo, crop=whole, cancel=cancel, **options):
            if now.view is None:
                yield now, None
            else:
                last = now  # its session is free only when the job is over
    finally:
        service.close_photo(opened.photo)
    if last is not None and last.view is not None:
        recipe = service.export_json(last.view.session)
        service.close_session(last.view.session)
        yield replace(last, view=None), recipe


def _describe(
    service: EditingService, recipe: str, options: dict[str, Any], cancel: CancelToken
) -> Iterator[TextProgress]:
    view = service.open_recipe(recipe)
    try:
        yield from service.describe(view.session, cancel=cancel, **options)
    finally:
        service.close_session(view.session)


_JOBS: dict[str, Callable[..., Iterator[Any]]] = {"invert": _invert, "describe": _describe}
