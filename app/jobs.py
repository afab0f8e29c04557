"""What the page needs to run jobs that take many steps; :class:`editing.service.EditingService` is one that has it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Protocol

from app.stopping import STOPPING
from editing.errors import EditingError
from editing.results import CancelToken, InversionProgress
from editing.text.results import TextProgress


class LongJobs(Protocol):
    """Where reconstructions and descriptions run; both methods take what those of the editing service take."""

    def invert(self, photo: str, *args: Any, **options: Any) -> Iterator[InversionProgress]:
        """Turns a photo into an editable face."""

    def describe(self, session: str, prompt: str, *args: Any, **options: Any) -> Iterator[TextProgress]:
        """Changes a face until it agrees with a sentence."""


class StoppableJobs:
    """Long jobs that all can be stopped, each with its best so far; see :class:`LongJobs`.

    Args:
        jobs: carries them out.

    Attributes:
        lent: whether that is on a GPU that is lent for a job at a time.
    """

    def __init__(self, jobs: LongJobs) -> None:
        self._jobs = jobs
        self.lent: bool = getattr(jobs, "lent", False)
        self._lock = threading.Lock()
        self._tokens: set[CancelToken] = set()
        self._stopped = False

    def invert(
        self, photo: str, *args: Any, cancel: CancelToken | None = None, **options: Any
    ) -> Iterator[InversionProgress]:
        token = cancel or CancelToken()
        return self._run(token, self._jobs.invert(photo, *args, cancel=token, **options))

    def describe(
        self, session: str, prompt: str, *args: Any, cancel: CancelToken | None = None, **options: Any
    ) -> Iterator[TextProgress]:
        token = cancel or CancelToken()
        return self._run(token, self._jobs.describe(session, prompt, *args, cancel=token, **options))

    def stop(self) -> None:
        """Ends the jobs that run within a step; later ones are refused."""
        with self._lock:
            self._stopped = True
            for token in self._tokens:
                token.cancel()

    def _run(self, token: CancelToken, steps: Iterator[Any]) -> Iterator[Any]:
        with self._lock:
            if self._stopped:
                raise EditingError(STOPPING)
            self._tokens.add(token)
        try:
            yield from steps
        finally:
            with self._lock:
                self._tokens.discard(token)
