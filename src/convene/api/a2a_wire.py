"""The server's side of A2A as values: messages in, tasks and their changes out, in both of its wire forms. Pure.

    1.0   SendMessage ...    {"text": "hi"}                  TASK_STATE_COMPLETED   {"task": ...}, {"statusUpdate": ...}
    0.3   message/send ...   {"kind": "text", "text": ...}   completed              {"kind": "task", ...}

`a2a.py` answers. The client's side is in `agents/`: rooms do not see each other.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

import convene
from convene.agent_hops import KEY, read_hops
from convene.api.json_rpc import INVALID_PARAMS, METHOD_NOT_FOUND, JsonObject, Request, RpcFault, RpcId
from convene.moments import SECOND_US, moment_us
from convene.serving.base_answering import TaskFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.serving.base_answering import AskedTask, TaskPage

_Shape = TypeVar("_Shape")
Wire = Literal["1.0", "0.3"]
Operation = Literal["send", "stream", "get", "list", "cancel", "subscribe", "push", "extended_card"]
RunStatus = Literal["running", "done", "failed", "cancelled"]

TASK_NOT_FOUND: Final = -32001
NOT_CANCELABLE: Final = -32002
PUSH_UNSUPPORTED: Final = -32003
UNSUPPORTED: Final = -32004
CONTENT_UNSUPPORTED: Final = -32005
NO_EXTENDED_CARD: Final = -32007
VERSION_UNSUPPORTED: Final = -32009

VERSION_HEADER: Final = b"a2a-version"
ID_MAX: Final = 200
"""Characters of ids that callers choose."""
PARTS_MAX: Final = 100
DIGITS_MAX: Final = 17
"""Of a time in microseconds, for some thousand years."""
MODEL: Final = "convene/model"
"""In the metadata of a message or request: which model is to answer; of a task: which does."""
CALLER: Final = "convene/agentAddress"
"""In the metadata of a message: address of the agent that asks."""
ARTIFACT: Final = "answer"

VERSIONS: Final = ("1.0", "0.3")
METHODS: Final[Mapping[str, tuple[Wire, Operation]]] = {
    "SendMessage": ("1.0", "send"),
    "SendStreamingMessage": ("1.0", "stream"),
    "GetTask": ("1.0", "get"),
    "ListTasks": ("1.0", "list"),
    "CancelTask": ("1.0", "cancel"),
    "SubscribeToTask": ("1.0", "subscribe"),
    "CreateTaskPushNotificationConfig": ("1.0", "push"),
    "GetTaskPushNotificationConfig": ("1.0", "push"),
    "ListTaskPushNotificationConfigs": ("1.0", "push"),
    "DeleteTaskPushNotificationConfig": ("1.0", "push"),
    "GetExtendedAgentCard": ("1.0", "extended_card"),
    "message/send": ("0.3", "send"),
    "message/stream": ("0.3", "stream"),
    "tasks/get": ("0.3", "get"),
    "tasks/cancel": ("0.3", "cancel"),
    "tasks/resubscribe": ("0.3", "subscribe"),
    "tasks/pushNotificationConfig/set": ("0.3", "push"),
    "tasks/pushNotificationConfig/get": ("0.3", "push"),
    "tasks/pushNotificationConfig/list": ("0.3", "push"),
    "tasks/pushNotificationConfig/delete": ("0.3", "push"),
    "agent/getAuthenticatedExtendedCard": ("0.3", "extended_card"),
}
STATES: Final[Mapping[RunStatus, tuple[str, str]]] = {
    "running": ("TASK_STATE_WORKING", "working"),
    "done": ("TASK_STATE_COMPLETED", "completed"),
    "failed": ("TASK_STATE_FAILED", "failed"),
    "cancelled": ("TASK_STATE_CANCELED", "canceled"),
}


UNKNOWN_STATES: Final = frozenset(
    f"TASK_STATE_{name}" for name in ("SUBMITTED", "INPUT_REQUIRED", "REJECTED", "AUTH_REQUIRED")
)
"""In which no task of this server ever is."""
ANY_STATE: Final = "TASK_STATE_UNSPECIFIED"
PAGE: Final = 50
PAGE_MAX: Final = 100


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it was sent."""

    text: str
    context: str = ""
    task: str = ""
    model: str = ""
    caller: str = ""
    hops: tuple[str, ...] = ()
    waits: bool = True
    """The sender wants the task once it is over, not as it begins."""
    history: int | None = None
    """How many messages of the task's history are wanted; None: all."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request about a task names."""

    task: str
    history: int | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is to show."""

    filter: TaskFilter | None
    """None: there is no such task, for nothing here is ever in the state that is asked for."""
    limit: int
    history: int | None = None
    artifacts: bool = False


class _Part(msgspec.Struct):
    kind: str = ""
    text: str | None = None
    data: object = msgspec.UNSET


class _Message(msgspec.Struct, rename="camel"):
    message_id: str
    parts: list[_Part]
    role: str = ""
    context_id: str | None = None
    task_id: str | None = None
    metadata: dict[str, object] | None = None


class _Configuration(msgspec.Struct, rename="camel"):
    history_length: int | None = None
    return_immediately: bool | None = None
    blocking: bool | None = None


class _Send(msgspec.Struct, rename="camel"):
    message: _Message
    configuration: _Configuration | None = None
    metadata: dict[str, object] | None = None


class _Named(msgspec.Struct, rename="camel"):
    id: str
    history_length: int | None = None


class _List(msgspec.Struct, rename="camel"):
    context_id: str | None = None
    status: str | None = None
    page_size: int | None = None
    page_token: str | None = None
    history_length: int | None = None
    status_timestamp_after: str | None = None
    include_artifacts: bool | None = None


def operation_of(asked: Request, version: str | None) -> tuple[Wire, Operation]:
    """Return what a request wants and in which form. Raises `RpcFault`."""
    check_version(version, *VERSIONS, request_id=asked.id)
    found = METHODS.get(asked.method)
    if found is None:
        raise RpcFault(METHOD_NOT_FOUND, f"There is no method {asked.method[:100]!r} here.", request_id=asked.id)
    return found


def check_version(version: str | None, *spoken: str, request_id: RpcId = None) -> None:
    """Raise `RpcFault` for a version that a caller names and that is not spoken here."""
    if version and not version.startswith(spoken):
        words = f"Version {version[:20]!r} of A2A is not spoken here; spoken is {' and '.join(spoken)}."
        raise RpcFault(VERSION_UNSUPPORTED, words, request_id=request_id)


def read_sent(asked: Request) -> Sent:
    """Return the message of a request. Raises `RpcFault`."""
    given = _convert(asked, _Send)
    message, settings = given.message, given.configuration or _Configuration()
    if not message.message_id or not 0 < len(message.parts) <= PARTS_MAX:
        words = f"A message has a messageId and 1 to {PARTS_MAX} parts."
        raise RpcFault(INVALID_PARAMS, words, request_id=asked.id)
    if message.role not in {"ROLE_USER", "user"}:
        raise RpcFault(INVALID_PARAMS, "'message.role' must be that of a user.", request_id=asked.id)
    about = (given.metadata or {}) | (message.metadata or {})
    model, caller = about.get(MODEL), about.get(CALLER)
    return Sent(
        text=_text_of(asked, message.parts),
        context=_name(asked, message.context_id, "contextId"),
        task=_name(asked, message.task_id, "taskId"),
        model=model[:ID_MAX] if isinstance(model, str) else "",
        caller=caller[:ID_MAX] if isinstance(caller, str) else "",
        hops=read_hops(about.get(KEY)),
        waits=settings.return_immediately is not True and settings.blocking is not False,
        history=settings.history_length,
    )


def read_named(asked: Request) -> Asked:
    """Return which task a request is about. Raises `RpcFault`."""
    given = _convert(asked, _Named)
    return Asked(task=_name(asked, given.id, "id"), history=given.history_length)


def read_list(asked: Request, now_us: int) -> Wanted:
    """Return which tasks a request wants listed. Raises `RpcFault` and `BadRequest`."""
    given = _convert(asked, _List)
    limit = PAGE if given.page_size is None else given.page_size
    if not 1 <= limit <= PAGE_MAX:
        raise RpcFault(INVALID_PARAMS, f"'pageSize' is 1 to {PAGE_MAX}.", request_id=asked.id)
    states: dict[str, RunStatus] = {names[0]: status for status, names in STATES.items()}
    state = given.status or ANY_STATE
    if state not in {ANY_STATE, *UNKNOWN_STATES, *states}:
        raise RpcFault(INVALID_PARAMS, f"'status' is one of {', '.join(sorted(states))}.", request_id=asked.id)
    after = given.status_timestamp_after
    which = TaskFilter(
        limit=limit + 1,
        context=_name(asked, given.context_id, "contextId"),
        status=states.get(state),
        since_us=moment_us(after, now_us, "statusTimestampAfter") if after else 0,
        after=_place_of(asked, given.page_token),
    )
    return Wanted(
        filter=None if state in UNKNOWN_STATES else which,
        limit=limit,
        history=given.history_length,
        artifacts=given.include_artifacts is True,
    )


def page_of(found: TaskPage, wanted: Wanted) -> JsonObject:
    """Return a page of tasks; of a form that 0.3 does not have."""
    shown = found.tasks[: wanted.limit]
    tasks = [task_of(task, "1.0", wanted.history) for task in shown]
    if not wanted.artifacts:
        for task in tasks:
            task.pop("artifacts", None)
    more = len(found.tasks) > wanted.limit
    token = f"{shown[-1].run.changed_us}.{shown[-1].run.id}" if more else ""
    return {"tasks": tasks, "nextPageToken": token, "pageSize": wanted.limit, "totalSize": found.total}


def task_of(task: AskedTask, wire: Wire, history: int | None = None) -> JsonObject:
    """Return a task."""
    found: JsonObject = {} if wire == "1.0" else {"kind": "task"}
    found |= {"id": task.run.id, "contextId": task.context, "status": status_of(task, wire)}
    if task.answer:
        found["artifacts"] = [artifact_of(task.answer, wire)]
    if history != 0 and task.said:
        found["history"] = [_message(task, task.said, "user", wire)]
    return found | {"metadata": {MODEL: task.run.model}}


def status_of(task: AskedTask, wire: Wire, words: str = "") -> JsonObject:
    """Return the state of a task, with `words` of the agent's or why it ended."""
    run = task.run
    found: JsonObject = {"state": STATES[run.status][wire != "1.0"]}
    words = words or task.message
    if words:
        found["message"] = _message(task, words, "agent", wire)
    return found | {"timestamp": _stamp(run.finished_us or run.created_us)}


