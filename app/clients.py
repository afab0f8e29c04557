"""Whom a request comes from, as far as fair shares go."""

from __future__ import annotations

import ipaddress
from typing import Any


def client_of(address: str | None, login: str | None = None) -> str:
    """A name for whoever asks: the login, or else the address.

    Args:
        address: of the other end; behind a proxy that is trusted the one that it tells of.
        login: name that the request is logged in with.
    """
    if login:
        return f"login {login.replace('/', ' ')}"
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        # Whoever has one address of such a network has all of them.
        return str(ipaddress.ip_network((found, 64), strict=False).network_address)
    return str(found)


def owner_of(request: Any, login: str | None = None, session: str | None = None) -> str:
    """Owner in the sense of :func:`editing.device.turns.fair_order`: a client and one of its pages.

    Args:
        request: Starlette's, or something with its ``client``.
        login: name that the request is logged in with.
        session: of the page; None for a program's call, of which all together count as one page.
    """
    client = getattr(request, "client", None)
    return f"{client_of(getattr(client, 'host', None), login)}/{session or ''}"
