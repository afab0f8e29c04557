"""The command line: ``python -m app``. Every option can also come from the environment, for containers and Spaces."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from app.stopping import Stop, drain
from app.surroundings import Unfit, check_address, prepared


def parser() -> argparse.ArgumentParser:
    """The options; their defaults come from the environment now."""
    found = argparse.ArgumentParser(
        prog="python -m app",
        description="Open MemoryGAN Studio in the browser.",
        epilog="The variable in brackets sets the default of its option; lists of people are separated by spaces.",
    )

    def said(variables: Sequence[str], default: Any) -> Any:
        return next((os.environ[name] for name in variables if os.environ.get(name)), default)

    def add(flag: str, variables: Sequence[str], default: str | None, help_text: str, kind: type = str) -> None:
        note, value = " or ".join(variables), said(variables, default)
        found.add_argument(flag, type=kind, default=value, metavar="…", help=f"{help_text} [{note}]")

    def switch(flag: str, variables: Sequence[str], help_text: str, default: bool = False) -> None:
        note = " or ".join(variables)
        on = said(variables, "on" if default else "").lower() in ("1", "true", "yes", "on")
        found.add_argument(flag, action=argparse.BooleanOptionalAction, default=on, help=f"{help_text} [{note}]")

    add("--host", ["MEMORYGAN_HOST", "GRADIO_SERVER_NAME"], "127.0.0.1", "address to listen on; 0.0.0.0 for all")
    add("--port", ["MEMORYGAN_PORT", "GRADIO_SERVER_PORT"], None, "port; the first free one from 7860 if left out", int)
    add("--engine", ["MEMORYGAN_ENGINE"], "local", "what computes: local (this process), or ray (many devices)")
    add("--address", ["MEMORYGAN_RAY_ADDRESS"], None, "of a Ray cluster; --engine ray starts one here if left out")
    add("--replicas", ["MEMORYGAN_REPLICAS"], "8", "with --engine ray: processes of each kind, at most", int)
    add("--device", ["MEMORYGAN_DEVICE"], "auto", "auto, cpu, cuda or cuda:1")
    add("--checkpoint", ["MEMORYGAN_CHECKPOINT"], None, "the generator to use; the bundled one if left out", Path)
    add("--text-judge", ["MEMORYGAN_TEXT_JUDGE"], "auto", "what reads descriptions: auto, openai or bundled")
    add(
        "--identity-judge",
        ["MEMORYGAN_IDENTITY_JUDGE"],
        "auto",
        "what tells people apart: auto, vggface2, bundled or none",
    )
    found.add_argument(
        "--auth",
        action="append",
        metavar="…",
        help="who may in, as name:password; may be given several times; everyone if left out [MEMORYGAN_AUTH]",
    )
    add(
        "--trusted-proxies",
        ["MEMORYGAN_TRUSTED_PROXIES", "FORWARDED_ALLOW_IPS"],
        # A Space can only be reached through its own.
        "*" if os.environ.get("SPACE_ID") else "127.0.0.1,::1",
        "addresses of proxies that are believed when they say whom a request comes from; * for all",
    )
    add("--max-sessions", ["MEMORYGAN_MAX_SESSIONS"], "64", "faces kept ready; others are restored on demand", int)
    add("--queue-size", ["MEMORYGAN_QUEUE_SIZE"], "64", "requests of one kind of work that may wait", int)
    switch("--share", ["MEMORYGAN_SHARE"], "make a public link through Gradio's servers")
    switch("--mcp", ["MEMORYGAN_MCP", "GRADIO_MCP_SERVER"], "also be an MCP server, for assistants that use tools")
    # Someone who sits at a terminal wants to see the page; a container or a service has no browser.
    switch(
        "--open", ["MEMORYGAN_OPEN"], "open the page in the browser, if started from a terminal", sys.stdout.isatty()
    )
    return found


def persons(entries: Sequence[str]) -> tuple[tuple[str, str], ...] | None:
    """(name, password) pairs.

    Args:
        entries: each "name:password", or several of them separated by spaces; a password may have spaces as well, so a
            new person begins where a word with a colon follows.

    Returns:
        None if one of them has no name or no password.
    """
    found = [one for entry in entries for one in re.split(r"\s+(?=[^\s:]+:)", entry.strip())]
    people = tuple((name.strip(), word) for name, _, word in (one.partition(":") for one in found))
    return None if any(not name or not word for name, word in people) else people


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads and checks the options; ends the program with a sentence if they are unusable.

    Returns:
        What :func:`parser` takes, with ``auth`` as (name, password) pairs.
    """
    options = parser()
    values = options.parse_args(arguments)
    for name in ("max_sessions", "queue_size", "replicas"):
        if getattr(values, name) < 1:
            options.error(f"--{name.replace('_', '-')} is {getattr(values, name)}; use at least 1")
    if values.port is not None and not 0 < values.port < 65536:
        options.error(f"--port is {values.port}; use 1 to 65535")
    if values.engine not in ("local", "ray"):
        options.error(f"--engine is {values.engine!r}; use local or ray")
    if values.address and values.engine == "local":
        options.error("--address is of a Ray cluster; say --engine ray as well, or leave it out")
    said = os.environ.get("MEMORYGAN_AUTH", "").strip()
    people = persons(([said] if said else []) if values.auth is None else values.auth)
    if people is None:
        options.error("--auth needs name:password, for example --auth ada:secret; leave it out to let everyone in")
    values.auth = people
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program until it is interrupted or told to end; returns its exit status."""
    options = parse(arguments)
    stop = Stop()
    with stop.signals():
        try:
            options.host = check_address(options.host, options.port)
            with prepared(options.host) as folder:
                stop.folder = folder
                _serve(options, stop)
        except Unfit as error:
            print(f"MemoryGAN Studio cannot start: {error}.", file=sys.stderr)
            return 2
        if stop.asked:
            # Python itself would wait for the threads of calls that did not end, and take seconds to take torch apart.
            stop.leave(0)
    return 0


def _serve(options: argparse.Namespace, stop: Stop) -> None:
    # Imported only now: --help and a mistyped option shall not wait for torch.
    from app import create_demo
    from app.engines import engine
    from app.jobs import StoppableJobs
    from app.server import Settings, launch
    from editing.errors import EditingError

    print("Loading the model …", flush=True)
    with ExitStack() as stack:
        try:
            service, long_jobs = stack.enter_context(engine(options))
        except EditingError as error:
            raise Unfit(str(error)) from error
        if service.notice:
            print(service.notice, flush=True)
        shared = {item.name for item in fields(Settings)} & vars(options).keys()
        settings = Settings(stop=stop, **{name: getattr(options, name) for name in shared})
        jobs = StoppableJobs(long_jobs)
        demo = create_demo(service, jobs)
        try:
            try:
                launch(demo, service, settings, prevent_thread_lock=True)
            except OSError as error:
                # The address was free a moment ago.
                check_address(options.host, options.port)
                words = "every port from 7860 to 7959 is taken; choose another with --port"
                raise Unfit(words if options.port is None else str(error)) from error
            stop.serving()
            stop.wait(lambda: demo.is_running)
            stop.end_in()
            jobs.stop()
            drain(demo)
        finally:
            demo.close(verbose=False)
