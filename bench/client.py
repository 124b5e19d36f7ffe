"""Requests per second through the upstream client, beside aiohttp where that is installed.

    python bench/client.py [--seconds 3] [--rounds 3] [--callers 32]

Set-up: one process answers every request with the same bytes (a bare asyncio protocol on uvloop, no parser), another
runs the client on uvloop. Where the system has two cores or more each has its own. The candidates take turns, so that a
change in the machine's mood meets all of them; the median round is what counts. Beside the requests per second of the
wall clock stands the processor time of the client's process for each request, which other work on the machine disturbs
far less. Three loads:

    small    a POST of 200 bytes, an answer of 374 bytes with a Content-Length, read whole: the gateway's hot path
    large    an answer of 1 MiB, read whole
    chunks   a chunked answer of 200 frames of 120 bytes sent in one go, iterated

The figures of record are in docs/decisions/0002-upstream-client.md. Needs the package on the path.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import multiprocessing
import os
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import uvloop

from convene.http.base import Request
from convene.http.client import HttpClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from multiprocessing.connection import Connection

    Ask = Callable[[], Awaitable[int]]

_BODY: Final = b'{"messages":[{"role":"user","content":"' + b"x" * 158 + b'"}]}'
_FRAME: Final = b'data: {"choices":[{"delta":{"content":"token"}}]}'.ljust(118) + b"\n\n"
_HEADERS: Final = (("content-type", "application/json"), ("authorization", "Bearer sk-" + "0" * 40))


def _counted(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _streamed(frames: int) -> bytes:
    chunk = b"%x\r\n%b\r\n" % (len(_FRAME), _FRAME)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * frames + b"0\r\n\r\n"


class _Canned(asyncio.Protocol):
    """Answers by the path's first letter, one answer for each read: no request here is larger than one read."""

    ANSWERS: Final = {b"s": _counted(b"x" * 374), b"l": _counted(bytes(1 << 20)), b"c": _streamed(200)}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.write(self.ANSWERS[data[6:7]])


def _pin(core: int) -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[core % len(cores)]})


def _serve(pipe: Connection) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Canned, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, pipe.recv)
        server.close()

    _pin(1)
    uvloop.run(main())


async def _measure(ask: Ask, seconds: float, callers: int) -> tuple[float, float]:
    """Let `callers` ask one after the other; return requests per second and processor seconds per request."""
    done = 0
    size = await ask()
    spent = time.process_time()
    began = time.perf_counter()
    end = began + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            assert await ask() == size
            done += 1

    await asyncio.gather(*[caller() for _ in range(callers)])
    return done / (time.perf_counter() - began), (time.process_time() - spent) / done


async def _own(url: str, seconds: float, callers: int, *, iterate: bool) -> tuple[float, float]:
    client = HttpClient()
    request = Request("POST", url, _HEADERS, _BODY)

    async def ask() -> int:
        response = await client.send(request)
        size = 0
        if iterate:
            async for chunk in response.chunks():
                size += len(chunk)
        else:
            size = len(await response.read(1 << 24))
        response.close()
        return size

    try:
        return await _measure(ask, seconds, callers)
    finally:
        await client.aclose()


async def _aiohttp(url: str, seconds: float, callers: int, *, iterate: bool) -> tuple[float, float]:
    aiohttp: Any = importlib.import_module("aiohttp")
    headers = dict(_HEADERS)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1024)) as session:

        async def ask() -> int:
            size = 0
            async with session.post(url, data=_BODY, headers=headers) as response:
                if iterate:
                    async for chunk in response.content.iter_any():
                        size += len(chunk)
                else:
                    size = len(await response.read())
            return size

        return await _measure(ask, seconds, callers)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, default=32)
    options = parser.parse_args()
    candidates = {"convene": _own}
    if importlib.util.find_spec("aiohttp"):
        candidates["aiohttp"] = _aiohttp
    else:
        print("aiohttp is not installed: measuring the own client alone")
    here, there = multiprocessing.Pipe()
    upstream = multiprocessing.Process(target=_serve, args=(there,), daemon=True)
    upstream.start()
    url = f"http://127.0.0.1:{here.recv()}/"
    _pin(0)
    print(f"{options.callers} callers, {options.rounds} rounds of {options.seconds:g} s; median (least-most)")
    for load in ("small", "large", "chunks"):
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
        for _ in range(options.rounds):
            for name, run in candidates.items():
                measured = uvloop.run(run(url + load, options.seconds, options.callers, iterate=load == "chunks"))
                rounds[name].append(measured)
        for name, pairs in rounds.items():
            rates, costs = zip(*pairs, strict=True)
            spread = f"{min(rates):,.0f}-{max(rates):,.0f}"
            print(
                f"{load:<7} {name:<8} {statistics.median(rates):>8,.0f} requests/s ({spread})"
                f"  {statistics.median(costs) * 1e6:>6,.1f} us of processor each"
            )
    here.send(None)
    upstream.join()


if __name__ == "__main__":
    main()
