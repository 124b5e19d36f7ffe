"""Agents of the official A2A library, asked by a real server inside chats: every form, questions back, and kills."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from conformance.environments import Absent, clean_environment, ensure_python
from process.served import WAIT_S, ScriptedServer, words
from servers import do_without, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HOUSE = Path(__file__).with_name("a2a_house.py")
SENTENCE = "I've sent the message"
NAMES = (
    *("stream", "whole", "rest", "restwhole", "old", "oldwhole", "oldrest", "slow", "slowwhole", "oldslow"),
    *("ask", "oldask", "askwhole", "picture", "message"),
)
SETTINGS = """
[agentic]
agent_wait_s = {wait_s}
[agent.locked]
url = "{house}/locked"
api_key = "the key"
[prices.cheap]
request = 0.25
[agent.priced]
url = "{house}/slow"
price = "cheap"
[agent.switched]
url = "{house}/fail/.well-known/agent-card.json"
enabled = false
"""
SCRIPT = {
    "models": [
        {
            "name": "played-agentic",
            "turns": [
                {"steps": [{"call": {"name": "search_agents", "args": {"query": "somebody for pictures"}}}]},
                {"steps": [{"call": {"name": "ask_agent", "args": {"agent": "@picture", "message": "a cat"}}}]},
                {"steps": [{"text": "Look."}]},
            ],
        }
    ]
}


class House:
    """The real agents."""

    def __init__(self, url: str, asked: Path) -> None:
        self.url = url
        self._asked = asked

    def asked(self, name: str) -> list[str]:
        """Return what an agent was asked, in order."""
        lines = self._asked.read_text().splitlines() if self._asked.exists() else []
        return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Start the agents and wait until they answer."""
    try:
        python = ensure_python("a2a")
    except Absent as fault:
        do_without(str(fault))
    folder = tmp_path_factory.mktemp("a2a")
    port, asked = free_port(), folder / "asked.txt"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603 -- our own program
            [str(python), str(HOUSE), str(port), str(asked)],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=clean_environment(),
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + WAIT_S
        while not _answers(f"{url}/stream/.well-known/agent-card.json"):
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.05)
        yield House(url, asked)
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(url).status_code == 200
    return False


class Server(ScriptedServer):
    """A real server that knows the agents by name."""

    def __init__(self, folder: Path, house: House, wait_s: float) -> None:
        known = "".join(f'[agent.{name}]\nurl = "{house.url}/{name}"\n' for name in NAMES)
        super().__init__(folder, SCRIPT, SETTINGS.format(house=house.url, wait_s=wait_s) + known)

    def is_ready(self) -> bool:
        return self.answers("/readyz")

    async def say(self, text: str, session: str = "") -> str:
        message = {"role": "user", "content": text}
        return words(await self.post({"model": "played-agentic", "messages": [message]}, session))

    async def poll(self, session: str) -> str:
        """Ask for news until there are some."""
        async with asyncio.timeout(WAIT_S):
            while (told := await self.say("Any update?", session)) == SENTENCE:  # noqa: ASYNC110 -- another process
                await asyncio.sleep(0.1)
        return told


@contextlib.asynccontextmanager
async def serving(folder: Path, house: House, wait_s: float = 55.0) -> AsyncIterator[Server]:
    async with Server(folder, house, wait_s) as server:
        yield server


@pytest.mark.req("A2A-01", "A2A-03", "A2A-04", "A2A-05", "A2A-07", "A2A-08", "A2A-09")
async def test_real_agents_of_every_form_are_found_and_answer(tmp_path: Path, house: House) -> None:
    async with serving(tmp_path, house) as server:
        for name in ("stream", "whole", "rest", "restwhole", "old", "oldwhole", "oldrest", "locked"):
            assert await server.say(f"@{name} hello, ü") == "one, two, three: hello, ü", name
        assert await server.say("@message hello") == "message: hello"
        assert await server.say("@slowwhole hello") == "slow: hello"
        for name in ("ask", "askwhole", "oldask"):
            assert await server.say(f"@{name} weather?", f"session of {name}") == "Which city?"
            assert await server.say(f"@{name} Rome", f"session of {name}") == "It is sunny in Rome."
            assert await server.say(f"@{name} Rome", "another session") == "Which city?"
        said = [{"role": "user", "content": "Have somebody draw a cat, please."}]
        reply = await server.post({"model": "played-agentic", "messages": said})
    assert words(reply) == "Look."
    found, asked = reply["executable_data"]
    assert [one["name"] for one in found["result"]["agents"]] == ["picture"]
    assert found["result"]["agents"][0]["url"] == f"{house.url}/picture/.well-known/agent-card.json"
    assert asked["agent"]["protocol"] == "a2a"
    assert asked["result"]["answer"] == "Here is a cat.\n\n![cat](https://pictures.test/1.png)"
    assert "Traceback" not in server.log
    assert "the key" not in server.log


@pytest.mark.req("A2A-06")
@pytest.mark.parametrize("name", ["slow", "slowwhole", "oldslow"])
async def test_a_kill_between_question_and_answer_asks_nobody_twice(tmp_path: Path, house: House, name: str) -> None:
    question = f"wait for it {tmp_path.name}"
    async with serving(tmp_path, house, wait_s=0.5) as server:
        assert await server.say(f"@{name} {question}", "s") == SENTENCE
        async with asyncio.timeout(WAIT_S):
            while question not in house.asked(name):  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.05)
        await server.kill()
        await server.start()
        told = await server.poll("s")
        assert told == f"slow: {question}"
        assert await server.say("Any update?", "s") == told
    assert house.asked(name).count(question) == 1


async def test_an_answer_given_up_is_cancelled_at_the_agent(tmp_path: Path, house: House) -> None:
    async with serving(tmp_path, house, wait_s=0.5) as server:
        assert "had not answered" in await server.say("@slow too long for us")
        async with asyncio.timeout(WAIT_S):
            while "cancelled" not in house.asked("slow"):  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.05)


async def test_an_agent_that_is_switched_off_is_neither_found_nor_asked(tmp_path: Path, house: House) -> None:
    async with serving(tmp_path, house) as server:
        for name in (f"{house.url}/fail", "@switched"):
            message = {"role": "user", "content": f"{name} hello"}
            await server.post({"model": "played-agentic", "messages": [message]})
    assert house.asked("fail") == []


async def test_a_priced_agent_is_charged_for_once_over_a_kill_and_the_books_agree(tmp_path: Path, house: House) -> None:
    async with serving(tmp_path, house, wait_s=0.5) as server:
        assert await server.say("@priced dear question", "s") == SENTENCE
        await server.kill()
        await server.start()
        assert await server.poll("s") == "slow: dear question"
        async with httpx2.AsyncClient(headers=server.auth) as client:
            url = f"http://127.0.0.1:{server.port}/v1/usage/requests"
            entries = (await client.get(url)).json()["data"]
        [entry] = [entry for entry in entries if entry["kind"] == "agent"]
        assert (entry["model"], entry["cost"]["micros"]) == ("agent/priced", 250_000), entry
        await server.kill()
        reconcile = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "convene", "reconcile"),
            stdout=asyncio.subprocess.PIPE,
            env=server.environ,
            cwd=tmp_path,
        )
        told, _ = await reconcile.communicate()
        assert reconcile.returncode == 0, told.decode()
