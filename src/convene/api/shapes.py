"""The wire shapes of the OpenAI and ASI:One API: what clients send and what they get. Values only.

Requests are read in two steps: strict JSON to plain objects, then `msgspec.convert` to these shapes, so that unknown
fields are kept for hosts that may want them (invariant 7) and every known number, list and string has a bound
(reliability 3.4). Replies are encoded from these shapes. `openapi.py` generates the API description from them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

JsonObject = dict[str, object]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
ShortText = Annotated[str, Meta(max_length=4096)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
ROLE_NAMES = ("system", "developer", "user", "assistant", "tool", "function")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
ON_DISCONNECT = ("cancel", "continue")
FORMATS = ("text", "json_object", "json_schema")
Temperature = Annotated[float, Meta(ge=0, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Stops = Annotated[list[Annotated[str, Meta(max_length=4096)]], Meta(max_length=4)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenLimit = Annotated[int, Meta(ge=0, le=100_000_000)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
FunctionName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_.:/-]+$")]


class ImageUrl(msgspec.Struct):
    """Where a picture is: `data:` or web URL."""

    url: Annotated[str, Meta(min_length=1)]
    detail: str | None = None


class WirePart(msgspec.Struct):
    """One part of a message's content; which field counts depends on `type` (OAI-09)."""

    type: Annotated[str, Meta(max_length=64)] = "text"
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None
    input_audio: dict[str, object] | None = None
    file: dict[str, object] | None = None


class WireFunctionCall(msgspec.Struct):
    """The function of a call; `arguments` is JSON text, objects are accepted too."""

    name: Annotated[str, Meta(max_length=256)] | None = None
    arguments: str | dict[str, object] | None = None


class WireToolCall(msgspec.Struct):
    """A call echoed back in an assistant message (CHAT-30)."""

    id: ShortText | None = None
    type: str | None = "function"
    function: WireFunctionCall | None = None
    custom: dict[str, object] | None = None


class WireMessage(msgspec.Struct):
    """One message, with every extra and null that clients echo (OAI-08 to OAI-11)."""

    role: Annotated[str, Meta(max_length=64, extra_json_schema={"enum": list(ROLE_NAMES)})]
    content: str | Annotated[list[WirePart], Meta(max_length=4096)] | None = None
    name: ShortText | None = None
    tool_calls: Annotated[list[WireToolCall], Meta(max_length=1024)] | None = None
    tool_call_id: ShortText | None = None
    function_call: WireFunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: str | dict[str, object] | list[object] | None = None
    refusal: str | None = None


class WireFunction(msgspec.Struct):
    """A function's description (TOOLS-02, OAI-14)."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class WireTool(msgspec.Struct):
    """A tool of the client's."""

    type: Annotated[str, Meta(max_length=64)] = "function"
    function: WireFunction | None = None


class JsonSchemaFormat(msgspec.Struct):
    """The `json_schema` of a response format (STRUCT-01)."""

    name: Annotated[str, Meta(max_length=256)] = "answer"
    description: str | None = None
    schema: dict[str, object] | None = None
    strict: bool | None = None


class WireResponseFormat(msgspec.Struct):
    """How the answer must be written (OAI-16)."""

    type: Annotated[str, Meta(max_length=64, extra_json_schema={"enum": list(FORMATS)})]
    json_schema: JsonSchemaFormat | None = None


