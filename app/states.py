"""What Gradio keeps for each session, kept small: nothing for a program's call, and little for a page.

Gradio's own store copies the configuration of every component for every session, writes every input into it, and
forgets a page an hour after it was loaded if its connection was ever cut. Only its "deep links", which are not offered
here, need those copies.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

from gradio.components import State
from gradio.state_holder import SessionState, StateHolder

if TYPE_CHECKING:
    from gradio.blocks import Blocks, BlocksConfig

# Pages whose connection ended and that may come back: for how many seconds, and how many of them.
CLOSED_AGE = 3600.0
MAX_CLOSED = 64
# Of sessions that have nothing yet, as while their first call waits.
_BLANK_AGE = 60.0


class SlimState(SessionState):
    """State of one session; components are shared with all others until one of them is updated."""

    def __init__(self, blocks: Blocks) -> None:
        # Not the constructor of Gradio's: it makes the copies.
        self._shared = blocks.default_config
        self._own: BlocksConfig | None = None
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.seen = 0.0

    @property
    def blocks_config(self) -> BlocksConfig:  # type: ignore[override]
        """The components as this session sees them."""
        return self._own or self._shared

    @property
    def blank(self) -> bool:
        """Whether nothing would be lost with it."""
        return self._own is None and not any(value is not None for value in self.state_data.values())

    def __setitem__(self, key: int, value: Any) -> None:
        if isinstance(self.blocks_config.blocks.get(key), State):
            self.state_data[key] = value
            return
        self._own = self._own or copy(self._shared)
        self._own.blocks[key] = value

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


class States(StateHolder):
    """The states of all sessions, bounded; what goes is closed properly.

    Args:
        capacity: sessions that are remembered.
        max_closed, closed_age: see :data:`MAX_CLOSED` and :data:`CLOSED_AGE`.
        clock: seconds that only grow.
    """

    session_data: OrderedDict[str, SlimState]  # type: ignore[assignment]

    def __init__(
        self,
        capacity: int,
        max_closed: int = MAX_CLOSED,
        closed_age: float = CLOSED_AGE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._limit, self._max_closed, self._closed_age, self._clock = capacity, max_closed, closed_age, clock
        self._open: Counter[str] = Counter()

    def set_blocks(self, blocks: Blocks) -> None:
        """Called by Gradio, before the first session."""
        super().set_blocks(blocks)
        self.capacity = self._limit

    def __getitem__(self, session_id: str) -> SlimState:
        with self.lock:
            state = self.session_data.get(session_id) or SlimState(self.blocks)
            self.session_data[session_id] = state
            self.session_data.move_to_end(session_id)
            state.seen = self._clock()
            gone = [self.session_data.popitem(last=False) for _ in range(len(self.session_data) - self.capacity)]
        for _, state_gone in gone:
            _close(state_gone)
        return state

    @contextmanager
    def page(self, session_id: str) -> Iterator[None]:
        """A page of this session is open within the block."""
        self._open[session_id] += 1
        try:
            yield
        finally:
            self._open[session_id] -= 1
            if not self._open[session_id]:
                del self._open[session_id]
                with self.lock:
                    state = self.session_data.get(session_id)
                    if state is not None:
                        state.seen = self._clock()
                        self.session_data.move_to_end(session_id)

    def finished(self, session_id: str) -> None:
        """A call of the session ended; a session that has nothing is forgotten."""
        with self.lock:
            state = self.session_data.get(session_id)
            if state is not None and state.blank:
                del self.session_data[session_id]

    def delete_all_expired_state(self) -> None:
        """Called by Gradio every second: forgets pages that were closed long ago, or are too many."""
        now = self._clock()
        with self.lock:
            closed = [(name, state) for name, state in self.session_data.items() if name not in self._open]
            kept = [name for name, state in closed if not state.blank]
            many = set(kept[: max(0, len(kept) - self._max_closed)])
            gone = [
                self.session_data.pop(name)
                for name, state in closed
                if name in many or now - state.seen > (_BLANK_AGE if state.blank else self._closed_age)
            ]
        for state in gone:
            _close(state)

    def delete_state(self, session_id: str, expired_only: bool = False) -> None:
        """Forgets a session at once."""
        with self.lock:
            state = self.session_data.pop(session_id, None)
        if state is not None:
            _close(state)


def _close(state: SessionState) -> None:
    """Has everybody who left something in a state take it away."""
    for key, value in state.state_data.items():
        block = state.blocks_config.blocks.get(key)
        if isinstance(block, State):
            block.delete_callback(value)
