"""How long the checkpoint takes to render a face on the CPU, which the editor's first start depends on."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import torch

from memorygan.analysis.benchmark import machine
from memorygan.analysis.blocks import Bar, Piece, Table, Text
from memorygan.analysis.lab import Lab
from memorygan.analysis.speed import interleaved
from memorygan.analysis.study import Study
from memorygan.fast.folding import fold

TIME_BAR = 120.0
BAR = "full render of one face on the CPU, fast path: median, ms"


def run(lab: Lab, samples: int) -> Piece:
    """Times of the fast path, and of the plain modules beside it."""
    fast = fold(lab.generator, device="cpu")
    plain = lab.generator if lab.generator.device.type == "cpu" else fold(lab.generator, torch.float32, "cpu")
    faces = [lab.sample([seed]).to("cpu") for seed in lab.face_seeds(samples)]
    dtype = str(fast.compute_dtype).removeprefix("torch.")
    rows, numbers = [], {}
    for name, title, generator in (("fast", f"fast path, {dtype}", fast), ("plain", "plain, float32", plain)):
        drawn = map(generator.synthesize, itertools.cycle(faces))
        with torch.inference_mode():
            seconds = interleaved({name: partial(next, drawn)}, samples, torch.device("cpu"))[name]
        low, middle, high = (1e3 * float(value) for value in np.percentile(seconds, (5, 50, 95)))
        numbers[f"render_ms_{name}"] = middle
        rows.append((title, f"{middle:.1f}", f"{low:.1f}", f"{high:.1f}"))
    caption = f"Milliseconds per face ({lab.plain_footer(samples, 'renders, one face at a time')})."
    return Piece(
        (
            Text(
                "From latent codes to picture and mask at full size. Measured on: "
                + "; ".join(machine("cpu"))
                + ". Other work on the machine at that time makes it slower."
            ),
            Table(("path", "median", "5 %", "95 %"), tuple(rows), caption),
        ),
        numbers,
        (Bar(BAR, numbers["render_ms_fast"], TIME_BAR, False, samples),),
    )


STUDY = Study("render-time", "Render time", "beyond the paper", run, samples=40, paper_samples=40, sheet=True)
