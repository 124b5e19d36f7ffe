"""What goes to an OpenAI-compatible host: a `Generation` as request body bytes. Pure.

Only fields that were set are written, so hosts with strict readers meet as little as possible. Not here: what comes
back (`openai_reply.py`), refusals (`openai_faults.py`), I/O (`openai.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.messages import ImagePart, Message, TextPart
from convene.providers.base import HOST_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.messages import FunctionTool, Part, ToolChoice
    from convene.providers.base import Generation, Sampling

MaxTokensField = Literal["max_tokens", "max_completion_tokens"]

OWN_FIELDS = frozenset(
    {
        "model", "messages", "stream", "stream_options", "n", "temperature", "top_p", "frequency_penalty",
        "presence_penalty", "max_tokens", "max_completion_tokens", "stop", "seed", "logit_bias", "logprobs",
        "top_logprobs", "reasoning_effort", "verbosity", "tools", "tool_choice", "parallel_tool_calls",
        "functions", "function_call", "response_format", "user", "dimensions", "encoding_format", "input",
    }
)  # fmt: skip
"""Fields that the request's own values decide alone: `Generation.extra` never writes one."""

GATEWAY_FIELDS = frozenset(
    {"api_base", "api_key", "api_version", "base_url", "extra_headers", "headers", "user_config"}
)
"""Fields by which some gateways let a caller choose where a request goes and with which key: a caller of ours never
does (invariant 10), and the gateway would trust our key."""

FIELDS_NOT_PASSED = OWN_FIELDS | GATEWAY_FIELDS

_ENCODER = msgspec.json.Encoder()


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How a host differs from the plain form.

    `max_tokens_field` is the name it reads; `echo_reasoning` sends earlier reasoning back as `reasoning_content`;
    `allowed_tools` says that it knows that form of `tool_choice` (else the list of tools is narrowed, which any host
    understands); `template_opens_thinking` that its chat template writes `<think>`, so replies begin inside of it;
    `pass_unknown` that fields nobody here knows may be sent to it (OpenAI itself refuses them).
    """

    max_tokens_field: MaxTokensField = "max_tokens"
    echo_reasoning: bool = False
    allowed_tools: bool = False
    template_opens_thinking: bool = False
    pass_unknown: bool = True


PLAIN = Dialect()


class _StreamOptions(msgspec.Struct, frozen=True, gc=False):
    include_usage: bool


_WITH_USAGE: Final = _StreamOptions(include_usage=True)


class _PlainBody(msgspec.Struct, omit_defaults=True, gc=False):
    """The commonest body, its fields in the order in which `encode_any` writes them; defaults are left out."""

    model: str
    messages: tuple[Message, ...]
    stream: bool
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    user: str | None = None


def encode_chat(generation: Generation, model: str, dialect: Dialect = PLAIN) -> bytes:
    """Return the body for `/chat/completions`, asking for the host's `model`."""
    plain = not (generation.tools or generation.extra) and generation.n == 1
    if plain and generation.response_format.kind == "text" and dialect.max_tokens_field == "max_tokens":
        for message in generation.messages:
            content = message.content
            if type(content) is not str or not content or message.tool_calls or message.reasoning:
                break
        else:
            return _encode_plain(generation, model)
    return encode_any(generation, model, dialect)


def _encode_plain(generation: Generation, model: str) -> bytes:
    """Write texts and how to sample, the commonest request: the bytes of `encode_any` in a quarter of the time."""
    sampling = generation.sampling
    return _ENCODER.encode(
        _PlainBody(  # in the order of its fields
            model,
            generation.messages,
            generation.stream,
            _WITH_USAGE if generation.stream else None,
            sampling.temperature,
            sampling.top_p,
            sampling.frequency_penalty,
            sampling.presence_penalty,
            sampling.max_tokens,
            sampling.stop,
            sampling.seed,
            sampling.logit_bias,
            sampling.logprobs,
            sampling.top_logprobs if sampling.logprobs else None,
            sampling.reasoning_effort,
            sampling.verbosity,
            generation.user,
        )
    )


