"""Networks in files of their own: the parser, the identity judge, the part encoder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from memorygan.checkpoint import Network, Provenance, load_module, restore, save_module

Config = TypeVar("Config")


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


def network_config(config: Callable[..., Config], meta: Mapping[str, Any]) -> Config:
    """The configuration in a file's metadata: whole numbers, and lists of such, as the defaults of its fields are.

    Args:
        config: a dataclass whose fields have defaults and whose ``__post_init__`` refuses what cannot be built.
        meta: of the file.

    Raises:
        ValueError: for other fields, for values of another form, and what ``config`` raises.
    """
    fields, known = meta.get("config"), {field.name: field.default for field in dataclasses.fields(cast(Any, config))}
    if not isinstance(fields, dict) or set(fields) != set(known):
        raise ValueError(f"its configuration must have the fields {', '.join(sorted(known))}")
    return config(**{name: _as(like, fields[name], name) for name, like in known.items()})


def _as(like: Any, value: Any, name: str) -> Any:
    """A value from JSON: a whole number, a tuple of them, or a tuple of such tuples, all as long as the first is."""
    if not isinstance(like, tuple):
        if type(value) is not int:
            raise ValueError(f"its configuration must have a whole number as {name}, got {value}")
        return value
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"its configuration must have lists as {name}, got {value}")
    items = tuple(_as(like[0], item, name) for item in value)
    if isinstance(like[0], tuple) and any(len(item) != len(like[0]) for item in items):
        raise ValueError(f"its configuration must have lists of {len(like[0])} numbers in {name}, got {value}")
    return items


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
