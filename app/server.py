"""Serving the page: theme, limits, queue and ``/health``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from gradio.route_utils import FnIndexInferError
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from app import uploads
from app.arguments import refuse_politely
from app.doors import Doors
from app.link import Links
from app.mcp import furnish
from app.middleware import FirstPaint, GoneFiles, LimitBody, TakeNoMore
from app.presence import FIRST, GRACE, Presence, Streams
from app.queue import THREADS, FairQueue
from app.states import CLOSED_AGE, States
from app.stopping import Stop
from app.theme import StudioTheme
from app.widgets import STATIC, static
from editing.photo.decode import give_back
from editing.service import EditingService

# Long enough for a recipe with many photos' codes in it; photos come another way, with a limit of their own.
MAX_BODY = 12 * 2**20
_CALL = "/call/"


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        host, port: address to listen on; port None takes the first free one from 7860.
        auth: (name, password) pairs that are let in; empty for everyone.
        trusted_proxies: addresses of proxies, separated by commas, that are believed when they say whom a request
            comes from.
        queue_size: requests of one kind of work that may wait; see :class:`app.queue.FairQueue`.
        share: make a public link through Gradio's servers.
        mcp: also be an MCP server.
        open: show the page in a browser of this machine.
        max_visits: pages that are remembered, open or closed a moment ago.
        closed_age: seconds for which a page that was closed is remembered.
        grace, first: see :class:`app.presence.Presence`.
        stop: tells when no more work is taken.
    """

    host: str | None = None
    port: int | None = None
    auth: tuple[tuple[str, str], ...] = ()
    trusted_proxies: str = "127.0.0.1,::1"
    queue_size: int = 64
    share: bool = False
    mcp: bool = False
    open: bool = False
    max_visits: int = 2_000
    closed_age: float = CLOSED_AGE
    grace: float = GRACE
    first: float = FIRST
    stop: Stop = field(default_factory=Stop)


def launch(demo: gr.Blocks, service: EditingService, settings: Settings | None = None, **options: Any) -> str:
    """Shows the page; further options go to Gradio's launch.

    Returns:
        The local address.

    Raises:
        OSError: if the port is taken.
    """
    chosen = settings or Settings()
    # Read by uvicorn, which Gradio starts.
    os.environ["FORWARDED_ALLOW_IPS"] = chosen.trusted_proxies
    _, address, _ = demo.launch(
        server_name=chosen.host,
        server_port=chosen.port,
        share=chosen.share,
        inbrowser=chosen.open,
        max_threads=THREADS,
        num_workers=0,  # processes beside this one would serve files past all of the above
        **_shown(demo, service, chosen),
        **options,
    )
    return address


def mounted(demo: gr.Blocks, service: EditingService, settings: Settings | None = None) -> FastAPI:
    """The same page as an application for another server; that one decides on address, port and certificates."""
    chosen = settings or Settings()
    demo.max_threads = THREADS
    outer = gr.mount_gradio_app(FastAPI(), demo, "/", **_shown(demo, service, chosen))
    inner: Any = next(route.app for route in outer.routes if isinstance(route, Mount))
    demo.app = demo.server_app = inner
    demo.is_running = True
    return outer


