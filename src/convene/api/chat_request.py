"""`POST /v1/chat/completions` off the wire: a body to a `ChatRequest`. Pure; `chat.py` calls it.

The rules: 0 and null limits are unset (decisions 7), `tool_choice` without tools is none (OAI-13), values that ask for
nothing new disappear (OAI-04), unknown fields travel on (invariant 7), one level of nesting of `messages` is undone
(CHAT-29), a `functions` list is read as tools with the reply in the old form, and a body in the form of the Responses
API is rewritten first (OAI-26).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from convene.api.chat_input import as_chat
from convene.api.chat_messages import read_messages
from convene.api.chat_tools import is_forced, read_choice, read_tools
from convene.api.json_body import read_as, read_object, read_shape
from convene.api.shapes import EFFORTS, ON_DISCONNECT, ChatBody, PlainChatBody
from convene.errors import BadRequest
from convene.messages import Message, ResponseFormat, ToolChoice
from convene.providers.base import HOST_FIELDS, Generation, Sampling
from convene.serving.base import Agentic, ChatRequest

if TYPE_CHECKING:
    from convene.api.shapes import WireResponseFormat
    from convene.messages import FunctionTool

KNOWN = frozenset(ChatBody.__struct_fields__)
OURS = KNOWN - HOST_FIELDS
"""Fields that are read here and go no further in the form they came in."""


class ChatCall(msgspec.Struct, frozen=True, gc=False):
    """A chat request and how its reply must look."""

    request: ChatRequest
    stream: bool
    include_usage: bool
    legacy_functions: bool
    service_tier: bool
    oddities: tuple[tuple[int, str], ...] = ()
    """What the log should say of it, each with its level."""

    @property
    def seeded(self) -> bool:
        """Whether the client gave a seed, and so gets a fingerprint (OAI-20)."""
        return self.request.generation.sampling.seed is not None


def read_chat(body: bytes, session_id: str | None) -> ChatCall:
    """Return what `body` asks for. Raises `BadRequest` naming the field."""
    plain = read_as(body, _PLAIN_BODY)
    return _read_any(body, session_id) if plain is None else _read_plain(plain, session_id)


def _read_plain(wire: PlainChatBody, session_id: str | None) -> ChatCall:
    """Read the commonest body: decoded once, where any other is decoded, looked through and converted.

    The same call as `_read_any` gives, in a third of the time.
    """
    stream, options, stop = wire.stream is True, wire.stream_options, wire.stop
    # By place, in the order of the fields: names would take half as long again.
    sampling = Sampling(
        wire.temperature,
        wire.top_p,
        wire.frequency_penalty,
        wire.presence_penalty,
        wire.max_completion_tokens or wire.max_tokens or None,
        _read_stop(stop) if stop else (),
        wire.seed,
    )
    messages = []
    for one in wire.messages:  # no comprehension: that is a call of its own in CPython 3.11
        messages.append(Message(one.role, one.content, one.name))  # noqa: PERF401
    generation = Generation(tuple(messages), sampling, tool_choice=_NO_TOOLS, stream=stream, user=wire.user)
    agentic = _PLAIN if session_id is None else Agentic(session_id=session_id or None)
    return ChatCall(
        ChatRequest(wire.model, generation, agentic),
        stream,
        stream and options is not None and options.include_usage is True,
        legacy_functions=False,
        service_tier=False,
    )


def _read_any(body: bytes, session_id: str | None) -> ChatCall:
    fields = read_object(body)
    messages = fields.get("messages")
    if messages is None and "input" in fields:
        fields = as_chat(fields)
    elif isinstance(messages, list) and messages and isinstance(messages[0], list):
        fields["messages"] = _unnested(messages)
    wire = read_shape(fields, ChatBody)
    legacy = bool(wire.functions) and not wire.tools and wire.function_call != "none"
    tools = read_tools(wire, legacy=legacy)
    stream = bool(wire.stream)
    options = wire.stream_options
    generation = Generation(
        messages=read_messages(wire.messages),
        sampling=_read_sampling(wire),
        n=wire.n or 1,
        tools=tools,
        tool_choice=read_choice(
            wire.function_call if legacy else wire.tool_choice, tools, legacy=legacy, offered=bool(wire.tools)
        ),
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
            metadata=_read_metadata(wire.metadata) if wire.metadata else {},
        ),
        stream=stream,
        include_usage=stream and options is not None and bool(options.include_usage),
        legacy_functions=legacy,
        service_tier=wire.service_tier is not None,
        oddities=_oddities(fields, wire, tools) if wire.tool_choice is not None or not fields.keys() <= KNOWN else (),
    )


_TEXT = ResponseFormat()
_NO_TOOLS = ToolChoice("none")
_PLAIN_BODY = msgspec.json.Decoder(PlainChatBody)


def _read_metadata(given: dict[str, object]) -> dict[str, str]:
    return {key: text for key, text in given.items() if isinstance(text, str)}


def _unnested(messages: list[object]) -> object:
    if len(messages) == 1:
        return messages[0]
    raise BadRequest("'messages' is a list of lists; only one inner list can be read.", param="messages[1]")


def _read_sampling(wire: ChatBody) -> Sampling:
    if wire.top_logprobs and not wire.logprobs:
        raise BadRequest("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
    effort = wire.reasoning_effort
    if effort is not None and effort not in EFFORTS:
        raise BadRequest(f"Invalid 'reasoning_effort': use one of {', '.join(EFFORTS)}.", param="reasoning_effort")
    stop = wire.stop
    bias = {token: value for token, value in wire.logit_bias.items() if value} if wire.logit_bias else None
    return Sampling(
        temperature=wire.temperature,
        top_p=wire.top_p,
        frequency_penalty=wire.frequency_penalty,
        presence_penalty=wire.presence_penalty,
        max_tokens=wire.max_completion_tokens or wire.max_tokens or None,
        stop=_read_stop(stop) if stop else (),
        seed=wire.seed,
        logit_bias=bias or None,
        logprobs=bool(wire.logprobs),
        top_logprobs=wire.top_logprobs if wire.logprobs else None,
        reasoning_effort=effort,
        verbosity=wire.verbosity,
    )


def _read_stop(stop: str | list[str]) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(text for text in stop if text)


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
        and wire.max_tool_calls is None
        and wire.on_disconnect is None
    ):
        return _PLAIN
    leaving = wire.on_disconnect
    if leaving not in (None, *ON_DISCONNECT):
        raise BadRequest("Invalid 'on_disconnect': use cancel or continue.", param="on_disconnect")
    return Agentic(
        web_search=bool(wire.web_search) or wire.web_search_options is not None,
        web_search_options=wire.web_search_options,
        planner_mode=bool(wire.planner_mode),
        study_mode=bool(wire.study_mode),
        server_tools=wire.server_tools is not False,
        max_tool_calls=wire.max_tool_calls,
        on_disconnect="continue" if leaving == "continue" else "cancel" if leaving == "cancel" else None,
        agent_address=wire.agent_address or None,
        session_id=session_id or None,
    )


_PLAIN = Agentic()


def _read_extra(fields: dict[str, object], wire: ChatBody) -> dict[str, object]:
    names = fields.keys() - OURS
    if not names:
        return {}
    return {name: fields[name] for name in names if name not in KNOWN or getattr(wire, name) is not None}


def _oddities(
    fields: dict[str, object], wire: ChatBody, tools: tuple[FunctionTool, ...]
) -> tuple[tuple[int, str], ...]:
    """Return what passes and yet deserves a line: fields nobody knows (OAI-01), a choice without tools (OAI-13)."""
    found: list[tuple[int, str]] = []
    if not fields.keys() <= KNOWN:
        unknown = fields.keys() - KNOWN
        found.append((logging.DEBUG, f"unknown fields: {', '.join(sorted(unknown))[:500]}"))
    if not tools and is_forced(wire.tool_choice):
        found.append((logging.WARNING, "'tool_choice' counts as none, since there are no tools"))
    return tuple(found)
