"""Agents of the unmodified `uagents` library, asked by a real server: each kind of answer, many at once, and kills."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from conformance.environments import Absent, clean_environment, ensure_python
from process.almanac_double import Almanac
from process.served import WAIT_S, ScriptedServer, words
from servers import do_without, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LOCAL = Path(__file__).with_name("market_house.py")
HOUSE = Path(__file__).with_name("uagents_house.py")
SENTENCE = "I've sent the message"
SETTINGS = """
[agents]
directory = "{almanac}"
quiet_s = 0.5
{more}
[agentic]
agent_wait_s = {wait_s}
"""
VERDICT = '{"reason": "It says ciao.", "useful": true}'
SCRIPT = {
    "models": [
        {
            "name": "played-agentic",
            "turns": [
                {"steps": [{"call": {"name": "search_agents", "args": {"query": "echo1"}}}]},
                {"steps": [{"call": {"name": "ask_agent", "args": {"agent": "@echo1", "message": "ciao"}}}]},
                {"steps": [{"text": "The agent says ciao."}]},
                {"when": "Does the answer do what was asked?", "steps": [{"text": VERDICT}]},
            ],
        }
    ]
}


class House:
    """The real agents, and the Almanac that they know."""

    def __init__(self, almanac: Almanac, addresses: dict[str, str]) -> None:
        self.almanac = almanac
        self.addresses = addresses


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Start the agents and wait until all have registered."""
    try:
        python = ensure_python("uagents")
    except Absent as fault:
        do_without(str(fault))
    folder = tmp_path_factory.mktemp("agents")
    almanac = Almanac()
    port = free_port()
    listed = folder / "addresses.json"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603 -- our own program
            [str(python), str(HOUSE), str(port), almanac.url, str(listed)],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=clean_environment(),
        )
    try:
        _wait(lambda: listed.exists() and _listens(port))
        addresses: dict[str, str] = json.loads(listed.read_text())
        almanac.names = addresses
        _wait(lambda: set(addresses.values()) <= set(almanac.records))
        yield House(almanac, addresses)
    finally:
        process.kill()
        process.wait()
        almanac.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(done: Any) -> None:  # noqa: ANN401 -- a question
    until = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


class Server(ScriptedServer):
    """A real server that agents can find."""

    def __init__(self, folder: Path, house: House, wait_s: float, workers: int, more: str = "") -> None:
        self.house = house
        self._before = 0
        settings = SETTINGS.format(almanac=house.almanac.url, wait_s=wait_s, more=more)
        super().__init__(folder, SCRIPT, settings, workers)

    async def start(self) -> None:
        self._before = len(self.house.almanac.records)
        await super().start()

    def is_ready(self) -> bool:
        return super().is_ready() and bool(self.key or len(self.house.almanac.records) > self._before)

    def record(self, address: str) -> Any:  # noqa: ANN401 -- JSON
        """Return what the server's own registry says of an address."""
        answer = httpx2.get(f"{self.url}/v1/almanac/agents/{address}")
        return answer.json() if answer.status_code == 200 else None

    async def ask(self, agent: str, text: str, session: str = "") -> str:
        """Address an agent and return what it says."""
        message = {"role": "user", "content": f"@{self.house.addresses[agent]} {text}"}
        return words(await self.post({"model": "played-agentic", "messages": [message]}, session))


@contextlib.asynccontextmanager
async def serving(
    folder: Path, house: House, wait_s: float = 55.0, workers: int = 1, more: str = ""
) -> AsyncIterator[Server]:
    async with Server(folder, house, wait_s, workers, more) as server:
        yield server


@pytest.mark.req("AGENT-05", "TRAP-03", "ACP-03", "PICK-04")
async def test_each_kind_of_answer_of_a_real_agent_arrives(tmp_path: Path, house: House) -> None:
    async with serving(tmp_path, house) as server:
        assert await server.ask("echo0", "hello, ü") == "echo0: hello, ü"
        assert await server.ask("plain", "no end mark") == "plain: no end mark"
        assert await server.ask("stream", "go") == "one, two, three"
        assert await server.ask("draw", "a cat") == "Here it is.\n\n![image](https://pictures.test/1.png)"
        assert "could not be read" in await server.ask("malformed", "anything")
        assert [await server.ask("count", "again", "a session") for _ in range(3)] == [
            *("number 1", "number 2", "number 3")
        ]
        assert await server.ask("count", "again", "another") == "number 1"
        assert await server.ask("echo0", "still well?") == "echo0: still well?"
        said = [{"role": "user", "content": "Have echo1 say ciao, please."}]
        reply = await server.post({"model": "played-agentic", "messages": said})
    assert words(reply) == "The agent says ciao."
    found, asked = reply["executable_data"]
    assert found["result"]["agents"][0]["address"] == house.addresses["echo1"]
    assert asked["result"]["answer"] == "echo1: ciao"
    assert asked["result"]["judged"] == {"useful": True, "reason": "It says ciao."}
    [judging] = [step for step in reply["intermediate_steps"] if step["kind"] == "judge"]
    assert (judging["status"], judging["detail"]) == ("done", asked["result"]["judged"])
    assert "Traceback" not in server.log


@pytest.mark.req("AGENT-05")
async def test_twenty_agents_with_twenty_questions_each_at_once_from_one_identity(tmp_path: Path, house: House) -> None:
    async with serving(tmp_path, house) as server:
        pairs = [(f"echo{agent}", f"question {agent}.{number}") for agent in range(20) for number in range(20)]
        answers = await asyncio.gather(*(server.ask(agent, text) for agent, text in pairs))
    wrong = [(pair, answer) for pair, answer in zip(pairs, answers, strict=True) if answer != ": ".join(pair)]
    assert wrong == []


