"""``python -m memorygan.analysis.benchmark``: every path from codes to a face, timed in one run on one machine."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from memorygan.analysis.sections import write_section
from memorygan.analysis.speed import (
    BARE,
    EDIT,
    FAST,
    FAST32,
    GRAPH,
    PLAIN,
    PREVIEW,
    REFERENCE,
    RENDER,
    RETRIEVE,
    Result,
    clock,
    measure,
    resident_bytes,
)
from memorygan.command import add_threads, command
from memorygan.config import PRESETS
from memorygan.fast.hardware import choose_device, cpu_has

TITLE = "Benchmarks"
HEADINGS = {"cuda": "a GPU", "cpu-amx": "a CPU with AMX", "cpu": "a CPU without AMX"}
TARGET_PRESET = "paper-256"

EXPLANATIONS = {
    REFERENCE: "Reference: plain float32, part by part, up-convolutions on the enlarged map",
    PLAIN: "Generator as trained, float32, not folded",
    FAST32: "Fast path, float32",
    FAST: "**Fast path, {dtype}**",
    GRAPH: "Fast path, {dtype}, CUDA graph",
    RETRIEVE: "… of this, all parts from the memory",
    RENDER: "… of this, fusion and render net",
    EDIT: "One-part edit: that part from the memory, then fusion and render net",
    PREVIEW: "One-part edit, shown at {size} pixels",
    BARE: "The render net's 3×3 convolutions alone, {dtype}",
}


def machine(device: torch.device | str) -> list[str]:
    """What the figures were measured on, as the items of a list."""
    instructions = [name for name, has in (("AVX512-BF16", "avx512_bf16"), ("AMX", "amx_tile")) if cpu_has(has)]
    missing = [name for name in ("AVX512-BF16", "AMX") if name not in instructions]
    lines = [
        f"CPU: {_cpu_name()}, {psutil.cpu_count(logical=False) or os.cpu_count()} cores, "
        f"threads used: {torch.get_num_threads()}; {torch.backends.cpu.get_cpu_capability()}"
        + (f", with {' and '.join(instructions)}" if instructions else "")
        + (f", without {' and '.join(missing)}" if missing else ""),
        f"PyTorch {torch.__version__}, Python {platform.python_version()}, {platform.system()}",
    ]
    if torch.device(device).type == "cuda":
        lines.append(f"GPU: {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    if clock(device) is time.process_time:
        lines.append("Times are the processor's, of one thread, which other programs on the machine disturb less")
    if hasattr(os, "getloadavg"):
        lines.append(f"Load average before the run: {os.getloadavg()[0]:.1f}")
    return lines


def kind_of(device: torch.device | str) -> str:
    """Which sections of a page are written: "cuda", "cpu-amx" or "cpu"; figures of one kind never replace another's."""
    kind = torch.device(device).type
    return "cpu-amx" if kind == "cpu" and cpu_has("amx_tile") else kind


def _cpu_name() -> str:
    table = getattr(torch.cpu, "get_capabilities", None)
    name = table().get("cpu_name") if table is not None else None
    return str(name or platform.processor() or platform.machine())


def targets(result: Result, device: torch.device | str) -> list[tuple[str, str, bool]]:
    """(promise, measured, kept) of one result."""
    error, fidelity = result.float32.largest_error, result.fast.psnr
    rows = [
        ("float32 fast path within 1e-4 of the reference", f"{error:.1e}", error <= 1e-4),
        ("fast path at 40 dB or more", f"{fidelity:.1f} dB", fidelity >= 40.0),
    ]
    if result.preset != TARGET_PRESET or result.batch != 1:
        return rows
    if torch.device(device).type == "cuda":
        best = min(result.milliseconds(FAST), result.milliseconds(GRAPH))
        return [*rows, ("5 ms a face at most", f"{best:.2f} ms", best <= 5.0)]
    speedup, overhead, edit = (result.ratio(*pair) for pair in ((REFERENCE, FAST), (FAST, BARE), (EDIT, RENDER)))
    return [
        *rows,
        ("fast path 4 times as fast as the float32 reference", f"{speedup:.1f} times", speedup >= 4.0),
        ("fast path at most 1.6 times its bare convolutions", f"{overhead:.2f} times", overhead <= 1.6),
        ("one-part edit at most 1.05 times the render alone", f"{edit:.3f} times", edit <= 1.05),
    ]


