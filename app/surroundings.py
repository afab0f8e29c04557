"""What the program finds around it, put right before Gradio is imported, which reads most of it only once."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

# Never behind a proxy: Gradio asks itself, over HTTP, whether it is there.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Unfit(Exception):
    """The program cannot start here; the text says why, and what to do."""


def without_brackets(host: str) -> str:
    """An address as sockets want it; that of IPv6 stands in brackets in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def check_address(host: str, port: int | None) -> str:
    """Whether the program may listen there.

    Args:
        host: name or address.
        port: None if any will do.

    Returns:
        The address as Gradio wants it.

    Raises:
        Unfit: if it may not.
    """
    bare = without_brackets(host)
    try:
        family, kind, *_, place = socket.getaddrinfo(bare, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            if os.name != "nt":
                # As the server does it: a port that was in use a moment ago is free. Windows would share a used one.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise Unfit(_refusal(error, host, port)) from None
    return f"[{bare}]" if ":" in bare else host


def _refusal(error: OSError, host: str, port: int | None) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken; choose another with --port, or leave it out to take the first that is free"
    if error.errno == errno.EACCES:
        return f"port {port} is not for everyone to use; choose one above 1023 with --port"
    return (
        f"--host is {host!r}, which is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all of its addresses"
    )


def spare_loopback(host: str, environment: MutableMapping[str, str]) -> None:
    """Adds this machine to what is reached without a proxy."""
    said = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name.strip() for name in said.split(",") if name.strip()]
    names += [name for name in (*LOOPBACK, without_brackets(host)) if name not in names]
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(names)


def drop_unusable_proxies(environment: MutableMapping[str, str]) -> list[str]:
    """Takes out proxies that this program's HTTP client does not understand, and would not even start with.

    Returns:
        A sentence for each.
    """
    import httpx  # takes a moment, and Gradio needs it anyway

    said = []
    for name, value in list(environment.items()):
        if name.lower() not in ("http_proxy", "https_proxy", "all_proxy") or not value.strip():
            continue
        try:
            httpx.HTTPTransport(proxy=httpx.Proxy(value if "://" in value else f"http://{value}")).close()
        except Exception:  # of several kinds: a scheme that is unknown, a port that is no number, no library for SOCKS
            del environment[name]
            said.append(f"The proxy in {name} is of a kind that cannot be used here; it is left out.")
    return said


def mend_root_path(environment: MutableMapping[str, str]) -> None:
    """Gives GRADIO_ROOT_PATH, the path under which a proxy shows the page, the slash that Gradio insists on."""
    path = environment.pop("GRADIO_ROOT_PATH", "").strip().rstrip("/")
    if path:
        environment["GRADIO_ROOT_PATH"] = path if "://" in path else "/" + path.lstrip("/")


@contextmanager
def own_folder(environment: MutableMapping[str, str]) -> Iterator[Path]:
    """A folder for this run alone, gone with it. Uploads and files for programs lie there, unless GRADIO_TEMP_DIR names
    another, and what torch wants to keep: its own place is named after the user, which a container's may have no name.

    Raises:
        Unfit: if nothing can be written there, or to the one that is named.
    """
    named = environment.get("GRADIO_TEMP_DIR")
    if named:
        _check_folder(Path(named))
    try:
        folder = Path(tempfile.mkdtemp(prefix="memorygan-"))
    except OSError:
        raise Unfit("nothing can be written to a folder for temporary files; name one with TMPDIR") from None
    places = {"GRADIO_TEMP_DIR": folder / "files", "TORCHINDUCTOR_CACHE_DIR": folder / "torch"}
    ours = {name: str(place) for name, place in places.items() if not environment.get(name)}
    environment.update(ours)
    try:
        yield folder
    finally:
        for name in ours:
            del environment[name]
        shutil.rmtree(folder, ignore_errors=True)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        said = f"nothing can be written to {folder} ({error.strerror}), which GRADIO_TEMP_DIR names; name another"
        raise Unfit(said) from None


@contextmanager
def prepared(host: str, environment: MutableMapping[str, str] = os.environ) -> Iterator[Path]:
    """All of the above, for as long as the block lasts; tells on the terminal what was left out.

    Raises:
        Unfit: if the program cannot start here.
    """
    for sentence in drop_unusable_proxies(environment):
        print(sentence, flush=True)
    spare_loopback(host, environment)
    mend_root_path(environment)
    # Said by --host by now; Gradio would look for free ports on that address even where it is none.
    environment.pop("GRADIO_SERVER_NAME", None)
    with own_folder(environment) as folder:
        yield folder
