"""A2A agents as a test plays them, behind the real guarded way out over a wire in memory, in virtual time.

    house = A2aHouse(world.clock)
    echo = house.agent("echo", play)        a play yields what becomes of the task, step by step
    await house.heard(echo, "hello")        everything that one question brings

Written from the specification and not with the product's codec; tests/process compares both with the official library.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from convene.agents.a2a import A2aTalker
from convene.agents.a2a_discovery import Discovery
from convene.agents.a2a_wire import A2aWire, Limits
from convene.agents.answer_rules import Patience
from convene.agents.base import AgentCard, Conversation, Heard
from convene.agents.credentials import Credentials
from convene.agents.talk_notes import TalkNotes
from convene.egress import Egress, Rules, WireFault
from egress_doubles import PUBLIC, Names
from sessions_double import SessionsDouble

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from convene.clock import Clock
    from convene.egress import Hop

    Step = tuple[str, ...] | float
    Play = Callable[["PlayedA2a", str], AsyncGenerator[Step]]

SECRET = b"a secret of tests"
OVER = {"completed", "failed", "canceled", "rejected"}
PAUSED = {*OVER, "input-required", "auth-required"}


class PlayedTask:
    """One task, as the agent keeps it."""

    def __init__(self, task_id: str, context_id: str) -> None:
        self.id = task_id
        self.context_id = context_id
        self.state = "submitted"
        self.words = ""
        self.artifacts: dict[str, list[dict[str, Any]]] = {}
        self.history: list[dict[str, Any]] = []
        self.readers: list[asyncio.Queue[dict[str, Any] | None]] = []

    def tell(self, event: dict[str, Any] | None) -> None:
        for reader in self.readers:
            reader.put_nowait(event)


class PlayedA2a:
    """One agent. What it was asked is in `asked`, requests by name in `requests`."""

    def __init__(
        self, name: str, play: Play | None, *, legacy: bool, rest: bool, streams: bool, lists: bool = True
    ) -> None:
        self.name = name
        self.url = f"https://{name}.test"
        self.play = play
        self.legacy, self.rest, self.streams, self.lists = legacy, rest, streams, lists
        self.asked: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.tasks: dict[str, PlayedTask] = {}
        self.break_after: int | None = None
        """Events of a stream after which its connection breaks, once."""
        self.refuses: dict[str, tuple[int, str]] = {}
        self.raw: Callable[[str], ToldReply | None] = lambda _: None
        self.working: set[asyncio.Task[None]] = set()

    def card(self) -> dict[str, Any]:
        binding = "HTTP+JSON" if self.rest else "JSONRPC"
        common = {
            "name": self.name,
            "description": f"Plays {self.name}.",
            "capabilities": {"streaming": self.streams},
            "skills": [{"id": "s", "name": "talking", "description": "says things", "tags": []}],
        }
        if self.legacy:
            return common | {"url": f"{self.url}/a2a", "preferredTransport": binding, "protocolVersion": "0.3.0"}
        interface = {"url": f"{self.url}/a2a", "protocolBinding": binding, "protocolVersion": "1.0"}
        return common | {"supportedInterfaces": [interface]}

    async def serve(self, hop: Hop) -> ToldReply:
        path = urlsplit(hop.place.url).path
        if path.startswith("/.well-known/"):
            if path != "/.well-known/agent-card.json":
                return ToldReply(404)
            return ToldReply(200, json.dumps(self.card()).encode())
        self.headers.append(dict(hop.headers))
        name, params, number = self._read(hop, path)
        self.requests.append(name)
        if (told := self.raw(name)) is not None:
            return told
        if name in self.refuses:
            return self._refuse(*self.refuses[name], number)
        return await self._answer(name, params, number)

    def _read(self, hop: Hop, path: str) -> tuple[str, dict[str, Any], Any]:
        if not self.rest:
            body = json.loads(hop.body)
            names = {"message/send": "SendMessage", "message/stream": "SendStreamingMessage", "tasks/get": "GetTask"}
            names |= {"tasks/cancel": "CancelTask", "tasks/resubscribe": "SubscribeToTask"}
            assert body["jsonrpc"] == "2.0"
            assert (body["method"] in names) == self.legacy
            return names.get(body["method"], body["method"]), body["params"], body["id"]
        inner = path.removeprefix("/a2a/v1" if self.legacy else "/a2a")
        if inner == "/message:send":
            return "SendMessage", json.loads(hop.body), None
        if inner == "/message:stream":
            return "SendStreamingMessage", json.loads(hop.body), None
        if inner == "/tasks":
            query = parse_qs(urlsplit(hop.place.url).query)
            return "ListTasks", {name: values[0] for name, values in query.items()}, None
        task, _, verb = inner.removeprefix("/tasks/").partition(":")
        return {"": "GetTask", "cancel": "CancelTask", "subscribe": "SubscribeToTask"}[verb], {"id": task}, None

    async def _answer(self, name: str, params: dict[str, Any], number: Any) -> ToldReply:  # noqa: ANN401 -- JSON
        if name in {"SendMessage", "SendStreamingMessage"}:
            return await self._take(name, params, number)
        if name == "ListTasks":
            if not self.lists:
                return self._refuse(-32601, "there is no such method", number)
            return self._whole({"tasks": [self.show(task) for task in self.tasks.values()]}, number)
        task = self.tasks.get(params["id"])
        if task is None:
            return self._refuse(-32001, "there is no such task", number)
        if name == "CancelTask":
            await self._step(task, ("canceled", ""))
            return self._whole(self.show(task), number)
        if name == "SubscribeToTask":
            if task.state in OVER:
                return self._refuse(-32004, "it is over", number)
            return self._stream(task, number, first=self.wrap("task", self.show(task)))
        return self._whole(self.show(task), number)

    async def _take(self, name: str, params: dict[str, Any], number: Any) -> ToldReply:  # noqa: ANN401 -- JSON
        message = params["message"]
        self.messages.append(message)
        parts = message.get("parts") or message["content"]
        text = "".join(part["text"] for part in parts)
        self.asked.append(text)
        known = message.get("taskId")
        if known and known not in self.tasks:
            self.asked.pop()
            return self._refuse(-32001, "there is no such task", number)
        count = len(self.tasks) + 1
        task = self.tasks.get(known) if known else None
        if task is None:
            task = PlayedTask(f"task-{count}", message.get("contextId") or f"context-{count}")
        task.history.append(message)
        assert self.play is not None
        play = self.play(self, text)
        first = await anext(play)
        if isinstance(first, tuple) and first[0] == "message":
            await play.aclose()
            said = self.wrap("message", self.message(first[1]))
            return ToldReply.of(self._frame(said, number)) if name != "SendMessage" else self._whole(said, number)
        self.tasks[task.id] = task
        task.state = "working"
        opened = self.wrap("task", self.show(task))
        reply = self._stream(task, number, first=opened) if name != "SendMessage" else None
        work = asyncio.ensure_future(self._work(task, first, play))
        self.working.add(work)
        work.add_done_callback(self.working.discard)
        if reply is not None:
            return reply
        await asyncio.sleep(0)
        about = params.get("configuration", {})
        assert about.get("blocking") is False if self.legacy else about.get("returnImmediately") is True
        return self._whole(self.wrap("task", self.show(task)), number)

    async def _work(self, task: PlayedTask, first: Step, play: AsyncGenerator[Step]) -> None:
        await self._step(task, first)
        async with aclosing(play):
            async for step in play:
                if task.state == "canceled":
                    return
                await self._step(task, step)

    async def _step(self, task: PlayedTask, step: Step) -> None:
        if isinstance(step, int | float):
            await asyncio.sleep(step)
            return
        kind, *rest = step
        if kind in {"artifact", "more"}:
            artifact_id, text = rest
            piece = [{"text": text}] if not self.legacy else [{"kind": "text", "text": text}]
            kept = task.artifacts.setdefault(artifact_id, [])
            kept[:] = [*kept, *piece] if kind == "more" else piece
            update = {"taskId": task.id, "contextId": task.context_id, "append": kind == "more"}
            shown = update | {"artifact": {"artifactId": artifact_id, "parts": piece}}
            task.tell(self.wrap("artifactUpdate", shown))
            return
        if kind == "part":
            artifact_id, raw = rest
            task.artifacts.setdefault(artifact_id, []).append(json.loads(raw))
            shown = {"taskId": task.id, "contextId": task.context_id, "append": False}
            shown |= {"artifact": {"artifactId": artifact_id, "parts": [json.loads(raw)]}}
            task.tell(self.wrap("artifactUpdate", shown))
            return
        task.state, task.words = kind, rest[0] if rest else ""
        shown = {"taskId": task.id, "contextId": task.context_id, "status": self.status(task)}
        shown |= {"final": kind in PAUSED} if self.legacy else {}
        task.tell(self.wrap("statusUpdate", shown))
        if kind in PAUSED:
            task.tell(None)

    def message(self, text: str) -> dict[str, Any]:
        if self.legacy and not self.rest:
            return {"kind": "message", "messageId": "m", "role": "agent", "parts": [{"kind": "text", "text": text}]}
        return {"messageId": "m", "role": "ROLE_AGENT", "content" if self.legacy else "parts": [{"text": text}]}

    def status(self, task: PlayedTask) -> dict[str, Any]:
        plain = self.legacy and not self.rest
        state = task.state if plain else f"TASK_STATE_{task.state.upper().replace('-', '_')}"
        return {"state": state} | ({"message": self.message(task.words)} if task.words else {})

    def show(self, task: PlayedTask) -> dict[str, Any]:
        artifacts = [{"artifactId": name, "parts": [*parts]} for name, parts in task.artifacts.items()]
        shown = {"id": task.id, "contextId": task.context_id, "status": self.status(task), "artifacts": artifacts}
        kind = {"kind": "task"} if self.legacy and not self.rest else {}
        return shown | {"history": task.history} | kind

    def wrap(self, name: str, inner: dict[str, Any]) -> dict[str, Any]:
        if self.legacy and not self.rest:
            kinds = {"statusUpdate": "status-update", "artifactUpdate": "artifact-update"}
            return {"kind": kinds.get(name, name)} | inner
        return {name: inner}

    def _frame(self, result: dict[str, Any], number: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
        return result if self.rest else {"jsonrpc": "2.0", "id": number, "result": result}

    def _whole(self, result: dict[str, Any], number: Any) -> ToldReply:  # noqa: ANN401 -- JSON
        return ToldReply(200, json.dumps(self._frame(result, number)).encode())

    def _refuse(self, code: int, words: str, number: Any) -> ToldReply:  # noqa: ANN401 -- JSON
        if not self.rest:
            error = {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": words}}
            return ToldReply(200, json.dumps(error).encode())
        reasons = {-32001: "TASK_NOT_FOUND", -32004: "UNSUPPORTED_OPERATION"}
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reasons.get(code, "OTHER")}]
        status = 404 if code in {-32001, -32601} else 400
        return ToldReply(status, json.dumps({"error": {"message": words, "details": details}}).encode())

    def _stream(self, task: PlayedTask, number: Any, first: dict[str, Any]) -> ToldReply:  # noqa: ANN401 -- JSON
        reader: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        task.readers.append(reader)
        breaks, self.break_after = self.break_after, None

        async def pieces() -> AsyncGenerator[bytes]:
            try:
                sent = 0
                event: dict[str, Any] | None = first
                while event is not None:
                    yield b"data: " + json.dumps(self._frame(event, number)).encode() + b"\n\n"
                    sent += 1
                    if sent == breaks:
                        raise WireFault("broken", "the test broke it")
                    event = await reader.get()
            finally:
                task.readers.remove(reader)

        return ToldReply(200, pieces=pieces(), streams=True)


class ToldReply:
    """An answer, as `egress.Reply`."""

    def __init__(
        self, status: int, body: bytes = b"", *, pieces: AsyncGenerator[bytes] | None = None, streams: bool = False
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {
            "content-type": "text/event-stream; charset=utf-8" if streams else "application/json"
        }
        self.until = self.silence_s = float("inf")
        self._body = body
        self._pieces = pieces

    @classmethod
    def of(cls, *events: dict[str, Any]) -> ToldReply:
        """Return a stream of these events, which ends well."""
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
        return cls(200, body, streams=True)

    async def chunks(self) -> AsyncGenerator[bytes]:
        if self._pieces is None:
            yield self._body
            return
        loop = asyncio.get_running_loop()
        async with aclosing(self._pieces) as pieces:
            while True:
                try:
                    async with asyncio.timeout_at(min(self.until, loop.time() + self.silence_s)):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise WireFault("timeout", "too long") from None
                yield piece

    def close(self) -> None:
        return None


class A2aWireDouble:
    """The network: every agent at its host."""

    def __init__(self) -> None:
        self.agents: dict[str, PlayedA2a] = {}
        self.hops: list[Hop] = []
        self.down: set[str] = set()

    async def send(self, hop: Hop) -> ToldReply:
        self.hops.append(hop)
        agent = self.agents.get(hop.place.host)
        if agent is None or hop.place.host in self.down:
            raise WireFault("connect", "nobody there")
        until = asyncio.get_running_loop().time() + hop.total_s
        try:
            async with asyncio.timeout(min(hop.first_byte_s, hop.total_s)):
                reply = await agent.serve(hop)
        except TimeoutError:
            raise WireFault("timeout", "no answer") from None
        reply.until, reply.silence_s = until, hop.first_byte_s
        return reply


class A2aHouse:
    """Our side. `fresh` gives one that remembers what the store does, as after a crash."""

    def __init__(
        self,
        clock: Clock,
        network: A2aWireDouble | None = None,
        sessions: SessionsDouble | None = None,
        patience: Patience = Patience(),  # noqa: B008 -- frozen
        keys: Mapping[str, tuple[tuple[str, str], ...]] | None = None,
        limits: Limits = Limits(),  # noqa: B008 -- frozen
    ) -> None:
        self.clock = clock
        self.network = network or A2aWireDouble()
        self.sessions = sessions or SessionsDouble()
        rules = Rules(total_s=patience.total_s, first_byte_s=patience.total_s)
        egress = Egress(rules, Names(otherwise=PUBLIC), self.network)
        self.wire = A2aWire(egress, Credentials(keys), limits)
        self.discovery = Discovery(self.wire, clock)
        notes = TalkNotes(lambda: self.sessions, clock, "a2a")
        self.talker = A2aTalker(self.wire, self.discovery, notes, clock, SECRET, patience)

    def fresh(self) -> A2aHouse:
        return A2aHouse(self.clock, self.network, self.sessions)

    def agent(
        self,
        name: str,
        play: Play | None = None,
        *,
        legacy: bool = False,
        rest: bool = False,
        streams: bool = True,
        lists: bool = True,
    ) -> PlayedA2a:
        agent = PlayedA2a(name, play, legacy=legacy, rest=rest, streams=streams, lists=lists)
        self.network.agents[f"{name}.test"] = agent
        return agent

    def talk(self, agent: PlayedA2a, say: str, key: str = "conv", call: str = "run_1:s1:1") -> AsyncGenerator[Heard]:
        card = AgentCard(protocol="a2a", url=agent.url, name=agent.name)
        return self.talker.talk(card, Conversation(owner="o", key=key, call_key=call), say)

    async def heard(self, agent: PlayedA2a, say: str, key: str = "conv", call: str = "run_1:s1:1") -> list[Heard]:
        """Ask and return all that was heard."""
        return [one async for one in self.talk(agent, say, key, call)]

    async def aclose(self) -> None:
        """Let every agent come to an end."""
        for agent in self.network.agents.values():
            while agent.working:
                await asyncio.wait(agent.working)
