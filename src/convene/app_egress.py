"""The composition of the guarded way out: `egress.py` over our own HTTP client, for `app.py` and `app_tools.py`.

A part of the composition root. `HttpWire` is the one seam at which faults of HTTP become those of egress. Each hop has
a client of its own: no connection, cookie or remembered host outlives it.
"""

from __future__ import annotations

import functools
import ssl
from typing import TYPE_CHECKING, Final

from convene.egress import Egress, Rules, WireFault
from convene.egress_address import Judge, read_networks
from convene.egress_lookup import SystemLookup
from convene.http.base import ConnectFailed, HttpError, Oversized, PoolTimedOut, Request, TimedOut, Timeouts
from convene.http.client import ClientOptions, HttpClient
from convene.http.client_codec import Caps
from convene.http.connect import open_connection

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable

    from convene.config import EgressSettings
    from convene.egress import Hop, Reply
    from convene.egress_lookup import Lookup
    from convene.http.base import Response
    from convene.http.client_route import Origin
    from convene.http.connect import Open

HEAD_BYTES_MAX: Final = 32 * 1024
HEADERS_MAX: Final = 100


class HttpWire:
    """A `Wire` over `http/client.py`."""

    def __init__(self, *, proxy: str = "", ca_file: str = "") -> None:
        """`proxy` is the operator's, `ca_file` names authorities to trust beside the system's."""
        self._proxy = proxy or None
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None

    async def send(self, hop: Hop) -> Reply:
        """See `Wire`."""
        options = ClientOptions(
            connections_per_origin_max=1,
            http_proxy=self._proxy,
            https_proxy=self._proxy,
            caps=Caps(head_bytes_max=HEAD_BYTES_MAX, headers_max=HEADERS_MAX, decoded_bytes_max=hop.body_bytes_max),
        )
        # Without addresses the way leads to the proxy; the client knows no other.
        open_with: Open = functools.partial(_open_pinned, hop) if self._proxy is None else open_connection
        client = HttpClient(options, tls=self._secure() if hop.place.scheme == "https" else None, open_with=open_with)
        waits = Timeouts(
            connect_s=hop.connect_s,
            pool_s=hop.connect_s,
            first_byte_s=hop.first_byte_s,
            between_bytes_s=hop.first_byte_s,
            total_s=hop.total_s,
        )
        request = Request(hop.method, hop.place.url, hop.headers, hop.body, waits, fresh=True)
        try:
            return _HttpReply(await client.send(request))
        except (HttpError, ValueError) as error:
            raise _translate(error) from error

    def _secure(self) -> ssl.SSLContext:
        """Loading the authorities takes some ten milliseconds, so it is done once, and only for https."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if self._ca_file:
                self._tls.load_verify_locations(self._ca_file)
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


class _HttpReply:
    """A `Reply` over a `Response`."""

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response

    async def chunks(self) -> AsyncGenerator[bytes]:
        try:
            async for chunk in self._response.chunks():
                yield chunk
        except HttpError as error:
            raise _translate(error) from error

    def close(self) -> None:
        self._response.close()


def open_egress(settings: EgressSettings, lookup: Lookup | None = None) -> Egress:
    """Return the guarded way out that the settings describe; `lookup` takes the system's place."""
    rules = Rules(
        judge=Judge(allow=read_networks(settings.allow), deny=read_networks(settings.deny)),
        ports=frozenset((80, 443, *settings.ports)),
        is_proxied=bool(settings.proxy),
        redirects_max=settings.redirects_max,
        body_bytes_max=settings.body_bytes_max,
        connect_s=settings.connect_s,
        first_byte_s=settings.first_byte_s,
        total_s=settings.total_s,
        open_max=settings.open_max,
        open_per_host_max=settings.open_per_host_max,
        user_agent=settings.user_agent,
    )
    wire = HttpWire(proxy=settings.proxy.reveal(), ca_file=settings.ca_file)
    return Egress(rules, lookup or SystemLookup(), wire)


async def _open_pinned(
    hop: Hop, origin: Origin, tls: ssl.SSLContext | None, factory: Callable[[], asyncio.Protocol]
) -> None:
    """Connect to the addresses that were judged, never to what the client made of the URL."""
    if (origin.scheme, origin.host, origin.port) != hop.place.origin or not hop.addresses:
        raise ConnectFailed("the client read another host than was judged")
    await open_connection(origin, tls, factory, addresses=hop.addresses)


def _translate(error: HttpError | ValueError) -> WireFault:
    if isinstance(error, ConnectFailed | PoolTimedOut):
        return WireFault("connect", str(error))
    if isinstance(error, TimedOut):
        return WireFault("timeout", str(error))
    return WireFault("too_large" if isinstance(error, Oversized) else "broken", str(error))
