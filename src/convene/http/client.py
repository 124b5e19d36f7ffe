"""The HTTP/1.1 client for configured upstreams: `HttpClient`, the room's implementation of `base.Client`.

Here: options, the way from a request to a connection, the one retry, statistics. The parts, from pure to sockets:

    client_route   URL → origin, proxy          client_codec    bytes → response state     decode   gzip, deflate
    client_head    request → head bytes         client_response buffer between push and pull
    client_connection  one exchange at a time   client_pool     slots, waiters, deadlines  connect  TCP, CONNECT, TLS

Deliberately not here: redirects, cookies, retries by status, HTTP/2, the environment's proxy variables, and any
protection against addresses that strangers name (`egress` is for those). Made by `app`, handed to providers. The
decision for an own client and its figures: docs/decisions/0002-upstream-client.md.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

import msgspec

from convene.http.base import ConnectFailed, Disconnected
from convene.http.client_codec import Caps
from convene.http.client_head import encode_head
from convene.http.client_pool import Pool, PoolStats
from convene.http.client_route import Origin, choose_proxy, parse_proxy, parse_url
from convene.http.connect import open_connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.http.base import Request
    from convene.http.client_connection import Connection
    from convene.http.client_response import BodyResponse
    from convene.http.connect import Open

_ROUTES_MAX: Final = 512
"""Distinct URLs remembered; a configured server has a few dozen."""
_HEADS_MAX: Final = 64
"""Encoded heads remembered for each URL."""
_HEAD_KEPT_BYTES_MAX: Final = 4096
_JOINED_BODY_BYTES_MAX: Final = 64 * 1024
"""Up to here head and body leave in one write; above, the copy would cost more than a second write."""
_BODY_OPTIONAL: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set. Proxy URLs are `http://[user:password@]host[:port]`."""

    connections_per_origin_max: int = 1024
    idle_s: float = 30.0
    http_proxy: str | None = None
    https_proxy: str | None = None
    no_proxy: tuple[str, ...] = ()
    ca_file: str | None = None
    """PEM file of the authorities to trust instead of the system's."""
    caps: Caps = Caps()


class _Route:
    """Where one URL leads, and the heads already encoded for it.

    `post` is the head of the last kept POST and `headers` the tuple that it was made of: a provider sends the very same
    one each time, and to see that costs less than to hash it.
    """

    __slots__ = ("extra", "headers", "heads", "host", "pool", "post", "target")

    def __init__(self, pool: Pool, target: str, host: str, extra: tuple[tuple[str, str], ...]) -> None:
        self.pool = pool
        self.target = target
        self.host = host
        self.extra = extra
        self.heads: dict[tuple[str, tuple[tuple[str, str], ...], bool], bytes] = {}
        self.headers: tuple[tuple[str, str], ...] | None = None
        self.post = b""


