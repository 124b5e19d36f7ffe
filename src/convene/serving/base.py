"""The face of this room: what `api/` knows of the use cases behind it.

Values a request is made of once HTTP has been taken off, and the seams `app.py` fills: `Turns` answers chats,
`Catalog` knows the models, `Gatekeeper` knows the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from convene.limits.allowance import Allowance
from convene.limits.limit import Limit, Refusal
from convene.providers.base import Capabilities, Embeddings, Generation
from convene.serving.base_images import ImageAbilities
from convene.store.base_ledger import Status
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event, Fold, PlainAnswer, ToolRan


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking, proved by a key: the owner owns sessions and runs, the key id is what logs may show."""

    key_id: str
    owner: str
    name: str = ""
    plan: str = "owner"
    models: tuple[str, ...] | None = None
    scopes: tuple[str, ...] = ()
    user_id: str = ""
    team_id: str = ""
    limits: Allowance | None = None
    """The key's own limits, over those of its plan."""
    user_limits: Allowance | None = None
    team_limits: Allowance | None = None
    model_limits: dict[str, Allowance] = {}
    """The key's limits on single models."""


class Agentic(msgspec.Struct, frozen=True, kw_only=True):
    """The ASI:One fields of one request (CHAT-17 to 22), carried in the turn for the rooms that act on them.

    `web_search` is also true for OpenAI's `web_search_options` (OAI-24). `agent_address` names the caller, for audit.
    """

    web_search: bool = False
    web_search_options: dict[str, object] | None = None
    planner_mode: bool = False
    study_mode: bool = False
    server_tools: bool = True
    max_tool_calls: int | None = None
    """Most calls of the server's own tools in this turn; the model's own ceiling still holds."""
    on_disconnect: Literal["cancel", "continue"] | None = None
    """What a run does when its client leaves; None is as the operator says."""
    agent_address: str | None = None
    session_id: str | None = None
    hops: tuple[str, ...] = ()
    """Agents that the question has been through, as its caller says (`agent_hops.py`)."""
    agent: str = ""
    """An agent, by address, handle or URL, that is asked in the place of the model."""
    kept: bool = False
    """A run of its own even where the server has nothing to do but ask the model: it can be found, resumed, ended."""
    patient: bool = False
    """The caller waits for agents as long as they take: nothing is deferred, and nothing answered without them."""


class ChatRequest(msgspec.Struct, frozen=True, gc=False):
    """A chat completion as asked: the requested model's name, what to generate, how agentic."""

    model: str
    generation: Generation
    agentic: Agentic = Agentic()
    metadata: dict[str, str] = {}


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts or token ids to turn into vectors."""

    model: str
    inputs: Sequence[str | Sequence[int]]
    dimensions: int | None = None
    request_id: str = ""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a caller's limits stand: their states as in `limits.limit.Grant`, and the refusal, if it is one's."""

    limits: tuple[Limit, ...]
    states: tuple[int, ...]
    now_us: int
    refusal: Refusal | None = None


class Outcome(msgspec.Struct, gc=False):
    """What is known of a turn so far: filled while it runs, read by the access log and the ledger."""

    model: str = ""
    upstream: str = ""
    usage: Usage | None = None
    finish: str = ""
    first_event_ms: float | None = None
    status: Status = "ok"
    images: int = 0
    tool_calls: int = 0
    agent_calls: int = 0
    tools: tuple[tuple[str, str], ...] = ()
    """Name and status of each call of a tool of the server's own, for the metrics."""
    cost_micros: int = 0
    currency: str = ""
    """Of the cost; empty where the model has no price."""
    by_step: tuple[tuple[str, int], ...] = ()
    """Of an agentic turn: what each round of the model has cost, by its step."""
    standing: Standing | None = None
    """How the caller's limits stand, for the headers of the answer; None where nothing is limited."""

    def note_tool(self, ran: ToolRan) -> None:
        """Count a tool or an agent that the server itself has called."""
        if ran.type == "agent_manifest":
            self.agent_calls += 1
        else:
            self.tool_calls += 1
            self.tools += ((ran.tool_name, ran.status),)


class Turn(Protocol):
    """One accepted chat request."""

    id: str
    created: int
    model: str
    outcome: Outcome

    @property
    def run_id(self) -> str:
        """Of an agentic turn, else empty; known from the start."""
        ...

    @property
    def conversation_id(self) -> str | None:
        """What the session is called in answers; known at the end, None without a session."""
        ...

    def events(self) -> AsyncGenerator[Event]:
        """Run it. Raises `ConveneError`; closing the generator cancels the work and settles what was used."""
        ...

    async def answer(self) -> Fold | PlainAnswer:
        """Run it for a caller that does not stream and return all events gathered. Raises `ConveneError`."""
        ...


class Turns(Protocol):
    """Answers chats."""

    def start(self, request: ChatRequest, principal: Principal, request_id: str = "") -> Turn:
        """Accept a request, or raise `NotFound` (model), `Forbidden`, or `BadRequest` naming the field."""
        ...


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One name a client may use, with the real limits of what is deployed behind it (MODEL-05)."""

    id: str
    created: int
    owned_by: str
    upstream: str
    target: str
    kind: str = "chat"
    aliases: tuple[str, ...] = ()
    alias_of: str | None = None
    notes: str = ""
    capabilities: Capabilities | None = None
    dimensions: int | None = None
    image: ImageAbilities | None = None
    """What an image model makes."""


class Catalog(Protocol):
    """The models as clients see them."""

    def cards(self, principal: Principal) -> Sequence[ModelCard]:
        """Return the models this caller may use, aliases included."""
        ...

    def card(self, name: str, principal: Principal) -> ModelCard:
        """Return one by name or alias. Raises `NotFound` (`model_not_found`)."""
        ...

    def serves(self) -> bool:
        """Whether a configured model can serve now (a chat model, where there is one)."""
        ...

    def readiness(self) -> dict[str, str | None]:
        """Return each deployed model's reason for not being ready, None when it is. Never calls a model (OPS-01)."""
        ...


class Embedder(Protocol):
    """Answers embedding requests."""

    async def embed(self, request: EmbeddingRequest, principal: Principal, outcome: Outcome) -> Embeddings:
        """Return the vectors, filling `outcome`. Raises `NotFound`, `BadRequest`, `Refused` or `UpstreamFault`."""
        ...


class Gatekeeper(Protocol):
    """Knows the keys."""

    def admit(self, authorization: str | None) -> Principal | None:
        """Return who holds this header's key if that is known without a look-up, else None. Raises `Unauthorized`."""
        ...

    def still(self, principal: Principal) -> bool:
        """Whether `admit` or `look_up` would give this very principal to the key that they gave it to before."""
        ...

    async def look_up(self, authorization: str | None) -> Principal:
        """Return who holds this header's key, asking the store. Raises `Unauthorized`."""
        ...
