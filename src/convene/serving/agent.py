"""The agent: takes the turns in which the server itself does something, and walks each to its end as a run.

    wants(request)      searching, planning, studying, tools of the server's own, or something kept for a client
    turn(...)           an accepted turn (`agentic_turn.py`), which reserves, runs `events` and settles
    events(job, seat)   begin a run ── preparations ── driver (loop or planner) ── the end of the text, Finished
                        the work is a task; its events come out of a channel as they happen

To resume a run after a crash, call `events` with the job that was kept and a journal that knows what was recorded: it
repeats the same steps, gets their results from the journal, and goes on where they end. Hooks come from `app.py`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.errors import Conflict, ConveneError, StoreFault
from convene.events import Finished
from convene.serving.addressed import AddressedDriver, whom
from convene.serving.addressing import is_trivial
from convene.serving.agent_loop import LoopDriver
from convene.serving.agentic_run import Means, Run
from convene.serving.agentic_turn import AgenticTurn
from convene.serving.base_agentic import AllowAll, CeilingReached, PlainText
from convene.serving.ceilings import Ceilings, reach
from convene.serving.channel import Channel
from convene.serving.deferred import Deferrals, PollTurn, is_poll
from convene.serving.kept_calls import MARK, KeptCalls
from convene.serving.marketplace import has_agents
from convene.serving.passing import PassingRuns
from convene.serving.recalling import recall
from convene.serving.runs import KeptRuns
from convene.serving.tool_runs import STOP_S, Validators

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from convene.clock import Clock
    from convene.events import Event, FinishReason
    from convene.providers.base import Generation
    from convene.serving.agentic_run import Seat
    from convene.serving.base import ChatRequest, Principal
    from convene.serving.base_agentic import (
        CitedText,
        Driver,
        Job,
        Policy,
        Preparation,
        RunJournal,
        RunRoom,
        RunView,
        SearchWay,
    )
    from convene.serving.base_sessions import Memory
    from convene.serving.catalog import ChatDeployment
    from convene.serving.judge import Judge
    from convene.serving.turn import Turn, Turns
    from convene.tools.base import Tool, Toolbox

log = logging.getLogger("convene.agent")

EMBEDDED: Final = "embedded"
"""The upstream of models that search before the answer: they are too small to decide when to."""
CANCELLED: Final = "run_cancelled"
NO_SEARCH: Final = "search_unavailable"
"""The notice that interests those alone who asked for a search."""
_LOOKS: Final = frozenset({"search", "fetch"})
_CHOSEN: Final = _LOOKS | {"agent"}
"""Kinds of tools that not every request of a model with tools is given."""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator says of agentic turns, from `[agentic]`."""

    rounds: int = 0
    """0: one more than the calls that the turn may make."""
    seconds: float = 600.0
    wait_s: float = 55.0
    """How long a request waits for agents (decision 3)."""
    whole_s: float = 80.0
    """The same for a turn that is not streamed: official clients give up after 90 s (AGENTIC-07)."""
    tokens: int = 2_000_000
    micros: int = 0
    calls_at_once: int = 8
    result_share: float = 0.25
    on_disconnect: Literal["cancel", "continue"] = "cancel"
    currency: str = "USD"


