"""Describe: a sentence changes the parts it may, while one watches; the best result is taken over or dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from app import pictures, widgets
from app.curves import History
from app.guard import refuse, tell
from app.queue import LONG, call_behind, call_owner
from app.shell import Shell, names, number, record
from app.tasks import Pace, Task
from app.visit import Description, Visit
from editing.errors import EditingError
from editing.face.edits import MAX_PROMPT
from editing.results import CancelToken, FaceView
from editing.text.optimize import STRENGTHS
from editing.text.results import TextProgress

STEPS, MAX_STEPS = 300, 1000
# Those of the paper.
EXAMPLES = (
    "a man with a beard",
    "a man with gray hair",
    "a smiling woman",
    "a woman with a big nose",
    "a person with blue eyes",
)
LOSSES = (
    ("total", "All together", "the weighted sum of the others"),
    ("clip", "Words", "disagreement of picture and words (CLIP)"),
    ("latent", "Closeness", "distance of the latent codes"),
    ("identity", "Person", "difference of the persons (identity)"),
    ("segmentation", "Outlines", "movement of the parts (mask)"),
    ("outside", "Surroundings", "change of the picture where it should not change"),
)


def build(shell: Shell) -> None:
    """Makes the tab and its events."""
    desk, service = shell.desk, shell.service
    reason = desk.off("text")
    ready = not reason
    widgets.note(
        "Say what the face should look like. The codes of the parts that may change are moved, step by step, until "
        "picture and words agree."
    )
    if reason:
        widgets.note(reason, "empty")
    prompt = gr.Textbox(
        "",
        label="Description",
        placeholder=EXAMPLES[0],
        max_lines=2,
        max_length=MAX_PROMPT,
        interactive=ready,
        elem_id="prompt",
    )
    with gr.Row(elem_classes=["studio-examples"]):
        examples = [
            gr.Button(text, size="sm", interactive=ready, min_width=60, elem_classes=["studio-example"])
            for text in EXAMPLES
        ]
    choice = widgets.unseen("choice.js", "allowed-choice", topic="allowed")
    allowed = widgets.panel(
        "allowed.js", None, elem_id="allowed", name="Parts that may change", parts=desk.parts, disabled=bool(reason)
    )
    strength = gr.Radio(
        [(name.capitalize(), name) for name in STRENGTHS],
        value="normal",
        label="Strength",
        info="How far the words may lead away from the face as it is.",
        interactive=ready,
        elem_id="strength",
    )
    with gr.Accordion("Advanced", open=False, elem_id="describe-advanced"):
        steps = gr.Slider(
            10,
            MAX_STEPS,
            STEPS,
            step=10,
            label="Steps",
            info="More are slower and closer.",
            interactive=ready,
            elem_id="describe-steps",
            buttons=[],
        )
        neutral = gr.Textbox(
            "",
            label="What the face is now",
            info="In words; only the difference between the two descriptions counts. May be left empty.",
            placeholder="a face",
            max_length=MAX_PROMPT,
            interactive=ready,
            elem_id="neutral",
        )
        layers = gr.Radio(
            [("What the words are about", "auto"), *widgets.LAYERS],
            value="auto",
            label="What may change of the parts",
            info="“Long hair” is about the shape alone, “red hair” about the texture.",
            interactive=ready,
            elem_id="describe-layers",
        )
        widgets.note("Weights of the losses; choosing a strength sets them anew.", "help")
        with gr.Row(elem_classes=["studio-weights"]):
            weights = {
                name: gr.Number(
                    _preset("normal")[name],
                    label=label,
                    info=help_text,
                    minimum=0,
                    min_width=100,
                    interactive=ready and not (name == "identity" and desk.off("identity")),
                    elem_id=f"weight-{name}",
                )
                for name, label, help_text in LOSSES[1:]
            }
    with gr.Row(equal_height=True, elem_classes=["studio-row", "studio-four"]):
        start = gr.Button("Try it", variant="primary", interactive=ready, elem_id="describe", min_width=100)
        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="describe-stop", min_width=80)
        apply = gr.Button("Apply", interactive=False, elem_id="describe-apply", min_width=80)
        discard = gr.Button("Discard", interactive=False, elem_id="describe-discard", min_width=80)
    progress = widgets.panel(
        "guided.js",
        None,
        elem_id="guided",
        name="Progress of the description",
        losses=[{"name": name, "label": label, "help": help_text} for name, label, help_text in LOSSES],
    )
    # What every handler of the job answers with.
    outputs = [progress, start, stop, apply, discard]
    busy, idle = gr.update(interactive=False), gr.update(interactive=True)

    def on_prompt(text: str) -> dict[str, Any]:
        if not text.strip():
            return {}
        subject = service.subject(text)
        return {"shown": list(subject.shown), "helpers": list(subject.helpers), "layers": subject.layers}

    def on_start(
        here: Visit, text: str, chosen: Any, name: str, count: float, before: str, which: str, *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        if not text.strip():
            raise EditingError("there is no description yet; write one, or click an example")
        if here.description is not None and not here.description.task.ended:
            raise EditingError("a description is being followed already; stop it first")
        own = {loss: number(value, "a weight") for loss, value in zip(weights, values, strict=True)}
        face, cancel, owner = desk.run(here, service.view), CancelToken(), call_owner()
        # At once, since loading the judges may take a while: what an earlier description led to is gone.
        total = int(number(count, "the number of steps"))
        shown = {"face": here.here().number, "revision": face.revision}
        history = History([loss for loss, _, _ in LOSSES])

        def steps() -> Iterator[TextProgress]:
            return shell.jobs.describe(
                face.session,
                text.strip(),
                names(record(chosen).get("parts")) or None,
                before.strip(),
                name,
                None if own == _preset(name) else own,
                total,
                cancel=cancel,
                owner=owner or f"page-{id(here)}",
                layers=None if which == "auto" else which,
            )

        def each(now: TextProgress) -> None:
            history.add(now)
            if now.phase == "done":
                here.proposal = now.proposal

        here.proposal = None
        here.description = Description(text.strip(), Task(steps, each, cancel), shown, history)
        here.description.task.start()
        told = shown | _progress(TextProgress("waiting", 0, total, face.image, face.part_map), history)
        yield told, busy, idle, gr.update(interactive=False, variant="secondary"), busy
        yield from follow(here, here.description)

    def follow(here: Visit, description: Description) -> Iterator[tuple[Any, ...]]:
        """Shows a description until it ends; it goes on while somebody does."""
        pace, shown, history = Pace(), description.shown, description.history
        try:
            with closing(description.task.follow()) as steps:
                for now in steps:
                    if now.phase == "done":
                        if not description.told:
                            description.told = True
                            for notice in now.notices:
                                tell(notice)
                        can = gr.update(interactive=now.proposal is not None)
                        can_apply = gr.update(interactive=now.proposal is not None, variant="primary")
                        told = shown | _progress(
                            now, history, desk.names(now.proposal.change.parts if now.proposal else ())
                        )
                        yield told, idle, busy, can_apply, can
                    elif pace.due() and not call_behind():
                        yield shown | _progress(now, history), gr.skip(), gr.skip(), gr.skip(), gr.skip()
        except Exception as error:
            # Whatever it was, the buttons must be usable again.
            here.description = None
            refuse(error)
            yield None, idle, busy, busy, busy

    def on_again(here: Visit) -> Iterator[tuple[Any, ...]]:
        """A page that is loaded again shows the description that it was following."""
        if here.description is None:
            yield (gr.skip(),) * (1 + len(outputs))
            return
        yield here.description.prompt, gr.skip(), busy, idle, busy, busy
        for told in follow(here, here.description):
            yield gr.skip(), *told

    def on_stop(here: Visit) -> None:
        if here.description is not None:
            here.description.task.cancel.cancel()

    def on_apply(here: Visit) -> tuple[Any, ...]:
        proposal = here.proposal
        if proposal is None:
            raise EditingError("there is nothing to apply; describe the face first")

        def take(session: str) -> FaceView:
            view = service.apply_description(session, proposal)
            here.proposal = here.description = None
            return view

        shown = desk.commit(here, take)
        if here.proposal is not None:
            # It was refused, because the face was edited meanwhile; after an undo it fits again.
            return (*shown, *[gr.skip()] * len(outputs))
        return (*shown, None, idle, busy, gr.update(interactive=False, variant="secondary"), busy)

    def on_discard(here: Visit) -> tuple[Any, ...]:
        here.proposal = here.description = None
        return None, idle, busy, gr.update(interactive=False, variant="secondary"), busy

    shell.on(
        prompt.change,
        on_prompt,
        inputs=[prompt],
        visit=False,
        outputs=[allowed],
        trigger_mode="always_last",
        show_progress="hidden",
    )
    for button, text in zip(examples, EXAMPLES, strict=True):
        button.click(None, js=f"() => {text!r}", outputs=[prompt], api_visibility="private")
    shell.on(
        strength.input,
        lambda name: tuple(_preset(name)[loss] for loss in weights),
        inputs=[strength],
        visit=False,
        outputs=list(weights.values()),
        show_progress="hidden",
    )
    for event in (start.click, prompt.submit):
        shell.on(
            event,
            on_start,
            inputs=[prompt, choice, strength, steps, neutral, layers, *weights.values()],
            outputs=outputs,
            show_progress="hidden",
            concurrency_id=LONG,
        )
    shell.on(stop.click, on_stop, queue=False, show_progress="hidden")
    shell.on(apply.click, on_apply, outputs=[*shell.committed, *outputs])
    again = [prompt, *outputs]
    shell.on(progress.again, on_again, outputs=again, show_progress="hidden", concurrency_id=LONG)
    shell.on(discard.click, on_discard, outputs=outputs, show_progress="hidden")


def _preset(strength: str) -> dict[str, float]:
    """The weights of a strength."""
    return {name: float(value) for name, value in STRENGTHS[strength].items()}


def _progress(now: TextProgress, history: History, changed: str = "") -> dict[str, Any]:
    """What guided.js draws."""
    if now.phase == "waiting":
        ahead = f"Waiting: {now.position} job{'s' * (now.position != 1)} ahead of this one."
        words = ahead if now.position else "Starting."
    elif now.phase != "done":
        left = "" if now.seconds_left is None else f", about {max(1, round(now.seconds_left))} s left"
        words = f"Step {now.step} of {now.total}{left}."
    elif now.proposal is None:
        words = f"{'Stopped' if now.cancelled else 'Done'}; nothing better than the face as it is was found."
    else:
        words = (
            f"{'Stopped' if now.cancelled else 'Done'}; the best is from step {now.best_step}. Apply it, or discard it."
        )
    scores: list[tuple[str, str, str]] = []
    if now.proposal is not None:
        change = now.proposal.change
        scores = [("Untouched", f"{change.preserved:.0%} of all pixels", "Pixels that kept their value")]
        if changed:
            scores = [
                (f"Inside {changed}", f"{change.inside:.1f} of 255", "Mean change inside the parts that changed"),
                ("Outside", f"{change.outside:.1f} of 255", "Mean change outside of them"),
                *scores,
            ]
    curves = history.shown()
    return {
        "fraction": 1.0 if now.phase == "done" and not now.cancelled else now.step / max(1, now.total),
        "words": words,
        "image": "" if now.phase == "done" and now.proposal is None else pictures.jpeg(now.image),
        "total": now.total,
        "best": now.best_step if curves["steps"] else None,
        "scores": scores,
        **curves,
    }
