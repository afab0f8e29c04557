"""``python -m app.probe``: whether the program that runs here is well; what a container's health check asks.

It asks wherever the program listens, so that a port chosen in any way is found, and without a proxy.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator

import psutil

TIMEOUT = 4.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def places() -> Iterator[tuple[str, int]]:
    """(address, port) on which programs started as ``python -m app`` listen, of those that this user may look into."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if "app" not in words or words[words.index("app") - 1] != "-m":
                continue
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    yield _ANY.get(connection.laddr.ip, connection.laddr.ip), connection.laddr.port
        except psutil.Error:
            continue  # it ended meanwhile, or belongs to somebody else


def well(address: str, port: int) -> bool:
    """Whether ``/health`` answers there that all is well."""
    asking = http.client.HTTPConnection(address, port, timeout=TIMEOUT)
    try:
        asking.request("GET", "/health")
        return asking.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asking.close()


def main() -> int:
    """0 if the program listens and all is well, else 1, with a sentence."""
    found = list(places())
    if any(well(address, port) for address, port in found):
        return 0
    print("MemoryGAN Studio is not well." if found else "MemoryGAN Studio does not listen.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
