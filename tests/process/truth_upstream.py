"""An upstream that knows the truth: an OpenAI-compatible double that remembers what it generated for every request.

The prompt says what is to happen, `truth id=r7 tokens=20 pace_ms=5 fault=break at=7`, so a client decides and the
double needs no configuration. A token is three bytes, which is what the stated estimate counts as one: whoever
estimates what came gets the very number of tokens. Faults: `none`; `refuse` (hangs up unanswered), `500`; in
mid-answer, after `at` tokens, `break` (a reset) and `stall` (silence until the other side leaves); `mute` answers
without usage. With `calls=2` behind that the first two rounds of an agentic turn end in a call of the tool `effect`,
whose outside is here too, at `/effect`: it takes `effect_s` and is remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from dataclasses import dataclass
from typing import Any, Final

from loopback import Loopback

TOKEN: Final = "ab "
STALL_S: Final = 30.0
_ASKED: Final = re.compile(r"truth id=(\w+) tokens=(\d+) pace_ms=(\d+) fault=(\w+) at=(\d+)(?: calls=(\d+))?")
_PLAIN: Final = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(kw_only=True)
class Attempt:
    """One request as the upstream saw it. Times are Unix seconds."""

    id: str
    stream: bool
    fault: str
    prompt_tokens: int
    tokens: int
    """What a whole answer has."""
    written: int = 0
    """Tokens handed to the connection before it was closed; of a whole answer all or none."""
    reported: bool = False
    """Usage was written, and so was all before it."""
    left: bool = False
    """The other side closed before the answer was whole."""
    ended_at: float = 0.0
    """When it was over, however; 0: it is under way."""


def prompt_of(name: str, tokens: int, pace_ms: int, fault: str = "none", at: int = 0, calls: int = 0) -> str:
    """Return the prompt that orders an answer."""
    ordered = f"truth id={name} tokens={tokens} pace_ms={pace_ms} fault={fault} at={at}"
    return f"{ordered} calls={calls}" if calls else ordered


class TruthUpstream(Loopback):
    """The double, on a loopback port of its own. `attempts` has all it was asked, by the id in the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: dict[str, list[Attempt]] = {}
        self.effects: list[str] = []
        """Whose effects were begun, by the id in the prompt, in their order."""
        self.effect_s = 0.0

    @property
    def under_way(self) -> int:
        """How many answers are being written."""
        return sum(not one.ended_at for tried in self.attempts.values() for one in tried[-1:])

    @property
    def base_url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                while not writer.is_closing():
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = re.search(rb"content-length: *(\d+)", head)
                    body = await reader.readexactly(int(length[1]) if length else 0)
                    if b"/effect " in head.partition(b"\r\n")[0]:
                        await self._take_effect(json.loads(body), writer)
                        continue
                    if not body:
                        _plain(writer, 200, {"object": "list", "data": []})
                        continue
                    await self._answer(json.loads(body), reader, writer)
            finally:
                writer.close()

    async def _answer(self, asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        contents = [message["content"] or "" for message in asked["messages"]]
        found = next(filter(None, map(_ASKED.search, reversed(contents))), None)
        assert found is not None, contents
        name, tokens, pace_ms, fault, at, calls = found.groups()
        attempt = Attempt(
            id=name,
            stream=bool(asked.get("stream")),
            fault=fault,
            prompt_tokens=sum(len(content.split()) for content in contents),
            tokens=int(tokens),
        )
        self.attempts.setdefault(name, []).append(attempt)
        gone = asyncio.get_running_loop().create_task(reader.read(1))
        number = sum(message["role"] == "tool" for message in asked["messages"]) + 1
        call = {"run": name, "n": number} if number <= int(calls or 0) else None
        answer = _Answer(attempt, asked["model"], int(pace_ms) / 1000, int(at), gone, writer, call)
        try:
            await answer.run()
        finally:
            gone.cancel()
            await asyncio.wait([gone])
            attempt.ended_at = time.time()

    async def _take_effect(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.effects.append(asked["run"])
        await asyncio.sleep(self.effect_s)
        _plain(writer, 200, asked)


class _Answer:
    """One answer being written."""

    def __init__(
        self,
        attempt: Attempt,
        model: str,
        pace_s: float,
        at: int,
        gone: asyncio.Task[bytes],
        writer: asyncio.StreamWriter,
        call: dict[str, Any] | None,
    ) -> None:
        """`call`: the arguments with which the tool is called at the end."""
        self._attempt = attempt
        self._model = model
        self._pace_s = pace_s
        self._at = at
        self._gone = gone
        self._writer = writer
        self._finish = "stop" if call is None else "tool_calls"
        self._calls: dict[str, Any] = {}
        if call is not None:
            function = {"name": "effect", "arguments": json.dumps(call)}
            self._calls["tool_calls"] = [
                {"index": 0, "id": f"call_{call['n']}", "type": "function", "function": function}
            ]

    async def run(self) -> None:
        """Write the answer, or fail as ordered."""
        fault, writer = self._attempt.fault, self._writer
        if fault == "refuse":
            writer.close()
        elif fault == "500":
            _plain(writer, 500, {"error": {"message": "ordered to fail", "type": "server_error"}})
        elif self._attempt.stream:
            await self._stream()
        else:
            await self._whole()

    async def _whole(self) -> None:
        attempt = self._attempt
        if not await self._pause(self._pace_s * attempt.tokens):
            return
        if await self._fails():
            return
        message = {"role": "assistant", "content": TOKEN * attempt.tokens} | self._calls
        reply = self._chunk({"message": message, "finish_reason": self._finish}, "chat.completion")
        if attempt.fault != "mute":
            reply["usage"] = self._usage()
        attempt.written, attempt.reported = attempt.tokens, attempt.fault != "mute"
        _plain(self._writer, 200, reply)

    async def _stream(self) -> None:
        attempt = self._attempt
        self._writer.write(_STREAM)
        self._send(self._chunk({"delta": {"role": "assistant", "content": ""}, "finish_reason": None}))
        for number in range(attempt.tokens):
            if number == self._at and await self._fails():
                return
            if not await self._pause(self._pace_s):
                return
            attempt.written += 1
            self._send(self._chunk({"delta": {"content": TOKEN}, "finish_reason": None}))
        if not await self._pause(self._pace_s):
            return
        self._send(self._chunk({"delta": self._calls, "finish_reason": self._finish}))
        if attempt.fault != "mute":
            self._send(self._chunk(None) | {"usage": self._usage()})
            attempt.reported = True
        self._gone.cancel()  # what comes now is the next request
        self._writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    async def _fails(self) -> bool:
        """Fail in mid-answer if that is ordered."""
        if self._attempt.fault == "break":
            self._writer.transport.abort()
            return True
        if self._attempt.fault == "stall":
            await self._pause(STALL_S)
            self._writer.close()
            return True
        return False

    async def _pause(self, pause_s: float) -> bool:
        """Wait; False if the other side left meanwhile."""
        await asyncio.wait([self._gone], timeout=pause_s)
        if self._gone.done() or self._writer.is_closing():
            self._attempt.left = True
            self._writer.close()
            return False
        return True

    def _send(self, event: dict[str, Any]) -> None:
        frame = b"data: %b\n\n" % json.dumps(event).encode()
        self._writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))

    def _chunk(self, choice: dict[str, Any] | None, kind: str = "chat.completion.chunk") -> dict[str, Any]:
        choices = [] if choice is None else [{"index": 0} | choice]
        return {"id": self._attempt.id, "object": kind, "created": 1, "model": self._model, "choices": choices}

    def _usage(self) -> dict[str, int]:
        prompt, completion = self._attempt.prompt_tokens, self._attempt.tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _plain(writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    writer.write(_PLAIN % (status, len(content)) + content)
