"""The Almanac's endpoints: registrations, states, protocols, and where an agent is (REG, RES)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.api.askers import read_body
from convene.api.query import Query
from convene.api.shapes_market import Brief, named_of, record_of, status_of_agent
from convene.errors import BadRequest, NotFound
from convene.registry.base_names import bare, kind_of, with_prefix

if TYPE_CHECKING:
    from convene.api.askers import Askers
    from convene.api.call import Call
    from convene.registry.base_desks import AlmanacDesk

REGISTRATION_BYTES_MAX: Final = 131_072
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
MANIFEST_BYTES_MAX: Final = 524_288
LIST_MAX: Final = 100
EMPTY: Final = b"{}"


class AlmanacPages:
    """The endpoints."""

    def __init__(self, desk: AlmanacDesk, askers: Askers) -> None:
        self._desk = desk
        self._askers = askers

    async def register(self, call: Call) -> None:
        """Take in one registration (REG-01)."""
        body = await read_body(call, REGISTRATION_BYTES_MAX)
        await self._desk.register([body], await self._askers.of(call))
        await call.reply(200, EMPTY)

    async def register_batch(self, call: Call) -> None:
        """Take in those of a Bureau (REG-05)."""
        found = (await read_body(call, BATCH_BYTES_MAX)).get("attestations")
        bodies = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else None
        if bodies is None or not isinstance(found, list) or len(bodies) != len(found):
            raise BadRequest("Invalid 'attestations': wanted a list of objects.", param="attestations")
        if bodies:
            await self._desk.register(bodies, await self._askers.of(call))
        await call.reply(200, EMPTY)

    async def set_status(self, call: Call) -> None:
        """Take in a state; 200 for an unknown agent too, else a Bureau waits in vain (REG-06)."""
        body = await read_body(call, REGISTRATION_BYTES_MAX)
        await self._desk.set_status(call.params["address"], body)
        await call.reply(200, EMPTY)

    async def resolve(self, call: Call) -> None:
        """Say where an agent is (RES-01, RES-06)."""
        row = await self._desk.resolve(call.params["name"])
        if row is None:
            raise NotFound("No agent of this name is registered here.", code="agent_not_found")
        await call.reply_json(record_of(row, kind_of(row), bare))

    async def domain(self, call: Call) -> None:
        """Say which agent has a name: names are handles here (RES-06)."""
        name = call.params["name"]
        row = await self._desk.resolve(name)
        if row is None or row.id == name:
            raise NotFound("No agent has this name.", code="agent_not_found")
        await call.reply_json(named_of(name, row))

    async def search(self, call: Call) -> None:
        """List agents that speak a protocol (RES-07)."""
        text = (await read_body(call, REGISTRATION_BYTES_MAX)).get("text")
        if not isinstance(text, str) or not text:
            raise BadRequest("Invalid 'text': wanted a protocol's digest.", param="text")
        rows = await self._desk.speakers(with_prefix(text), LIST_MAX)
        await call.reply_json([Brief(row.id, status_of_agent(row)) for row in rows])

    async def recent(self, call: Call) -> None:
        """List agents that have registered last (RES-08)."""
        limit = Query.of(call).number("limit", LIST_MAX, 1, LIST_MAX)
        rows = await self._desk.speakers("", limit)
        await call.reply_json([record_of(row, kind_of(row), bare) for row in rows])

    async def publish(self, call: Call) -> None:
        """Take in a protocol (REG-08)."""
        await self._desk.publish(await read_body(call, MANIFEST_BYTES_MAX))
        await call.reply(200, EMPTY)

    async def manifest(self, call: Call) -> None:
        """Show a protocol (RES-08)."""
        found = await self._desk.manifests([with_prefix(call.params["digest"])])
        if not found or not found[0].body:
            raise NotFound("Nobody has published a protocol of this digest here.", code="manifest_not_found")
        await call.reply(200, found[0].body)

    async def digests(self, call: Call) -> None:
        """List the protocols that are known by name (RES-08)."""
        known = await self._desk.manifests()
        await call.reply_json([{"digest": one.digest, "name": one.name, "version": one.version} for one in known])