def encode_any(generation: Generation, model: str, dialect: Dialect = PLAIN) -> bytes:
    """Return what `encode_chat` returns, by the general way, which is right for every generation."""
    echo = dialect.echo_reasoning
    body: dict[str, object] = {
        "model": model,
        "messages": [
            # a message of text alone stands in the plain form as it is: it needs no copy as a dictionary
            message
            if message.content.__class__ is str and message.content and not (message.tool_calls or message.reasoning)
            else _write_message(message, echo=echo)
            for message in generation.messages
        ],
        "stream": generation.stream,
    }
    if generation.stream:
        body["stream_options"] = {"include_usage": True}
    _write_sampling(generation.sampling, dialect, body)
    if generation.n != 1:
        body["n"] = generation.n
    if generation.tools:
        _write_tools(generation, dialect, body)
    if generation.response_format.kind != "text":
        body["response_format"] = _write_response_format(generation)
    if generation.user is not None:
        body["user"] = generation.user
    if generation.extra:
        body |= {
            name: value
            for name, value in generation.extra.items()
            if (dialect.pass_unknown or name in HOST_FIELDS) and name not in FIELDS_NOT_PASSED
        }
    return _ENCODER.encode(body)


def encode_embeddings(inputs: Sequence[str | Sequence[int]], dimensions: int | None, model: str) -> bytes:
    """Return the body for `/embeddings`; floats are asked for, as not every host knows base64."""
    body: dict[str, object] = {"model": model, "input": list(inputs), "encoding_format": "float"}
    if dimensions is not None:
        body["dimensions"] = dimensions
    return _ENCODER.encode(body)


def _write_message(message: Message, *, echo: bool) -> dict[str, object]:
    content = message.content
    wire: dict[str, object] = {
        "role": message.role,
        "content": content if isinstance(content, str) else _write_content(message),
    }
    if message.tool_calls:
        wire["content"] = wire["content"] or None
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        wire["name"] = message.name
    if echo and message.reasoning:
        wire["reasoning_content"] = message.reasoning
    return wire


def _write_content(message: Message) -> str | list[dict[str, object]]:
    """Return parts as a list only where there is more than text: templates of many hosts take strings alone."""
    parts = message.content
    if isinstance(parts, str):
        return parts
    only_text = all(isinstance(part, TextPart) for part in parts)
    if only_text and (len(parts) <= 1 or message.role != "user"):
        return message.text()
    return [_write_part(part) for part in parts]


def _write_part(part: Part) -> dict[str, object]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
        return {"type": "image_url", "image_url": image}
    return {"type": part.kind, part.kind: part.body}


def _write_sampling(sampling: Sampling, dialect: Dialect, body: dict[str, object]) -> None:
    """Write what was set. Fields of `Sampling` have the names of the plain form, but for one that hosts differ in."""
    fields: dict[str, object] = msgspec.to_builtins(sampling)
    if sampling.max_tokens is not None and dialect.max_tokens_field != "max_tokens":
        fields[dialect.max_tokens_field] = fields.pop("max_tokens")
    if not sampling.logprobs:
        fields.pop("top_logprobs", None)
    body |= fields


def _write_tools(generation: Generation, dialect: Dialect, body: dict[str, object]) -> None:
    choice, tools = generation.tool_choice, generation.tools
    if choice.allowed is not None and not dialect.allowed_tools:
        tools = tuple(tool for tool in tools if tool.name in choice.allowed)
        if not tools:
            return
    body["tools"] = [_write_tool(tool) for tool in tools]
    if generation.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = generation.parallel_tool_calls
    if choice.allowed is not None and dialect.allowed_tools:
        body["tool_choice"] = _write_allowed(choice, choice.allowed)
    elif choice.mode == "named":
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.mode != "auto":
        body["tool_choice"] = choice.mode


def _write_allowed(choice: ToolChoice, allowed: tuple[str, ...]) -> dict[str, object]:
    tools = [{"type": "function", "function": {"name": name}} for name in allowed]
    mode = "required" if choice.mode == "required" else "auto"
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def _write_tool(tool: FunctionTool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _write_response_format(generation: Generation) -> dict[str, object]:
    wanted = generation.response_format
    if wanted.kind != "json_schema":
        return {"type": wanted.kind}
    schema: dict[str, object] = {"name": wanted.name}
    if wanted.schema is not None:
        schema["schema"] = wanted.schema
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    if wanted.description is not None:
        schema["description"] = wanted.description
    return {"type": "json_schema", "json_schema": schema}


def prompt_text(generation: Generation) -> str:
    """Return what the model reads as one text, for an estimate where the host counts no tokens; pictures left out."""
    texts: list[str] = []
    for message in generation.messages:
        texts.append(message.text())
        texts.extend(f"{call.name}{call.arguments}" for call in message.tool_calls)
    if generation.tools:
        texts.append(_ENCODER.encode([_write_tool(tool) for tool in generation.tools]).decode())
    return "\n".join(texts)
