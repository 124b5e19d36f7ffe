"""A gathered turn as the JSON of a whole chat completion, and the small shapes that streams share. Pure."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from convene.api.shapes import (
    Annotation,
    ChatReply,
    CompletionDetails,
    Cost,
    JsonObject,
    Notice,
    PromptDetails,
    ReplyChoice,
    ReplyFunction,
    ReplyLogprob,
    ReplyLogprobs,
    ReplyMessage,
    ReplyMetadata,
    ReplyToolCall,
    ReplyUsage,
    TopLogprob,
    UrlCitation,
)
from convene.events import PlainAnswer, fold
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convene.api.chat_request import ChatCall
    from convene.events import Began, Choice, Cited, Fold, StepChanged, TokenLogprob, ToolRan
    from convene.serving.base import Outcome, Turn

_encode = msgspec.json.Encoder().encode
SERVICE_TIER = "default"
"""There is one tier here, whatever was asked for (OAI-23)."""
ESTIMATED = Notice("usage_estimated", "The upstream reported no token counts; they are estimated from the text.")


MetadataShape = Literal["objects", "strings"]
"""Whether `notices` and `cost` of `metadata` are JSON, or texts that hold it."""
ServerCalls = Literal["dual", "bare", "off"]
"""How calls of the server's own tools stand in `tool_calls` too: OpenAI's keys and ASI:One's, ASI:One's alone, not."""


class ReplyShape(NamedTuple):
    """What the operator says of whole replies."""

    calls: ServerCalls = "dual"
    metadata: MetadataShape = "objects"


WHOLE: Final = ReplyShape()


def reply_bytes(
    gathered: Fold | PlainAnswer, turn: Turn, call: ChatCall, request_id: str, shape: ReplyShape = WHOLE
) -> bytes:
    """Return the body of a whole reply: OpenAI's shape and the five extras, always present (decisions)."""
    if isinstance(gathered, PlainAnswer):
        if not gathered.usage.estimated and shape.metadata == "objects":
            return _plain_reply(gathered, turn, call, request_id)
        gathered = fold(gathered)
    metadata = metadata_of(gathered, request_id, turn.model, cost_of(turn.outcome), turn.run_id)
    if shape.metadata == "strings":
        metadata = in_strings(metadata)
    reply = reply_of(gathered, turn.id, turn.created, metadata, turn.conversation_id, legacy=call.legacy_functions)
    if gathered.tools and shape.calls != "off" and not call.request.generation.tools:
        reply.choices[0].message.tool_calls = server_calls(gathered.tools, shape.calls) or UNSET
    reply.system_fingerprint = fingerprint_of(gathered.began, seeded=call.seeded)
    if call.service_tier:
        reply.service_tier = SERVICE_TIER
    return _encode(reply)


def reply_of(
    gathered: Fold,
    reply_id: str,
    created: int,
    metadata: ReplyMetadata,
    conversation_id: str | None,
    *,
    legacy: bool = False,
) -> ChatReply:
    """Return a gathered turn as a whole reply; the model's name is that of `metadata`."""
    if not gathered.choices:
        gathered.choice(0)
    folded = gathered.choices
    indexes = folded if len(folded) == 1 else sorted(folded)
    return ChatReply(
        id=reply_id,
        created=created,
        model=metadata.model,
        choices=[_choice(index, folded[index], gathered, legacy=legacy) for index in indexes],
        usage=usage_of(gathered.usage),
        metadata=metadata,
        executable_data=[tool_of(ran) for ran in gathered.tools] if gathered.tools else [],
        intermediate_steps=[step_of(step) for step in gathered.steps.values()] if gathered.steps else [],
        thought=["".join(choice.reasoning) for choice in folded.values() if choice.reasoning],
        conversation_id=conversation_id,
    )


# The general shape with a gap wherever a plain answer differs from another: filling gaps takes a third of the time of
# building and encoding seven objects. Made from the shapes, so that it cannot say anything else than they do.
_PLAIN_REPLY: Final = (
    _encode(
        ChatReply(
            id="%b",
            created=-1,
            model="%b",
            choices=[ReplyChoice(0, ReplyMessage("%b"), "stop")],
            usage=ReplyUsage(-1, -1, -1, PromptDetails(-1), CompletionDetails(-1)),
            metadata=ReplyMetadata("%b", "%b", upstream="%b"),
        )
    )
    .replace(b'"stop"', b"%b")
    .replace(b'"%b"', b"%b")
    .replace(b"-1", b"%d")
    .replace(b'"upstream":%b', b'"upstream":%b%b')
    .replace(b'"executable_data"', b'%b"executable_data"')
)


def _plain_reply(answer: PlainAnswer, turn: Turn, call: ChatCall, request_id: str) -> bytes:
    used, model, outcome = answer.usage, _encode(turn.model), turn.outcome
    cost = cost_of(outcome) if outcome.currency else UNSET
    optional = b""
    fingerprint = answer.fingerprint or fingerprint_of(answer, seeded=call.seeded)
    if fingerprint is not UNSET:
        optional = b'"system_fingerprint":%b,' % _encode(fingerprint)
    if call.service_tier:
        optional += b'"service_tier":%b,' % _encode(SERVICE_TIER)
    return _PLAIN_REPLY % (
        _encode(turn.id),
        turn.created,
        model,
        _encode(answer.text),
        _encode(answer.finish),
        used.prompt_tokens,
        used.completion_tokens,
        used.prompt_tokens + used.completion_tokens,
        used.cached_tokens,
        used.reasoning_tokens,
        _encode(request_id),
        model,
        _encode(answer.upstream),
        b',"cost":%b' % _encode(cost) if cost is not UNSET else b"",
        optional,
    )


