"""Fits sliders to a generator: what does a change of one part's code do to what can be measured of that part?

For each part and layer group, faces are rendered twice: as they are, and with that part's code (in that group's layers
only) taken from another face. Everything else stays, so the change of a property is caused by the code alone, which
pictures of different faces could not tell. A ridge regression of the change of each property on the change of the code
gives a direction, and a second one that avoids the codes to which the picture outside the part answers. Each is made
orthogonal to the directions before it, scaled to one standard deviation of the codes, and then tried on faces it has
not seen; of the two the more local one is taken, and its range shortened where its ends change too much outside the
part. Only what does there what it is called is kept under that name.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from editing.errors import EditingError
from editing.sliders.directions import BASE, Slider, SliderSet
from editing.sliders.people import People
from editing.sliders.probe import Probe
from editing.sliders.target import FitSettings, TargetFit
from editing.sliders.traits import Trait, traits_of
from memorygan.analysis.probes import LabelledPhotos
from memorygan.checkpoint import load_generator
from memorygan.command import command
from memorygan.encoder import load_encoder
from memorygan.fast.hardware import choose_device
from memorygan.generator import ComposedGenerator, MemoryGAN
from memorygan.manifest import default_checkpoint, read_manifest, update_manifest
from memorygan.parser import load_parser
from memorygan.training.grow import ENCODER_FILE

# Mean change in 8-bit steps outside the part, above which the report names a slider.
_FAR = 2.0
# Of the first face, and psi of all of them.
_SEED, _TRUNCATION = 100_000, 0.8
# Photos that are read: enough for a hundred gray ones.
LABELLED = 2_000


class SliderFitter:
    """One generator, measured.

    Attributes:
        left_out: after :meth:`fit`, what has no slider and why, a line each.

    Args:
        generator: any of the family that can sample.
        checkpoint: its sha256, written into the result.
        settings: see there.
        log: gets a line now and then.
        people: photographed ones, for what samples hardly show: without them, there are no sliders of age, beard and
            gray hair, and glasses and hats have those of a generator that hardly draws them.
    """

    def __init__(
        self,
        generator: ComposedGenerator,
        checkpoint: str,
        settings: FitSettings | None = None,
        log: Callable[[str], None] = lambda line: None,
        people: People | None = None,
    ) -> None:
        self.checkpoint, self.log = checkpoint, log
        self.traits: dict[str, tuple[Trait, ...]] = traits_of(people) if people else {}
        self.worn: dict[str, Tensor] = people.worn() if people else {}
        self.left_out: list[str] = []
        self.settings = settings or FitSettings()
        self.probe = Probe(generator, self.settings.size, self.settings.batch, _TRUNCATION)

    @torch.no_grad()
    def fit(self, targets: Sequence[str] | None = None) -> SliderSet:
        """Sliders with what they were measured to do.

        Args:
            targets: part names or "base"; None for every part and the base.

        Raises:
            EditingError: if there is nothing that a slider could change.
        """
        settings = self.settings
        self.left_out.clear()
        faces = self.probe.sample(_SEED, settings.faces)
        tests = self.probe.sample(_SEED + settings.faces, settings.test_faces)
        found: list[tuple[Slider, Tensor]] = []
        for target in (*self.probe.generator.config.parts.names, BASE) if targets is None else targets:
            started = time.perf_counter()
            fitted, tried = faces, tests
            if (codes := self.worn.get(target)) is not None:
                half = len(codes) // 2  # those lent to the tests are not fitted on
                fitted, tried = (
                    self.probe.lend(faces, target, codes[half:]),
                    self.probe.lend(tests, target, codes[:half]),
                )
            traits = self.traits.get(target, ())
            sliders = TargetFit(self.probe, settings, self._leave_out, target, fitted, tried, traits).fit()
            found += sliders
            named = sum(bool(slider.measured) for slider, _ in sliders)
            self.log(f"{target}: {named} of {len(sliders)} named, {time.perf_counter() - started:.0f} s")
        if not found:
            raise EditingError("no code of this model changes anything visible; train it first")
        directions = torch.cat([direction.reshape(-1, direction.shape[-1]) for _, direction in found]).float()
        return SliderSet([slider for slider, _ in found], directions, self.checkpoint)

    def _leave_out(self, slider: str, reason: str) -> None:
        self.left_out.append(f"{slider}: {reason}")
        self.log(f"  {slider} left out: {reason}")


def report(sliders: SliderSet, left_out: Sequence[str] = ()) -> str:
    """A Markdown table: what each slider was measured to do, which are not local, and what has none.

    Args:
        sliders: fitted.
        left_out: see :class:`SliderFitter`.
    """
    lines = [
        "| slider | layers | from −3 | to +3 | effect | in deviations | correlation | inside | outside |",
        "|---|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for slider in sliders:
        effect = f"{slider.effect:+.2f} {slider.unit}" if slider.measured else "(principal component)"
        numbers = f"{slider.strength:.2f} | {slider.correlation:.2f}" if slider.measured else "– | –"
        lines.append(
            f"| {slider.id} | {slider.group.value} | {slider.low} | {slider.high} | {effect} | {numbers} | "
            f"{slider.inside:.2f} | {slider.outside:.2f} |"
        )
    lines.append("")
    lines.append("Inside and outside: mean change in 8-bit steps, in and outside the part, between 0 and ±3.")
    far = sorted((slider for slider in sliders if slider.outside > _FAR), key=lambda slider: -slider.outside)
    if far:
        told = ", ".join(f"{slider.id} ({slider.outside:.2f})" for slider in far)
        lines += ["", f"Not local, with a mean change of more than {_FAR:g} steps outside the part: {told}."]
    if left_out:
        lines += ["", "Measured, but without a slider:", "", *(f"- {line}" for line in left_out)]
    return "\n".join(lines)


@command(1)
def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m editing.sliders.fit``: fits the sliders of a checkpoint and writes them beside it."""
    parser = argparse.ArgumentParser(prog="python -m editing.sliders.fit", description=main.__doc__)
    defaults = FitSettings()
    parser.add_argument("--checkpoint", type=Path, help="generator; default: the bundled one")
    parser.add_argument("--out", type=Path, help="default: sliders.safetensors beside the checkpoint")
    parser.add_argument("--report", type=Path, help="write the Markdown table here as well")
    parser.add_argument("--faces", type=int, default=defaults.faces, help="sampled for the fit (%(default)s)")
    parser.add_argument("--test-faces", type=int, default=defaults.test_faces, help="for the trial (%(default)s)")
    parser.add_argument("--size", type=int, help="side at which pictures are measured; default: half, at least 128")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="faces rendered together (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument(
        "--labelled",
        type=Path,
        help="folder of photos with an attributes.csv, for sliders of age, beard and gray hair, and of what is worn",
    )
    parser.add_argument("--labelled-faces", type=int, default=LABELLED, help="photos read at most (%(default)s)")
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    path = options.checkpoint or default_checkpoint()
    if path is None:
        raise EditingError("there is no bundled checkpoint yet; name one with --checkpoint")
    if options.faces < 64 or options.test_faces < 8 or options.batch < 1:
        raise EditingError("use at least --faces 64, --test-faces 8 and --batch 1")
    loaded = load_generator(path, device)
    settings = replace(
        defaults, faces=options.faces, test_faces=options.test_faces, size=options.size, batch=options.batch
    )
    people = None
    if options.labelled:
        if not isinstance(loaded.generator, MemoryGAN):
            raise EditingError(
                "photos are read by a part encoder, which this generator has none of; leave out --labelled"
            )
        encoder = load_encoder(path.with_name(ENCODER_FILE), device)
        photos = LabelledPhotos.open(options.labelled, options.labelled_faces)
        people = People.read(loaded.generator, encoder, load_parser(device=device), photos)
    fitter = SliderFitter(loaded.generator, loaded.sha256, settings, lambda line: print(line, flush=True), people)
    sliders = fitter.fit()
    out = options.out or path.with_name("sliders.safetensors")
    table = report(sliders, fitter.left_out)
    digest = sliders.save(out, {"faces": settings.faces, "test_faces": settings.test_faces})
    if any(entry.file == path.name for entry in read_manifest(out.parent)):  # bundled, so its sliders are too
        licence = loaded.provenance.licence
        update_manifest(out.parent, out.name, title=f"Sliders of {path.stem}", licence=licence)
    if options.report:
        options.report.write_text(table + "\n", encoding="utf-8")
    print(table)
    print(json.dumps({"file": str(out), "sha256": digest, "sliders": len(sliders)}))


if __name__ == "__main__":
    sys.exit(main())
