"""Weights that hold a NaN load like any others and then answer NaN to everything, so they are looked through first."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Looks through a state dict.

    Raises:
        ValueError: if a value is not finite.
    """
    if any(tensor.is_floating_point() and not bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise ValueError("the weights hold values that are not finite")