async def test_answers_that_reach_another_worker_are_heard_and_polls_reach_any(tmp_path: Path, house: House) -> None:
    async with serving(tmp_path, house, wait_s=3.0, workers=3) as server:
        pairs = [(f"echo{number}", f"question {number}") for number in range(20)]
        answers = await asyncio.gather(*(server.ask(agent, text) for agent, text in pairs))
        assert [*answers] == [": ".join(pair) for pair in pairs]
        assert await server.ask("slow", "wait for it", "s") == SENTENCE
        poll = {"model": "played-agentic", "messages": [{"role": "user", "content": "Any update?"}]}
        async with asyncio.timeout(WAIT_S):
            while (told := words(await server.post(poll, "s"))) == SENTENCE:  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.1)
        assert told == "slow: wait for it"


@pytest.mark.req("DEFER-11")
async def test_a_kill_between_question_and_answer_loses_nothing(tmp_path: Path, house: House) -> None:
    before = set(house.almanac.records)
    async with serving(tmp_path, house, wait_s=0.5) as server:
        [us] = set(house.almanac.records) - set(house.addresses.values()) - before
        assert await server.ask("slow", "wait for it", "s") == SENTENCE
        async with asyncio.timeout(WAIT_S):
            # It has the question once it looks up where its acknowledgement goes; before that the question may be lost.
            while f"GET /v1/almanac/agents/{us}" not in house.almanac.seen:  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.05)
        await server.kill()
        await server.start()
        poll = {"model": "played-agentic", "messages": [{"role": "user", "content": "Any update?"}]}
        async with asyncio.timeout(WAIT_S):
            while (told := words(await server.post(poll, "s"))) == SENTENCE:  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.1)
        assert told == "slow: wait for it"
        assert words(await server.post(poll, "s")) == told


@pytest.mark.req("ID-07")
async def test_the_server_keeps_its_address_over_restarts(tmp_path: Path, house: House) -> None:
    before = set(house.almanac.records)
    async with serving(tmp_path, house) as server:
        await server.kill()
        house.almanac.seen.clear()
        await server.start()
        async with asyncio.timeout(WAIT_S):
            while "POST /v1/almanac/agents" not in house.almanac.seen:  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.05)
    assert len(set(house.almanac.records) - before) == 1


@pytest.mark.req("HOSTED-04", "RES-05")
async def test_our_own_registry_and_the_one_elsewhere_know_the_server_by_an_identity_each(
    tmp_path: Path, house: House
) -> None:
    """What agents of this machine say goes to this machine, also where those elsewhere answer into a mailbox there."""
    more = f'directory_key = "{house.almanac.key}"'
    async with serving(tmp_path, house, more=more) as server:
        home, abroad = re.findall(r"know (?:this server|it) as (agent1q\w+)", server.log)
        told, port = tmp_path / "local.json", free_port()
        arguments = [str(LOCAL), "custom", str(port), f"http://127.0.0.1:{server.port}", str(told)]
        local = await asyncio.create_subprocess_exec(
            str(ensure_python("uagents")), *arguments, cwd=tmp_path, env=clean_environment()
        )
        try:
            async with asyncio.timeout(WAIT_S):
                while not (  # noqa: ASYNC110 -- another process does it
                    told.exists() and told.read_text() and server.record(json.loads(told.read_text())["local"])
                ):
                    await asyncio.sleep(0.05)
            house.addresses["local"] = json.loads(told.read_text())["local"]
            assert await server.ask("echo1", "are you there?") == "echo1: are you there?"
            house.almanac.seen.clear()
            assert await server.ask("local", "and you?") == "local heard and you?"
        finally:
            local.kill()
            await local.wait()
        unseen = (home, house.addresses.pop("local"))
        assert not [line for line in house.almanac.seen if any(address in line for address in unseen)]
        own = server.record(home)
        assert [one["url"] for one in own["endpoints"]] == [f"http://127.0.0.1:{server.port}/agents/inbox"]
        assert server.record(abroad) is None
    assert (home in house.almanac.records, abroad in house.almanac.records) == (False, True)


@pytest.mark.req("CALL-04", "HOSTED-02")
async def test_a_server_that_agents_cannot_reach_fetches_their_answers_from_its_mailbox(
    tmp_path: Path, house: House
) -> None:
    more, before = f'directory_key = "{house.almanac.key}"', set(house.almanac.owned)
    async with serving(tmp_path, house, wait_s=3.0, more=more) as server:
        answers = await asyncio.gather(*(server.ask(f"echo{number}", f"question {number}") for number in range(10)))
        assert answers == [f"echo{number}: question {number}" for number in range(10)]
        assert await server.ask("slow", "wait for it", "s") == SENTENCE
        await server.kill()
        async with asyncio.timeout(WAIT_S):
            while not any(house.almanac.mailboxes.values()):  # noqa: ASYNC110 -- the agent answers while we are down
                await asyncio.sleep(0.1)
        await server.start()
        poll = {"model": "played-agentic", "messages": [{"role": "user", "content": "Any update?"}]}
        async with asyncio.timeout(WAIT_S):
            while (told := words(await server.post(poll, "s"))) == SENTENCE:  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.1)
        assert told == "slow: wait for it"
    [address] = house.almanac.owned - before
    assert house.almanac.records[address]["endpoints"] == [
        {"url": f"{house.almanac.url}/v2/agents/mailbox/submit", "weight": 1}
    ]
    assert not any("/agents/inbox" in line for line in house.almanac.seen)
    assert "Traceback" not in server.log
    assert house.almanac.key not in server.log
