"""Agents of the unmodified `uagents` library ask a real server: answers, conversations, kills, circles."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from conformance.environments import Absent, clean_environment, ensure_python
from convene.agent_identity import Identity
from process.almanac_double import Almanac
from process.served import WAIT_S, ScriptedServer, words
from servers import do_without, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

ASKER = Path(__file__).with_name("uagents_asker.py")
LOOP = "loop-agentic"
SETTINGS = """
[agents]
directory = "{almanac}"
quiet_s = 0.5
seed = "{seed}"
[agents.answering]
model = "{model}"
{settings}
"""


def seed_of(name: str) -> str:
    return f"the server {name} of a test"


def address_of(name: str, index: int = 1) -> str:
    """Return by which address the Almanac knows a server, or with index 0 its own registry (HOSTED-04)."""
    return Identity.from_seed(seed_of(name), index).address


class Asker:
    """A real agent."""

    def __init__(self, folder: Path, almanac: str, python: Path, name: str, *words: str) -> None:
        self.port = free_port()
        self.name = name
        command = [str(python), str(ASKER), str(self.port), almanac, name, *words]
        with (folder / f"{name}.log").open("w") as log:
            self.process = subprocess.Popen(  # noqa: S603 -- our own program
                command, cwd=folder, stdout=log, stderr=log, env=clean_environment()
            )

    async def ask(self, target: str, *texts: str) -> str:
        """Begin a conversation and return the asker's address."""
        async with httpx2.AsyncClient(timeout=20) as client:
            body = {"target": target, "texts": list(texts)}
            answer = await client.post(f"http://127.0.0.1:{self.port}/ask", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["address"])

    async def heard(self) -> Any:  # noqa: ANN401 -- JSON
        async with httpx2.AsyncClient(timeout=20) as client:
            return (await client.get(f"http://127.0.0.1:{self.port}/heard")).json()

    async def until(self, wanted: Callable[[list[Any]], bool]) -> list[Any]:
        """Wait until what was heard is as wanted, and return it."""
        async with asyncio.timeout(WAIT_S):
            while True:
                said: list[Any] = (await self.heard())["said"]
                if wanted(said):
                    return said
                await asyncio.sleep(0.1)

    async def quiet(self, seconds: float) -> list[Any]:
        """Wait until nothing more was heard for so long."""
        async with asyncio.timeout(WAIT_S):
            said: list[Any] = (await self.heard())["said"]
            while True:
                await asyncio.sleep(seconds)
                before, said = said, (await self.heard())["said"]
                if len(before) == len(said):
                    return said


class Server(ScriptedServer):
    """A real server that agents can find."""

    def __init__(
        self, folder: Path, almanac: Almanac, script: list[dict[str, Any]], model: str, settings: str, workers: int
    ) -> None:
        self.address = ""
        self._almanac = almanac
        said = SETTINGS.format(almanac=almanac.url, model=model, settings=settings, seed=seed_of(folder.name))
        super().__init__(folder, {"models": script}, said, workers)

    def is_ready(self) -> bool:
        if not super().is_ready():
            return False
        inbox, records = f"{self.url}/agents/inbox", self._almanac.records.items()
        found = (address for address, one in records if one["endpoints"][0]["url"] == inbox)
        self.address = self.address or next(found, "")
        return bool(self.address)

    async def chat(self, text: str) -> str:
        """Ask the model that asks agents, as a user."""
        return words(await self.post({"model": LOOP, "messages": [{"role": "user", "content": text}]}))

    async def usage(self, **query: str) -> Any:  # noqa: ANN401 -- JSON
        async with httpx2.AsyncClient(timeout=20) as client:
            answer = await client.get(f"{self.url}/v1/admin/usage/requests", params=query, headers=self.auth)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


def asks(agent: str, answer: str) -> list[dict[str, Any]]:
    """Return the script of a model that asks an agent first, whatever it is asked, and then answers."""
    ask = {"call": {"name": "ask_agent", "args": {"agent": agent, "message": "go on and ask"}}}
    return talks([ask], [{"text": answer}], name=LOOP)


