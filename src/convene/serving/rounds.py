"""One round of the model inside an agentic turn, as a step: opened, afforded, asked, counted, closed.

    open the step ──► recorded before a crash? ──► say it again from the record, used and charged nothing
          └──► top up the reservation (rounds after the first) ──► refused: the turn ends like at a ceiling
                └──► ask the model, events as they come ──► usage, cost ──► close the step

What a round that is cut off has used is estimated, as for a plain turn (CHAT-07). Where the model's terms say `drain`,
a round under way when the client leaves is read on by a task of its own, for the books alone (`drain.py`). Called by
`agentic_run.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import BadRequest, Malformed
from convene.events import (
    Began,
    CallDelta,
    Finished,
    Fold,
    ReasoningDelta,
    TextDelta,
    UsageReported,
)
from convene.limits.limit import Refusal
from convene.serving.base_agentic import Round
from convene.serving.base_steps import StepPlan
from convene.serving.ceilings import ended_by, reach, reach_limit
from convene.serving.turn_size import message_bytes, prompt_bytes
from convene.serving.window import Window, can_cut, fit_window
from convene.usage import BYTES_PER_TOKEN, Usage, count_bytes

if TYPE_CHECKING:
    from convene.events import Event, StepKind
    from convene.providers.base import Generation
    from convene.serving.agentic_run import Run
    from convene.serving.base_agentic import Shown, Tell
    from convene.serving.base_steps import OpenStep

TOO_LONG: Final = "context_length_exceeded"
SHORTER_MAX: Final = 3
"""How often a prompt that is too long for the model is halved, where nobody had stated its window rightly."""


class Rounds:
    """The rounds of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._asked = 0
        """Rounds that this process has asked for; the first is what the turn's reservation was made for."""
        self._began = False

    async def ask(
        self,
        generation: Generation,
        *,
        shown: Shown,
        kind: StepKind,
        name: str,
        summary: str,
        depends_on: tuple[str, ...],
        last: bool,
    ) -> Round:
        """See `AgenticRun.ask`."""
        run = self._run
        self._guard(last=last)
        run.spent.rounds += 1
        plan = StepPlan(
            kind=kind,
            name=name or run.model,
            input=b'{"round":%d}' % run.spent.rounds,
            depends_on=depends_on,
            summary=summary,
        )
        return await self._take(generation, plan, _Said(run, self, shown))

    async def aside(self, generation: Generation, plan: StepPlan, tell: Tell) -> Round:
        """See `AgenticRun.aside`."""
        run = self._run
        which = ended_by(run.ceilings, run.spent)
        if which is not None:
            raise reach(which, run.ceilings, run.currency)
        return await self._take(generation, plan, _Said(run, self, "hidden", tell))

    async def _take(self, generation: Generation, plan: StepPlan, said: _Said) -> Round:
        run, can = self._run, self._run.capabilities
        answer_max = generation.sampling.max_tokens
        beside = prompt_bytes(msgspec.structs.replace(generation, messages=()))
        window = Window.of(can.context_window, answer_max, beside, run.result_share)
        fitted = msgspec.structs.replace(generation, messages=fit_window(generation.messages, window))
        size = beside + sum(map(message_bytes, fitted.messages))
        output_max = answer_max or can.output_tokens_max or can.context_window
        tokens, micros = run.lease.expect(size, output_max)
        plan = msgspec.structs.replace(plan, reserved_tokens=tokens, reserved_micros=micros)
        step = await run.open_quietly(plan)
        if step.recorded is not None:
            return self._replay(step, said)
        await self._afford(step, size, output_max)
        if run.silent:  # a refusal of the very first round has its real status: nothing goes out before it answers
            said.waiting = step
        else:
            run.emit(step.change)
        try:
            await self._hear(fitted, window, said, size)
        except asyncio.CancelledError:
            if not said.unheard:
                self._settle(said, size)
            run.cut(step, "The model's answer was cut off.")
            raise
        except Exception:  # whatever it is, what was used is entered; raised on
            self._settle(said, size)
            run.closing(step.close("failed", summary="The model's answer broke off.", usage=said.usage))
            raise
        return self._close(step, said, size)

    def _guard(self, *, last: bool) -> None:
        run = self._run
        which = ended_by(run.ceilings, run.spent)
        if which is not None:
            raise reach(which, run.ceilings, run.currency)
        if run.spent.rounds >= run.ceilings.rounds + last:
            raise reach("rounds", run.ceilings)

    async def _afford(self, step: OpenStep, size: int, output_max: int | None) -> None:
        """Reserve what the round may use, beyond what was reserved with the request."""
        run, first = self._run, not self._asked
        self._asked += 1
        if first:
            size, output_max = size - run.reserved_bytes, 0
            if size <= 0:
                return
        answer = await run.lease.top_up(self._asked, size, output_max)
        if isinstance(answer, Refusal):
            run.closing(step.close("skipped", summary="The caller's limits refuse another round."))
            raise reach_limit(answer, run.currency)

    async def _hear(self, generation: Generation, window: Window, said: _Said, size: int) -> None:
        """Ask and listen; cancelled because the client has left, leave the rest to be read for the books."""
        unread = self._run.unread
        if unread is None:
            await self._generate(generation, window, said)
            return

        async def read() -> None:
            if not unread.taking:  # else the client has left before anything was asked
                await self._generate(generation, window, said)

        reading = asyncio.get_running_loop().create_task(read(), name="round")
        try:
            await asyncio.wait([reading])
        except asyncio.CancelledError:
            if unread.taking:
                said.unheard = True
                unread.take(reading, lambda: self._enter(said, size, reading))
            else:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            raise
        reading.result()

    def _enter(self, said: _Said, size: int, reading: asyncio.Task[None]) -> None:
        """Enter a round that nobody heard; one that was cut off has used its prompt at least, as in a plain turn."""
        if reading.cancelled() or not reading.done():
            said.began = True
        self._settle(said, size)

    async def _generate(self, generation: Generation, window: Window, said: _Said) -> None:
        """Ask, with shorter results if the model finds the prompt too long and nothing has been said."""
        for attempt in range(SHORTER_MAX + 1):
            try:
                async with aclosing(self._run.chat.generate(generation)) as events:
                    async for event in events:
                        said.take(event)
                        if self._run.channel.full:
                            await self._run.channel.room()
            except BadRequest as fault:
                short = fault.code != TOO_LONG or said.began or said.unheard or attempt == SHORTER_MAX
                if short or not can_cut(generation.messages):
                    raise
                window = window.halved()
                messages = fit_window(generation.messages, window)
                generation = msgspec.structs.replace(generation, messages=messages)
            else:
                return

    def _close(self, step: OpenStep, said: _Said, size: int) -> Round:
        run = self._run
        cost = self._settle(said, size)
        found = said.found(step.id, cost)
        said.release(calls=bool(found.calls))
        words, detail = ("", None) if said.tell is None else said.tell(found.text)
        if found.calls:
            detail = {"calls": [call.name for call in found.calls]}
        kept = msgspec.json.encode(found)
        run.closing(step.close("done", kept, summary=words, usage=said.usage, cost_micros=cost, detail=detail))
        run.outcome.by_step += ((step.id, cost),)
        return found

    def _settle(self, said: _Said, size: int) -> int:
        """Enter what the round has used; return what it costs."""
        run, outcome = self._run, self._run.outcome
        if said.usage is None and not (said.began or said.written):
            return 0
        if said.usage is None:
            said.usage = Usage(-(-size // BYTES_PER_TOKEN), -(-said.written // BYTES_PER_TOKEN), estimated=True)
        before = run.cost()
        outcome.usage = said.usage if outcome.usage is None else outcome.usage + said.usage
        cost = run.cost() - before
        run.spent.tokens += said.usage.total_tokens
        run.spent.micros += cost
        if not said.unheard:
            run.emit(UsageReported(said.usage))
        return cost

    def _replay(self, step: OpenStep, said: _Said) -> Round:
        """Say again what was recorded: the reader sees it, the books do not."""
        run = self._run
        recorded = step.recorded
        if recorded is not None:
            run.emit(recorded.change)
        if recorded is None or recorded.status != "done":
            raise Malformed("The model's answer had broken off before the turn was taken up again.")
        found = _READ(recorded.output)
        for event in (ReasoningDelta(found.reasoning), TextDelta(found.text)):
            if event.text:
                said.take(event)
        for index, call in enumerate(found.calls):
            said.take(CallDelta(index, call.arguments, call.id, call.name))
        said.release(calls=bool(found.calls))
        run.spent.tokens += found.usage.total_tokens
        run.spent.micros += found.cost_micros
        run.emit(UsageReported(found.usage))
        run.outcome.by_step += ((step.id, found.cost_micros),)
        return msgspec.structs.replace(found, step_id=step.id, replayed=True)

    def began(self, event: Began) -> None:
        """Tell the reader once who answers."""
        if not self._began:
            self._began = True
            self._run.emit(event)


class _Said:
    """What one round says, while it says it."""

    def __init__(self, run: Run, rounds: Rounds, shown: Shown, tell: Tell | None = None) -> None:
        self._run = run
        self.tell = tell
        self._rounds = rounds
        self._shown = shown
        self._fold = Fold()
        self._held: list[TextDelta] = []
        self._opening = True
        self.waiting: OpenStep | None = None
        """The round's step, if it is shown only once the model answers."""
        self.usage: Usage | None = None
        self.began = False
        self.unheard = False
        """The client has left: the rest is for the books alone."""
        self.written = 0
        """Bytes, for an estimate where nobody counts."""

    def take(self, event: Event) -> None:
        """Take one event of the model's in and show what of it is to be seen."""
        self._count(event)
        if self.unheard:
            return
        if self.waiting is not None:
            step, self.waiting = self.waiting, None
            self._run.emit(step.change)
        if isinstance(event, TextDelta):
            self._fold.add(event)
            self._text(event)
        elif isinstance(event, ReasoningDelta):
            self._fold.add(event)
            if self._shown != "hidden":
                self._run.show_thought(event.text)
        elif isinstance(event, CallDelta | Finished):
            self._fold.add(event)
        elif isinstance(event, Began):
            self._rounds.began(event)
        elif self._shown != "hidden" and not isinstance(event, UsageReported):
            self._run.emit(event)

    def _count(self, event: Event) -> None:
        """Note what of an event the books need."""
        if isinstance(event, TextDelta | ReasoningDelta):
            self.written += count_bytes(event.text)
        elif isinstance(event, CallDelta):
            self.written += count_bytes(event.arguments) + count_bytes(event.name or "")
        elif isinstance(event, UsageReported):
            self.usage = event.usage if self.usage is None else self.usage + event.usage
        elif isinstance(event, Began):
            self.began = True
            self._run.outcome.upstream = event.upstream

    def found(self, step_id: str, cost: int) -> Round:
        """Return the round as it is kept."""
        choice = self._fold.choice(0)
        return Round(
            text="".join(choice.text),
            reasoning="".join(choice.reasoning),
            calls=choice.tool_calls,
            finish=choice.finish or "stop",
            usage=self.usage or Usage(),
            cost_micros=cost,
            step_id=step_id,
        )

    def release(self, *, calls: bool) -> None:
        """Show what was held until it was known whether the round calls something."""
        for event in self._held:
            if calls:
                self._run.show_thought(event.text)
            else:
                self._show(event)
        self._held.clear()
        self._run.show_thought("", end=True)

    def _text(self, event: TextDelta) -> None:
        if self._shown == "content":
            self._show(event)
        elif self._shown == "held":
            self._held.append(event)
        elif self._shown == "reasoning":
            self._run.show_thought(event.text)

    def _show(self, event: TextDelta) -> None:
        self._run.show_text(event, opening=self._opening)
        self._opening = False


_READ: Final = msgspec.json.Decoder(Round).decode
