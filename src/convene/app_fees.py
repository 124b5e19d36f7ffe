"""The composition of what agents cost, for `app.py`: prices of `[agent.NAME]` and of listings, keys, the books."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.agents.base import Heard
from convene.agents.credentials import key_of
from convene.app_books import price_of
from convene.errors import Refused
from convene.registry.base import Found
from convene.serving.agent_fees import AgentFees, Question
from convene.usage import Price

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from convene.config import Config
    from convene.serving.admission import Admission
    from convene.serving.base import Principal
    from convene.tools.agents_base import Asking, FoundAgent

NOBODY: Final = "This agent costs money, and there is no key to whom the question could be charged."
NAME_MAX: Final = 200
VERSION_DIGITS: Final = 12
REFUSED: Final = "The agent was not asked: {words}"


class AgentTill:
    """Implements `app_agents.Till`."""

    def __init__(
        self, config: Config, holder: Callable[[str], Awaitable[Principal | None]], admission: Admission
    ) -> None:
        """`holder` says who is behind a key; `fees.admission` may be put in later."""
        self._holder = holder
        self.fees = AgentFees(admission)
        self._currency = config.currency
        self._prices: dict[str, tuple[str, Price]] = {
            key_of(agent.id): (name, price_of(config.prices[agent.price], config.currency))
            for name, agent in config.agent.items()
            if agent.price
        }

    async def charged(self, agent: FoundAgent, asking: Asking, answer: AsyncGenerator[Heard]) -> AsyncGenerator[Heard]:
        """See `Till`. What it cost is in the metadata of the end."""
        known = self._prices.get(key_of(agent.address or agent.url)) or listed_price(agent, self._currency)
        async with aclosing(answer):
            if known is None:
                async for heard in answer:
                    yield heard
                return
            name, price = known
            principal = await self._holder(asking.key_id)
            if principal is None:
                yield _refused(NOBODY)
                return
            question = Question(
                principal=principal, agent=name, price=price, call_key=asking.call_key, caller=asking.caller
            )
            try:
                fee = await self.fees.open(question)
            except Refused as fault:
                yield _refused(REFUSED.format(words=fault.message))
                return
            try:
                async for heard in answer:
                    if heard.kind == "end":
                        cost = await fee.earn()
                        yield msgspec.structs.replace(heard, metadata=heard.metadata | {"cost": cost})
                    else:
                        yield heard
            finally:
                fee.drop()


def listed_price(agent: FoundAgent, currency: str) -> tuple[str, Price] | None:
    """Return what the terms of an agent's listing in our own marketplace say (`registry.base.Found`), and its name."""
    micros = agent.price_micros if isinstance(agent, Found) else 0
    if micros <= 0:
        return None
    version = hashlib.sha256(f"{currency} {micros}".encode()).hexdigest()[:VERSION_DIGITS]
    return (agent.address or agent.url)[:NAME_MAX], Price(request=micros, version=version)


def _refused(words: str) -> Heard:
    return Heard(kind="error", text=words, metadata={"reason": "refused"})
