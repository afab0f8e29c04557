"""Independent pieces of work at the same time: NumPy and OpenCV let go of the interpreter while they calculate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")
First = TypeVar("First")
Second = TypeVar("Second")
_MOST = 8


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    # Whoever asks works as well.
    return ThreadPoolExecutor(max(1, min(_MOST, os.cpu_count() or 1) - 1), "photo")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not come along


def side_by_side(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
    """What the work makes of each piece, in order.

    Whoever asks begins with the first piece and goes on from the last one backwards; threads that are free take the
    others from the second on. So nobody waits for what nobody has begun, and pieces may be cut into pieces again.
    """
    pieces = list(pieces)
    if len(pieces) < 2:
        return [work(piece) for piece in pieces]
    others = [_pool().submit(work, piece) for piece in pieces[1:]]
    try:
        first, own = work(pieces[0]), []
        while others and others[-1].cancel():
            others.pop()
            own.append(work(pieces[1 + len(others)]))
        return [first, *(other.result() for other in others), *reversed(own)]
    finally:
        for other in others:
            other.cancel()


def together(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """What two different pieces of work make; the first one is to be the longer one, if it can be cut further."""
    one, other = side_by_side(lambda work: work(), (first, second))
    return one, other  # type: ignore[return-value]
