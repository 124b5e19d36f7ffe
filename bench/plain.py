"""Plain requests: throughput as a share of nginx proxy_pass in one run, latency added at half load, start, memory."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import cast

import uvloop

from parts import (
    BODY,
    GATEWAY_CORE,
    LOAD_CORE,
    canned_config,
    free_port,
    gateway,
    nginx,
    proxy_config,
    result,
    say,
    upstream_config,
    wrk,
)

RATIO_BAR, ADDED_P99_MS_BAR, READY_S_BAR, MEMORY_MB_BAR = 0.22, 3.0, 1.0, 80.0


def measure(seconds: int = 6, rounds: int = 3) -> bool:
    """Print the figures; return whether all bars hold. Rounds alternate, the median ratio counts."""
    upstream, proxy = free_port(), free_port()
    with nginx(canned_config(upstream), LOAD_CORE, upstream):
        with gateway(upstream_config(upstream)) as convene:
            time.sleep(1)
            memory = convene.memory_mb()
            ready = convene.ready_s
        ratios: list[float] = []
        ours: list[dict[str, float]] = []
        for turn in range(rounds):
            with nginx(proxy_config(proxy, upstream), GATEWAY_CORE, proxy):
                wrk(f"http://127.0.0.1:{proxy}", "x", 1)
                yardstick = wrk(f"http://127.0.0.1:{proxy}", "x", seconds)
            with gateway(upstream_config(upstream)) as convene:
                wrk(convene.base, convene.key, 1)
                mine = wrk(convene.base, convene.key, seconds)
                added = asyncio.Runner(loop_factory=uvloop.new_event_loop)
                with added:
                    late = added.run(_added(upstream, convene.base, convene.key, mine["req_s"] / 2, seconds))
            ratios.append(mine["req_s"] / yardstick["req_s"])
            ours.append(mine | {"added_p99_ms": late})
            say(
                f"     round {turn + 1}: nginx {yardstick['req_s']:.0f}/s p99 {yardstick['p99_ms']:.2f} ms, "
                f"convene {mine['req_s']:.0f}/s p99 {mine['p99_ms']:.2f} ms, errors {mine['errors']:.0f}"
            )
    late_ms = statistics.median(one["added_p99_ms"] for one in ours)
    rate = statistics.median(one["req_s"] for one in ours)
    errors = sum(one["errors"] for one in ours)
    checks = [
        result(
            "plain requests / nginx proxy_pass", statistics.median(ratios), RATIO_BAR, unit="ratio", req_s=int(rate)
        ),
        result("added latency p99 at half load", late_ms, ADDED_P99_MS_BAR, unit="ms", most=True),
        result("start to ready", ready, READY_S_BAR, unit="s", most=True),
        result("idle memory", memory, MEMORY_MB_BAR, unit="MB", most=True),
        result("failed requests", errors, 0, unit="", most=True),
    ]
    return all(checks)


async def _added(upstream: int, base: str, key: str, rate: float, seconds: int) -> float:
    """Return p99 through the gateway minus p99 direct, open loop: requests leave on time whatever came before."""
    port = int(base.rsplit(":", 1)[1])
    direct = await _open_loop(upstream, "x", rate, seconds)
    through = await _open_loop(port, key, rate, seconds)
    return (statistics.quantiles(through, n=100)[98] - statistics.quantiles(direct, n=100)[98]) * 1000


async def _open_loop(port: int, key: str, rate: float, seconds: int) -> list[float]:
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
    ).encode()
    waits: list[float] = []
    free: list[_Line] = []
    loop = asyncio.get_running_loop()
    for _ in range(128):
        _, line = await loop.create_connection(lambda: _Line(waits, free, loop), "127.0.0.1", port)
        free.append(line)
    began = loop.time()
    sent = 0
    while (passed := loop.time() - began) < seconds:
        due = int(passed * rate)
        while sent < due and free:
            free.pop().ask(request, began + sent / rate)
            sent += 1
        await asyncio.sleep(0.0005)
    await asyncio.sleep(0.2)
    return waits


class _Line(asyncio.Protocol):
    """One kept connection with at most one request under way; a request waits from when it was due."""

    def __init__(self, waits: list[float], free: list[_Line], loop: asyncio.AbstractEventLoop) -> None:
        self._waits = waits
        self._free = free
        self._loop = loop
        self._due = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes, due: float) -> None:
        """Send one request that was due at loop time `due`."""
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Count an answer as one read: it is far smaller than a segment on loopback."""
        assert data.startswith(b"HTTP/1.1 200"), data[:200]
        self._waits.append(self._loop.time() - self._due)
        self._free.append(self)