def talks(*turns: list[dict[str, Any]], name: str = "played") -> list[dict[str, Any]]:
    return [{"name": name, "turns": [{"steps": steps} for steps in turns]}]


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return ensure_python("uagents")
    except Absent as fault:
        do_without(str(fault))


@pytest.fixture
def almanac() -> Iterator[Almanac]:
    one = Almanac()
    yield one
    one.close()


class Stage:
    """What a test starts; all of it ends with the test."""

    def __init__(self, folder: Path, almanac: Almanac, python: Path) -> None:
        self.almanac = almanac
        self._folder = folder
        self._python = python
        self._askers: list[Asker] = []
        self._servers: list[Server] = []

    async def asker(self, name: str, *words: str, almanac: str = "") -> Asker:
        one = Asker(self._folder, almanac or self.almanac.url, self._python, name, *words)
        self._askers.append(one)
        async with asyncio.timeout(WAIT_S):
            while True:
                assert one.process.poll() is None, (self._folder / f"{name}.log").read_text()
                with contextlib.suppress(httpx2.HTTPError):
                    await one.heard()
                    return one
                await asyncio.sleep(0.1)

    async def server(
        self,
        name: str = "one",
        script: list[dict[str, Any]] | None = None,
        model: str = "scripted-echo",
        settings: str = "",
        workers: int = 1,
    ) -> Server:
        one = Server(self._folder / name, self.almanac, script or [], model, settings, workers)
        self._servers.append(one)
        await one.start()
        return one

    async def clear(self) -> None:
        for server in self._servers:
            await server.kill()
        for asker in self._askers:
            asker.process.kill()
            asker.process.wait()


@pytest.fixture
async def stage(tmp_path: Path, almanac: Almanac, python: Path) -> AsyncIterator[Stage]:
    one = Stage(tmp_path, almanac, python)
    try:
        yield one
    finally:
        await one.clear()


@pytest.mark.req("ACP-05")
async def test_a_real_agent_is_acknowledged_and_answered_in_its_session_and_the_books_say_who_it_was(
    stage: Stage,
) -> None:
    server = await stage.server()
    asker = await stage.asker("asker")
    address = await asker.ask(server.address, "hello, ü")
    [said] = await asker.until(lambda said: len(said) == 1)
    assert said["text"] == "hello, ü"
    assert said["kinds"] == ["text", "end-session"]
    assert len((await asker.heard())["acknowledged"]) == 1
    [entry] = await server.usage()
    assert (entry["agent"], entry["key"], entry["user"]) == (address, f"agent:{address}", address)
    assert (entry["status"], entry["team"], entry["served_by"]) == ("ok", "agents", "scripted-echo")
    assert "Traceback" not in server.log


async def test_a_conversation_of_a_real_agent_goes_on_in_its_session_streamed_where_that_is_set(stage: Stage) -> None:
    words = " ".join(f"word{number}" for number in range(300))
    server = await stage.server(
        script=talks([{"text": words}], [{"text": "And more."}]), model="played", settings="stream = true"
    )
    asker = await stage.asker("asker")
    await asker.ask(server.address, "tell me", "and then?")
    said = await asker.until(lambda said: any(one["text"].endswith("And more.") for one in said))
    assert len({one["session"] for one in said}) == 1
    ends = [place for place, one in enumerate(said) if "end-session" in one["kinds"]]
    first, second = said[: ends[0] + 1], said[ends[0] + 1 :]
    assert len(first) > 2
    assert first[0]["kinds"] == ["start-stream", "text"]
    assert first[-1]["kinds"][-2:] == ["end-stream", "end-session"]
    assert "".join(one["text"] for one in first) == words
    assert "".join(one["text"] for one in second) == "And more."


async def test_kills_between_question_and_answer_lose_nothing_and_repeat_nothing(stage: Stage) -> None:
    server = await stage.server(script=talks([{"pause_s": 2.0}, {"text": "At last."}]), model="played")
    asker = await stage.asker("asker")
    await asker.ask(server.address, "take your time")
    async with asyncio.timeout(WAIT_S):
        while not (await asker.heard())["acknowledged"]:  # noqa: ASYNC110 -- another process does it
            await asyncio.sleep(0.05)
    for _ in range(2):
        await server.kill()
        await server.start()
    await asker.until(lambda said: len(said) >= 1)
    said = await asker.quiet(1.0)
    assert [one["text"] for one in said] == ["At last."]
    await server.kill()
    await server.start()
    assert len(await asker.quiet(1.0)) == 1
    assert "Traceback" not in server.log


