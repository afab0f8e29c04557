"""Independent pieces of work at the same time: NumPy and OpenCV let go of the interpreter while they calculate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")
_MOST = 8


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_MOST, os.cpu_count() or 1), "photo")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not come along


def side_by_side(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
    """What the work makes of each piece, in order; work that runs here must not call this again."""
    pieces = list(pieces)
    if len(pieces) < 2:
        return [work(piece) for piece in pieces]
    return list(_pool().map(work, pieces))
