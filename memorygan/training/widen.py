"""Wider networks that begin as the same function: longer query codes, and more channels in the long-term memory.

What is new reads what is old and starts unread: rows of the wider network are fresh, and columns that would let old
units see new ones are zero. After Net2Net (Chen, Goodfellow, Shlens 2016), without its noise.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from memorygan.config import GeneratorConfig

StateDict = dict[str, Tensor]
LATER = ("residual.", "deep.")  # what names of those parts of an encoder begin with that not every encoder has
# Tensors of the memory by the dimensions that count its channels: those that are written, and those that are read.
_WRITTEN = {
    "memory.position": 0,
    "memory.bias": 1,
    "memory.style_weight": 1,
    "memory.style_bias": 1,
    "memory.to_depth.modulation": 0,
    "memory.to_feature.modulation": 0,
}
_READ = ("memory.to_depth.weight", "memory.to_feature.weight")


def is_wider(before: GeneratorConfig, after: GeneratorConfig) -> bool:
    """Whether ``after`` differs from ``before`` only by more channels of the memory or longer query codes."""
    widened = replace(before, query_dim=after.query_dim, local_channels=after.local_channels)
    grows = after.query_dim >= before.query_dim and after.local_channels >= before.local_channels
    return before != after and widened == after and grows


def widen_generator(narrow: StateDict, before: GeneratorConfig, fresh: StateDict) -> StateDict:
    """State dict of the wider generator.

    It draws what the narrow one draws from codes whose new entries are 0. The controller of longer codes is fresh: it
    learns them anew in a minute.

    Args:
        narrow: state dict of the narrow generator.
        before: its configuration.
        fresh: state dict of an untrained wider generator.
    """
    channels, wide = before.local_channels, dict(narrow)
    for key, dimension in _WRITTEN.items():
        wide[key] = pad(narrow[key], fresh[key], dimension)
    weight = fresh["memory.weight"].clone()  # (L, C, C): written, read
    weight[:, :channels] = 0.0
    weight[:, :channels, :channels] = narrow["memory.weight"]  # demodulated: a common factor does not matter
    wide["memory.weight"] = weight
    for key in _READ:
        # Not demodulated: the scale 1/√C of an equalised layer shrinks as it gets wider.
        wide[key] = columns(narrow[key], fresh[key]) * math.sqrt(fresh[key].shape[1] / channels)
    # Zeros lower the norm of a code exactly as much as the wider layer's equalised scale lowers its weights.
    wide["mapping.layers.0.weight"] = columns(narrow["mapping.layers.0.weight"], fresh["mapping.layers.0.weight"])
    if fresh["mapping.layers.0.weight"].shape[1] > before.query_dim:
        wide |= {key: value for key, value in fresh.items() if key.startswith("controller.")}
    return wide


def widen_encoder(narrow: StateDict, query_dim: int, fresh: StateDict) -> StateDict:
    """State dict of an encoder that writes longer codes, whose new entries are 0 with a small variance.

    Args:
        narrow: state dict of the encoder of shorter codes; parts of another shape start anew.
        query_dim: length of its codes.
        fresh: state dict of an untrained encoder of the longer codes.
    """
    wide = {}
    for group in ("", *LATER):  # the first look, and what an encoder may have beside it
        keys = [key for key in fresh if _group(key) == group]
        fits = all(key in narrow and (_writes_codes(key) or narrow[key].shape == fresh[key].shape) for key in keys)
        for key in keys:  # half an old encoder would disturb
            own = narrow[key] if fits else fresh[key]
            wide[key] = _longer(own, query_dim, len(fresh[key])) if fits and _writes_codes(key) else own
    return wide


def _group(key: str) -> str:
    return next((name for name in LATER if key.startswith(name)), "")


def _writes_codes(key: str) -> bool:
    """Whether the rows of an encoder's tensor are the entries of codes."""
    return any(f"{head}_out.1." in key for head in ("part", "base"))


def _longer(old: Tensor, query_dim: int, rows: int) -> Tensor:
    """Rows of means, then of log-variances, each followed by zeros."""
    wide = torch.zeros(2, rows // 2, *old.shape[1:])
    wide[:, :query_dim] = old.unflatten(0, (2, query_dim))
    return wide.flatten(0, 1)


def pad(old: Tensor, fresh: Tensor, dimension: int) -> Tensor:
    """The old rows, then fresh ones."""
    known = old.shape[dimension]
    return torch.cat((old, fresh.narrow(dimension, known, fresh.shape[dimension] - known)), dim=dimension)


def columns(old: Tensor, fresh: Tensor) -> Tensor:
    """The old columns, then zeros."""
    wide = torch.zeros_like(fresh)
    wide[:, : old.shape[1]] = old
    return wide
