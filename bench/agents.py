"""Agents: what asking one costs beyond its own time, many conversations at once, and the registry's pace.

The server has core 0; the agents (`agent_double.py`), which know their own time, and the load share core 1. Questions
are addressed to an agent, so no model takes part. One agent is asked 16 at a time by one caller, so the many
conversations are with fifty. Registrations are signed beforehand, each by an agent of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import statistics
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import uvloop

from agent_double import Poster, identities
from convene.agent_identity import Identity
from parts import GATEWAY_CORE, HERE, LOAD_CORE, free_port, gateway, pinned, result, say, upstream_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parts import Gateway

OVERHEAD_MS_BAR, REGISTRATIONS_BAR, RESOLVES_BAR = 20.0, 500.0, 3_000.0
WARM, QUESTIONS, AT_ONCE, AGENTS, RESOLVES, CALLERS = 30, 400, 500, 3_000, 20_000, 16
WAIT_S: Final = 60.0
CHAT: Final = "proto:30a801ed3a83f9a0ff0a9f1e6fe958cb91da1fc2218b153df7b6cbf87bd33d62"


def measure() -> bool:
    """Print the figures; return whether all bars hold."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE % (os.cpu_count() or 1)})
    try:
        port = free_port()
        with gateway(upstream_config(9), GATEWAY_CORE) as served:
            server = served.base.rpartition(":")[2]
            command = [sys.executable, str(HERE / "agent_double.py"), str(port), server]
            with pinned(command, LOAD_CORE):
                return uvloop.run(_measure(served, port))
    finally:
        os.sched_setaffinity(0, before)


async def _measure(served: Gateway, port: int) -> bool:
    host, server = "127.0.0.1", int(served.base.rpartition(":")[2])
    agent = Poster(host, port)
    while True:
        try:
            await agent.send("GET", "/times")
            break
        except OSError:
            await asyncio.sleep(0.05)
    poster = Poster(host, server)
    for one in identities():
        await poster.send("POST", "/v1/almanac/agents", _registration(one, f"http://{host}:{port}/submit"))
    asking = _Asking(host, server, served.key)
    holds = (
        await _overhead(served, asking, agent),
        await _at_once(asking, agent),
        *await _registry(served, poster),
    )
    return all(holds)


class _Asking:
    """Asks agents through the server."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self._host = host
        self._port = port
        self._key = key
        self._agents = [one.address for one in identities()]

    async def ask(self, text: str, agent: int = 0) -> tuple[str, float]:
        """Return the answer and how long it took in seconds, the connection not counted."""
        body = {
            "model": "bench",
            "messages": [{"role": "user", "content": f"@{self._agents[agent % len(self._agents)]} {text}"}],
        }
        sent = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {self._key}\r\n"
        head += f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(sent)}\r\n\r\n"
        reader, writer = await asyncio.open_connection(self._host, self._port)
        began = time.perf_counter()
        writer.write(head.encode() + sent)
        answer = await reader.read()
        took = time.perf_counter() - began
        writer.close()
        reply = json.loads(answer.partition(b"\r\n\r\n")[2])
        return (str(reply["choices"][0]["message"]["content"]) if "choices" in reply else str(reply)), took


async def _overhead(served: Gateway, asking: _Asking, agent: Poster) -> bool:
    async with asyncio.timeout(WAIT_S):
        while (await asking.ask("there?"))[0] != "there?":  # noqa: ASYNC110 -- the index has to see it
            await asyncio.sleep(0.1)
    for number in range(WARM):
        await asking.ask(f"warm {number}")
    await agent.send("GET", "/times")
    took, before = {}, served.cpu_s()
    for number in range(QUESTIONS):
        text = f"question {number}"
        said, took[text] = await asking.ask(text)
        assert said == text, said
    cpu_ms = (served.cpu_s() - before) / QUESTIONS * 1000
    own: dict[str, float] = json.loads(await agent.send("GET", "/times"))
    over = sorted((took[text] - own[text]) * 1000 for text in took)
    p50, p95 = statistics.median(over), over[int(len(over) * 0.95)]
    say(f"     the agent's own time {statistics.median(own.values()) * 1000:.2f} ms p50")
    say(f"     the server's processor time {cpu_ms:.2f} ms a call")
    return result("overhead of an agent call, p50", p50, OVERHEAD_MS_BAR, unit="ms", most=True, p95=f"{p95:.2f}")


async def _at_once(asking: _Asking, agent: Poster) -> bool:
    """All questions are with the agent before it answers the first."""
    await agent.send("GET", f"/hold/{AT_ONCE}")
    began = time.perf_counter()
    texts = [f"conversation {number}" for number in range(AT_ONCE)]
    answers = await asyncio.gather(
        *(asking.ask(text, number) for number, text in enumerate(texts)), return_exceptions=True
    )
    right = [one for one, text in zip(answers, texts, strict=True) if isinstance(one, tuple) and one[0] == text]
    wrong = [one for one, text in zip(answers, texts, strict=True) if not (isinstance(one, tuple) and one[0] == text)]
    for words, times in Counter(
        str(one[0] if isinstance(one, tuple) else repr(one))[:150] for one in wrong
    ).most_common(3):
        say(f"     {times} lost: {words}")
    seconds = time.perf_counter() - began
    return result(f"of {AT_ONCE} conversations in flight answered", len(right), AT_ONCE, unit="", s=f"{seconds:.1f}")


async def _registry(served: Gateway, poster: Poster) -> tuple[bool, bool]:
    agents = [Identity.from_seed(f"agent {number}") for number in range(AGENTS)]
    bodies = [_registration(one, f"http://127.0.0.1:9/{number}") for number, one in enumerate(agents)]
    posts = [("POST", "/v1/almanac/agents", body) for body in bodies]
    registrations = await _rate(served, poster, posts)
    gets = [("GET", f"/v1/almanac/agents/{agents[number % AGENTS].address}", b"") for number in range(RESOLVES)]
    resolves = await _rate(served, poster, gets)
    return (
        result("registrations, signature and store included", registrations, REGISTRATIONS_BAR, unit="/s"),
        result("resolves", resolves, RESOLVES_BAR, unit="/s"),
    )


async def _rate(served: Gateway, poster: Poster, requests: Sequence[tuple[str, str, bytes]]) -> float:
    """Send all from `CALLERS` callers, each its next once it has an answer; return how many a second were served."""
    left = iter(requests)

    async def call() -> None:
        for method, path, body in left:
            await poster.send(method, path, body)

    began, before = time.perf_counter(), served.cpu_s()
    await asyncio.gather(*(call() for _ in range(CALLERS)))
    seconds = time.perf_counter() - began
    say(f"     the server's processor time {(served.cpu_s() - before) / len(requests) * 1e6:.0f} us a request")
    return len(requests) / seconds


def _registration(me: Identity, url: str) -> bytes:
    """Return what an agent posts when it starts (REG-10)."""
    body: dict[str, object] = {
        "agent_identifier": f"agent://{me.address}",
        "endpoints": [{"url": url, "weight": 1}],
        "metadata": None,
        "protocols": [CHAT],
        "timestamp": int(time.time()),
    }
    signed = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).digest()
    return json.dumps(body | {"signature": me.sign_digest(signed)}).encode()
