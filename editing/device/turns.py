"""Turns for jobs that take long: only a few run at a time, and nobody's jobs hold up everybody else's."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from editing.errors import BusyError
from editing.results import CancelToken

P = TypeVar("P")
R = TypeVar("R")


@dataclass(eq=False)
class Ticket:
    """A place in the line.

    Attributes:
        owner: whose job it is.
        running: it was let in.
    """

    owner: str
    running: bool = False


class Turnstile:
    """Lets ``active`` jobs in at a time.

    Those that wait go round robin between their owners, and first come, first served among the jobs of one owner: the
    first job of somebody who comes late is let in before the second one of somebody who came early.

    Args:
        active: jobs that may run together.
        waiting: jobs that may wait; further ones are refused.
        per_owner: jobs of one owner that may run and wait together; further ones are refused.
    """

    def __init__(self, active: int, waiting: int, per_owner: int = 4) -> None:
        self.active, self.waiting, self.per_owner = active, waiting, per_owner
        self._condition = threading.Condition()
        self._line: list[Ticket] = []  # in the order they came

    def enter(self, owner: str) -> Ticket:
        """A place in the line.

        Raises:
            BusyError: if the line is full, or the owner has too many jobs in it.
        """
        with self._condition:
            if sum(ticket.owner == owner for ticket in self._line) >= self.per_owner:
                raise BusyError(
                    f"{self.per_owner} of your long jobs are being worked on already; wait for one, or stop one"
                )
            if len(self._line) >= self.active + self.waiting:
                raise BusyError("too many long jobs are being worked on; try again in a few minutes")
            ticket = Ticket(owner)
            self._line.append(ticket)
            self._let_in()
            return ticket

    def position(self, ticket: Ticket, wait: float = 0.0) -> int:
        """How many jobs have to end before this one begins; 0 means go. Waits up to ``wait`` seconds for a change."""
        with self._condition:
            if self._ahead(ticket) and wait > 0:
                self._condition.wait(wait)
            return self._ahead(ticket)

    def _ahead(self, ticket: Ticket) -> int:
        waiting = self._in_turn()
        return waiting.index(ticket) + 1 if ticket in waiting else 0

    def _in_turn(self) -> list[Ticket]:
        """Those that wait, next one first; the lock is held."""
        before: dict[str, int] = {}  # jobs of each owner that come before
        for ticket in self._line:
            if ticket.running:
                before[ticket.owner] = before.get(ticket.owner, 0) + 1
        ranked: list[tuple[int, int, Ticket]] = []
        for place, ticket in enumerate(self._line):
            if not ticket.running:
                rank = before.get(ticket.owner, 0)
                before[ticket.owner] = rank + 1
                ranked.append((rank, place, ticket))
        return [ticket for _, _, ticket in sorted(ranked, key=lambda entry: entry[:2])]

    def _let_in(self) -> None:
        room = self.active - sum(ticket.running for ticket in self._line)
        for ticket in self._in_turn()[: max(0, room)]:
            ticket.running = True

    def leave(self, ticket: Ticket) -> None:
        """Makes room for the next; any number of times."""
        with self._condition:
            if ticket in self._line:
                self._line.remove(ticket)
                self._let_in()
                self._condition.notify_all()

    def in_turn(
        self, owner: str, cancel: CancelToken, waiting: P, work: Generator[P, None, R]
    ) -> Generator[P, None, R | None]:
        """Does a job when its turn comes, and yields its progress, before that how many are ahead.

        Args:
            owner: whose job it is.
            cancel: ends the waiting too.
            waiting: progress with the fields ``phase``, ``position`` and ``cancelled``, for the time before.
            work: not begun yet.

        Returns:
            What the work returns; None if it was cancelled before its turn.

        Raises:
            BusyError: on the first step, see :meth:`enter`.
        """
        ticket = self.enter(owner)
        try:
            while ahead := self.position(ticket, wait=0.25):
                if cancel.cancelled:
                    yield cast(P, replace(cast(Any, waiting), phase="done", cancelled=True))
                    return None
                yield cast(P, replace(cast(Any, waiting), position=ahead))
            return (yield from work)
        finally:
            self.leave(ticket)

    def __len__(self) -> int:
        return len(self._line)
