"""Agents whose own time is known: `agent_double.py PORT SERVER`. Started by `agents.py`.

They take envelopes at /submit, check their signature, acknowledge, and answer with the same text and an end mark, by
the product's own codec and keys. What passes between the last byte of a question and the first byte of its answer is
an agent's own time; /times tells it for each question. /hold/N makes all wait with their answers for N questions.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Final

import uvloop

from convene.agent_identity import Identity, verify_digest
from convene.agents import chat_codec as codec
from convene.agents.envelope import read_envelope, seal

if TYPE_CHECKING:
    from convene.agents.envelope import Draft, Envelope

CONNECTIONS: Final = 64
AGENTS: Final = 50
SEED: Final = "agent {number} of the benchmark"
OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Poster:
    """Posts over kept connections to one server, at most `CONNECTIONS` at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._slots = asyncio.Semaphore(CONNECTIONS)

    async def send(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send a request and return the body of the answer."""
        async with self._slots:
            while True:
                kept = bool(self._idle)
                reader, writer = self._idle.popleft() if kept else await asyncio.open_connection(self._host, self._port)
                head = (
                    f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\ncontent-type: application/json\r\n"
                )
                writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                try:
                    lines = (await reader.readuntil(b"\r\n\r\n")).lower()
                except (asyncio.IncompleteReadError, ConnectionError):
                    writer.close()
                    if kept:
                        continue  # the server closes a connection that was idle, or has served its number
                    raise
                length = int(lines.partition(b"content-length:")[2].split(b"\r\n")[0])
                answer = await reader.readexactly(length)
                self._idle.append((reader, writer))
                assert lines.startswith(b"http/1.1 200"), (path, lines, answer)
                return answer


def identities() -> list[Identity]:
    """Return who the agents are."""
    return [Identity.from_seed(SEED.format(number=number)) for number in range(AGENTS)]


class Double:
    """The agents."""

    def __init__(self, poster: Poster) -> None:
        self._all = {one.address: one for one in identities()}
        self.times: dict[str, float] = {}
        self._poster = poster
        self._inboxes: dict[str, asyncio.Task[str]] = {}
        self._hold = 0
        self._held: list[tuple[Envelope, str]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            body = await reader.readexactly(int(length or b"0"))
            came = time.perf_counter()
            path = head.split(b" ", 2)[1].decode()
            if path == "/times":
                said = json.dumps(self.times).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said)
                self.times = {}
                continue
            writer.write(OK)
            if path.startswith("/hold/"):
                self._hold = int(path.rpartition("/")[2])
            elif body:
                self._take(body, came)

    def _take(self, body: bytes, came: float) -> None:
        envelope = read_envelope(body)
        assert envelope.target in self._all
        assert verify_digest(envelope.sender, envelope.digest(), envelope.signature or "")
        said = codec.read_message(envelope.schema_digest, envelope.body())
        if not isinstance(said, codec.ChatMessage):
            return
        text = "".join(part.text for part in said.content if isinstance(part, codec.Text))
        acknowledged = codec.write_acknowledgement(said.msg_id, at=time.time())
        self._start(self._reply(envelope, acknowledged, "", came))
        self._held.append((envelope, text))
        if len(self._held) >= self._hold:
            held, self._held, self._hold = self._held, [], 0
            for one, words in held:
                draft = codec.write_chat(
                    [codec.Text(words), codec.EndSession()], msg_id=str(uuid.uuid4()), at=time.time()
                )
                self._start(self._reply(one, draft, words, came))

    def _start(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]  # a coroutine
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, envelope: Envelope, draft: Draft, text: str, came: float) -> None:
        """Post to whoever asked; `text` names an answer, whose time is noted."""
        me = self._all[envelope.target]
        sealed = seal(draft, me.address, envelope.sender, envelope.session, me.sign_digest)
        inbox = self._inboxes.get(envelope.sender)
        if inbox is None:
            inbox = self._inboxes[envelope.sender] = asyncio.ensure_future(self._resolve(envelope.sender))
        path = await inbox
        if text:
            self.times[text] = time.perf_counter() - came
        await self._poster.send("POST", path, sealed)

    async def _resolve(self, address: str) -> str:
        record = json.loads(await self._poster.send("GET", f"/v1/almanac/agents/{address}"))
        return "/" + str(record["endpoints"][0]["url"]).split("/", 3)[3]


async def _main(port: int, server: int) -> None:
    double = Double(Poster("127.0.0.1", server))
    listening = await asyncio.start_server(double.serve, "127.0.0.1", port, backlog=1024)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2])))
