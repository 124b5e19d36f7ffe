"""Agents of unmodified libraries join a real server's own marketplace by one argument, are asked there, and answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from conformance.environments import Absent, clean_environment, ensure_python
from servers import do_without, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HOUSE = Path(__file__).with_name("market_house.py")
WEB = Path(__file__).with_name("market_web_agent.py")
PAINTER = Path(__file__).with_name("painter_agent.py")
A2A = Path(__file__).with_name("market_a2a_agent.py")
WAIT_S = 60.0
"""No test takes it; it turns one that hangs into one that fails."""
CONFIG = """
port = {port}
[engine]
enabled = false
[scripted]
enabled = true
[search]
enabled = false
[agents]
quiet_s = 0.5
"""


def environment(family: str) -> Path:
    """Return the interpreter of an environment of libraries, or skip."""
    try:
        return ensure_python(family)
    except Absent as fault:
        do_without(str(fault))
        raise


def wait(done: Callable[[], Any], what: str = "") -> Any:  # noqa: ANN401 -- whatever is waited for
    until = time.monotonic() + WAIT_S
    while not (found := done()):
        assert time.monotonic() < until, what
        time.sleep(0.05)
    return found


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Town:
    """A real server and the real agents that have come to it."""

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = ""
        self.addresses: dict[str, str] = {}
        self.ports: dict[str, int] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "convene.toml").write_text(config.format(port=self.port))

    def start(self) -> None:
        known = {name: value for name, value in os.environ.items() if not name.startswith("CONVENE_")}
        environ = {"CONVENE_CONFIG": str(self.folder / "convene.toml"), "CONVENE_DATA_DIR": str(self.folder / "data")}
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "convene", "serve"]
            self._server = subprocess.Popen(command, stdout=log, stderr=log, env=known | environ, cwd=self.folder)  # noqa: S603 -- our own program
        wait(lambda: self.get("/livez") is not None, self.log)
        self.key = self.key or self.log.partition("Authorization: Bearer ")[2].split("'")[0]

    def kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def close(self) -> None:
        for process in self._agents.values():
            process.kill()
            process.wait()
        self.kill()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text() if (self.folder / "log").exists() else ""

    def agent_log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def join(
        self, name: str, kind: str, python: Path, program: Path = HOUSE, environ: Mapping[str, str] | None = None
    ) -> None:
        """Start an agent and wait until it resolves, if it registers by itself."""
        port, told = free_port(), self.folder / f"{name}.json"
        arguments = [str(python), str(program), kind, str(port), self.url, str(told)]
        with (self.folder / f"{name}.log").open("w") as log:
            self._agents[name] = subprocess.Popen(  # noqa: S603 -- our own program
                arguments, stdout=log, stderr=log, cwd=self.folder, env=clean_environment(environ)
            )
        wait(lambda: told.exists() and told.read_text(), name)
        addresses: dict[str, str] = json.loads(told.read_text())
        self.addresses |= addresses
        self.ports[name] = port
        wait(lambda: listens(port), self.agent_log(name))
        wait(lambda: all(map(self.record, addresses.values())), self.agent_log(name))

    def leave(self, name: str) -> None:
        """Stop an agent as Ctrl-C does."""
        process = self._agents.pop(name)
        process.send_signal(signal.SIGINT)
        process.wait(WAIT_S)

    def get(self, path: str, auth: str = "") -> Any:  # noqa: ANN401 -- JSON
        with contextlib.suppress(httpx2.HTTPError):
            answer = httpx2.get(self.url + path, headers={"authorization": auth} if auth else {})
            return answer.json() if answer.status_code == 200 else None
        return None

    def record(self, address: str) -> Any:  # noqa: ANN401 -- JSON
        return self.get(f"/v1/almanac/agents/{address}")

    def listing(self, name: str) -> Any:  # noqa: ANN401 -- JSON
        return self.get(f"/v2/agents/{self.addresses[name]}", f"Bearer {self.key}")

    def connect(self, name: str, kind: str, **fields: str) -> Any:  # noqa: ANN401 -- JSON
        """Do what the inspector's page does (LIST-16)."""
        body = {"user_token": self.key, "agent_type": kind} | fields
        return httpx2.post(f"http://127.0.0.1:{self.ports[name]}/connect", json=body, timeout=30).json()

    async def ask(self, agent: str, text: str) -> str:
        """Address an agent in a chat completion and return what it says."""
        return str((await self.reply(agent, text))["choices"][0]["message"]["content"])

    async def reply(self, agent: str, text: str) -> Any:  # noqa: ANN401 -- JSON
        """Address an agent in a chat completion and return all of it."""
        said = [{"role": "user", "content": f"@{agent} {text}"}]
        async with httpx2.AsyncClient(timeout=90) as client:
            answer = await client.post(
                f"{self.url}/v1/chat/completions",
                json={"model": "scripted-echo", "messages": said},
                headers={"Authorization": f"Bearer {self.key}"},
            )
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    python = environment("uagents")
    town = Town(tmp_path_factory.mktemp("town"))
    town.start()
    try:
        for kind in ("custom", "mailbox", "proxy", "bureau"):
            town.join(kind, kind, python)
        yield town
    finally:
        town.close()


