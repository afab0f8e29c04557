"""Around Gradio's own server: no oversized requests, none at the end, and a first face before any script is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.guard import sentence
from app.stopping import STOPPING

_ANSWERS = ("/queue/data", "/call/", "/file=", "/heartbeat/")
_BODY = re.compile(rb"<body[^>]*>")


class LimitBody:
    """Refuses requests that are longer than anything the page sends.

    Args:
        app: the application behind it.
        limit: bytes of an ordinary request.
        upload_limit: bytes of a file upload; Gradio checks the file itself again.
        most: bytes of all ordinary requests that are under way; they are kept in memory.
    """

    def __init__(self, app: ASGIApp, limit: int, upload_limit: int, most: int = 96 * 2**20) -> None:
        self._app, self._limit, self._upload_limit, self._most = app, limit, upload_limit, most
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = str(scope["path"]).rstrip("/").endswith("/upload")  # goes to the disk as it comes
        limit = self._upload_limit if upload else self._limit
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            words = f"This is too large; at most {limit >> 20} MiB are accepted."
            await PlainTextResponse(words, status_code=413)(scope, receive, send)
            return
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            size = len(message.get("body", b""))
            arrived += size
            self._under_way += 0 if upload else size
            if arrived > limit or self._under_way > self._most:
                # A body without an announced length, or one too many: what is behind sees the connection end.
                return {"type": "http.disconnect"}
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._under_way -= 0 if upload else arrived


class TakeNoMore:
    """Refuses new work while the program is being stopped, and tells probes, so that others are sent elsewhere.

    Args:
        app: the application behind it.
        stopping: whether it is.
    """

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        self._app, self._stopping = app, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._stopping():
            path = str(scope["path"]).rstrip("/")
            # What was begun is brought to its end: answers and files go out, and whoever waits may stop waiting.
            begun = path.endswith("/cancel") if scope["method"] == "POST" else any(part in path for part in _ANSWERS)
            if not begun:
                told = {"status": "stopping", "detail": sentence(STOPPING)}
                answer = JSONResponse(told, 503, headers={"Cache-Control": "no-store", "Retry-After": "30"})
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


class GoneFiles:
    """Answers 404 where a file went away while it was asked for, as uploads do, which are removed once they were read.

    Args:
        app: the application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "/file=" not in str(scope["path"]):
            await self._app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except (FileNotFoundError, RuntimeError) as error:
            # Starlette and Gradio say the second where the file was gone before the answer began.
            if isinstance(error, RuntimeError) and "does not exist" not in str(error):
                raise
            if not started:
                await PlainTextResponse("This file is no longer here.", status_code=404)(scope, receive, send)


class FirstPaint:
    """Puts something at the top of the page's body. Gradio's own ``head`` is only there once Gradio's scripts run.

    Args:
        app: the application behind it.
        snippet: HTML.
    """

    def __init__(self, app: ASGIApp, snippet: str) -> None:
        self._app, self._snippet = app, snippet.encode("utf-8")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()

        async def collected(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body.extend(message.get("body", b""))
            if message.get("more_body", False) or start is None:
                return
            page = self._painted(bytes(body))
            names = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            length = (b"content-length", str(len(page)).encode("ascii"))
            await send({**start, "headers": [*names, length]})
            await send({"type": "http.response.body", "body": page})

        await self._app(scope, receive, collected)

    def _painted(self, page: bytes) -> bytes:
        # A visitor who has to log in first is shown nothing of the page behind it.
        body = _BODY.search(page)
        if body is None or b'"auth_required":true' in page:
            return page
        return page[: body.end()] + self._snippet + page[body.end() :]