def _choice(index: int, choice: Choice, gathered: Fold, *, legacy: bool) -> ReplyChoice:
    calls = choice.tool_calls
    reasoning: str | UnsetType = "".join(choice.reasoning) if choice.reasoning else UNSET
    pieces = choice.text
    text = pieces[0] if len(pieces) == 1 else "".join(pieces)
    message = ReplyMessage(
        content=None if calls and not text else text,
        refusal="".join(choice.refusal) or None,
        reasoning_content=reasoning,
        reasoning=reasoning,
    )
    if index == 0 and gathered.citations:
        message.annotations = [annotation_of(cited) for cited in gathered.citations]
    finish = choice.finish or "stop"
    if calls and legacy:
        message.function_call = ReplyFunction(calls[0].name, calls[0].arguments)
    elif calls:
        message.tool_calls = [ReplyToolCall(one.id, ReplyFunction(one.name, one.arguments)) for one in calls]
    return ReplyChoice(
        index=index,
        message=message,
        finish_reason="function_call" if legacy and finish == "tool_calls" else finish,
        logprobs=logprobs_of(choice.logprobs) if choice.logprobs else None,
    )


_NONE_CACHED = PromptDetails()
_NO_REASONING = CompletionDetails()


def usage_of(usage: Usage | None) -> ReplyUsage:
    """Return token counts as clients read them; always an object (COMPAT-01)."""
    used = usage or Usage()
    return ReplyUsage(
        used.prompt_tokens,
        used.completion_tokens,
        used.total_tokens,
        PromptDetails(used.cached_tokens) if used.cached_tokens else _NONE_CACHED,
        CompletionDetails(used.reasoning_tokens) if used.reasoning_tokens else _NO_REASONING,
    )


def logprobs_of(tokens: Iterable[TokenLogprob]) -> ReplyLogprobs:
    """Return log probabilities as clients read them (OAI-21)."""
    return ReplyLogprobs(
        [
            ReplyLogprob(
                token.token,
                token.logprob,
                list(token.token.encode()) if token.bytes is None else token.bytes,
                [TopLogprob(rival.token, rival.logprob, rival.bytes) for rival in token.top_logprobs],
            )
            for token in tokens
        ]
    )


def annotation_of(cited: Cited) -> Annotation:
    """Return a citation in OpenAI's form (OAI-44)."""
    return Annotation(UrlCitation(cited.url, cited.title, cited.start_index, cited.end_index))


def step_of(step: StepChanged) -> JsonObject:
    """Return an item of `intermediate_steps` (decisions, shapes of the extras)."""
    fields: JsonObject = msgspec.structs.asdict(step)
    for optional in ("usage", "detail"):
        if fields[optional] is None:
            del fields[optional]
    return fields


def tool_of(ran: ToolRan) -> JsonObject:
    """Return an item of `executable_data` (decisions, shapes of the extras)."""
    fields: JsonObject = msgspec.structs.asdict(ran)
    if ran.agent is None:
        del fields["agent"]
    return fields


def server_calls(ran: Iterable[ToolRan], shape: ServerCalls) -> list[ReplyToolCall]:
    """Return tools that ran here as whole replies show them to clients without tools (decision 1, TOOLS-10)."""
    calls: list[ReplyToolCall] = []
    for index, one in enumerate(one for one in ran if one.type == "tool_call"):
        call = ReplyToolCall(one.id, UNSET, UNSET, UNSET, one.tool_name, one.args, one.result)
        if shape == "dual":
            call.index, call.type = index, "function"
            call.function = ReplyFunction(one.tool_name, _encode(one.args).decode())
        calls.append(call)
    return calls


def cost_of(outcome: Outcome) -> Cost | UnsetType:
    """Return what a settled turn has cost, where its model has a price."""
    if not outcome.currency:
        return UNSET
    steps: list[JsonObject] = [{"step": step, "micros": micros} for step, micros in outcome.by_step]
    return Cost(outcome.currency, outcome.cost_micros, steps)


def metadata_of(
    gathered: Fold, request_id: str, model: str, cost: Cost | UnsetType = UNSET, run_id: str = ""
) -> ReplyMetadata:
    """Return `metadata`: where the answer came from and what the caller should know about it."""
    notices = [Notice(noticed.code, noticed.message) for noticed in gathered.notices]
    if gathered.usage is not None and gathered.usage.estimated:
        notices.append(ESTIMATED)
    upstream = UNSET if gathered.began is None else gathered.began.upstream
    return ReplyMetadata(request_id, model, run_id or UNSET, upstream, cost, notices or UNSET)


def in_strings(metadata: ReplyMetadata) -> ReplyMetadata:
    """Return it with texts alone, as OpenAI's type of that name has it: what is no text becomes JSON in one (0007)."""
    cost, notices = metadata.cost, metadata.notices
    return ReplyMetadata(
        metadata.request_id,
        metadata.model,
        metadata.run_id,
        metadata.upstream,
        UNSET if cost is UNSET else _encode(cost).decode(),
        UNSET if notices is UNSET else _encode(notices).decode(),
    )


def fingerprint_of(began: Began | PlainAnswer | None, *, seeded: bool) -> str | UnsetType:
    """Return the host's own fingerprint, or for a seeded request one of model and upstream (OAI-20)."""
    if began is None:
        return UNSET
    if began.fingerprint is not None:
        return began.fingerprint
    return f"fp_{zlib.crc32(f'{began.upstream}/{began.model}'.encode()):08x}" if seeded else UNSET
