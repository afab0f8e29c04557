"""Compose: watch the face being put together, part by part."""

from __future__ import annotations

import base64
import math
from typing import Any

import gradio as gr

from app import pictures, widgets
from app.guard import explain, refuse
from app.queue import RENDER
from app.shell import Shell, names
from app.visit import Visit
from editing.errors import EditingError
from editing.results import CompositionFrame

SIDE = 256


def build(shell: Shell) -> None:
    """Makes the tab and its events."""
    desk, service = shell.desk, shell.service
    widgets.note(
        "The model recalls one part after the other and puts them together. At every point "
        "the part that claims it most strongly is in front."
    )
    player = widgets.panel("player.js", None, elem_id="player", name="The composition, step by step")
    speed = gr.Slider(
        100,
        1500,
        500,
        step=50,
        label="Time per step",
        info="In milliseconds, here and in saved clips.",
        elem_id="compose-speed",
        buttons=[],
    )
    with gr.Accordion("Order of the parts", open=False):
        order = widgets.panel("order.js", None, elem_id="order", name="Order of the parts", parts=desk.parts)
    rows = gr.CheckboxGroup(
        [("Image", "image"), ("Mask", "mask"), ("Depth", "depth")],
        value=["image"],
        label="Rows in the clip",
        info="Side by side: the picture, the parts (fine mask), and how near each point is (pseudo-depth).",
        elem_id="clip-rows",
    )
    reason = desk.off("mp4")
    with gr.Row(equal_height=True, elem_classes=["studio-row"]):
        gif = gr.Button("Save as GIF", elem_id="save-gif", min_width=120)
        mp4 = gr.Button("Save as MP4", elem_id="save-mp4", interactive=not reason, min_width=120)
    if reason:
        widgets.note(reason, "empty")

    def on_compose(here: Visit, wanted: Any) -> dict[str, Any]:
        try:
            view = desk.run(here, service.view)
            frames = service.compose(here.here().token, names(wanted) or None, SIDE)
        except Exception as error:
            # The player has to know, or it would wait for ever.
            refuse(error)
            return {"n": next(here.numbers), "key": "", "problem": explain(error)}
        return {
            "n": next(here.numbers),
            "key": f"{here.here().number}.{view.revision}",
            "frames": [_frame(frame, desk.labels) for frame in frames],
        }

    def export(kind: str, here: Visit, wanted: Any, kinds: list[str], pause: float) -> dict[str, Any]:
        if not kinds:
            raise EditingError("choose at least one row for the clip")
        desk.run(here, service.view)
        make = service.export_gif if kind == "gif" else service.export_mp4
        data = make(here.here().token, names(wanted) or None, tuple(kinds), int(pause))
        return {
            "n": next(here.numbers),
            "name": f"composition.{kind}",
            "mime": "image/gif" if kind == "gif" else "video/mp4",
            "data": base64.b64encode(data).decode("ascii"),
        }

    for event in (player.compose, order.reorder):
        shell.on(event, on_compose, inputs=[order], outputs=[player], trigger_mode="always_last", concurrency_id=RENDER)
    clip: dict[str, Any] = {"inputs": [order, rows, speed], "outputs": [shell.saver], "concurrency_id": RENDER}
    shell.on(gif.click, lambda *asked: export("gif", *asked), show_progress_on=gif, **clip)
    shell.on(mp4.click, lambda *asked: export("mp4", *asked), show_progress_on=mp4, **clip)


def _frame(frame: CompositionFrame, labels: dict[str, str]) -> dict[str, Any]:
    moved = "" if math.isnan(frame.smse) else f"; the parts before it changed by {frame.smse:.3f} (SMSE)"
    return {
        "part": frame.part,
        "label": labels.get(frame.part, frame.part),
        "image": pictures.jpeg(frame.image, SIDE, quality=88),
        "mask": pictures.crisp(frame.mask, SIDE),
        "depth": pictures.jpeg(frame.depth, SIDE // 2, quality=85),
        "note": moved,
    }
