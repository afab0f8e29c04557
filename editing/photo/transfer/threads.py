"""Independent pieces of work at the same time: NumPy and OpenCV let go of the interpreter while they calculate."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")
First = TypeVar("First")
Second = TypeVar("Second")
_MOST = 8
_here = threading.local()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_MOST, os.cpu_count() or 1), "photo")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not come along


def side_by_side(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
    """What the work makes of each piece, in order; within such work one piece after the other."""
    pieces = list(pieces)
    if len(pieces) < 2 or getattr(_here, "busy", False):
        return [work(piece) for piece in pieces]

    def piece_of_work(piece: Piece) -> Result:
        _here.busy = True  # were it to wait for others of the pool, all could wait for one another
        try:
            return work(piece)
        finally:
            _here.busy = False

    return list(_pool().map(piece_of_work, pieces))


def together(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """What two different pieces of work make."""
    one, other = side_by_side(lambda work: work(), (first, second))
    return one, other  # type: ignore[return-value]