class HttpClient:
    """Implements `base.Client` for one event loop, that of the first `send`.

    `tls` replaces the verifying default context; `open_with` replaces the sockets. Raises `ValueError` for a malformed
    proxy URL.
    """

    def __init__(
        self,
        options: ClientOptions | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        open_with: Open = open_connection,
    ) -> None:
        self._options = options or ClientOptions()
        for url in (self._options.http_proxy, self._options.https_proxy):
            if url:
                parse_proxy(url)
        self._tls = tls
        self._open_with = open_with
        self._pools: dict[Origin, Pool] = {}
        self._routes: dict[str, _Route] = {}
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, request: Request) -> BodyResponse:
        """Send and return once the response head is there. Raises `HttpError`; `ValueError` for an unsendable request.

        Sent a second time only if a reused connection closed without a byte of answer: the peer's idle close crossed
        our request (RFC 9112 9.3.1). The second try is on a new connection, so it cannot meet the same fate.
        """
        # asking for the running loop is a system call each time (the check for a fork), so it is asked once
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        route = self._routes.get(request.url) or self._learn(request.url, loop)
        wire, body = _wire(route, request)
        fresh, head_only = request.fresh, request.method == "HEAD"
        timeouts, pool, now = request.timeouts, route.pool, loop.time()
        total_at = now + timeouts.total_s
        connection: Connection | None = None
        if not fresh:
            connection = pool.take(now)
        if connection is None:
            connection = await pool.acquire(timeouts, total_at, fresh=fresh)
            now = loop.time()
        reused = connection.served > 0
        try:
            response = connection.begin(wire, body, timeouts, now, total_at, head_only=head_only, fresh=fresh)
            while not response.status:
                try:
                    await response.change()
                except BaseException:  # broad and re-raised: what `wait` does, without its coroutine
                    response.close()
                    raise
        except Disconnected as error:
            if error.received or not reused:
                raise
        else:
            return response
        connection = await pool.acquire(timeouts, total_at, fresh=True)
        now = loop.time()
        response = connection.begin(wire, body, timeouts, now, total_at, head_only=head_only, fresh=fresh)
        while not response.status:
            await response.wait()
        return response

    async def aclose(self) -> None:
        """Drop every connection; later sends raise `ConnectFailed`."""
        self._closed = True
        for pool in self._pools.values():
            pool.close()
        # Aborted transports finish on the loop's next turns.
        for _ in range(3):
            await asyncio.sleep(0)

    def stats(self) -> list[PoolStats]:
        """Return the connection counts of every origin used so far."""
        return [pool.stats() for pool in self._pools.values()]

    def _learn(self, url: str, loop: asyncio.AbstractEventLoop) -> _Route:
        if self._closed:
            raise ConnectFailed("the client is closed")
        options = self._options
        origin, target = parse_url(url)
        host = origin.host_field
        extra: tuple[tuple[str, str], ...] = ()
        proxy_url = choose_proxy(url, options.http_proxy, options.https_proxy, options.no_proxy)
        if proxy_url is not None:
            origin = msgspec.structs.replace(origin, proxy=parse_proxy(proxy_url))
            if origin.scheme == "http" and origin.proxy is not None:
                # RFC 9112 3.2.2: a proxy is asked in absolute form.
                target = f"http://{host}{target}"
                if origin.proxy.authorization:
                    extra = (("proxy-authorization", origin.proxy.authorization),)
        route = _Route(self._pool(origin, loop), target, host, extra)
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        self._routes[url] = route
        return route

    def _pool(self, origin: Origin, loop: asyncio.AbstractEventLoop) -> Pool:
        if (pool := self._pools.get(origin)) is not None:
            return pool
        tls = self._secure() if origin.scheme == "https" else None

        async def dial(factory: Callable[[], Connection]) -> None:
            await self._open_with(origin, tls, factory)

        options = self._options
        pool = self._pools[origin] = Pool(
            name=f"{origin.scheme}://{origin.authority}",
            dial=dial,
            slots=options.connections_per_origin_max,
            idle_s=options.idle_s,
            caps=options.caps,
            loop=loop,
        )
        return pool

    def _secure(self) -> ssl.SSLContext:
        """Loading the authorities takes some ten milliseconds, so it waits until an https origin needs them."""
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self._options.ca_file)
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


def _wire(route: _Route, request: Request) -> tuple[bytes, bytes]:
    """Return what is written at once, and the rest of the body where it is large."""
    body, method = request.body, request.method
    if request.headers is route.headers and method == "POST" and not request.fresh:
        head = route.post
    else:
        key = (method, request.headers, request.fresh)
        head = route.heads.get(key) or _encode(route, key)
        if method == "POST" and not request.fresh:
            route.headers, route.post = request.headers, head
    if not body and method in _BODY_OPTIONAL:
        return head + b"\r\n", body
    if len(body) <= _JOINED_BODY_BYTES_MAX:
        return b"".join((head, b"content-length: %d\r\n\r\n" % len(body), body)), b""
    return b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body


def _encode(route: _Route, key: tuple[str, tuple[tuple[str, str], ...], bool]) -> bytes:
    method, headers, fresh = key
    extra = (*route.extra, ("connection", "close")) if fresh else route.extra
    head = encode_head(method, route.target, route.host, headers, extra)
    if len(head) <= _HEAD_KEPT_BYTES_MAX:
        if len(route.heads) >= _HEADS_MAX:
            route.heads.clear()
        route.heads[key] = head
    return head
