"""OpenAI's SDK for Python as a client of the server that CHECK_BASE_URL names; for majors 2 and 3 alike (OSDK-14).

Prints `ok NAME` or `failed NAME: why` for each check, which `suites.py` reads. It runs as a program in an environment
of the SDK. The answers are judged by their shape, so that a tiny model passes too. Not here: /responses.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

import openai
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL: Final = "asi1"
MAX_TOKENS: Final = 200
"""Bounds each answer, for slow models."""
MESSAGES: Final[Any] = ({"role": "user", "content": "Say hello."},)
TOOLS: Final[Any] = (
    {
        "type": "function",
        "function": {
            "name": "twice",
            "description": "Doubles a number.",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
                "required": ["a"],
                "additionalProperties": False,
            },
        },
    },
)
Fault = TypeVar("Fault", bound=Exception)
ENDED: Final = frozenset({"stop", "length"})


class Person(BaseModel):
    """What a structured answer must hold."""

    name: str = Field(max_length=30)
    n: int = Field(ge=0, le=99)


class Checks:
    """Every public method is one check; its name is the check's."""

    def __init__(self, base_url: str, api_key: str, embedder: str) -> None:
        self._options: dict[str, Any] = {"base_url": base_url, "api_key": api_key, "timeout": 300, "max_retries": 0}
        self._client = openai.OpenAI(**self._options)
        self._embedder = embedder
        self._body: dict[str, Any] = {"model": MODEL, "messages": list(MESSAGES), "max_tokens": MAX_TOKENS}

    def lists_models(self) -> None:
        found = {model.id: model for model in self._client.models.list()}
        assert found[MODEL].object == "model"

    def shows_a_model(self) -> None:
        assert self._client.models.retrieve(MODEL).id == MODEL

    def gets_a_whole_reply(self) -> None:
        whole = self._client.chat.completions.create(**self._body)
        assert whole.choices[0].message.content
        assert whole.choices[0].finish_reason in ENDED
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
        assert whole._request_id

    def gets_a_valid_reply(self) -> None:
        """The reply holds to OpenAI's types, checked by the SDK itself."""
        strict = openai.OpenAI(**self._options, _strict_response_validation=True)
        assert strict.chat.completions.create(**self._body).choices

    def streams_valid_chunks(self) -> None:
        strict = openai.OpenAI(**self._options, _strict_response_validation=True)
        with strict.chat.completions.create(**self._body, stream=True) as stream:
            chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert len({chunk.id for chunk in chunks}) == 1
        assert not any(chunk.usage for chunk in chunks)

    def streams_with_usage(self) -> None:
        with self._client.chat.completions.stream(**self._body, stream_options={"include_usage": True}) as stream:
            events = [event.type for event in stream]
            last = stream.get_final_completion()
        assert {"chunk", "content.delta", "content.done"} <= set(events)
        assert last.choices[0].message.content
        assert last.usage
        assert last.usage.total_tokens

    def gets_one_named_call(self) -> None:
        choice = {"type": "function", "function": {"name": "twice"}}
        asked = {**self._body, "tools": list(TOOLS), "tool_choice": choice, "parallel_tool_calls": False}
        got = self._client.chat.completions.create(**asked).choices[0]
        assert got.finish_reason == "tool_calls"
        (call,) = got.message.tool_calls
        assert isinstance(json.loads(call.function.arguments)["a"], int)

    def streams_a_call(self) -> None:
        asked = {**self._body, "tools": list(TOOLS), "tool_choice": "required"}
        with self._client.chat.completions.stream(**asked) as stream:
            got = stream.get_final_completion().choices[0]
        assert got.finish_reason == "tool_calls"
        assert got.message.tool_calls
        assert got.message.tool_calls[0].function.name == "twice"
        assert isinstance(got.message.tool_calls[0].function.parsed_arguments, dict)

    def answers_after_a_result(self) -> None:
        asked = {**self._body, "tools": list(TOOLS), "tool_choice": "required"}
        message = self._client.chat.completions.create(**asked).choices[0].message
        results = [{"role": "tool", "tool_call_id": call.id, "content": "42"} for call in message.tool_calls]
        history = [*MESSAGES, message, *results]
        after = self._client.chat.completions.create(**{**self._body, "messages": history, "tools": list(TOOLS)})
        assert after.choices[0].message.content or after.choices[0].message.tool_calls

    def parses_a_model_of_pydantic(self) -> None:
        got = self._client.chat.completions.parse(**self._body, response_format=Person).choices[0].message
        assert isinstance(got.parsed, Person)

    def streams_a_model_of_pydantic(self) -> None:
        with self._client.chat.completions.stream(**self._body, response_format=Person) as stream:
            got = stream.get_final_completion().choices[0].message
        assert isinstance(got.parsed, Person)

    def raises_when_a_parsed_answer_is_cut(self) -> None:
        asked = {**self._body, "max_tokens": 1, "response_format": Person}
        _raised(openai.LengthFinishReasonError, lambda: self._client.chat.completions.parse(**asked))

    def embeds_floats_and_base64_alike(self) -> None:
        asked: dict[str, Any] = {"model": self._embedder, "input": ["one", "two"]}
        packed = self._client.embeddings.create(**asked)
        plain = self._client.embeddings.create(**asked, encoding_format="float")
        assert len(packed.data) == len(plain.data) == 2
        for one, other in zip(packed.data, plain.data, strict=True):
            assert math.isclose(math.hypot(*one.embedding), 1, abs_tol=1e-3)
            assert all(map(lambda a, b: math.isclose(a, b, abs_tol=1e-5), one.embedding, other.embedding))

    def raises_for_an_unknown_model(self) -> None:
        asked = {**self._body, "model": "nope"}
        fault = _raised(openai.NotFoundError, lambda: self._client.chat.completions.create(**asked))
        assert fault.code == "model_not_found"
        assert fault.request_id
        assert "nope" in str(fault)

    def raises_for_a_bad_body(self) -> None:
        asked = {**self._body, "messages": "hello"}
        fault = _raised(openai.BadRequestError, lambda: self._client.chat.completions.create(**asked))
        assert fault.param == "messages"

    def raises_for_a_bad_key(self) -> None:
        stranger = openai.OpenAI(**{**self._options, "api_key": "wrong"})
        assert _raised(openai.AuthenticationError, stranger.models.list).request_id

    def raises_for_an_unknown_path(self) -> None:
        assert _raised(openai.NotFoundError, lambda: self._client.get("/nowhere", cast_to=object)).body

    def streams_to_the_asynchronous_client(self) -> None:
        async def talk() -> str:
            async with openai.AsyncOpenAI(**self._options) as client:
                stream = await client.chat.completions.create(**self._body, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert asyncio.run(talk())

    def survives_a_stream_that_is_left(self) -> None:
        with self._client.chat.completions.create(**self._body, stream=True) as stream:
            next(iter(stream))
        assert self._client.models.list().data


def _raised(kind: type[Fault], act: Callable[[], object]) -> Fault:
    """Return what `act` raises. Raises `AssertionError` if that is nothing."""
    try:
        act()
    except kind as fault:
        return fault
    raise AssertionError(f"no {kind.__name__}")


def run(checks: Checks) -> bool:
    """Run every check, say how each went, return whether all went well."""
    good = True
    for name in [name for name in vars(Checks) if not name.startswith("_")]:
        check: Callable[[], None] = getattr(checks, name)
        try:
            check()
        except Exception as fault:  # noqa: BLE001 - whatever goes wrong is this check's result
            good = False
            why = " ".join(f"{type(fault).__name__}: {fault}".split())
            line = f"failed {name.replace('_', ' ')}: {why[:300]}"
        else:
            line = f"ok {name.replace('_', ' ')}"
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return good


if __name__ == "__main__":
    there = os.environ
    sys.exit(not run(Checks(there["CHECK_BASE_URL"], there["CHECK_API_KEY"], there["CHECK_EMBEDDING_MODEL"])))
