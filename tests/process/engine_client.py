"""The smallest client of an engine's child: `http.client` in a thread, one connection a request, as it wants it."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.parse
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convene.engine.base import ChildAddress, FetchSettings
from convene.engine.files import ModelFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_S_MAX = 60.0
RECIPE = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True, "temperature": 0.2}


def open_models() -> ModelFolder:
    """The user's own cache folder: the weights are fetched once on a machine, not once in a run."""
    return ModelFolder(Path.home() / ".cache" / "convene", FetchSettings())


@contextmanager
def open_request(address: ChildAddress, path: str, body: object = None) -> Iterator[http.client.HTTPResponse]:
    """Send a request and give its response; leaving the block closes the connection, read or not."""
    parts = urllib.parse.urlsplit(address.base_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_S_MAX)
    headers = {"Authorization": f"Bearer {address.api_key}", "Content-Type": "application/json"}
    response: http.client.HTTPResponse | None = None
    try:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        yield response
    finally:
        if response is not None:
            response.close()
        connection.close()


def ask(address: ChildAddress, path: str, body: object = None) -> tuple[int, Any]:
    """Give status and decoded answer."""
    with open_request(address, path, body) as response:
        return response.status, json.loads(response.read())


def read_chunks(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Decode the events of a stream as they arrive."""
    while line := response.readline():
        data = line.decode().strip().removeprefix("data: ")
        if data and data != "[DONE]":
            yield json.loads(data)


def chat(address: ChildAddress, text: str, max_tokens: int = 32) -> tuple[str, dict[str, Any]]:
    """Stream one answer to its end; give its text and the last chunk."""
    words, last = [], {}
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, **RECIPE}
    with open_request(address, "/v1/chat/completions", body) as response:
        assert response.status == 200, response.read()
        for chunk in read_chunks(response):
            last = chunk
            words += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
    return "".join(words), last


async def chat_aside(address: ChildAddress, text: str, max_tokens: int = 32) -> tuple[str, dict[str, Any]]:
    """Do `chat` without holding up the loop."""
    return await asyncio.to_thread(chat, address, text, max_tokens)


async def ask_aside(address: ChildAddress, path: str, body: object = None) -> tuple[int, Any]:
    """Do `ask` without holding up the loop."""
    return await asyncio.to_thread(ask, address, path, body)
