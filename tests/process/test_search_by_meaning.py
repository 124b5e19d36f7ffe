"""Agents are found in words that are not theirs, by the real embedding model of the embedded engine.

Whoever wrote the questions kept clear of the listings' words, so that words alone find next to nothing: the second test
holds that, for else the first would prove nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from agent_listings import NOW_US, agent
from bridge import open_client
from convene.app import App
from convene.clock import SystemClock
from convene.config import Agents, Config
from convene.engine.process import Engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

PATIENCE_S = 300.0
"""Long enough for a first fetch of the weights over a slow line."""
FAR_US = 4_000_000_000_000_000
AMONG = 3
TABLE: Final = """\
Skyline Fares | Compares tickets of airlines and books seats on planes. | I need to fly to Lisbon next week
Umbrella | Forecasts rain, sun, wind and temperature for any city. | should I take a raincoat tomorrow
Ledgerly | Prepares invoices and keeps the books of small companies. | send a bill to my customer
Pawsome | Finds a veterinarian and reminds of vaccinations of dogs and cats. | my puppy needs its shots
Chef Lena | Recipes and menus from what is left in the fridge. | what can I cook with two eggs and old bread
Lexicon | Translates text between German, French, Spanish and Japanese. | how do you say good evening in Tokyo
Coinwatch | Prices of Bitcoin and Ethereum, and alerts when they move. | is crypto going up
Physio | Stretching exercises against back pain and sore muscles. | my shoulders hurt from sitting at the desk
Palette | Draws illustrations and logos from a description. | make a picture for my web page
Roadside | Plans routes for electric cars with charging stops. | where can I plug in my Tesla on the way to Munich
Statute | Explains contracts, leases and consumer rights. | may my landlord raise what I pay
Nightsky | Tells which stars, planets and satellites are overhead tonight. | what is that bright dot beside the moon
Tunesmith | Writes melodies and chord progressions for songs. | help me compose a tune for the guitar
Gardener | Advises on soil, seeds, pruning and pests of plants. | my tomatoes have yellow leaves
Commuter | Departures and delays of trains, trams and buses. | is the subway late this morning
Debugger | Reads stack traces and mends programs in Python and Rust. | my code crashes with an exception
Tutor Max | Helps pupils with algebra and geometry homework. | solve an equation for x for my son
Stargazer Cinema | Reviews of films and series, and where to watch them. | something good on Netflix this evening
Landlord Aid | Lists flats and houses for rent with photos. | we are looking for an apartment with two bedrooms
Fitmeal | Counts calories and nutrients of a meal. | how much protein is in a burger
"""
"""Name, description and a question of each agent."""
ROWS: Final = [[part.strip() for part in line.split("|")] for line in TABLE.splitlines()]


@asynccontextmanager
async def market(folder: Path, model: Literal["auto", "off"]) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve with these agents, each with its vector if there is a model."""
    config = Config(
        data_dir=folder, cache_dir=Path.home() / ".cache" / "convene", auth="none", agents=Agents(embedding_model=model)
    )
    app = App(config, SystemClock(), lambda _: None)
    async with open_client(app.front, base_url="http://localhost") as http:
        for engine in app.deployments.engines if model == "auto" else ():
            assert isinstance(engine, Engine)
            await engine.wait_ready(PATIENCE_S)
        for name, about, _ in ROWS:
            row = msgspec.structs.replace(agent(name, about), version=0, expires_us=FAR_US)
            await app._store.market.list_agent(row, NOW_US)
        await app.found.follower.catch_up()
        async with asyncio.timeout(PATIENCE_S):
            while model == "auto" and len(app.found.follower.index.vectors) < len(ROWS):  # noqa: ASYNC110 -- a model
                await asyncio.sleep(0.05)
        yield http


async def places(http: httpx2.AsyncClient) -> list[int]:
    """Return at which place each question finds its agent, from 1; 0: not at all."""
    found = []
    for name, _, question in ROWS:
        answer = await http.get("/v1/agents", params={"query": question})
        assert answer.status_code == 200, answer.text
        names = [one["name"] for one in answer.json()["data"]]
        found.append(names.index(name) + 1 if name in names else 0)
    return found


async def test_agents_are_found_by_what_is_meant(tmp_path: Path) -> None:
    async with market(tmp_path, "auto") as http:
        found = await places(http)
    # 15 and 19 of 20 when this was written; another processor may round otherwise.
    assert sum(place == 1 for place in found) >= 14, found
    assert sum(1 <= place <= AMONG for place in found) >= 18, found


async def test_words_alone_do_not_find_them(tmp_path: Path) -> None:
    async with market(tmp_path, "off") as http:
        found = await places(http)
    assert sum(1 <= place <= AMONG for place in found) <= 2, found
