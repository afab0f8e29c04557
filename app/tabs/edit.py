"""Edit: click a part, move its sliders."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app import widgets
from app.shell import Shell, number, record
from app.visit import Visit
from editing.errors import EditingError


def build(shell: Shell) -> None:
    """Makes the tab and its events."""
    desk, service = shell.desk, shell.service
    panel = widgets.panel(
        "sliders.js",
        {"seq": 0, "face": 0, "values": {}},
        elem_id="sliders",
        name="Parts and their sliders",
        parts=desk.parts_with_base(),
        sliders=desk.sliders,
        reason=desk.off("sliders"),
    )

    def on_preview(here: Visit, value: Any) -> Any:
        seq = _seq(value)
        if here.called(_owner(value)) is not here.here():
            return gr.skip()  # another face was opened meanwhile
        view = desk.run(here, lambda token: service.preview_sliders(token, _values(value)))
        return desk.live(here, view, seq)

    def on_commit(here: Visit, value: Any) -> tuple[Any, Any]:
        return desk.commit(here, lambda token: service.set_sliders(token, _values(value)), _seq(value), _owner(value))

    def on_reset(here: Visit, value: Any) -> tuple[Any, Any]:
        part = str(record(value).get("part"))
        return desk.commit(here, lambda token: service.reset_part(token, part), _seq(value), _owner(value))

    shell.on_preview(panel, on_preview)
    shell.on(panel.commit, on_commit, inputs=[panel], outputs=shell.committed, trigger_mode="always_last")
    shell.on(panel.reset_part, on_reset, inputs=[panel], outputs=shell.committed)


def _seq(value: Any) -> int:
    return int(number(record(value).get("seq"), "the number of the gesture"))


def _owner(value: Any) -> int:
    return int(number(record(value).get("face"), "the number of the face"))


def _values(value: Any) -> dict[str, float]:
    values = record(record(value).get("values"))
    if len(values) > 1000:
        raise EditingError("too many sliders at once; reload the page")
    return {str(name): number(amount, str(name)[:60]) for name, amount in values.items()}
