"""Deferred answers, as ASI:One's clients poll for them (DEFER): a request that waits too long ends, its work does not.

    turn ──► 55 s, an agent still at work, nothing of the answer sent ──► noted in the session ──► the literal sentence
               └──► the run goes on, in the background and over restarts (`runs.py`, `resume.py`)
    "Any update?" ──► a run noted in (owner, session) is under way ──► the same sentence, no model, nothing reserved
                        └──► all are over ──► what they came to; told again for a while
                        └──► none is noted ──► a message like any other

The sentence is compared by equality, so nothing stands before or behind it. Failures are told as text: a client that
gets an error stops asking.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from convene.errors import StoreFault
from convene.events import CallDelta, Finished, Fold, StepChanged, TextDelta, UsageReported
from convene.serving.base_runs import Answer
from convene.serving.journal import shown_of
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from convene.clock import Clock
    from convene.events import Event, PlainAnswer
    from convene.messages import Message
    from convene.serving.base import Principal
    from convene.serving.base_sessions import Memory
    from convene.serving.drain import Pump
    from convene.serving.turn import Turn
    from convene.store.base_runs import Run, Runs

log = logging.getLogger("convene.deferred")

SENTENCE: Final = "I've sent the message"
"""Exactly so (DEFER-02)."""
POLL: Final = "any update"
NOTE: Final = "deferred:"
TOLD_AGAIN_S: Final = 900.0
"""How long a result that was told is told again: SDKs repeat what was lost on the way (DEFER-07)."""
FAILED: Final = "The work on your message could not be finished: {why}"
EMPTY: Final = "The work on your message is finished; there is no text to show."
BETWEEN: Final = "\n\n"
DEFERRED: Final = TextDelta(SENTENCE)
RETRY_S: Final = 1.0
NOTHING_USED: Final = UsageReported(Usage(0, 0))


class Deferral(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of outstanding work."""

    run_id: str
    at: float
    told_at: float | None = None


class KeptRuns(Protocol):
    """Where runs are looked up (`runs.KeptRuns`)."""

    @property
    def store(self) -> Runs:
        """The runs of the store that is open now."""
        ...


_encode = msgspec.json.Encoder().encode
_deferral = msgspec.json.Decoder(Deferral).decode
_answer_of = msgspec.json.Decoder(Answer).decode


def is_poll(messages: Sequence[Message]) -> bool:
    """Whether a request asks for what is outstanding (DEFER-04)."""
    last = messages[-1]
    return last.role == "user" and last.text().strip().rstrip("?!. ").casefold() == POLL


class Deferrals:
    """The outstanding work of one server's sessions."""

    def __init__(self, memory: Memory, runs: KeptRuns, clock: Clock) -> None:
        """`memory` holds the notes, `runs` what they are about."""
        self._memory = memory
        self._runs = runs
        self._clock = clock

    async def note(self, owner: str, session_id: str, run_id: str) -> None:
        """Write down that a run is outstanding; what was told before is forgotten. Raises `StoreFault`."""
        told = [name for name, one in (await self._all(owner, session_id)).items() if one.told_at is not None]
        if told:
            await self._memory.forget_notes(owner, session_id, told)
        note = Deferral(run_id=run_id, at=self._clock.now())
        await self._memory.remember(owner, session_id, {f"{NOTE}{run_id}": _encode(note)})

    async def drop(self, owner: str, session_id: str, run_id: str) -> None:
        """Forget a run that was answered after all; never raises."""
        try:
            await self._memory.forget_notes(owner, session_id, [f"{NOTE}{run_id}"])
        except StoreFault as fault:
            log.warning("run %s is told twice if it is asked for: %s", run_id, fault.detail or fault.message)

    async def look(self, owner: str, session_id: str) -> list[Event] | None:
        """Return what a poll is answered with; None: nothing is outstanding. Raises `StoreFault`."""
        now = self._clock.now()
        noted = await self._all(owner, session_id)
        stale = [name for name, one in noted.items() if one.told_at is not None and now - one.told_at > TOLD_AGAIN_S]
        runs: list[tuple[Deferral, Run]] = []
        for name, one in noted.items():
            run = None if name in stale else await self._runs.store.get(owner, one.run_id)
            if run is None:
                stale.append(name)
            elif run.status == "running":
                return [DEFERRED, Finished("stop"), NOTHING_USED]
            else:
                runs.append((one, run))
        if stale:
            await self._memory.forget_notes(owner, session_id, stale)
        if not runs:
            return None
        events: list[Event] = []
        for _, run in runs:
            events += ((TextDelta(BETWEEN),) if events else ()) + tuple(await self._told(run))
        fresh = {f"{NOTE}{one.run_id}": one for one, _ in runs if one.told_at is None}
        if fresh:
            told = {name: _encode(msgspec.structs.replace(one, told_at=now)) for name, one in fresh.items()}
            await self._memory.remember(owner, session_id, told)
        return [*events, Finished("stop"), NOTHING_USED]

    async def conversation(self, owner: str, session_id: str) -> str | None:
        """Return what answers call the session; None if that cannot be known now."""
        try:
            return await self._memory.enter(owner, session_id)
        except StoreFault:
            return None

    async def _all(self, owner: str, session_id: str) -> dict[str, Deferral]:
        notes = await self._memory.recall(owner, session_id)
        return {name: _deferral(body) for name, body in notes.items() if name.startswith(NOTE)}

    async def _told(self, run: Run) -> list[Event]:
        """Return a run that is over as events: its steps, and its answer or why there is none."""
        answer = _answer_of(run.outcome) if run.outcome else Answer()
        rows = await self._runs.store.steps(run.id)
        found: list[Event] = [shown_of(row).step for row in sorted(rows, key=lambda row: row.number)]
        if run.status != "done":
            why = answer.message or "it was stopped."
            return [*found, *answer.tools, TextDelta(FAILED.format(why=why))]
        events = [event for event in answer.events() if not isinstance(event, UsageReported | Finished)]
        said = any(isinstance(event, TextDelta | CallDelta) for event in events)
        return [*found, *events, *(() if said else (TextDelta(EMPTY),))]


