"""How often a long job tells the page where it is."""

from __future__ import annotations

import time

# The eye takes some ten pictures a second; more answers would only queue up.
INTERVAL = 0.15


class Pace:
    """Lets one answer through every :data:`INTERVAL` seconds, the first at once."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval, self._next = interval, 0.0

    def due(self) -> bool:
        """Whether it is time; if so, the next one waits."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._interval
        return True
