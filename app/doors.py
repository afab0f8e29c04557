"""Who may in where Gradio itself does not ask: wrong logins are slowed down, MCP needs a login as well as the page."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.clients import client_of

MCP = "/gradio_api/mcp"
# Of Gradio's, and of no use here: pages written to the disk, and fetching of addresses that somebody else names.
_CLOSED = re.compile(r"/gradio_api/(deep_link|proxy=|component_server|file[=/]+\s*[a-z][a-z0-9+.-]*:)", re.IGNORECASE)
# Wrong logins of one client: so many are free, then each makes the next wait twice as long, up to so many seconds.
FREE, LONGEST = 5, 300.0
_NAME = "memorygan.login"


class Patience:
    """How long a client has to wait after wrong logins.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: dict[str, tuple[int, float]] = {}  # how many, and until when

    def wait(self, client: str) -> float:
        """Seconds until the client may try again; 0 if at once."""
        return max(0.0, self._wrong.get(client, (0, 0.0))[1] - self._clock())

    def wrong(self, client: str) -> None:
        """A login of the client was wrong."""
        now = self._clock()
        for name, (_, until) in list(self._wrong.items()):
            if until + LONGEST < now:
                del self._wrong[name]
        count = self._wrong.pop(client, (0, 0.0))[0] + 1
        self._wrong[client] = (count, now + (min(LONGEST, 2.0 ** (count - FREE)) if count >= FREE else 0.0))

    def right(self, client: str) -> None:
        """A login of the client was right."""
        self._wrong.pop(client, None)


class Doors:
    """Refuses who may not in.

    Args:
        app: the application behind it.
        people: (name, password) pairs; empty if everyone may in.
        login_of: the name that a token of a login cookie stands for, or None.
    """

    def __init__(
        self, app: ASGIApp, people: Sequence[tuple[str, str]], login_of: Callable[[dict[str, str]], str | None]
    ) -> None:
        self._app, self._people, self._login_of, self._patience = app, dict(people), login_of, Patience()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(scope["path"])
        if _CLOSED.match(path):
            await JSONResponse({"detail": "Not found."}, status_code=404)(scope, receive, send)
        elif self._people and path.rstrip("/") == "/login" and scope["method"] == "POST":
            await self._log_in(scope, receive, send)
        elif self._people and (path + "/").startswith(MCP + "/"):
            await self._mcp(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = _client(scope)
        if wait := self._patience.wait(client):
            await _later(wait)(scope, receive, send)
            return

        async def noticed(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 400:
                    self._patience.wrong(client)
                elif message["status"] == 200:
                    self._patience.right(client)
            await send(message)

        await self._app(scope, receive, noticed)

    async def _mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        login = self._login_of(_cookies(headers.get("cookie", "")))
        if login is None and "authorization" in headers:
            client = _client(scope)
            if wait := self._patience.wait(client):
                await _later(wait)(scope, receive, send)
                return
            login = self._basic(headers["authorization"])
            (self._patience.wrong if login is None else self._patience.right)(client)
        if login is None:
            answer = JSONResponse(
                {"detail": "Log in with a name and a password (HTTP Basic)."},
                status_code=401,
                headers={"WWW-Authenticate": 'Basic realm="MemoryGAN Studio", charset="UTF-8"'},
            )
            await answer(scope, receive, send)
            return
        await self._app({**scope, _NAME: login}, receive, send)

    def _basic(self, value: str) -> str | None:
        """The name of an HTTP Basic login, if name and password are right."""
        kind, _, encoded = value.partition(" ")
        try:
            name, colon, word = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        expected = self._people.get(name)
        if kind.lower() != "basic" or not colon or expected is None:
            return None
        return name if hmac.compare_digest(word.encode("utf-8"), expected.encode("utf-8")) else None


def login_in(scope: Any) -> str | None:
    """The name a request to MCP is logged in with."""
    return scope.get(_NAME)


def _client(scope: Scope) -> str:
    return client_of((scope.get("client") or (None,))[0])


def _later(wait: float) -> JSONResponse:
    seconds = int(wait) + 1
    return JSONResponse(
        {"detail": f"Too many wrong logins; try again in {seconds} s."},
        status_code=429,
        headers={"Retry-After": str(seconds)},
    )


def _cookies(header: str) -> dict[str, str]:
    found: SimpleCookie = SimpleCookie()
    try:
        found.load(header)
    except CookieError:
        return {}
    return {name: cookie.value for name, cookie in found.items()}
