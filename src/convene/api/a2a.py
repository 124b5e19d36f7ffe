"""`/a2a`: this server as an A2A agent over JSON-RPC, in the wire forms 1.0 and 0.3, and its card (A2A-01, -06 to -09).

    POST ──► SendMessage ──► a task, which is a run ──► once it is over, or at once  GetTask, ListTasks, CancelTask
             SendStreamingMessage, SubscribeToTask ──► a stream: the task, pieces of the answer, its states

A key is asked for as everywhere; the card, which says so, is open. A task goes on when its client leaves, and is there
after a restart. Answers are the artifact `answer`; a fault of the task is its status, a refusal an error of JSON-RPC.
"""

from __future__ import annotations

import logging
import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from convene.agent_hops import HEADER, read_hops
from convene.api import a2a_wire as codec
from convene.api.a2a_doors import Door, RpcDoor, refusal_of
from convene.api.call import ClientLeftError
from convene.api.json_rpc import JsonObject, Notification, Request, RpcFault, failure, read_request
from convene.api.origins import check_page
from convene.api.problems import internal
from convene.errors import ConveneError
from convene.events import StepChanged, TextDelta
from convene.moments import SECOND_US
from convene.serving.base_answering import Question, TaskPage
from convene.serving.base_runs import RunEnded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from convene.api.call import Call
    from convene.api.stream import Streams
    from convene.serving.base_answering import AgentLookup, AskedTask, TaskDesk

log = logging.getLogger("convene.a2a")

TALK: Final = "a2a:"
"""Before the name of a conversation over A2A."""
WORDS_MAX: Final = 200
CACHE: Final = (b"cache-control", b"public, max-age=300")
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}").fullmatch


class Asked(NamedTuple):
    """One request, and how it is answered."""

    request: Request
    wire: codec.Wire
    operation: codec.Operation
    door: Door


