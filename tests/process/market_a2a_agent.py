"""An A2A agent of the official SDK that joins a marketplace by `agentverse-sdk`; run in an environment of their own.

    python market_a2a_agent.py PORT 127.0.0.1:REGISTRY

It is known by its key alone, without a key of the registry's. Nothing of Convene is imported here.
"""

from __future__ import annotations

import sys

from agentverse_sdk.a2a import init  # type: ignore[import-not-found]  # in another environment

PORT, REGISTRY = int(sys.argv[1]), sys.argv[2]
init(f"http://sdk-echo:a-seed-of-convenes-tests@{REGISTRY}/SdkEcho")  # before the SDK of A2A is imported

import uvicorn  # noqa: E402
from a2a.helpers import new_text_part  # noqa: E402
from a2a.server.agent_execution import AgentExecutor, RequestContext  # noqa: E402
from a2a.server.events import EventQueue  # noqa: E402, TC002 -- with the rest of the SDK
from a2a.server.request_handlers import DefaultRequestHandler  # noqa: E402
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes  # noqa: E402
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater  # noqa: E402
from a2a.types import (  # noqa: E402
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.applications import Starlette  # noqa: E402


class Echo(AgentExecutor):  # type: ignore[misc]  # the library is in another environment
    """Says back what it hears."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        if context.current_task is None:
            task = Task(id=context.task_id, context_id=context.context_id, history=[context.message])
            task.status.CopyFrom(TaskStatus(state=TaskState.TASK_STATE_SUBMITTED))
            await event_queue.enqueue_event(task)
        await updater.start_work()
        await updater.add_artifact([new_text_part(f"sdk heard {context.get_user_input()}")])
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


card = AgentCard(
    name="SdkEcho",
    description="Says back what it hears.",
    version="1.0.0",
    default_input_modes=["text/plain"],
    default_output_modes=["text/plain"],
    capabilities=AgentCapabilities(streaming=True),
    skills=[AgentSkill(id="echo", name="echo", description="Says it again.", tags=["test"])],
    supported_interfaces=[
        AgentInterface(url=f"http://127.0.0.1:{PORT}/", protocol_binding="JSONRPC", protocol_version="1.0")
    ],
)
door = DefaultRequestHandler(Echo(), InMemoryTaskStore(), card)
app = Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(door, "/")])
uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
