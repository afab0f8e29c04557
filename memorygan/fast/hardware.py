"""Which device computes, what the CPU can do, how it hands out memory, how little Python needs to get in the way."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# What torch before 2.13 calls the entries of its table of CPU instructions.
_PROBES = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_tile": "_is_amx_tile_supported"}


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
