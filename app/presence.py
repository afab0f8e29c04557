"""Who still listens: which event streams are open, and for how long the others have been closed.

Gradio notices a stream that ends, but not one that was never opened, and a program's call that takes minutes is not
told at all that its caller went away.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

# Seconds for which a stream that ended may be opened again, and within which it has to be opened for the first time.
GRACE = 30.0
FIRST = 10.0
_CALL = re.compile(r"/call/(?:v2/)?[^/]+/([^/]+)/?$")
_HEARTBEAT = re.compile(r"/heartbeat/([^/]+)/?$")


class Presence:
    """What is listened to, by name: a session, or an event of a program.

    Args:
        grace, first: see :data:`GRACE` and :data:`FIRST`.
        clock: seconds that only grow.
    """

    def __init__(self, grace: float = GRACE, first: float = FIRST, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace, self.first, self._clock = grace, first, clock
        self._open: Counter[str] = Counter()
        self._left: dict[str, float] = {}
        self._ended: list[Callable[[str], None]] = []

    def on_end(self, call: Callable[[str], None]) -> None:
        """Has something called with the name whenever the last stream of a name ends."""
        self._ended.append(call)

    @contextmanager
    def listening(self, name: str) -> Iterator[None]:
        """Somebody listens within the block."""
        self._open[name] += 1
        try:
            yield
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]
                self._forget()
                self._left[name] = self._clock()
                for call in self._ended:
                    call(name)

    def open(self, names: Sequence[str]) -> bool:
        """Whether somebody listens to one of the names now."""
        return any(name in self._open for name in names)

    def attended(self, names: Sequence[str], since: float) -> bool:
        """Whether somebody listens to one of the names, may come back, or may still come.

        Args:
            names: of the streams that would do.
            since: when the stream could be opened first, on the same clock.
        """
        if self.open(names):
            return True
        now, left = self._clock(), [self._left[name] for name in names if name in self._left]
        return now - since < self.first or any(now - at < self.grace for at in left)

    def _forget(self) -> None:
        now = self._clock()
        for name, at in list(self._left.items()):
            if now - at < self.grace:
                break  # in the order they left
            del self._left[name]
        while len(self._left) > 10_000:
            del self._left[next(iter(self._left))]


class Streams:
    """Tells a :class:`Presence` of the streams that pass, and somebody else of the pages that are open.

    Args:
        app: the application behind it.
        presence: is told of event streams.
        page: a context for the session of a page, held while its heartbeat is open.
    """

    def __init__(self, app: ASGIApp, presence: Presence, page: Callable[[str], AbstractContextManager[Any]]) -> None:
        self._app, self._presence, self._page = app, presence, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            path = str(scope["path"])
            if found := _HEARTBEAT.search(path):
                with self._page(found[1]):
                    return await self._app(scope, receive, send)
            name = _stream(path, scope["query_string"])
            if name:
                with self._presence.listening(name):
                    return await self._app(scope, receive, send)
        await self._app(scope, receive, send)


def _stream(path: str, query: bytes) -> str:
    """The name of the stream that is asked for; "" if it is none."""
    if path.rstrip("/").endswith("/queue/data"):
        return parse_qs(query.decode("latin-1")).get("session_hash", [""])[0]
    found = _CALL.search(path)
    return found[1] if found else ""
