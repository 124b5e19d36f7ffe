"""Tools of MCP servers (`[mcp.NAME]`): which servers are there, what they offer now, and calls of it.

    McpBox ──► McpServer   kept by one task: greeted, listed, listened to, looked at again; anew with pauses when down
                 McpTool   one tool of it, as `tools.base.Tool`

A server that is down has no tools and a notice. Nothing that a caller or a model says chooses where a request goes:
the address is the operator's. What a server says is data; see `mcp_offer.py` for what of it reaches a model, and
`mcp_link.py`, `mcp_exchange.py` and `mcp_codec.py` for the protocol.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from convene.agent_hops import onward
from convene.errors import Failed, Retry
from convene.events import Noticed
from convene.tools.base import ToolResult
from convene.tools.mcp_codec import HEADER_MISMATCH, INVALID_PARAMS, McpFault, clean
from convene.tools.mcp_exchange import Endpoint, Refusal, SessionGone, Unreachable, Wire
from convene.tools.mcp_link import McpLink, ToolCall
from convene.tools.mcp_offer import Offered, Terms, make_offer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from convene.clock import Clock
    from convene.http.base import Client
    from convene.tools.base import Tool, ToolContext, ToolSpec
    from convene.tools.mcp_codec import Outcome

log = logging.getLogger("convene.mcp")

NOT_ASKED: Final = "it has not been asked yet"
LIST_GAP_S: Final = 1.0
"""A server is not asked for its tools more often, however often it says that they have changed."""
LISTEN_PAUSE_S: Final = 1.0
LISTEN_PAUSE_S_MAX: Final = 60.0
FAREWELL_S: Final = 2.0
TEXT_CHARS_MAX: Final = 100_000
DATA_BYTES_MAX: Final = 64 * 1024
FAULT_CHARS_MAX: Final = 2_000
PROGRESS_MAX: Final = 100
"""Times that one call may change the words its step shows."""


class McpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One configured server."""

    endpoint: Endpoint
    terms: Terms
    refresh_s: float = 60.0
    back_off_s: float = 1.0
    back_off_s_max: float = 60.0

    @property
    def name(self) -> str:
        """As in `[mcp.NAME]`."""
        return self.terms.server


