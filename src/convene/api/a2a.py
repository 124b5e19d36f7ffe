"""`/a2a`: this server as an A2A agent over JSON-RPC, in the wire forms 1.0 and 0.3, and its card (A2A-01, -06 to -09).

    POST ──► SendMessage ──► a task, which is a run ──► once it is over, or at once          GetTask, CancelTask
             SendStreamingMessage, SubscribeToTask ──► a stream: the task, pieces of the answer, its states

A key is asked for as everywhere; the card, which says so, is open. A task goes on when its client leaves, and is there
after a restart. Answers are the artifact `answer`; a fault of the task is its status, a refusal an error of JSON-RPC.
"""

from __future__ import annotations

import logging
import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.agent_hops import HEADER, read_hops
from convene.api import a2a_wire as codec
from convene.api.call import ClientLeftError
from convene.api.json_rpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    JsonObject,
    Notification,
    Request,
    RpcFault,
    failure,
    read_request,
    reply,
)
from convene.api.origins import check_page
from convene.api.problems import internal
from convene.errors import ClientFault, ConveneError, NotFound
from convene.events import StepChanged, TextDelta
from convene.serving.base_answering import Question
from convene.serving.base_runs import RunEnded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from convene.api.call import Call
    from convene.api.stream import Stream, Streams
    from convene.serving.base_answering import AgentLookup, AskedTask, TaskDesk

log = logging.getLogger("convene.a2a")

TALK: Final = "a2a:"
"""Before the name of a conversation over A2A."""
REFUSED: Final = -32000
"""Of the codes that JSON-RPC leaves to servers: a limit, or a fault of ours; `data` says which."""
WORDS_MAX: Final = 200
CACHE: Final = (b"cache-control", b"public, max-age=300")
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}").fullmatch