def report(results: Sequence[Result], memory: int | None, device: torch.device | str, on: Sequence[str]) -> str:
    """The Markdown section of one preset.

    Args:
        results: one per batch size, the targets' batch size first.
        memory: peak resident bytes at batch 1, or None if it was not measured.
        device: what it was measured on.
        on: the same in words, see :func:`machine`.
    """
    preset = results[0].preset
    dtype = str(results[0].dtype).removeprefix("torch.")
    repeats = " and ".join(dict.fromkeys(str(len(result.seconds[FAST])) for result in results))
    lines = [f"## {preset} on {HEADINGS[kind_of(device)]}", ""]
    lines += [f"- {line}" for line in on]
    lines += ["", f"Milliseconds per face, median of {repeats} interleaved repeats (fastest in brackets).", ""]
    lines += ["| Path |" + "".join(f" batch {result.batch} |" for result in results)]
    lines += ["| --- |" + " ---: |" * len(results)]
    for path, text in EXPLANATIONS.items():
        if path in results[0].seconds:
            cells = [f"{r.milliseconds(path):.1f} ({1e3 * min(r.seconds[path]) / r.batch:.1f})" for r in results]
            text = text.format(dtype=dtype, size=results[0].preview_size)
            lines.append(f"| {text} | " + " | ".join(cells) + " |")
    lines += ["", "| | " + " | ".join(f"batch {result.batch}" for result in results) + " |"]
    lines += ["| --- |" + " ---: |" * len(results)]
    for text, path, other in (
        ("Reference / fast path", REFERENCE, FAST),
        ("As trained / fast path", PLAIN, FAST),
        ("Fast path / bare convolutions", FAST, BARE),
        ("One-part edit / render alone", EDIT, RENDER),
    ):
        lines.append(f"| {text} | " + " | ".join(f"{result.ratio(path, other):.2f}" for result in results) + " |")
    lines.append(f"| PSNR of the {dtype} path | " + " | ".join(f"{r.fast.psnr:.1f} dB" for r in results) + " |")
    shares = " | ".join(f"{100 * result.fast.same_part:.2f} %" for result in results)
    lines.append(f"| … pixels given to the same part | {shares} |")
    errors = " | ".join(f"{result.float32.largest_error:.1e}" for result in results)
    lines.append(f"| Largest error of the float32 path | {errors} |")
    if memory is not None:
        lines += ["", f"Peak resident memory at batch 1, Python and PyTorch included: {memory / 1e9:.2f} GB."]
    promises = targets(results[0], device)
    if preset == TARGET_PRESET and memory is not None:
        promises.append(("under 1.5 GB resident at batch 1", f"{memory / 1e9:.2f} GB", memory < 1.5e9))
    lines += ["", "Targets:", ""]
    lines += [f"- {promise}: {value}, {'reached' if kept else '**not reached**'}" for promise, value, kept in promises]
    if torch.device(device).type == "cpu" and not cpu_has("amx_tile"):
        lines += ["", _WITHOUT_AMX]
    return "\n".join(lines)


_WITHOUT_AMX = (
    "The speed targets were set for a two-core CPU with AMX, and this one has none: its bfloat16 peak is at best about "
    "twice its float32 peak. What exceeds a factor of two between reference and fast path is arithmetic that the fast "
    "path does not do. With AMX the convolutions shrink and everything around them weighs more; that is not measured."
)


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and with ``--write`` puts the figures into a page."""
    parser = argparse.ArgumentParser(prog="python -m memorygan.analysis.benchmark", description="Time per face")
    parser.add_argument(
        "--preset", nargs="+", choices=sorted(PRESETS), default=["paper-256", "faces-128"], metavar="PRESET",
        help=f"one or more of {', '.join(sorted(PRESETS))}; default: paper-256 faces-128",
    )  # fmt: skip
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8], help="faces at once; default: 1 8")
    parser.add_argument(
        "--repeats", nargs="+", type=int, default=[9],
        help="timed runs of every path: one number, or one per batch; default: 9",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    add_threads(parser)
    parser.add_argument("--write", type=Path, metavar="FILE", help="page for the figures, such as docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if min(*options.repeats, *options.batch) < 1:
        parser.error("batch and repeats are at least 1")
    if len(options.repeats) not in (1, len(options.batch)):
        parser.error(
            f"there are {len(options.repeats)} repeats for {len(options.batch)} batches; give one, or one each"
        )
    repeats = options.repeats * len(options.batch) if len(options.repeats) == 1 else options.repeats
    device = choose_device(options.device)
    torch.backends.cudnn.allow_tf32 = False  # the float32 paths are compared to the last digits
    for preset in options.preset:
        on = machine(device)
        results = [measure(preset, batch, count, device) for batch, count in zip(options.batch, repeats, strict=True)]
        memory = resident_bytes(preset) if device.type == "cpu" and results[0].batch == 1 else None
        section = report(results, memory, device, on)
        print(section + "\n", flush=True)
        if options.write:
            write_section(options.write, f"inference/{kind_of(device)}/{preset}", section, TITLE)


if __name__ == "__main__":
    sys.exit(main())
