"""The embedded chat and embedding models through our own client: text, forms, tools, cancel, a child that dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import msgspec
import pytest

from convene.clock import SystemClock
from convene.engine.base import EMBEDDING_SETTINGS, EngineSettings
from convene.engine.catalogue import CHAT_MODEL, EMBEDDING_MODEL
from convene.engine.process import Engine
from convene.errors import BadRequest, Unavailable
from convene.events import Fold, TextDelta
from convene.http.base import Request
from convene.http.client import HttpClient
from convene.messages import FunctionTool, Message, ResponseFormat, ToolCall, ToolChoice
from convene.providers.base import Generation, Sampling
from convene.providers.local import LocalChat, LocalSettings, describe_capabilities
from convene.providers.local_embeddings import LocalEmbeddings, LocalEmbeddingsSettings
from convene.providers.tool_choice import ToolChooser
from process.engine_client import open_models

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE_S = 300.0
"""Long enough for a first fetch of the weights over a slow line."""


class House(msgspec.Struct):
    """Both models, running."""

    chat: LocalChat
    embeddings: LocalEmbeddings
    engine: Engine
    client: HttpClient


@asynccontextmanager
async def running(*, slots: int = 2, embed: bool = False) -> AsyncIterator[House]:
    clock, client, models = SystemClock(), HttpClient(), open_models()
    settings = EngineSettings(slots=slots, expose_slots=True)
    engine = Engine(models.weights(CHAT_MODEL.name), "chat", settings, token=os.urandom)
    other = Engine(models.weights(EMBEDDING_MODEL.name), "embedding", EMBEDDING_SETTINGS, token=os.urandom)
    embeddings = LocalEmbeddings(other, client, LocalEmbeddingsSettings(), clock)
    wanted = LocalSettings()
    capabilities = describe_capabilities(settings, wanted)
    chat = LocalChat(engine, client, ToolChooser(embeddings), wanted, capabilities, clock)
    started = [engine, other] if embed else [engine]
    try:
        for one in started:
            one.start()
        for one in started:
            await one.wait_ready(PATIENCE_S)
        yield House(chat, embeddings, engine, client)
    finally:
        await client.aclose()
        for one in started:
            await one.aclose()


async def ask(chat: LocalChat, text: str, **more: Any) -> Fold:  # noqa: ANN401 - fields of a generation
    generation = msgspec.structs.replace(Generation(messages=(Message(role="user", content=text),)), **more)
    gathered = Fold()
    async for event in chat.generate(generation):
        gathered.add(event)
    return gathered


def text_of(gathered: Fold, choice: int = 0) -> str:
    return "".join(gathered.choices[choice].text)


async def count_busy(house: House) -> int:
    """Return how many of the child's slots are at work."""
    address = house.engine.address()
    headers = (("authorization", f"Bearer {address.api_key}"),)
    response = await house.client.send(Request("GET", f"{address.base_url}/slots", headers, fresh=True))
    found = json.loads(await response.read(1_000_000))
    response.close()
    return sum(slot["is_processing"] for slot in found)


@pytest.mark.req("OAI-06", "OAI-18", "OAI-19", "OAI-20", "OAI-21")
async def test_it_answers_with_limits_stops_choices_seeds_and_log_probabilities() -> None:
    async with running() as house:
        assert house.chat.ready() is None
        seeded = Sampling(temperature=0.9, seed=-7, max_tokens=12, logprobs=True, top_logprobs=2)
        first, second = [await ask(house.chat, "Tell me a story.", sampling=seeded, n=2) for _ in range(2)]
        assert text_of(first).strip()
        assert text_of(first) == text_of(second), "the same seed gives the same text"
        assert first.choices[0].finish == "length"
        assert first.usage is not None
        assert first.usage.completion_tokens == 24
        for choice in first.choices.values():
            assert "".join(token.token for token in choice.logprobs) == "".join(choice.text)
            assert all(len(token.top_logprobs) == 2 for token in choice.logprobs)
        greedy = Sampling(temperature=0.0, max_tokens=60)
        whole = text_of(await ask(house.chat, "Count from one to ten.", sampling=greedy))
        stop = whole[len(whole) // 2 :][:3]
        stopped = await ask(
            house.chat, "Count from one to ten.", sampling=msgspec.structs.replace(greedy, stop=(stop,))
        )
        assert stop not in text_of(stopped)
        assert whole.startswith(text_of(stopped))
        assert stopped.choices[0].finish == "stop"
        counted = await ask(house.chat, "word " * 1990, sampling=Sampling(max_tokens=5000))
        assert counted.usage is not None
        assert counted.usage.total_tokens <= 2048
        with pytest.raises(BadRequest) as caught:
            await ask(house.chat, "word " * 3000)
        assert caught.value.code == "context_length_exceeded"


SCHEMAS: dict[str, dict[str, Any]] = {
    "flat": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "height": {"type": "number"}},
        "required": ["name", "age", "height"],
        "additionalProperties": False,
    },
    "ranges": {
        "type": "object",
        "properties": {
            "kind": {"type": "string", "enum": ["", "cat", "dog"]},
            "share": {"type": "number", "minimum": 0, "maximum": 1},
            "depth": {"type": "number", "minimum": -11, "exclusiveMaximum": 0},
        },
        "required": ["kind", "share", "depth"],
    },
    "nested": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Trip",
        "$defs": {
            "stop": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "day": {"type": "string", "format": "date"}},
                "required": ["city", "day"],
                "additionalProperties": False,
            }
        },
        "type": "object",
        "properties": {"stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}, "minItems": 1, "maxItems": 3}},
        "required": ["stops"],
        "additionalProperties": False,
    },
    "nullable": {
        "type": "object",
        "properties": {
            "a": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "b": {"type": ["integer", "null"]},
            "c": {"const": "k"},
            "d": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        },
        "required": ["a", "b", "c", "d"],
    },
    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "list": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2},
    "formats": {
        "type": "object",
        "properties": {
            name: {"type": "string", "format": name} for name in ("date-time", "email", "uuid", "ipv4", "uri", "time")
        },
        "required": ["date-time", "email", "uuid", "ipv4", "uri", "time"],
    },
    "union": {
        "type": "object",
        "properties": {
            "pick": {
                "oneOf": [
                    {"type": "object", "properties": {"k": {"const": name}, "v": value}, "required": ["k", "v"]}
                    for name, value in (("n", {"type": "integer"}), ("s", {"type": "string"}))
                ]
            }
        },
        "required": ["pick"],
    },
}


