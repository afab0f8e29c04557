"""Swap: take parts from another face, or let the model draw a part anew."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app import pictures, uploads, widgets
from app.desk import BASE
from app.queue import RENDER
from app.shell import Shell, chosen, names, number, record
from app.visit import Visit
from editing.errors import EditingError
from editing.results import FaceView, Variant

VARIANTS = 6


def build(shell: Shell) -> None:
    """Makes the tab and its events."""
    desk, service = shell.desk, shell.service
    with gr.Row(equal_height=True, elem_classes=["studio-row", "studio-cards"]):
        widgets.card("this", None, desk.parts)
        other = widgets.card("other", None, desk.parts)
    with gr.Row(equal_height=True, elem_classes=["studio-row"]):
        new = gr.Button("Another face", variant="primary", elem_id="other-new", min_width=120)
        mine = gr.Button("One of my faces", elem_id="other-mine", min_width=120)
        copy = gr.Button("As it was", elem_id="other-start", min_width=110)
        recipe = gr.UploadButton("From a file", file_types=list(uploads.SAVED), elem_id="other-open", min_width=100)
    panel = widgets.panel(
        "swap.js", {"seq": 0, "parts": []}, elem_id="swap-panel", name="What to take", parts=desk.parts
    )
    widgets.heading("Surprise me")
    reason = desk.off("resample")
    choices = [(part["label"], part["name"]) for part in [*desk.parts[1:], desk.parts[0]]]
    with gr.Row(equal_height=True, elem_classes=["studio-row"]):
        part = gr.Dropdown(
            [*choices, (desk.labels[BASE], BASE)],
            value="hair" if "hair" in desk.labels else choices[0][1],
            label="Part to draw anew",
            info=reason or "Drawn so that it suits the other parts.",
            interactive=not reason,
            min_width=180,
            elem_id="surprise-part",
        )
        group = gr.Radio(
            list(widgets.LAYERS),
            value="all",
            label="What of it",
            info="Shape or texture layers, or both.",
            interactive=not reason,
            min_width=200,
            elem_id="surprise-group",
        )
    surprise = gr.Button("Surprise me", interactive=not reason, elem_id="surprise")
    grid = widgets.grid("variants", "Six versions of the part", "Six versions appear here; click one.", columns=6)

    def show_other(visit: Visit, view: FaceView, label: str) -> dict[str, Any]:
        previous, visit.other = visit.other, desk.opened(visit, view, label)
        if previous is not None:
            service.close_session(previous.token)
        return {
            "n": visit.other.number,
            "image": pictures.jpeg(view.image),
            "map": pictures.ids(view.part_map),
            "title": label,
            "alt": f"The other face: {label}",
        }

    def on_new(here: Visit, truncation: float) -> dict[str, Any]:
        view = service.new_face(None, truncation)
        return show_other(here, view, desk.label_of(view))

    def on_copy(here: Visit) -> dict[str, Any]:
        view = desk.run(here, service.duplicate)
        return show_other(here, service.reset_all(view.session), f"{here.here().label}, not edited")

    def on_mine(here: Visit) -> dict[str, Any]:
        """The one that was opened last, as it stands; asked again, the one before."""
        with here.lock:
            faces = [face for face in reversed(here.faces) if face is not here.current]
            if not faces:
                raise EditingError("there is no second face yet; open another one in the Face or Photo tab")
            last = next((k for k, face in enumerate(faces) if face.id == here.lender), -1)
            face = faces[(last + 1) % len(faces)]
            here.lender = face.id
        return show_other(here, desk.run(here, service.duplicate, face), face.label)

    def on_recipe(here: Visit, file: Any) -> dict[str, Any]:
        view = service.open_recipe(uploads.take(file, uploads.MAX_SAVED))
        label = desk.label_of(view)
        for token in service.beside(view.session):
            service.close_session(token)
        for photo in service.photos_of(view.session):
            service.close_photo(photo)  # once nobody needs it
        return show_other(here, view, label)

    def wanted(visit: Visit, value: Any) -> tuple[str, list[str], str, float, int]:
        if visit.other is None:
            raise EditingError("choose another face first")
        fields = record(value)
        amount = number(fields.get("amount"), "the amount")
        seq = int(number(fields.get("seq"), "the number of the gesture"))
        return visit.other.token, names(fields.get("parts")), str(fields.get("group")), amount, seq

    def on_preview(here: Visit, value: Any) -> dict[str, Any]:
        token, parts, kind, amount, seq = wanted(here, value)
        if kind == "blend":
            view = desk.run(here, lambda face: service.preview_blend(face, token, amount, parts))
        else:
            view = desk.run(here, lambda face: service.preview_swap(face, token, parts, kind, amount))
        return desk.live(here, view, seq)

    def on_apply(here: Visit, value: Any) -> tuple[Any, Any]:
        token, parts, kind, amount, seq = wanted(here, value)
        if kind == "blend":
            return desk.commit(here, lambda face: service.blend(face, token, amount, parts), seq)
        return desk.commit(here, lambda face: service.swap(face, token, parts, kind, amount), seq)

    def on_surprise(here: Visit, name: str, kind: str) -> dict[str, Any]:
        found: list[tuple[Variant, ...]] = []

        def draw(token: str) -> FaceView:
            found.append(service.variants(token, name, VARIANTS, None, kind))
            return service.view(token)

        desk.run(here, draw)
        here.variants = found[-1]
        label = desk.labels.get(name, name)
        compared = any(variant.likelihood for variant in here.variants)  # else all suit alike
        return {
            "items": [
                {
                    "image": pictures.thumb(variant.image),
                    "label": f"{label} {index}",
                    "note": "suits best" if compared and variant.likelihood == 0.0 else "",
                    "alt": f"The face with version {index} of the part: {label.lower()}",
                    "title": "Take this version."
                    + f" The rest of the face expects it {-variant.likelihood:.1f} nats less than the best of the six."
                    * compared,
                }
                for index, variant in enumerate(here.variants, start=1)
            ],
            "chosen": None,
        }

    def on_variant(here: Visit, event: gr.EventData) -> tuple[Any, Any]:
        variant = chosen(here.variants, event)
        return desk.commit(here, lambda token: service.apply_variant(token, variant))

    shell.on(new.click, on_new, inputs=[shell.truncation], outputs=[other])
    shell.on(mine.click, on_mine, outputs=[other])
    shell.on(copy.click, on_copy, outputs=[other])
    shell.on(recipe.upload, on_recipe, inputs=[recipe], outputs=[other], preprocess=False)
    shell.on_preview(panel, on_preview)
    shell.on(panel.apply, on_apply, inputs=[panel], outputs=shell.committed)
    shell.on(
        surprise.click, on_surprise, [part, group], outputs=[grid], show_progress_on=surprise, concurrency_id=RENDER
    )
    shell.on(grid.pick, on_variant, outputs=shell.committed)
