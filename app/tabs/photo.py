"""Photo: an uploaded face becomes an editable one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from app import pictures, uploads, widgets
from app.guard import refuse, tell
from app.queue import LONG, call_behind, call_owner
from app.shell import Shell, number, record
from app.tasks import Pace, Task
from app.visit import Rebuilding, Visit
from editing.errors import EditingError
from editing.guidance.likeness import SAME_PERSON, SIMILAR
from editing.photo.store import Square
from editing.results import CancelToken, InversionProgress, Likeness, PhotoView

STEPS = {"quick": 60, "normal": 200, "careful": 600}
TUNE_STEPS = 120
# The most that can be done for the likeness: what “Rebuild closer” asks for in the end.
MOST = ("careful", True)
_PHASES = {
    "waiting": "Waiting",
    "encode": "First guess",
    "refine": "Refining",
    "tune": "Tuning to this photo",
    "done": "Done",
}
_STARTING = {"fraction": 0.0, "words": "Starting.", "image": None, "target": None, "scores": []}


def build(shell: Shell) -> None:
    """Makes the tab and its events."""
    desk, service = shell.desk, shell.service
    reason = desk.off("photo")
    widgets.note(
        "Use pictures of yourself, or of people who agreed to it. The uploaded file is deleted as soon as it was read, "
        "and the photo is forgotten with this page."
    )
    if reason:
        widgets.note(reason, "empty")
    drop = gr.Image(
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        label="Your photo",
        height=190,
        interactive=not reason,
        buttons=[],
        elem_id="photo-drop",
        placeholder="Drop a photo here, or click to choose one\nJPEG, PNG, WebP or HEIC, up to 64 MiB",
    )
    choice = widgets.unseen("choice.js", "choice", topic="photo")
    photo = widgets.panel("photo.js", None, elem_id="photo", name="The photo")
    with gr.Row(equal_height=True, elem_classes=["studio-row"]):
        effort = gr.Radio(
            [("Quick", "quick"), ("Normal", "normal"), ("Careful", "careful")],
            value="normal",
            label="How carefully",
            info=f"{STEPS['quick']}, {STEPS['normal']} or {STEPS['careful']} refinement steps of the codes (W+).",
            min_width=220,
            elem_id="effort",
        )
        tune = gr.Checkbox(
            False,
            label="Closer likeness",
            info="Also tunes the render net to this photo; a saved recipe does not carry that (pivotal tuning).",
            min_width=180,
            elem_id="tune",
        )
    notes = [text for text in (desk.off("align"), desk.off("encode"), desk.off("parse")) if text]
    if notes:
        gr.HTML("".join(f"<p class='studio-help'>{note}</p>" for note in notes), padding=False)
    with gr.Row(equal_height=True, elem_classes=["studio-row"]):
        start = gr.Button("Rebuild this face", variant="primary", interactive=False, elem_id="rebuild", min_width=140)
        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop", min_width=80)
        send = gr.Button("Edit it", interactive=False, elem_id="send", min_width=80)
        nearer = gr.Button("Rebuild closer", visible=False, elem_id="nearer", min_width=120)
    progress = widgets.panel("rebuild.js", None, elem_id="progress", name="Progress of the reconstruction")
    busy, idle = gr.update(interactive=False), gr.update(interactive=True)

    def on_photo(here: Visit, file: Any) -> tuple[Any, ...]:
        if not file:
            return (gr.skip(),) * (7 + len(shell.opened))
        try:
            found = service.open_photo(uploads.take(file), here.held_photos())
        except EditingError as error:
            refuse(error)
            # The drop zone is emptied in any case: what it shows is a file that is gone.
            return gr.update(value=None), *(gr.skip(),) * (6 + len(shell.opened))
        # It may be the photo that recipes of this visit name.
        met = desk.reunite(here, found.photo)
        if found.photo == here.photo:
            tell("This photo is open already; nothing of it was lost.")
            panel: tuple[Any, ...] = (gr.skip(),) * len(shown)
        else:
            panel = _show(shell, here, found)
        face = shell.on_show(here, desk.run(here, service.view)) if met else (gr.skip(),) * len(shell.opened)
        return gr.update(value=None), *panel, *face

    def on_turn(here: Visit) -> tuple[Any, ...]:
        if here.photo is None:
            raise EditingError("choose a photo first")
        return _show(shell, here, service.turn_photo(here.photo))

    def on_start(here: Visit, chosen: Any, care: str, closer: bool) -> Iterator[tuple[Any, ...]]:
        if here.photo is None:
            raise EditingError("choose a photo first")
        asked, last = here.photo, here.rebuilding
        if last is not None and not last.task.ended and not last.task.cancel.cancelled:
            raise EditingError("a reconstruction is under way already; stop it first")
        fields = record(chosen)
        face, square = _chosen(fields)
        count, tuning = STEPS.get(care, STEPS["normal"]), TUNE_STEPS if closer else 0
        cancel, owner = CancelToken(), call_owner() or f"page-{id(here)}"

        def steps() -> Iterator[InversionProgress]:
            return shell.jobs.invert(asked, face, square, count, tuning, cancel=cancel, owner=owner)

        def each(now: InversionProgress) -> None:
            if now.phase == "done":
                if still(here, mine):
                    _keep(shell, here, mine, now, square)
                elif now.view is not None:
                    service.close_session(now.view.session)

        which = face if square is None else None
        mine = Rebuilding(asked, Task(steps, each, cancel), most=(care, closer) == MOST, face=which)
        here.rebuilding = mine
        mine.task.start()
        # At once, since loading the judges may take a while: what stood there was of an earlier reconstruction.
        yield _STARTING, busy, idle, gr.update(interactive=False, variant="secondary"), gr.update(visible=False)
        yield from follow(here, mine)

    def still(here: Visit, mine: Rebuilding) -> bool:
        """Whether what the page shows is about this reconstruction: no other photo was chosen meanwhile."""
        return here.rebuilding is mine and here.photo == mine.photo

    def follow(here: Visit, mine: Rebuilding) -> Iterator[tuple[Any, ...]]:
        """Shows a reconstruction until it ends; it goes on while somebody does."""
        pace = Pace()
        try:
            with closing(mine.task.follow()) as steps:
                for now in steps:
                    likeness = None if now.identity is None else service.likeness(now.identity)
                    if not still(here, mine):
                        # Something is said all the same: at the end Gradio repeats what was said last.
                        yield (gr.skip(),) * 5
                    elif now.phase == "done":
                        for notice in () if mine.told else now.notices:
                            tell(notice)
                        mine.told = True
                        can_edit = gr.update(interactive=bool(here.rebuilt), variant="primary")
                        more = likeness is not None and likeness.word != SAME_PERSON and not mine.most
                        yield _progress(now, likeness, more), idle, busy, can_edit, gr.update(visible=more)
                    elif pace.due() and not call_behind():
                        yield _progress(now, likeness), *(gr.skip(),) * 4
        except Exception as error:
            # Whatever it was, the buttons must be usable again.
            if still(here, mine):
                here.rebuilding = None
                refuse(error)
                yield None, idle, busy, gr.update(interactive=bool(here.rebuilt)), gr.skip()
            else:
                yield (gr.skip(),) * 5

    def on_again(here: Visit) -> Iterator[tuple[Any, ...]]:
        """A page that is loaded again shows its photo, and the reconstruction that it was following."""
        if here.photo is None or here.photo_shown is None:
            yield (gr.skip(),) * len(shown)
            return
        mine = here.rebuilding
        going = mine is not None and not mine.task.ended
        can_edit = gr.update(interactive=bool(here.rebuilt))
        can_stop = gr.update(interactive=going)
        # The face that was rebuilt is the one that is chosen, or else the one on show.
        photo_now = {**here.photo_shown, "face": _on_show(shell, here) if mine is None else mine.face or 0}
        yield photo_now, gr.update(interactive=not going), can_stop, can_edit, gr.update(visible=False), None
        for progress_now, *buttons in follow(here, mine) if mine is not None else ():
            yield gr.skip(), *buttons, progress_now

    def on_nearer(care: str, closer: bool) -> tuple[str, bool]:
        return (MOST[0] if closer else care), True

    def on_stop(here: Visit) -> None:
        if here.rebuilding is not None:
            here.rebuilding.task.cancel.cancel()

    def on_send(here: Visit, chosen: Any) -> tuple[Any, ...]:
        if not here.rebuilt:
            raise EditingError("there is no reconstruction yet; rebuild a face first")
        made, (face, square) = here.rebuilding, _chosen(record(chosen))
        which = face if square is None else None
        if which not in here.rebuilt or (square is not None and not _near(square, here.rebuilt_square)):
            what = "this square" if square is not None else f"face {face + 1}"
            others = [f"face {one + 1}" for one in here.rebuilt if one is not None]
            again = f", or choose {' or '.join(others)} again" if others else ""
            raise EditingError(f"{what} is not rebuilt yet; rebuild it first{again}")
        if made is not None and made.face == which:
            made.taken = True
        # A copy, so that the reconstruction can be sent again after it was edited.
        view = service.duplicate(here.rebuilt[which])
        if here.photo is not None:
            here.photos.add(here.photo)  # stays as long as the page: the face is shown in it
        desk.enter(here, view, desk.label_of(view))
        return (*shell.on_show(here, view), gr.Tabs(selected="edit"))

    shown = [photo, start, stop, send, nearer, progress]
    shell.on(
        drop.input,
        on_photo,
        inputs=[drop],
        outputs=[drop, *shown, *shell.opened],
        preprocess=False,
        trigger_mode="always_last",
        show_progress_on=drop,
    )
    shell.on(photo.again, on_again, outputs=shown, show_progress="hidden", concurrency_id=LONG)
    shell.on(photo.turn, on_turn, outputs=shown, show_progress_on=photo)
    wished = [effort, tune]
    wish = shell.on(nearer.click, on_nearer, inputs=wished, visit=False, outputs=wished, show_progress="hidden")
    for event in (start.click, wish.success):
        shell.on(
            event,
            on_start,
            inputs=[choice, effort, tune],
            outputs=[progress, start, stop, send, nearer],
            show_progress="hidden",
            # The next photo may be rebuilt while the job of the last one is still ending.
            trigger_mode="multiple",
            concurrency_id=LONG,
        )
    shell.on(stop.click, on_stop, queue=False, show_progress="hidden")
    shell.on(send.click, on_send, inputs=[choice], outputs=[*shell.opened, shell.tabs])


def _show(shell: Shell, visit: Visit, found: PhotoView) -> tuple[Any, ...]:
    """Puts a photo in the place of the last one, and ends what went on with that.

    Returns:
        Values for the photo, the buttons to start, stop, edit and get nearer, and the progress.
    """
    for notice in found.notices:
        tell(notice)
    shown = shell.desk.put_photo(visit, found)
    off = gr.update(interactive=False, variant="secondary")
    return shown, gr.update(interactive=True), gr.update(interactive=False), off, gr.update(visible=False), None


def _keep(shell: Shell, visit: Visit, made: Rebuilding, last: InversionProgress, square: Square | None) -> None:
    """Remembers the reconstructed face of a finished job."""
    if last.view is None:
        return
    with visit.lock:
        previous = visit.rebuilt.get(made.face)
        visit.rebuilt[made.face] = last.view.session
        if made.face is None:
            visit.rebuilt_square = square
        closed = visit.closed
    if previous is not None:
        shell.service.close_session(previous)
    if closed:
        shell.service.close_session(last.view.session)


def _chosen(fields: dict[str, Any]) -> tuple[int, Square | None]:
    """The number of the face that is chosen, from 0, and the square by hand instead of it, if there is one."""
    crop, square = fields.get("crop"), None
    if isinstance(crop, list) and len(crop) == 4:
        left, top, side, turn = (number(value, "the square") for value in crop)
        square = (left, top, side, turn)
    return int(number(fields.get("face", 0), "the number of the face")), square


def _near(one: Square, other: Square | None) -> bool:
    """Whether two squares are about the same face."""
    if other is None:
        return False
    far = [one[axis] + one[2] / 2 - other[axis] - other[2] / 2 for axis in (0, 1)]
    return math.hypot(*far) < 0.25 * one[2]


def _on_show(shell: Shell, visit: Visit) -> int:
    """The number, from 0, of the face on show among those found in the photo; 0 for another."""
    token = visit.here().token
    if visit.photo is None or visit.photo not in shell.service.photos_of(token)[:1]:
        return 0
    found, faces = shell.service.number_in_photo(token)[0], (visit.photo_shown or {}).get("faces", [])
    return found - 1 if found <= len(faces) else 0


def _progress(now: InversionProgress, likeness: Likeness | None, more: bool = False) -> dict[str, Any]:
    """What the panel shows; ``more``: a closer reconstruction can be had."""
    if now.phase == "waiting":
        words = f"Waiting: {now.position} reconstruction{'s' * (now.position != 1)} ahead of this one."
    elif now.phase == "done":
        words = "Stopped; this is the best so far." if now.cancelled else "Done. “Edit it” takes the face over."
        if now.view is None:
            words = "Stopped before it began."
        elif likeness is not None and likeness.word != SAME_PERSON:
            lost = "is only similar to" if likeness.word == SIMILAR else "looks like someone other than"
            hint = "“Rebuild closer” tries harder." if more else "This model may not get nearer."
            words = f"{words} The reconstruction {lost} the person in the photo. {hint}"
    else:
        left = "" if now.seconds_left is None else f", about {max(1, round(now.seconds_left))} s left"
        words = f"{_PHASES.get(now.phase, now.phase)}: step {now.step} of {now.steps}{left}."
    scores = []
    if not math.isnan(now.error):
        scores.append(("Difference", f"{now.error:.1f} of 255", "Mean difference between photo and reconstruction"))
    if not math.isnan(now.mask_agreement):
        scores.append(("Parts in place", f"{now.mask_agreement:.0%}", "Share of pixels that belong to the same part"))
    if likeness is not None:
        scores.append(("Likeness", f"{likeness.word}, {likeness.cosine:.2f}", likeness.meaning))
    elif now.identity is not None:
        scores.append(("Likeness", f"{now.identity:.2f}", "Cosine similarity of the two faces’ identities, at most 1"))
    return {
        "fraction": 1.0 if now.phase == "done" and not now.cancelled else now.step / max(1, now.steps),
        "words": words,
        "image": pictures.jpeg(now.image, pictures.SHOWN // 2, quality=88),
        "target": pictures.jpeg(now.target, pictures.SHOWN // 2, quality=88),
        "scores": scores,
    }
