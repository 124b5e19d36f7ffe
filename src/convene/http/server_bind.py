"""Sockets to listen on: every address of a host, for one process or for several that share a port.

    bind(loop, host, port)   sockets for one server
    claim(loop, host, port)  sockets that hold the port and never listen, for a supervisor of several servers
    share(claimed)           sockets beside claimed ones, for one of those servers

The servers that share a port each have a socket of their own (`SO_REUSEPORT`), among which the kernel spreads
connections evenly. One socket for all of them gave 55 of 64 connections to one of four servers (decision record 0015).
Called by `server.py` and the supervisor of workers.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence


async def bind(loop: asyncio.AbstractEventLoop, host: str, port: int, *, reuse: bool = True) -> list[socket.socket]:
    """Return bound sockets for every address of `host`; with port 0 all share the first one's port.

    `reuse`: also where connections of an earlier server have not died down yet. Raises `OSError`.
    """
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = undo.enter_context(_open(family, kind, protocol))
            if reuse:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken = port or (bound[0].getsockname()[1] if bound else 0)
            listening.bind((address[0], taken, *address[2:]))
            bound.append(listening)
        undo.pop_all()
    return bound


async def claim(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[socket.socket]:
    """Return bound sockets that hold the port for those that `share` makes. Raises `OSError` where it is taken.

    They are bound as if nobody might share, which is what finds a port that is taken, another claim of it included.
    Whoever binds with SO_REUSEADDR is let in beside a claim that had it too, as a claim never listens; so it is set
    only where a first try without it has failed.
    """
    try:
        claimed = await bind(loop, host, port, reuse=False)
    except OSError:
        claimed = await bind(loop, host, port)
    for one in claimed:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return claimed


def share(claimed: Iterable[socket.socket]) -> list[socket.socket]:
    """Return one more bound socket for each claimed one. Raises `OSError`."""
    bound: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for one in claimed:
            listening = undo.enter_context(_open(one.family, one.type, one.proto))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(one.getsockname())
            bound.append(listening)
        undo.pop_all()
    return bound


def port_of(sockets: Sequence[socket.socket]) -> int:
    """Return the port of the first socket; 0 for one that has none."""
    name = sockets[0].getsockname()
    return int(name[1]) if isinstance(name, tuple) else 0


def _open(family: int, kind: int, protocol: int) -> socket.socket:
    opened = socket.socket(family, kind, protocol)
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return opened
