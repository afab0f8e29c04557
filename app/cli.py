"""The command line: ``python -m app``. Every option can also come from the environment, for containers and Spaces."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path

from app.stopping import Stop, drain
from app.surroundings import Unfit, check_address, no_free_port, prepared


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line or in the environment.

    Attributes:
        host, port, share, mcp, open, queue_size: see :class:`app.server.Settings`.
        engine: "local", or "ray" where others compute, see :mod:`app.cluster`.
        address: of the Ray cluster; None for one of this machine alone.
        replicas: of each kind there, at most.
        checkpoint, device, text_judge, identity_judge: see :meth:`editing.service.EditingService.open`.
        auth: (name, password) pairs.
        trusted_proxies: addresses, separated by commas.
        max_sessions: faces kept ready at a time.
    """

    host: str
    port: int | None
    engine: str
    address: str | None
    replicas: int
    device: str
    checkpoint: Path | None
    text_judge: str
    identity_judge: str
    auth: tuple[tuple[str, str], ...]
    trusted_proxies: str
    max_sessions: int
    queue_size: int
    share: bool
    mcp: bool
    open: bool


def parser() -> argparse.ArgumentParser:
    """The options; their defaults come from the environment now."""
    found = argparse.ArgumentParser(
        prog="python -m app",
        description="Open MemoryGAN Studio in the browser.",
        epilog="The variable in brackets sets the default of its option; lists of people are separated by spaces.",
    )

    def add(flag: str, variables: Sequence[str], default: str | None, help_text: str, kind: type = str) -> None:
        value = next((os.environ[name] for name in variables if os.environ.get(name)), default)
        note = " or ".join(variables)
        found.add_argument(flag, type=kind, default=value, metavar="…", help=f"{help_text} [{note}]")

    def switch(flag: str, variables: Sequence[str], help_text: str, default: bool = False) -> None:
        said = next((os.environ[name].lower() for name in variables if os.environ.get(name)), None)
        on = default if said is None else said in ("1", "true", "yes", "on")
        note = " or ".join(variables)
        found.add_argument(flag, action=argparse.BooleanOptionalAction, default=on, help=f"{help_text} [{note}]")

    add(
        "--host",
        ["MEMORYGAN_HOST", "GRADIO_SERVER_NAME"],
        "127.0.0.1",
        "address to listen on; 0.0.0.0 for all",
    )
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
    add(
        "--max-sessions",
        ["MEMORYGAN_MAX_SESSIONS"],
        "64",
        "faces kept ready; others are restored on demand",
        int,
    )
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


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Reads and checks the options; ends the program with a sentence if they are unusable."""
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
    return Options(**{**vars(values), "auth": people})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program until it is interrupted or told to end; returns its exit status."""
    options = parse(arguments)
    stop = Stop()
    with stop.signals():
        try:
            host = check_address(options.host, options.port)
            with prepared(host) as folder:
                stop.folder = folder
                _serve(replace(options, host=host), stop)
        except Unfit as error:
            print(f"MemoryGAN Studio cannot start: {error}.", file=sys.stderr)
            return 2
        if stop.asked:
            # Python itself would wait for the threads of calls that did not end, and take seconds to take torch apart.
            stop.leave(0)
    return 0


def _serve(options: Options, stop: Stop) -> None:
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
        shared = {item.name for item in fields(Settings)} & {item.name for item in fields(options)}
        settings = Settings(stop=stop, **{name: getattr(options, name) for name in shared})
        jobs = StoppableJobs(long_jobs)
        demo = create_demo(service, jobs)
        try:
            try:
                launch(demo, service, settings, prevent_thread_lock=True)
            except OSError as error:
                # The address was free a moment ago.
                check_address(options.host, options.port)
                raise Unfit(no_free_port() if options.port is None else str(error)) from error
            stop.serving()
            stop.wait(lambda: demo.is_running)
            stop.end_in()
            jobs.stop()
            drain(demo)
        finally:
            demo.close(verbose=False)
