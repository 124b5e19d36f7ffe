"""What all connections of one edge share: the coarse clock, the counts, who is running, and the cap per address.

Here: `Edge` and `address_key`. Not here: sockets and signals (`server.py`), the rules per connection
(`server_protocol.py`). One `Edge` belongs to one `Server`; nothing is module state.
"""

from __future__ import annotations

import asyncio
import ipaddress
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from convene.http.batch import WriteBatch
from convene.http.server_wire import OK_LINE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from convene.http.server_asgi import ASGIApp
    from convene.http.server_settings import ServerSettings


class Watched(Protocol):
    """A connection as the ticker sees it."""

    deadline: float
    """Loop time in seconds after which `overdue` is called."""

    @property
    def unheard(self) -> bool:
        """Whether nothing was asked on it yet, or no whole head has come."""
        ...

    def overdue(self, now: float) -> None:
        """Act on the passed deadline, or set the next one."""
        ...

    def close_if_idle(self) -> None:
        """Close when no request is in flight or begun."""
        ...

    def close_when_sent(self) -> None:
        """Close as soon as what was written has gone out; a request in flight is not waited for."""
        ...

    def abort(self) -> None:
        """Drop the connection at once."""
        ...


class Running(Protocol):
    """A request whose task is alive."""

    def cancel(self) -> None:
        """Cancel the task."""
        ...


class Edge:
    """The shared state of a server's connections. Lives on one event loop and is touched only there."""

    __slots__ = (
        "_addresses",
        "_date_s",
        "_wake",
        "_wall_now",
        "app",
        "batch",
        "connections",
        "date_line",
        "draining",
        "encode_body",
        "loop",
        "new_id",
        "now",
        "ok_lines",
        "running",
        "settings",
        "start_task",
        "state",
    )

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        loop: asyncio.AbstractEventLoop,
        *,
        new_id: Callable[[], str],
        wall_now: Callable[[], float],
        encode_body: Callable[[int, str, str], bytes],
    ) -> None:
        """Start empty. `wall_now` gives Unix seconds for the `date` header; all waits use the loop's own time."""
        self.app = app
        self.settings = settings
        self.loop = loop
        self.batch = WriteBatch(loop)
        # Not the loop's own method: that writes a fresh name into each task, which nobody reads.
        self.start_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = partial(
            asyncio.Task, loop=loop, name="request"
        )
        self.new_id = new_id
        self.encode_body = encode_body
        self.state: dict[str, Any] = {}
        self.connections: set[Watched] = set()
        self.running: set[Running] = set()
        self.draining = False
        self.now = loop.time()
        """Loop time of the last tick, in seconds: cheap and at most one tick old."""
        self.date_line = self.ok_lines = b""
        """The `date` header, and the status line of success with it."""
        self._wall_now = wall_now
        self._date_s = -1
        self._addresses: dict[str, int] = {}
        self._wake: asyncio.Future[None] | None = None
        self.refresh_date()

    def tick(self) -> None:
        """Move the coarse clock and let every overdue connection act."""
        self.now = now = self.loop.time()
        self.refresh_date()
        for connection in [c for c in self.connections if c.deadline < now]:
            connection.overdue(now)

    def refresh_date(self) -> None:
        """Format the `date` header anew when the second changed (RFC 9110 6.6.1)."""
        second = int(self._wall_now())
        if second != self._date_s:
            self._date_s = second
            self.date_line = b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
            self.ok_lines = OK_LINE + self.date_line

    def admit(self, connection: Watched, address: str) -> str | None:
        """Count a new connection. Returns which cap it passed (`address` or `total`), else None.

        A refused one is counted too until `forget`: it holds a socket.
        """
        self.connections.add(connection)
        held = self._addresses.get(address, 0) + 1
        self._addresses[address] = held
        if len(self.connections) > self.settings.connections_max:
            return "total"
        if address and held > self.settings.connections_per_address_max:
            return "address"
        return None

    def forget(self, connection: Watched, address: str) -> None:
        """Uncount a closed connection."""
        self.connections.discard(connection)
        left = self._addresses.get(address, 0) - 1
        if left > 0:
            self._addresses[address] = left
        else:
            self._addresses.pop(address, None)
        if self.draining:
            self.wake()

    def wake(self) -> None:
        """Let `Server.stop` look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def next_change(self) -> asyncio.Future[None]:
        """Return a future that ends at the next `wake`."""
        self._wake = self.loop.create_future()
        return self._wake


def address_key(peer: object) -> str:
    """Return what the cap per address counts: an IPv4 address, an IPv6 /64 (one customer's network), else ''.

    `peer` is a socket's `peername`. An IPv4-mapped address counts as IPv4. A Unix socket has no address: '' is not
    capped, since its clients are local and usually one proxy.
    """
    if not isinstance(peer, tuple) or not peer:
        return ""
    host = str(peer[0])
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
