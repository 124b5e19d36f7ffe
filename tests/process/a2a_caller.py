"""The official A2A client as a program, for `test_a2a_served.py`; run in an environment of its own.

    python a2a_caller.py http://127.0.0.1:PORT KEY 1.0|0.3|1.0-http SCENE [WORDS...]

It prints one JSON object: what came. Nothing of Convene is imported.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskState,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from a2a.client import Client


def request(text: str, context: str = "", *, at_once: bool = False, model: str = "") -> SendMessageRequest:
    message = Message(role=Role.ROLE_USER, message_id=str(uuid4()), parts=[Part(text=text)])
    if context:
        message.context_id = context
    if model:
        message.metadata.update({"convene/model": model})
    return SendMessageRequest(message=message, configuration=SendMessageConfiguration(return_immediately=at_once))


def shown(task: Any) -> dict[str, Any]:  # noqa: ANN401 -- a protobuf message
    return {
        "id": task.id,
        "context": task.context_id,
        "state": TaskState.Name(task.status.state),
        "why": "".join(part.text for part in task.status.message.parts),
        "artifacts": ["".join(part.text for part in one.parts) for one in task.artifacts],
        "history": ["".join(part.text for part in one.parts) for one in task.history],
        "stamped": bool(task.status.timestamp.seconds),
    }


async def gathered(events: AsyncIterator[Any]) -> dict[str, Any]:
    """Return what a stream of events comes to."""
    kinds, text, states, notes, task = [], "", [], [], None
    async for event in events:
        kind = event.WhichOneof("payload")
        kinds.append(kind)
        if kind == "task":
            task = shown(event.task)
        elif kind == "artifact_update":
            piece = "".join(part.text for part in event.artifact_update.artifact.parts)
            text = text + piece if event.artifact_update.append else piece
        elif kind == "status_update":
            states.append(TaskState.Name(event.status_update.status.state))
            notes += [part.text for part in event.status_update.status.message.parts]
    return {"kinds": kinds, "text": text, "states": states, "notes": notes, "task": task}


async def ask(client: Client, *texts: str) -> dict[str, Any]:
    """Ask one after the other in one conversation."""
    found, context = [], ""
    for text in texts:
        found.append(await gathered(client.send_message(request(text, context))))
        context = found[-1]["task"]["context"]
    return {"asked": found}


async def begin(client: Client, text: str, model: str) -> dict[str, Any]:
    return await gathered(client.send_message(request(text, at_once=True, model=model)))


async def follow(client: Client, text: str, model: str) -> dict[str, Any]:
    """Begin a task, leave its stream, and read it on another connection."""
    async for event in client.send_message(request(text, model=model)):
        task = shown(event.task)
        return await subscribe(client, task["id"]) | {"begun": task}
    raise AssertionError("nothing came")


async def stop(client: Client, text: str, model: str) -> dict[str, Any]:
    """Begin a task, and end it."""
    return await cancel(client, (await begin(client, text, model))["task"]["id"])


async def get(client: Client, task: str) -> dict[str, Any]:
    return shown(await client.get_task(GetTaskRequest(id=task)))


async def listed(client: Client, context: str) -> dict[str, Any]:
    """List the tasks of a conversation one by one, then all with their answers."""
    found, token = [], ""
    while True:
        page = await client.list_tasks(ListTasksRequest(context_id=context, page_size=1, page_token=token))
        found.append([shown(task) for task in page.tasks])
        token = page.next_page_token
        if not token:
            break
    whole = await client.list_tasks(ListTasksRequest(include_artifacts=True, history_length=0))
    return {"pages": found, "total": page.total_size, "whole": [shown(task) for task in whole.tasks]}


async def cancel(client: Client, task: str) -> dict[str, Any]:
    return shown(await client.cancel_task(CancelTaskRequest(id=task)))


async def subscribe(client: Client, task: str) -> dict[str, Any]:
    return await gathered(client.subscribe(SubscribeToTaskRequest(id=task)))


async def play(client: Client, scene: str, first: str, *words: str) -> dict[str, Any]:
    match scene:
        case "ask":
            return await ask(client, first, *words)
        case "begin":
            return await begin(client, first, *words)
        case "follow":
            return await follow(client, first, *words)
        case "stop":
            return await stop(client, first, *words)
        case "get":
            return await get(client, first)
        case "list":
            return await listed(client, first)
        case "cancel":
            return await cancel(client, first)
        case _:
            return await subscribe(client, first)


async def main(url: str, key: str, wire: str, scene: str, *words: str) -> None:
    streaming = "whole" not in scene
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as http:
        card = await A2ACardResolver(http, url).get_agent_card()
        version, _, binding = wire.partition("-")
        named = "HTTP+JSON" if binding else "JSONRPC"
        chosen = [
            one for one in card.supported_interfaces if (one.protocol_version, one.protocol_binding) == (version, named)
        ]
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(chosen)
        client = ClientFactory(
            ClientConfig(streaming=streaming, httpx_client=http, supported_protocol_bindings=[named])
        ).create(card)
        try:
            found = await play(client, scene.removeprefix("whole-"), *words)
        except Exception as fault:  # noqa: BLE001 -- whatever the library makes of an error
            found = {"fault": type(fault).__name__, "words": str(fault)}
        print(json.dumps(found | {"card": card.name, "skills": [one.id for one in card.skills]}))  # noqa: T201 -- what it is for


asyncio.run(main(*sys.argv[1:]))
