"""`convene agents`: list, search, add, remove and ping agents of the marketplace, beside a running server.

Whoever may read the data folder is the operator. Searching makes an index of its own, by words. Pinging asks as the
server does, whose inbox takes the answers of agents of the Agent Chat Protocol, so it has to run for those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import click
import msgspec

from convene.api.agent_words import admin_item_of, item_of
from convene.app_agent_search import SearchParts, Ties
from convene.app_agents import AgentParts
from convene.cli_output import Stop, Verbs, configured, harmless, json_option, put, put_json, put_table, say
from convene.cli_store import with_store
from convene.clock import SystemClock
from convene.registry.base_operator import Draft
from convene.registry.base_search import LIMIT_MAX, Filters, SearchRequest
from convene.store.base_market import Terms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.agents.base import AgentCard
    from convene.api.call import Call
    from convene.config import Config
    from convene.registry.base_operator import Heard
    from convene.registry.base_search import Hit, Page
    from convene.store.base import Store

T = TypeVar("T")

MANY: Final = 1000
WIDTH: Final = 60


@click.group("agents", cls=Verbs)
def agents() -> None:
    """List, search, add, remove and ping agents of the marketplace."""


@agents.command("list", examples=("convene agents list", "convene agents list --limit 10 --json"))
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, MANY * MANY), help="At most so many.")
@json_option
@configured("data_dir")
def list_all(config: Config, *, limit: int, as_json: bool) -> None:
    """List all agents, those that are switched off or inactive too; the last changed last."""

    async def read(parts: SearchParts) -> list[Hit]:
        found: list[Hit] = []
        more = True
        while more and len(found) < limit:
            hits, more = await parts.operator.page(min(MANY, limit - len(found)), found[-1].row.id if found else "")
            found += hits
        return found

    found = _with_parts(config, read)
    if as_json:
        put_json([admin_item_of(hit, config.currency) for hit in found])
        return
    head = ("NAME", "HANDLE", "PROTOCOL", "STATE", "CALLS", "ID")
    put_table(head, [(*_shown(hit), str(hit.row.tally.calls), harmless(hit.row.id)) for hit in found])
    if not found:
        say("There are no agents yet. They register themselves, or `convene agents add URL` adds one.")


@agents.command(
    "search",
    examples=("convene agents search what is the weather in Rome", "convene agents search @weather --json"),
)
@click.argument("question", nargs=-1, required=True)
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, LIMIT_MAX), help="At most so many.")
@click.option("--inactive", is_flag=True, help="Also agents that have signed off or not registered lately.")
@json_option
@configured("data_dir")
def search(config: Config, question: tuple[str, ...], *, limit: int, inactive: bool, as_json: bool) -> None:
    """Find agents that can do something, the best first, and say why; by words, not by meaning."""
    text = " ".join(question)

    async def find(parts: SearchParts) -> Page:
        await parts.follower.catch_up()
        states = Filters(state=("active", "inactive") if inactive else ())
        return await parts.search.search(SearchRequest(text=text, filters=states, limit=limit, exclude_geo=False))

    page = _with_parts(config, find)
    if as_json:
        put_json([item_of(hit, config.currency, "", query=text) for hit in page.hits])
        return
    rows = []
    for hit in page.hits:
        item = item_of(hit, config.currency, "", query=text)
        rows.append((*_shown(hit), f"{hit.score.value:.2f}", harmless(str(item.why))))
    put_table(("NAME", "HANDLE", "PROTOCOL", "STATE", "SCORE", "WHY"), rows)
    if not rows:
        say("Nobody was found. `convene agents list` shows all.")


@agents.command(
    "add",
    examples=(
        "convene agents add https://agents.example.com/weather",
        "convene agents add http://127.0.0.1:9000 --handle weather --tag weather --price-micros 500",
        "convene agents add http://127.0.0.1:9000 --off",
    ),
)
@click.argument("url")
@click.option("--name", default="", help="Instead of the name on its card.")
@click.option("--handle", default="", help="So that users may write @HANDLE.")
@click.option("--description", default="", help="Instead of the description on its card.")
@click.option("--tag", "tags", multiple=True, help="What it is for; repeatable.")
@click.option(
    "--price-micros", default=0, show_default=True, type=click.IntRange(0), help="What a call costs the caller."
)
@click.option("--off", is_flag=True, help="Neither found nor asked, until it is added again without.")
@json_option
@configured("data_dir")
def add(  # noqa: PLR0913 -- one for each option
    config: Config,
    url: str,
    name: str,
    handle: str,
    description: str,
    tags: tuple[str, ...],
    price_micros: int,
    *,
    off: bool,
    as_json: bool,
) -> None:
    """Add an A2A agent or an MCP server by its URL; again: read its card anew and set its terms."""
    draft = Draft(url=url, name=name, handle=handle, description=description, tags=tags)
    terms = Terms(enabled=not off, price_micros=price_micros)
    hit = _with_parts(config, lambda parts: parts.operator.add(draft, terms))
    if as_json:
        put_json(admin_item_of(hit, config.currency))
        return
    say(f"Added {harmless(hit.row.listing.name)} ({hit.row.protocol}){', switched off' if off else ''}:")
    put(harmless(hit.row.id))


@agents.command("remove", examples=("convene agents remove @weather", "convene agents remove http://127.0.0.1:9000"))
@click.argument("agent")
@json_option
@configured("data_dir")
def remove(config: Config, agent: str, *, as_json: bool) -> None:
    """Take an agent away by its address, URL or @handle; one that registers itself may come back."""
    gone = _with_parts(config, lambda parts: parts.operator.remove(agent))
    if as_json:
        put_json({"id": gone, "object": "agent", "deleted": True})
        return
    say(f"Removed {harmless(gone)}.")


@agents.command("ping", examples=("convene agents ping @weather", "convene agents ping agent1q... --json"))
@click.argument("agent")
@json_option
@configured("host", "port", "data_dir")
def ping(config: Config, agent: str, *, as_json: bool) -> None:
    """Talk to an agent, as a real conversation, and say whether it answered; exit code 1 if it did not."""
    hit, heard = _with_parts(config, lambda parts: parts.operator.ping(agent), talks=True)
    if as_json:
        put_json({"id": hit.row.id, "health": hit.health} | msgspec.structs.asdict(heard))
    else:
        say(_told(hit, heard))
        put(harmless(heard.words))
    if heard.outcome != "success":
        raise Stop(f"{harmless(hit.row.listing.name or hit.row.id)} did not answer.")


def _shown(hit: Hit) -> tuple[str, str, str, str]:
    listing = hit.row.listing
    handle = f"@{listing.handle}" if listing.handle else "-"
    state = hit.health if hit.row.terms.enabled else "off"
    return harmless(listing.name)[:WIDTH] or "-", harmless(handle), hit.row.protocol, state


def _told(hit: Hit, heard: Heard) -> str:
    name = harmless(hit.row.listing.name or hit.row.id)
    return f"{name}: {heard.outcome} after {heard.seconds:.2f} s, {hit.health}"


def _with_parts(config: Config, work: Callable[[SearchParts], Awaitable[T]], *, talks: bool = False) -> T:
    """Do something with the marketplace of the data folder; `talks`: with everything that asking an agent needs."""

    async def admit(call: Call) -> object:
        raise Stop(f"{call.path} is not served here")

    async def use(store: Store) -> T:
        clock = SystemClock()

        async def describe(url: str) -> AgentCard:
            return await asked.callers.describe(url)

        ties = Ties(admit, lambda: asked, lambda: asked.address, describe)
        parts = SearchParts(config, clock, lambda: store, ties)
        beside = msgspec.structs.replace(config, workers=max(2, config.workers))  # answers come to another process
        asked = AgentParts(beside, clock, lambda: store.sessions, directories=(parts.directory,))
        if not talks:
            return await work(parts)
        await asked.start()
        try:
            return await work(parts)
        finally:
            await asked.aclose()

    return with_store(config, use)
