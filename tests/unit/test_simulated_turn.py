"""Whole turns in simulated weather: the front, a turn and an OpenAI upstream whose network fails as a seed says.

Each seed is one life of an application: some requests at the same time, whole and streamed, some of whose clients
leave. Whatever happens, every request has exactly one well-formed end, every reserved turn is settled exactly once,
and nothing is left running.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import msgspec
import pytest

from bridge import Bridge, Lifespan
from convene.app import App
from convene.config import Config, Edge, Engine, Model, Price, Upstream
from convene.serving.admission import OpenLease
from simulation import Answer, FakeClient, World, draw_answer, run
from unit.providers.upstream_doubles import DONE, USAGE, chunk, whole

if TYPE_CHECKING:
    import random

    from convene.http.base import Request
    from convene.serving.admission import Ask
    from convene.serving.base import Outcome

HOSTS = ("http://one.test/v1", "http://two.test/v1")
SEEDS = 300
"""Lives per run; a failing one says its seed, and `run(live, seed)` plays it again."""
STATUSES = {200, 400, 429, 502, 503, 504}
SSE = (("content-type", "text/event-stream"),)
JSON = (("content-type", "application/json"),)


class Books:
    """An admission that counts what it reserved and how often each lease was settled."""

    def __init__(self) -> None:
        self.leases: list[CountedLease] = []

    async def reserve(self, ask: Ask, outcome: Outcome) -> CountedLease:
        del ask
        await asyncio.sleep(0)
        lease = CountedLease(outcome)
        self.leases.append(lease)
        return lease


class CountedLease(OpenLease):
    """A lease that remembers its settlements."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcomes: list[Outcome] = []
        self._outcome = outcome

    def settle(self) -> None:
        self.outcomes.append(self._outcome)

    async def written(self) -> None:
        assert len(self.outcomes) == 1
        await asyncio.sleep(0)


def draw_reply(source: random.Random, *, stream: bool) -> Answer:
    """Return what a host answers in this weather: mostly a good reply, now and then a refusal."""
    if source.random() < 0.1:
        status = source.choice((400, 401, 429, 500, 502, 503))
        return Answer(status=status, headers=JSON, body=b'{"error": {"message": "no"}}', delay_s=(0.0, 1.0))
    if stream:
        words = [chunk(f"word{n} \u2028") for n in range(source.randrange(1, 12))]
        body = b"".join([*words, chunk(None, finish="stop"), USAGE, DONE])
        return draw_answer(source, Answer(headers=SSE, body=body), 0.4)
    return draw_answer(source, Answer(headers=JSON, body=whole("a whole answer")), 0.4)


def check_stream(text: str) -> bool:
    """Hold a complete stream to its form; return whether it succeeded."""
    assert text.endswith("\n\n")
    blocks = [block for block in text[:-2].split("\n\n") if not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    assert blocks[-1] == "data: [DONE]"
    frames: list[Any] = [msgspec.json.decode(block.removeprefix("data: ")) for block in blocks[:-1]]
    faults = [frame for frame in frames if "error" in frame]
    finishes = [c for frame in frames for c in frame["choices"] if c["finish_reason"] is not None]
    assert len(faults) + len(finishes) == 1
    if faults:
        assert frames[-1] is faults[0]
        assert set(faults[0]["error"]) == {"message", "type", "param", "code"}
        return False
    assert frames[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(c["delta"].get("content", "") for frame in frames for c in frame["choices"]).startswith("word0")
    return True


def check_answer(answer: httpx2.Response, text: str, *, stream: bool) -> str:
    """Hold a whole answer to its form; return what became of the request."""
    assert answer.status_code in STATUSES, text
    if answer.status_code != 200:
        body = msgspec.json.decode(text)
        assert set(body) == {"error", "message"}
        assert body["error"]["message"] == body["message"]
        return f"status {answer.status_code}"
    if stream:
        return "streamed" if check_stream(text) else "broken stream"
    reply = msgspec.json.decode(text)
    assert "error" not in reply
    assert reply["choices"][0]["message"]["content"] == "a whole answer"
    assert reply["usage"]["total_tokens"] > 0
    return "whole"


async def ask(world: World, http: httpx2.AsyncClient, name: str) -> str:
    """Send one request; its client may leave at some moment. Return what became of it."""
    source = world.source(name)
    stream = source.random() < 0.6
    leaves_at_s = source.uniform(0, 20) if source.random() < 0.25 else None
    body = {"model": "far", "messages": [{"role": "user", "content": name}], "stream": stream}
    await asyncio.sleep(source.uniform(0, 2))
    try:
        async with (
            asyncio.timeout(leaves_at_s),
            http.stream("POST", "/v1/chat/completions", json=body, headers={"host": "localhost"}) as answer,
        ):
            text = (await answer.aread()).decode()
    except TimeoutError:
        return "left"
    return check_answer(answer, text, stream=stream)


def configured(retries: int, on_disconnect: Literal["cancel", "drain", "free"] = "cancel") -> Config:
    """Return a configuration with one model on two hosts."""
    upstream = Upstream(
        base_urls=HOSTS,
        retries=retries,
        first_token_s=10,
        between_tokens_s=5,
        on_disconnect=on_disconnect,
    )
    return Config(
        auth="none",
        data_dir=Path("never-used"),
        cache_dir=Path("never-used"),
        engine=Engine(enabled=False),
        edge=Edge(ping_s=2, first_event_s=3),
        upstreams={"up": upstream},
        models={"far": Model(upstream=("up",))},
        prices={"far": Price(input=3.0, output=7.0, request=0.5)},
    )


async def live(world: World) -> dict[str, int]:
    """One application's life; returns how often each end came."""
    source = world.source("weather")

    def play(request: Request) -> Answer:
        return draw_reply(source, stream=msgspec.json.decode(request.body)["stream"])

    books = Books()
    client = FakeClient(world, {f"{host}/chat/completions": play for host in HOSTS})
    config = configured(retries=source.randrange(3))
    lines: list[bytes] = []
    app = App(config, world.clock, lines.append, lambda _: client, books)
    bridge = Bridge(app.front)
    async with (
        Lifespan(app.front),
        httpx2.AsyncClient(transport=bridge, base_url="http://sim.test", timeout=None) as http,
    ):
        asking = [asyncio.create_task(ask(world, http, f"request {n}")) for n in range(source.randrange(1, 6))]
        ends = await asyncio.gather(*asking)
    assert not bridge.faults
    for lease in books.leases:
        assert len(lease.outcomes) == 1
    logged: list[dict[str, Any]] = [msgspec.json.decode(line) for line in b"".join(lines).splitlines()]
    assert len(logged) == len(ends)
    for line in logged:
        assert line["status"] in STATUSES | {499}
    count: dict[str, int] = {}
    for end in ends:
        count[end] = count.get(end, 0) + 1
    return count


@pytest.mark.req("SSE-15", "SSE-16", "STREAM-12", "SSE-14", "ERRSHAPE-01", "OAI-35")
def test_every_request_of_every_seed_has_exactly_one_well_formed_end() -> None:
    totals: dict[str, int] = {}
    for seed in range(SEEDS):
        for end, times in run(live, seed).items():
            totals[end] = totals.get(end, 0) + times
    for end in ("whole", "streamed", "broken stream", "left", "status 503"):
        assert totals.get(end, 0) >= 5, totals


def test_a_seed_repeats_its_life() -> None:
    assert run(live, 7) == run(live, 7)
