"""Face: get a face to work on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app import uploads, widgets
from app.queue import RENDER
from app.shell import Shell, chosen
from app.visit import Visit
from editing.errors import EditingError

TRUNCATION = 0.7
MORE = 12


def build(shell: Shell) -> None:
    """Makes the tab and its events."""
    desk, service = shell.desk, shell.service
    with gr.Row(equal_height=True, elem_classes=["studio-row"]):
        new = gr.Button("New face", variant="primary", elem_id="new-face", min_width=120)
        photo = gr.Button("Use my photo", elem_id="use-photo", min_width=120)
        recipe = gr.UploadButton(
            "Open a saved face",
            file_types=list(uploads.SAVED),
            elem_id="open-recipe",
            min_width=140,
        )
    with gr.Row(elem_classes=["studio-row"]):
        shell.seed = gr.Number(
            desk.first_seed,
            label="Number of the face",
            info="The same number always gives the same face (seed).",
            precision=0,
            minimum=0,
            maximum=2**53 - 1,
            min_width=150,
            elem_id="seed",
        )
        shell.truncation = gr.Slider(
            0,
            1,
            TRUNCATION,
            step=0.05,
            label="Variety",
            info="From ordinary to unusual faces (truncation ψ).",
            min_width=180,
            elem_id="truncation",
            buttons=[],
        )
    lock = gr.Checkbox(
        False,
        label="Keep this number",
        info="“New face” then opens this very face again, for example with another variety.",
        elem_id="lock",
    )
    widgets.heading("Faces to choose from")
    grid = widgets.grid(
        "candidates",
        "Faces to choose from",
        "There are none yet.",
        columns=6,
        value=desk.candidates(desk.gallery),
    )
    more = gr.Button("Show other faces", elem_id="more-faces")
    widgets.heading("Faces of this visit")
    shell.strip = widgets.grid("strip", "Faces of this visit", "They gather here.", columns=6, strip=True)

    def open_seed(visit: Visit, seed: int | None, truncation: float) -> tuple[Any, ...]:
        with visit.turn:
            view = service.new_face(seed, truncation)
            desk.enter(visit, view, desk.label_of(view))
        return shell.on_show(visit, view)

    def on_new(here: Visit, seed: Any, truncation: float, locked: bool) -> tuple[Any, ...]:
        return open_seed(here, _seed(seed) if locked else None, truncation)

    def on_seed(here: Visit, seed: Any, truncation: float) -> tuple[Any, ...]:
        return open_seed(here, _seed(seed), truncation)

    def on_more(here: Visit, truncation: float) -> dict[str, Any]:
        here.candidates = service.candidates(MORE, None, truncation)
        return desk.candidates(here.candidates)

    def on_candidate(here: Visit, event: gr.EventData) -> tuple[Any, ...]:
        found = chosen(here.candidates or desk.gallery, event)
        return open_seed(here, found.seed, found.truncation)

    def on_strip(here: Visit, event: gr.EventData) -> tuple[Any, ...]:
        here.go(chosen(here.faces, event))
        return shell.on_show(here, desk.run(here, service.view))

    def on_recipe(here: Visit, file: Any) -> tuple[Any, ...]:
        return shell.on_show(here, desk.open_file(here, uploads.take(file, uploads.MAX_SAVED)))

    opened = shell.opened
    shell.on(new.click, on_new, inputs=[shell.seed, shell.truncation, lock], outputs=opened)
    sampled = [shell.seed, shell.truncation]
    shell.on(shell.seed.submit, on_seed, inputs=sampled, outputs=opened)
    shell.on(shell.truncation.release, on_seed, inputs=sampled, outputs=opened, trigger_mode="always_last")
    shell.on(
        more.click, on_more, inputs=[shell.truncation], outputs=[grid], show_progress_on=more, concurrency_id=RENDER
    )
    shell.on(grid.pick, on_candidate, outputs=opened)
    shell.on(shell.strip.pick, on_strip, outputs=opened)
    shell.on(recipe.upload, on_recipe, inputs=[recipe], outputs=opened, preprocess=False)
    reason = desk.off("photo")
    if reason:
        photo.interactive = False
        widgets.note(reason, "empty")
    photo.click(None, js="() => Studio.goTo('photo')", api_visibility="private")


def _seed(value: Any) -> int:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != int(value):
        raise EditingError("the number of a face is a whole number, for example 7")
    return int(value)
