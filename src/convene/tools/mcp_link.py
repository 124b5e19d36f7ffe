"""The relation to one MCP server: greeting, list of tools, calls. Begins anew where the server has forgotten us.

    open    server/discover (2026-07-28) ─► else initialize (2025-11-25 and older) and notifications/initialized
    list    tools/list, page by page
    call    tools/call; again once after a forgotten session, in which the server had not looked at it

When to do which is for `mcp.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from convene.agent_hops import KEY, write_hops
from convene.tools.mcp_codec import (
    CAPABILITY_MISSING,
    HEADER_MISMATCH,
    KEY_FIELD,
    LEGACY,
    MODERN,
    VERSION_UNSUPPORTED,
    Greeting,
    NotMcp,
    Outcome,
    read_discover,
    read_initialize,
    read_outcome,
    read_page,
    read_progress,
)
from convene.tools.mcp_exchange import Call, Refusal, Session, SessionGone, Turned, Wire
from convene.tools.mcp_headers import Marks, headers_of

if TYPE_CHECKING:
    from convene.tools.mcp_codec import Listed, Note

GREETING_S: Final = 15.0
LIST_S: Final = 30.0
OVER_S: Final = 5.0
"""The connection's own time-out comes after the caller's, which tells the server."""
PAGES_MAX: Final = 64
TOOLS_READ_MAX: Final = 4096
_NO_ANSWER_OF_ITS_ERA: Final = frozenset({401, 403, 407, 429, 502, 503, 504})
"""Statuses that say nothing of which revision a server speaks: its key is wrong, or it is busy or down."""
_SESSION_ID: Final = re.compile(r"[!-~]{0,1024}")
"""Empty: it keeps no sessions."""
_MODERN_FAULTS: Final = frozenset({HEADER_MISMATCH, CAPABILITY_MISSING})


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a tool by the server's own name for it."""

    name: str
    arguments: Mapping[str, object]
    key: str
    """The idempotency key; empty for none."""
    marks: Marks = ()
    repeatable: bool = False
    timeout_s: float = 60.0
    progress: Callable[[str], None] = lambda _: None
    hops: tuple[str, ...] = ()
    """Agents that the question has been through, where the server is one."""


class McpLink:
    """Talks to one server over a `Wire`; any number of calls at once."""

    def __init__(self, wire: Wire, changed: Callable[[], None]) -> None:
        """`changed` is called when the server says that its list of tools is another now."""
        self._wire = wire
        self._changed = changed
        self._session = Session()
        self._greeting = Greeting(())
        self._running: dict[int | str, Callable[[str], None]] = {}
        self._opening = asyncio.Lock()

    @property
    def session(self) -> Session:
        """What was agreed last."""
        return self._session

    @property
    def greeting(self) -> Greeting:
        """What the server has said of itself last."""
        return self._greeting

    async def open(self) -> Session:
        """Greet the server anew. Raises `McpFault`."""
        async with self._opening:
            self._session = await self._greet()
            return self._session

    async def list_tools(self) -> tuple[list[Listed], int]:
        """Return its tools in its order, and how many could not be read. Raises `McpFault`."""
        session = self._session
        found: list[Listed] = []
        unread, cursor, seen = 0, None, set[str]()
        for _ in range(PAGES_MAX):
            params: dict[str, object] = {} if cursor is None else {"cursor": cursor}
            call = Call(number=self._wire.number(), method="tools/list", params=params, timeout_s=LIST_S)
            answer = await self._wire.ask(call, session, self._hear)
            tools, cursor, bad = read_page(answer.result)
            found += tools
            unread += bad
            if cursor is None or cursor in seen or len(found) >= TOOLS_READ_MAX:
                break
            seen.add(cursor)
        return found, unread

    async def call(self, wanted: ToolCall) -> Outcome:
        """Call a tool. Cancelled, it tells the server so. Raises `McpFault`."""
        session = self._session
        try:
            return await self._call(wanted, session)
        except SessionGone:
            return await self._call(wanted, await self._renew(session))

    async def listen(self) -> bool:
        """Hear what the server says of its own accord until it ends that; False if it offers none of it."""
        return await self._wire.listen(self._session, self._hear)

    async def aclose(self) -> None:
        """Say good-bye."""
        await self._wire.end(self._session)
        await self._wire.aclose()

    async def _call(self, wanted: ToolCall, session: Session) -> Outcome:
        number = self._wire.number()
        meta: dict[str, object] = {"progressToken": number}
        if wanted.key:
            meta[KEY_FIELD] = wanted.key
        if wanted.hops:
            meta[KEY] = write_hops(wanted.hops)
        call = Call(
            number=number,
            method="tools/call",
            params={"name": wanted.name, "arguments": wanted.arguments, "_meta": meta},
            timeout_s=wanted.timeout_s + OVER_S,
            name=wanted.name,
            headers=headers_of(wanted.marks, wanted.arguments) if session.modern else (),
            fresh=not wanted.repeatable,
        )
        self._running[number] = wanted.progress
        try:
            answer = await self._wire.ask(call, session, self._hear)
        except asyncio.CancelledError:
            # Before 2026-07-28 a closed connection does not end the work; from then on it does.
            if not session.modern:
                about: dict[str, object] = {"requestId": number, "reason": "nobody waits for it any more"}
                self._wire.tell_aside(session, "notifications/cancelled", about)
            raise
        finally:
            del self._running[number]
        return read_outcome(answer.result)

    def _hear(self, note: Note) -> None:
        """Take note, on whichever stream it comes: older servers tell the progress of calls on their own."""
        if (told := read_progress(note)) is not None and told[0] in self._running:
            self._running[told[0]](told[1])
        if note.method == "notifications/tools/list_changed":
            self._changed()

    async def _renew(self, old: Session) -> Session:
        """Return a new session, the same one for everybody who has lost `old`."""
        async with self._opening:
            if self._session is old:
                self._session = await self._initialize()
            return self._session

    async def _greet(self) -> Session:
        try:
            greeting = await self._discover()
        except Refusal as refusal:
            if refusal.code in _MODERN_FAULTS or (refusal.code == VERSION_UNSUPPORTED and not _has_legacy(refusal)):
                raise
            return await self._initialize()
        except Turned as turned:
            if turned.status in _NO_ANSWER_OF_ITS_ERA:
                raise
            return await self._initialize()
        except NotMcp:
            return await self._initialize()
        if MODERN not in greeting.versions:
            return await self._initialize()
        self._greeting = greeting
        return Session(MODERN, "", greeting.list_changed)

    async def _discover(self) -> Greeting:
        call = Call(number=self._wire.number(), method="server/discover", timeout_s=GREETING_S)
        answer = await self._wire.ask(call, Session(MODERN))
        return read_discover(answer.result)

    async def _initialize(self) -> Session:
        call = Call(number=self._wire.number(), method="initialize", timeout_s=GREETING_S)
        answer = await self._wire.ask(call, Session())
        greeting = read_initialize(answer.result)
        if not _SESSION_ID.fullmatch(answer.session_id):
            raise NotMcp("its session has an unusable id")
        session = Session(greeting.versions[0], answer.session_id, greeting.list_changed)
        await self._wire.tell(session, "notifications/initialized")
        self._greeting = greeting
        return session


def _has_legacy(refusal: Refusal) -> bool:
    """Whether a server that does not speak the modern revision names an older one."""
    supported = refusal.data.get("supported") if isinstance(refusal.data, dict) else None
    return not isinstance(supported, list) or any(version in LEGACY for version in supported)
