"""The seam of this room: what `serving/` knows of whoever generates.

A `ChatModel` turns a `Generation` into events; an `EmbeddingModel` turns texts into vectors. Dialect, host and
capability are separate: a class speaks one dialect, an instance is one model on one upstream, and `Capabilities` says
what it can do. Wrappers (fallback) are `ChatModel`s too. `app.py` picks the classes; nobody else does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from convene.messages import FunctionTool, Message, ResponseFormat, ToolChoice
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence

    from convene.events import Event


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployed model can do; published in `/v1/models` (MODEL-05) and checked before it is asked.

    `None` for a number means "not known, the upstream decides". Tokens are the unit of both sizes.
    """

    context_window: int | None = None
    output_tokens_max: int | None = None
    temperature: float | None = None
    vision: bool = True
    audio: bool = False
    files: bool = False
    tools: bool = True
    json_schema: bool = True
    logprobs: bool = True
    logit_bias: bool = True
    reasoning: bool = False
    penalties: bool = True
    chains: bool = True
    """Whether it calls a tool after it has seen what another returned; not published."""


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How to choose tokens; `None` is the model's own default. 0 and null limits arrive as None (decisions 7).

    Encoded, it is those fields of OpenAI's body that were set; `openai_codec.py` lives on it.
    """

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


HOST_FIELDS = frozenset(
    {
        "modalities",
        "audio",
        "prediction",
        "service_tier",
        "moderation",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
    }
)
"""OpenAI's fields that only a host can give a meaning; they travel in `Generation.extra` with the unknown ones."""


class Generation(msgspec.Struct, frozen=True, gc=False):
    """One call of a model: everything it needs, and nothing of who asked.

    `stream` is what the caller wants; a provider may stream from its host either way. `spoken` asks for audio too, as
    the `modalities` and `audio` in `extra` say. `extra` holds unknown request
    fields for hosts that may want them (invariant 7): never logged, never interpreted.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    n: int = 1
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat = ResponseFormat()
    stream: bool = False
    user: str | None = None
    spoken: bool = False
    extra: dict[str, object] = {}


class Embeddings(msgspec.Struct, frozen=True):
    """Vectors in the order of the inputs, each of the same length, and the tokens read."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
    model: str


class ChatModel(Protocol):
    """One model on one upstream (or a wrapper over several)."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    @property
    def upstream(self) -> str:
        """The configured upstream's name, for `metadata.upstream` and the books."""
        ...

    def ready(self) -> str | None:
        """Return None if it can serve now, else why not, in words for an operator. Never calls the model (OPS-01)."""
        ...

    @property
    def whole(self) -> Callable[[Generation], Awaitable[Iterable[Event]]] | None:
        """How to get the same events all at once, where a host gives whole answers; None where it only streams.

        A `PlainAnswer` where the answer is one, else a list.

        For callers that do not stream: one wait instead of a generator a layer, a quarter of a plain request's cost.
        """
        ...

    def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        """Generate: `Began`, deltas, one `Finished` a choice, then one `UsageReported`.

        Closing the generator cancels the upstream's work within a second (invariant 5). Raises `BadRequest` for what
        the model cannot do and `UpstreamFault` for the rest; after the first delta a fault is never retried.
        """
        ...


class EmbeddingModel(Protocol):
    """Turns texts into vectors."""

    @property
    def upstream(self) -> str:
        """The configured upstream's name."""
        ...

    def ready(self) -> str | None:
        """Return None if it can serve now, else why not."""
        ...

    async def embed(self, inputs: Sequence[str | Sequence[int]], dimensions: int | None = None) -> Embeddings:
        """Return one vector an input (text or token ids). Raises `BadRequest` or `UpstreamFault`."""
        ...
