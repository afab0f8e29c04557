"""First come, first served, for jobs that take long: only a few run at a time."""

from __future__ import annotations

import threading

from editing.errors import BusyError


class Turnstile:
    """Lets ``active`` jobs in at a time; the others wait in the order they came.

    Args:
        active: jobs that may run together.
        waiting: jobs that may wait; further ones are refused.
    """

    def __init__(self, active: int, waiting: int) -> None:
        self.active, self.waiting = active, waiting
        self._condition = threading.Condition()
        self._line: list[object] = []

    def enter(self) -> object:
        """A ticket: a place in the line.

        Raises:
            BusyError: if the line is full.
        """
        with self._condition:
            if len(self._line) >= self.active + self.waiting:
                raise BusyError("too many long jobs are being worked on; try again in a few minutes")
            ticket = object()
            self._line.append(ticket)
            return ticket

    def position(self, ticket: object, wait: float = 0.0) -> int:
        """How many are ahead; 0 means go. Waits up to ``wait`` seconds for the line to move."""
        with self._condition:
            if self._ahead(ticket) and wait > 0:
                self._condition.wait(wait)
            return self._ahead(ticket)

    def _ahead(self, ticket: object) -> int:
        return max(0, self._line.index(ticket) - self.active + 1) if ticket in self._line else 0

    def leave(self, ticket: object) -> None:
        """Makes room for the next; any number of times."""
        with self._condition:
            if ticket in self._line:
                self._line.remove(ticket)
                self._condition.notify_all()

    def __len__(self) -> int:
        return len(self._line)
