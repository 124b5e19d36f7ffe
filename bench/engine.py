"""The embedded engine: tokens per second through Convene as a share of the same child asked directly, in turns."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import uvloop

from convene.app import App
from convene.clock import SystemClock
from convene.config import load
from convene.http.server import Server
from parts import result, say

RATIO_BAR = 0.95
PROMPT = "Write a long story about a lighthouse keeper and the sea."


def measure(rounds: int = 6, tokens: int = 128) -> bool:
    """Print the figure; return whether the bar holds. Each round asks both; the median ratio counts."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ratios = runner.run(_compare(rounds, tokens))
    return result("engine through Convene / direct", statistics.median(ratios), RATIO_BAR, unit="ratio")


async def _compare(rounds: int, tokens: int) -> list[float]:
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"auth": "none", "access_log": "false", "data_dir": folder, "engine.embeddings": "false"}
        app = App(load(settings, {"HOME": str(Path.home())}, Path(folder)), clock, len)
        server = Server(app.front, new_id=lambda: clock.new_id("req_"), wall_now=clock.now)
        await server.start(port=0)
        child = await app.deployments.engines[0].wait_ready(600)
        ours = f"http://127.0.0.1:{server.port}/v1"
        ratios: list[float] = []
        for turn in range(rounds + 1):
            direct = await asyncio.to_thread(_ask, f"{child.base_url}/v1", child.api_key, tokens)
            through = await asyncio.to_thread(_ask, ours, "none", tokens)
            if turn:  # the first round warms up
                ratios.append(through / direct)
                say(f"     round {turn}: direct {direct:.1f} tokens/s, through Convene {through:.1f} tokens/s")
        await server.stop()
    return ratios


def _ask(base: str, key: str, tokens: int) -> float:
    """Return the tokens per second of one streamed answer, request to last byte."""
    body: dict[str, Any] = {
        "model": "asi1",
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "max_tokens": tokens,
    }
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{base}/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310 - loopback
        frames = answer.read().decode().split("\n\n")
    passed = time.perf_counter() - began
    usage = next(json.loads(frame[6:])["usage"] for frame in reversed(frames) if '"usage":{' in frame)
    return float(usage["completion_tokens"]) / passed
