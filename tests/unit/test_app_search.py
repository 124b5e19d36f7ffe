"""From `[search]` to engines, the tool and its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.app_search import SearchParts
from convene.app_tools import ToolRoom
from convene.config import Brave, Config, Metasearch, Search, Searxng, Secret, Tavily
from convene.http.base import ConnectFailed, Request
from convene.tools.base import ToolContext
from convene.tools.search_meta import MetaSearch

if TYPE_CHECKING:
    from convene.http.base import Response
    from convene.http.client import ClientOptions
    from fakes import FakeClock

ALL = Search(
    engines=("tavily", "searxng", "metasearch", "brave"),
    searxng=Searxng(base_url="http://searx:8080", headers={"x-team": Secret("searx-secret")}),
    brave=Brave(api_key=Secret("brave-secret"), proxy=Secret("http://proxy:3128"), ca_file="/etc/ca.pem"),
    tavily=Tavily(api_key=Secret("tavily-secret")),
    metasearch=Metasearch(backends=("wikipedia",)),
)


class Network:
    """Makes clients that reach nobody, and remembers what they were to do."""

    def __init__(self) -> None:
        self.options: list[ClientOptions] = []
        self.sent: list[Request] = []
        self.closed = 0

    def connect(self, options: ClientOptions) -> Network:
        self.options.append(options)
        return self

    async def send(self, request: Request) -> Response:
        self.sent.append(request)
        raise ConnectFailed("nobody is there")

    async def aclose(self) -> None:
        self.closed += 1


def context() -> ToolContext:
    return ToolContext(owner="o", run_id="run_1", call_id="c", idempotency_key="k")


def test_engines_are_built_in_the_order_of_the_settings_and_nothing_is_asked(clock: FakeClock) -> None:
    network = Network()
    parts = SearchParts(ALL, clock, network.connect)

    assert [one.name for one in parts.engines] == ["tavily", "searxng", "metasearch", "brave"]
    assert network.sent == []


def test_each_engine_goes_its_own_way_to_its_host(clock: FakeClock) -> None:
    network = Network()
    SearchParts(ALL, clock, network.connect)

    tavily, searxng, brave = network.options
    assert (tavily.https_proxy, searxng.https_proxy, searxng.ca_file) == (None, None, None)
    assert (brave.https_proxy, brave.http_proxy, brave.ca_file) == (
        "http://proxy:3128",
        "http://proxy:3128",
        "/etc/ca.pem",
    )


async def test_each_key_goes_to_its_own_host_alone(clock: FakeClock) -> None:
    network = Network()
    settings = Search(engines=("tavily", "searxng", "brave"), searxng=ALL.searxng, brave=ALL.brave, tavily=ALL.tavily)
    parts = SearchParts(settings, clock, network.connect)
    [tool] = parts.box.tools()

    result = await tool.run({"query": "lighthouse"}, context())

    sent = {request.url.split("/")[2]: repr(request) for request in network.sent}
    assert list(sent) == ["api.tavily.com", "searx:8080", "api.search.brave.com"]
    for host, secret in (("api.tavily.com", "tavily-"), ("searx:8080", "searx-"), ("api.search.brave.com", "brave-")):
        assert [name for name, request in sent.items() if f"{secret}secret" in request] == [host]
    assert [one.code for one in result.notices] == ["search_unavailable"]
    await parts.aclose()
    assert network.closed == 3


def test_without_settings_the_keyless_engine_searches_and_needs_no_client(clock: FakeClock) -> None:
    network = Network()
    parts = SearchParts(Search(), clock, network.connect)

    assert [type(one) for one in parts.engines] == [MetaSearch]
    assert network.options == []
    assert [one.spec.name for one in parts.box.tools()] == ["web_search"]


async def test_switched_off_there_is_no_tool_but_a_notice(clock: FakeClock) -> None:
    room = ToolRoom.open(Config(search=Search(enabled=False)), clock, Network().connect)

    assert [tool.spec.name for tool in room.tools()] == ["web_fetch"]
    assert [one.code for one in room.notices()] == ["search_unavailable"]
    await room.aclose()


async def test_the_room_of_tools_has_the_search_and_closes_its_connections(clock: FakeClock) -> None:
    network = Network()
    room = ToolRoom.open(Config(search=ALL), clock, network.connect)

    assert "web_search" in [one.spec.name for one in room.tools()]
    assert list(room.notices()) == []
    await room.aclose()
    assert network.closed >= 3


@pytest.mark.parametrize("search", [ALL, Search()])
def test_no_part_shows_a_secret(search: Search, clock: FakeClock) -> None:
    parts = SearchParts(search, clock, Network().connect)

    assert "secret" not in repr(parts.engines) + repr(parts.box.tools()[0].spec)
