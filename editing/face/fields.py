"""Checked reading of JSON values, and how much a recipe may hold. What does not fit raises an :class:`EditingError`."""

from __future__ import annotations

import math
import secrets
from typing import Any

import numpy as np

from editing.errors import EditingError, quoted
from editing.results import MAX_SEED

MAX_BYTES = 8 * 2**20
MAX_EDITS = 1000
_NAME_LENGTH = 100


def read_mapping(value: Any, name: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise _damaged(name)
    return value


def read_text(value: Any, name: str, limit: int = _NAME_LENGTH) -> str:
    """A text of at most ``limit`` characters."""
    if not isinstance(value, str) or len(value) > limit:
        raise _damaged(name)
    return value


def read_names(value: Any) -> tuple[str, ...]:
    """A list of parts, not empty."""
    if not isinstance(value, (list, tuple)) or not value or len(value) > MAX_EDITS:
        raise _damaged("list of parts")
    return tuple(read_text(name, "part") for name in value)


def read_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """One of some texts."""
    if value not in choices:
        raise EditingError(f"{name} is {quoted(value)}; use one of {', '.join(choices)}")
    return str(value)


def read_flag(value: Any, name: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _damaged(name)
    return value


def read_whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number in a range, ends included."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise EditingError(f"{name} is {quoted(value)}; use a whole number from {low} to {high}")
    return value


def read_number(value: Any, name: str, low: float, high: float) -> float:
    """A finite number in a range, ends included."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high:
        raise EditingError(f"{name} is {quoted(value)}; use a number from {low:g} to {high:g}")
    return float(value)


def checked_seed(seed: int | None) -> int:
    """The seed, or a random one for None.

    Raises:
        EditingError: if it is out of range.
    """
    if seed is None:
        return secrets.randbelow(2**31)
    return int(between(seed, "seed", 0, MAX_SEED))


def between(value: float, name: str, low: float, high: float) -> float:
    """The value, if it lies in the range.

    Raises:
        EditingError: with the range, if it does not.
    """
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not good or not low <= value <= high:
        raise EditingError(f"{name} is {quoted(value)}; use a value from {low:g} to {high:g}")
    return value


def _damaged(name: str) -> EditingError:
    return EditingError(f"the recipe's {name} is missing or damaged; use another copy of the file")
