"""The page: header, the face with its tools, the tabs, and what happens when it is opened or reloaded."""

from __future__ import annotations

import base64
import itertools
import re
from html import escape
from typing import Any

import gradio as gr

from app import api, widgets
from app.desk import MAX_STORED, Desk
from app.guard import sentence, tell
from app.jobs import LongJobs
from app.queue import call_login
from app.shell import Shell, record
from app.sizes import allow
from app.tabs import about, compose, describe, edit, face, photo, swap
from app.visit import Visit, Visits, close_visit, is_open
from editing.errors import EditingError
from editing.results import FaceView
from editing.service import EditingService

TITLE = "MemoryGAN Studio"
THEME_HELP = "Switch between light and dark"
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
        visit.studio_needed = True  # type: ignore[attr-defined]  # see app/queue.py
        saved = widgets.unseen("keep.js", "keep")
        gr.HTML(_header(), padding=False, elem_id="header")
        notice = gr.HTML(_notice(service), padding=False, elem_id="notice")
        with gr.Row(elem_id="desk", equal_height=False):
            with gr.Column(elem_id="stage-column", scale=5, min_width=300):
                stage = widgets.stage(desk.first, desk.parts)
                live, saver = widgets.unseen("live.js", "live"), widgets.unseen("saver.js", "saver")
                wide = widgets.unseen("wide.js", "wide")
                shell = Shell(desk, jobs, visit, stage, live, saver, wide, saved)
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

    def step(here: Visit, by: int) -> tuple[Any, ...]:
        return shell.on_show(here, desk.step(here, by))

    def save(here: Visit, kind: str) -> dict[str, Any]:
        in_photo = desk.run(here, service.view).in_photo
        token = here.here().token
        mime = {"png": "image/png", "json": "application/json", "zip": "application/zip"}[kind]
        if kind == "png" and in_photo:
            saved = service.export_photo(token)
            data, kind, mime = saved.data, saved.suffix, saved.mime
        elif kind == "png":
            data = service.export_png(token)
        elif kind == "zip":
            data = service.export_project(token)
        else:
            data = service.export_json(token).encode("ascii")
        return {
            "n": next(here.numbers),
            "name": f"{re.sub(r'[^a-z0-9]+', '-', here.here().label.lower())}.{kind}",
            "mime": mime,
            "data": base64.b64encode(data).decode("ascii"),
        }

    shell.on(stage.undo, lambda here: step(here, -1), outputs=shell.opened)
    shell.on(stage.redo, lambda here: step(here, 1), outputs=shell.opened)
    shell.on(stage.reset, lambda here: desk.commit(here, service.reset_all), outputs=shell.committed)
    shell.on(stage.picture, lambda here: save(here, "png"), outputs=[shell.saver])
    shell.on(stage.project, lambda here: save(here, "zip"), outputs=[shell.saver])
    shell.on(stage.whole, desk.whole, outputs=[shell.wide])
    shell.on(stage.recipe, lambda here: save(here, "json"), outputs=[shell.saver])


def _load(shell: Shell, demo: gr.Blocks, notice: gr.HTML) -> None:
    """A new page starts with the first face, a reloaded one where it was, as far as anybody remembers."""
    desk, service, visits = shell.desk, shell.service, Visits()

    def opened(fields: dict[str, Any]) -> tuple[Visit, FaceView]:
        """A new visit with the face that the browser kept."""
        visit = Visit()
        # Pages number what they show; what is restored is newer than what they have.
        visit.numbers = itertools.count(1 + _count(fields.get("n")))
        recipe = fields.get("recipe")
        view, label = None, ""
        if isinstance(recipe, str) and recipe:
            try:
                view = service.open_recipe(recipe)
                label = str(fields.get("label") or "")[:60] or desk.label_of(view)
            except EditingError as error:
                tell(f"The face of your last visit could not be restored. {sentence(error)}")
        if view is None:
            view = service.new_face(desk.first_seed)
            label = desk.label_of(view)
        found = desk.enter(visit, view, label)
        found.id = _count(fields.get("id")) or found.id
        return visit, view

    def known_as(fields: dict[str, Any]) -> str:
        tab = fields.get("tab")
        return f"{call_login()}/{tab[:64]}" if isinstance(tab, str) and tab else ""

    def on_load(visit: Visit | None, kept: Any) -> tuple[Any, ...]:
        fields = record(kept)
        name = known_as(fields)
        here = visit if is_open(visit) else visits.again(name)
        if here is None:
            here, view = opened(fields)
            visits.put(name, here)
        else:
            view = desk.run(here, service.view)
        return (here, _notice(service), *shell.on_show(here, view))

    def on_restore(visit: Visit | None, kept: Any) -> Visit:
        fields = record(kept)
        if is_open(visit):
            return visit
        here, _ = opened(fields)
        visits.put(known_as(fields), here)
        return here

    def on_alive(visit: Visit | None) -> dict[str, bool]:
        return {"known": is_open(visit)}

    def on_refresh(here: Visit) -> tuple[Any, ...]:
        return shell.on_show(here, desk.run(here, service.view))

    on_load.studio_first = True  # type: ignore[attr-defined]  # see app/queue.py
    allow(shell.saved, MAX_STORED + 2**12)
    quiet: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": None}
    shell.on(
        demo.load,
        on_load,
        inputs=[shell.visit, shell.saved],
        visit=False,
        outputs=[shell.visit, notice, *shell.opened],
        js="(visit) => [visit, Studio.kept()]",
        **quiet,
    )
    shell.on(shell.saved.refresh, on_refresh, outputs=shell.opened, **quiet)
    # For static/link.js, which asks without the stream through which answers come, as that is what was cut.
    known = gr.JSON(visible=False)
    direct = {"queue": False, "visit": False, **quiet}
    restore, alive = gr.Button(visible=False), gr.Button(visible=False)
    both = [shell.visit, shell.saved]
    shell.on(restore.click, on_restore, inputs=both, outputs=[shell.visit], api_name="restore", **direct)
    shell.on(alive.click, on_alive, inputs=[shell.visit], outputs=[known], api_name="alive", **direct)


def _count(value: Any) -> int:
    """A number of something that a browser tells; 0 if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else 0


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
