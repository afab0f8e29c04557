"""Networks in files of their own: the parser, the identity judge, the part encoder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memorygan.checkpoint import Network, Provenance, load_module, restore, save_module


def save_network(
    path: str | os.PathLike[str], kind: str, network: nn.Module, provenance: Provenance, **more: Any
) -> str:
    """Writes a network in half precision with its configuration and provenance.

    Args:
        path: where to.
        kind: of the file.
        network: its attribute ``config`` is a dataclass.
        provenance: where it comes from.
        more: further metadata, plain JSON.

    Returns:
        The sha256 of the file, in hexadecimal.

    Raises:
        CheckpointError: if the file cannot be written.
    """
    config: Any = network.config
    meta = {"kind": kind, "config": dataclasses.asdict(config), **more, "provenance": dataclasses.asdict(provenance)}
    return save_module(path, network.state_dict(), meta, half=True)


def load_network(
    path: str | os.PathLike[str],
    kind: str,
    build: Callable[[Mapping[str, Any]], Network],
    device: torch.device | str = "cpu",
) -> Network:
    """Reads a network and checks every tensor of it.

    Args:
        path: a file that :func:`memorygan.checkpoint.save_module` wrote.
        kind: the kind the file must be of.
        build: makes such a network from the file's metadata; raises a ValueError for what it cannot make.
        device: where the network shall compute.

    Returns:
        The network in evaluation mode, float32, without gradients to its weights.

    Raises:
        CheckpointError: see :func:`memorygan.checkpoint.load_module`; also for a configuration that is unknown or
            impossible, for missing, unexpected or mis-shaped tensors, and for values that are not finite.
    """
    tensors, meta = load_module(path, kind)
    return restore(Path(path), tensors, lambda: build(meta)).eval().requires_grad_(False).to(device)
