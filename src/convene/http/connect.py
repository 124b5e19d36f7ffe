"""Opening a connection: TCP, then through a proxy if there is one, then TLS if the origin wants it.

Here: `open_connection`. Not here: time-outs (the pool ends the whole by cancelling) and reuse. Called by `client_pool`
through `client`; tests and the simulation hand the client another `Open`.

Cancel-safe by one rule: whatever goes wrong after the TCP connection is there, its transport is aborted. `start_tls`
alone would only close it, and a TLS close waits for a peer that may never answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, Final, Protocol, cast

from convene.http.base import ConnectFailed, HttpError, ProtocolBroken
from convene.http.client_codec import Caps, ResponseReader
from convene.http.client_head import encode_head

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from convene.http.client_route import Origin, Proxy

ATTEMPT_S: Final = 1.0
"""What one address of several may take: a default connect time-out of 5 s then outlasts four dead ones."""
_TUNNEL_OK: Final = range(200, 300)


class Open(Protocol):
    """Opens a connection to `origin` for the protocol that `factory` makes; `tls` is None for plain http."""

    async def __call__(
        self, origin: Origin, tls: ssl.SSLContext | None, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        """Return when the protocol has its transport. Raises `ConnectFailed` or `OSError`."""
        ...


async def open_connection(
    origin: Origin,
    tls: ssl.SSLContext | None,
    factory: Callable[[], asyncio.Protocol],
    *,
    addresses: Sequence[str] = (),
) -> None:
    """Connect to `origin` as `Open` says; with `addresses` to those and nowhere else, under the origin's own name."""
    via = origin.proxy or origin
    if tls is None:
        # A plain request goes to a proxy as it would to the origin, only with an absolute target.
        await _dial(via.host, via.port, factory, addresses)
        return
    loop = asyncio.get_running_loop()
    tunnel = _Tunnel(loop)
    try:
        await _dial(via.host, via.port, lambda: tunnel, addresses)
        if origin.proxy is not None:
            await tunnel.ask(origin, origin.proxy)
        protocol = factory()
        secure = await loop.start_tls(tunnel.open_transport(), protocol, tls, server_hostname=origin.host)
        if secure is not None:
            protocol.connection_made(secure)
    except BaseException:
        # Broad and re-raised: also a cancel must close the socket at once.
        if tunnel.transport is not None:
            tunnel.transport.abort()
        raise


async def _dial(host: str, port: int, factory: Callable[[], asyncio.Protocol], addresses: Sequence[str] = ()) -> None:
    """Try `addresses`, or else those of `host`, in turn; only the last may take all the time that is left.

    No race between them (RFC 8305): on Python 3.11 `create_connection(happy_eyeballs_delay=…)` leaves the winner's
    socket open when it is cancelled at the wrong moment (our cancel churn showed it), and uvloop has no such option.
    """
    loop = asyncio.get_running_loop()
    if not addresses:
        addresses = [host] if _is_address(host) else await _resolve(host, port)
    for address in addresses[:-1]:
        try:
            async with asyncio.timeout(ATTEMPT_S):
                await loop.create_connection(factory, address, port)
        except OSError:
            continue
        return
    await loop.create_connection(factory, addresses[-1], port)


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _Tunnel(asyncio.Protocol):
    """What speaks on the bare connection before TLS: nothing, or CONNECT (RFC 9110 9.3.6)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.transport: asyncio.Transport | None = None
        self._loop = loop
        self._reader = ResponseReader(Caps())
        self._waiter: asyncio.Future[None] | None = None
        self._error: HttpError | None = None

    def open_transport(self) -> asyncio.Transport:
        """Return the transport. Raises `ConnectFailed` if the peer has closed it already."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectFailed("the peer closed the connection at once")
        return self.transport

    async def ask(self, origin: Origin, proxy: Proxy) -> None:
        """Have the proxy connect to `origin`. Raises `ConnectFailed` if it will not."""
        extra = (("proxy-authorization", proxy.authorization),) if proxy.authorization else ()
        head = encode_head("CONNECT", origin.authority, origin.authority, (), extra)
        self._reader.begin(head_only=True)
        self._waiter = self._loop.create_future()
        self.open_transport().write(head + b"\r\n")
        await self._waiter
        self._waiter = None
        if self._error is not None:
            raise ConnectFailed(f"the proxy broke off: {self._error}")
        if self._reader.status not in _TUNNEL_OK:
            raise ConnectFailed(f"the proxy refused the tunnel with status {self._reader.status}")
        if self._reader.surplus:
            # TLS begins with our words: bytes before them would be injected into the session.
            raise ConnectFailed("the proxy sent more than its answer")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by inheritance.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except ProtocolBroken as error:
            self._end(error)
        else:
            if self._reader.complete:
                self._end(None)

    def eof_received(self) -> None:
        self._end(ConnectFailed("it closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectFailed(str(exc or "it closed the connection")))
        self._reader.release()

    def _end(self, error: HttpError | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._error = error
            self._waiter.set_result(None)
