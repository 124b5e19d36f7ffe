"""The proxy: an agent registers this server as its endpoint, and gets its envelopes at an address of its own (PROXY).

    POST /v2/agents/proxy/submit ──► who is meant? ──► the url of its listing, by the guarded way out ──► the answer

The url is a stranger's, so the networks it may lead to are the operator's (`[egress]`, PROXY-02). Nothing of the
request goes along but its body and `x-uagents-connection`; nothing of the answer comes back but status, type and body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from convene.egress import EgressBusy, EgressFailed, EgressRefused, Request
from convene.errors import BadRequest, Busy, Malformed, NotFound, TimedOut, Unavailable
from convene.registry.base_desks import Forwarded
from convene.registry.base_names import MAILBOX, PROXY, kind_of
from convene.registry.posted import read_posted

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.egress import Fetched
    from convene.store.base_market import Market

FORWARD_S: Final = 35.0
"""A synchronous agent answers within 30 s, or says that it cannot (spec agents, section 9)."""
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
CONNECTIONS: Final = frozenset({"", "sync"})
PROXIED: Final = "x-convene-proxied"
JSON: Final = "application/json"
TYPES: Final = frozenset({JSON, "text/plain"})
"""What an answer may call itself; others are handed on as JSON, so that no browser shows a stranger's page as ours."""


class Sender(Protocol):
    """The guarded way out."""

    async def fetch(self, request: Request) -> Fetched:
        """See `egress.Egress.fetch`."""
        ...


class Proxy:
    """A `ProxyDesk`."""

    def __init__(self, market: Callable[[], Market], egress: Sender) -> None:
        self._market = market
        self._egress = egress

    async def submit(self, body: bytes, connection: str, *, proxied: bool) -> Forwarded:
        """Hand an envelope on (`base_desks.ProxyDesk`)."""
        if proxied:
            raise BadRequest("The envelope has come through a proxy already.", code="proxy_loop")
        if connection not in CONNECTIONS:
            raise BadRequest("Invalid x-uagents-connection: wanted 'sync', or none.", code="invalid_header")
        url = await self._url_of(read_posted(body).target)
        if not url:
            raise NotFound("No agent of this address is behind this proxy.", code="agent_not_found", param="target")
        headers = [("content-type", JSON), (PROXIED, "1")]
        if connection:
            headers.append(("x-uagents-connection", connection))
        request = Request(
            url=url,
            method="POST",
            headers=tuple(headers),
            body=body,
            redirects_max=0,
            body_bytes_max=ANSWER_BYTES_MAX,
            total_s=FORWARD_S,
        )
        try:
            async with await self._egress.fetch(request) as answer:
                kind = answer.headers.get("content-type", JSON).partition(";")[0].strip().lower()
                return Forwarded(answer.status, await answer.read(), kind if kind in TYPES else JSON)
        except EgressBusy as fault:
            raise Busy(fault.message, retry_after_s=1) from fault
        except EgressRefused as fault:
            raise Unavailable("The agent cannot be reached.", detail=fault.detail or fault.message) from fault
        except EgressFailed as fault:
            kind_of_fault = {"timeout": TimedOut, "too_large": Malformed}.get(fault.fault, Unavailable)
            raise kind_of_fault(f"The agent cannot be reached: {fault.message}", detail=fault.detail) from fault

    async def is_ready(self, address: str) -> bool:
        """Whether there is an address to hand on to (`base_desks.ProxyDesk`)."""
        return bool(await self._url_of(address))

    async def _url_of(self, address: str) -> str:
        row = await self._market().get(address)
        if row is None or not row.terms.enabled or kind_of(row) != "proxy":
            return ""
        url = row.listing.url
        return "" if url.endswith((*MAILBOX, *PROXY)) else url
