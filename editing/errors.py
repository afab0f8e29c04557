"""What goes wrong, in one sentence that says what to do."""

from __future__ import annotations


class EditingError(ValueError):
    """A request that cannot be met; the message is one sentence for a person, with the remedy."""


class BusyError(EditingError):
    """Too much is waiting already; the same request may succeed a moment later."""


class UnknownSessionError(EditingError):
    """The session never existed, was closed, or has expired."""
