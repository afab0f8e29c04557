"""Streams that survive a broken connection: what a page is sent is kept for a while, and told again where it was cut.

A page asks for its stream with a name of its own making and how many messages it has (``link`` and ``after``, see
``static/link.js``). What Gradio writes goes into a buffer first, and Gradio learns of the end of a connection only when
nobody came back in time. Streams of programs pass unchanged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from urllib.parse import parse_qs

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Of what was sent: so much is kept, because it may not have arrived. What was not sent is kept whole, up to MOST.
KEPT, KEPT_BYTES, MOST = 64, 4 * 2**20, 64 * 2**20
MAX_LINKS = 4000


class Link:
    """One stream, and what of it may have to be told again."""

    def __init__(self) -> None:
        self.start: Message | None = None
        self.done = False
        self.sent = self.count = 0  # messages that were sent, and that there are
        self.viewer = 0  # number of the connection that is served; a later one takes over
        self.watched = False
        self.gone = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._asked = False
        self._changed = asyncio.Event()

    async def receive(self) -> Message:
        """What the application behind is told: nothing, until the page is gone."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Takes what the application behind says."""
        if message["type"] == "http.response.start":
            self.start = message
        elif body := message.get("body", b""):
            self.count += 1
            self._chunks.append((self.count, body))
            self._bytes += len(body)
            if self._bytes > MOST and self.count - self.sent > 1:
                self.gone.set()
            self._forget()
        self.notify()

    def notify(self) -> None:
        """Wakes whoever waits for something new."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Waits for something new."""
        await self._changed.wait()

    def later(self, after: int) -> list[tuple[int, bytes]] | None:
        """Numbered messages beyond ``after``; None if some of them are gone."""
        first = self._chunks[0][0] if self._chunks else self.count + 1
        if not first - 1 <= after <= self.count:
            return None
        return [entry for entry in self._chunks if entry[0] > after]

    def _forget(self) -> None:
        while self._chunks and (len(self._chunks) > KEPT or self._bytes > KEPT_BYTES):
            number, body = self._chunks[0]
            if number > self.sent:
                return
            self._chunks.popleft()
            self._bytes -= len(body)


class Links:
    """Holds the streams of pages.

    Args:
        app: the application behind it.
        grace: seconds for which a stream waits for its page to come back.
        held: where the streams are kept, by session and name.
    """

    def __init__(self, app: ASGIApp, grace: float, held: dict[tuple[str, str], Link]) -> None:
        self._app, self._grace, self._held = app, grace, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _asked(scope)
        if asked is None:
            await self._app(scope, receive, send)
            return
        session, name, after = asked
        link = self._held.get((session, name))
        if link is None:
            if after or len(self._held) >= MAX_LINKS:
                await _lost(scope, receive, send)
                return
            link = self._held[session, name] = Link()
            link.task = asyncio.create_task(self._run(link, dict(scope)))
        await self._show(link, (session, name), after, scope, receive, send)

    async def _run(self, link: Link, scope: Scope) -> None:
        try:
            await self._app(scope, link.receive, link.send)
        finally:
            link.done = True
            link.notify()

    async def _show(
        self, link: Link, key: tuple[str, str], after: int, scope: Scope, receive: Receive, send: Send
    ) -> None:
        link.viewer += 1
        mine, link.watched = link.viewer, True
        link.notify()
        left = asyncio.create_task(_left(receive))
        try:
            while link.start is None and not link.done and not left.done():
                await _first(link.changed(), left)
            if link.start is None or link.later(after) is None:
                await _lost(scope, receive, send)
                return
            await send(link.start)
            while link.viewer == mine and not left.done():
                entries = link.later(after)
                if entries is None:
                    break
                for number, body in entries:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    after, link.sent = number, max(link.sent, number)
                if not entries:
                    if link.done:
                        break
                    await _first(link.changed(), left)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            left.cancel()
            if link.viewer == mine:
                link.watched = False
                asyncio.get_running_loop().call_later(self._grace, self._end, link, key, mine)

    def _end(self, link: Link, key: tuple[str, str], viewer: int) -> None:
        """Lets a stream go, unless its page came back."""
        if not link.watched and link.viewer == viewer:
            self._held.pop(key, None)
            link.gone.set()


def behind(held: dict[tuple[str, str], Link], session: str) -> int:
    """How many messages of a session wait to be sent."""
    return sum(link.count - link.sent for (name, _), link in list(held.items()) if name == session)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first(*awaited: object) -> None:
    """Waits for one of several; the last one goes on."""
    one, other = awaited
    waiting = asyncio.ensure_future(one)  # type: ignore[call-overload]
    try:
        await asyncio.wait({waiting, other}, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting


async def _lost(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"detail": "This stream is not here any more."}, status_code=410)(scope, receive, send)


def _asked(scope: Scope) -> tuple[str, str, int] | None:
    """Session, name and place of a stream that a page asks for."""
    if scope["type"] != "http" or scope["method"] != "GET" or not str(scope["path"]).endswith("/queue/data"):
        return None
    query = parse_qs(scope["query_string"].decode("latin-1"))
    session, name, after = (query.get(key, [""])[0] for key in ("session_hash", "link", "after"))
    if not session or not name or len(name) > 64 or not after.isdecimal() or len(after) > 9:
        return None
    return session, name, int(after)