class A2aServer:
    """The endpoints."""

    def __init__(
        self,
        tasks: TaskDesk,
        agents: AgentLookup,
        streams: Streams,
        new_id: Callable[[str], str],
        *,
        public_url: str = "",
        has_keys: bool = True,
    ) -> None:
        """`new_id` makes names of conversations; `has_keys`: whether keys are asked for here."""
        self._tasks = tasks
        self._agents = agents
        self._streams = streams
        self._new_id = new_id
        self._public_url = public_url.rstrip("/")
        self._has_keys = has_keys

    async def card(self, call: Call) -> None:
        """Show the card; its addresses are the public one, else those under which it was asked for."""
        host = call.header(b"host") or ""
        base = self._public_url or (f"http://{host}" if _HOST(host) else "")
        found = codec.card(base, has_keys=self._has_keys, has_agents=self._agents.anybody())
        await call.reply(200, msgspec.json.encode(found), headers=[CACHE])

    async def post(self, call: Call) -> None:
        """Answer one request."""
        check_page(call, self._public_url)
        try:
            asked = read_request(await call.body())
            if isinstance(asked, Notification):
                await call.reply(202, b"")
                return
            await self._answer(call, asked)
        except RpcFault as fault:
            if call.status:
                raise
            # Errors of JSON-RPC are answers: clients read them under 200 alone.
            await call.reply(200, failure(fault))

    async def _answer(self, call: Call, asked: Request) -> None:
        wire, operation = codec.operation_of(asked, call.header(codec.VERSION_HEADER))
        try:
            match operation:
                case "send":
                    await self._send(call, asked, wire)
                case "stream":
                    await self._stream(call, asked, wire, await self._begin(call, asked, codec.read_sent(asked)))
                case "get":
                    named = codec.read_named(asked)
                    task = await self._tasks.show(call.caller, named.task)
                    await call.reply(200, reply(asked.id, codec.task_of(task, wire, named.history)))
                case "cancel":
                    await self._cancel(call, asked, wire)
                case "subscribe":
                    await self._subscribe(call, asked, wire)
                case "push":
                    raise RpcFault(codec.PUSH_UNSUPPORTED, "Push notifications are not sent here.", request_id=asked.id)
                case "extended_card":
                    code = codec.UNSUPPORTED if wire == "1.0" else codec.NO_EXTENDED_CARD
                    raise RpcFault(code, "There is no card but the public one.", request_id=asked.id)
        except ConveneError as fault:
            if call.status:
                raise
            if fault.detail:
                log.warning("request %s refused with %s: %s", call.request_id, fault.code, fault.detail)
            raise _refusal(fault, asked) from None

    async def _begin(self, call: Call, asked: Request, sent: codec.Sent) -> AskedTask:
        """Begin the task of a message. Raises `RpcFault`, `ConveneError`."""
        if sent.task:
            task = await self._tasks.show(call.caller, sent.task)
            words = "has ended" if task.is_over else "is at work"
            raise RpcFault(
                codec.UNSUPPORTED,
                f"Task {sent.task} {words} and takes no further message. Go on under its contextId alone.",
                request_id=asked.id,
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

    async def _send(self, call: Call, asked: Request, wire: codec.Wire) -> None:
        sent = codec.read_sent(asked)
        task = await self._begin(call, asked, sent)
        if sent.waits:
            async with aclosing(self._tasks.read(task)) as found:
                async for events in found:
                    if isinstance(events[-1], RunEnded):
                        break
            task = await self._tasks.show(call.caller, task.run.id)
        found_task = codec.task_of(task, wire, sent.history)
        await call.reply(200, reply(asked.id, codec.wrapped(found_task, wire)))

    async def _cancel(self, call: Call, asked: Request, wire: codec.Wire) -> None:
        named = codec.read_named(asked)
        task = await self._tasks.show(call.caller, named.task)
        if task.is_over:
            raise RpcFault(codec.NOT_CANCELABLE, "The task has ended already.", request_id=asked.id)
        task = await self._tasks.cancel(call.caller, named.task)
        await call.reply(200, reply(asked.id, codec.task_of(task, wire)))

    async def _subscribe(self, call: Call, asked: Request, wire: codec.Wire) -> None:
        task = await self._tasks.show(call.caller, codec.read_named(asked).task)
        if task.is_over:
            raise RpcFault(codec.UNSUPPORTED, "The task has ended; GetTask shows how.", request_id=asked.id)
        await self._stream(call, asked, wire, task)

    async def _stream(self, call: Call, asked: Request, wire: codec.Wire, task: AskedTask) -> None:
        """Send a task as it is, and everything that comes of it."""
        stream = self._streams.open(call)
        try:
            await _write(stream, asked, codec.wrapped(codec.task_of(task, wire), wire))
            async with aclosing(self._changes(call, task, wire)) as changes:
                async for change in changes:
                    await _write(stream, asked, change)
            await stream.finish([])
        except ClientLeftError:
            raise
        except ConveneError as fault:
            await stream.fail([_frame(failure(_refusal(fault, asked)))])
        except Exception:  # whatever it is: a stream that has begun ends in a frame, never in silence
            log.exception("request %s failed", call.request_id)
            await stream.fail([_frame(failure(_refusal(internal(call.request_id), asked)))])
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


async def _write(stream: Stream, asked: Request, result: JsonObject) -> None:
    await stream.write([_frame(reply(asked.id, result))])


def _frame(message: bytes) -> bytes:
    return b"data: " + message + b"\n\n"


def _refusal(fault: ConveneError, asked: Request) -> RpcFault:
    """Return a fault of ours as an error of JSON-RPC."""
    data: JsonObject = {"code": fault.code}
    if fault.retry_after_s is not None:
        data["retryAfterSeconds"] = round(fault.retry_after_s, 3)
    if isinstance(fault, NotFound) and fault.code == "run_not_found":
        return RpcFault(codec.TASK_NOT_FOUND, "You have no task with this id.", request_id=asked.id)
    code = INVALID_PARAMS if isinstance(fault, ClientFault) else REFUSED
    code = INTERNAL_ERROR if type(fault) is ConveneError else code
    return RpcFault(code, fault.message, data, request_id=asked.id)
