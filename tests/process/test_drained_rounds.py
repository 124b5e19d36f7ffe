"""Agentic turns of the real program whose clients hang up, at an upstream that bills to the end and knows its bill."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from process.run_kill import Server, until
from process.truth_upstream import TruthUpstream, prompt_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from process.truth_upstream import Attempt

TOKENS: Final = 20
PACE_MS: Final = 40
ROUND_S: Final = TOKENS * PACE_MS / 1000
ROUNDS: Final = 3
"""Two that call the tool, and the answer."""
MICROS: Final = (3, 7)
"""What a prompt token costs, and one of an answer."""
CONFIG: Final = """
port = {port}
[edge]
grace_s = 0.1
[engine]
enabled = false
[limits]
lease_s = 2
[upstreams.truth]
base_url = "{url}"
on_disconnect = "drain"
retries = 0
[models.truth]
upstream = "truth"
tools = true
output_tokens_max = 500
[prices.truth]
input = 3.0
output = 7.0
[plans.owner]
concurrent_requests = 500
budget_total = 1000.0
"""


class Scene:
    """The program before the upstream."""

    def __init__(self, folder: Path, upstream: TruthUpstream) -> None:
        self.upstream = upstream
        self.server = Server(folder, upstream.base_url)
        (folder / "convene.toml").write_text(CONFIG.format(port=self.server.port, url=upstream.base_url))

    def tried(self, name: str) -> list[Attempt]:
        """Return the rounds that the upstream was asked for."""
        return self.upstream.attempts.get(name, [])

    async def ask(self, name: str, *, stream: bool, tokens: int = TOKENS, pace_ms: int = PACE_MS) -> Client:
        """Ask for a turn of three rounds; the session is called as the turn."""
        prompt = prompt_of(name, tokens, pace_ms, calls=ROUNDS - 1)
        body = json.dumps({"model": "truth", "stream": stream, "messages": [{"role": "user", "content": prompt}]})
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self.server.key}\r\n"
            f"x-session-id: {name}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(head.encode() + body.encode())
        return Client(reader, writer)

    async def leave_in_round(self, name: str, number: int, share: float, *, stream: bool) -> None:
        """Ask, and hang up in a round, when so much of it is over."""
        client = await self.ask(name, stream=stream)
        await until(lambda: answer(len(self.tried(name)) >= number))
        await asyncio.sleep(share * ROUND_S)
        assert len(self.tried(name)) == number, "the machine is too slow for this moment"
        client.hang_up()

    async def entry(self, name: str) -> dict[str, Any]:
        """Return the one entry of a turn once it is there."""
        await until(lambda: self._is_entered(name))
        (entry,) = await self._entries(name)
        return entry

    async def _entries(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.server.get(f"/v1/usage/requests?session={name}"))["data"]
        return found

    async def _is_entered(self, name: str) -> bool:
        return bool(await self._entries(name))

    async def run(self, name: str) -> dict[str, Any]:
        """Return a turn's run."""
        (run,) = (await self.server.get(f"/v1/runs?session={name}"))["data"]
        found: dict[str, Any] = run
        return found

    async def is_cancelled(self, name: str) -> bool:
        status: str = (await self.run(name))["status"]
        return status == "cancelled"

    async def check(self, name: str, rounds: int | None = None, effects: int | None = None) -> str:
        """Hold a turn's entry to what the upstream knows; return its status."""
        entry, tried = await self.entry(name), self.tried(name)
        assert all(one.reported and not one.left for one in tried), tried
        truth = sum(one.prompt_tokens for one in tried), sum(one.tokens for one in tried)
        assert (entry["prompt_tokens"], entry["completion_tokens"]) == truth, (name, entry, tried)
        assert entry["cost"]["micros"] == truth[0] * MICROS[0] + truth[1] * MICROS[1]
        assert not entry["estimated"]
        begun = self.upstream.effects.count(name)
        assert (len(tried), begun) == (rounds or len(tried), begun if effects is None else effects), name
        status: str = entry["status"]
        return status


