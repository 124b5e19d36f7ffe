"""Streams: 500 at once, one frame each 20 ms; frames relayed per second on one core, and the gap against direct."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from parts import HERE, LOAD_CORE, free_port, gateway, pinned, result, say, upstream_config, wait_http

STREAMS, FRAMES_BAR, GAP_MS_BAR = 500, 24_000, 8.0


def measure(seconds: int = 8) -> bool:
    """Print the figures; return whether all bars hold."""
    port = free_port()
    with pinned([sys.executable, str(HERE / "stream_upstream.py"), str(port)], LOAD_CORE) as upstream:
        wait_http(f"http://127.0.0.1:{port}/health", upstream, 10)
        direct = _load(port, "x", seconds)
        with gateway(upstream_config(port)) as convene:
            through = _load(int(convene.base.rsplit(":", 1)[1]), convene.key, seconds)
            memory = convene.memory_mb()
    say(f"     direct: {direct['frames_s']:.0f} frames/s, gap p99 {direct['gap_p99_ms']:.1f} ms")
    checks = [
        result("streamed frames relayed", through["frames_s"], FRAMES_BAR, unit="frames/s", memory_mb=round(memory)),
        result(
            "gap p99 above direct",
            through["gap_p99_ms"] - direct["gap_p99_ms"],
            GAP_MS_BAR,
            unit="ms",
            most=True,
            gap_p99_ms=round(through["gap_p99_ms"], 1),
        ),
        result("broken streams", through["broken"], 0, unit="", most=True),
    ]
    return all(checks)


def _load(port: int, key: str, seconds: int) -> dict[str, float]:
    core = str(LOAD_CORE % (os.cpu_count() or 1))
    command = ["taskset", "-c", core, sys.executable, str(HERE / "stream_load.py")]
    output = subprocess.run(
        [*command, str(port), key, str(STREAMS), str(seconds)], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, float] = json.loads(output)
    return found