class A2aServer:
    """The endpoints of JSON-RPC, and what both bindings do."""

    def __init__(
        self,
        tasks: TaskDesk,
        agents: AgentLookup,
        streams: Streams,
        new_id: Callable[[str], str],
        now: Callable[[], float],
        *,
        public_url: str = "",
        has_keys: bool = True,
    ) -> None:
        """`new_id` makes names of conversations, `now` is Unix time; `has_keys`: whether keys are asked for here."""
        self._tasks = tasks
        self._agents = agents
        self._streams = streams
        self._new_id = new_id
        self._now = now
        self._public_url = public_url.rstrip("/")
        self._has_keys = has_keys

    async def card(self, call: Call) -> None:
        """Show the card; its addresses are the public one, else those under which it was asked for."""
        host = call.header(b"host") or ""
        base = self._public_url or (f"http://{host}" if _HOST(host) else "")
        found = codec.card(base, has_keys=self._has_keys, has_agents=self._agents.anybody())
        await call.reply(200, msgspec.json.encode(found), headers=[CACHE])

    async def post(self, call: Call) -> None:
        """Answer one request of JSON-RPC."""
        self.check(call)
        try:
            asked = read_request(await call.body())
            if isinstance(asked, Notification):
                await call.reply(202, b"")
                return
            wire, operation = codec.operation_of(asked, call.header(codec.VERSION_HEADER))
        except RpcFault as fault:
            # Errors of JSON-RPC are answers: clients read them under 200 alone.
            await call.reply(200, failure(fault))
            return
        await self.answer(call, Asked(asked, wire, operation, RpcDoor(asked)))

    def check(self, call: Call) -> None:
        """Raise `Forbidden` if a page of a browser asks that may not (`origins.check_page`)."""
        check_page(call, self._public_url)

    async def answer(self, call: Call, asked: Asked) -> None:
        """Answer one request, by whichever binding it came."""
        try:
            await self._answer(call, asked)
        except RpcFault as fault:
            if call.status:
                raise
            status, body = asked.door.fault(fault)
            await call.reply(status, body, asked.door.media_type)

    async def _answer(self, call: Call, asked: Asked) -> None:
        try:
            await self._do(call, asked)
        except ConveneError as fault:
            if call.status:
                raise
            refused = asked.door.refusal(fault)
            if refused is None:
                raise
            if fault.detail:
                log.warning("request %s refused with %s: %s", call.request_id, fault.code, fault.detail)
            raise refused from None

    async def _do(self, call: Call, asked: Asked) -> None:
        match asked.operation:
            case "send":
                await self._send(call, asked)
            case "stream":
                await self._stream(call, asked, await self._begin(call, codec.read_sent(asked.request)))
            case "get":
                named = codec.read_named(asked.request)
                task = await self._tasks.show(call.caller, named.task)
                await _reply(call, asked, codec.task_of(task, asked.wire, named.history))
            case "list":
                await self._list(call, asked)
            case "cancel":
                await self._cancel(call, asked)
            case "subscribe":
                await self._subscribe(call, asked)
            case "push":
                raise RpcFault(codec.PUSH_UNSUPPORTED, "Push notifications are not sent here.")
            case "extended_card":
                code = codec.UNSUPPORTED if asked.wire == "1.0" else codec.NO_EXTENDED_CARD
                raise RpcFault(code, "There is no card but the public one.")

    async def _begin(self, call: Call, sent: codec.Sent) -> AskedTask:
        """Begin the task of a message. Raises `RpcFault`, `ConveneError`."""
        if sent.task:
            task = await self._tasks.show(call.caller, sent.task)
            words = "has ended" if task.is_over else "is at work"
            raise RpcFault(
                codec.UNSUPPORTED,
                f"Task {sent.task} {words} and takes no further message. Go on under its contextId alone.",
            )
        context = sent.context or self._new_id("ctx_")
        question = Question(
            who=call.caller,
            text=sent.text,
            model=sent.model,
            conversation=f"{TALK}{context}",
            caller=sent.caller,
            hops=sent.hops or read_hops(call.header(HEADER.encode())),
            request_id=call.request_id,
        )
        task = await self._tasks.begin(question)
        call.outcome = task.outcome
        call.common.append((b"x-run-id", task.run.id.encode()))
        return task

    async def _send(self, call: Call, asked: Asked) -> None:
        sent = codec.read_sent(asked.request)
        task = await self._begin(call, sent)
        if sent.waits:
            async with aclosing(self._tasks.read(task)) as found:
                async for events in found:
                    if isinstance(events[-1], RunEnded):
                        break
            task = await self._tasks.show(call.caller, task.run.id)
        await _reply(call, asked, codec.wrapped(codec.task_of(task, asked.wire, sent.history), asked.wire))

    async def _list(self, call: Call, asked: Asked) -> None:
        wanted = codec.read_list(asked.request, round(self._now() * SECOND_US))
        found = TaskPage((), 0)
        if wanted.filter is not None:
            found = await self._tasks.list_all(call.caller, wanted.filter)
        await _reply(call, asked, codec.page_of(found, wanted))

    async def _cancel(self, call: Call, asked: Asked) -> None:
        named = codec.read_named(asked.request)
        task = await self._tasks.show(call.caller, named.task)
        if task.is_over:
            raise RpcFault(codec.NOT_CANCELABLE, "The task has ended already.")
        task = await self._tasks.cancel(call.caller, named.task)
        await _reply(call, asked, codec.task_of(task, asked.wire))

    async def _subscribe(self, call: Call, asked: Asked) -> None:
        task = await self._tasks.show(call.caller, codec.read_named(asked.request).task)
        if task.is_over:
            raise RpcFault(codec.UNSUPPORTED, "The task has ended; GetTask shows how.")
        await self._stream(call, asked, task)

    async def _stream(self, call: Call, asked: Asked, task: AskedTask) -> None:
        """Send a task as it is, and everything that comes of it."""
        stream, wire, door = self._streams.open(call), asked.wire, asked.door
        try:
            await stream.write([door.frame(codec.wrapped(codec.task_of(task, wire), wire))])
            async with aclosing(self._changes(call, task, wire)) as changes:
                async for change in changes:
                    await stream.write([door.frame(change)])
            await stream.finish([])
        except ClientLeftError:
            raise
        except ConveneError as fault:
            await stream.fail([door.fault_frame(refusal_of(fault))])
        except Exception:  # whatever it is: a stream that has begun ends in a frame, never in silence
            log.exception("request %s failed", call.request_id)
            await stream.fail([door.fault_frame(refusal_of(internal(call.request_id)))])
        finally:
            stream.leave()

    async def _changes(self, call: Call, task: AskedTask, wire: codec.Wire) -> AsyncGenerator[JsonObject]:
        """Yield what comes of a task, as streams tell it."""
        append = False
        told: dict[str, str] = {}
        async with aclosing(self._tasks.read(task)) as found:
            async for events in found:
                for event in events:
                    if isinstance(event, TextDelta) and event.text:
                        yield codec.artifact_update(task, event.text, wire, append=append)
                        append = True
                    elif isinstance(event, StepChanged) and (words := _news_of(event, told)):
                        yield codec.status_update(task, wire, words)
                    elif isinstance(event, RunEnded):
                        yield codec.status_update(await self._tasks.show(call.caller, task.run.id), wire)
                        return


def _news_of(step: StepChanged, told: dict[str, str]) -> str:
    """Return what there is to tell of a step at work that was not told already."""
    words = (f"{step.name}: {step.summary}" if step.summary else step.name)[:WORDS_MAX]
    if step.status != "running" or told.get(step.id) == words:
        return ""
    told[step.id] = words
    return words


async def _reply(call: Call, asked: Asked, result: JsonObject) -> None:
    await call.reply(200, asked.door.answer(result), asked.door.media_type)
