"""What stands between a handler and the person: every refusal one sentence, never a stack trace."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import gradio as gr

from editing.errors import EditingError

log = logging.getLogger("memorygan.app")
_LONGEST = 800
UNEXPECTED = "Something went wrong here. Try again; if it happens twice, the program's log says more."


def sentence(error: BaseException | str) -> str:
    """A message with a capital letter and a full stop."""
    text = str(error).strip() or UNEXPECTED
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rsplit(" ", 1)[0] + " …"
    return text[:1].upper() + text[1:] + ("" if text[-1] in ".!?…" else ".")


def explain(error: BaseException) -> str:
    """The sentence for an error; one that nobody expected goes to the log."""
    if isinstance(error, EditingError):
        return sentence(error)
    log.error("a request failed", exc_info=error)
    return UNEXPECTED


def refuse(error: BaseException) -> None:
    """Says on the page that something did not work, and why."""
    # What a toast says is HTML.
    gr.Warning(escape(explain(error), quote=False), title="That did not work")


def tell(text: str) -> None:
    """Says something on the page."""
    gr.Info(escape(sentence(text), quote=False), title="Please note")


def guarded(handler: Callable[..., Any], first: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
    """Wraps an event handler: an error becomes a message on the page, and every output stays as it is.

    Args:
        handler: what is wrapped.
        first: what its first argument goes through before.
    """

    def given(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return values if first is None else (first(values[0]), *values[1:])

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*values: Any) -> Iterator[Any]:
            try:
                yield from handler(*given(values))
            except gr.Error:
                raise
            except Exception as error:
                refuse(error)
                yield gr.skip()

        return stream

    @functools.wraps(handler)
    def call(*values: Any) -> Any:
        try:
            return handler(*given(values))
        except gr.Error:
            raise
        except Exception as error:
            refuse(error)
            return gr.skip()

    return call


def endpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps an API endpoint: an error reaches the calling program as one sentence."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            # visible=False: no toast in the page, where nobody asked.
            raise gr.Error(explain(error), print_exception=False, visible=False) from None

    return call