def _shown(demo: gr.Blocks, service: EditingService, chosen: Settings) -> dict[str, Any]:
    """What Gradio is told, however the page is served; furnishes the page with its queue."""
    uploads.separate()
    presence, states = Presence(chosen.grace, chosen.first), States(chosen.max_visits, closed_age=chosen.closed_age)
    # Closed: what is asked for directly would pass the queue by.
    demo.queue(api_open=False)
    refuse_politely(demo)
    queue = demo._queue = FairQueue(demo, presence, chosen.queue_size)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        # Before the first request, after Gradio has made its own.
        states.set_blocks(demo)
        app.state_holder = states
        if demo.mcp_server_obj is not None:
            furnish(demo.mcp_server_obj, app)
        tidying = asyncio.create_task(_tidy(demo))
        try:
            yield
        finally:
            tidying.cancel()

    def login_of(cookies: dict[str, str]) -> str | None:
        app = demo.app
        names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
        return next((app.tokens[cookies[name]] for name in names if cookies.get(name) in app.tokens), None)

    # Not in a thread: under a flood all of them are taken.
    async def health(request: Request) -> JSONResponse:
        return JSONResponse(service.health(), headers={"Cache-Control": "no-store"})

    # Routes given to the constructor come before Gradio's own; /health needs no log-in, so that probes can ask.
    app_kwargs = {
        "routes": [Route("/health", health)],
        "lifespan": lifespan,
        "exception_handlers": {
            RequestValidationError: misshapen,
            FnIndexInferError: misnamed,
            KeyError: misnamed,
            TypeError: misnamed,
            ValueError: misnamed,
        },
        "middleware": [
            Middleware(TakeNoMore, lambda: chosen.stop.asked),
            Middleware(Doors, chosen.auth, login_of),
            Middleware(Links, chosen.grace, queue.links),
            Middleware(Streams, presence, states.page),
            Middleware(LimitBody, MAX_BODY, uploads.MAX_SAVED + 2**20),
            Middleware(GoneFiles),
            Middleware(FirstPaint, first_paint(demo)),
        ],
    }
    return {
        "auth": list(chosen.auth) or None,
        "auth_message": "Please log in to MemoryGAN Studio.",
        "mcp_server": chosen.mcp,
        "max_file_size": uploads.MAX_SAVED,
        "show_error": False,
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "pwa": False,
        "footer_links": ["api"],
        "theme": StudioTheme(),
        "css_paths": [STATIC / "studio.css"],
        "head": head(),
        "favicon_path": STATIC / "logo.svg",
        "app_kwargs": app_kwargs,
    }


async def _tidy(demo: gr.Blocks) -> None:
    while True:
        await asyncio.sleep(60)
        uploads.forget_removed(demo.upload_file_set, *demo.temp_file_sets)
        # Large requests leave gaps that the C library would keep.
        await asyncio.to_thread(give_back)


async def misshapen(request: Request, error: RequestValidationError) -> JSONResponse:
    """Says in a sentence what is wrong with a request; FastAPI itself would send all of it back."""
    found = error.errors()[0] if error.errors() else {}
    place = ".".join(str(name) for name in found.get("loc", ())[1:]) or "the request"
    return JSONResponse({"detail": f"{place[:60]}: {str(found.get('msg', 'not understood'))[:100]}."}, status_code=422)


async def misnamed(request: Request, error: Exception) -> JSONResponse:
    """Says which endpoint there is none of, or which value of a call by names is missing or unknown."""
    if isinstance(error, FnIndexInferError) or (isinstance(error, KeyError) and _CALL in request.url.path):
        return JSONResponse({"detail": "There is no endpoint of this name; the page's API docs list them."}, 404)
    if _CALL in request.url.path:
        return JSONResponse({"detail": str(error)[:200]}, 422)
    raise error  # this is nobody's request


def head() -> str:
    """What the page's head needs beyond Gradio's own."""
    return (
        '<meta name="description" content="Change one part of a face and leave the rest alone.">'
        '<meta name="color-scheme" content="light dark">'
        # Gradio puts a prefix before every rule of its `css`, so that rules for its own frame have to come this way.
        f"<style>{static('frame.css')}</style>"
        f"<script>{static('studio.js')}{static('link.js')}</script>"
    )


def first_paint(demo: gr.Blocks) -> str:
    """What shows the first face before Gradio has started, as HTML for the top of the body."""
    stage = next((block for block in demo.blocks.values() if getattr(block, "elem_id", None) == "stage"), None)
    first = getattr(stage, "value", None) or {}
    return (
        f"<script type='text/plain' id='studio-first'>{first.get('image', '')}</script>"
        f"<script>{static('studio.js')}{static('link.js')}{static('splash.js')}</script>"
    )
