"""`POST /v1/chat/completions` off the wire: a body to a `ChatRequest`. Pure; `chat.py` calls it.

The rules: 0 and null limits are unset (decisions 7), `tool_choice` without tools is none (OAI-13), values that ask for
nothing new disappear (OAI-04), unknown fields travel on (invariant 7), one level of nesting of `messages` is undone
(CHAT-29), and a `functions` list is read as tools with the reply in the old form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene.api.chat_messages import read_messages
from convene.api.json_body import read_object, read_shape
from convene.api.shapes import ChatBody, WireFunction
from convene.errors import BadRequest
from convene.messages import FunctionTool, ResponseFormat, ToolChoice
from convene.providers.base import Generation, Sampling
from convene.serving.base import Agentic, ChatRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.api.shapes import WireResponseFormat

KNOWN = frozenset(ChatBody.__struct_fields__)
HANDED_ON = (
    "modalities",
    "audio",
    "prediction",
    "service_tier",
    "moderation",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
)
"""Known fields that only some hosts understand: they travel with the unknown ones."""
EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
ALLOWED_LABELS = 1024
"""A list of allowed tools has a bound, like every list."""


class ChatCall(msgspec.Struct, frozen=True, kw_only=True):
    """A chat request and how its reply must look."""

    request: ChatRequest
    stream: bool
    include_usage: bool
    legacy_functions: bool
    service_tier: bool


def read_chat(body: bytes, session_id: str | None) -> ChatCall:
    """Return what `body` asks for. Raises `BadRequest` naming the field."""
    fields = read_object(body)
    messages = fields.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], list):
        fields["messages"] = _unnested(messages)
    wire = read_shape(fields, ChatBody)
    legacy = bool(wire.functions) and not wire.tools and wire.function_call != "none"
    tools = _read_tools(wire, legacy=legacy)
    stream = bool(wire.stream)
    options = wire.stream_options
    generation = Generation(
        messages=read_messages(wire.messages),
        sampling=_read_sampling(wire),
        n=wire.n or 1,
        tools=tools,
        tool_choice=_read_choice(wire.function_call if legacy else wire.tool_choice, tools, legacy=legacy),
        parallel_tool_calls=False if legacy else wire.parallel_tool_calls,
        response_format=_TEXT if wire.response_format is None else _read_format(wire.response_format),
        stream=stream,
        user=wire.user,
        spoken=wire.modalities is not None and "audio" in wire.modalities,
        extra=_read_extra(fields, wire),
    )
    return ChatCall(
        request=ChatRequest(
            model=wire.model,
            generation=generation,
            agentic=_read_agentic(wire, session_id),
            metadata={key: text for key, text in (wire.metadata or {}).items() if isinstance(text, str)},
        ),
        stream=stream,
        include_usage=stream and options is not None and bool(options.include_usage),
        legacy_functions=legacy,
        service_tier=wire.service_tier is not None,
    )


_TEXT = ResponseFormat()


def _unnested(messages: list[object]) -> object:
    if len(messages) == 1:
        return messages[0]
    raise BadRequest("'messages' is a list of lists; only one inner list can be read.", param="messages[1]")


def _read_sampling(wire: ChatBody) -> Sampling:
    if wire.top_logprobs and not wire.logprobs:
        raise BadRequest("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
    effort = wire.reasoning_effort
    if effort is not None and effort not in EFFORTS:
        raise BadRequest(
            f"Invalid 'reasoning_effort': use one of {', '.join(sorted(EFFORTS))}.", param="reasoning_effort"
        )
    stop = wire.stop
    bias = {token: value for token, value in wire.logit_bias.items() if value} if wire.logit_bias else None
    return Sampling(
        temperature=wire.temperature,
        top_p=wire.top_p,
        frequency_penalty=wire.frequency_penalty,
        presence_penalty=wire.presence_penalty,
        max_tokens=wire.max_completion_tokens or wire.max_tokens or None,
        stop=() if not stop else (stop,) if isinstance(stop, str) else tuple(text for text in stop if text),
        seed=wire.seed,
        logit_bias=bias or None,
        logprobs=bool(wire.logprobs),
        top_logprobs=wire.top_logprobs if wire.logprobs else None,
        reasoning_effort=effort,
        verbosity=wire.verbosity,
    )


def _read_tools(wire: ChatBody, *, legacy: bool) -> tuple[FunctionTool, ...]:
    """Return the client's functions; tool types that this server does not run are left out (CHAT-24, ORESP-29)."""
    if legacy:
        return tuple(_tool(function) for function in wire.functions or ())
    tools: list[FunctionTool] = []
    for index, tool in enumerate(wire.tools or ()):
        if tool.type != "function":
            continue
        if tool.function is None:
            where = f"tools[{index}].function"
            raise BadRequest(f"'{where}' is missing.", code="missing_required_parameter", param=where)
        tools.append(_tool(tool.function))
    return tuple(tools)


