"""Requests to A2A agents through the guarded way out, and their answers, whole or as a stream of events.

    A2aWire.card    GET of a card: redirects are followed, each judged anew
            ask     one request, one result
            stream  one request, its events as they come; None first, once the agent has taken it

No redirect of a message is followed. Every size and every wait has a limit. What goes wrong is a `TalkFault`, or
`RefusedError` where the agent says so by the protocol. Credentials are those that the operator set for the agent, and
leave for the origin that he named only (`credentials.py`).
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import msgspec

from convene.agents.a2a_codec import EVENTS, NotA2aError, Outgoing, open_body
from convene.agents.faults import TalkFault
from convene.egress import EgressBusy, EgressFailed, EgressRefused, Request
from convene.event_stream import EventStream, EventTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.agents.courier import Sender
    from convene.agents.credentials import Credentials
    from convene.egress import Fetched

log = logging.getLogger("convene.agents")

CARD_BYTES_MAX: Final = 512 * 1024
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of one exchange, keep-alives included."""
EVENT_BYTES_MAX: Final = 4 * 1024 * 1024
CARD_S: Final = 10.0
REDIRECTS_MAX: Final = 3
OK: Final = 200
KEYS: Final = frozenset({401, 403})
MOVED: Final = range(300, 400)

UNREADABLE: Final = "The agent does not answer as its protocol demands: {why}."
CLOSED: Final = "The agent wants credentials, or others than it was shown ({status}); the operator can set them."
ELSEWHERE: Final = "The agent answers that it has moved ({status}); a message is not sent on to another address."
TOO_LARGE: Final = "The agent's answer is larger than {limit} bytes; it was cut off."


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one agent's is read."""

    answer_bytes_max: int = ANSWER_BYTES_MAX
    event_bytes_max: int = EVENT_BYTES_MAX


class A2aWire:
    """The way to all A2A agents."""

    def __init__(self, egress: Sender, credentials: Credentials, limits: Limits = Limits()) -> None:  # noqa: B008 -- frozen
        """`egress` is the guarded way out."""
        self._egress = egress
        self._credentials = credentials
        self._limits = limits

    async def card(self, agent: str, url: str) -> tuple[int, bytes]:
        """Return status and body of a card of `agent`'s. Raises `TalkFault`."""
        request = Request(
            url=url,
            headers=(("accept", "application/json"), *self._credentials.of(agent, url)),
            redirects_max=REDIRECTS_MAX,
            body_bytes_max=CARD_BYTES_MAX,
            total_s=CARD_S,
        )
        try:
            async with await self._egress.fetch(request) as answer:
                return answer.status, await answer.read()
        except (EgressRefused, EgressBusy, EgressFailed) as fault:
            raise _fault(fault, CARD_BYTES_MAX) from fault

    async def ask(self, agent: str, outgoing: Outgoing, wait_s: float) -> dict[str, Any]:
        """Return the result of one request. Raises `TalkFault` and `RefusedError`."""
        try:
            async with await self._egress.fetch(self._request(agent, outgoing, wait_s, wait_s)) as answer:
                return self._open(outgoing, answer.status, await answer.read())
        except (EgressRefused, EgressBusy, EgressFailed) as fault:
            raise _fault(fault, self._limits.answer_bytes_max) from fault

    async def stream(
        self, agent: str, outgoing: Outgoing, wait_s: float, silence_s: float
    ) -> AsyncGenerator[dict[str, Any] | None]:
        """Yield None once the agent has taken the request, then the events. Raises `TalkFault` and `RefusedError`."""
        try:
            async with await self._egress.fetch(self._request(agent, outgoing, wait_s, silence_s)) as answer:
                if answer.status != OK or not _streams(answer):
                    yield self._open(outgoing, answer.status, await answer.read())
                    return
                yield None
                stream = EventStream(self._limits.event_bytes_max)
                async with aclosing(answer.chunks()) as chunks:
                    async for chunk in chunks:
                        for data in stream.feed(chunk):
                            yield self._open(outgoing, OK, data)
        except EventTooLarge as fault:
            raise TalkFault(TOO_LARGE.format(limit=self._limits.event_bytes_max), "unreadable") from fault
        except (EgressRefused, EgressBusy, EgressFailed) as fault:
            raise _fault(fault, self._limits.answer_bytes_max) from fault

    def _request(self, agent: str, outgoing: Outgoing, wait_s: float, silence_s: float) -> Request:
        return Request(
            url=outgoing.url,
            method=outgoing.method,
            headers=(*outgoing.headers, *self._credentials.of(agent, outgoing.url)),
            body=outgoing.body,
            redirects_max=0,
            body_bytes_max=self._limits.answer_bytes_max,
            total_s=max(0.001, wait_s),
            silence_s=max(0.001, min(wait_s, silence_s)),
        )

    @staticmethod
    def _open(outgoing: Outgoing, status: int, body: bytes) -> dict[str, Any]:
        if status in KEYS:
            raise TalkFault(CLOSED.format(status=status), "refused")
        if status in MOVED:
            raise TalkFault(ELSEWHERE.format(status=status), "refused")
        try:
            return open_body(outgoing, status, body)
        except NotA2aError as fault:
            log.info("an A2A agent at %s answered %d and not by the protocol: %s", outgoing.url, status, fault)
            raise TalkFault(UNREADABLE.format(why=fault), "unreadable") from fault


def _streams(answer: Fetched) -> bool:
    return EVENTS in answer.headers.get("content-type", "").lower()


def _fault(fault: EgressRefused | EgressBusy | EgressFailed, limit: int) -> TalkFault:
    if not isinstance(fault, EgressFailed):
        return TalkFault(fault.message, "busy" if isinstance(fault, EgressBusy) else "unreachable", sent=False)
    match fault.fault:
        case "connect":
            return TalkFault("The agent cannot be reached: no connection could be made.", "unreachable", sent=False)
        case "timeout":
            return TalkFault("The agent did not answer in time.", "timed_out")
        case "too_large":
            return TalkFault(TOO_LARGE.format(limit=limit), "unreadable")
        case "broken":
            return TalkFault("The agent's answer broke off.", "unreachable")