@pytest.mark.req("AGENT-02", "AGENT-03", "REG-05", "REG-21", "REG-23", "MBOX-04")
async def test_agents_join_by_one_argument_and_answer(town: Town) -> None:
    for name in ("custom", "mailbox", "bureau-1", "bureau-2"):
        record = town.record(town.addresses[name])
        assert record["status"] == "active"
        assert record["type"] == ("mailbox" if name == "mailbox" else "custom")
        assert await town.ask(town.addresses[name], "ciao") == f"{name} heard ciao"
    assert "Traceback" not in town.log


@pytest.mark.req("LIST-04", "LIST-16", "PROXY-01", "AGENT-03")
async def test_an_owner_connects_agents_of_each_kind(town: Town) -> None:
    connected = {"success": True, "detail": None}
    assert town.connect("mailbox", "mailbox") == connected
    assert town.listing("mailbox")["profile"]["readme"].startswith("# mailbox")
    assert town.listing("mailbox")["endpoints"][0]["url"] == f"{town.url}/v2/agents/mailbox/submit"
    own = f"http://127.0.0.1:{town.ports['proxy']}/submit"
    assert town.connect("proxy", "proxy", endpoint=own) == connected
    assert town.listing("proxy")["url"] == own
    assert town.record(town.addresses["proxy"])["type"] == "proxy"
    assert await town.ask(town.addresses["mailbox"], "one") == "mailbox heard one"
    assert await town.ask(town.addresses["proxy"], "two") == "proxy heard two"
    refused = httpx2.post(
        f"http://127.0.0.1:{town.ports['custom']}/connect", json={"user_token": "wrong", "agent_type": "mailbox"}
    ).json()
    assert refused["success"] is False
    assert "key" in refused["detail"]


@pytest.mark.req("LIST-12", "LIST-06", "AGENT-03")
async def test_a_web_service_is_listed_by_register_chat_agent_and_answers(town: Town) -> None:
    python = environment("uagents")
    port = free_port()
    arguments = [str(python), str(WEB), str(port), f"127.0.0.1:{town.port}", town.key]
    told = town.folder / "web.log"
    with (
        told.open("wb") as log,
        subprocess.Popen(  # noqa: S603, ASYNC220 -- our own program, started in a moment
            arguments, stdout=subprocess.PIPE, stderr=log, cwd=town.folder, env=clean_environment()
        ) as service,
    ):
        try:
            assert service.stdout is not None
            found = (await asyncio.to_thread(service.stdout.readline)).decode().strip()
            assert found.startswith("agent1q"), told.read_text()
            record = town.record(found)
            assert (record["type"], record["status"]) == ("proxy", "active")
            listing = town.get(f"/v2/agents/{found}", f"Bearer {town.key}")
            assert (listing["name"], listing["url"]) == ("Web", f"http://127.0.0.1:{port}/hook")
            assert await town.ask(found, "hello") == "web heard hello"
        finally:
            service.kill()


