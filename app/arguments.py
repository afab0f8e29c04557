"""What programs send, checked by hand: a sentence for each value that is not what an endpoint takes.

Gradio's own checks round numbers, take letters for names, and end in a traceback. ``null`` is as good as nothing: the
default takes its place.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from editing.errors import EditingError, quoted

log = logging.getLogger("memorygan.app")
UNFIT = "A value is not of the kind that is taken here; the page's API docs say which is."


def number(value: Any, name: str, default: float | None = None) -> float:
    """A number that is finite.

    Raises:
        EditingError: for anything else, and for null without a default.
    """
    if value is None and default is not None:
        return default
    # Also true of numbers that are none, or not finite.
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not -1e300 < value < 1e300:
        raise EditingError(f"{name} is {'null' if value is None else quoted(value)}; use a number")
    return float(value)


def whole(value: Any, name: str) -> int | None:
    """A whole number, every digit of it, or None for null.

    Raises:
        EditingError: for anything else.
    """
    if value is None:
        return None
    number(value, name)  # which is rounded beyond 2⁵³
    if value != int(value):
        raise EditingError(f"{name} is {quoted(value)}; use a whole number")
    return int(value)


def flag(value: Any, name: str) -> bool:
    """True or false; false for null.

    Raises:
        EditingError: for anything else.
    """
    if value is not None and not isinstance(value, bool):
        raise EditingError(f"{name} is {quoted(value)}; use true or false")
    return bool(value)


def text(value: Any, name: str) -> str:
    """A string; "" for null.

    Raises:
        EditingError: for anything else, and for halves of characters, which cannot be written anywhere.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise EditingError(f"{name} is {quoted(value)}; use text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise EditingError(f"{name} is {quoted(value)}, which is not all text; use whole characters") from None
    return value


def names(value: Any, name: str, example: str) -> list[str] | None:
    """A list of strings; None for null and for an empty list.

    Raises:
        EditingError: for anything else.
    """
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise EditingError(f"{name} is {quoted(value)}; use a list of names such as {example}")
    return list(value) or None


def one_of(value: Any, name: str, choices: Sequence[str], default: str | None = None) -> str | None:
    """One of the choices; the default for null.

    Raises:
        EditingError: for anything else.
    """
    if value is None:
        return default
    if not isinstance(value, str) or value not in choices:
        raise EditingError(f"{name} is {quoted(value)}; use {' or '.join(repr(choice) for choice in choices)}")
    return value


def table(value: Any, name: str, example: str) -> dict[str, Any] | None:
    """An object; None for null.

    Raises:
        EditingError: for anything else.
    """
    if value is not None and not isinstance(value, dict):
        raise EditingError(f"{name} is {quoted(value)}; use an object such as {example}")
    return value


def left_out(function: Any, given: int) -> list[Any]:
    """Defaults of the last arguments of an endpoint, where a program sent ``given`` values; empty if one has none.

    An endpoint that takes more than it once did still answers programs that know nothing of that.
    """
    arguments = list(inspect.signature(function.fn).parameters.values()) if callable(function.fn) else []
    defaults = [argument.default for argument in arguments[given : len(function.inputs)]]
    whole = len(arguments) >= len(function.inputs) and inspect.Parameter.empty not in defaults
    return defaults if whole else []


def refuse_politely(demo: gr.Blocks) -> None:
    """Has Gradio say in a sentence what its own checks refuse, instead of ``null`` and a traceback."""
    prepare: Callable[..., Any] = demo.preprocess_data

    async def prepared(function: Any, inputs: list[Any], *args: Any, **options: Any) -> Any:
        inputs = [*inputs, *left_out(function, len(inputs))]
        missing = len(function.inputs) - len(inputs)
        words = f"{missing} of {len(function.inputs)} values are missing; send all of them."
        if missing <= 0:
            try:
                return await prepare(function, inputs, *args, **options)
            except gr.Error as error:
                # It shows the value, whatever its length.
                said = str(error.message)
                words = said if len(said) <= 300 else f"{said[:300]}…"
            except Exception as error:
                log.warning("a call of %s was refused: %s", function.api_name, type(error).__name__)
                words = UNFIT
        raise gr.Error(words, print_exception=False, visible=False) from None

    demo.preprocess_data = prepared  # type: ignore[method-assign, assignment]
