"""The whole application in process, on the scripted models, behind a bridge that streams; driven by the SDK."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from openai import AsyncOpenAI

from bridge import open_client
from convene.app import App
from convene.clock import SystemClock
from convene.config import Config, Edge, Engine, Scripted, Search
from image_hosts import ImageHosts, serving_images
from market_doubles import Market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import httpx2

    Serve = Callable[..., AbstractAsyncContextManager["Served"]]

BASE = "http://convene.test"


class Served:
    """One running application: raw HTTP in `http`, the SDK in `sdk`, a key in `key`."""

    def __init__(self, app: App, http: httpx2.AsyncClient, key: str, lines: list[dict[str, Any]]) -> None:
        self.app = app
        self.http = http
        self.key = key
        self.lines = lines
        self.sdk = AsyncOpenAI(api_key=key, base_url=f"{BASE}/v1", http_client=http, max_retries=0)

    @property
    def auth(self) -> dict[str, str]:
        """The header that proves who asks."""
        return {"Authorization": f"Bearer {self.key}"}

    async def chat(self, **fields: object) -> httpx2.Response:
        """Post a body to the chat endpoint; a model and a message are filled in."""
        body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "hello big world"}]} | fields
        return await self.http.post("/v1/chat/completions", json=body, headers=self.auth)

    async def frames(self, **fields: object) -> list[Any]:
        """Post a streamed chat and return the parsed `data:` frames, `[DONE]` as text."""
        answer = await self.chat(stream=True, **fields)
        assert answer.status_code == 200, answer.text
        return read_frames(answer.text)


def read_frames(text: str) -> list[Any]:
    """Return the frames of a stream strictly: one `data: ` line and a blank line each, or a comment (SSE-03)."""
    assert text.endswith("\n\n")
    frames: list[Any] = []
    for block in text[:-2].split("\n\n"):
        if block.startswith(":"):
            continue
        assert block.startswith("data: "), block
        assert "\n" not in block
        data = block.removeprefix("data: ")
        frames.append(data if data == "[DONE]" else msgspec.json.decode(data))
    return frames


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Served]]:
    """Return a context manager that serves a configuration; fields replace those of the scripted one."""

    @asynccontextmanager
    async def start(**fields: Any) -> AsyncIterator[Served]:  # noqa: ANN401 - fields of Config, each of its own type
        base = Config(
            data_dir=tmp_path / "data",
            cache_dir=tmp_path / "cache",
            engine=Engine(enabled=False),
            scripted=Scripted(enabled=True),
            edge=Edge(ping_s=5, first_event_s=5),
        )
        written: list[bytes] = []
        extra: dict[str, Any] = {name: fields.pop(name) for name in ("connect",) if name in fields}
        if "box" in fields:
            extra["tools"] = fields.pop("box")
        config = msgspec.structs.replace(base, **fields)
        app = App(config, SystemClock(), written.append, **extra)
        lines: list[dict[str, Any]] = []
        async with open_client(app.front, base_url=BASE) as http:
            yield Served(app, http, app.first_key or "none", lines)
        lines += [msgspec.json.decode(line) for line in b"".join(written).splitlines()]

    return start


@pytest.fixture
async def served(serve: Callable[..., AbstractAsyncContextManager[Served]]) -> AsyncIterator[Served]:
    """One application with a key, on the scripted models."""
    async with serve() as one:
        yield one


@pytest.fixture
def play(serve: Any, tmp_path: Path) -> Any:  # noqa: ANN401 -- a fixture's factory
    """Return a way to serve the model `asi1`, which says these turns, with this market in the house."""

    @asynccontextmanager
    async def start(*turns: list[dict[str, Any]], box: Market | None = None, **fields: Any) -> Any:  # noqa: ANN401
        file = tmp_path / "played.json"
        file.write_text(json.dumps({"models": [{"name": "asi1", "turns": [{"steps": steps} for steps in turns]}]}))
        market = box or Market(anybody=False)
        settings = {"scripted": Scripted(enabled=True, file=str(file)), "search": Search(enabled=False)} | fields
        async with serve(box=market, **settings) as served:
            served.app.answering.lookup._agents = market
            yield served

    return start


@pytest.fixture
def hosts() -> Iterator[ImageHosts]:
    with serving_images() as serving:
        yield serving