class StreamOptions(msgspec.Struct):
    """Only `include_usage` has a meaning; the others are accepted (SSE-13, SSE-19)."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class ChatBody(msgspec.Struct, kw_only=True):
    """The body of `POST /v1/chat/completions`: OpenAI's fields and ASI:One's."""

    model: Name
    messages: Annotated[list[WireMessage], Meta(min_length=1, max_length=16_384)]
    temperature: Temperature | None = None
    top_p: Probability | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | Stops | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    seed: Seed | None = None
    user: ShortText | None = None
    tools: Annotated[list[WireTool], Meta(max_length=512)] | None = None
    tool_choice: str | dict[str, object] | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[WireFunction], Meta(max_length=512)] | None = None
    function_call: str | dict[str, object] | None = None
    response_format: WireResponseFormat | None = None
    reasoning_effort: Annotated[str, Meta(max_length=32, extra_json_schema={"enum": list(EFFORTS)})] | None = None
    verbosity: Annotated[str, Meta(max_length=32)] | None = None
    metadata: dict[str, object] | None = None
    store: bool | None = None
    modalities: Annotated[list[str], Meta(max_length=8)] | None = None
    audio: dict[str, object] | None = None
    prediction: dict[str, object] | None = None
    service_tier: Annotated[str, Meta(max_length=64)] | None = None
    moderation: dict[str, object] | None = None
    prompt_cache_key: ShortText | None = None
    prompt_cache_options: dict[str, object] | None = None
    prompt_cache_retention: Annotated[str, Meta(max_length=64)] | None = None
    safety_identifier: ShortText | None = None
    web_search_options: dict[str, object] | None = None
    web_search: bool | None = None
    agent_address: ShortText | None = None
    planner_mode: bool | None = None
    study_mode: bool | None = None
    server_tools: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    on_disconnect: Annotated[str, Meta(max_length=32, extra_json_schema={"enum": list(ON_DISCONNECT)})] | None = None


class PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message of text and nothing else."""

    role: Literal["user", "assistant", "system"]
    content: str
    name: ShortText | None = None


class PlainChatBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The commonest `ChatBody`: texts, how to sample, whether to stream. Types ask what branches would."""

    model: Name
    messages: Annotated[list[PlainMessage], Meta(min_length=1, max_length=16_384)]
    temperature: Temperature | None = None
    top_p: Probability | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | Stops | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Seed | None = None
    user: ShortText | None = None


class ReplyFunction(msgspec.Struct):
    """The function of a call in a reply."""

    name: str
    arguments: str


class ReplyToolCall(msgspec.Struct):
    """A call for the client to execute, strictly OpenAI's shape (TOOLS-04): `id`, `type`, `function`.

    A call that the server has run itself has the other keys as well (decision 1, TOOLS-10), and where the operator
    wants ASI:One's bare shape, no `type` and `function`.
    """

    id: str
    function: ReplyFunction | UnsetType
    type: Literal["function"] | UnsetType = "function"
    index: int | UnsetType = UNSET
    tool_name: str | UnsetType = UNSET
    args: JsonObject | UnsetType = UNSET
    result: object = UNSET


class UrlCitation(msgspec.Struct):
    """A source of the answer; indexes into the final text (OAI-44)."""

    url: str
    title: str
    start_index: int
    end_index: int


class Annotation(msgspec.Struct):
    """What OpenAI wraps a citation in."""

    url_citation: UrlCitation
    type: Literal["url_citation"] = "url_citation"


class ReplyMessage(msgspec.Struct):
    """The assistant's message. `reasoning_content` and `reasoning` are the same text (OAI-46)."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: str | None = None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ReplyToolCall] | UnsetType = UNSET
    function_call: ReplyFunction | UnsetType = UNSET
    annotations: list[Annotation] | UnsetType = UNSET


class TopLogprob(msgspec.Struct):
    """A rival of a generated token."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class ReplyLogprob(msgspec.Struct):
    """One generated token with its rivals (OAI-21)."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ReplyLogprobs(msgspec.Struct):
    """The log probabilities of one choice."""

    content: list[ReplyLogprob] | None
    refusal: list[ReplyLogprob] | None = None


class ReplyChoice(msgspec.Struct):
    """One choice of a whole reply."""

    index: int
    message: ReplyMessage
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
    logprobs: ReplyLogprobs | None = None


class PromptDetails(msgspec.Struct, frozen=True):
    """Where prompt tokens came from."""

    cached_tokens: int = 0


class CompletionDetails(msgspec.Struct, frozen=True):
    """What completion tokens were spent on."""

    reasoning_tokens: int = 0


