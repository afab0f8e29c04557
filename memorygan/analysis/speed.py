"""How long a face takes, path by path, how close the fast paths come to the reference, and how much memory it takes.

Every repeat runs each path once before any path is run again, so that a machine that is busy or throttled for a while
slows all of them alike, and their ratios keep a meaning. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import psutil
import torch
from torch import Tensor

from memorygan.config import GeneratorConfig, get_preset
from memorygan.fast.folding import FoldedBlock, fold
from memorygan.fast.pieces import pieces
from memorygan.fast.reference import reference_synthesis
from memorygan.generator import MemoryGAN, Synthesis

# The paths, in the order of the table.
REFERENCE, PLAIN, FAST32, FAST, GRAPH = "reference", "plain", "fast float32", "fast", "graph"
RETRIEVE, RENDER, EDIT, PREVIEW, BARE = "retrieve", "render", "edit", "preview", "bare"
EDITED_PART = "hair"
NOISE_STRENGTH = 0.1


@dataclass(frozen=True)
class Agreement:
    """How close a fast path comes to the reference.

    Attributes:
        largest_error: largest absolute difference of image and fine mask.
        psnr: of the image in dB, over its range of 2; the worst face.
        same_part: share of pixels that both give to the same part.
    """

    largest_error: float
    psnr: float
    same_part: float


@dataclass(frozen=True)
class Result:
    """One preset at one batch size.

    Attributes:
        preset: its name.
        batch: faces at once.
        dtype: arithmetic of the fast path.
        preview_size: side of the preview in pixels.
        seconds: path → time of every repeat, for the whole batch.
        float32, fast: agreement of the two fast paths with the reference.
    """

    preset: str
    batch: int
    dtype: torch.dtype
    preview_size: int
    seconds: Mapping[str, Sequence[float]]
    float32: Agreement
    fast: Agreement

    def milliseconds(self, path: str) -> float:
        """Median time per face."""
        return 1e3 * statistics.median(self.seconds[path]) / self.batch

    def ratio(self, path: str, other: str) -> float:
        """Time of ``path`` over time of ``other``: the median of the ratios within each repeat."""
        return statistics.median(a / b for a, b in zip(self.seconds[path], self.seconds[other], strict=True))


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """Two (B, 3, S, S), nominally in [−1, 1] → (B,) peak signal-to-noise ratio in dB for that range."""
    error = (image - reference).square().mean(dim=(1, 2, 3))
    return 10.0 * torch.log10(4.0 / error.clamp_min(1e-12))


def agreement(synthesis: Synthesis, reference: Synthesis) -> Agreement:
    """Compares the same faces from two paths."""
    image, mask = synthesis.image - reference.image, synthesis.mask - reference.mask
    return Agreement(
        float(torch.maximum(image.abs().max(), mask.abs().max())),
        float(psnr(synthesis.image, reference.image).min()),
        float((synthesis.part_map == reference.part_map).float().mean()),
    )


def random_generator(config: GeneratorConfig, device: torch.device | str = "cpu") -> MemoryGAN:
    """An untrained generator in which noise has an effect, so that no path may leave it out."""
    torch.manual_seed(0)
    generator = MemoryGAN(config).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(NOISE_STRENGTH)
    return generator.to(device)


def bare_convolutions(folded: MemoryGAN, batch: int) -> Callable[[], None]:
    """The render net's 3×3 convolutions back to back: the same shapes, dtype and layout, and nothing in between."""
    dtype, device = folded.compute_dtype, folded.device
    jobs: list[Callable[[], Tensor]] = []
    for side, module in zip(folded.render.sides, folded.render.blocks, strict=True):
        block = cast(FoldedBlock, module)
        for conv, here in ((block.up, side), (block.conv, 2 * side)):
            weight = conv.get_buffer("weight")
            outputs = weight.shape[0] // 4 if conv.sub_pixels else weight.shape[0]
            x = torch.randn(batch, weight.shape[1], here, here, device=device, dtype=dtype)
            x = x.contiguous(memory_format=torch.channels_last)
            # On a CPU the fast path, too, takes what fits the cache.
            largest = outputs * (2 * side + 1) ** 2 * dtype.itemsize
            rows = pieces(batch, largest) if device.type == "cpu" else [slice(0, batch)]
            jobs += [_convolution(x[row], weight, conv.up and not conv.sub_pixels) for row in rows]

    def run() -> None:
        for job in jobs:
            job()

    return run


