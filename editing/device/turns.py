"""Turns for what takes long: only some of it is worked on at a time, and nobody's work holds up everybody else's."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from editing.errors import BusyError
from editing.results import CancelToken

P = TypeVar("P")
R = TypeVar("R")


def fair_order(running: Iterable[str], waiting: Sequence[str]) -> list[int]:
    """Whose turn it is.

    Owners go round: the first piece of work of somebody who comes late is done before the second one of somebody who
    came early, and what is being worked on counts. A slash divides owners further ("client/page"): first the clients
    go round, then the pages of each.

    Args:
        running: owners of what is being worked on.
        waiting: owners of what waits, in the order it came.

    Returns:
        Places in ``waiting``, the next one first.
    """
    return _order([owner.split("/") for owner in running], [(owner.split("/"), at) for at, owner in enumerate(waiting)])


def _order(running: list[list[str]], waiting: list[tuple[list[str], int]]) -> list[int]:
    groups: dict[str, list[tuple[list[str], int]]] = {}
    ended = [at for owner, at in waiting if not owner]
    for owner, at in waiting:
        if owner:
            groups.setdefault(owner[0], []).append((owner[1:], at))
    ranked = [(rank, at) for rank, at in enumerate(ended, start=sum(not owner for owner in running))]
    for name, members in groups.items():
        busy = [owner[1:] for owner in running if owner and owner[0] == name]
        ranked += [(rank, at) for rank, at in enumerate(_order(busy, members), start=len(busy))]
    return [at for _, at in sorted(ranked)]


@dataclass(eq=False)
class Ticket:
    """A place in the line.

    Attributes:
        owner: whose job it is.
        running: it was let in.
        displaced: it had to go for somebody who has less in the line.
    """

    owner: str
    running: bool = False
    displaced: bool = False

    @property
    def client(self) -> str:
        """The owner's first name."""
        return self.owner.split("/")[0]


class Turnstile:
    """Lets ``active`` jobs in at a time, in the order of :func:`fair_order`.

    When the line is full, somebody who has less in it than others takes the place of the last one of theirs. Where one
    client holds every place of several, one more job is let in for another.

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
            ticket = Ticket(owner)
            self._line.append(ticket)
            if len(self._line) > self.active + self.waiting:
                last = self._in_turn()[-1]
                self._line.remove(last)
                if last is ticket:
                    raise BusyError("too many long jobs are being worked on; try again in a few minutes")
                last.displaced = True
                self._condition.notify_all()
            self._let_in()
            return ticket

    def position(self, ticket: Ticket, wait: float = 0.0) -> int:
        """How many jobs have to end before this one begins; 0 means go. Waits up to ``wait`` seconds for a change.

        Raises:
            BusyError: if somebody who has less in the line took the place.
        """
        with self._condition:
            if self._ahead(ticket) and wait > 0:
                self._condition.wait(wait)
            if ticket.displaced:
                raise BusyError("too many others came with long jobs; try again in a few minutes")
            return self._ahead(ticket)

    def _ahead(self, ticket: Ticket) -> int:
        waiting = self._in_turn()
        return waiting.index(ticket) + 1 if ticket in waiting else 0

    def _in_turn(self) -> list[Ticket]:
        """Those that wait, next one first; the lock is held."""
        waiting = [ticket for ticket in self._line if not ticket.running]
        running = [ticket.owner for ticket in self._line if ticket.running]
        return [waiting[at] for at in fair_order(running, [ticket.owner for ticket in waiting])]

    def _let_in(self) -> None:
        while waiting := self._in_turn():
            running = [ticket.client for ticket in self._line if ticket.running]
            crowded = len(running) > 1 and set(running) == {running[0]} != {waiting[0].client}
            if len(running) >= self.active + crowded:
                return
            waiting[0].running = True

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
            BusyError: on the first step, see :meth:`enter`; later, see :meth:`position`.
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