class ReplyUsage(msgspec.Struct):
    """Token counts (OAI-42)."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails = PromptDetails()
    completion_tokens_details: CompletionDetails = CompletionDetails()


class Notice(msgspec.Struct):
    """Something the caller should know about how the answer came about."""

    code: str
    message: str


class Cost(msgspec.Struct):
    """What the request has cost: `micros` millionths of `currency`, and of which steps (decisions)."""

    currency: str
    micros: int
    by_step: list[JsonObject] = []


class ReplyMetadata(msgspec.Struct):
    """How the answer came about (decisions, shapes of the extras). `cost` is there where the model has a price.

    `cost` and `notices` are texts with the same JSON where the operator wants it so, see `[agentic] metadata_shape`.
    """

    request_id: str
    model: str
    run_id: str | UnsetType = UNSET
    upstream: str | UnsetType = UNSET
    cost: Cost | str | UnsetType = UNSET
    notices: list[Notice] | str | UnsetType = UNSET


class ChatReply(msgspec.Struct):
    """A whole chat completion: OpenAI's shape and ASI:One's five extras, always present."""

    id: str
    created: int
    model: str
    choices: list[ReplyChoice]
    usage: ReplyUsage
    metadata: ReplyMetadata
    object: Literal["chat.completion"] = "chat.completion"
    system_fingerprint: str | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    executable_data: list[JsonObject] = []
    intermediate_steps: list[JsonObject] = []
    thought: list[str] = []
    conversation_id: str | None = None


TokenIds = Annotated[list[TokenId], Meta(max_length=65_536)]


class EmbeddingBody(msgspec.Struct):
    """The body of `POST /v1/embeddings`."""

    model: Name
    input: str | Annotated[list[str | TokenId | TokenIds], Meta(min_length=1, max_length=65_536)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    user: ShortText | None = None


class EmbeddingItem(msgspec.Struct):
    """One vector: floats, or base64 of little-endian float32 (OAI-63)."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(msgspec.Struct):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingReply(msgspec.Struct):
    """The reply of `POST /v1/embeddings`."""

    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


class ModelCapabilities(msgspec.Struct):
    """What a model can do."""

    vision: bool
    tools: bool
    json_schema: bool
    logprobs: bool
    reasoning: bool


class Model(msgspec.Struct):
    """A model in OpenAI's form, with the real limits of the deployed engine (MODEL-05)."""

    id: str
    created: int
    owned_by: str
    object: Literal["model"] = "model"
    kind: Literal["chat", "embedding", "image"] = "chat"
    alias_of: str | UnsetType = UNSET
    context_window: int | None = None
    max_output_tokens: int | None = None
    default_temperature: float | None = None
    dimensions: int | UnsetType = UNSET
    capabilities: ModelCapabilities | UnsetType = UNSET
    image: ModelImages | UnsetType = UNSET
    description: str | UnsetType = UNSET


class ModelImages(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an image model makes. Sizes are `WIDTHxHEIGHT` in pixels; `auto` means `default_size`."""

    tasks: list[Literal["generate", "edit", "vary"]]
    sizes: list[str]
    default_size: str
    formats: list[Literal["png", "jpeg", "webp"]]
    count_max: int
    """Most pictures of one request; whoever wants more sends several at once (IMAGE-11)."""
    sources_max: int
    """Most pictures that one edit takes."""
    seed: bool
    transparent_background: bool
    progress: bool
    """Streams tell how far it is."""
    scripted: bool = False
    """It makes test pictures by rule."""


class ModelList(msgspec.Struct):
    """All models."""

    data: list[Model]
    object: Literal["list"] = "list"


class ErrorDetail(msgspec.Struct):
    """OpenAI's error object; all four keys always (ERRSHAPE-01)."""

    message: str
    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "rate_limit_error",
        "insufficient_quota",
        "server_error",
    ]
    param: str | None
    code: str


class ErrorReply(msgspec.Struct):
    """Every error's body: OpenAI's object, and the message again at the top (ERR-08)."""

    error: ErrorDetail
    message: str
