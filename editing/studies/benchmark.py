"""``python -m editing.studies.benchmark``: how long a person waits for an edit, alone and beside others, in one run.

Times are those of the whole service: codes, memory, render net, 8-bit picture, change measure, queue. By default it is
the bundled model with the bundled judges on every core. With ``--preset`` the networks are untrained ones of that size:
time does not depend on what they have learned.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from editing.device.loading import Assets, choose_device, load_assets, untrained_generator
from editing.errors import EditingError
from editing.guidance import registry, standard
from editing.guidance.clip import ImageTextJudge, build_judge
from editing.guidance.identity import IdentityNet
from editing.results import InversionProgress
from editing.service import EditingService
from editing.sliders.directions import Slider, SliderSet
from editing.text.results import TextProgress
from memorygan.analysis.benchmark import HEADINGS, TITLE, kind_of, machine
from memorygan.analysis.blocks import markdown_table
from memorygan.analysis.sections import write_section
from memorygan.command import command
from memorygan.config import PRESETS
from memorygan.encoder import EncoderConfig, PartEncoder
from memorygan.parser import load_parser
from memorygan.parts import LayerGroup

USERS = 8
# Promised milliseconds on two CPU cores at 128 pixels.
TARGETS = {"preview": 60.0, "full": 120.0, "text": 200.0}
# Promised on CUDA: how much faster eight people are served together, and the seconds of a whole edit by a sentence.
TOGETHER = 3.0
LONG_EDIT, LONG_STEPS, LONG_PRESET = 12.0, 300, "paper-256"
ROWS = {
    "preview": "Slider moved: picture of {preview} pixels",
    "full": "Slider released: full picture, with the measured change",
    "face": "New face",
    "text": "One step of an edit by a sentence",
    "invert": "One step of the reconstruction of a photo",
}
_SEED = 7


@dataclass(frozen=True)
class Speeds:
    """What one service was measured to do.

    Attributes:
        size, preview_size: sides in pixels.
        milliseconds: key of :data:`ROWS` → medians; what could not be measured is missing.
        missing: key of :data:`ROWS` → why it was not measured.
        alone, together: seconds in which :data:`USERS` people saw all their previews, one after another and at once.
        previews: of all of them together.
        device: "cpu" or "cuda".
        long_edit: seconds of :data:`LONG_STEPS` steps with ViT-B/32 at 256 pixels; None where it was not measured.
    """

    size: int
    preview_size: int
    milliseconds: dict[str, float]
    missing: dict[str, str]
    alone: float
    together: float
    previews: int
    device: str = "cpu"
    long_edit: float | None = None


def untrained_assets(preset: str, device: torch.device) -> Assets:
    """Everything a service needs at the size of a preset, without training; the face parser is the bundled one."""
    generator, _ = untrained_generator(device, preset)
    generator.update_mean_latents(64)
    config = generator.config
    encoder = PartEncoder(EncoderConfig(config.part_count, config.query_dim)).eval().requires_grad_(False).to(device)
    return Assets(generator, "untrained", preset, None, encoder, load_parser().to(device), (), {}, False, None)


def with_sliders(assets: Assets) -> Assets:
    """The same with one slider, where there are none."""
    if assets.sliders is not None and any(slider.part != "base" for slider in assets.sliders):
        return assets
    directions = 0.1 * torch.randn(1, assets.generator.config.style_dim, generator=torch.Generator().manual_seed(1))
    slider = Slider("hair.any", "hair", "any", LayerGroup.TEXTURE)
    return replace(assets, sliders=SliderSet([slider], directions, assets.sha256))


class AnyJudge(registry.Guides):
    """The judges that were asked for; in place of a missing one of sentences an untrained one of the bundled one's
    shape, and none in place of a missing one of identity."""

    def text(self) -> ImageTextJudge:
        try:
            return super().text()
        except EditingError:
            return untrained_judge()

    def identity(self) -> IdentityNet | None:
        try:
            return super().identity()
        except EditingError:
            return None


class LargeJudge(registry.Guides):
    """ViT-B/32 as OpenAI published it where it is on the machine, else untrained; no judge of identity."""

    def __init__(self) -> None:
        super().__init__("openai", "none")

    @functools.cached_property
    def _judge(self) -> ImageTextJudge:
        if standard.OPENAI_CLIP.present():
            return super().text()
        import open_clip  # takes seconds, and only this needs it

        weights = open_clip.create_model(standard.OPENAI_CLIP.model, pretrained=None).state_dict()
        return build_judge("untrained", "an untrained ViT-B/32", standard.OPENAI_CLIP.model, weights)

    def text(self) -> ImageTextJudge:
        return self._judge


@functools.cache
def untrained_judge() -> ImageTextJudge:
    """As fast and as large as the bundled judge of sentences."""
    import open_clip  # takes seconds, and only this needs it

    config = Path(registry.__file__).parent / "configs" / "face-text.json"
    open_clip.add_model_config(config)
    weights = open_clip.create_model(config.stem, pretrained=None, pretrained_text=False).state_dict()
    return build_judge("untrained", "an untrained network of the bundled judge's shape", config, weights)


def _median(action: Callable[[float], object], repeats: int) -> float:
    """Milliseconds of an action that is given another slider value every time."""
    seconds = []
    for value in np.linspace(-2.0, 2.0, repeats + 1):  # the first does not count
        started = time.perf_counter()
        action(float(value))
        seconds.append(time.perf_counter() - started)
    return 1e3 * statistics.median(seconds[1:])


def _steps(job: Iterator[TextProgress] | Iterator[InversionProgress]) -> float:
    """Milliseconds between two steps of a job."""
    times: dict[int, float] = {}
    for progress in job:
        times.setdefault(progress.step, time.perf_counter())
    moments = [moment for step, moment in sorted(times.items()) if step > 0]  # the first comes with the preparation
    return 1e3 * statistics.median(b - a for a, b in itertools.pairwise(moments))


def measure(service: EditingService, repeats: int) -> Speeds:
    """Times everything a person waits for.

    Args:
        service: with at least one slider of a part.
        repeats: timed runs of each, at least 2.
    """
    known = [slider.id for slider in service.sliders() if slider.part != "base"]
    slider = known[0]
    session = service.new_face(_SEED).session
    milliseconds = {
        "preview": _median(lambda value: service.preview_sliders(session, {slider: value}), repeats),
        "full": _median(lambda value: service.set_sliders(session, {slider: value}), repeats),
        "face": _median(lambda value: service.close_session(service.new_face().session), repeats),
    }
    missing: dict[str, str] = {}
    try:
        text = service.describe(session, "a person with red hair", parts=["hair"], steps=repeats + 2, seed=0)
        milliseconds["text"] = _steps(text)
    except EditingError as error:
        missing["text"] = str(error)
    photo = service.open_photo(_png(service.view(session).image))
    crop = (0.0, 0.0, float(service.picture_size))
    try:
        milliseconds["invert"] = _steps(service.invert(photo.photo, crop=crop, steps=repeats + 2))
    except EditingError as error:
        missing["invert"] = str(error)
    sessions = [service.new_face(seed).session for seed in range(USERS)]
    moved = [known[number * len(known) // USERS] for number in range(USERS)]  # of whatever part each of them is at

    def drag(session: str, moving: str) -> None:
        for value in np.linspace(-2.0, 2.0, repeats):
            service.preview_sliders(session, {moving: float(value)})

    for each, moving in zip(sessions, moved, strict=True):  # the parts of every face are known from here on
        service.preview_sliders(each, {moving: 2.5})
    started = time.perf_counter()
    for each, moving in zip(sessions, moved, strict=True):
        drag(each, moving)
    alone = time.perf_counter() - started
    with ThreadPoolExecutor(USERS) as people:
        started = time.perf_counter()
        list(people.map(drag, sessions, moved))
        together = time.perf_counter() - started
    device = torch.device(service.device).type
    return Speeds(service.size, service.preview_size, milliseconds, missing, alone, together, USERS * repeats, device)


def long_edit(service: EditingService, steps: int = LONG_STEPS) -> float:
    """Seconds that a whole edit by a sentence takes, from the call to the proposal, once everything is loaded."""
    session = service.new_face(_SEED).session

    def edit(count: int) -> float:
        started = time.perf_counter()
        for _ in service.describe(session, "a person with red hair", parts=["hair"], steps=count, seed=0):
            pass
        return time.perf_counter() - started

    edit(2)
    return edit(steps)


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def report(name: str, speeds: Speeds, repeats: int, on: Sequence[str], judge: str) -> str:
    """The Markdown section.

    Args:
        name: of the model.
        speeds: its figures.
        repeats: timed runs of each.
        on: what it was measured on, see :func:`memorygan.analysis.benchmark.machine`.
        judge: what judged the sentence; "" if nothing did.
    """
    heading = f"## Editing, {name} ({speeds.size} pixels), on {HEADINGS[kind_of(speeds.device)]}"
    lines = [heading, "", *(f"- {line}" for line in on), "", f"Median of {repeats}, through the whole service.", ""]
    waits = []
    binding = speeds.size == 128 and speeds.device == "cpu"
    for key, text in ROWS.items():
        measured = f"{speeds.milliseconds[key]:.0f}" if key in speeds.milliseconds else "not measured"
        promised = f"{TARGETS[key]:.0f}" if key in TARGETS else ""
        if binding and key in TARGETS and key in speeds.milliseconds:
            promised += f", {verdict(speeds.milliseconds[key] <= TARGETS[key])}"
        waits.append((text.format(preview=speeds.preview_size), measured, promised))
    columns = ("What a person waits for", "Milliseconds", "Promised for 128 pixels on two cores")
    lines += [markdown_table(columns, waits), ""]
    each = 1e3 / speeds.previews
    people = [("one after another", f"{speeds.alone * each:.1f}"), ("all at once", f"{speeds.together * each:.1f}")]
    lines += [markdown_table((f"Previews of {USERS} people", "Milliseconds per preview"), people), ""]
    lines.append(
        f"At once they are served {speeds.alone / speeds.together:.2f} times as fast as one after another; "
        f"each of them sees a picture every {speeds.together * each * USERS:.0f} ms."
    )
    if speeds.device == "cuda":
        lines.append(f"Promised on CUDA: {TOGETHER:g} times, {verdict(speeds.alone >= TOGETHER * speeds.together)}.")
    if speeds.long_edit is not None:
        lines += [
            "",
            f"{LONG_STEPS} steps of an edit by a sentence with ViT-B/32 at 256 pixels: {speeds.long_edit:.1f} s; "
            f"promised on CUDA: {LONG_EDIT:g} s, {verdict(speeds.long_edit <= LONG_EDIT)}.",
        ]
    lines += [f"\nNot measured: {ROWS[key].lower()}: {reason}" for key, reason in speeds.missing.items()]
    if judge:
        lines += ["", f"Sentences are judged by {judge}."]
    return "\n".join(lines)


def verdict(kept: bool) -> str:
    """In words, bold where a promise is broken."""
    return "reached" if kept else "**not reached**"


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and with ``--write`` puts the figures into a page."""
    parser = argparse.ArgumentParser(prog="python -m editing.studies.benchmark", description="Time per edit")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--checkpoint", type=Path, help="a generator; default: the bundled one")
    which.add_argument("--preset", choices=sorted(PRESETS), help="an untrained generator of this size instead")
    parser.add_argument(
        "--text-judge", choices=registry.TEXT_JUDGES, default="bundled", help="of sentences (default: %(default)s)"
    )
    parser.add_argument(
        "--identity-judge", choices=registry.IDENTITY_JUDGES, default="bundled", help="(default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads; default: one per core")
    parser.add_argument("--write", type=Path, metavar="FILE", help="page for the figures, such as docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if options.repeats < 2 or (options.threads or 1) < 1:
        parser.error("repeats is at least 2, and threads at least 1")
    torch.set_num_threads(options.threads or psutil.cpu_count(logical=False) or torch.get_num_threads())
    device = choose_device(options.device)
    assets = None if options.preset else load_assets(options.checkpoint, device)
    name = f"{options.preset}, untrained" if assets is None else assets.name
    on = machine(device)
    assets = with_sliders(assets or untrained_assets(options.preset, device))
    guides = AnyJudge(options.text_judge, options.identity_judge)
    # No face detector, which is not what is measured: photos are cut out by hand.
    with EditingService(assets, detector=lambda pixels: [], guides=guides) as service:
        speeds = measure(service, options.repeats)
    if device.type == "cuda":
        with EditingService(with_sliders(untrained_assets(LONG_PRESET, device)), guides=LargeJudge()) as service:
            speeds = replace(speeds, long_edit=long_edit(service))
    judge = guides.text().title if "text" in speeds.milliseconds else ""
    section = report(name, speeds, options.repeats, on, judge)
    print(section)
    if options.write:
        write_section(options.write, f"editing/{kind_of(device)}/{speeds.size}", section, TITLE)


if __name__ == "__main__":
    sys.exit(main())
