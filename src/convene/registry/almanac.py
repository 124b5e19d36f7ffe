"""The Almanac: where agents are, by what they have signed (REG, RES). Called by `api/almanac.py`.

register ─► signature (attestation.py) ─► may it? ─► Gatherer ─► store: newer than what stands, or that very one
resolve  ─► ourselves, or one read of the store, so that what another process has written counts at once (RES-04)
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import BadRequest, Busy, Conflict, Forbidden
from convene.moments import SECOND_US
from convene.registry.attestation import read_registration, read_status
from convene.registry.base_names import HANDLE, read_identifier
from convene.registry.documents import CHAT_PROTOCOL
from convene.registry.gather import Gatherer
from convene.store.base_market import Manifest, Registration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from convene.clock import Clock
    from convene.registry.attestation import Signed
    from convene.registry.base_desks import Asker
    from convene.store.base_market import AgentRow, Market

log = logging.getLogger("convene.registry")

BATCH_MAX: Final = 500
"""Agents of one Bureau."""
COUNT_S: Final = 10.0
"""How long a count of all agents is believed; what registers meanwhile is added to it."""
MANIFESTS_MAX: Final = 10_000
MANIFEST_BYTES_MAX: Final = 262_144
NAME_MAX: Final = 200
KNOWN: Final = (
    (CHAT_PROTOCOL, "AgentChatProtocol", "0.3.0"),
    ("proto:8366fb54e20694cf49bae915893510a01782fc995b5d2bf7d7a5acfbc76dcb81", "AgentPaymentProtocol", "0.1.0"),
    ("proto:74bbe17d083d81bf3afb28af299aa285d3bf800ac264775923cdd3cb7b47d069", "AgentPaymentProtocol", "0.1.0"),
    ("proto:0a80568ab5e6efbe55d6e5cf44ce879c061830f58c446772487cf91620b67c02", "AgentPaymentProtocol", "0.1.0"),
    ("proto:50b0a34e43c97222dd02376d8daebdb8f51954492330d722dbe5227f85a610f2", "AgentSubscriptionProtocol", "0.2.0"),
    ("proto:bc7aed33dbd44a2a415c513666b6f2504ba7ab63ba326dbe63efd86921c629dc", "MCPProtocol", "0.1.0"),
)
"""Protocols of the libraries, named from the start (REG-09) and by nobody else; bodies come when they are published."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Who may register, how many, for how long; see `[registry]` in the settings."""

    allow: frozenset[str] = frozenset()
    agents_max: int = 100_000
    keep_us: int = 48 * 3_600 * SECOND_US