class Hooks:
    """What others put into the agent; each has a default that does nothing."""

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        text: Callable[[Job, RunView], CitedText] | None = None,
        preparations: Sequence[Preparation] = (),
        planner: Callable[[LoopDriver], Driver] | None = None,
        judge: Judge | None = None,
        runs: RunRoom | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Take the hooks.

        Args:
            policy: decides about calls; else every call runs.
            text: makes the text of one answer, with its citations, from the job and what has come into the run; else
                text passes as it is.
            preparations: go before the driver, in this order.
            planner: makes the driver of `planner_mode` from that of the loop; else there is none.
            judge: judges what agents have answered; else nobody does.
            runs: keeps the runs; else nothing survives.
            memory: the sessions; else nothing is remembered.
        """
        self.policy: Policy = policy or AllowAll()
        self.text: Callable[[Job, RunView], CitedText] = text or (lambda _, __: PlainText())
        self.preparations = preparations
        self.planner = planner
        self.judge = judge
        self.runs = runs
        self.memory = memory


class Agent:
    """The agent of one server."""

    def __init__(
        self,
        box: Toolbox,
        settings: AgentSettings,
        clock: Clock,
        hooks: Hooks | None = None,
        *,
        general: bool = True,
        agents: Callable[[], bool] | None = None,
    ) -> None:
        """`general`: there may be tools beside search and fetch, which are offered without being asked for.

        `agents` says whether there is anybody in the marketplace now; asked for every request. Without it the tools
        are asked.
        """
        hooks = hooks or Hooks()
        self.settings = settings
        self.clock = clock
        self.runs: RunRoom = hooks.runs or PassingRuns(clock.now)
        self._box = box
        self._general = general
        self._agents = agents or (lambda: has_agents(box.tools()))
        self._hooks = hooks
        self.deferrals: Deferrals | None = None
        if isinstance(self.runs, KeptRuns) and hooks.memory is not None:
            self.deferrals = Deferrals(hooks.memory, self.runs, clock)
        self._kept = KeptCalls(hooks.memory)
        self._loop = LoopDriver(self._kept, hooks.judge)
        self._addressed = AddressedDriver(self._loop)
        self._planner = None if hooks.planner is None else hooks.planner(self._loop)
        self._preparations: tuple[Preparation, ...] = (self._kept, *hooks.preparations)
        self._validators = Validators()

    def wants(self, request: ChatRequest, deployment: ChatDeployment) -> bool:
        """See `turn.AgentDesk.wants`."""
        agentic, generation = request.agentic, request.generation
        if agentic.web_search or agentic.planner_mode or agentic.study_mode or agentic.kept or agentic.agent:
            return True
        general = self._general and generation.n == 1 and takes_tools(request, deployment)
        if general and any(tool.spec.kind not in _CHOSEN for tool in self._box.tools()):
            return True
        agents = self._agents
        if agents() and self._finds_agents(request, deployment):
            return True
        last = generation.messages[-1]
        return last.role == "tool" and last.tool_call_id is not None and last.tool_call_id.startswith(MARK)

    def defers(self, request: ChatRequest, deployment: ChatDeployment) -> bool:
        """Whether the turn may go on in the background while its client asks again (DEFER-01, SESSION-05)."""
        if self.deferrals is None or request.agentic.session_id is None or request.agentic.patient:
            return False
        return self._agents() and self._finds_agents(request, deployment)

    @staticmethod
    def _finds_agents(request: ChatRequest, deployment: ChatDeployment) -> bool:
        """Whether agents may take part: the model may find them, or the user has named one (decision 18)."""
        if not request.agentic.server_tools or not deployment.agentic.server_tools or request.generation.n > 1:
            return False
        messages = request.generation.messages
        return whom(request) is not None or (deployment.agentic.agents and not is_trivial(messages))

    def turn(
        self,
        turns: Turns,
        request: ChatRequest,
        generation: Generation,
        principal: Principal,
        deployment: ChatDeployment,
        request_id: str,
        resumed: tuple[Job, RunJournal] | None = None,
    ) -> AgenticTurn:
        """See `turn.AgentDesk.turn`."""
        return AgenticTurn(turns, request, generation, principal, deployment, request_id, agent=self, resumed=resumed)

    def poll(self, ordinary: Turn, principal: Principal) -> PollTurn | None:
        """See `turn.AgentDesk.poll`."""
        request, deferrals = ordinary.request, self.deferrals
        session_id = request.agentic.session_id
        if deferrals is None or session_id is None or not is_poll(request.generation.messages):
            return None
        return PollTurn(deferrals, ordinary, principal, session_id)

    def goes_on(self, request: ChatRequest) -> bool:
        """Whether the run of this request goes on when its client has left."""
        return (request.agentic.on_disconnect or self.settings.on_disconnect) == "continue"

    async def converse(self, owner: str, session_id: str | None) -> str | None:
        """Return what the owner's session is called in answers, made if need be; None without one."""
        memory = self._hooks.memory
        if memory is None or session_id is None:
            return None
        try:
            return await memory.enter(owner, session_id)
        except StoreFault as fault:
            log.warning("a session cannot be entered: %s", fault.detail or fault.message)
            return None

    async def remembered(self, owner: str, session_id: str | None) -> tuple[str, ...]:
        """Return what the owner's session remembers of earlier turns, for the job of a new one."""
        memory = self._hooks.memory
        return () if memory is None or session_id is None else await recall(memory, owner, session_id)

    async def events(self, job: Job, seat: Seat, journal: RunJournal | None = None) -> AsyncGenerator[Event]:
        """Run a turn, or run it again with the journal of its first try; usage goes into `seat.outcome` as it comes.

        Raises:
            ConveneError: the model failed, the store did, or (`Conflict`, `run_cancelled`) the run was ended by
                somebody. Closing the generator ends all its work within a second.
        """
        if journal is None:
            journal = await self.runs.begin(job)
        channel = Channel()
        run = Run(job, seat, self._means(job, seat.deployment), journal, channel)
        task = asyncio.get_running_loop().create_task(self._walk(run), name=f"run {job.run_id}")
        stopped = False

        def stop() -> None:
            nonlocal stopped
            stopped = True
            task.cancel()

        journal.attach(stop)
        try:
            while await channel.news():
                yield channel.events.popleft()
            await asyncio.wait([task])
            if stopped and task.cancelled():
                raise Conflict("This run was cancelled.", code=CANCELLED)
            task.result()
        except (asyncio.CancelledError, GeneratorExit):
            run.leave()
            raise
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=STOP_S)

    async def _walk(self, run: Run) -> None:
        """Walk a run to its end and write down how it ended."""
        try:
            await self._drive(run)
            await run.journal.finish("done", run.fold)
        except asyncio.CancelledError:
            await self._note_end(run, "cancelled", Conflict("The run was cancelled.", code=CANCELLED))
            raise
        except Exception as fault:  # whatever it is, the journal says that it failed; raised on
            known = fault if isinstance(fault, ConveneError) else ConveneError("The run failed.")
            await self._note_end(run, "cancelled" if known.code == CANCELLED else "failed", known)
            raise
        finally:
            run.channel.close()

    async def _drive(self, run: Run) -> None:
        reason: FinishReason
        limit = asyncio.timeout(run.ceilings.seconds)
        try:
            async with limit:
                self._announce(run)
                for preparation in self._preparations:
                    await preparation.prepare(run)
                reason = await self._driver(run).drive(run)
        except (CeilingReached, TimeoutError) as fault:
            if not isinstance(fault, CeilingReached):
                if not limit.expired():
                    raise
                fault = reach("seconds", run.ceilings)
            await run.flush(cut=True)
            run.stop(fault)
            reason = "length"
        await run.flush()
        run.end_text(whole=reason != "tool_calls")
        run.outcome.finish = reason
        run.emit(Finished(reason))

    @staticmethod
    async def _note_end(run: Run, status: Literal["failed", "cancelled"], end: ConveneError) -> None:
        """End a run that did not come to its own end; the fault that ended it matters more than one of the store."""
        try:
            await run.flush()
            await run.journal.finish(status, run.fold, end.code, end.message)
        except (StoreFault, Conflict) as fault:
            log.warning("run %s ended as %s, and the journal does not say so: %s", run.job.run_id, status, fault)

    def _driver(self, run: Run) -> Driver:
        request = run.job.request
        if request.agentic.server_tools and whom(request) is not None:
            return self._addressed
        if not request.agentic.planner_mode:
            return self._loop
        if self._planner is None:
            run.notice("planner_unavailable", "There is no planner here; the model answered without a plan.")
            return self._loop
        return self._planner

    def _announce(self, run: Run) -> None:
        """Tell the caller what cannot be had."""
        agentic = run.job.request.agentic
        for noticed in self._box.notices():
            if agentic.web_search or noticed.code != NO_SEARCH:
                run.notice(noticed.code, noticed.message)
        if agentic.web_search and run.search == "off":
            run.notice(NO_SEARCH, "Web search is not available here; the model answered without it.")
        if run.job.request.generation.n > 1:
            run.notice("one_choice", "With tools of the server's own there is one choice, whatever 'n' says.")

    def _means(self, job: Job, deployment: ChatDeployment) -> Means:
        everything = {tool.spec.name: tool for tool in self._box.tools()}
        way = search_way(job, deployment, everything.values())
        ceilings = self._ceilings(job, deployment)
        theirs = {function.name for function in job.request.generation.tools}
        general = takes_tools(job.request, deployment)
        agents = (
            general and self._agents() and deployment.agentic.agents and not is_trivial(job.request.generation.messages)
        )

        def offered(tool: Tool) -> bool:
            if looks(tool):
                return way == "tool"
            return agents if tool.spec.kind == "agent" else general

        tools = {
            name: tool for name, tool in everything.items() if ceilings.calls and name not in theirs and offered(tool)
        }
        settings = self.settings
        return Means(
            policy=self._hooks.policy,
            validators=self._validators,
            text=self._hooks.text,
            tools=tools,
            all_tools=everything,
            search=way,
            ceilings=ceilings,
            result_share=settings.result_share,
            calls_at_once=settings.calls_at_once,
            currency=settings.currency,
            judges=deployment.chat.upstream != EMBEDDED,
        )

    def _ceilings(self, job: Job, deployment: ChatDeployment) -> Ceilings:
        settings, request = self.settings, job.request
        asked = request.agentic.max_tool_calls
        calls = deployment.agentic.calls if asked is None else min(asked, deployment.agentic.calls)
        patient = request.generation.stream or self.goes_on(request) or self.defers(request, deployment)
        return Ceilings(
            rounds=settings.rounds or calls + 1,
            calls=calls,
            seconds=settings.seconds if patient else min(settings.seconds, settings.whole_s),
            tokens=settings.tokens,
            micros=settings.micros,
        )


