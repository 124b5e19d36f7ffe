"""Doubles around the embedded chat model: an engine without a process, vectors by table, and the child's replies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from convene.engine.base import ChildAddress, EngineFault, EngineSettings, EngineStatus, LocalEngine, Mode
from convene.events import Event, Fold
from convene.messages import FunctionTool, Message
from convene.providers.base import Embeddings, Generation
from convene.providers.local import LocalChat, LocalSettings, describe_capabilities
from convene.providers.local_child import ChildSettings
from convene.providers.tool_choice import ToolChooser
from convene.usage import Usage
from fakes import FakeClock
from unit.providers.upstream_doubles import JSON, FakeClient, FakeResponse, chunk, frame, streamed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from convene.http.base import HttpError, Request
    from unit.providers.upstream_doubles import Stall

Vector = tuple[float, ...]

OLD = ChildAddress("http://127.0.0.1:1001", "old-key")
NEW = ChildAddress("http://127.0.0.1:1002", "new-key")
QUICK = ChildSettings(ready_s=1.0, notice_s=0.0)

USED = frame(
    {
        "choices": [],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 6}},
        "timings": {"prompt_n": 4},
    }
)
DONE = b"data: [DONE]\n\n"
PROGRESS = chunk({"role": "assistant", "content": None}, prompt_progress={"total": 10, "processed": 10})


class FakeEngine(LocalEngine):
    """An engine whose child moves to the next of `addresses` when it is waited for; `fault` makes it refuse."""

    def __init__(
        self,
        *addresses: ChildAddress,
        status: EngineStatus | None = None,
        settings: EngineSettings | None = None,
        fault: EngineFault | None = None,
        mode: Mode = "chat",
    ) -> None:
        self._addresses = list(addresses or (OLD,))
        self._status = status or EngineStatus(state="ready")
        self._settings = settings or EngineSettings()
        self._mode: Mode = mode
        self.fault = fault
        self.waits = 0

    @property
    def name(self) -> str:
        return "tiny-1"

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def settings(self) -> EngineSettings:
        return self._settings

    def status(self) -> EngineStatus:
        return self._status

    def start(self) -> None:
        raise AssertionError("a provider does not start engines")

    async def wait_ready(self, timeout_s: float | None = None) -> ChildAddress:
        assert timeout_s is not None, "a request never waits without end"
        self.waits += 1
        if len(self._addresses) > 1:
            self._addresses.pop(0)
        return self.address()

    def address(self) -> ChildAddress:
        if self.fault is not None:
            raise self.fault
        return self._addresses[0]

    async def restart(self, reason: str) -> None:
        raise AssertionError(f"not asked for here: {reason}")

    async def aclose(self) -> None:
        raise AssertionError("a provider does not close engines")


class TableEmbeddings:
    """Vectors by the first table word that a text contains; other texts point nowhere near any of them."""

    upstream = "table"

    def __init__(self, table: Mapping[str, Vector], fault: Exception | None = None) -> None:
        self.calls: list[list[str]] = []
        self.fault = fault
        self._table = table

    def ready(self) -> str | None:
        return None

    async def embed(self, inputs: Sequence[str | Sequence[int]], dimensions: int | None = None) -> Embeddings:
        assert dimensions is None
        if self.fault is not None:
            raise self.fault
        texts = [text for text in inputs if isinstance(text, str)]
        self.calls.append(texts)
        return Embeddings(tuple(map(self._find, texts)), Usage(prompt_tokens=len(texts)), "table")

    def _find(self, text: str) -> Vector:
        known: Iterator[Vector] = (vector for word, vector in self._table.items() if word in text.lower())
        return next(known, (0.0, 0.0, 0.0, 1.0))


VECTORS = {"weather": (2.0, 0.0, 0.0, 0.0), "sum": (0.0, 3.0, 0.0, 0.0), "finish": (0.1, 0.1, 1.0, 0.0)}

WEATHER = FunctionTool(
    "get_weather",
    "Tell the weather",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
SUM = FunctionTool(
    "sum_up", "Add a sum", {"type": "object", "properties": {"terms": {"type": "array", "items": {"type": "number"}}}}
)
FINISH = FunctionTool("finish", "", None)


def reply(*texts: str, finish: str = "stop") -> FakeResponse:
    """Return the child's stream for an answer in pieces."""
    return streamed(PROGRESS, *map(chunk, texts), chunk(finish=finish), USED, DONE)


def refusal(status: int, message: str, kind: str = "invalid_request_error", **more: object) -> FakeResponse:
    """Return the child's error."""
    error = {"code": status, "message": message, "type": kind, **more}
    return FakeResponse(status, JSON, [msgspec.json.encode({"error": error})])


def counts(tokens: int) -> tuple[FakeResponse, FakeResponse]:
    """Return the replies of `/apply-template` and `/tokenize` for a prompt of so many tokens."""
    return (
        FakeResponse(200, JSON, [msgspec.json.encode({"prompt": "rendered"})]),
        FakeResponse(200, JSON, [msgspec.json.encode({"tokens": list(range(tokens))})]),
    )


def make_chat(
    *script: FakeResponse | HttpError | Stall,
    engine: FakeEngine | None = None,
    embeddings: TableEmbeddings | None = None,
    chooser: bool = True,
    settings: LocalSettings | None = None,
) -> tuple[LocalChat, FakeClient]:
    """Return a chat model whose child answers with `script`, and its client."""
    client, engine = FakeClient(*script), engine or FakeEngine()
    settings = settings or LocalSettings(waits=QUICK)
    found = ToolChooser(embeddings or TableEmbeddings(VECTORS)) if chooser else None
    chat = LocalChat(engine, client, found, settings, describe_capabilities(engine.settings, settings), FakeClock())
    return chat, client


def say(text: str = "hi", **more: object) -> Generation:
    """Return a generation of one user message; `more` are fields of `Generation`."""
    return msgspec.structs.replace(Generation(messages=(Message(role="user", content=text),)), **more)


def body_of(request: Request) -> dict[str, object]:
    """Return a sent body."""
    found: dict[str, object] = msgspec.json.decode(request.body)
    return found


async def gather(chat: LocalChat, generation: Generation) -> tuple[list[Event], Fold]:
    """Return all events of a generation, and their fold."""
    events = [event async for event in chat.generate(generation)]
    gathered = Fold()
    for event in events:
        gathered.add(event)
    return events, gathered


def text_of(gathered: Fold, choice: int = 0) -> str:
    """Return a choice's text."""
    return "".join(gathered.choices[choice].text)


async def reach(stall: Stall) -> None:
    """Wait until a scripted stall is reached."""
    async with asyncio.timeout(60):
        await stall.reached.wait()
