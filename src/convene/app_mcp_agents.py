"""The composition of MCP servers that are asked as agents: the protocol of `tools/` over the guarded way out.

A part of the composition root. The protocol's code was written for servers that the operator names and takes an HTTP
client; here it gets one that goes through `egress.py`, since these addresses are strangers' (0027).
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from convene.agents.faults import TalkFault
from convene.agents.mcp import ToolAnswer, WrongArgumentsError
from convene.agents.mcp_choice import McpOffer, OfferedTool
from convene.egress import EgressBusy, EgressFailed, EgressRefused
from convene.egress import Request as EgressRequest
from convene.http import base as http
from convene.tools.mcp_codec import INVALID_PARAMS, McpFault, NotMcp
from convene.tools.mcp_exchange import Endpoint, Refusal, Turned, Unreachable, Wire
from convene.tools.mcp_headers import marks_of
from convene.tools.mcp_link import McpLink, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from convene.agents.credentials import Credentials
    from convene.agents.mcp import ToolAsked
    from convene.clock import Clock
    from convene.egress import Egress, Fetched
    from convene.tools.mcp_codec import Listed

ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
FRESH_S: Final = 300.0
LINKS_MAX: Final = 256
OPEN_S: Final = 30.0
KEYS: Final = frozenset({401, 403})
WORDS_MAX: Final = 2_000

CLOSED: Final = "The agent wants credentials, or others than it was shown ({status}); the operator can set them."
NOT_MCP: Final = "There is no MCP server at this address: {why}."
SILENT: Final = "The agent did not answer in time."


class EgressClient:
    """An `http.base.Client` through the guarded way out. Nothing is kept open between requests."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def send(self, request: http.Request) -> http.Response:
        """See `http.base.Client`."""
        waits = request.timeouts
        wanted = EgressRequest(
            url=request.url,
            method=request.method,
            headers=request.headers,
            body=request.body,
            redirects_max=0,
            body_bytes_max=ANSWER_BYTES_MAX,
            total_s=waits.total_s,
            silence_s=min(waits.first_byte_s, waits.between_bytes_s),
        )
        try:
            return _Answer(await self._egress.fetch(wanted))
        except (EgressRefused, EgressBusy) as fault:
            raise http.ConnectFailed(fault.message) from fault
        except EgressFailed as fault:
            raise _http_fault(fault) from fault

    async def aclose(self) -> None:
        """Do nothing: every answer closes its own connection."""


class _Answer:
    """An `http.base.Response` over `egress.Fetched`."""

    def __init__(self, fetched: Fetched) -> None:
        self.status = fetched.status
        self.headers: Mapping[str, str] = fetched.headers
        self._fetched = fetched

    async def chunks(self) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(self._fetched.chunks()) as pieces:
                async for piece in pieces:
                    yield piece
        except EgressFailed as fault:
            raise _http_fault(fault) from fault

    def peek(self) -> None:
        """Nothing is known to have come whole."""

    async def read(self, max_bytes: int) -> bytes:
        found = bytearray()
        async with aclosing(self.chunks()) as pieces:
            async for piece in pieces:
                found += piece
                if len(found) > max_bytes:
                    self.close()
                    raise http.Oversized(f"the answer is larger than {max_bytes} bytes")
        return bytes(found)

    def close(self) -> None:
        self._fetched.close()