def status_update(task: AskedTask, wire: Wire, words: str = "") -> JsonObject:
    """Return a change of a task's state, as a stream tells it."""
    about: JsonObject = {"taskId": task.run.id, "contextId": task.context, "status": status_of(task, wire, words)}
    if wire == "1.0":
        return {"statusUpdate": about}
    return {"kind": "status-update", **about, "final": task.is_over}


def artifact_update(task: AskedTask, text: str, wire: Wire, *, append: bool) -> JsonObject:
    """Return a piece of the answer, as a stream tells it."""
    about: JsonObject = {
        "taskId": task.run.id,
        "contextId": task.context,
        "artifact": artifact_of(text, wire),
        "append": append,
    }
    return {"artifactUpdate": about} if wire == "1.0" else {"kind": "artifact-update", **about}


def artifact_of(text: str, wire: Wire) -> JsonObject:
    """Return an answer, or a piece of it."""
    return {"artifactId": ARTIFACT, "name": ARTIFACT, "parts": [_text_part(text, wire)]}


def wrapped(task: JsonObject, wire: Wire) -> JsonObject:
    """Return a task as the answer to a message, or as the first thing of a stream."""
    return {"task": task} if wire == "1.0" else task


def card(base_url: str, *, has_keys: bool, has_agents: bool) -> JsonObject:
    """Return the card of this server, which clients of both forms can read."""
    url = f"{base_url}/a2a"
    found: JsonObject = {
        "name": "Convene",
        "description": "Answers questions with language models that can search the web and ask other agents.",
        "version": convene.__version__,
        "supportedInterfaces": [
            {"url": url, "protocolBinding": binding, "protocolVersion": version}
            for binding, version in (("JSONRPC", "1.0"), ("HTTP+JSON", "1.0"), ("JSONRPC", "0.3"))
        ],
        "url": url,
        "preferredTransport": "JSONRPC",
        "protocolVersion": "0.3.0",
        "documentationUrl": f"{base_url}/docs/convene-as-an-agent",
        "capabilities": {"streaming": True, "pushNotifications": False},
        "defaultInputModes": ["text/plain", "application/json"],
        "defaultOutputModes": ["text/markdown", "text/plain"],
        "skills": _skills(has_agents=has_agents),
    }
    if has_keys:
        bearer = {
            "httpAuthSecurityScheme": {"scheme": "Bearer"},
            "type": "http",
            "scheme": "Bearer",
            "description": "An API key of this server",
        }
        found |= {
            "securitySchemes": {"bearer": bearer},
            "securityRequirements": [{"schemes": {"bearer": {"list": []}}}],
            "security": [{"bearer": []}],
        }
    return found


