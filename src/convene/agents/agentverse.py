"""An Agentverse elsewhere as a directory: found, resolved and announced through its public API (HOSTED-01, -02).

    announce ──► POST /v1/almanac/agents      signed by ourselves, which is the whole proof; again before it expires
    search   ──► POST /v1/search/agents
    resolve  ──► GET  /v1/almanac/agents/{address}

Whatever it answers is a stranger's data: it is read by shape, and what has none is left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

import msgspec

from convene.agents.base import AgentCard
from convene.agents.chat_codec import CHAT_PROTOCOL
from convene.egress import EgressFailed, Request
from convene.errors import UpstreamFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.agents.courier import Sender, Signer
    from convene.clock import Clock

T = TypeVar("T")
log = logging.getLogger("convene.agents")

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
WAIT_S: Final = 10.0
PAUSES_S: Final = (0.1, 0.5)
"""Before each further try where the network fails."""
OK: Final = 200
ADDRESS: Final = "agent1q"
README_MAX: Final = 4_000


class _Endpoint(msgspec.Struct):
    url: str


class _Record(msgspec.Struct):
    endpoints: list[_Endpoint] = []


class _Hit(msgspec.Struct):
    address: str
    name: str = ""
    handle: str | None = None
    description: str | None = None
    readme: str | None = None
    status: str = "active"
    unresponsive: bool | None = None
    protocols: list[object] = []


class _Hits(msgspec.Struct):
    agents: list[_Hit] = []


class Listed(msgspec.Struct, frozen=True):
    """An agent of a search."""

    card: AgentCard
    reachable: bool


class Agentverse:
    """One Agentverse."""

    def __init__(self, base_url: str, egress: Sender, clock: Clock, key: str = "", source: str = "convene") -> None:
        """`key` goes with searches, if there is one; `source` is who asks."""
        self._base = base_url.rstrip("/")
        self._egress = egress
        self._clock = clock
        self._key = key
        self._source = source

    async def announce(self, me: Signer, inbox_url: str) -> None:
        """Make ourselves known, so that agents can answer (TRAP-03). Raises `UpstreamFault`."""
        said: dict[str, object] = {
            "agent_identifier": f"agent://{me.address}",
            "timestamp": int(self._clock.now()),
            "protocols": [CHAT_PROTOCOL],
            "endpoints": [{"url": inbox_url, "weight": 1}],
            "metadata": None,
        }
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
        signature = me.sign_digest(hashlib.sha256(canonical).digest())
        await self._ask("POST", "/v1/almanac/agents", said | {"signature": signature})

    async def resolve(self, address: str) -> Sequence[str]:
        """Return the endpoints of an address; none: it is not known. Raises `UpstreamFault`."""
        body = await self._ask("GET", f"/v1/almanac/agents/{quote(address, safe='')}", missing=True)
        record = _read(body, _Record) if body else None
        return [] if record is None else [endpoint.url for endpoint in record.endpoints]

    async def search(self, query: str, limit: int) -> list[Listed]:
        """Return the active agents that chat and fit best, best first (SEARCH-10). Raises `UpstreamFault`."""
        found = await self._ask("POST", "/v1/search/agents", self._wanted(query, limit))
        return _listed(found)

    async def find(self, name: str) -> AgentCard | None:
        """Return the agent of an address or a handle. Raises `UpstreamFault`."""
        name = name.removeprefix("@")
        is_address = name.startswith(ADDRESS)
        wanted = {"search_text": f"address:{name}" if is_address else name, "exact_match": is_address, "limit": 10}
        hits = _listed(await self._ask("POST", "/v1/search/agents", wanted | {"source": self._source}))
        for hit in hits:
            if name in {hit.card.address, hit.card.handle}:
                return hit.card
        if is_address and (endpoints := await self.resolve(name)):
            return AgentCard(protocol="acp", address=name, name=name, endpoints=tuple(endpoints), directory=self._base)
        return None

    def _wanted(self, query: str, limit: int) -> dict[str, object]:
        return {
            "search_text": query,
            "semantic_search": True,
            "filters": {"state": ["active"], "protocol_digest": [CHAT_PROTOCOL]},
            "cutoff": "balanced",
            "limit": limit,
            "source": self._source,
        }

    async def _ask(self, method: str, path: str, body: object = None, *, missing: bool = False) -> bytes:
        """Return what is answered; nothing, if it may be missing and is. Raises `UpstreamFault`."""
        headers = [("content-type", "application/json"), ("accept", "application/json")]
        if self._key:
            headers.append(("authorization", f"Bearer {self._key}"))
        request = Request(
            url=self._base + path,
            method=method,
            headers=tuple(headers),
            body=b"" if body is None else msgspec.json.encode(body),
            body_bytes_max=ANSWER_BYTES_MAX,
            total_s=WAIT_S,
        )
        status, found = await self._fetch(request)
        if missing and status == 404:  # noqa: PLR2004 -- the number everybody knows
            return b""
        if status != OK:
            detail = f"{method} {path}: {status} {found[:200]!r}"
            raise UpstreamFault("The directory of agents does not do what it should.", detail=detail)
        return found

    async def _fetch(self, request: Request) -> tuple[int, bytes]:
        """Return status and body; asked again if the network fails, for nothing that is asked here does harm twice."""
        for pause_s in (*PAUSES_S, None):
            try:
                async with await self._egress.fetch(request) as answer:
                    return answer.status, await answer.read()
            except EgressFailed as fault:
                if pause_s is None:
                    raise UpstreamFault("The directory of agents cannot be used now.", detail=fault.message) from fault
            await asyncio.sleep(pause_s)
        raise AssertionError("the last try returns or raises")


def _listed(body: bytes) -> list[Listed]:
    hits = _read(body, _Hits)
    return [] if hits is None else [_card(hit) for hit in hits.agents if hit.address.startswith(ADDRESS)]


def _card(hit: _Hit) -> Listed:
    card = AgentCard(
        protocol="acp",
        address=hit.address,
        name=hit.name or hit.address,
        handle=(hit.handle or "").removeprefix("@"),
        description=hit.description or "",
        readme=(hit.readme or "")[:README_MAX],
        protocols=tuple(str(one["digest"]) for one in hit.protocols if isinstance(one, dict) and one.get("digest")),
        directory="agentverse",
    )
    return Listed(card, reachable=hit.status == "active" and not hit.unresponsive)


def _read(body: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        log.warning("a directory of agents answered something else than agents: %s", fault)
        return None
