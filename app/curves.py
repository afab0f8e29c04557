"""The losses of a description, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from editing.text.results import TextProgress

# Points of a curve that are sent; a screen shows no more.
_POINTS = 80


class History:
    """The losses of a job so far, thinned to what a small chart can show.

    Args:
        names: of the losses.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._steps: list[int] = []
        self._losses: dict[str, list[float | None]] = {name: [] for name in names}

    def add(self, now: TextProgress) -> None:
        """Remembers one step; steps that were there before, and those without figures, are left out."""
        if not now.losses or (self._steps and now.step <= self._steps[-1]):
            return
        self._steps.append(now.step)
        for name, values in self._losses.items():
            value = now.losses.get(name, math.nan)
            values.append(round(value, 5) if math.isfinite(value) else None)

    def shown(self) -> dict[str, Any]:
        """At most :data:`_POINTS` and a few points, the last always among them."""
        stride = max(1, math.ceil(len(self._steps) / _POINTS))
        kept = sorted({*range(0, len(self._steps), stride), *([len(self._steps) - 1] if self._steps else [])})
        return {
            "steps": [self._steps[index] for index in kept],
            "losses": {name: [values[index] for index in kept] for name, values in self._losses.items()},
        }
