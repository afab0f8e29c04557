"""What the page needs to run jobs that take many steps; :class:`editing.service.EditingService` is one that has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from editing.results import InversionProgress
from editing.text.results import TextProgress


class LongJobs(Protocol):
    """Where reconstructions and descriptions run; both methods take what those of the editing service take."""

    def invert(self, photo: str, *args: Any, **options: Any) -> Iterator[InversionProgress]:
        """Turns a photo into an editable face."""

    def describe(self, session: str, prompt: str, *args: Any, **options: Any) -> Iterator[TextProgress]:
        """Changes a face until it agrees with a sentence."""
