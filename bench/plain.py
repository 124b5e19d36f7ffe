"""Plain requests: throughput as a share of nginx proxy_pass in one run, latency added at half load, start, memory."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

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

CLIENTS = 16
BARE_BAR, WHOLE_BAR, BOOKS_US_BAR = 0.22, 0.16, 25.0
ADDED_P99_MS_BAR, READY_S_BAR, MEMORY_MB_BAR = 3.0, 1.0, 80.0


def measure(seconds: int = 6, rounds: int = 3) -> bool:
    """Print the figures; return whether all bars hold. Rounds alternate, the median of the ratios counts.

    `bare` is the gateway without limits and ledger, `whole` the program as it is; the difference of their processor
    time a request is what limits and ledger cost.
    """
    upstream, proxy = free_port(), free_port()
    with nginx(canned_config(upstream), LOAD_CORE, upstream):
        with gateway(upstream_config(upstream)) as convene:
            time.sleep(1)
            memory = convene.memory_mb()
            ready = convene.ready_s
        found: list[dict[str, float]] = []
        for turn in range(rounds):
            with nginx(proxy_config(proxy, upstream), GATEWAY_CORE, proxy):
                wrk(f"http://127.0.0.1:{proxy}", "x", 1)
                yardstick = wrk(f"http://127.0.0.1:{proxy}", "x", seconds)
            bare = _load(upstream, seconds, books=False)
            whole = _load(upstream, seconds, books=True)
            found.append(
                {
                    "bare": bare["req_s"] / yardstick["req_s"],
                    "whole": whole["req_s"] / yardstick["req_s"],
                    "books_us": whole["cpu_us"] - bare["cpu_us"],
                    "bare_late_ms": bare["late_ms"],
                    "late_ms": whole["late_ms"],
                    "errors": whole["errors"] + bare["errors"],
                }
            )
            say(f"     round {turn + 1}: nginx {yardstick['req_s']:.0f}/s p99 {yardstick['p99_ms']:.2f} ms")
            for name, one in (("bare", bare), ("whole", whole)):
                say(f"       {name} {one['req_s']:.0f}/s p99 {one['p99_ms']:.2f} ms, {one['cpu_us']:.1f} us a request")

    def median(name: str) -> float:
        return statistics.median(one[name] for one in found)

    checks = [
        result("plain requests, bare / nginx proxy_pass", median("bare"), BARE_BAR, unit="ratio"),
        result("plain requests, whole / nginx proxy_pass", median("whole"), WHOLE_BAR, unit="ratio"),
        result("limits and ledger, CPU a request", median("books_us"), BOOKS_US_BAR, unit="us", most=True),
        result("added latency p99 at half load, bare", median("bare_late_ms"), ADDED_P99_MS_BAR, unit="ms", most=True),
        result("added latency p99 at half load, whole", median("late_ms"), ADDED_P99_MS_BAR, unit="ms", most=True),
        result("start to ready", ready, READY_S_BAR, unit="s", most=True),
        result("idle memory", memory, MEMORY_MB_BAR, unit="MB", most=True),
        result("failed requests", sum(one["errors"] for one in found), 0, unit="", most=True),
    ]
    return all(checks)


def _load(upstream: int, seconds: int, *, books: bool) -> dict[str, float]:
    """Load one gateway; return wrk's figures, the processor time a request and the added p99."""
    with gateway(upstream_config(upstream), books=books) as convene:
        wrk(convene.base, convene.key, 1)
        before = convene.cpu_s()
        mine = wrk(convene.base, convene.key, seconds)
        mine["cpu_us"] = (convene.cpu_s() - before) / (mine["req_s"] * seconds) * 1e6
        mine["late_ms"] = _added_p99_ms(upstream, convene.base, convene.key, mine["req_s"] / 2, seconds)
        return mine


def _added_p99_ms(upstream: int, base: str, key: str, rate: float, seconds: int) -> float:
    """Return p99 through the gateway minus p99 direct; requests leave on time, whatever came before."""
    direct = _late(f"http://127.0.0.1:{upstream}", "x", rate, seconds)
    through = _late(base, key, rate, seconds)
    return through[int(len(through) * 0.99)] - direct[int(len(direct) * 0.99)]


def _late(base: str, key: str, rate: float, seconds: int) -> list[float]:
    """Return the response times in ms, sorted, of `CLIENTS` that send by the clock (h2load, all in phase)."""
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_text(BODY)
        command = ["taskset", "-c", str(LOAD_CORE), "h2load", "--h1", "-t1", f"-c{CLIENTS}", f"-D{seconds}"]
        command += [f"--rps={max(1, round(rate / CLIENTS))}", "-d", str(body), f"--log-file={log}"]
        command += ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
        subprocess.run([*command, f"{base}/v1/chat/completions"], capture_output=True, check=True)
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    assert all(row[1] == "200" for row in rows)
    return sorted(int(row[2]) / 1000 for row in rows)
