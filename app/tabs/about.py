"""About the model: what is in use, and how to use it responsibly."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app import figures
from app.guard import sentence
from app.shell import Shell
from editing.results import JudgeInfo
from memorygan.manifest import WEIGHTS_DIR

HOW = """
## How a face is made

1. **Working memory.** A small network, the *controller*, walks through the parts in a fixed order and writes one
   *query code* for each. Every query depends on those before it, so the parts of one face suit each other.
   Random faces are drawn by a *prior* of these codes, where the model has one: it has learned which codes people have.
2. **Long-term memory.** One generator, shared by all parts, answers each query with what that part looks like and
   how strongly it claims each point (its *pseudo-depth*).
3. **Composition.** At every point the parts compete; the outcome is the mask, and a mixture of the parts.
4. **Render.** A convolutional network turns the mixture into the picture.

The method is that of Z. Wang, J. Peng and Z. Liu, “MemoryGAN: GAN Generator as Heterogeneous Memory for
Compositional Image Synthesis”, *Electronics* 2023, 12(13), 2927
([doi:10.3390/electronics12132927](https://doi.org/10.3390/electronics12132927)). This program is independent of them.
"""

CARE = """
## Responsible use

- Do not edit pictures of people without their consent.
- Do not pass off an edited or generated face as a photograph of someone.
- A model knows only the faces it was trained on; for people unlike those, expect worse results, and do not read
  anything about a person from them.
- Sliders are named after what they were measured to change on average. They say nothing about any one person.

## Licence

The program is under the MIT licence. Weights are not code: each checkpoint has the terms its model card states.
Weights trained on CelebAMask-HQ inherit that data set’s terms: non-commercial research and education only.

## Your data

Faces live in the memory of this server while the page is open and for a while after, and in this browser’s storage, so
that a reload finds them again. An uploaded file arrives as a temporary file, is read once and then deleted; one that is
never used is deleted after an hour or so. The photo itself stays in memory until the page is closed, or for an hour
after it was last used. Pictures and clips made for programs are temporary files for as long. No picture leaves this
server, except to whoever asked for it.
"""


def build(shell: Shell, tab: gr.Tab) -> None:
    """Makes the tab and its events."""
    service = shell.service
    facts = gr.HTML(_facts(shell), padding=False, elem_id="facts")
    measured = figures.measured(service.checkpoint)
    if measured:
        gr.HTML(measured, padding=False, elem_id="measured")
    # Filled when the tab is first seen: counting takes a second that the start of the page should not wait for.
    paper = gr.HTML("", padding=False, elem_id="paper")
    card = _model_card(service.model)
    if card:
        with gr.Accordion("Model card", open=False):
            gr.Markdown(card)
    gr.Markdown(HOW)
    gr.Markdown(CARE)
    counted = lru_cache(lambda: figures.complexity(service.kind, service.config))

    def on_select() -> tuple[str, str]:
        return _facts(shell), f"<h2>The paper’s figures</h2>{counted()}"

    shell.on(tab.select, on_select, visit=False, outputs=[facts, paper], show_progress="hidden")


def _model_card(model: str) -> str:
    """The card beside the bundled checkpoints, without a title of its own; "" if there is none."""
    for name in (f"{model}.md", "README.md"):
        file = WEIGHTS_DIR / name
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            if text.startswith("---\n"):
                text = text.split("---\n", 2)[-1]
            return text
    return ""


def _facts(shell: Shell) -> str:
    service = shell.service
    health: dict[str, Any] = service.health()
    render = health["timings"].get("render")
    preview = health["timings"].get("preview")
    rows = [
        ("Checkpoint", f"{service.model} ({service.checkpoint[:12]}…)", "name and start of the sha256"),
        ("Trained", "yes" if service.trained else "no: what it shows is noise", ""),
        ("Device", service.device, "where pictures are computed now"),
        ("Pictures", f"{service.picture_size} × {service.picture_size} pixels", "the paper: 256 × 256"),
        ("Parts", str(len(service.parts)), ", ".join(part.label.lower() for part in service.parts)),
        ("Sliders", str(len(service.sliders())), "directions that were measured on this model"),
    ]
    guidance = service.guidance()
    rows.append(_judge("Text judge", guidance.text, "tells whether a picture fits a description"))
    scale = service.likeness_scale()
    person = "tells whether it is still the same person"
    rows.append(
        _judge(
            "Identity judge",
            guidance.identity,
            person if scale is None else f"{person}: {scale.meaning}. {scale.measured}",
        )
    )
    if getattr(shell.jobs, "lent", False):
        rows.append(("Long jobs", "on a GPU of their own", "descriptions and photos; lent by Hugging Face (ZeroGPU)"))
    if render:
        rows.append(("A full picture", f"{render['median_ms']:.0f} ms", "median on this device since the start"))
    if preview:
        rows.append(("A preview", f"{preview['median_ms']:.0f} ms", "median on this device since the start"))
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td><td>{escape(note)}</td></tr>"
        for name, value, note in rows
    )
    missing = [sentence(reason) for reason in (*service.capabilities.values(), *guidance.notes) if reason]
    notes = "".join(f"<li>{escape(reason)}</li>" for reason in dict.fromkeys(missing))
    more = f"<h2>Worth knowing</h2><ul>{notes}</ul>" if notes else ""
    return (
        "<h2>In use</h2><div class='studio-scroll' tabindex='0' role='group' aria-label='What is in use'>"
        f"<table class='facts'><tbody>{body}</tbody></table></div>{more}"
    )


def _judge(name: str, judge: JudgeInfo | None, purpose: str) -> tuple[str, str, str]:
    """A row for a network that guides edits."""
    if judge is None:
        return name, "none", purpose
    known = f" ({judge.sha256[:12]}…)" if judge.sha256 else ""
    return name, f"{judge.title}{known}", f"{purpose}; from {Path(judge.source).name}"