class Client:
    """Whoever has asked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def hang_up(self) -> None:
        """Leave at once."""
        self._writer.transport.abort()


async def answer(known: bool) -> bool:  # noqa: FBT001 -- a look at what is at hand, for those that look elsewhere
    return known


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """The program, served until the end of the test and ended in order."""
    async with TruthUpstream() as upstream:
        found = Scene(tmp_path, upstream)
        await found.server.start()
        yield found
        await found.server.stop()


@pytest.mark.req("OAI-35")
async def test_whenever_the_client_leaves_the_books_have_the_upstreams_bill(scene: Scene) -> None:
    moments = [
        (number, share, stream) for number in (1, 2, 3) for share in (0.0, 0.25, 0.5) for stream in (True, False)
    ]
    names = {f"m{number}x{int(share * 100)}{stream}": (number, share, stream) for number, share, stream in moments}
    await asyncio.gather(
        *(scene.leave_in_round(name, number, share, stream=stream) for name, (number, share, stream) in names.items())
    )
    for name, (number, _, _) in names.items():
        assert await scene.check(name, number, number - 1) == "client_left"
        assert await scene.is_cancelled(name)


async def test_a_client_that_leaves_while_the_tool_works_pays_for_the_rounds_before_it(scene: Scene) -> None:
    scene.upstream.effect_s = 30.0
    clients = {name: await scene.ask(name, stream=name == "stream") for name in ("stream", "whole")}
    await until(lambda: answer(len(scene.upstream.effects) == 2))
    for client in clients.values():
        client.hang_up()
    for name in clients:
        assert await scene.check(name, 1, 1) == "client_left"


async def test_at_any_moment_between_the_request_and_the_answer_nothing_is_lost(scene: Scene) -> None:
    clients = 60

    async def leave(number: int) -> None:
        client = await scene.ask(f"any{number}", stream=number % 2 == 0, tokens=8, pace_ms=10)
        await asyncio.sleep(number * 0.6 / clients)
        client.hang_up()

    await asyncio.gather(*(leave(number) for number in range(clients)))
    asked = [name for name in map("any{}".format, range(clients)) if scene.tried(name)]
    assert len(asked) > clients // 4
    statuses = [await scene.check(name) for name in asked]
    assert statuses.count("client_left") > clients // 4
    used = {level["name"]: level["used"] for level in (await scene.server.get("/v1/limits"))["data"]}
    assert used["concurrent requests"] == 0
    total = (await scene.server.get("/v1/usage"))["cost"]["micros"]
    assert used["budget in total"] == total
    truth = sum(one.prompt_tokens * MICROS[0] + one.tokens * MICROS[1] for name in asked for one in scene.tried(name))
    assert total == truth


async def test_a_server_that_is_killed_while_it_drains_enters_the_turn_once_and_does_not_go_on_with_it(
    scene: Scene,
) -> None:
    await scene.leave_in_round("killed", 2, 0.2, stream=True)
    await until(lambda: scene.is_cancelled("killed"))
    await scene.server.kill()
    first, second = scene.tried("killed")
    assert first.reported
    assert not second.reported, "the machine is too slow for this moment"
    await scene.server.start()
    entry = await scene.entry("killed")
    assert (entry["status"], entry["estimated"]) == ("unknown", True)
    assert entry["prompt_tokens"] >= first.prompt_tokens
    assert entry["completion_tokens"] > first.tokens, "at what is reserved for the round that nobody saw the end of"
    assert (await scene.run("killed"))["status"] == "cancelled"
    assert (len(scene.tried("killed")), scene.upstream.effects) == (2, ["killed"])
    assert len(await scene._entries("killed")) == 1


async def test_a_server_that_is_stopped_lets_a_short_drain_end_and_cuts_off_a_long_one(scene: Scene) -> None:
    short, long = await scene.ask("short", stream=True), await scene.ask("long", stream=False, tokens=500)
    await until(lambda: answer(all(map(scene.tried, ("short", "long")))))
    short.hang_up()
    long.hang_up()
    await until(lambda: scene.is_cancelled("short"))
    await until(lambda: scene.is_cancelled("long"))
    await scene.server.stop()
    await scene.server.start()
    assert await scene.check("short", 1, 0) == "client_left"
    entry, (attempt,) = await scene.entry("long"), scene.tried("long")
    assert (entry["status"], entry["estimated"]) == ("client_left", True)
    assert entry["prompt_tokens"] > 0
    assert attempt.left


async def test_a_run_that_a_stop_cuts_off_is_drained_here_and_goes_on_there_and_each_has_its_own(scene: Scene) -> None:
    client = await scene.ask("stays", stream=True)
    await until(lambda: answer(len(scene.tried("stays")) == 2))
    await scene.server.stop()
    client.hang_up()
    await scene.server.start()

    async def is_over() -> bool:
        return (await scene.run("stays"))["status"] == "done" and len(await scene._entries("stays")) == 2

    await until(is_over)
    tried, entries = scene.tried("stays"), await scene._entries("stays")
    assert all(one.reported and not one.left for one in tried), tried
    assert len(tried) == ROUNDS + 1, "the round that was drained is asked for again, as its run has not got it"
    assert {entry["status"] for entry in entries} == {"client_left", "ok"}
    assert sum(entry["prompt_tokens"] for entry in entries) == sum(one.prompt_tokens for one in tried)
    assert sum(entry["completion_tokens"] for entry in entries) == sum(one.tokens for one in tried)
    assert not any(entry["estimated"] for entry in entries)
    assert scene.upstream.effects == ["stays"] * (ROUNDS - 1)
