"""Calls of the server's own tools inside an agentic turn, each as a step; independent ones run at the same time.

    call ──► known? arguments valid? allowed by the policy? ──► no: a failed step, and words for the model
      └──► open the step ──► recorded before a crash? ──► that is the result
                └──► run it, within its time ──► close the step

Nothing that a tool does fails the turn. Called by `agentic_run.py`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NoReturn

import jsonschema_rs
import msgspec

from convene.errors import ConveneError, Failed, Retry
from convene.events import ToolRan
from convene.serving.base_agentic import Ran
from convene.serving.base_steps import StepPlan
from convene.serving.ceilings import reach
from convene.tools.base import Label, ToolContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from convene.events import StepChanged, StepKind
    from convene.messages import ToolCall
    from convene.serving.agentic_run import Run
    from convene.serving.base_steps import EndStatus, OpenStep
    from convene.tools.base import Tool, ToolResult, ToolSpec

log = logging.getLogger("convene.tools")

STOP_S: Final = 1.0
"""How long a cancelled turn waits for its tools to let go."""
LOST: Final[frozenset[Label]] = frozenset({"private", "untrusted"})
"""What the policy thinks of results from before a crash whose tool is gone: the worst."""
KNOWN_MAX: Final = 1_000
REASON_MAX: Final = 500
WORDS_MAX: Final = 120
"""Characters of a step's summary that come from arguments."""