class PollTurn:
    """A request that may ask for outstanding work; if there is none it is the `ordinary` turn that it looks like."""

    def __init__(self, deferrals: Deferrals, ordinary: Turn, principal: Principal, session_id: str) -> None:
        self._deferrals = deferrals
        self._ordinary = ordinary
        self._owner = principal.owner
        self._session_id = session_id
        self._is_ordinary = False
        self._conversation_id: str | None = None
        self.id = ordinary.id
        self.created = ordinary.created
        self.model = ordinary.model
        self.outcome = ordinary.outcome

    @property
    def run_id(self) -> str:
        """Of the ordinary turn, once it is known to be one."""
        return self._ordinary.run_id if self._is_ordinary else ""

    @property
    def conversation_id(self) -> str | None:
        """See `base.Turn`."""
        return self._ordinary.conversation_id if self._is_ordinary else self._conversation_id

    async def events(self) -> AsyncGenerator[Event]:
        """See `base.Turn.events`."""
        found = await self._look()
        if found is None:
            async with aclosing(self._ordinary.events()) as events:
                async for event in events:
                    yield event
            return
        for event in found:
            yield event

    async def answer(self) -> Fold | PlainAnswer:
        """See `base.Turn.answer`."""
        found = await self._look()
        if found is None:
            return await self._ordinary.answer()
        gathered = Fold()
        gathered.extend(found)
        return gathered

    async def _look(self) -> list[Event] | None:
        found = await self._deferrals.look(self._owner, self._session_id)
        self._is_ordinary = found is None
        if found is not None:
            self.outcome.finish = "stop"
            self._conversation_id = await self._deferrals.conversation(self._owner, self._session_id)
        return found


class Patience:
    """What decides that a turn is deferred: fed with its events, asked when its time is up."""

    def __init__(self, *, whole: bool) -> None:
        """`whole`: nothing of the answer is sent before its end, so what was said so far can be left out."""
        self._whole = whole
        self._said = False
        self._agents: set[str] = set()

    def note(self, event: Event) -> None:
        """Take note of what goes out."""
        if isinstance(event, StepChanged):
            if event.kind == "agent":
                (self._agents.add if event.status == "running" else self._agents.discard)(event.id)
        elif isinstance(event, TextDelta | CallDelta):
            self._said = True

    @property
    def can_end(self) -> bool:
        """Whether the answer can still be the sentence alone (decision 4)."""
        return self._whole or not self._said

    @property
    def waits_for_agents(self) -> bool:
        """Whether an agent is at work."""
        return bool(self._agents)


class Impatience:
    """Ends the reading of a turn's events when its time is up and its work is not done. Belongs to one event loop.

    What is outstanding is written down before the reader is told, since it may ask at once.
    """

    def __init__(
        self,
        pump: Pump,
        patience: Patience,
        note: Callable[[], Awaitable[None]],
        drop: Callable[[], Awaitable[None]],
        agents_s: float,
        whole_s: float,
    ) -> None:
        """`agents_s`: from when on agents are not waited for; `whole_s`: from when on nothing is."""
        self._pump = pump
        self._patience = patience
        self._note = note
        self._drop = drop
        self._noted = False
        self._left = False
        self._task = asyncio.get_running_loop().create_task(self._watch(agents_s, whole_s), name="impatience")

    async def ended(self) -> bool:
        """Whether the reading was ended; if not, nothing is outstanding."""
        if not self._left and self._noted:
            await self._drop()
        return self._left

    def cancel(self) -> None:
        """Watch no longer."""
        self._task.cancel()

    async def _watch(self, agents_s: float, whole_s: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(agents_s)
        while self._patience.can_end:
            is_time = self._patience.waits_for_agents or loop.time() - began >= whole_s
            if is_time and await self._write() and self._pump.leave(self._leave):
                return
            await asyncio.sleep(RETRY_S)

    async def _write(self) -> bool:
        if not self._noted:
            try:
                await self._note()
            except StoreFault as fault:
                log.warning("an answer cannot be deferred yet: %s", fault.detail or fault.message)
                return False
            self._noted = True
        return True

    def _leave(self) -> bool:
        self._left = self._patience.can_end
        return self._left