def _skills(*, has_agents: bool) -> list[JsonObject]:
    skills: list[JsonObject] = [
        {
            "id": "answer",
            "name": "Answer questions",
            "description": "Answers a question, and goes on with the conversation under the same context.",
            "tags": ["chat", "questions", "web"],
            "examples": ["What is a marketplace of agents?"],
        }
    ]
    if has_agents:
        skills.append(
            {
                "id": "agents",
                "name": "Find and ask agents",
                "description": "Finds agents that can do what is asked, or asks the one that the message begins with.",
                "tags": ["agents", "marketplace"],
                "examples": ["@weather What is the weather in Rome?"],
            }
        )
    return skills


def _text_of(asked: Request, parts: list[_Part]) -> str:
    """Return the words of a message; data is shown as JSON. Raises `RpcFault` for what cannot be read here."""
    found: list[str] = []
    for part in parts:
        if part.text is not None:
            found.append(part.text)
        elif part.data is not msgspec.UNSET:
            found.append(msgspec.json.encode(part.data).decode())
        else:
            words = "Parts with text or data are read here, files are not."
            raise RpcFault(CONTENT_UNSUPPORTED, words, request_id=asked.id)
    return "\n".join(found)


def _name(asked: Request, given: str | None, field: str) -> str:
    if given is None or given == "":
        return ""
    if len(given) > ID_MAX or not given.isprintable():
        raise RpcFault(
            INVALID_PARAMS, f"'{field}' has at most {ID_MAX} characters, all printable.", request_id=asked.id
        )
    return given