def looks(tool: Tool) -> bool:
    """Whether a tool is one of web search, which a request asks for by `web_search`."""
    return tool.spec.kind in _LOOKS and tool.spec.source == "convene"


def search_way(job: Job, deployment: ChatDeployment, tools: Iterable[Tool]) -> SearchWay:
    """Return how a turn searches: not at all, before the answer, or as the model decides."""
    if not job.request.agentic.web_search or not any(looks(tool) and tool.spec.kind == "search" for tool in tools):
        return "off"
    way = deployment.agentic.search
    if way != "auto":
        return way
    if job.request.agentic.planner_mode:
        return "tool"  # a plan is constrained JSON: whatever the model is, it can name the tool
    return "before" if _is_small(deployment) else "tool"


def takes_tools(request: ChatRequest, deployment: ChatDeployment) -> bool:
    """Whether the model is offered the server's tools: a small one not for a greeting, which it would call one for."""
    if not request.agentic.server_tools or not deployment.agentic.server_tools:
        return False
    return not (_is_small(deployment) and is_trivial(request.generation.messages))


def _is_small(deployment: ChatDeployment) -> bool:
    """Whether the model cannot decide by itself when a tool is needed."""
    return deployment.chat.upstream == EMBEDDED or not deployment.chat.capabilities.tools
