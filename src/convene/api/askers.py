"""Who asks on the marketplace's routes, and how they are told of errors there (decisions 11, 17; LIST-01 to 03).

Authorization: Bearer KEY    the owner of a key        Agent attr:...   the agent itself
               token T       an agent of an old library (LIST-17)       none   a stranger
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.api.json_body import read_object
from convene.api.origins import is_loopback_host
from convene.api.problems import detail_of, headers_of, status_of
from convene.errors import ConveneError, Forbidden, Unauthorized
from convene.registry.base_desks import NOBODY, Asker

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.api.call import Call
    from convene.api.routes import Endpoint
    from convene.serving.base import Gatekeeper

Access = Literal["open", "loopback", "keys"]
SCOPE: Final = "api"
FORWARDED: Final = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
"""Somebody stands between, so that a loopback address says nothing of who asks."""
_encode = msgspec.json.Encoder().encode


class Askers:
    """Finds out who asks."""

    def __init__(
        self,
        gatekeeper: Callable[[], Gatekeeper],
        access: Access,
        prove: Callable[[str], str],
        logged_in: Callable[[str], str],
    ) -> None:
        """Take what is needed.

        Args:
            gatekeeper: knows the keys.
            access: `loopback`: open to requests of this machine.
            prove: returns the address that an attestation header proves; raises `Unauthorized`.
            logged_in: the same of an old library's token.
        """
        self._gatekeeper = gatekeeper
        self._access = access
        self._prove = prove
        self._logged_in = logged_in

    async def of(self, call: Call) -> Asker:
        """Return who asks. Raises `Unauthorized` for credentials that do not hold, `Forbidden` for others' teams."""
        given = call.header(b"authorization")
        trusted = self._trusts(call)
        if given is None or not given.strip():
            return Asker(trusted=True) if trusted else NOBODY
        scheme, _, rest = given.strip().partition(" ")
        kind = scheme.lower()
        if kind == "agent":
            return Asker(agent=self._prove(f"Agent {rest.strip()}"), trusted=trusted)
        if kind == "token":
            return Asker(agent=self._logged_in(rest.strip()), trusted=trusted)
        gatekeeper = self._gatekeeper()
        principal = gatekeeper.admit(given) or await gatekeeper.look_up(given)
        if SCOPE not in principal.scopes:
            raise Forbidden(f"This key lacks the scope {SCOPE}.")
        team = call.header(b"x-team")
        if team and team != principal.team_id:
            raise Forbidden("This key belongs to no team of that id (x-team).")
        return Asker(owner=principal.owner, trusted=trusted)

    async def owner(self, call: Call) -> Asker:
        """Return the owner of a key. Raises `Unauthorized` for anybody else."""
        asker = await self.of(call)
        if not asker.owner:
            raise Unauthorized("Send a key as Authorization: Bearer KEY.")
        return asker

    async def known(self, call: Call) -> Asker:
        """Return an owner or an agent. Raises `Unauthorized` for a stranger."""
        asker = await self.of(call)
        if not (asker.owner or asker.agent):
            raise Unauthorized("Send a key as Authorization: Bearer KEY, or an agent's attestation as Agent attr:...")
        return asker

    async def searcher(self, call: Call) -> Asker:
        """Return who searches: anybody where the registry is open to the request (SEARCH-01), else whoever is known.

        Raises `Unauthorized` for a stranger elsewhere.
        """
        asker = await self.of(call)
        return asker if asker.trusted else await self.known(call)

    async def agent(self, call: Call, address: str) -> Asker:
        """Return the agent of this address. Raises `Unauthorized` and `Forbidden`."""
        asker = await self.known(call)
        if not asker.agent or asker.agent != address:
            raise Forbidden("Only the agent itself may do this; the attestation is of another address.")
        return asker

    def _trusts(self, call: Call) -> bool:
        """Whether the registry is open to this request. A page in a browser is never an agent."""
        if self._access == "keys" or b"origin" in call.headers or b"sec-fetch-site" in call.headers:
            return False
        if self._access == "open":
            return True
        local = is_loopback_host((call.header(b"host") or "").strip().lower())
        return local and not any(name in call.headers for name in FORWARDED)


def in_their_words(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint whose errors have `detail`, which agents' libraries show, beside the object of all errors."""

    async def answer(call: Call) -> None:
        try:
            await endpoint(call)
        except ConveneError as fault:
            if call.status:
                raise
            body = {"detail": fault.message, "error": detail_of(fault)}
            await call.reply(status_of(fault), _encode(body), headers=headers_of(fault))

    return answer


async def read_body(call: Call, bytes_max: int) -> dict[str, object]:
    """Return the JSON object that came. Raises `BadRequest` and `TooLarge`."""
    call.body_bytes_max = min(call.body_bytes_max, bytes_max)
    return read_object(await call.body())
