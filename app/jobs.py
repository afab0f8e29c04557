"""What the page needs to run jobs that take many steps; :class:`editing.service.EditingService` is one that has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from editing.results import CancelToken, InversionProgress
from editing.text.results import TextProgress


class LongJobs(Protocol):
    """Where reconstructions and descriptions run; both methods are described in :mod:`editing.service`."""

    def invert(
        self,
        photo: str,
        face: int = 0,
        crop: tuple[float, float, float] | None = None,
        steps: int = 200,
        tune_steps: int = 0,
        cancel: CancelToken | None = None,
        owner: str = "",
    ) -> Iterator[InversionProgress]:
        """Turns a photo into an editable face."""

    def describe(
        self,
        session: str,
        prompt: str,
        parts: Sequence[str] | None = None,
        neutral: str = "",
        strength: str = "normal",
        weights: Mapping[str, float] | None = None,
        steps: int = 300,
        seed: int | None = None,
        cancel: CancelToken | None = None,
        owner: str = "",
        layers: str | None = None,
    ) -> Iterator[TextProgress]:
        """Changes a face until it agrees with a sentence."""