async def test_an_agent_that_answers_every_answer_is_answered_no_more_after_a_while(stage: Stage) -> None:
    server = await stage.server(settings="messages_per_minute = 3")
    asker = await stage.asker("careless", "answers")
    await asker.ask(server.address, "ping")
    await asker.until(lambda said: len(said) >= 4)
    said = await asker.quiet(2.0)
    assert len(said) == 4
    assert "which is the most that is answered" in said[-1]["text"]


async def test_agents_are_not_answered_where_the_operator_says_so(stage: Stage) -> None:
    server = await stage.server(settings='enabled = "off"')
    listed = await stage.server("two", settings=f'allow = ["agent1q{"w" * 58}"]')
    asker = await stage.asker("asker")
    await asker.ask(server.address, "hello")
    await asker.ask(listed.address, "hello")
    await asker.until(lambda said: len(said) >= 1)
    said = await asker.quiet(1.0)
    assert [one["text"] for one in said] == ["This agent answers only agents that its operator has listed."]
    assert len((await asker.heard())["acknowledged"]) == 2


async def test_two_servers_that_ask_each_other_whatever_they_are_asked_come_to_an_end(stage: Stage) -> None:
    stage.almanac.names = {name: address_of(name) for name in ("one", "two")}
    one = await stage.server("one", asks(address_of("two"), "one says so"), LOOP)
    two = await stage.server("two", asks(address_of("one"), "two says so"), LOOP)
    assert (one.address, two.address) == (address_of("one"), address_of("two"))
    assert await one.chat("a question that nobody can answer") == "one says so"
    [mine], [theirs] = await one.usage(), await two.usage()
    # Had the second server asked back, the first would have been asked twice.
    assert (mine["agent"], theirs["agent"]) == (None, one.address)


async def test_a_circle_through_an_agent_that_drops_every_list_comes_to_an_end(stage: Stage) -> None:
    relay = await stage.asker("relay", f"relay={address_of('two')}")
    address = (await relay.heard())["address"]
    stage.almanac.names = {"one": address_of("one"), "two": address_of("two"), "relay": address}
    one = await stage.server("one", asks(address, "one says so"), LOOP)
    two = await stage.server("two", asks(address_of("one"), "two says so"), LOOP)
    assert await one.chat("a question that nobody can answer") == "one says so"
    users, of_two = sorted(await one.usage(), key=lambda entry: str(entry["agent"] or ""))
    [of_relay] = await two.usage()
    assert [one_said["text"] for one_said in (await relay.heard())["said"]] == ["go on and ask", "two says so"]
    assert (users["agent"], of_two["agent"], of_relay["agent"]) == (None, two.address, address)


async def test_several_workers_answer_each_question_once(stage: Stage) -> None:
    server = await stage.server(workers=3)
    asker = await stage.asker("asker")
    for number in range(9):
        await asker.ask(server.address, f"question {number}")
    await asker.until(lambda said: len(said) >= 9)
    said = await asker.quiet(1.0)
    assert sorted(one["text"] for one in said) == [f"question {number}" for number in range(9)]
    assert len({one["id"] for one in said}) == 9


async def test_an_agent_that_knows_this_server_alone_registers_with_it_asks_it_and_is_answered(stage: Stage) -> None:
    server = await stage.server()
    asker = await stage.asker("asker", almanac=server.url)
    address = (await asker.heard())["address"]
    async with asyncio.timeout(WAIT_S), httpx2.AsyncClient() as client:
        while (await client.get(f"{server.url}/v1/almanac/agents/{address}")).status_code != 200:  # noqa: ASYNC110 -- another process does it
            await asyncio.sleep(0.1)
    home = next(iter(re.findall(r"know this server as (agent1q\w+)", server.log)))
    await asker.ask(home, "hello", "and again")
    said = await asker.until(lambda said: len(said) >= 2)
    assert [one["text"] for one in said] == ["hello", "and again"]
    assert address not in stage.almanac.records