def _convolution(x: Tensor, weight: Tensor, transposed: bool) -> Callable[[], Tensor]:
    if transposed:
        return lambda: torch.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return lambda: torch.conv2d(x, weight, padding=1)


def clock(device: torch.device | str) -> Callable[[], float]:
    """Seconds that go by; with one thread on a CPU those of the processor, which other programs disturb less."""
    one_thread = torch.device(device).type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if one_thread else time.perf_counter


def interleaved(
    paths: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every path in every repeat, after one run of each that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    now = clock(device)
    for repeat in range(1 + repeats):
        for name, path in paths.items():
            wait_for(device)
            start = now()
            path()
            wait_for(device)
            if repeat:
                seconds[name].append(now() - start)
    return seconds


def wait_for(device: torch.device) -> None:
    """Returns when a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def measure(preset: str, batch: int, repeats: int, device: torch.device | str = "cpu") -> Result:
    """Times every path of one preset at one batch size."""
    device = torch.device(device)
    generator = random_generator(get_preset(preset).generator, device)
    fast32, fast = fold(generator, torch.float32), fold(generator)
    latents, edited = generator.sample(range(batch)), generator.sample(range(batch, 2 * batch))
    part = generator.config.parts.index(EDITED_PART)
    edited = latents.mix(edited, [part])
    retrieved = fast.retrieve(latents)
    preview = generator.config.coarse_size

    def edit(size: int | None = None) -> Synthesis:
        return fast.compose(retrieved.with_parts([part], fast.retrieve(edited, [part])), edited, size=size)

    paths: dict[str, Callable[[], object]] = {
        REFERENCE: lambda: reference_synthesis(generator, latents),
        PLAIN: lambda: generator.synthesize(latents),
        FAST32: lambda: fast32.synthesize(latents),
        FAST: lambda: fast.synthesize(latents),
        RETRIEVE: lambda: fast.retrieve(latents),
        RENDER: lambda: fast.compose(retrieved, latents),
        EDIT: edit,
        PREVIEW: lambda: edit(preview),
        BARE: bare_convolutions(fast, batch),
    }
    if device.type == "cuda":
        graphed = fold(generator, graph=True)
        paths[GRAPH] = lambda: graphed.synthesize(latents)
    seconds = interleaved(paths, repeats, device)
    truth = reference_synthesis(generator, latents)
    return Result(
        preset,
        batch,
        fast.compute_dtype,
        preview,
        seconds,
        agreement(fast32.synthesize(latents), truth),
        agreement(fast.synthesize(latents), truth),
    )


def peak_resident_bytes() -> int:
    """The most memory this process has had resident so far."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def _fill_memory(preset: str, threads: int, answer: Connection) -> None:
    torch.set_num_threads(threads)
    generator = fold(random_generator(get_preset(preset).generator))
    with torch.inference_mode():
        for seed in range(3):
            generator.synthesize(generator.sample([seed]))
    answer.send(peak_resident_bytes())
    answer.close()


def resident_bytes(preset: str) -> int:
    """Peak resident memory of a process of its own that does nothing but make faces on the CPU, Python included.

    Raises:
        RuntimeError: if that process fails.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_fill_memory, args=(preset, torch.get_num_threads(), sender))
    process.start()
    sender.close()
    try:
        return int(receiver.recv())
    except EOFError:
        raise RuntimeError("the process that measures memory ended early") from None
    finally:
        process.join()
