"""An upstream whose streams send one frame each 20 ms, as steadily as this machine allows. Run: python FILE PORT."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

PACE_S = 0.02
GROUPS = 20
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _frame(delta: bytes, finish: bytes = b"null") -> bytes:
    return _chunk(
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
        b'"choices":[{"index":0,"delta":{%b},"logprobs":null,"finish_reason":%b}]}\n\n' % (delta, finish)
    )


FIRST = _frame(b'"role":"assistant","content":""')
WORD = _frame(b'"content":" word"')


class Streams:
    """All open streams, in groups; each millisecond one group gets its frame."""

    def __init__(self) -> None:
        self.groups: list[set[asyncio.Transport]] = [set() for _ in range(GROUPS)]
        self.opened = 0

    async def run(self) -> None:
        """Write for ever, catching up when late."""
        loop = asyncio.get_running_loop()
        due, turn = loop.time(), 0
        while True:
            for transport in self.groups[turn % GROUPS]:
                transport.write(WORD)
            turn += 1
            due += PACE_S / GROUPS
            await asyncio.sleep(max(0.0, due - loop.time()))


class Talker(asyncio.Protocol):
    """One connection: any request opens an endless stream, except a probe."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._group: set[asyncio.Transport] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Begin to talk."""
        assert self._transport is not None
        if data.startswith(b"GET"):
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        elif self._group is None and b"\r\n\r\n" in data:
            self._transport.write(HEAD + FIRST)
            self._group = self._streams.groups[self._streams.opened % GROUPS]
            self._streams.opened += 1
            self._group.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop."""
        del exc
        if self._group is not None and self._transport is not None:
            self._group.discard(self._transport)


async def main(port: int) -> None:
    """Serve until killed."""
    streams = Streams()
    await asyncio.get_running_loop().create_server(lambda: Talker(streams), "127.0.0.1", port, backlog=4096)
    await streams.run()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
