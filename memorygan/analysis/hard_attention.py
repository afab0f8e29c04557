"""Hard attention: how close it comes to the full computation, and what it saves against K (the paper's future work)."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from memorygan.analysis.blocks import Piece, Table, Text, number
from memorygan.analysis.complexity import PAPER_PRESET
from memorygan.analysis.lab import Lab, StudyUnavailable
from memorygan.analysis.layout import cells, lay_out
from memorygan.analysis.speed import interleaved
from memorygan.analysis.study import Study
from memorygan.composition import Fused, fuse
from memorygan.config import GeneratorConfig, get_preset, with_part_count
from memorygan.fast.attention import HardAttention, Work
from memorygan.fast.folding import fold
from memorygan.fast.hardware import best_dtype
from memorygan.generator import MemoryGAN
from memorygan.latents import Latents
from memorygan.memory import LongTermMemory

PART_COUNTS = (13, 100, 1000)
# Repeats of each path; of the largest, where a single one takes seconds, fewer.
REPEATS, FEW_REPEATS, MANY_PARTS = 9, 2, 500
# Parts that are taken from another face, to look at faces that were edited.
SWAPPED = ("hair", "eyes", "nose", "mouth")
OTHERS = 1_000_000  # seeds are so far apart
LIMIT = 1e-3


@dataclass(frozen=True)
class Measured:
    """One memory, asked for one face in full and with hard attention.

    Attributes:
        title: which memory.
        config: of its generator.
        work: of hard attention; None if nothing can be left out.
        times: arithmetic → milliseconds of retrieval and fusion, full and hard, and their ratio; all medians.
        difference: ‖Δ‖ / ‖·‖ of the fused feature, in float32.
        largest: largest difference of the coarse mask, in float32.
    """

    title: str
    config: GeneratorConfig
    work: Work | None
    times: dict[torch.dtype, tuple[float, float, float]]
    difference: float
    largest: float

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates of the memory's layers for one face, full and hard."""
        config = self.config
        layer, points = config.local_channels**2, config.coarse_size**2
        base = 2 * config.base_layers * points  # of the background, and once for all other parts
        full = base + config.part_count * (config.local_layers - config.base_layers) * points
        if self.work is None:
            return full * layer, full * layer
        shape, texture = config.depth_layers - config.base_layers, config.local_layers - config.depth_layers
        return full * layer, (base + shape * self.work.depths + texture * self.work.textures) * layer


@torch.inference_mode()
def measure(title: str, generator: MemoryGAN, latents: Latents) -> Measured:
    """Times and compares both ways of asking for one face (1, K, L, D) on the CPU."""
    config = generator.config
    work, difference, largest = None, 0.0, 0.0
    times: dict[torch.dtype, tuple[float, float, float]] = {}
    for dtype in dict.fromkeys((torch.float32, best_dtype("cpu"))):
        folded = fold(generator, dtype, "cpu")
        hard = HardAttention(generator.memory, config, dtype)

        def full(folded: MemoryGAN = folded) -> Fused:
            return fuse(folded.retrieve(latents), folded.memory, config.parts.transparent)

        seen = hard.see(latents)
        if seen is None:
            break
        if dtype == torch.float32:
            whole = full()
            work = seen.work
            difference = float((seen.fused.feature - whole.feature).norm() / whole.feature.norm())
            largest = float((seen.fused.coarse_mask - whole.coarse_mask).abs().max())
            del whole
        repeats = FEW_REPEATS if config.part_count > MANY_PARTS else REPEATS
        paths: dict[str, Callable[[], object]] = {"full": full, "hard": partial(hard.see, latents)}
        seconds = interleaved(paths, repeats, torch.device("cpu"))
        slow, fast = (1e3 * statistics.median(seconds[path]) for path in ("full", "hard"))
        ratio = statistics.median(a / b for a, b in zip(seconds["full"], seconds["hard"], strict=True))
        times[dtype] = (slow, fast, ratio)
    return Measured(title, config, work, times, difference, largest)


def laid_out(parts: int) -> tuple[MemoryGAN, Latents]:
    """The paper's preset with K parts that lie in cells of the picture, and the face they make."""
    config = with_part_count(get_preset(PAPER_PRESET).generator, parts)
    torch.manual_seed(0)
    generator = MemoryGAN(config).eval().requires_grad_(False)
    codes = lay_out(generator.memory, cells(config), parts)
    return generator, codes.expand(config)


@torch.no_grad()
def differences(lab: Lab, own: MemoryGAN, seeds: list[int], swapped: bool) -> dict[str, Tensor]:
    """How far faces with hard attention are from the full computation, in float32 on the CPU.

    Args:
        own: the lab's generator on the CPU.
        seeds: of B untruncated faces.
        swapped: whether parts of theirs are taken from others.

    Returns:
        (B,) ``largest`` and ``mean`` absolute difference of the pictures, and ``mask`` the largest of the coarse masks,
        in thousandths of their ranges; ``share`` of the depths that were computed.
    """
    latents = lab.sample(seeds, truncation=1.0).to("cpu")
    if swapped:
        other = lab.sample([seed + OTHERS for seed in seeds], truncation=1.0).to("cpu")
        latents = latents.mix(other, [part for part in SWAPPED if part in lab.parts.names])
    full = own.synthesize(latents)
    seen = HardAttention(own.memory, own.config, torch.float32).see(latents)
    if seen is None:
        none = torch.zeros(len(seeds))
        return {"largest": none, "mean": none, "mask": none, "share": none + 1.0}
    image, _ = own.render(seen.fused)
    change = (image - full.image).abs().flatten(1) * 500.0  # of a range of 2
    return {
        "largest": change.amax(dim=1),
        "mean": change.mean(dim=1),
        "mask": (seen.fused.coarse_mask - full.coarse_mask).abs().flatten(1).amax(dim=1) * 1000.0,
        "share": torch.full((len(seeds),), seen.work.depths / seen.work.full),
    }