def _tool(function: WireFunction) -> FunctionTool:
    return FunctionTool(function.name, function.description or "", function.parameters, function.strict)


def _read_choice(
    choice: str | dict[str, object] | None, tools: tuple[FunctionTool, ...], *, legacy: bool
) -> ToolChoice:
    field = "function_call" if legacy else "tool_choice"
    if not tools:
        return ToolChoice("none")
    match choice:
        case None | "auto":
            return ToolChoice()
        case "none":
            return ToolChoice("none")
        case "required" | "any":
            return ToolChoice("required")
        case {"type": "allowed_tools", **rest}:
            return _read_allowed(rest, tools)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return _named(name, tools, field)
        case {"name": str(name)} if legacy:
            return _named(name, tools, field)
        case {"type": "custom"}:
            raise BadRequest(
                "'tool_choice' of type custom is not supported.", code="unsupported_parameter", param=field
            )
        case _:
            raise BadRequest(
                f"Invalid '{field}': use none, auto, required or a function of 'tools' by name.", param=field
            )


def _named(name: str, tools: tuple[FunctionTool, ...], field: str) -> ToolChoice:
    if all(tool.name != name for tool in tools):
        raise BadRequest(f"'{field}' names a function that 'tools' does not hold: '{name[:100]}'.", param=field)
    return ToolChoice("named", name)


def _read_allowed(choice: Mapping[object, object], tools: tuple[FunctionTool, ...]) -> ToolChoice:
    inner = choice.get("allowed_tools")
    allowed: Mapping[object, object] = inner if isinstance(inner, dict) else choice
    listed = allowed.get("tools")
    names: list[str] = []
    for entry in listed[:ALLOWED_LABELS] if isinstance(listed, list) else ():
        match entry:
            case {"function": {"name": str(name)}} | {"name": str(name)}:
                names.append(_named(name, tools, "tool_choice").name or "")
            case _:
                raise BadRequest(
                    "Each of 'tool_choice.allowed_tools.tools' needs a function name.", param="tool_choice"
                )
    if not names:
        raise BadRequest("'tool_choice.allowed_tools.tools' is empty.", param="tool_choice")
    return ToolChoice("required" if allowed.get("mode") == "required" else "auto", None, tuple(names))


def _read_format(wire: WireResponseFormat) -> ResponseFormat:
    match wire.type:
        case "text":
            return ResponseFormat()
        case "json_object":
            return ResponseFormat("json_object")
        case "json_schema":
            inner = wire.json_schema
            if inner is None or inner.schema is None:
                where = "response_format.json_schema" + ("" if inner is None else ".schema")
                raise BadRequest(f"'{where}' is missing.", code="missing_required_parameter", param=where)
            return ResponseFormat("json_schema", inner.name, inner.schema, inner.strict, inner.description)
        case _:
            raise BadRequest(
                f"Invalid 'response_format.type': '{wire.type}'. Use text, json_object or json_schema.",
                param="response_format.type",
            )


def _read_agentic(wire: ChatBody, session_id: str | None) -> Agentic:
    if (
        session_id is None
        and wire.web_search is None
        and wire.web_search_options is None
        and wire.agent_address is None
        and wire.planner_mode is None
        and wire.study_mode is None
        and wire.server_tools is None
    ):
        return _PLAIN
    return Agentic(
        web_search=bool(wire.web_search) or wire.web_search_options is not None,
        web_search_options=wire.web_search_options,
        planner_mode=bool(wire.planner_mode),
        study_mode=bool(wire.study_mode),
        server_tools=wire.server_tools is not False,
        agent_address=wire.agent_address or None,
        session_id=session_id or None,
    )


_PLAIN = Agentic()


def _read_extra(fields: dict[str, object], wire: ChatBody) -> dict[str, object]:
    extra = {name: fields[name] for name in fields.keys() - KNOWN}
    for name in HANDED_ON:
        value = getattr(wire, name)
        if value is not None:
            extra[name] = value
    return extra
