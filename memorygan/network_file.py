"""Networks in files of their own: the parser, the part encoder, the identity judge."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from memorygan.checkpoint import Network, load_module, restore


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
