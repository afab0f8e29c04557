"""The page's own widgets: `gr.HTML` with a script from ``static/``; each script says what its value looks like.

Their markup never changes after it was made, so Gradio leaves it alone, and the scripts paint from `props.value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

STATIC = Path(__file__).parent / "static"
# Layers of a part that may change, as a person is asked for them.
LAYERS = (("Both", "all"), ("Shape", "shape"), ("Texture", "texture"))


@lru_cache
def static(name: str) -> str:
    """Text of a file in ``app/static``."""
    return (STATIC / name).read_text(encoding="utf-8")


def widget(script: str, markup: str, value: Any = None, **settings: Any) -> gr.HTML:
    """A `gr.HTML` whose value is plain JSON and whose looks are drawn by a script.

    Not a subclass: Gradio would write a stub file for that beside the source.

    Args:
        script: file in ``app/static``; the events it triggers become listeners of the object.
        markup: fixed HTML the script fills.
        value: plain JSON values.
        settings: further arguments of `gr.HTML`; those it does not know become props of the script.
    """
    return gr.HTML(
        value,
        html_template=markup,
        js_on_load=static(script),
        apply_default_css=False,
        padding=False,
        **settings,
    )


def panel(script: str, value: Any = None, *, elem_id: str, name: str, **settings: Any) -> gr.HTML:
    """A widget that fills a named region."""
    return widget(script, f'<section class="panel" aria-label="{name}"></section>', value, elem_id=elem_id, **settings)


def unseen(script: str, elem_id: str, **settings: Any) -> gr.HTML:
    """A widget that only passes something on."""
    return widget(script, "<span hidden></span>", elem_id=elem_id, elem_classes=["studio-nothing"], **settings)


def stage(value: Any, parts: Sequence[dict[str, Any]]) -> gr.HTML:
    """The face on show, with its tools."""
    markup = '<section class="stage" aria-label="The face"></section>'
    return widget("stage.js", markup, value, elem_id="stage", parts=list(parts))


def card(role: str, value: Any, parts: Sequence[dict[str, Any]]) -> gr.HTML:
    """One of the two faces of the Swap tab; ``role`` is "this" or "other"."""
    return widget("card.js", '<div class="card"></div>', value, elem_id=f"card-{role}", role=role, parts=list(parts))


def grid(elem_id: str, label: str, empty: str, *, columns: int = 4, strip: bool = False, value: Any = None) -> gr.HTML:
    """Pictures to choose from; triggers ``pick`` with an index."""
    return widget(
        "grid.js",
        '<div class="grid" role="group"></div>',
        value,
        elem_id=elem_id,
        label_text=label,
        empty=empty,
        columns=columns,
        strip=strip,
    )


def note(text: str, kind: str = "lead") -> gr.HTML:
    """A sentence between controls; ``kind`` is "lead", "help" or "empty". The text is HTML."""
    return gr.HTML(f"<p class='studio-{kind}'>{text}</p>", padding=False)


def heading(text: str) -> gr.HTML:
    """A heading between controls."""
    return gr.HTML(f"<h2 class='studio-title'>{text}</h2>", padding=False)