class Validators:
    """Checks arguments against the schemas of tools; shared by all runs."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ToolSpec, jsonschema_rs.Validator | None]] = {}

    def find_fault(self, spec: ToolSpec, arguments: dict[str, object]) -> str | None:
        """Return what is wrong with the arguments, in words for the model; a schema that is none allows anything."""
        known = self._known.get(id(spec))
        if known is None or known[0] is not spec:
            if len(self._known) >= KNOWN_MAX:
                del self._known[next(iter(self._known))]
            known = self._known[id(spec)] = (spec, _validator(spec))
        validator = known[1]
        if validator is None:
            return None
        fault = next(iter(validator.iter_errors(arguments)), None)
        if fault is None:
            return None
        path = "/".join(map(str, fault.instance_path))
        return f"{fault.message} (at {path})" if path else fault.message


class ToolRuns:
    """The calls of one run."""

    def __init__(self, run: Run, validators: Validators, at_once: int) -> None:
        self._run = run
        self._validators = validators
        self._slots = asyncio.Semaphore(at_once)

    async def call(self, calls: Sequence[ToolCall], depends_on: tuple[str, ...]) -> list[Ran]:
        """See `AgenticRun.call`."""
        run = self._run
        if run.spent.calls + len(calls) > run.ceilings.calls:
            raise reach("calls", run.ceilings)
        run.spent.calls += len(calls)
        ready = [_Ready(run, call, self._validators) for call in calls]
        opening = [run.journal.open(one.plan(depends_on)) for one in ready]
        await run.flush()
        for one, opens in zip(ready, opening, strict=True):
            one.step = await opens
            run.emit(one.step.change if one.step.recorded is None else one.step.recorded.change)
        todo = [one for one in ready if one.step is not None and one.step.recorded is None]
        if len(todo) == 1:
            run.closing(await self._run_one(todo[0]))
        elif todo:
            await self._run_all(todo)
        return [self._report(one) for one in ready]

    async def _run_all(self, todo: list[_Ready]) -> None:
        """Run several at once. The end of the last is written together with the beginning of what comes next."""
        left = len(todo)

        async def run_one(one: _Ready) -> None:
            nonlocal left
            closing = await self._run_one(one)
            left -= 1
            if left:
                self._run.emit(await closing)
            else:
                self._run.closing(closing)

        tasks = [asyncio.create_task(run_one(one), name=f"tool {one.call.name}") for one in todo]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOP_S)

    async def _run_one(self, one: _Ready) -> Awaitable[StepChanged]:
        """Run a call and return the end of its step, which is on its way to the journal."""
        step = one.opened
        if one.fault:
            one.ran = one.told("failed", one.fault)
        else:
            async with self._slots:
                try:
                    one.ran = await self._do(one)
                except asyncio.CancelledError:
                    self._run.cut(step, "It was stopped.")
                    raise
        status: EndStatus = one.ran.status
        summary = "" if status == "done" else one.ran.text[:WORDS_MAX]
        return step.close(status, _WRITE(one.ran), summary=summary)

    async def _do(self, one: _Ready) -> Ran:
        """Run the tool; whatever it raises becomes words."""
        tool, spec, step = one.known, one.known.spec, one.opened
        run = self._run
        context = ToolContext(
            owner=run.job.owner,
            key_id=run.job.key_id,
            run_id=run.journal.run_id,
            call_id=one.call.id,
            idempotency_key=step.idempotency_key,
            session_id=run.job.request.agentic.session_id,
            options=run.job.request.agentic.web_search_options or {},
            conversation=run.job.conversation_id or run.journal.run_id,
            caller=run.job.request.agentic.agent_address or "",
            hops=run.job.request.agentic.hops,
            wait_s=run.wait_s(),
            progress=lambda words: run.emit(step.show(words[:WORDS_MAX])),
        )
        try:
            async with asyncio.timeout(spec.timeout_s) as limit:
                return one.found(await tool.run(one.arguments, context))
        except Retry as fault:
            return one.told("failed", f"The call failed: {fault.message} You may call it again with other arguments.")
        except Failed as fault:
            return one.told("failed", f"The call failed: {fault.message} Do not call it again.")
        except ConveneError as fault:
            log.warning("tool %s failed: %s %s", spec.name, fault.message, fault.detail)
            return one.told("failed", f"The call failed: {fault.message} Do not call it again.")
        except Exception as fault:  # a tool may break in any way; it must never fail the turn
            if isinstance(fault, TimeoutError) and limit.expired():
                return one.told("failed", f"The call failed: no answer within {spec.timeout_s:g} seconds.")
            log.exception("tool %s broke", spec.name)
            return one.told("failed", "The call failed for an internal reason. Do not call it again.")

    def _report(self, one: _Ready) -> Ran:
        """Tell the reader and the run what has come of a call; in the order of the calls, so that a repeat is alike."""
        run, step = self._run, one.opened
        ran = one.ran
        if step.recorded is not None:
            ran = msgspec.structs.replace(_READ(step.recorded.output), step_id=step.id)
        else:
            run.outcome.note_tool(_shown(ran, one.arguments))
        spec = None if one.tool is None else one.tool.spec
        if spec is not None and not one.fault:
            run.view.labels |= spec.labels  # the words of a failure come from outside as well
        elif one.tool is None and step.recorded is not None:
            run.view.labels |= LOST  # a tool that was there before a crash and is not now: nobody knows what it was
        if ran.result is not None:
            ran = msgspec.structs.replace(ran, text=run.text.present(ran.result))
            run.take_result(ran, spec)
        run.emit(_shown(ran, one.arguments))
        return ran


class _Ready:
    """One call about to be run."""

    def __init__(self, run: Run, call: ToolCall, validators: Validators) -> None:
        self.call = call
        self.tool: Tool | None = run.all_tools.get(call.name)
        self.arguments, self.fault = _read_arguments(call.arguments)
        self.step: OpenStep | None = None
        self.ran = Ran(call=call, status="failed", text="")
        if self.tool is None:
            names = ", ".join(sorted(run.tools)) or "none"
            self.fault = f"There is no tool called '{call.name[:100]}'. There are: {names}."
        elif not self.fault:
            wrong = validators.find_fault(self.tool.spec, self.arguments)
            if wrong is not None:
                self.fault = f"The arguments are not valid: {wrong} Mend them and call it again."
            else:
                refused = run.policy.check(call, self.tool.spec, self.arguments, run.view)
                self.fault = "" if refused is None else refused

    @property
    def known(self) -> Tool:
        """The tool; only of a call without fault."""
        if self.tool is None:
            raise RuntimeError(f"{self.call.name} is not known, and yet it is run")
        return self.tool

    @property
    def opened(self) -> OpenStep:
        """Its step, once it is open."""
        if self.step is None:
            raise RuntimeError(f"the step of {self.call.name} was not opened")
        return self.step

    def plan(self, depends_on: tuple[str, ...]) -> StepPlan:
        """Return its step as it is written down before the call."""
        kind: StepKind = "tool" if self.tool is None else self.tool.spec.kind
        return StepPlan(
            kind=kind,
            name=self.call.name,
            input=msgspec.json.encode({"name": self.call.name, "arguments": self.call.arguments}),
            depends_on=depends_on,
            summary=_summary(self.arguments),
            detail=_reason(self.arguments) if kind == "agent" else None,
        )

    def found(self, result: ToolResult) -> Ran:
        """Return how it ended well."""
        status: EndStatus = "failed" if result.failed else "done"
        return Ran(call=self.call, status=status, text=result.text, result=result, step_id=self.opened.id)

    def told(self, status: EndStatus, words: str) -> Ran:
        """Return how it ended otherwise."""
        return Ran(call=self.call, status=status, text=words, step_id=self.opened.id)


def _validator(spec: ToolSpec) -> jsonschema_rs.Validator | None:
    try:
        return jsonschema_rs.validator_for(spec.parameters, retriever=_refuse_remote)
    except (ValueError, jsonschema_rs.ReferencingError) as fault:
        log.warning("the schema of tool %s cannot be checked against: %s", spec.name, str(fault)[:200])
        return None


def _refuse_remote(uri: str) -> NoReturn:
    """Schemas come from outside too; none of them makes this server fetch anything."""
    raise ValueError(f"a reference to {uri}")


def _read_arguments(text: str) -> tuple[dict[str, object], str]:
    if not text.strip():
        return {}, ""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as fault:
        return {}, f"The arguments are not JSON ({fault}). Mend them and call it again."
    if not isinstance(found, dict):
        return {}, "The arguments are not a JSON object. Mend them and call it again."
    return found, ""


def _summary(arguments: dict[str, object]) -> str:
    return next((value[:WORDS_MAX] for value in arguments.values() if isinstance(value, str)), "")


def _reason(arguments: dict[str, object]) -> dict[str, object] | None:
    """Return why the model calls an agent, in its own words (PICK-02)."""
    reason = arguments.get("reason")
    return {"reason": reason[:REASON_MAX]} if isinstance(reason, str) and reason.strip() else None


def _shown(ran: Ran, arguments: dict[str, object]) -> ToolRan:
    """Return the item of `executable_data`."""
    result: object = {"error": ran.text}
    agent = None if ran.result is None else ran.result.agent
    if ran.result is not None:
        result = {"text": ran.result.text} if ran.result.data is None else ran.result.data
    return ToolRan(
        id=ran.call.id,
        tool_name=ran.call.name,
        args=arguments,
        result=result,
        status="done" if ran.status == "done" else "failed",
        type="tool_call" if agent is None else "agent_manifest",
        agent=agent,
    )


_WRITE: Final = msgspec.json.Encoder().encode
_READ: Final = msgspec.json.Decoder(Ran).decode
