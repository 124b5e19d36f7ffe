"""Real A2A agents of the official SDK in one process, for `test_real_a2a.py`; run in an environment of their own.

    python a2a_house.py PORT asked.txt

Each agent is at http://127.0.0.1:PORT/NAME; a line for every question goes into the file. Nothing of Convene is
imported.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from a2a.helpers import new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part, Role, Task, TaskState, TaskStatus
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

PORT, ASKED = int(sys.argv[1]), Path(sys.argv[2])
SLOW_S = 4.0
Work = Callable[[RequestContext, TaskUpdater, EventQueue, str], Awaitable[None]]


async def stream(context: RequestContext, updater: TaskUpdater, queue: EventQueue, text: str) -> None:
    del context, queue
    await updater.start_work(updater.new_agent_message([new_text_part("thinking")]))
    for number, piece in enumerate(("one, ", "two, ", f"three: {text}")):
        await asyncio.sleep(0.05)
        await updater.add_artifact([new_text_part(piece)], artifact_id="a", append=number > 0, last_chunk=number == 2)
    await updater.complete()


async def slow(context: RequestContext, updater: TaskUpdater, queue: EventQueue, text: str) -> None:
    del context, queue
    await updater.start_work()
    await asyncio.sleep(SLOW_S)
    await updater.add_artifact([new_text_part(f"slow: {text}")])
    await updater.complete()


async def ask(context: RequestContext, updater: TaskUpdater, queue: EventQueue, text: str) -> None:
    del queue
    if context.current_task is None or context.current_task.status.state != TaskState.TASK_STATE_INPUT_REQUIRED:
        await updater.requires_input(updater.new_agent_message([new_text_part("Which city?")]))
        return
    await updater.add_artifact([new_text_part(f"It is sunny in {text}.")])
    await updater.complete()


async def picture(context: RequestContext, updater: TaskUpdater, queue: EventQueue, text: str) -> None:
    del context, queue
    file = Part(url="https://pictures.test/1.png", media_type="image/png", filename="cat")
    await updater.add_artifact([new_text_part(f"Here is {text}."), file])
    await updater.complete()


async def fail(context: RequestContext, updater: TaskUpdater, queue: EventQueue, text: str) -> None:
    del context, queue, text
    await updater.failed(updater.new_agent_message([new_text_part("out of stock")]))


async def message(context: RequestContext, updater: TaskUpdater, queue: EventQueue, text: str) -> None:
    del context, updater
    await queue.enqueue_event(new_text_message(f"message: {text}", role=Role.ROLE_AGENT))


def note(line: str) -> None:
    """Write down what a test wants to see."""
    with ASKED.open("a") as file:
        file.write(f"{line}\n")


class Executor(AgentExecutor):  # type: ignore[misc]  # the library is in another environment
    """Does one kind of work."""

    def __init__(self, name: str, work: Work) -> None:
        self.name = name
        self.work = work

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        text = context.get_user_input()
        note(f"{self.name} {text}")
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        if self.work is not message and context.current_task is None:
            task = Task(id=context.task_id, context_id=context.context_id, history=[context.message])
            task.status.CopyFrom(TaskStatus(state=TaskState.TASK_STATE_SUBMITTED))
            await event_queue.enqueue_event(task)
        await self.work(context, updater, event_queue, text)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        note(f"{self.name} cancelled")
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def agent(name: str, work: Work, *, streams: bool = True, rest: bool = False, legacy: bool = False) -> Mount:
    """Return one agent: its card and its one door."""
    binding, url = "HTTP+JSON" if rest else "JSONRPC", f"http://127.0.0.1:{PORT}/{name}/a2a"
    card = AgentCard(
        name=name,
        description=f"Does {name}.",
        version="1.0.0",
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        capabilities=AgentCapabilities(streaming=streams),
        skills=[AgentSkill(id=name, name=name, description=f"Can do {name}.", tags=["test"])],
        supported_interfaces=[AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0")],
    )
    handler = DefaultRequestHandler(Executor(name, work), InMemoryTaskStore(), card)
    routes: list[BaseRoute] = []
    if legacy:
        old = {
            "name": name,
            "description": f"Does {name}.",
            "version": "1.0.0",
            "protocolVersion": "0.3.0",
            "url": url,
            "preferredTransport": binding,
            "capabilities": {"streaming": streams},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [{"id": name, "name": name, "description": f"Can do {name}.", "tags": ["test"]}],
        }

        async def show(request: Request) -> Response:
            del request
            return JSONResponse(old)

        routes.append(Route("/.well-known/agent.json", show))
    else:
        routes += create_agent_card_routes(card)
    if rest:
        routes += create_rest_routes(handler, path_prefix="/a2a", enable_v0_3_compat=legacy)
    else:
        routes += create_jsonrpc_routes(handler, "/a2a", enable_v0_3_compat=legacy)
    return Mount(f"/{name}", routes=routes)


class Locked:
    """Lets in who has the key."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        locked = scope["type"] == "http" and scope["path"].startswith("/locked")
        if locked and dict(scope["headers"]).get(b"authorization") != b"Bearer the key":
            await Response(status_code=401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


HOUSE = Starlette(
    routes=[
        agent("stream", stream),
        agent("whole", stream, streams=False),
        agent("rest", stream, rest=True),
        agent("restwhole", stream, rest=True, streams=False),
        agent("old", stream, legacy=True),
        agent("oldwhole", stream, legacy=True, streams=False),
        agent("oldrest", stream, legacy=True, rest=True),
        agent("slow", slow),
        agent("slowwhole", slow, streams=False),
        agent("oldslow", slow, legacy=True),
        agent("ask", ask),
        agent("oldask", ask, legacy=True),
        agent("askwhole", ask, streams=False),
        agent("picture", picture),
        agent("fail", fail),
        agent("message", message),
        agent("locked", stream),
    ]
)

uvicorn.run(Locked(HOUSE), host="127.0.0.1", port=PORT, log_level="warning")