class McpServer:
    """One server and what it offers now."""

    def __init__(self, client: Client, settings: McpSettings, clock: Clock) -> None:
        """`client` is closed with it."""
        self.name = settings.name
        self.tools: tuple[McpTool, ...] = ()
        """What can be called now; nothing while it is down."""
        self.known: tuple[ToolSpec, ...] = ()
        """What it offered when it was last there."""
        self.fault = NOT_ASKED
        """Why it cannot be used; empty while it can."""
        self._client = client
        self._settings = settings
        self._clock = clock
        self._wake = asyncio.Event()
        self._wire = Wire(client, settings.endpoint)
        self._link = McpLink(self._wire, self._wake.set)
        self._left_out: tuple[str, ...] = ()
        self._listed_at = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._turned = asyncio.Event()

    def start(self) -> None:
        """Begin to keep it; returns at once."""
        self._keeper = asyncio.create_task(self._keep(), name=f"MCP server {self.name}")

    async def aclose(self) -> None:
        """Leave it and drop the connections."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            try:
                async with asyncio.timeout(FAREWELL_S):
                    await self._link.aclose()
            except TimeoutError:
                pass  # it will find out by itself
        await self._client.aclose()

    async def asked(self) -> None:
        """Wait until it has been asked what it offers, whatever came of it."""
        while self.fault == NOT_ASKED:
            await self.turned()

    async def turned(self) -> None:
        """Wait until what it offers, or whether it is there, has been found out anew."""
        self._turned.clear()
        await self._turned.wait()

    async def refresh(self) -> None:
        """Look up its tools now. Raises `McpFault`."""
        found, unread = await self._link.list_tools()
        self._listed_at = self._clock.monotonic()
        offer = make_offer(found, self._settings.terms)
        left_out = (*offer.left_out, *([f"{unread} entries of its list cannot be read"] if unread else []))
        if left_out != self._left_out:
            for line in left_out:
                log.warning("MCP server %s, tool left out: %s", self.name, line)
            self._left_out = left_out
        if self.fault:
            log.info("MCP server %s: %d tools, revision %s", self.name, len(offer.tools), self._link.session.version)
        self.tools = tuple(McpTool(self, offered) for offered in offer.tools)
        self.known = tuple(offered.spec for offered in offer.tools)
        self.fault = ""
        self._turned.set()

    async def call(self, wanted: ToolCall) -> Outcome:
        """Call one of its tools. Raises `McpFault`; after one that means it may be down, it is looked at at once."""
        try:
            return await self._link.call(wanted)
        except Unreachable:
            self._wake.set()
            raise

    async def _keep(self) -> None:
        tries = 0
        while True:
            try:
                await self._link.open()
                await self.refresh()
            except McpFault as fault:
                self._lose(str(fault))
                pause_s = min(self._settings.back_off_s_max, self._settings.back_off_s * 2 ** min(tries, 16))
                tries += 1
                await asyncio.sleep(pause_s * (0.5 + self._clock.fraction() / 2))
                continue
            tries = 0
            await self._stay()

    async def _stay(self) -> None:
        """Keep the list fresh until the server does not answer any more; whether it is down, the next greeting says."""
        listener = asyncio.create_task(self._listen()) if self._link.session.audible else None
        try:
            while True:
                await self._until_due()
                try:
                    await self.refresh()
                except McpFault as fault:
                    log.debug("MCP server %s is greeted anew: %s", self.name, fault)
                    return
        finally:
            if listener is not None:
                listener.cancel()
                await asyncio.wait([listener])

    async def _until_due(self) -> None:
        try:
            async with asyncio.timeout(self._settings.refresh_s):
                await self._wake.wait()
        except TimeoutError:
            pass  # the ordinary look
        self._wake.clear()
        await asyncio.sleep(max(0.0, self._listed_at + LIST_GAP_S - self._clock.monotonic()))

    async def _listen(self) -> None:
        """Hear of changes; a stream that ends may mean that the server has, so it is looked at."""
        pause_s = LISTEN_PAUSE_S
        while True:
            begun_at = self._clock.monotonic()
            try:
                offered = await self._link.listen()
            except SessionGone:
                self._wake.set()
                return  # the new session gets a listener of its own
            except McpFault:
                offered = True
            if not offered:
                return
            self._wake.set()
            lasted = self._clock.monotonic() - begun_at > LISTEN_PAUSE_S_MAX
            pause_s = LISTEN_PAUSE_S if lasted else min(2 * pause_s, LISTEN_PAUSE_S_MAX)
            await asyncio.sleep(pause_s)

    def _lose(self, fault: str) -> None:
        if fault != self.fault:
            log.warning("MCP server %s cannot be used: %s", self.name, fault)
        self.fault, self.tools = fault, ()
        self._turned.set()


class McpTool:
    """One tool of a server; implements `tools.base.Tool`."""

    def __init__(self, server: McpServer, offered: Offered) -> None:
        self._server = server
        self._offered = offered

    @property
    def spec(self) -> ToolSpec:
        """What it is."""
        return self._offered.spec

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        """Call it. Raises `Retry` for what the tool itself calls an error, and `Failed`."""
        name, spec = self._server.name, self.spec
        try:
            async with asyncio.timeout(spec.timeout_s):
                outcome = await self._call(arguments, context)
        except TimeoutError as error:
            raise Failed(f"The tool server {name} did not answer within {spec.timeout_s:g} s.") from error
        except Refusal as refusal:
            words = clean(refusal.message, FAULT_CHARS_MAX) or "It gave no reason."
            kind = Retry if refusal.code == INVALID_PARAMS else Failed
            raise kind(f"The tool server {name} refused the call: {words}", detail=str(refusal)) from refusal
        except Unreachable as fault:
            sent = "" if not fault.sent else " Whether the call was carried out is not known."
            raise Failed(f"The tool server {name} cannot be reached.{sent}", detail=str(fault)) from fault
        except McpFault as fault:
            raise Failed(f"The tool server {name} did not answer as it should.", detail=str(fault)) from fault
        if outcome.failed:
            raise Retry(_cut(outcome.text, FAULT_CHARS_MAX) or "The tool failed and gave no reason.")
        return ToolResult(text=_cut(outcome.text, TEXT_CHARS_MAX), data=_data(outcome))

    async def _call(self, arguments: Mapping[str, object], context: ToolContext) -> Outcome:
        offered, progress = self._offered, _few(context.progress)
        try:
            return await self._server.call(_wanted(offered, arguments, context, progress))
        except Refusal as refusal:
            if refusal.code != HEADER_MISMATCH:
                raise
        # Nothing has run: which parameters go into headers has changed since the tools were listed.
        await self._server.refresh()
        now = next((tool for tool in self._server.tools if tool.spec.name == offered.spec.name), self)
        return await self._server.call(_wanted(now._offered, arguments, context, progress))  # noqa: SLF001 -- its like


class McpBox:
    """All configured servers; implements `tools.base.Toolbox`."""

    def __init__(self, servers: Sequence[McpServer]) -> None:
        self.servers = tuple(servers)

    def start(self) -> None:
        """Begin to keep all of them; returns at once."""
        for server in self.servers:
            server.start()

    async def aclose(self) -> None:
        """Leave all of them."""
        await asyncio.gather(*(server.aclose() for server in self.servers))

    async def asked(self) -> None:
        """Wait until all of them have been asked what they offer; those that are down as well."""
        for server in self.servers:
            await server.asked()

    def tools(self) -> Sequence[Tool]:
        """Return what can be called now."""
        return [tool for server in self.servers for tool in server.tools]

    def notices(self) -> Sequence[Noticed]:
        """Return one notice for each server that is down."""
        return [
            Noticed("tools_unavailable", f"The tools of {server.name} cannot be used now.")
            for server in self.servers
            if server.fault
        ]

    def missing(self) -> Sequence[ToolSpec]:
        """Return what the servers that are down offered when they were last there."""
        return [spec for server in self.servers if server.fault for spec in server.known]


def _wanted(
    offered: Offered, arguments: Mapping[str, object], context: ToolContext, progress: Callable[[str], None]
) -> ToolCall:
    return ToolCall(
        name=offered.own_name,
        arguments=arguments,
        key=context.idempotency_key,
        marks=offered.marks,
        repeatable=offered.repeatable,
        timeout_s=offered.spec.timeout_s,
        progress=progress,
        # One more each time, whatever it is called: the server may be one like this, and ask back.
        hops=(*onward(context.hops, context.caller, ""), f"mcp:{offered.spec.source}"),
    )


def _few(progress: Callable[[str], None]) -> Callable[[str], None]:
    """Return a `progress` that passes on what is new, and not too often."""
    last, left = "", PROGRESS_MAX

    def tell(words: str) -> None:
        nonlocal last, left
        if words != last and left > 0:
            last, left = words, left - 1
            progress(words)

    return tell


def _cut(text: str, chars_max: int) -> str:
    if len(text) <= chars_max:
        return text
    return f"{text[:chars_max]}\n[cut: {len(text) - chars_max} characters more]"


def _data(outcome: Outcome) -> object:
    """Return what is shown of a result: what the server gave as data, else its text, neither without bound."""
    if outcome.structured is not msgspec.UNSET and len(msgspec.json.encode(outcome.structured)) <= DATA_BYTES_MAX:
        return outcome.structured
    return {"text": _cut(outcome.text, DATA_BYTES_MAX // 4)}
