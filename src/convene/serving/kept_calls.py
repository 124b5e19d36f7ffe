"""What the server has done in a turn that ended with calls for the client, kept until the client comes back.

    the model calls web_search and the client's own get_weather in one round:
        web_search runs here ──► the turn ends with get_weather alone, under an id that says that something is kept
        the client sends its result ──► the server's calls and results stand in the conversation again

A client never sees the server's calls as calls of its own, and need not send them back. Kept under the client's first
call id (`base_sessions.Memory`); where nothing is found, the conversation goes on without.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import StoreFault
from convene.events import CallDelta
from convene.messages import Message
from convene.serving.window import Window, fit_window
from convene.tools.base import Label, Source, ToolResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.messages import ToolCall
    from convene.serving.base_agentic import AgenticRun
    from convene.serving.base_sessions import Memory

log = logging.getLogger("convene.agent")

MARK: Final = "call_kept_"
"""How an id begins for which something is kept."""
KEPT: Final = Window(room=160_000, result=40_000)
"""Bytes of a conversation that are kept; results are cut to it."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One such note."""

    messages: tuple[Message, ...]
    """What the turn has added to the conversation; the last assistant's message has the client's calls too."""
    sources: tuple[ToolResult, ...] = ()
    """The results with nothing but what may be cited and read."""
    labels: tuple[Label, ...] = ()


class KeptCalls:
    """Keeps and finds what was done; a preparation, and what hands calls over."""

    def __init__(self, memory: Memory | None) -> None:
        """Without a memory nothing is kept."""
        self._memory = memory

    async def prepare(self, run: AgenticRun) -> None:
        """Put back what was kept for this conversation (`base_agentic.Preparation`)."""
        messages: list[Message] = []
        for message in run.messages:
            first = message.tool_calls[0].id if message.tool_calls else ""
            kept = await self._find(run.job.owner, first) if first.startswith(MARK) else None
            if kept is None:
                messages.append(message)
                continue
            messages += kept.messages
            run.view.labels.update(kept.labels)
            for result in kept.sources:
                run.text.present(result)  # so that sources have the numbers they had
                run.view.addresses.update(source.url for source in result.sources)
                run.view.addresses.update(result.links)
        run.messages = messages

    async def hand_over(self, run: AgenticRun, calls: Sequence[ToolCall]) -> None:
        """Show the client its calls, after what the server has done is kept."""
        if run.job.request.generation.parallel_tool_calls is False:
            calls = calls[:1]
        if len(run.added) > 1:
            calls = await self._keep(run, calls)
        for index, call in enumerate(calls):
            run.emit(CallDelta(index, "", call.id, call.name))
            run.emit(CallDelta(index, call.arguments))

    async def _keep(self, run: AgenticRun, calls: Sequence[ToolCall]) -> Sequence[ToolCall]:
        """Keep what was added and return the calls under ids that say so; the old ids if it cannot be kept."""
        if self._memory is None:
            return calls
        stem = f"{MARK}{run.job.run_id.removeprefix('run_')}_"
        named = tuple(msgspec.structs.replace(call, id=f"{stem}{n}") for n, call in enumerate(calls))
        try:
            await self._memory.keep_calls(run.job.owner, named[0].id, msgspec.json.encode(_kept(run, named)))
        except StoreFault as fault:
            log.warning("run %s: results are not kept: %s", run.job.run_id, fault.detail or fault.message)
            return calls
        return named

    async def _find(self, owner: str, call_id: str) -> Kept | None:
        if self._memory is None:
            return None
        try:
            body = await self._memory.recall_calls(owner, call_id)
            return None if body is None else _READ(body)
        except StoreFault as fault:
            log.warning("kept results cannot be read: %s", fault.detail or fault.message)
            return None


def _kept(run: AgenticRun, named: Sequence[ToolCall]) -> Kept:
    """Return what is kept: the last round has the calls that go to the client, under their new ids, and no others."""
    added = list(run.added)
    last = max(index for index, message in enumerate(added) if message.tool_calls)
    answered = {message.tool_call_id for message in added[last:] if message.role == "tool"}
    calls = (*(call for call in added[last].tool_calls if call.id in answered), *named)
    added[last] = msgspec.structs.replace(added[last], tool_calls=calls)
    return Kept(
        messages=fit_window(added, KEPT),
        sources=tuple(_sources(ran.result) for ran in run.view.results if ran.result is not None),
        labels=tuple(sorted(run.view.labels)),
    )


def _sources(result: ToolResult) -> ToolResult:
    sources = tuple(Source(source.url, source.title) for source in result.sources)
    return ToolResult(text="", sources=sources, links=result.links)


_READ: Final = msgspec.json.Decoder(Kept).decode
