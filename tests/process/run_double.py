"""The other side of runs that are killed: a model that calls tools, and what those tools change, in one HTTP double.

A model's round is told by the assistant's messages in the request: rounds 1 to 5 call two tools at once, 6 and 7 one,
round 8 answers: twenty steps. A tool's call arrives as `POST /effect` with the key of its step, or at the tool of an
MCP server (`effect_tool`). Everything is remembered, and the double can stop in any step: before it answers, or a
moment after.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from loopback import Loopback
from mcp_double import DoubleTool, McpDouble

CALLS: Final = (2, 2, 2, 2, 2, 1, 1, 0)
"""How many tools each round calls."""
STEPS: Final = len(CALLS) + sum(CALLS)
ANSWER: Final = "All of it is done."
POINTS: Final = tuple(
    (kind, number, moment)
    for kind, count in (("round", len(CALLS)), ("effect", sum(CALLS)))
    for number in range(1, count + 1)
    for moment in ("before", "after")
)
"""Where a run can be killed: in the middle of a step, and at its end."""


def prompt_tokens(number: int) -> int:
    """Return what the model says that it has read in a round."""
    return 100 + number


def completion_tokens(number: int) -> int:
    """Return what the model says that it has written in a round."""
    return 10 + number


@dataclass
class Seen:
    """What one run has done."""

    rounds: Counter[int] = field(default_factory=Counter)
    effects: Counter[int] = field(default_factory=Counter)
    keys: dict[int, set[str]] = field(default_factory=dict)
    """The idempotency keys of each effect."""
    answered: list[tuple[str, int]] = field(default_factory=list)


class RunDouble(Loopback):
    """The double, on a loopback port of its own. `seen` has every run by the word in its prompt."""

    def __init__(self, tool: str = "effect") -> None:
        """`tool`: what the model calls."""
        super().__init__()
        self._tool = tool
        self.seen: dict[str, Seen] = {}
        self.arrivals = 0
        self._stop: tuple[str, int, str] | None = None
        self._delay_s = 0.0
        self._reached = asyncio.Event()
        self._never = asyncio.Event()

    @property
    def base_url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def stop_at(self, kind: str, number: int, moment: str, delay_s: float = 0.0) -> None:
        """Stop at the first arrival of this step: `before` it is answered, or `after`, so many seconds later."""
        self._stop = (kind, number, moment)
        self._delay_s = delay_s
        self._reached.clear()

    async def reached(self) -> None:
        """Wait until it has stopped there."""
        await self._reached.wait()

    def effect_tool(self, server: McpDouble) -> DoubleTool:
        """Return the tool with an effect, for an MCP server, which knows the keys."""

        async def effect(run: str, n: int) -> str:
            seen = self._seen(run)
            seen.effects[n] += 1
            called = [one for one in server.calls if one.arguments == {"run": run, "n": n}]
            seen.keys.setdefault(n, set()).update(one.key for one in called)
            if self._stop == ("effect", n, "before"):
                self._stop = None
                self._reached.set()
                await self._never.wait()
            asyncio.get_running_loop().call_soon(self._answered, seen, "effect", n)
            return f"done {n}"

        integer = {"type": "integer"}
        schema = {"type": "object", "properties": {"run": {"type": "string"}, "n": integer}, "required": ["run", "n"]}
        return DoubleTool(name="effect", run=effect, schema=schema)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                while not writer.is_closing():
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"content-length: *(\d+)", head.lower())
                    body = await reader.readexactly(int(length[1]) if length else 0)
                    if not body:
                        await _reply(writer, {"object": "list", "data": []})
                    elif head.startswith(b"POST /effect"):
                        await self._effect(head, json.loads(body), reader, writer)
                    else:
                        await self._round(json.loads(body), reader, writer)
            finally:
                writer.close()

    async def _effect(
        self, head: bytes, asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        seen, number = self._seen(asked["run"]), asked["n"]
        key = re.search(rb"(?i)idempotency-key: *(\S+)", head)
        assert key is not None, head
        seen.effects[number] += 1
        seen.keys.setdefault(number, set()).add(key[1].decode())
        if await self._may_answer("effect", number, reader):
            await _reply(writer, {"done": number})
            self._answered(seen, "effect", number)

    async def _round(self, asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        run = re.search(r"run=(\w+)", json.dumps(asked["messages"]))
        assert run is not None
        seen = self._seen(run[1])
        number = 1 + sum(message["role"] == "assistant" for message in asked["messages"])
        seen.rounds[number] += 1
        if await self._may_answer("round", number, reader):
            await _stream(writer, asked["model"], run[1], number, self._tool)
            self._answered(seen, "round", number)

    def _seen(self, run: str) -> Seen:
        self.arrivals += 1
        return self.seen.setdefault(run, Seen())

    async def _may_answer(self, kind: str, number: int, reader: asyncio.StreamReader) -> bool:
        """Wait for the other side's end if this is where to stop; then there is nobody to answer."""
        if self._stop != (kind, number, "before"):
            return True
        self._stop = None
        self._reached.set()
        await reader.read(1)
        return False

    def _answered(self, seen: Seen, kind: str, number: int) -> None:
        seen.answered.append((kind, number))
        if self._stop == (kind, number, "after"):
            self._stop = None
            asyncio.get_running_loop().call_later(self._delay_s, self._reached.set)


def first_call(number: int) -> int:
    """Return the number of the first tool that a round calls."""
    return 1 + sum(CALLS[: number - 1])


async def _reply(writer: asyncio.StreamWriter, value: object) -> None:
    body = json.dumps(value).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    writer.write(head + body)
    await writer.drain()


async def _stream(writer: asyncio.StreamWriter, model: str, run: str, number: int, tool: str) -> None:
    """Write one round as an OpenAI-compatible stream."""
    calls = [
        {
            "index": index,
            "id": f"call_{first_call(number) + index}",
            "type": "function",
            "function": {"name": tool, "arguments": json.dumps({"run": run, "n": first_call(number) + index})},
        }
        for index in range(CALLS[number - 1])
    ]
    delta: dict[str, Any] = {"role": "assistant", "tool_calls": calls} if calls else {"content": ANSWER}
    used = {"prompt_tokens": prompt_tokens(number), "completion_tokens": completion_tokens(number)}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
    chunks = (
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}]},
        {**head, "choices": [], "usage": used | {"total_tokens": sum(used.values())}},
    )
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    body = text.encode()
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    )
    await writer.drain()