def run(lab: Lab, samples: int) -> Piece:
    """Exactness on the checkpoint's faces, and the savings against K.

    Raises:
        StudyUnavailable: for a generator without the shared memory.
    """
    if not isinstance(lab.generator, MemoryGAN) or not isinstance(lab.generator.memory, LongTermMemory):
        raise StudyUnavailable("this checkpoint has no shared memory that could be asked for points")
    own = copy.deepcopy(lab.memorygan).cpu()
    rows, numbers = [], {}
    for name, title in (("sampled", "sampled"), ("swapped", f"sampled, {', '.join(SWAPPED)} of others")):
        make = partial(differences, lab, own, swapped=name == "swapped")
        found = lab.gather(f"attention {name}", lab.face_seeds(samples), make)
        beyond = float((found["largest"] > 1000.0 * LIMIT).mean())
        rows.append(
            (
                title,
                number(float(found["mean"].mean())),
                number(float(np.percentile(found["largest"], 50))),
                number(float(found["largest"].max())),
                f"{100 * beyond:.1f} %",
                number(float(found["mask"].max())),
                f"{100 * float(found['share'].mean()):.0f} %",
            )
        )
        numbers[f"attention_{name}_largest"] = float(found["largest"].max())
    footer = lab.footer(samples, 1.0)
    close = Table(
        (
            "faces",
            "mean",
            "largest, median face",
            "largest, worst face",
            "faces beyond 1",
            "coarse mask",
            "depths computed",
        ),
        tuple(rows),
        f"Difference of pictures with hard attention from the full computation, float32, in thousandths of the range "
        f"({footer}).",
    )
    measured = [measure("this checkpoint", own, lab.sample([lab.settings.seed], truncation=1.0).to("cpu"))]
    measured += [measure(f"{PAPER_PRESET}, laid out", *laid_out(parts)) for parts in PART_COUNTS]
    untrained = MemoryGAN(get_preset(PAPER_PRESET).generator).eval().requires_grad_(False)
    measured.append(measure(f"{PAPER_PRESET}, untrained", untrained, untrained.sample([0])))
    for entry in measured[:-1]:
        for dtype, (_, _, ratio) in entry.times.items():
            key = f"attention_{entry.title.split(',')[0].replace(' ', '_')}_{entry.config.part_count}_{_name(dtype)}"
            numbers[key.replace("-", "_")] = ratio
    return Piece((Text(_METHOD), close, Text(_SCALE), _against_k(lab, measured), Text(_VERDICT)), numbers)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _against_k(lab: Lab, measured: list[Measured]) -> Table:
    dtypes = list(dict.fromkeys((torch.float32, best_dtype("cpu"))))
    columns = ["memory", "K", "G MACs, full", "hard", "fewer"]
    for dtype in dtypes:
        columns += [f"ms, full, {_name(dtype)}", "hard", "faster"]
    columns += ["relative difference", "largest, coarse mask"]
    rows = []
    for entry in measured:
        full, hard = entry.macs
        cells = [entry.title, f"{entry.config.part_count}"]
        cells += [f"{full / 1e9:.2f}", f"{hard / 1e9:.2f}", f"{full / hard:.1f} ×"]
        for dtype in dtypes:
            if dtype in entry.times:
                slow, fast, ratio = entry.times[dtype]
                cells += [f"{slow:.1f}", f"{fast:.1f}", f"{ratio:.2f} ×"]
            else:
                cells += ["–", "–", "–"]
        shown = (number(entry.difference, 2), number(entry.largest, 2)) if entry.work else ("0", "0")
        rows.append((*cells, *shown))
    caption = (
        "The memory's layers and the fusion for one face on the CPU; what the render net takes comes on top and is the "
        f"same for both ({lab.plain_footer(1, 'face per row')})."
    )
    return Table(tuple(columns), tuple(rows), caption)


_METHOD = (
    "The paper's conclusion says that the computation does not shrink for small parts. Here the memory is asked for a "
    "part only where it can be seen: depths are computed on a lattice of the grid, which is refined where an "
    "interpolated depth comes near to being seen, raised by what its bend lets interpolation miss, and texture layers "
    "run where a part has weight in the fusion (`memorygan/fast/attention.py`). No bound guarantees that nothing is "
    "missed between the lattice's points, so it is measured."
)
_SCALE = (
    "No one has trained faces of 100 or 1000 parts. The rows “laid out” are memories that were trained, for some "
    "seconds, to put each part into a cell of its own of the picture; the untrained one has parts that are everywhere, "
    "and is asked in full after a look at the lattice. With 1000 parts on 64 × 64 points a part has four of them, and "
    "some fall through the lattice."
)
_VERDICT = (
    "It is in the fast path where whole faces are drawn without gradients, on a CPU, in float32, and in bfloat16 for "
    "many parts: products in bfloat16 take so little time that for 13 parts the rest of the work, which is not in the "
    "MACs, eats up what is saved. On a GPU the full computation stays: its shapes do not depend on the face, so it can "
    "be recorded. Edits keep what the memory answered in full, because a part may come to light when another moves."
)

STUDY = Study(
    "hard-attention",
    "Hard attention",
    "the paper's future work",
    run,
    samples=200,
    paper_samples=2000,
    version=3,
)
