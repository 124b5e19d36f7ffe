"""`/v1/runs`: agentic turns while they go on and after; a stream of one can be taken up again anywhere (goal D4)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from convene.api.accounts_wire import PAGE_MAX, read_page, reply
from convene.api.call import ClientLeftError
from convene.api.chat_reply import fingerprint_of, metadata_of, reply_of, step_of, usage_of
from convene.api.problems import internal
from convene.api.query import Parameter, Query
from convene.api.run_frames import RunFrames, fault_of
from convene.api.shapes import Cost
from convene.api.shapes_runs import RunDetail, RunError, RunList, RunReply
from convene.api.shapes_usage import Money
from convene.api.sse import ChatFrames
from convene.errors import BadRequest, Busy, ConveneError, NotFound
from convene.events import fold
from convene.serving.base_runs import RunEnded

if TYPE_CHECKING:
    from msgspec import UnsetType

    from convene.api.call import Call
    from convene.api.shapes import ChatReply, JsonObject
    from convene.api.stream import Stream, Streams
    from convene.serving.base_runs import Run, RunDesk, RunState

log = logging.getLogger("convene.runs")

SECOND_US: Final = 1_000_000
AFTER_MAX: Final = 2**53
RUNS_QUERY: Final = (
    Parameter(name="limit", about="At most so many; 100 by default.", least=1, most=PAGE_MAX),
    Parameter(name="after", about="The id of the last one of the page before."),
    Parameter(name="session", about="Only runs of this `x-session-id`."),
)
RUN_QUERY: Final = (
    Parameter(
        name="stream",
        about="`true`: a stream of what has happened and what comes, also with `Accept: text/event-stream`.",
        enum=("true", "false"),
    ),
    Parameter(
        name="after",
        about="Of a stream only what is behind this event id; the header `Last-Event-ID` says the same.",
        least=0,
        most=AFTER_MAX,
    ),
)
SHUT_DOWN: Final = Busy("The server is shutting down; the run goes on after a restart. Read it again then.")
EVENT_STREAM: Final = "text/event-stream"


class RunPages:
    """The endpoints."""

    def __init__(self, desk: RunDesk, streams: Streams, currency: str) -> None:
        self._desk = desk
        self._streams = streams
        self._currency = currency

    async def list_mine(self, call: Call) -> None:
        """List the caller's runs."""
        limit, after = read_page(call)
        session = Query.of(call).text("session", 8192)
        page, more = await self._desk.page(call.caller, limit, session, after)
        await reply(call, RunList(data=[run_of(run) for run in page], has_more=more))

    async def show(self, call: Call) -> None:
        """Show one, or stream what has happened in it and what comes."""
        query = Query.of(call)
        wants = EVENT_STREAM in (call.header(b"accept") or "")
        streamed = query.choice("stream", "true" if wants else "false", ("true", "false")) == "true"
        after = _last_event(call, query.number("after", 0, 0, AFTER_MAX))
        state = await self._desk.show(call.caller, call.params["run"])
        if streamed:
            await self._stream(call, state, after)
        else:
            await reply(call, self._detail(state))

    async def cancel(self, call: Call) -> None:
        """End one."""
        await reply(call, run_of(await self._desk.cancel(call.caller, call.params["run"])))

    async def _stream(self, call: Call, state: RunState, after: int) -> None:
        """Send what is behind `after` as it comes; how a stream ends is as for a chat (`chat.py`)."""
        frames = RunFrames(state.run, state.run.request_id, state.conversation_id)
        stream = self._streams.open(call)
        try:
            async with aclosing(self._desk.read(state.run, after)) as pieces:
                async for found in pieces:
                    if isinstance(found[-1][1], RunEnded):
                        frames.cost = await self._ending(call, state)
                    ready = [frame for piece in found for frame in frames.frames(piece)]
                    if frames.over:
                        await stream.finish(ready)
                        return
                    if ready:
                        await stream.write(ready)
        except asyncio.CancelledError:
            with contextlib.suppress(ClientLeftError):
                await _fail(stream, SHUT_DOWN)  # reaches nobody when it was the client that left
            raise
        except ClientLeftError:
            raise
        except ConveneError as fault:
            if not stream.started:
                raise
            await _fail(stream, fault)
        except Exception:  # whatever else it is: a stream that has begun ends in a frame, never in silence (SSE-16)
            if not stream.started:
                raise
            log.exception("stream %s failed", call.request_id)
            await _fail(stream, internal(call.request_id))
        finally:
            stream.leave()

    def _cost(self, state: RunState) -> Cost | UnsetType:
        """Return what a run has cost, as its answer says; unset where its model has no price."""
        if not state.cost_by_step:
            return UNSET
        steps: list[JsonObject] = [{"step": step, "micros": micros} for step, micros in state.cost_by_step]
        return Cost(self._currency, state.cost_micros, steps)

    async def _ending(self, call: Call, state: RunState) -> Cost | UnsetType:
        """Return what a run that has been read to its end has cost in all."""
        try:
            return self._cost(await self._desk.show(call.caller, state.run.id))
        except NotFound:  # its time was up, or its session was deleted, while it was read
            return UNSET

    def _detail(self, state: RunState) -> RunDetail:
        run, answer = state.run, state.answer
        error, cost = None, self._cost(state)
        if answer is not None and run.status != "done":
            fault = fault_of(RunEnded(run.status, answer.fault, answer.message))
            error = RunError(fault.code, fault.message)
        return RunDetail(
            **msgspec.structs.asdict(run_of(run)),
            conversation_id=state.conversation_id,
            intermediate_steps=[step_of(step) for step in state.steps],
            usage=usage_of(state.usage),
            cost=Money(self._currency, state.cost_micros),
            response=_response_of(state, cost),
            error=error,
        )


def run_of(run: Run) -> RunReply:
    """Return a run as lists show it."""
    over = run.finished_us is not None
    return RunReply(
        id=run.id,
        status=run.status,
        model=run.model,
        response_id=run.turn_id,
        request_id=run.request_id,
        session_id=run.session_id or None,
        created_at=run.created_us / SECOND_US,
        finished_at=None if run.finished_us is None else run.finished_us / SECOND_US,
        expires_at=run.expires_us / SECOND_US if over else None,
        cancel_asked=run.cancel_asked,
        resumes=run.fence - 1,
    )


def _response_of(state: RunState, cost: Cost | UnsetType) -> ChatReply | None:
    """Return the answer of a run that is done, as its client has got it."""
    run, answer = state.run, state.answer
    if answer is None or run.status != "done":
        return None
    gathered = fold((*state.steps, *answer.events()))
    metadata = metadata_of(gathered, run.request_id, run.model, cost, run.id)
    reply = reply_of(gathered, run.turn_id, run.created_us // SECOND_US, metadata, state.conversation_id)
    reply.system_fingerprint = fingerprint_of(gathered.began, seeded=False)
    return reply


def _last_event(call: Call, after: int) -> int:
    """Return the place of a reader who comes back: the header where it is larger. Raises `BadRequest`."""
    header = call.header(b"last-event-id")
    if not header:
        return after
    if not (header.isascii() and header.isdigit() and len(header) <= len(str(AFTER_MAX))):
        raise BadRequest("Last-Event-ID must be an id that this stream has sent.", param="Last-Event-ID")
    return max(after, int(header))


async def _fail(stream: Stream, fault: ConveneError) -> None:
    if stream.started:
        await stream.fail(ChatFrames.failure(fault))