@pytest.mark.req("OAI-16", "OAI-17", "STRUCT-01", "STRUCT-02", "STRUCT-05", "STRUCT-06")
async def test_every_form_is_held_at_every_temperature() -> None:
    async with running() as house:
        for name, schema in SCHEMAS.items():
            wanted = ResponseFormat(kind="json_schema", name=name, schema=schema)
            for temperature in (0.0, 1.5):
                sampling = Sampling(temperature=temperature, seed=3, max_tokens=600)
                found = await ask(house.chat, "Tell me about Ann.", response_format=wanted, sampling=sampling)
                value = json.loads(text_of(found))
                validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
                assert validator.is_valid(value), (name, temperature, value)
        found = await ask(house.chat, "Tell me about Ann.", response_format=ResponseFormat(kind="json_object"))
        assert isinstance(json.loads(text_of(found)), dict)
        cut = await ask(
            house.chat,
            "Tell me about Ann.",
            response_format=ResponseFormat(kind="json_schema", schema=SCHEMAS["flat"]),
            sampling=Sampling(max_tokens=3),
        )
        assert cut.choices[0].finish == "length"
        impossible = {"type": "integer", "minimum": 5, "maximum": 3}
        with pytest.raises(BadRequest) as caught:
            await ask(house.chat, "Three?", response_format=ResponseFormat(kind="json_schema", schema=impossible))
        assert caught.value.param == "response_format"


WEATHER = FunctionTool(
    "get_weather",
    "Get the current weather for a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
SUM = FunctionTool(
    "calculate",
    "Evaluate an arithmetic expression",
    {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
)


@pytest.mark.req("TOOLS-04", "TOOLS-08", "TOOLS-11", "OAI-12", "OAI-63")
async def test_it_embeds_and_calls_functions_by_meaning() -> None:
    async with running(embed=True) as house:
        found = await house.embeddings.embed(["Hello world", [7592, 2088], "", "word " * 400], dimensions=None)
        assert found.vectors[0][:3] == pytest.approx((-0.03448, 0.03102, 0.00674), abs=1e-3)
        assert found.vectors[1] == pytest.approx(found.vectors[0], abs=1e-3), "token ids got their marks"
        assert found.usage.prompt_tokens == 4 + 4 + 2 + 256

        tools = (WEATHER, SUM)
        for text, name in (("What is the weather in Paris?", "get_weather"), ("How much is 12 times 7?", "calculate")):
            gathered = await ask(house.chat, text, tools=tools)
            (call,) = gathered.choices[0].tool_calls
            assert call.name == name
            assert all(isinstance(value, str) for value in json.loads(call.arguments).values())
        talked = await ask(house.chat, "Thank you, good night!", tools=tools, sampling=Sampling(max_tokens=10))
        assert text_of(talked)
        owed = await ask(house.chat, "Thank you, good night!", tools=tools, tool_choice=ToolChoice("required"))
        assert len(owed.choices[0].tool_calls) == 1
        after = (
            Message(role="user", content="What is the weather in Paris?"),
            Message(role="assistant", tool_calls=(ToolCall("c1", "get_weather", '{"city":"Paris"}'),)),
            Message(role="tool", tool_call_id="c1", content='{"temperature_c":18}'),
        )
        told = await ask(house.chat, "", messages=after, sampling=Sampling(max_tokens=20))
        assert text_of(told)
        assert not told.choices[0].tool_calls


async def test_closing_the_generator_frees_the_slot() -> None:
    async with running() as house:
        generation = Generation(
            messages=(Message(role="user", content="Tell me a very long story."),),
            sampling=Sampling(max_tokens=1500),
            extra={"ignore_eos": True},
        )
        async with aclosing(house.chat.generate(generation)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
            assert await count_busy(house) == 1
        async with asyncio.timeout(30):
            while await count_busy(house):
                pass


async def test_a_killed_child_is_a_fault_now_and_an_answer_next_time() -> None:
    async with running() as house:
        generation = Generation(
            messages=(Message(role="user", content="Tell me a very long story."),),
            sampling=Sampling(max_tokens=1500),
            extra={"ignore_eos": True},
        )

        async def follow() -> None:
            async for event in house.chat.generate(generation):
                if isinstance(event, TextDelta):
                    os.kill(house.engine.status().pid, signal.SIGKILL)

        with pytest.raises(Unavailable, match="restarts by itself"):
            await follow()
        again = await ask(house.chat, "Say hello.", sampling=Sampling(max_tokens=5))
        assert text_of(again)
        assert house.engine.status().restarts == 1
