"""The way to an agent: one envelope, posted once to one of its endpoints, through the guarded way out.

    refused connections  ──► nothing was sent: the next endpoint may be tried
    anything else broken ──► nobody knows: it is not sent again, for agents act twice on what they get twice (CALL-06)
    400 with `error`     ──► the agent refuses, and says why (CALL-05)

Never by `x-uagents-connection: sync`, which returns an agent's first message alone, and to one caller only (SYNC-01).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

import msgspec

from convene.agents.envelope import seal
from convene.egress import EgressBusy, EgressFailed, EgressRefused, Request
from convene.errors import ConveneError, StoreFault, TimedOut, UpstreamFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from convene.agents.envelope import Draft
    from convene.egress import Fetched

log = logging.getLogger("convene.agents")

POST_S: Final = 15.0
"""An agent takes a message in milliseconds; a mailbox or a proxy needs longer."""
ANSWER_BYTES_MAX: Final = 65_536
ENDPOINTS_MAX: Final = 4
JSON: Final = (("content-type", "application/json"),)
OK: Final = 200
REFUSED: Final = frozenset({400, 401, 403, 404, 413, 415, 422})
WORDS_MAX: Final = 200

Outcome = Literal["delivered", "unreachable", "refused", "unknown"]


class Signer(Protocol):
    """Our identity."""

    @property
    def address(self) -> str:
        """`agent1q...`."""
        ...

    def sign_digest(self, digest: bytes) -> str:
        """Return the signature of a digest."""
        ...


class Sender(Protocol):
    """The guarded way out."""

    async def fetch(self, request: Request) -> Fetched:
        """See `egress.Egress.fetch`."""
        ...


class Delivery(msgspec.Struct, frozen=True):
    """What has become of an envelope; `words` are fit for users."""

    outcome: Outcome
    words: str = ""


class _Refusal(msgspec.Struct):
    error: str = ""
    detail: str = ""


class Away(NamedTuple):
    """A directory elsewhere, whose agents know us by an identity of its own (HOSTED-04)."""

    me: Signer
    resolve: Callable[[str], Awaitable[Sequence[str]]]
    """Gives the endpoints of an address that is registered there, best first."""


class Courier:
    """Signs with the identity that the receiver can look up, and posts."""

    def __init__(
        self,
        me: Signer,
        egress: Sender,
        resolve: Callable[[str], Awaitable[Sequence[str]]],
        near: Callable[[str, bytes], Awaitable[bool | None]] | None = None,
        away: Away | None = None,
    ) -> None:
        """Take what is needed.

        Args:
            me: our identity.
            egress: the guarded way out.
            resolve: gives the endpoints of an address that is registered here, best first.
            near: takes an envelope for an endpoint of this very server's (a mailbox, its proxy), which the guarded way
                out may not lead to; None: the endpoint is not ours; False: it was refused.
            away: where addresses are looked for that are not registered here.
        """
        self.me = me
        self._egress = egress
        self._resolve = resolve
        self._near = near
        self._away = away

    def is_us(self, address: str) -> bool:
        """Whether an address is one of ours."""
        return address == self.me.address or (self._away is not None and address == self._away.me.address)

    async def send(
        self, draft: Draft, target: str, session: str, endpoints: Sequence[str] = (), *, sender: str = ""
    ) -> Delivery:
        """Post a message; `endpoints` are taken where the agent's registry names none.

        `sender` says which of our addresses it comes from; without it the one that the registry of the agent knows.
        """
        me, found = await self._look_up(target)
        found = found or list(endpoints)
        if not found:
            return Delivery("unreachable", "No endpoint is known at which the agent could be reached.")
        if sender and self._away is not None:
            me = self._away.me if sender == self._away.me.address else self.me
        body = seal(draft, me.address, target, session, me.sign_digest)
        delivery = Delivery("unreachable")
        for endpoint in found[:ENDPOINTS_MAX]:
            delivery = await self._hand_over(endpoint, body) or await self._post(endpoint, body)
            if delivery.outcome != "unreachable":
                break
        return delivery

    async def _look_up(self, target: str) -> tuple[Signer, list[str]]:
        """Return who we are for an agent, and its endpoints; none if they are not known."""
        me = self.me
        try:
            found = list(await self._resolve(target))
            if not found and self._away is not None:
                me = self._away.me
                found = list(await self._away.resolve(target))
        except ConveneError as fault:
            log.warning("%s cannot be resolved: %s %s", target, fault.message, fault.detail)
            found = []
        return me, found

    async def _hand_over(self, endpoint: str, body: bytes) -> Delivery | None:
        """Leave an envelope at an endpoint of our own; None: it is not ours."""
        try:
            taken = None if self._near is None else await self._near(endpoint, body)
        except TimedOut as fault:
            return Delivery("unknown", f"The message may have arrived or not. {fault.message}")
        except (UpstreamFault, StoreFault) as fault:
            return Delivery("unreachable", fault.message)
        except ConveneError as fault:
            return Delivery("refused", f"The agent refused the message. {fault.message}")
        if taken is None:
            return None
        return Delivery("delivered") if taken else Delivery("refused", "The agent refused the message.")

    async def _post(self, endpoint: str, body: bytes) -> Delivery:
        request = Request(
            url=endpoint,
            method="POST",
            headers=JSON,
            body=body,
            redirects_max=0,
            body_bytes_max=ANSWER_BYTES_MAX,
            total_s=POST_S,
        )
        try:
            async with await self._egress.fetch(request) as answer:
                if answer.status == OK:
                    return Delivery("delivered")
                words = _reason(await answer.read())
                log.info("an agent answered a message with %d: %s", answer.status, words)
                outcome: Outcome = "refused" if answer.status in REFUSED else "unknown"
                return Delivery(outcome, f"The agent refused the message ({answer.status}). {words}".strip())
        except (EgressRefused, EgressBusy) as fault:
            return Delivery("unreachable", fault.message)
        except EgressFailed as fault:
            if fault.fault == "connect":
                return Delivery("unreachable", "The agent cannot be reached: no connection could be made.")
            log.info("a message to an agent may have arrived or not: %s %s", fault.message, fault.detail)
            return Delivery("unknown", f"The message may have arrived or not. {fault.message}")


def _reason(body: bytes) -> str:
    try:
        found = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return (found.error or found.detail)[:WORDS_MAX]