def _place_of(asked: Request, token: str | None) -> tuple[int, str] | None:
    """Return behind which task a page begins."""
    if not token:
        return None
    at_us, _, task = token.partition(".")
    if len(token) > ID_MAX or not (at_us.isascii() and at_us.isdigit() and len(at_us) <= DIGITS_MAX and task):
        words = "'pageToken' is the nextPageToken of the page before."
        raise RpcFault(INVALID_PARAMS, words, request_id=asked.id)
    return int(at_us), task


def _convert(asked: Request, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.convert(asked.params, shape, strict=False)  # a query has texts alone
    except (msgspec.ValidationError, RecursionError) as fault:
        raise RpcFault(
            INVALID_PARAMS, f"The parameters are not valid: {str(fault)[:200]}", request_id=asked.id
        ) from None


def _message(task: AskedTask, text: str, role: Literal["user", "agent"], wire: Wire) -> JsonObject:
    found: JsonObject = {"kind": "message"} if wire != "1.0" else {}
    found |= {
        "messageId": f"{task.run.id}-{role}",
        "contextId": task.context,
        "taskId": task.run.id,
        "role": f"ROLE_{role.upper()}" if wire == "1.0" else role,
        "parts": [_text_part(text, wire)],
    }
    return found


def _text_part(text: str, wire: Wire) -> JsonObject:
    return {"text": text} if wire == "1.0" else {"kind": "text", "text": text}


def _stamp(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / SECOND_US, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
