"""The composition of the marketplace of this server, for `app.py`: its desks, their endpoints, what keeps it.

A part of the composition root. The store is opened after the parts are built, so it is asked for when it is needed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from convene.agents.storage import Kept
from convene.api.agentverse import AgentversePages
from convene.api.almanac import AlmanacPages
from convene.api.askers import Askers
from convene.api.assets import AssetPages
from convene.api.mailbox import MailPages, ProxyPages
from convene.api.table_market import MarketPages, market_routes
from convene.app_agents import open_agents_egress
from convene.app_place import Place
from convene.config import is_loopback
from convene.registry.almanac import Almanac, Rules
from convene.registry.assets import Assets
from convene.registry.attestation import proven_agent
from convene.registry.base_desks import Asker
from convene.registry.base_names import MAILBOX, PROXY
from convene.registry.documents import CHAT_PROTOCOL
from convene.registry.listing import NEVER_US
from convene.registry.listings import Listings
from convene.registry.mailbox import Mailboxes
from convene.registry.proxy import Proxy
from convene.registry.upkeep import Upkeep
from convene.store.base_market import AgentRow, Endpoint, Listing, Profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.api.askers import Access
    from convene.api.call import Call
    from convene.api.routes import Route
    from convene.app_agents import AgentParts
    from convene.clock import Clock
    from convene.config import Config
    from convene.serving.base import Gatekeeper
    from convene.store.base import Store
    from convene.store.base_market import Market

HOUR_US: Final = 3_600_000_000
LOCAL: Final = ("127.0.0.1", "localhost", "[::1]")
TAKEN: Final = 200
"""What an agent says to an envelope that it takes (CALL-05)."""


class MarketParts:
    """Everything about the marketplace of one application."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        store: Callable[[], Store],
        gatekeeper: Callable[[], Gatekeeper],
        agents: Callable[[], AgentParts],
        place: Place | None = None,
    ) -> None:
        """`agents` knows who this server is among them, once it has started; `place` is where it is."""
        self._config = config
        self._agents = agents
        self.egress = open_agents_egress(config)
        self._place = place or Place(config)
        settings = config.registry
        keep_us = round(settings.keep_hours * HOUR_US)
        rules = Rules(allow=frozenset(settings.allow), agents_max=settings.agents_max, keep_us=keep_us)

        def market() -> Market:
            return store().market

        self.almanac = Almanac(market, clock, rules, self.own)
        self.listings = Listings(market, clock, keep_us, self.almanac.admit, lambda: agents().me)
        self.mailboxes = Mailboxes(market, clock, settings.letters_max, round(settings.letter_hours * HOUR_US))
        self.proxy = Proxy(market, self.egress)
        self.assets = Assets(market, clock)
        self._askers = Askers(
            gatekeeper, _access(config), lambda header: proven_agent(header, clock.now()), self.listings.logged_in
        )
        self._upkeep = Upkeep(market, clock)
        self._tasks: list[asyncio.Task[None]] = []

    async def admit(self, call: Call) -> object:
        """Let a search pass, or raise `Unauthorized` (decision 17)."""
        return await self._askers.searcher(call)

    def routes(self) -> tuple[Route, ...]:
        """Return the paths that agents know; none if the registry is switched off."""
        if not self._config.registry.enabled:
            return ()
        askers = self._askers
        return market_routes(
            MarketPages(
                almanac=AlmanacPages(self.almanac, askers),
                agentverse=AgentversePages(self.listings, askers, lambda: f"{self._place.url}/v1/submit"),
                mail=MailPages(self.mailboxes, askers),
                proxy=ProxyPages(self.proxy),
                assets=AssetPages(self.assets, askers),
            )
        )

    async def near(self, endpoint: str, body: bytes) -> bool | None:
        """Take an envelope of ours for a mailbox of this server's, or for an agent behind its proxy.

        By way of `[egress]` that would fail wherever this server's own address is a private one. None: the endpoint is
        not ours. False: the agent behind the proxy has refused. Raises `ConveneError`.
        """
        named = urlsplit(endpoint)
        if not self._config.registry.enabled or not self._is_here(named.netloc.lower()):
            return None
        if named.path in MAILBOX:
            await self.mailboxes.submit(body)
            return True
        if named.path in PROXY:
            return (await self.proxy.submit(body, "", proxied=False)).status == TAKEN
        return None

    async def asset(self, host: str, file: str) -> Kept | None:
        """Return a file that an agent has left here for us; None: the host is another. Raises `ConveneError`."""
        if not self._config.registry.enabled or not self._is_here(host):
            return None
        asset = await self.assets.show(file, Asker(agent=self._agents().address))
        return Kept(asset.media_type, asset.contents)

    def _is_here(self, host: str) -> bool:
        """Whether a host with its port is this server."""
        return host == urlsplit(self._place.url).netloc.lower() or host in {
            f"{one}:{self._place.port}" for one in LOCAL
        }

    def own(self) -> AgentRow | None:
        """Return this server as an agent: registered, and for ever (RES-05, TRAP-03)."""
        agents = self._agents()
        if not agents.address:
            return None
        return AgentRow(
            id=agents.address,
            endpoints=(Endpoint(agents.inbox_url),),
            protocols=(CHAT_PROTOCOL,),
            stamp=1,
            expires_us=NEVER_US,
            listing=Listing(name="Convene", profile=Profile(description="The server of this marketplace.")),
        )

    async def start(self) -> None:
        """Name the known protocols, begin the background work. Raises `StoreFault`."""
        if self._config.registry.enabled:
            await self.almanac.prepare()
        self._tasks.append(asyncio.get_running_loop().create_task(self._upkeep.sweep(), name="marketplace upkeep"))

    async def aclose(self) -> None:
        """End the background work; what is being registered is kept first."""
        await self.almanac.gatherer.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


def _access(config: Config) -> Access:
    """Return whom the registry is open to (decision 17)."""
    if config.registry.access != "auto":
        return config.registry.access
    return "loopback" if is_loopback(config.host) else "keys"
