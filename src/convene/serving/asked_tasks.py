"""Questions that go on whether or not anybody waits for them: begun here, read as runs, ended as runs (A2A-06).

    begin ──► a turn, read to its end by a task of our own ──► as soon as its run is written down: AskedTask
    show, read, cancel ──► runs: also after a restart, and in another process

Called by `api/a2a.py` through `base_answering.TaskDesk`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import ConveneError, NotFound
from convene.messages import Message
from convene.serving.base_answering import AskedTask, TaskPage
from convene.serving.base_runs import RunEnded
from convene.serving.runs import state_of
from convene.serving.sessions import stored_id
from convene.store.base_runs import Lately

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event
    from convene.serving.base import Principal
    from convene.serving.base_answering import Answering, AskedTurn, Question, TaskFilter
    from convene.serving.base_runs import RunState
    from convene.serving.runs import KeptRuns

log = logging.getLogger("convene.answering")

END_S: Final = 5.0
"""How long a cancelled task is waited for; a run of another process ends within a second."""


class _Generation(msgspec.Struct):
    messages: list[Message] = []


class _Request(msgspec.Struct):
    generation: _Generation


class _Job(msgspec.Struct):
    """Of a job (`base_agentic.Job`) what was asked."""

    request: _Request


_job_of = msgspec.json.Decoder(_Job).decode


class AskedTasks:
    """Implements `base_answering.TaskDesk`. Belongs to one event loop."""

    def __init__(self, answering: Answering, runs: KeptRuns, prefix: str) -> None:
        """`prefix` stands before the names of conversations: runs of others are none of these tasks."""
        self._answering = answering
        self._runs = runs
        self._prefix = prefix
        self._walks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, question: Question) -> AskedTask:
        """See `TaskDesk.begin`."""
        turn = await self._answering.ask(question)
        begun = self._runs.expect(turn.run_id)
        walk = asyncio.get_running_loop().create_task(self._walk(turn, begun), name=f"asked {turn.run_id}")
        self._walks[turn.run_id] = walk
        walk.add_done_callback(lambda _: self._walks.pop(turn.run_id, None))
        try:
            await asyncio.wait((begun, walk), return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                walk.result()
        finally:
            begun.cancel()
        return msgspec.structs.replace(await self.show(question.who, turn.run_id), outcome=turn.outcome)

    async def show(self, who: Principal, task_id: str) -> AskedTask:
        """See `TaskDesk.show`."""
        task = self._task_of(await self._runs.show(who, task_id))
        if task.run.status == "done" and task.run.fence > 1:  # whoever began it was not there to do so
            talk = f"{self._prefix}{task.context}"
            await self._answering.remember(task.run.owner, talk, task.run.id, task.said, task.answer)
        return task

    async def list_all(self, who: Principal, which: TaskFilter) -> TaskPage:
        """See `TaskDesk.list_all`."""
        lately = Lately(
            owner=who.owner,
            prefix=self._prefix,
            session_id=stored_id(f"{self._prefix}{which.context}") if which.context else "",
            status=which.status,
            since_us=which.since_us,
        )
        runs, total = await self._runs.store.latest(lately, which.limit, which.after)
        return TaskPage(tuple(self._task_of(state_of(run, ())) for run in runs), total)

    async def read(self, task: AskedTask) -> AsyncGenerator[list[Event | RunEnded]]:
        """See `TaskDesk.read`."""
        async with aclosing(self._runs.read(task.run, 0)) as pieces:
            async for found in pieces:
                walk = self._walks.get(task.run.id)
                if walk is not None and isinstance(found[-1][1], RunEnded):
                    # So that whoever asks next finds it in the conversation, and in the books.
                    await asyncio.wait([walk], timeout=END_S)
                yield [event for _, event in found]

    async def cancel(self, who: Principal, task_id: str) -> AskedTask:
        """See `TaskDesk.cancel`."""
        task = await self.show(who, task_id)
        await self._runs.cancel(who, task_id)
        try:
            async with asyncio.timeout(END_S), aclosing(self._runs.read(task.run, 0)) as pieces:
                async for found in pieces:
                    if isinstance(found[-1][1], RunEnded):
                        break
        except TimeoutError:
            log.warning("run %s has not ended %s seconds after it was to", task_id, END_S)
        return await self.show(who, task_id)

    async def aclose(self) -> None:
        """Leave what goes on to the next start."""
        walks = list(self._walks.values())
        for walk in walks:
            walk.cancel()
        if walks:
            await asyncio.wait(walks)

    async def _walk(self, turn: AskedTurn, begun: asyncio.Future[None]) -> None:
        """Read a turn to its end. A fault before its run has begun is raised; one after it is the run's to tell."""
        try:
            async with aclosing(turn.events()) as events:
                async for _ in events:
                    pass
        except ConveneError as fault:
            if not begun.done():
                raise
            log.info("run %s ended in a fault: %s %s", turn.run_id, fault.message, fault.detail)
        except Exception:  # whatever it is, the run says that it failed; here it would be nobody's
            if not begun.done():
                raise
            log.exception("run %s failed", turn.run_id)

    def _task_of(self, state: RunState) -> AskedTask:
        run, answer = state.run, state.answer
        if not run.session_id.startswith(self._prefix):
            raise NotFound("You have no task with this id.", code="run_not_found")
        choice = next((one for one in answer.choices if one.index == 0), None) if answer is not None else None
        return AskedTask(
            run=run,
            context=run.session_id.removeprefix(self._prefix),
            said=_said(run.request),
            answer="" if choice is None else choice.text or choice.refusal,
            message="" if answer is None or run.status == "done" else answer.message,
        )


def _said(request: bytes) -> str:
    """Return the question of a run; empty where its request was not kept."""
    try:
        messages = _job_of(request).request.generation.messages if request else []
    except msgspec.MsgspecError:
        return ""
    return messages[-1].text() if messages else ""
