"""`convene agents` on a data folder: who is there, who is found and why, who is added, removed and pinged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from click.testing import CliRunner

from agent_listings import agent, listings
from convene.agents.base import AgentCard
from convene.app_callers import Callers
from convene.cli_agents import agents
from convene.errors import Failed
from convene.registry.base_operator import Heard
from convene.registry.operator import Operator
from convene.store.base_market import Seen
from data_folder import DataFolder

if TYPE_CHECKING:
    from pathlib import Path

    from convene.registry.base_search import Hit
    from convene.store.sqlite import SqliteStore

FAR_US = 4_000_000_000_000_000
URL = "http://127.0.0.1:9/card"


class Folder(DataFolder):
    """A data folder, and the verbs on it."""

    def run(self, *words: str, code: int = 0) -> str:
        """Run a verb and return what it prints, talk included."""
        ran = CliRunner().invoke(agents, [*words, "--set", f"data_dir={self.folder}"], env={"CONVENE_CONFIG": ""})
        assert ran.exit_code == code, ran.output
        return ran.output

    def json(self, *words: str, code: int = 0) -> Any:  # noqa: ANN401 -- any JSON value
        ran = CliRunner().invoke(
            agents, [*words, "--json", "--set", f"data_dir={self.folder}"], env={"CONVENE_CONFIG": ""}
        )
        assert ran.exit_code == code, ran.output
        return json.loads(ran.stdout)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


@pytest.fixture
def folder(empty: Folder) -> Folder:
    async def fill(store: SqliteStore) -> None:
        for row in listings():
            await store.market.list_agent(msgspec.structs.replace(row, version=0, expires_us=FAR_US), 1)
        gone = agent("gone\x1b[2J weather", handle="gone", active=False, version=0)
        await store.market.list_agent(gone, 1)
        sky = listings()[0].id
        await store.market.see([Seen(id=sky, at_us=FAR_US, outcome="failed") for _ in range(3)])

    empty.fill(fill)
    return empty


def test_all_agents_are_listed_with_their_health(folder: Folder) -> None:
    told = folder.run("list")
    assert "@skycast" in told
    assert "unreachable" in told
    assert "inactive" in told
    assert "\x1b" not in told
    assert len(told.splitlines()) == len(listings()) + 2
    assert len(folder.run("list", "--limit", "3").splitlines()) == 4
    shown = folder.json("list", "--limit", "70")
    assert len(shown) == len(listings()) + 1
    assert {"id", "health", "enabled", "calls", "price"} <= set(shown[0])


def test_an_empty_marketplace_says_how_agents_come(empty: Folder) -> None:
    assert "convene agents add" in empty.run("list")
    assert "Nobody was found" in empty.run("search", "weather")
    assert empty.json("list") == []


def test_a_search_tells_the_best_first_and_why(folder: Folder) -> None:
    told = folder.run("search", "cheapest", "flight", "to", "Lisbon", "--limit", "2").splitlines()
    assert told[0].split() == ["NAME", "HANDLE", "PROTOCOL", "STATE", "SCORE", "WHY"]
    assert told[1].startswith("FlightHawk")
    assert "has not been asked yet" in told[1]
    assert len(told) <= 3
    found = folder.json("search", "what is the weather")
    assert found[0]["score"]["relevance"] > 0
    assert "SkyCast" in [one["name"] for one in found]


def test_inactive_agents_are_found_only_when_they_are_asked_for(folder: Folder) -> None:
    assert "gone" not in folder.run("search", "weather")
    assert "gone" in folder.run("search", "weather", "--inactive")
    assert "gone" in folder.run("search", "@gone")


def test_an_agent_is_removed_by_its_handle_or_address(folder: Folder) -> None:
    assert "Removed" in folder.run("remove", "@skycast")
    assert "There is no agent" in folder.run("remove", "@skycast", code=1)
    address = listings()[1].id
    assert folder.json("remove", address) == {"id": address, "object": "agent", "deleted": True}
    assert len(folder.json("list")) == len(listings()) - 1


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be one agent behind a URL."""

    async def describe(self: Callers, url: str) -> AgentCard:
        del self
        if url != URL:
            raise Failed("There is no A2A agent at this address.")
        return AgentCard(protocol="a2a", url=url, name="Card", description="Knows tides.", skills=("Tides",))

    monkeypatch.setattr(Callers, "describe", describe)


@pytest.mark.usefixtures("described")
def test_an_agent_is_added_by_its_url_found_and_switched_off(empty: Folder) -> None:
    assert empty.run("add", URL, "--handle", "tides", "--tag", "sea", "--price-micros", "7").endswith(f"{URL}\n")
    (found,) = empty.json("search", "when is the tide")
    assert (found["name"], found["handle"], found["tags"], found["price"]["micros"]) == ("Card", "tides", ["sea"], 7)
    off = empty.json("add", URL, "--off")
    assert (off["enabled"], off["handle"], off["price"]["micros"]) == (False, "tides", 0)
    assert empty.json("search", "tide") == []
    assert "off" in empty.run("list")


@pytest.mark.usefixtures("described")
def test_what_is_no_agent_is_not_added(empty: Folder) -> None:
    assert "There is no A2A agent at this address." in empty.run("add", "http://127.0.0.1:9/else", code=1)
    assert "url must be" in empty.run("add", "not-a-url", code=1)
    assert empty.json("list") == []


@pytest.mark.parametrize(("outcome", "code"), [("success", 0), ("failed", 1), ("timed_out", 1), ("refused", 1)])
def test_a_ping_says_how_it_went_and_fails_if_there_was_no_answer(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, outcome: str, code: int
) -> None:
    async def ping(self: Operator, name: str) -> tuple[Hit, Heard]:
        return await self.show(name), Heard(outcome=outcome, seconds=1.25, words="po\x1bng")  # type: ignore[arg-type]  # tests name real outcomes

    monkeypatch.setattr(Operator, "ping", ping)
    told = folder.run("ping", "@skycast", code=code)
    assert f"SkyCast: {outcome} after 1.25 s, unreachable" in told
    assert "pong" in told
    shown = folder.json("ping", "@skycast", code=code)
    assert (shown["outcome"], shown["health"], shown["seconds"]) == (outcome, "unreachable", 1.25)


def test_nobody_is_pinged_who_is_not_there(folder: Folder) -> None:
    assert "There is no agent" in folder.run("ping", "@nobody", code=1)


@pytest.mark.parametrize("words", [("search",), ("list", "--limit", "0"), ("add", URL, "--price-micros", "-1")])
def test_what_is_asked_wrongly_is_exit_code_2(empty: Folder, words: tuple[str, ...]) -> None:
    empty.run(*words, code=2)
