"""The desks of a marketplace over a store in memory, for tests of them: a clock that stands still, a counted egress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from convene.agent_identity import Identity
from convene.egress import EgressFailed, EgressRefused
from convene.registry.almanac import Almanac, Rules
from convene.registry.assets import Assets
from convene.registry.base_desks import Asker
from convene.registry.listings import Listings
from convene.registry.mailbox import Mailboxes
from convene.registry.proxy import Proxy
from convene.store.base_market import AgentRow, Endpoint
from convene.store.memory_market import MemoryMarket
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.egress import Request

OPEN = Asker(trusted=True)
ANNS, BOBS = Asker(owner="user-ann"), Asker(owner="user-bob")
KEEP_US = 48 * 3_600_000_000
MAILBOX = "http://127.0.0.1:8000/v2/agents/mailbox/submit"
PROXY = "http://127.0.0.1:8000/v2/agents/proxy/submit"


class Answer:
    """What an `Egress` gives back."""

    def __init__(self, status: int, body: bytes, media_type: str) -> None:
        self.status = status
        self.headers = {"content-type": media_type} if media_type else {}
        self._body = body
        self.closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def read(self) -> bytes:
        return self._body

    async def chunks(self) -> AsyncGenerator[bytes]:
        yield self._body


class FakeEgress:
    """Answers as it is told and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.answer = Answer(200, b"{}", "application/json")
        self.fault: Exception | None = None

    async def fetch(self, request: Request) -> Answer:
        self.asked.append(request)
        if self.fault is not None:
            raise self.fault
        return self.answer


def unreachable(fault: str = "connect") -> EgressFailed:
    return EgressFailed("It did not work.", fault, detail="10.0.0.9 said no")  # type: ignore[arg-type]  # one of the words


def refused() -> EgressRefused:
    return EgressRefused("It is closed.", detail="10.0.0.9 is private")


class Desks:
    """All of them."""

    def __init__(self, **rules: object) -> None:
        self.clock = FakeClock()
        self.market = MemoryMarket()
        self.me = Identity.from_seed("the server")
        self.known = True
        self.egress = FakeEgress()
        market = lambda: self.market  # noqa: E731 -- asked each time, as the desks do
        self.almanac = Almanac(market, self.clock, Rules(**rules), self.own)  # type: ignore[arg-type]  # tests name real fields
        self.listings = Listings(
            market, self.clock, KEEP_US, self.almanac.admit, lambda: self.me if self.known else None
        )
        self.mailboxes = Mailboxes(market, self.clock, 3, 3_600_000_000)
        self.proxy = Proxy(market, self.egress)  # type: ignore[arg-type]  # as much of an answer as is read
        self.assets = Assets(market, self.clock)

    @property
    def now(self) -> float:
        return self.clock.now()

    @property
    def now_us(self) -> int:
        return int(self.clock.now() * 1_000_000)

    def own(self) -> AgentRow | None:
        if not self.known:
            return None
        return AgentRow(id=self.me.address, endpoints=(Endpoint("http://here/agents/inbox"),), expires_us=2**62)

    async def row(self, address: str) -> AgentRow:
        row = await self.market.get(address)
        assert row is not None
        return row
