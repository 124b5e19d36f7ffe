"""Agentverse's endpoints: whose an agent is, its listing, what it reports; new and old paths (LIST)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.api.askers import read_body
from convene.api.query import Query
from convene.api.shapes_market import listed_of
from convene.errors import BadRequest, ConveneError, NotFound
from convene.moments import SECOND_US, iso

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convene.api.askers import Askers
    from convene.api.call import Call
    from convene.registry.base_desks import ListingDesk

PROOF_BYTES_MAX: Final = 16_384
LISTING_BYTES_MAX: Final = 524_288
"""A readme has up to 80,000 characters (LIST-11), of up to 4 bytes."""
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
BATCH_MAX: Final = 50
PAGE: Final = 30
PAGE_MAX: Final = 100
OFFSET_MAX: Final = 100_000
EVENTS_BYTES_MAX: Final = 1024 * 1024
DONE: Final = b'{"success":true}'
OLD_FIELDS: Final = {"short_description": "description"}
"""What old libraries call parts of a profile."""
PROFILE: Final = ("description", "readme", "avatar_url", "banner_url", "starter_prompts")


class AgentversePages:
    """The endpoints."""

    def __init__(self, desk: ListingDesk, askers: Askers, submit_url: Callable[[], str]) -> None:
        """`submit_url` is where envelopes for mailboxes of old libraries go: they do not say it themselves."""
        self._desk = desk
        self._askers = askers
        self._submit_url = submit_url

    async def challenge(self, call: Call) -> None:
        """Give a text to sign with the agent's key (LIST-04)."""
        asker = await self._askers.owner(call)
        await call.reply_json({"challenge": await self._desk.challenge(call.params["address"], asker.owner)})

    async def prove(self, call: Call) -> None:
        """Take the signature (LIST-05)."""
        asker = await self._askers.owner(call)
        address, challenge, response = _proof(await read_body(call, PROOF_BYTES_MAX))
        await self._desk.prove(address, asker.owner, challenge, response)
        await call.reply_json({"address": address})

    async def save(self, call: Call) -> None:
        """Merge a listing (LIST-07, LIST-08)."""
        asker = await self._askers.known(call)
        await self._desk.save(await read_body(call, LISTING_BYTES_MAX), asker)
        await call.reply(200, DONE)

    async def save_batch(self, call: Call) -> None:
        """Merge several (LIST-13); those before one that is refused are kept."""
        asker = await self._askers.known(call)
        found = (await read_body(call, BATCH_BYTES_MAX)).get("agents")
        if not isinstance(found, list) or len(found) > BATCH_MAX or not all(isinstance(one, dict) for one in found):
            raise BadRequest(f"Invalid 'agents': wanted a list of at most {BATCH_MAX} objects.", param="agents")
        for one in found:
            await self._desk.save(one, asker)
        await call.reply(200, DONE)

    async def put(self, call: Call) -> None:
        """Change a listing by its address (LIST-13); also as old libraries do, with a flat profile (LIST-17)."""
        asker = await self._askers.known(call)
        body = await read_body(call, LISTING_BYTES_MAX)
        await self._desk.save(_in_present_words(body) | {"address": call.params["address"]}, asker, old=True)
        await call.reply(200, DONE)

    async def show(self, call: Call) -> None:
        """Show an agent to its owner or to itself (LIST-06, LIST-09)."""
        row = await self._desk.show(call.params["address"], await self._askers.known(call))
        if row is None:
            raise NotFound("You have no agent of this address.", code="agent_not_found")
        await call.reply_json(listed_of(row))

    async def page(self, call: Call) -> None:
        """List one's own agents (LIST-13)."""
        asker = await self._askers.owner(call)
        query = Query.of(call)
        limit, offset = query.number("limit", PAGE, 1, PAGE_MAX), query.number("offset", 0, 0, OFFSET_MAX)
        rows = await self._desk.page(asker, limit, offset)
        await call.reply_json({"items": [listed_of(row) for row in rows], "limit": limit, "offset": offset})

    async def delete(self, call: Call) -> None:
        """Take a listing away (LIST-13)."""
        await self._desk.delete(call.params["address"], await self._askers.known(call))
        await call.reply(200, DONE)

    async def interaction(self, call: Call) -> None:
        """Hear that an agent has written to another. Nothing is counted by a stranger's word (PICK-08)."""
        await self._askers.known(call)
        await read_body(call, PROOF_BYTES_MAX)
        await call.reply(200, DONE)

    @staticmethod
    async def events(call: Call) -> None:
        """Take telemetry and keep nothing: it has host names and tracebacks in it, and is 2xx always (LIST-14, -15)."""
        call.body_bytes_max = EVENTS_BYTES_MAX
        try:
            await call.body()
        except ConveneError:
            await call.reply(202, b"{}")
        else:
            await call.reply(200, b"{}")

    async def old_challenge(self, call: Call) -> None:
        """Give a text to sign: to an owner, or to an agent that wants a token (LIST-17)."""
        asker = await self._askers.of(call)
        address = _text(await read_body(call, PROOF_BYTES_MAX), "address")
        await call.reply_json({"challenge": await self._desk.challenge(address, asker.owner)})

    async def old_prove(self, call: Call) -> None:
        """Give a token for the mailbox (LIST-17)."""
        address, challenge, response = _proof(await read_body(call, PROOF_BYTES_MAX))
        token, ends = await self._desk.login(address, challenge, response)
        await call.reply_json({"access_token": token, "expiry": iso(ends * SECOND_US)})

    async def old_register(self, call: Call) -> None:
        """Take the proof, the kind and the address of an agent at once (LIST-17)."""
        asker = await self._askers.owner(call)
        body = await read_body(call, LISTING_BYTES_MAX)
        address, challenge, response = _proof(body)
        await self._desk.prove(address, asker.owner, challenge, response)
        kind, endpoint = body.get("agent_type"), body.get("endpoint")
        change: dict[str, object] = {"address": address, "agent_type": kind, "prefix": body.get("prefix")}
        if kind == "mailbox":
            change["endpoints"] = [{"url": self._submit_url(), "weight": 1}]
        elif kind == "proxy":
            change |= {
                "endpoints": [{"url": self._submit_url().replace("/v1/", "/v1/proxy/"), "weight": 1}],
                "url": endpoint,
            }
        elif isinstance(endpoint, str) and endpoint:
            change["endpoints"] = [{"url": endpoint, "weight": 1}]
        await self._desk.save(change, asker, old=True)
        await call.reply(200, DONE)


def _proof(body: Mapping[str, object]) -> tuple[str, str, str]:
    return _text(body, "address"), _text(body, "challenge"), _text(body, "challenge_response")


def _text(body: Mapping[str, object], field: str) -> str:
    found = body.get(field)
    if not isinstance(found, str) or not found:
        raise BadRequest(f"Missing required field: '{field}'.", code="missing_required_parameter", param=field)
    return found


def _in_present_words(body: dict[str, object]) -> dict[str, object]:
    """Return a change with the parts of a flat profile put into one."""
    named = {OLD_FIELDS.get(name, name): value for name, value in body.items()}
    flat = {name: named.pop(name) for name in PROFILE if name in named}
    profile = named.get("profile")
    if flat:
        named["profile"] = flat | (profile if isinstance(profile, dict) else {})
    if "redirect_url" in named:
        named["url"] = named.pop("redirect_url")
    return named
