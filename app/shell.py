"""The parts of the page that every tab needs to reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gradio as gr

from app.desk import Desk
from app.guard import guarded
from app.jobs import LongJobs
from app.queue import CONCURRENT, QUICK
from app.visit import Visit, is_open
from editing.errors import EditingError
from editing.results import FaceView
from editing.service import EditingService

T = TypeVar("T")


@dataclass
class Shell:
    """Components outside the tabs, and helpers to wire events.

    Attributes:
        desk: see :class:`app.desk.Desk`.
        jobs: where reconstructions and descriptions run; the service itself, or see :mod:`app.zero`.
        visit: the state of one page, a :class:`app.visit.Visit`.
        stage, live, saver, wide: see :mod:`app.widgets`.
        saved: what the browser keeps for a reload, see ``static/keep.js``.
        tabs: the tabs; ``gr.Tabs(selected=...)`` as their output brings one to the front.
        strip, seed, truncation: of the Face tab, which every newly opened face updates.
    """

    desk: Desk
    jobs: LongJobs
    visit: gr.State
    stage: gr.HTML
    live: gr.HTML
    saver: gr.HTML
    wide: gr.HTML
    saved: gr.HTML
    tabs: gr.Tabs = field(init=False)
    strip: gr.HTML = field(init=False)
    seed: gr.Number = field(init=False)
    truncation: gr.Slider = field(init=False)

    @property
    def service(self) -> EditingService:
        return self.desk.service

    @property
    def committed(self) -> list[Any]:
        """Outputs of an edit: what :meth:`app.desk.Desk.commit` returns."""
        return [self.stage, self.saved]

    @property
    def opened(self) -> list[Any]:
        """Outputs of everything that puts another face on show: what :meth:`on_show` returns."""
        return [self.stage, self.saved, self.strip, self.seed, self.truncation]

    def on_show(self, visit: Visit, view: FaceView) -> tuple[Any, ...]:
        """Values for :attr:`opened`."""
        desk = self.desk
        if view.session != visit.here().token:
            # Two faces were asked for at once; both answers show the one that came to stay.
            view = desk.run(visit, self.service.view)
        seed = gr.skip() if view.seed is None else view.seed
        truncation = gr.skip() if view.truncation is None else view.truncation
        return desk.face(visit, view), desk.stored(visit), desk.strip(visit), seed, truncation

    def on(
        self,
        event: Callable[..., Any],
        handler: Callable[..., Any],
        inputs: Sequence[Any] = (),
        *,
        visit: bool = True,
        **options: Any,
    ) -> Any:
        """Binds a listener the way nearly all are bound here: guarded, and no endpoint for programs.

        Args:
            event: of a component.
            handler: is given the page's visit, see :func:`present`, and what the inputs hold.
            inputs: components.
            visit: False for a handler that is given the inputs alone.
            options: of Gradio.
        """
        options.setdefault("api_visibility", "private")
        options.setdefault("show_progress", "minimal")
        # Gradio blurs what it believes to be loading; only the stage shows that it waits.
        options.setdefault("show_progress_on", self.stage)
        # A group for each kind of work: what is beyond its limit waits, see app/queue.py.
        kind = options.setdefault("concurrency_id", QUICK)
        options.setdefault("concurrency_limit", CONCURRENT[kind])
        if visit:
            return event(guarded(handler, present), [self.visit, *inputs], **options)
        return event(guarded(handler), [*inputs], **options)

    def on_preview(self, panel: Any, handler: Callable[..., Any]) -> None:
        """Binds what a panel shows while it is moved; of what comes in meanwhile only the last is computed."""
        self.on(
            panel.preview,
            handler,
            inputs=[panel],
            outputs=[self.live],
            trigger_mode="always_last",
            show_progress="hidden",
        )


def present(visit: Visit | None) -> Visit:
    """The state of a page that was loaded.

    Raises:
        EditingError: if the server forgot it.
    """
    if not is_open(visit):
        raise EditingError("this page is not ready; wait a moment, or reload it if it was left alone for long")
    return visit


def number(value: Any, name: str) -> float:
    """A number from the browser.

    Raises:
        EditingError: if it is none.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise EditingError(f"{name} is not a number; reload the page")
    return float(value)


def record(value: Any) -> dict[str, Any]:
    """A JSON object from the browser; empty if it is none."""
    return value if isinstance(value, dict) else {}


def names(value: Any) -> list[str]:
    """A list of names from the browser, without what is no text."""
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def chosen(items: Sequence[T], event: gr.EventData) -> T:
    """The item of a grid that was clicked.

    Raises:
        EditingError: if the grid shows something else by now.
    """
    index = record(event._data).get("index")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(items):
        raise EditingError("this picture is no longer there; choose another")
    return items[index]