@pytest.mark.req("AGENT-03", "LIST-09", "LIST-08")
async def test_an_a2a_agent_joins_by_its_own_signature_alone(town: Town) -> None:
    python = environment("agentverse-sdk")
    port, told = free_port(), town.folder / "sdk.log"
    arguments = [str(python), str(A2A), str(port), f"127.0.0.1:{town.port}"]
    with (
        told.open("wb") as log,
        subprocess.Popen(  # noqa: S603, ASYNC220 -- our own program, started in a moment
            arguments, stdout=log, stderr=log, cwd=town.folder, env=clean_environment()
        ) as service,
    ):
        try:
            await asyncio.to_thread(wait, lambda: town.get("/v2/almanac/resolve/sdk-echo"), "sdk")
            await asyncio.to_thread(wait, lambda: listens(port), "sdk")
            assert town.get("/v2/almanac/resolve/sdk-echo")["type"] == "proxy"
            assert await town.ask("sdk-echo", "hello") == "sdk heard hello"
        finally:
            service.kill()


@pytest.mark.req("LIST-17", "AGENT-03")
async def test_agents_of_an_old_library_join_too(town: Town) -> None:
    python = environment("uagents-old")
    town.join("old-custom", "custom", python)
    town.join("old-mailbox", "mailbox", python)
    assert await town.ask(town.addresses["old-custom"], "ciao") == "old-custom heard ciao"
    assert town.connect("old-mailbox", "mailbox")["success"] is True
    assert town.record(town.addresses["old-mailbox"])["type"] == "mailbox"
    assert await town.ask(town.addresses["old-mailbox"], "ciao") == "old-mailbox heard ciao"


@pytest.mark.req("STORE-01", "STORE-02", "ACP-10")
async def test_what_an_agent_leaves_in_the_storage_reaches_the_user(town: Town) -> None:
    town.join("painter", "custom", environment("uagents"), program=PAINTER, environ={"API_KEY": town.key})
    told = await town.ask(town.addresses["painter"], "a picture")
    found = re.fullmatch(r"Here it is\.\s+!\[made\]\((http://127\.0\.0\.1:\d+/v1/images/files/\S+)\)", told)
    assert found is not None, told
    async with httpx2.AsyncClient() as client:
        picture = await client.get(found[1])
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert picture.content.startswith(b"\x89PNG")
    reply = await town.reply(town.addresses["painter"], "your notes")
    [made] = reply["executable_data"][0]["result"]["attachments"]
    assert made == {"uri": "data:text/plain;base64,b25lLCB0d28=", "media_type": "text/plain", "role": "made"}


@pytest.mark.req("REG-24")
async def test_the_tool_of_the_library_finds_all_well(town: Town) -> None:
    python = environment("uagents")
    assert town.connect("mailbox", "mailbox")["success"] is True
    for command in (["agent", town.addresses["mailbox"], "--all"], ["resolve", town.addresses["mailbox"]]):
        arguments = [str(python.parent / "av"), "--av", town.url, *command]
        ran = await asyncio.to_thread(
            subprocess.run, arguments, capture_output=True, text=True, check=False, cwd=town.folder
        )
        assert ran.returncode == 0, ran.stderr
        if command[0] == "agent":
            for words in ("Chat protocol supported", "Readme present", "reachable", "Status is active"):
                assert words in ran.stdout, ran.stdout
        else:
            assert town.addresses["mailbox"] in ran.stdout


@pytest.mark.req("REG-03", "REG-07")
async def test_agents_are_still_known_after_a_kill_and_one_that_stops_says_so(town: Town) -> None:
    before = town.record(town.addresses["custom"])
    town.kill()
    town.start()
    assert town.record(town.addresses["custom"]) == before
    assert await town.ask(town.addresses["custom"], "still there?") == "custom heard still there?"
    assert await town.ask(town.addresses["mailbox"], "you too?") == "mailbox heard you too?"
    town.join("leaving", "custom", environment("uagents"))
    town.leave("leaving")
    wait(lambda: town.record(town.addresses["leaving"])["status"] == "inactive", town.agent_log("leaving"))
