"""`/mcp`: this server as an MCP server over streamable HTTP, with the tools ask, search_agents and call_agent (MCP-05).

    POST ──► version (mcp_wire.py) ──► initialize, discover, ping, tools/list ──► JSON
                                  └──► tools/call ──► a turn ──► stream: progress notes, then the result
                                                                 or JSON, for who reads no streams
    GET, DELETE ──► 405: there is nothing to tell of our own accord, and nothing kept of a session

A key is asked for as everywhere. Whoever leaves ends the call; sessions of the older revisions are a name alone, under
which a client may cancel by notification. What an agent answers is data of a stranger's, and is given on as it is.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from convene.agent_hops import HEADER, read_hops
from convene.api import mcp_wire as wire
from convene.api.call import ClientLeftError
from convene.api.json_rpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    JsonObject,
    Notification,
    Request,
    RpcFault,
    failure,
    frame,
    note,
    read_request,
    reply,
)
from convene.api.origins import check_page
from convene.api.problems import internal
from convene.errors import BadRequest, ConveneError
from convene.events import Fold, StepChanged, TextDelta
from convene.serving.base_answering import Question

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.api.call import Call
    from convene.api.stream import Stream, Streams
    from convene.events import Event
    from convene.serving.base_answering import AgentLookup, Answering, AskedTurn

log = logging.getLogger("convene.mcp")
Shape = TypeVar("Shape")

TALK: Final = "mcp:"
"""Before the name of a conversation over MCP."""
EVENT_STREAM: Final = "text/event-stream"
SESSION_BYTES: Final = 16
WORDS_MAX: Final = 200
AGENTS_MAX: Final = 20


class McpServer:
    """The endpoints."""

    def __init__(
        self,
        answering: Answering,
        agents: AgentLookup,
        streams: Streams,
        token: Callable[[int], bytes],
        public_url: str = "",
    ) -> None:
        """`token` gives random bytes, for the names of sessions; pages of `public_url` may call."""
        self._answering = answering
        self._agents = agents
        self._streams = streams
        self._token = token
        self._public_url = public_url
        self._calls: dict[tuple[str, str, str], asyncio.Task[None]] = {}

    async def post(self, call: Call) -> None:
        """Answer one message."""
        check_page(call, self._public_url)
        try:
            asked = read_request(await call.body())
            if isinstance(asked, Notification):
                self._note(call, asked)
                await call.reply(202, b"")
                return
            version = wire.version_of(asked, call.headers)
            if asked.method == "tools/call":
                await self._call(call, asked, version)
            else:
                result, headers = self._answer(asked, version)
                await call.reply(200, reply(asked.id, wire.completed(result, version)), headers=headers)
        except RpcFault as fault:
            if call.status:
                raise
            await call.reply(fault.status, failure(fault))

    async def refuse(self, call: Call) -> None:
        """Refuse a method of HTTP that has no use here, in the way that clients take as an answer."""
        await call.reply(405, b"", headers=[(b"allow", b"POST")])

    def _answer(self, asked: Request, version: str) -> tuple[JsonObject, list[tuple[bytes, bytes]]]:
        """Return the result of everything but a call. Raises `RpcFault`."""
        match asked.method:
            case "initialize":
                return wire.negotiated(asked.params), [(wire.SESSION_HEADER, self._token(SESSION_BYTES).hex().encode())]
            case "server/discover" if version == wire.MODERN:
                return wire.discovered(), []
            case "ping":
                return {}, []
            case "tools/list":
                tools = (wire.ASK, wire.SEARCH, wire.CALL) if self._agents.anybody() else (wire.ASK,)
                return wire.listed(tools, version), []
            case _:
                raise RpcFault(
                    METHOD_NOT_FOUND,
                    f"There is no method {asked.method!r} here; there are tools only.",
                    request_id=asked.id,
                    status=404 if version == wire.MODERN else 200,
                )

    def _note(self, call: Call, notification: Notification) -> None:
        """Take a notification in: the only one that means anything gives a call up."""
        session = call.header(wire.SESSION_HEADER)
        if notification.method == "notifications/cancelled" and session:
            task = self._calls.get((call.caller.key_id, session, repr(notification.params.get("requestId"))))
            if task is not None:
                task.cancel()

    async def _call(self, call: Call, asked: Request, version: str) -> None:
        """Run a tool and send its result, as a stream where the client reads one."""
        name, arguments = asked.params.get("name"), asked.params.get("arguments") or {}
        tools = {"ask": self._ask, "search_agents": self._search, "call_agent": self._call_agent}
        tool = tools.get(name) if isinstance(name, str) else None
        if tool is None or not isinstance(arguments, dict):
            words = "Unknown tool." if tool is None else "'arguments' must be an object."
            raise RpcFault(INVALID_PARAMS, words, request_id=asked.id, status=400 if version == wire.MODERN else 200)
        session = call.header(wire.SESSION_HEADER) or ""
        streamed = EVENT_STREAM in (call.header(b"accept") or "")
        sending = _Sending(call, asked, version, self._streams.open(call) if streamed else None)
        work = asyncio.get_running_loop().create_task(sending.send(tool(call, arguments, sending)), name="MCP call")
        place = (call.caller.key_id, session, repr(asked.id))
        if session:
            self._calls[place] = work
        try:
            await asyncio.wait([work])
            if work.cancelled():
                await sending.give_up()
            else:
                work.result()
        finally:
            if self._calls.get(place) is work:
                del self._calls[place]
            work.cancel()
            await asyncio.wait([work])
            sending.leave()

    async def _ask(self, call: Call, arguments: JsonObject, sending: _Sending) -> JsonObject:
        given = _read(arguments, wire.AskArguments)
        question = self._question(call, sending.meta, given.prompt, given.conversation)
        return await self._run(call, msgspec.structs.replace(question, model=given.model), sending)

    async def _call_agent(self, call: Call, arguments: JsonObject, sending: _Sending) -> JsonObject:
        given = _read(arguments, wire.CallArguments)
        found = await self._agents.find(given.agent) if self._agents.anybody() else None
        if found is None:
            raise BadRequest(f"No agent is known as {given.agent[:100]!r}. Look for one with search_agents.")
        question = self._question(call, sending.meta, given.message, given.conversation)
        return await self._run(call, msgspec.structs.replace(question, agent=found.agent), sending)

    async def _search(self, call: Call, arguments: JsonObject, sending: _Sending) -> JsonObject:
        del call, sending
        given = _read(arguments, wire.SearchArguments)
        found = await self._agents.search(given.query, max(1, min(given.limit, AGENTS_MAX)))
        agents: list[object] = [msgspec.to_builtins(one) for one in found]
        lines = [f"{one.agent} ({one.name}): {' '.join(one.description.split())[:WORDS_MAX]}" for one in found]
        return wire.told("\n".join(lines) or "No agent fits.", {"agents": agents})

    @staticmethod
    def _question(call: Call, meta: wire.Meta, text: str, conversation: str) -> Question:
        return Question(
            who=call.caller,
            text=text,
            conversation=f"{TALK}{conversation}" if conversation else "",
            caller=meta.caller,
            hops=meta.hops or read_hops(call.header(HEADER.encode())),
            request_id=call.request_id,
        )

    async def _run(self, call: Call, question: Question, sending: _Sending) -> JsonObject:
        """Have a question answered, and tell on the way how far it is."""
        turn = await self._answering.ask(question)
        call.outcome = turn.outcome
        gathered = Fold()
        async with aclosing(turn.events()) as events:
            async for event in events:
                gathered.add(event)
                await sending.tell(event)
        return _result_of(turn, gathered)


class _Sending:
    """How one call is answered."""

    def __init__(self, call: Call, asked: Request, version: str, stream: Stream | None) -> None:
        self.meta = wire.meta_of(asked.params)
        self._call = call
        self._asked = asked
        self._version = version
        self._stream = stream
        self._steps: dict[str, str] = {}
        self._told = 0
        self._answering = False

    async def send(self, work: Awaitable[JsonObject]) -> None:
        """Wait for a result and send it; what cannot be done is a result too, which a model can read."""
        try:
            result = await work
        except ClientLeftError:
            raise
        except ConveneError as fault:
            if fault.detail:
                log.warning("request %s failed with %s: %s", self._call.request_id, fault.code, fault.detail)
            result = _failed(fault)
        except Exception:  # whatever else it is: a stream that has begun ends in a result, never in silence
            log.exception("request %s failed", self._call.request_id)
            result = _failed(internal(self._call.request_id))
        await self._finish(reply(self._asked.id, wire.completed(result, self._version)))

    async def tell(self, event: Event) -> None:
        """Tell of a step that has begun or has something new to say, if the client wants to know."""
        words = ""
        if isinstance(event, StepChanged):
            words = f"{event.name}: {event.summary}" if event.summary else event.name
            if event.status != "running" or self._steps.get(event.id) == words:
                return
            self._steps[event.id] = words
        elif isinstance(event, TextDelta) and not self._answering:
            self._answering = True
            words = "answering"
        if words and self._stream is not None and self.meta.progress_token is not None:
            self._told += 1
            about = {"progressToken": self.meta.progress_token, "progress": self._told, "message": words[:WORDS_MAX]}
            await self._stream.write([frame(note("notifications/progress", about))])

    async def give_up(self) -> None:
        """End the answer to a call that its client has given up: nobody reads it."""
        gone = RpcFault(INTERNAL_ERROR, "The call was cancelled.", request_id=self._asked.id)
        await self._finish(failure(gone))

    def leave(self) -> None:
        """Let go of the stream."""
        if self._stream is not None:
            self._stream.leave()

    async def _finish(self, message: bytes) -> None:
        if self._stream is None:
            await self._call.reply(200, message)
        else:
            await self._stream.finish([frame(message)])


def _read(arguments: JsonObject, shape: type[Shape]) -> Shape:
    try:
        return msgspec.convert(arguments, shape)
    except (msgspec.ValidationError, RecursionError) as fault:
        raise BadRequest(f"The arguments are not as the tool wants them: {str(fault)[:WORDS_MAX]}") from None


def _failed(fault: ConveneError) -> JsonObject:
    """Return a fault as a result: a model reads it, and may do better."""
    wait_s = fault.retry_after_s
    words = fault.message if wait_s is None else f"{fault.message} Try again in {wait_s:.0f} s."
    return wire.told(words, {"error": {"code": fault.code, "message": fault.message}}, failed=True)


def _result_of(turn: AskedTurn, gathered: Fold) -> JsonObject:
    """Return an answer with what belongs to it."""
    choice = gathered.choices.get(0)
    text = "" if choice is None else "".join(choice.text) or "".join(choice.refusal)
    structured: JsonObject = {"answer": text, "model": turn.model, "run_id": turn.run_id}
    asked = [ran.agent | {"status": ran.status} for ran in gathered.tools if ran.agent is not None]
    if asked:
        structured["agents"] = asked
    if gathered.notices:
        structured["notices"] = [{"code": one.code, "message": one.message} for one in gathered.notices]
    failed = not text and any(ran.status == "failed" for ran in gathered.tools)
    return wire.told(text, structured, failed=failed)
