"""What goes wrong, in one sentence that says what to do."""

from __future__ import annotations


class EditingError(ValueError):
    """A request that cannot be met; the message is one sentence for a person, with the remedy."""


class BusyError(EditingError):
    """Too much is waiting already; the same request may succeed a moment later."""


class UnknownSessionError(EditingError):
    """The session never existed, was closed, or has expired."""


def quoted(value: object, most: int = 60) -> str:
    """A value as a sentence about it shows it, and no more of it than that many characters."""
    if isinstance(value, (str, bytes)):
        shown = repr(value[:most])
        return shown if len(value) <= most else f"{shown[:-1]}…{shown[-1]}"
    if isinstance(value, int) and value.bit_length() > 4 * most:
        return "a number with very many digits"
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}…"
