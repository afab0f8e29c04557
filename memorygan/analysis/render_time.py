"""How long the checkpoint takes to render a face on the CPU, which the editor's first start depends on."""

from __future__ import annotations

import time

import numpy as np
import torch

from memorygan.analysis.benchmark import machine
from memorygan.analysis.blocks import Bar, Piece, Table, Text
from memorygan.analysis.lab import Lab
from memorygan.analysis.study import Study
from memorygan.fast.folding import fold
from memorygan.generator import ComposedGenerator
from memorygan.latents import Latents

TIME_BAR = 120.0
# Not counted: memory is allocated and kernels are chosen in the first calls.
WARM_UP = 3
BAR = "full render of one face on the CPU, fast path: median, ms"


@torch.inference_mode()
def render_times(generator: ComposedGenerator, faces: list[Latents]) -> np.ndarray:
    """Milliseconds from latent codes to picture and mask, one face after the other (N,).

    Args:
        generator: on the CPU.
        faces: N times (1, K, L, D).
    """
    for k in range(WARM_UP):
        generator.synthesize(faces[k % len(faces)])
    found = []
    for latents in faces:
        begun = time.perf_counter()
        generator.synthesize(latents)
        found.append(1e3 * (time.perf_counter() - begun))
    return np.array(found)


def run(lab: Lab, samples: int) -> Piece:
    """Times of the fast path, and of the plain modules beside it."""
    fast = fold(lab.generator, device="cpu")
    plain = lab.generator if lab.generator.device.type == "cpu" else fold(lab.generator, torch.float32, "cpu")
    faces = [lab.sample([seed]).to("cpu") for seed in lab.face_seeds(samples)]
    dtype = str(fast.compute_dtype).removeprefix("torch.")
    rows, numbers = [], {}
    for name, title, generator in (("fast", f"fast path, {dtype}", fast), ("plain", "plain, float32", plain)):
        times = render_times(generator, faces)
        low, middle, high = (float(value) for value in np.percentile(times, (5, 50, 95)))
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
