"""Reads many streams at once; prints frames/s and the p99 gap between frames. Run: python FILE PORT KEY STREAMS S."""

from __future__ import annotations

import asyncio
import json
import sys
from array import array
from typing import cast

import uvloop

WARM_UP_S = 3.0
BODY = b'{"model":"bench","stream":true,"messages":[{"role":"user","content":"talk"}]}'


class Reader(asyncio.Protocol):
    """One stream: counts its frames and the gaps between reads that held any."""

    counting = False
    frames = 0
    broken = 0

    def __init__(self, key: str, gaps: array[float], loop: asyncio.AbstractEventLoop) -> None:
        self._key = key
        self._gaps = gaps
        self._loop = loop
        self._last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        cast("asyncio.Transport", transport).write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (self._key.encode(), len(BODY), BODY)
        )

    def data_received(self, data: bytes) -> None:
        """Count what came; one frame holds the word once."""
        found = data.count(b'" word"')
        if not found:
            return
        now = self._loop.time()
        if Reader.counting:
            Reader.frames += found
            if self._last:
                self._gaps.append(now - self._last)
        self._last = now

    def connection_lost(self, exc: Exception | None) -> None:
        """Note a stream that broke."""
        del exc
        Reader.broken += Reader.counting


async def main(port: int, key: str, streams: int, seconds: float) -> None:
    """Open the streams, warm up, count, print."""
    loop = asyncio.get_running_loop()
    gaps: array[float] = array("d")
    transports = []
    for _ in range(streams):
        transport, _ = await loop.create_connection(lambda: Reader(key, gaps, loop), "127.0.0.1", port)
        transports.append(transport)
    await asyncio.sleep(WARM_UP_S)
    Reader.counting = True
    began = loop.time()
    await asyncio.sleep(seconds)
    Reader.counting = False
    passed = loop.time() - began
    ordered = sorted(gaps)
    found = {
        "frames_s": Reader.frames / passed,
        "gap_p99_ms": ordered[int(len(ordered) * 0.99)] * 1000 if ordered else 0.0,
        "broken": Reader.broken,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    for transport in transports:
        transport.abort()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
