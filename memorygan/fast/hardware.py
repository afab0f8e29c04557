"""Which device computes, what the CPU can do, how it hands out memory, how little Python needs to get in the way."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# What torch before 2.13 calls the entries of its table of CPU instructions.
_PROBES = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_tile": "_is_amx_tile_supported"}
_TRIES = 20  # the first ones warm up


def choose_device(name: str = "auto") -> torch.device:
    """A device by name; "auto" takes CUDA where it works.

    Raises:
        ValueError: for an unknown device, CUDA where there is none, or the number of a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}; use auto, cpu or cuda")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("CUDA was asked for, but no usable NVIDIA GPU was found; use --device cpu")
        if (device.index or 0) >= (count := torch.cuda.device_count()):
            raise ValueError(f"there is no {name}: of {count} usable NVIDIA GPUs the last is cuda:{count - 1}")
    return device


def cpu_has(instructions: str) -> bool:
    """Whether the CPU has ``avx512_bf16`` or ``amx_tile``, as far as this version of torch can tell."""
    table = getattr(torch.cpu, "get_capabilities", None)
    if table is not None:
        return bool(table().get(instructions, False))
    probe = getattr(torch.cpu, _PROBES[instructions], None)
    return probe is not None and bool(probe())


@cache
def bfloat16_pays() -> bool:
    """Whether the CPU multiplies matrices faster in bfloat16 than in float32; measured once, within milliseconds.

    AMX has eight times the rate. AVX512-BF16 has twice the rate on some CPUs and half of it on others, whatever they
    are called. Everywhere else bfloat16 is emulated.
    """
    if cpu_has("amx_tile") or not cpu_has("avx512_bf16"):
        return cpu_has("amx_tile")
    return _seconds(torch.bfloat16) < _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    """The CPU time of a product of two matrices at its quickest, whatever else runs on the machine."""
    matrix, best = torch.ones(256, 256, dtype=dtype), float("inf")
    for _ in range(_TRIES):
        started = time.thread_time()
        matrix @ matrix
        best = min(best, time.thread_time() - started)
    return best


def best_dtype(device: torch.device | str) -> torch.dtype:
    """The fastest arithmetic that is exact enough for pictures: bfloat16 where it pays, else float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        pays = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        pays = kind == "cpu" and bfloat16_pays()
    return torch.bfloat16 if pays else torch.float32


def cpu_autocast() -> torch.autocast:
    """bfloat16 where it pays, for networks whose weights stay float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_pays())


def fuses_activations(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN can apply an activation to a convolution's output before that leaves the registers."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available() or not torch._C._get_mkldnn_enabled():
        return False
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise") or "AVX" not in torch.backends.cpu.get_cpu_capability():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def multiplies_cheaply(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether four times the multiplications of an up-convolution cost less than a pass over what it puts out."""
    return dtype == torch.bfloat16 and fuses_activations(device, dtype) and cpu_has("amx_tile")


# glibc's numbers of the settings below, and the largest block that it may take from its own heap.
_TRIM_THRESHOLD, _TOP_PAD, _MAP_THRESHOLD, _LARGEST = -1, -2, -3, 32 * 2**20


def reuse_memory() -> None:
    """Makes glibc keep freed memory for the next layer; without glibc nothing happens.

    As it comes, it gives large blocks back to the operating system at once, and every layer of every training step then
    waits for fresh pages full of zeros. For programs that do nothing but train: the process never shrinks.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in ((_MAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2 * _LARGEST)):
            mallopt(setting, value)


@contextmanager
def little_garbage() -> Iterator[None]:
    """Python's search for garbage leaves out what exists already: within, it finds what was made within.

    The libraries alone have hundreds of thousands of objects, and to look through them took 3 % of a training step.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
