"""The seam of this room: what `serving/` knows of a tool that the server itself runs inside a turn.

    Toolbox.tools() ──► Tool.spec    what a model is told, and the labels that the policy judges by
                        Tool.run     arguments (checked against the schema already) ──► ToolResult

What a tool returns is data, never instruction, and never names an endpoint, a key or a limit (invariant 10). A tool
raises `Retry` when the model may try again with other arguments and `Failed` when it may not; anything else is a fault
of ours and is told as `Failed`. `app_tools.py` picks the tools; nobody else does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from convene.events import Noticed, StepKind

if TYPE_CHECKING:
    from collections.abc import Sequence

Label = Literal["private", "untrusted", "sends"]
"""`private`: it reads what is not public. `untrusted`: strangers write what it returns. `sends`: it can carry data
out."""


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One tool as models and the policy see it."""

    name: str
    """Letters, digits, `_` and `-`, at most 64; a tool of an MCP server is `server__tool`."""
    description: str
    parameters: dict[str, object]
    """JSON schema of an object."""
    kind: StepKind = "tool"
    labels: frozenset[Label] = frozenset()
    timeout_s: float = 30.0
    source: str = "convene"
    """Who offers it: this server, or the name of an MCP server."""


class Source(msgspec.Struct, frozen=True):
    """Something that an answer may cite. `text` is what was read of it: a snippet or a page."""

    url: str
    title: str
    text: str = ""


class Shows(msgspec.Struct, frozen=True):
    """Something that was made for the reader: a line of markdown, and the address in it by which it is known."""

    line: str
    link: str


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool has found. Everything in it can be written to a journal as JSON and read back."""

    text: str
    """What the model reads. Sources that are to be cited are not numbered here: `serving/` numbers them."""
    data: object = None
    """The `result` of the item in `executable_data`: JSON."""
    sources: tuple[Source, ...] = ()
    links: tuple[str, ...] = ()
    """Further addresses that stand in the text word for word; the policy lets pages be read that were shown."""
    shows: tuple[Shows, ...] = ()
    """What the answer must show, whether or not the model writes it."""
    notices: tuple[Noticed, ...] = ()
    agent: dict[str, object] | None = None
    """Of a call of an agent: who was called, for the item in `executable_data` (decisions, shapes of the extras)."""
    failed: bool = False
    """It did not work, and there is more to tell of it than words."""


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls and why: never from the model."""

    owner: str
    key_id: str = ""
    """Whose limits and books it is, for tools that cost something by themselves."""
    run_id: str
    call_id: str
    idempotency_key: str
    """`run:step:group`: the same when a call is repeated after a crash, for whoever can tell repeats."""
    session_id: str | None = None
    options: Mapping[str, object] = {}
    """The request's `web_search_options`, for tools of kind `search` and `fetch`."""
    conversation: str = ""
    """What the conversation is called here: the same for all turns of a session, else the run's own."""
    caller: str = ""
    """`agent_address` of the request: on whose behalf it came."""
    hops: tuple[str, ...] = ()
    """Agents that the request has been through before it came here."""
    wait_s: float | None = None
    """How much longer the request can wait for an agent (decision 3); None: it need not wait at all."""
    progress: Callable[[str], None] = lambda _: None
    """Tells the caller in a few words what is going on; shown as the step's summary."""


class Tool(Protocol):
    """One tool. May be called by many turns at the same time."""

    @property
    def spec(self) -> ToolSpec:
        """What it is."""
        ...

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        """Do it. `serving/` ends it after `spec.timeout_s`; cancelled, it stops at once. Raises `Retry` or `Failed`."""
        ...


class Toolbox(Protocol):
    """Tools that may come and go, as those of an MCP server that is down."""

    def tools(self) -> Sequence[Tool]:
        """Return what can be called now. Cheap: asked at the start of every agentic turn."""
        ...

    def notices(self) -> Sequence[Noticed]:
        """Return what callers should know of tools that cannot be called now; code and words, no address."""
        ...
