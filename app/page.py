"""The page: header, the face with its tools, the tabs, and what happens when it is opened or reloaded."""

from __future__ import annotations

import base64
from html import escape
from typing import Any

import gradio as gr

from app import api, widgets
from app.desk import Desk, face_label
from app.guard import sentence, tell
from app.jobs import LongJobs
from app.shell import Shell, present, record
from app.tabs import about, compose, describe, edit, face, photo, swap
from app.visit import Visit, close_visit
from editing.errors import EditingError
from editing.service import EditingService

TITLE = "MemoryGAN Studio"
THEME_HELP = "Switch between light and dark"
# Gradio encrypts what it keeps in the browser, but with a key every visitor gets: a name, not a secret. It has to be
# the same after a restart of the server, or nothing could be restored.
STORAGE_KEY = "memorygan-studio"
STORAGE_SECRET = "memorygan-studio"
TABS = (
    ("face", "Face"),
    ("edit", "Edit"),
    ("swap", "Swap"),
    ("describe", "Describe"),
    ("compose", "Compose"),
    ("photo", "Photo"),
    ("about", "About"),
)


def build(service: EditingService, jobs: LongJobs | None = None) -> gr.Blocks:
    """The whole page for a service; :func:`app.server.launch` shows it.

    Args:
        service: does everything.
        jobs: runs what takes long, where that is not the service itself.
    """
    desk, jobs = Desk(service), jobs or service
    with gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        fill_width=True,
        # Files of API calls and uploads that were never read: looked for every ten minutes, gone after an hour.
        delete_cache=(600, 3600),
    ) as demo:
        visit = gr.State(None, delete_callback=lambda state: close_visit(service, state))
        saved = gr.BrowserState(None, storage_key=STORAGE_KEY, secret=STORAGE_SECRET)
        gr.HTML(_header(), padding=False, elem_id="header")
        notice = gr.HTML(_notice(service), padding=False, elem_id="notice")
        with gr.Row(elem_id="desk", equal_height=False):
            with gr.Column(elem_id="stage-column", scale=5, min_width=300):
                stage = widgets.stage(desk.first, desk.parts)
                live, saver = widgets.unseen("live.js", "live"), widgets.unseen("saver.js", "saver")
                shell = Shell(desk, jobs, visit, stage, live, saver, saved)
            with (
                gr.Column(elem_id="tab-column", scale=6, min_width=300),
                gr.Tabs(elem_id="tabs", selected="face", overflow_behavior="wrap") as shell.tabs,
            ):
                _tabs(shell)
        _history(shell)
        _load(shell, demo, notice)
        api.build(service, jobs)
    return demo


def _tabs(shell: Shell) -> None:
    builders = {"face": face, "edit": edit, "swap": swap, "describe": describe, "compose": compose, "photo": photo}
    for name, label in TABS:
        # The id of a tab's button is made of its elem_id; static/studio.js looks for it.
        with gr.Tab(label, id=name, elem_id=f"tab-{name}") as tab:
            if name == "about":
                about.build(shell, tab)
            else:
                builders[name].build(shell)
        tab.select(None, js=f"() => Studio.setTab('{name}')", api_visibility="private")


def _history(shell: Shell) -> None:
    """Undo, redo, reset and saving, below the face."""
    desk, service, stage = shell.desk, shell.service, shell.stage

    def step(visit: Visit | None, by: int) -> tuple[Any, ...]:
        here = present(visit)
        return shell.on_show(here, desk.step(here, by))

    def on_undo(visit: Visit | None) -> tuple[Any, ...]:
        return step(visit, -1)

    def on_redo(visit: Visit | None) -> tuple[Any, ...]:
        return step(visit, 1)

    def on_reset(visit: Visit | None) -> tuple[Any, Any]:
        return desk.commit(present(visit), service.reset_all)

    def save(visit: Visit | None, kind: str) -> dict[str, Any]:
        here = present(visit)
        desk.run(here, service.view)
        token = here.here().token
        data = service.export_png(token) if kind == "png" else service.export_json(token).encode("ascii")
        return {
            "n": next(here.numbers),
            "name": f"{here.here().label.lower().replace(' ', '-')}.{kind}",
            "mime": "image/png" if kind == "png" else "application/json",
            "data": base64.b64encode(data).decode("ascii"),
        }

    def on_picture(visit: Visit | None) -> dict[str, Any]:
        return save(visit, "png")

    def on_recipe(visit: Visit | None) -> dict[str, Any]:
        return save(visit, "json")

    shell.on(stage.undo, on_undo, inputs=[shell.visit], outputs=shell.opened)
    shell.on(stage.redo, on_redo, inputs=[shell.visit], outputs=shell.opened)
    shell.on(stage.reset, on_reset, inputs=[shell.visit], outputs=shell.committed)
    shell.on(stage.picture, on_picture, inputs=[shell.visit], outputs=[shell.saver])
    shell.on(stage.recipe, on_recipe, inputs=[shell.visit], outputs=[shell.saver])


def _load(shell: Shell, demo: gr.Blocks, notice: gr.HTML) -> None:
    """A new page starts with the first face, a reloaded one with the face it had."""
    desk, service = shell.desk, shell.service

    def on_load(stored: Any) -> tuple[Any, ...]:
        visit = Visit()
        fields = record(stored)
        recipe = fields.get("recipe")
        view, label = None, ""
        if isinstance(recipe, str) and recipe:
            try:
                view = service.open_recipe(recipe)
                label = str(fields.get("label") or "")[:60] or face_label(view)
            except EditingError as error:
                tell(f"The face of your last visit could not be restored. {sentence(error)}")
        if view is None:
            view = service.new_face(desk.first_seed)
            label = face_label(view)
        desk.enter(visit, view, label)
        return (visit, _notice(service), *shell.on_show(visit, view))

    shell.on(
        demo.load,
        on_load,
        inputs=[shell.saved],
        outputs=[shell.visit, notice, *shell.opened],
        show_progress="hidden",
        show_progress_on=None,
    )


def _header() -> str:
    logo = widgets.static("logo.svg").replace("<svg ", '<svg width="40" height="40" ', 1)
    return (
        f"<header class='studio-header'>{logo}<div><h1>{TITLE}</h1>"
        "<p>Change one part of a face and leave the rest alone.</p></div>"
        "<button type='button' class='studio-button studio-theme' onclick='Studio.toggleTheme()' "
        f"aria-label='{THEME_HELP}' title='{THEME_HELP}'>"
        "<svg viewBox='0 0 24 24' aria-hidden='true'><circle cx='12' cy='12' r='9' fill='none' stroke='currentColor' "
        "stroke-width='2'/><path d='M12 3a9 9 0 0 1 0 18Z' fill='currentColor'/></svg></button></header>"
    )


def _notice(service: EditingService) -> str:
    """What everybody has to know; it can change while the program runs."""
    text = service.notice
    return f"<p class='studio-notice' role='note'>{escape(sentence(text))}</p>" if text else ""
