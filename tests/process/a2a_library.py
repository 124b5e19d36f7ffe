"""Reads what our codec has written with the official A2A library, and writes what it is to read; see the test.

    python a2a_library.py < questions.json > answers.json      in an environment of its own

In: `messages`, each with its form and the body that we would send. Out: what the library makes of each, and one event
of every kind as the library writes it on both wires, with what it means. Nothing of Convene is imported.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from a2a.compat.v0_3 import a2a_v0_3_pb2 as old_pb
from a2a.compat.v0_3 import types as old
from a2a.types import (
    Artifact,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from google.protobuf.json_format import MessageToDict, ParseDict

TEXT = "one\u2028two \N{SNOWMAN}"
STATES = {
    "submitted": TaskState.TASK_STATE_SUBMITTED,
    "working": TaskState.TASK_STATE_WORKING,
    "input_required": TaskState.TASK_STATE_INPUT_REQUIRED,
    "auth_required": TaskState.TASK_STATE_AUTH_REQUIRED,
    "completed": TaskState.TASK_STATE_COMPLETED,
    "failed": TaskState.TASK_STATE_FAILED,
    "canceled": TaskState.TASK_STATE_CANCELED,
    "rejected": TaskState.TASK_STATE_REJECTED,
}


def read(form: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what the library makes of a message; it raises for what it does not know."""
    if form == "1.0":
        message = ParseDict(body, SendMessageRequest()).message
        texts = [part.text for part in message.parts]
        assert message.role == Role.ROLE_USER
    elif form == "0.3":
        params = old.MessageSendParams.model_validate(body)
        message = params.message
        texts = [part.root.text for part in message.parts]
        assert message.role == old.Role.user
    else:
        message = ParseDict(body, old_pb.SendMessageRequest()).request
        texts = [part.text for part in message.content]
        assert message.role == old_pb.ROLE_USER
    found = {"text": "".join(texts), "msg_id": message.message_id}
    return found | {"context_id": message.context_id or "", "task_id": message.task_id or ""}


def events() -> list[dict[str, Any]]:
    """Return events as the library writes them on the wire 1.0, with what each means."""
    made: list[dict[str, Any]] = []
    said = Message(message_id="m", role=Role.ROLE_AGENT, context_id="c", parts=[Part(text=TEXT)])
    made.append({"wire": MessageToDict(StreamResponse(message=said)), "kind": "Message", "text": TEXT})
    for name, state in STATES.items():
        status = TaskStatus(state=state, message=said)
        update = TaskStatusUpdateEvent(task_id="t", context_id="c", status=status)
        wire = MessageToDict(StreamResponse(status_update=update))
        made.append({"wire": wire, "kind": "StatusUpdate", "state": name, "text": TEXT})
        task = Task(id="t", context_id="c", status=status, history=[said])
        wire = MessageToDict(StreamResponse(task=task))
        made.append({"wire": wire, "kind": "Task", "state": name, "text": TEXT})
        made.append({"wire": MessageToDict(task), "kind": "Task", "state": name, "text": TEXT})
    raw = Part(raw=b"\x00\xff\xfe", media_type="image/png", filename="n")
    for part, shown in (
        (Part(text=TEXT), {"text": TEXT}),
        (Part(url="https://f.test/1", media_type="image/png", filename="n"), {"uri": "https://f.test/1"}),
        (raw, {"uri": "data:image/png;base64,AP/+"}),
    ):
        update = TaskArtifactUpdateEvent(task_id="t", artifact=Artifact(artifact_id="a", parts=[part]), append=True)
        wire = MessageToDict(StreamResponse(artifact_update=update))
        made.append({"wire": wire, "kind": "ArtifactUpdate", "append": True} | shown)
    return made


def old_events() -> list[dict[str, Any]]:
    """Return events as the library writes them on the wire 0.3."""
    made: list[dict[str, Any]] = []
    said = old.Message(message_id="m", role=old.Role.agent, context_id="c", parts=[old.Part(old.TextPart(text=TEXT))])
    made.append({"wire": _dump(said), "kind": "Message", "text": TEXT})
    for name in STATES:
        status = old.TaskStatus(state=old.TaskState(name.replace("_", "-")), message=said)
        update = old.TaskStatusUpdateEvent(task_id="t", context_id="c", status=status, final=False)
        made.append({"wire": _dump(update), "kind": "StatusUpdate", "state": name, "text": TEXT})
        task = old.Task(id="t", context_id="c", status=status)
        made.append({"wire": _dump(task), "kind": "Task", "state": name, "text": TEXT})
    link = old.FilePart(file=old.FileWithUri(uri="https://f.test/1", mime_type="image/png", name="n"))
    data = old.FilePart(file=old.FileWithBytes(bytes="AP/+", mime_type="image/png", name="n"))
    for part, uri in ((link, "https://f.test/1"), (data, "data:image/png;base64,AP/+")):
        artifact = old.Artifact(artifact_id="a", parts=[old.Part(part)])
        update = old.TaskArtifactUpdateEvent(task_id="t", context_id="c", artifact=artifact, append=True)
        made.append({"wire": _dump(update), "kind": "ArtifactUpdate", "append": True, "uri": uri})
    return made


def _dump(value: Any) -> Any:  # noqa: ANN401 -- models of another environment
    return json.loads(value.model_dump_json(by_alias=True, exclude_none=True))


asked = json.load(sys.stdin)
answers = {
    "read": [read(one["form"], one["body"]) for one in asked["messages"]],
    "events": events() + old_events(),
}
json.dump(answers, sys.stdout)
