"""Long jobs that are carried out by another process, which knows nothing of the page's faces and photos.

Each job is described by plain data: a recipe, or a framed photo. A service that is opened over there carries it out and
tells it step by step; what comes back is plain data again, which the service of the page takes over.
"""

from __future__ import annotations

import inspect
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from PIL import Image

from editing.errors import EditingError
from editing.face.fields import checked_seed
from editing.results import CancelToken, InversionProgress
from editing.service import EditingService
from editing.text.results import TextProgress

P = TypeVar("P", TextProgress, InversionProgress)
# What a job yields: its progress, and with the last one of a photo the recipe of the face.
Step = tuple[P, str | None]


@dataclass(frozen=True)
class Refused:
    """What the other process says instead of raising: not every exception comes through."""

    words: str


class RemoteJobs(ABC):
    """See :class:`app.jobs.LongJobs`; subclasses say how the other process is reached.

    Args:
        service: of the page.
    """

    def __init__(self, service: EditingService) -> None:
        self._service = service

    @abstractmethod
    def _stream(
        self, kind: str, data: Any, options: dict[str, Any], cancel: CancelToken, waiting: P
    ) -> Generator[Step[P], None, None]:
        """What :func:`carry_out` yields in the other process.

        Args:
            kind, data, options: for :func:`carry_out`.
            cancel: ends the job within a step.
            waiting: progress to yield while the job waits for its turn.
        """

    def invert(
        self, photo: str, *args: Any, cancel: CancelToken | None = None, owner: str = "", **options: Any
    ) -> Iterator[InversionProgress]:
        """As :meth:`editing.service.EditingService.invert`, without tuning: a tuned render net would not come back."""
        asked = _arguments(EditingService.invert, photo, *args, **options)
        pixels = self._service.framed(photo, asked["face"], asked["crop"])
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        notices: tuple[str, ...] = ()
        if asked["tune_steps"]:
            notices = ("A closer likeness is not possible on this machine; the face was rebuilt without.",)

        def opened(now: InversionProgress, recipe: str | None) -> InversionProgress:
            if recipe is None:
                return now
            face = self._service.open_recipe(recipe).session
            view = self._service.place(face, photo, asked["face"], asked["crop"])
            return replace(now, view=view, notices=(*now.notices, *notices))

        waiting = InversionProgress("waiting", 0, asked["steps"], pixels, pixels)
        kept = {name: asked[name] for name in ("steps", "resume")}
        steps = self._stream("invert", stream.getvalue(), kept, cancel or CancelToken(), waiting)
        return (opened(now, recipe) for now, recipe in steps)

    def describe(
        self, session: str, prompt: str, *args: Any, cancel: CancelToken | None = None, owner: str = "", **options: Any
    ) -> Iterator[TextProgress]:
        """As :meth:`editing.service.EditingService.describe`."""
        asked = _arguments(EditingService.describe, session, prompt, *args, **options)
        del asked["session"]
        asked["seed"] = checked_seed(asked["seed"])  # the same, should the job be begun again
        view = self._service.view(session)
        waiting = TextProgress("waiting", 0, asked["steps"], view.image, view.part_map)
        recipe = self._service.export_json(session)

        def of_session(now: TextProgress) -> TextProgress:
            if now.proposal is None:
                return now
            # It was made for a session of the other process.
            return replace(now, proposal=replace(now.proposal, session=session))

        steps = self._stream("describe", recipe, asked, cancel or CancelToken(), waiting)
        return (of_session(now) for now, _ in steps)


def _arguments(method: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    """What a method of the service is asked for, by name, its defaults included; without token and owner."""
    asked = inspect.signature(method).bind(None, *args, **options)
    asked.apply_defaults()
    return {name: value for name, value in asked.arguments.items() if name not in ("self", "cancel", "owner")}


def carry_out(
    service: EditingService, kind: str, data: Any, options: dict[str, Any], cancel: CancelToken
) -> Iterator[Step[Any] | Refused]:
    """Carries out a job where the service computes; the last of it may be a refusal.

    Args:
        service: of this process.
        kind: "invert" or "describe".
        data: a framed photo as PNG, or a recipe as JSON.
        options: of the service's method of that name.
        cancel: ends it within a step.
    """
    try:
        yield from _JOBS[kind](service, data, options, cancel)
    except EditingError as error:
        yield Refused(str(error))


def _invert(
    service: EditingService, photo: bytes, options: dict[str, Any], cancel: CancelToken
) -> Iterator[Step[InversionProgress]]:
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
) -> Iterator[Step[TextProgress]]:
    view = service.open_recipe(recipe)
    try:
        for now in service.describe(view.session, cancel=cancel, **options):
            yield now, None
    finally:
        service.close_session(view.session)


_JOBS: dict[str, Callable[..., Iterator[Any]]] = {"invert": _invert, "describe": _describe}