class McpAgents:
    """Implements `agents.mcp.McpServers`."""

    def __init__(self, egress: Egress, credentials: Credentials, clock: Clock) -> None:
        """`egress` is the guarded way out."""
        self._client = EgressClient(egress)
        self._credentials = credentials
        self._clock = clock
        self._known: dict[str, _Known] = {}

    async def offer(self, url: str) -> McpOffer:
        """See `McpServers`."""
        return (await self._look(url)).offer

    async def call(self, url: str, asked: ToolAsked) -> ToolAnswer:
        """See `McpServers`."""
        known = await self._look(url)
        listed = known.listed.get(asked.tool)
        wanted = ToolCall(
            name=asked.tool,
            arguments=asked.arguments,
            key=asked.key,
            marks=() if listed is None else marks_of(listed.schema),
            repeatable=listed is not None and (listed.read_only or listed.idempotent),
            timeout_s=asked.wait_s,
            progress=asked.progress,
            hops=asked.hops,
        )
        try:
            outcome = await known.link.call(wanted)
        except Refusal as refusal:
            words = refusal.message[:WORDS_MAX] or "It gave no reason."
            if refusal.code == INVALID_PARAMS:
                raise WrongArgumentsError(f"The tool {asked.tool} refused the arguments: {words}") from refusal
            raise TalkFault(f"The agent refused: {words}", "refused") from refusal
        except McpFault as fault:
            self._known.pop(url, None)
            raise _fault(fault) from fault
        return ToolAnswer(text=outcome.text, failed=outcome.failed)

    async def aclose(self) -> None:
        """Say good-bye to everybody."""
        links = [known.link for known in self._known.values()]
        self._known.clear()
        await asyncio.gather(*(link.aclose() for link in links), return_exceptions=True)

    async def _look(self, url: str) -> _Known:
        """Return what is known of a server, asked anew where that is old. Raises `TalkFault`."""
        known = self._known.get(url)
        if known is not None and self._clock.monotonic() - known.at < FRESH_S:
            return known
        link = McpLink(Wire(self._client, self._endpoint(url)), lambda: None)
        try:
            async with asyncio.timeout(OPEN_S):
                await link.open()
                listed, _ = await link.list_tools()
        except TimeoutError:
            raise TalkFault(SILENT, "timed_out", sent=False) from None
        except McpFault as fault:
            raise _fault(fault, greeting=True) from fault
        found = _Known(link, self._clock.monotonic(), listed)
        self._known.pop(url, None)
        if len(self._known) >= LINKS_MAX:
            del self._known[next(iter(self._known))]
        self._known[url] = found
        return found

    def _endpoint(self, url: str) -> Endpoint:
        return Endpoint(url=url, headers=self._credentials.of(url, url), bytes_max=ANSWER_BYTES_MAX)


class _Known:
    """One server as it was when it was looked at last."""

    def __init__(self, link: McpLink, at: float, listed: list[Listed]) -> None:
        self.link = link
        self.at = at
        self.listed = {one.name: one for one in reversed(listed)}  # the first of a name
        greeting = link.greeting
        self.offer = McpOffer(
            name=greeting.name,
            instructions=greeting.instructions,
            tools=tuple(_offered(one) for one in listed if self.listed[one.name] is one and _usable(one)),
        )


def _offered(tool: Listed) -> OfferedTool:
    return OfferedTool(
        name=tool.name,
        description=tool.description,
        schema=tool.schema,
        repeatable=tool.read_only or tool.idempotent,
    )


def _usable(tool: Listed) -> bool:
    """Whether the headers that a tool wants of a call can be made (`tools/mcp_headers.py`)."""
    try:
        marks_of(tool.schema)
    except NotMcp:
        return False
    return True


def _fault(fault: McpFault, *, greeting: bool = False) -> TalkFault:
    if isinstance(fault, Turned) and fault.status in KEYS:
        return TalkFault(CLOSED.format(status=fault.status), "refused", sent=False)
    if isinstance(fault, Unreachable):
        words = "The agent cannot be reached." if not fault.sent else "The agent's answer did not come, or broke off."
        return TalkFault(words, "unreachable", sent=fault.sent and not greeting)
    if greeting:
        return TalkFault(NOT_MCP.format(why=str(fault)[:WORDS_MAX]), "unreadable", sent=False)
    return TalkFault(f"The agent does not answer as its protocol demands: {str(fault)[:WORDS_MAX]}.", "unreadable")


def _http_fault(fault: EgressFailed) -> http.HttpError:
    match fault.fault:
        case "connect":
            return http.ConnectFailed(fault.message)
        case "timeout":
            return http.TimedOut("total", 0.0)
        case "too_large":
            return http.Oversized(fault.message)
        case "broken":
            return http.Disconnected(received=True)