class Almanac:
    """An `AlmanacDesk`."""

    def __init__(
        self, market: Callable[[], Market], clock: Clock, rules: Rules, own: Callable[[], AgentRow | None]
    ) -> None:
        """`own` is this server's row once it has one: it resolves like any and never expires (RES-05)."""
        self._market = market
        self._clock = clock
        self._rules = rules
        self._own = own
        self.gatherer = Gatherer(market, self._now_us)
        self._counted = 0
        self._counted_at: float | None = None

    async def prepare(self) -> None:
        """Name the protocols that everybody knows. Raises `StoreFault`."""
        for digest, name, version in KNOWN:
            await self._market().publish(Manifest(digest=digest, name=name, version=version), MANIFESTS_MAX)

    async def register(self, bodies: Sequence[Mapping[str, object]], asker: Asker) -> None:
        """Take in what agents have signed (`base_desks.AlmanacDesk`)."""
        if len(bodies) > BATCH_MAX:
            raise BadRequest(f"At most {BATCH_MAX} agents register at once.", param="attestations")
        now_s = self._clock.now()
        signed = [read_registration(body, now_s) for body in bodies]
        await self.admit([one.agent.address for one in signed], asker)
        expires_us = self._now_us() + self._rules.keep_us
        stand = await self.gatherer.register([_registration(one, expires_us) for one in signed])
        if len(signed) == 1 and stand == [False]:
            raise Conflict(
                "A newer registration of this agent is known; sign a new one with the present time.",
                code="stale_registration",
                param="timestamp",
            )

    async def admit(self, addresses: Sequence[str], asker: Asker) -> None:
        """Refuse agents that may not come in. Raises `Forbidden` and `Busy`."""
        if not (asker.trusted or asker.owner):
            for address in addresses:
                if address not in self._rules.allow and await self._market().get(address) is None:
                    raise Forbidden(
                        "This registry is not open: list the agent with a key first (POST /v2/agents), or have the "
                        "operator add its address to registry.allow.",
                        code="registration_closed",
                    )
        if await self._is_full(len(addresses)):
            for address in addresses:
                if await self._market().get(address) is None:
                    raise Busy("This registry is full; its operator may raise registry.agents_max.")

    async def set_status(self, address: str, body: Mapping[str, object]) -> None:
        """Take in what an agent has signed of its state (`base_desks.AlmanacDesk`)."""
        said = read_status(body, self._clock.now())
        if said.agent.address != address:
            raise BadRequest("The path names another agent than the body.", param="agent_identifier")
        await self._market().set_status(address, said.timestamp, self._now_us(), active=said.is_active)

    async def resolve(self, name: str) -> AgentRow | None:
        """Return a registered agent (`base_desks.AlmanacDesk`)."""
        try:
            agent = read_identifier(name)
        except ValueError as fault:
            raise BadRequest(f"Not the name of an agent: {fault}.", code="invalid_identifier") from None
        own = self._own()
        if own is not None and agent.address == own.id:
            return own
        if agent.address:
            row = await self._market().get(agent.address)
        else:
            handle = agent.name.removeprefix("@").lower()
            if not HANDLE.fullmatch(handle):
                raise BadRequest("Neither the address nor the handle of an agent.", code="invalid_identifier")
            row = await self._market().by_handle(handle)
        return row if row is not None and row.terms.enabled and row.expires_us > self._now_us() else None

    async def speakers(self, digest: str, limit: int) -> Sequence[AgentRow]:
        """Return agents that speak a protocol (`base_desks.AlmanacDesk`)."""
        rows = await self._market().speakers(digest, self._now_us(), limit)
        return [row for row in rows if row.terms.enabled]

    async def publish(self, body: Mapping[str, object]) -> None:
        """Keep a protocol (`base_desks.AlmanacDesk`)."""
        encoded = msgspec.json.encode(body)
        if len(encoded) > MANIFEST_BYTES_MAX:
            raise BadRequest(f"A manifest has at most {MANIFEST_BYTES_MAX} bytes.", code="invalid_manifest")
        try:
            metadata = msgspec.convert(body.get("metadata"), _Metadata)
            digest = manifest_digest(body)
        except (msgspec.ValidationError, KeyError, TypeError, ValueError, RecursionError):
            raise BadRequest("Not a protocol's manifest.", code="invalid_manifest") from None
        if metadata.digest and metadata.digest != digest:
            raise BadRequest("The digest is not that of the manifest.", code="invalid_digest", param="metadata.digest")
        manifest = Manifest(
            digest=digest, name=metadata.name[:NAME_MAX], version=metadata.version[:NAME_MAX], body=encoded
        )
        if not await self._market().publish(manifest, MANIFESTS_MAX):
            raise Busy("This registry keeps no more protocols.")

    async def manifests(self, digests: Sequence[str] | None = None) -> Sequence[Manifest]:
        """Return protocols (`base_desks.AlmanacDesk`)."""
        return await self._market().manifests(digests)

    async def _is_full(self, coming: int) -> bool:
        now = self._clock.monotonic()
        if self._counted_at is None or now - self._counted_at > COUNT_S:
            self._counted, self._counted_at = await self._market().count(), now
        self._counted += coming
        return self._counted > self._rules.agents_max

    def _now_us(self) -> int:
        return int(self._clock.now() * SECOND_US)


class _Metadata(msgspec.Struct):
    name: str = ""
    version: str = ""
    digest: str = ""


def manifest_digest(manifest: Mapping[str, object]) -> str:
    """Return the digest of a manifest as the library computes it: over all but its metadata.

    Raises KeyError, TypeError and ValueError for what is none.
    """
    models, interactions = manifest["models"], manifest["interactions"]
    if not (isinstance(models, list) and isinstance(interactions, list)):
        raise TypeError("models and interactions are lists")
    plain = {
        "version": manifest["version"],
        "metadata": {},
        "models": sorted(models, key=lambda one: str(one["digest"])),
        "interactions": sorted(interactions, key=lambda one: str(one["request"])),
    }
    return f"proto:{hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}"


def _registration(signed: Signed, expires_us: int) -> Registration:
    return Registration(
        id=signed.agent.address,
        prefix=signed.agent.prefix,
        endpoints=signed.endpoints,
        protocols=signed.protocols,
        metadata=signed.metadata,
        stamp=signed.timestamp,
        expires_us=expires_us,
    )
