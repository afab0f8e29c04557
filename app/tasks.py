"""Long jobs of a page, in threads of their own: whoever shows one may go and come back, and finds it where it is."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

from editing.results import CancelToken

T = TypeVar("T")
# The eye takes some ten pictures a second; more answers would only queue up.
INTERVAL = 0.15


class Task(Generic[T]):
    """A job that goes on while somebody follows it, and ends with its best so far when nobody does any more.

    Args:
        steps: makes the job's progress; called in the job's thread.
        each: is told of every step there, before the followers are.
        cancel: ends the job within a step.

    Attributes:
        ended: whether the job is over.
    """

    def __init__(
        self, steps: Callable[[], Iterator[T]], each: Callable[[T], None], cancel: CancelToken | None = None
    ) -> None:
        self.cancel = cancel or CancelToken()
        self._changed = threading.Condition()
        self._count = self._followers = 0
        self._last: T | None = None
        self._problem: Exception | None = None
        self.ended = False

        def work() -> None:
            try:
                for step in steps():
                    each(step)
                    with self._changed:
                        self._last, self._count = step, self._count + 1
                        self._changed.notify_all()
            except Exception as error:
                self._problem = error
            finally:
                with self._changed:
                    self.ended = True
                    self._changed.notify_all()

        # Who asks is known from the context, which a new thread does not have by itself.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(work,), name="long-job", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Waits until the job is over."""
        self._thread.join(timeout)

    def follow(self) -> Generator[T, None, None]:
        """The newest step whenever there is one, and the last one in any case.

        Raises:
            Exception: what ended the job, if it did not end by itself.
        """
        seen = 0
        with self._changed:
            self._followers += 1
        try:
            while True:
                with self._changed:
                    while self._count == seen and not self.ended:
                        self._changed.wait()
                    fresh, seen, last = self._count > seen, self._count, self._last
                    over = self.ended
                if fresh and last is not None:
                    yield last
                elif over:
                    break
            if self._problem is not None:
                raise self._problem
        finally:
            with self._changed:
                self._followers -= 1
                alone = not self._followers
            if alone and not self.ended:
                self.cancel.cancel()


class Pace:
    """Lets one answer through every :data:`INTERVAL` seconds, the first at once."""

    def __init__(self) -> None:
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time; if so, the next one waits."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + INTERVAL
        return True
