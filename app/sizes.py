"""How long what comes in may be: checked before anything is stored, with room for everything that makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from gradio.blocks import Block
from gradio.components import HTML, JSON, File, Image, Textbox, UploadButton

from editing.face.fields import MAX_BYTES

T = TypeVar("T", bound=Block)
RECIPE = MAX_BYTES + 2**16
SMALL, TEXT, LIST = 2**12, 2**14, 2**17
_LIMITS = ((Textbox, TEXT), (JSON, LIST), (HTML, LIST), ((File, Image, UploadButton), TEXT))


def allow(component: T, characters: int) -> T:
    """Lets a component take more than is usual for its kind."""
    component.studio_limit = characters  # type: ignore[attr-defined]
    return component


def limit_of(component: Any) -> int:
    """How many characters a component may be given."""
    kinds = (limit for kind, limit in _LIMITS if isinstance(component, kind))
    return int(getattr(component, "studio_limit", next(kinds, SMALL)))


def weight(value: Any, most: int) -> int:
    """About how many characters a JSON value has; counting stops beyond ``most``."""
    total, left = 0, [value]
    while left and total <= most:
        item = left.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, dict):
            total += 4 * len(item)
            left += [*item.keys(), *item.values()] if total <= most else []
        elif isinstance(item, (list, tuple)):
            total += 2 * len(item)
            left += item if total <= most else []
        elif isinstance(item, int) and not isinstance(item, bool):
            total += 1 + item.bit_length() // 3
        else:
            total += 8
    return total


def too_long(components: Sequence[Any], values: Sequence[Any]) -> str:
    """A sentence on the first value that is too long; "" if there is none."""
    for component, value in zip(components, values, strict=False):
        limit = limit_of(component)
        if weight(value, limit) > limit:
            name = getattr(component, "label", None) or "one of the values"
            return f"{name} is longer than {limit:,} characters; send less"
    return ""


def names_address(value: Any) -> bool:
    """Whether there is a file in a JSON value that Gradio would fetch from an address, whatever lies there."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            path = item.get("path")
            if isinstance(path, str) and path.strip().lower().startswith(("http://", "https://")):
                return True
            left += item.values()
        elif isinstance(item, (list, tuple)):
            left += item
    return False
