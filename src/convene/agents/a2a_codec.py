"""The A2A protocol as values: cards and answers read, requests written, on both wires (A2A-01, -04, -08, -09). Pure.

    read_card ──► Card with its Doors     a door is one way in: URL, binding (JSONRPC or HTTP+JSON), wire 1.0 or 0.3
    write_*   ──► Outgoing                method, URL, headers and body of one request through a door
    open_body ──► dict                    the result inside an answer, or `RefusedError`
    read_event ──► Task | Message | StatusUpdate | ArtifactUpdate

Written as the wire demands, read leniently: both wires' names of a thing are taken wherever it may stand, and what is
not known is left out. What something depends on and is not there raises `NotA2aError`. The official library reads what
is written here and writes what is read here in tests/process/test_a2a_library.py. Not here: HTTP (`a2a_wire.py`), what
of an answer is told (`a2a_answer.py`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, urlencode

import msgspec

from convene.agent_hops import KEY, write_hops

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Binding = Literal["JSONRPC", "HTTP+JSON"]
State = Literal[
    "submitted", "working", "input_required", "auth_required", "completed", "failed", "canceled", "rejected", "unknown"
]
RefusalKind = Literal["unknown_task", "unsupported", "invalid", "other"]

VERSION: Final = "1.0"
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"

_STATES: Final[dict[str, State]] = {
    "submitted": "submitted",
    "working": "working",
    "input_required": "input_required",
    "auth_required": "auth_required",
    "completed": "completed",
    "failed": "failed",
    "canceled": "canceled",
    "cancelled": "canceled",
    "rejected": "rejected",
}
_KINDS_BY_CODE: Final[dict[int, RefusalKind]] = {
    -32001: "unknown_task",
    -32004: "unsupported",
    -32601: "unsupported",
    -32602: "invalid",
}
_KINDS_BY_REASON: Final[dict[str, RefusalKind]] = {
    "TASK_NOT_FOUND": "unknown_task",
    "UNSUPPORTED_OPERATION": "unsupported",
    "METHOD_NOT_FOUND": "unsupported",
    "INVALID_PARAMS": "invalid",
}
_KINDS_BY_STATUS: Final[dict[int, RefusalKind]] = {404: "unsupported", 405: "unsupported", 501: "unsupported"}
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}", re.IGNORECASE)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_VERSION: Final = re.compile(r"(\d{1,3})(?:\.(\d{1,3}))?")
UNKNOWN_TYPE: Final = "application/octet-stream"
ID_CHARS_MAX: Final = 512
NAME_CHARS_MAX: Final = 200
WORDS_CHARS_MAX: Final = 500
SKILLS_MAX: Final = 64
DOORS_MAX: Final = 16
LISTED_MAX: Final = 50
"""Tasks of one page when a lost one is looked for."""


class NotA2aError(Exception):
    """What came is not the protocol. The text says why, in words of ours."""


class RefusedError(Exception):
    """The agent answered with an error of the protocol; the text is its own, bounded."""

    def __init__(self, kind: RefusalKind, words: str) -> None:
        """`kind` is what matters of it to us."""
        super().__init__(words)
        self.kind = kind


class Skill(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an agent can do."""

    name: str
    description: str = ""


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """One way in to an agent."""

    url: str
    binding: Binding
    legacy: bool = False
    """Wire 0.3."""
    tenant: str = ""
    streams: bool = False


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of itself. Of its doors the best comes first."""

    name: str
    description: str = ""
    skills: tuple[Skill, ...] = ()
    doors: tuple[Door, ...] = ()


class TextPart(msgspec.Struct, frozen=True, tag=True):
    """Text."""

    text: str


class FilePart(msgspec.Struct, frozen=True, tag=True):
    """A file: an address, or its bytes as a `data:` address."""

    uri: str
    media_type: str = ""
    name: str = ""


class DataPart(msgspec.Struct, frozen=True, tag=True):
    """A value, as JSON."""

    json: str


Part = TextPart | FilePart | DataPart


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Something said."""

    msg_id: str = ""
    task_id: str = ""
    context_id: str = ""
    is_agents: bool = True
    parts: tuple[Part, ...] = ()


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A result, or a piece of one."""

    id: str
    name: str = ""
    parts: tuple[Part, ...] = ()


class Status(msgspec.Struct, frozen=True):
    """How far a task is."""

    state: State
    message: Message | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it stands."""

    id: str
    context_id: str = ""
    status: Status
    artifacts: tuple[Artifact, ...] = ()
    history: tuple[Message, ...] = ()


class StatusUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A task has come on."""

    task_id: str
    context_id: str = ""
    status: Status


class ArtifactUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A result has come, or more of it."""

    task_id: str
    context_id: str = ""
    artifact: Artifact
    append: bool = False


Event = Task | Message | StatusUpdate | ArtifactUpdate


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `number` is its id in JSON-RPC; empty: it has none."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    number: str = ""
    streams: bool = False


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is called on each wire, and where it is in HTTP+JSON."""

    modern: str
    legacy: str
    verb: str
    path: str


_SEND: Final = _Call(modern="SendMessage", legacy="message/send", verb="POST", path="/message:send")
_STREAM: Final = _Call(modern="SendStreamingMessage", legacy="message/stream", verb="POST", path="/message:stream")
_GET: Final = _Call(modern="GetTask", legacy="tasks/get", verb="GET", path="/tasks/{id}")
_CANCEL: Final = _Call(modern="CancelTask", legacy="tasks/cancel", verb="POST", path="/tasks/{id}:cancel")
_SUBSCRIBE: Final = _Call(
    modern="SubscribeToTask", legacy="tasks/resubscribe", verb="POST", path="/tasks/{id}:subscribe"
)
_LIST: Final = _Call(modern="ListTasks", legacy="tasks/list", verb="GET", path="/tasks")


def write_message(
    door: Door,
    text: str,
    msg_id: str,
    context_id: str,
    task_id: str,
    *,
    streams: bool,
    hops: Sequence[str] = (),
) -> Outgoing:
    """Return a message to an agent; without a stream it is asked to say at once how far it is.

    `hops` are the agents that the question has been through (`agent_hops.py`).
    """
    ids = {"contextId": context_id} if context_id else {}
    ids |= {"taskId": task_id} if task_id else {}
    text = _clean(text)
    about: dict[str, object]
    if not door.legacy:
        message: dict[str, object] = {"messageId": msg_id, "role": "ROLE_USER", "parts": [{"text": text}], **ids}
        about = {} if streams else {"returnImmediately": True}
    elif door.binding == "JSONRPC":
        parts = [{"kind": "text", "text": text}]
        message = {"kind": "message", "messageId": msg_id, "role": "user", "parts": parts, **ids}
        about = {} if streams else {"blocking": False}
    else:
        message = {"messageId": msg_id, "role": "ROLE_USER", "content": [{"text": text}], **ids}
        about = {} if streams else {"blocking": False}
    if hops:
        message["metadata"] = {KEY: write_hops(hops)}
    params: dict[str, object] = {"message": message}
    if about:
        params["configuration"] = about
    return _outgoing(door, _STREAM if streams else _SEND, params, number=msg_id, streams=streams)


def write_get(door: Door, task_id: str) -> Outgoing:
    """Return the question how a task stands."""
    return _outgoing(door, _GET, {"id": task_id}, number=f"get {task_id}")


def write_cancel(door: Door, task_id: str) -> Outgoing:
    """Return that a task need not go on."""
    return _outgoing(door, _CANCEL, {"id": task_id}, number=f"cancel {task_id}")


def write_subscribe(door: Door, task_id: str) -> Outgoing:
    """Return the wish to hear on of a task."""
    return _outgoing(door, _SUBSCRIBE, {"id": task_id}, number=f"subscribe {task_id}", streams=True)


def write_list(door: Door, context_id: str) -> Outgoing:
    """Return the question which tasks we have with an agent, with what they answered; of wire 1.0 only."""
    params: dict[str, object] = {"pageSize": LISTED_MAX, "includeArtifacts": True}
    if context_id:
        params["contextId"] = context_id
    return _outgoing(door, _LIST, params, number="list")


def open_body(outgoing: Outgoing, status: int, body: bytes) -> dict[str, Any]:
    """Return the result in an answer or in an event. Raises `RefusedError` and `NotA2aError`."""
    found = _decode(body, status)
    error = found.get("error")
    if isinstance(error, dict):
        raise _refusal(error, status)
    if not 200 <= status < 300:  # noqa: PLR2004 -- as everybody knows
        raise RefusedError(_KINDS_BY_STATUS.get(status, "other"), _short(found, "message", "detail", "title"))
    if not outgoing.number:
        return found
    if str(found.get("id")) != outgoing.number:
        raise NotA2aError("the answer is one to another request")
    result = found.get("result")
    if not isinstance(result, dict):
        raise NotA2aError("the answer has neither a result nor an error")
    return result


def read_event(result: dict[str, Any]) -> Event:
    """Return what a result or an event says. Raises `NotA2aError`."""
    for names, read in _WRAPPED:
        for name in names:
            inner = result.get(name)
            if isinstance(inner, dict):
                return read(inner)
    kind = result.get("kind")
    if kind == "message":
        return _message(result)
    if kind == "status-update":
        return _status_update(result)
    if kind == "artifact-update":
        return _artifact_update(result)
    return _task(result)


def read_tasks(result: dict[str, Any]) -> list[Task]:
    """Return a page of tasks; those that cannot be read are left out. Raises `NotA2aError`."""
    tasks = result.get("tasks", [])
    if not isinstance(tasks, list):
        raise NotA2aError("the list of tasks is no list")
    found: list[Task] = []
    for one in tasks:
        if isinstance(one, dict):
            try:
                found.append(_task(one))
            except NotA2aError:
                continue
    return found


def read_card(body: bytes) -> Card:
    """Read a card of either wire. Raises `NotA2aError` for one without a name, or without a door that we can use."""
    found = _decode(body, 200)
    name = _text(found, "name").strip()[:NAME_CHARS_MAX]
    if not name:
        raise NotA2aError("the card has no name")
    skills = found.get("skills")
    read = (_skill(one) for one in (skills if isinstance(skills, list) else [])[:SKILLS_MAX])
    capabilities = found.get("capabilities")
    streams = isinstance(capabilities, dict) and capabilities.get("streaming") is True
    doors = sorted(_doors(found, streams=streams), key=lambda door: door.legacy)
    if not doors:
        raise NotA2aError("the card names no address with a binding that is spoken here (JSONRPC, HTTP+JSON)")
    return Card(
        name=name,
        description=_text(found, "description")[:4_000],
        skills=tuple(one for one in read if one is not None),
        doors=tuple(doors[:DOORS_MAX]),
    )


def _outgoing(door: Door, call: _Call, params: dict[str, object], *, number: str, streams: bool = False) -> Outgoing:
    headers = [("accept", EVENTS if streams else JSON)]
    if not door.legacy:
        headers.append(("a2a-version", VERSION))
    if door.binding == "JSONRPC":
        if door.tenant and not door.legacy:
            params = {**params, "tenant": door.tenant}
        method = call.legacy if door.legacy else call.modern
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        headers.append(("content-type", JSON))
        return Outgoing(method="POST", url=door.url, headers=tuple(headers), body=body, number=number, streams=streams)
    base = door.url.rstrip("/") + ("/v1" if door.legacy else f"/{quote(door.tenant, safe='')}" if door.tenant else "")
    url = base + call.path.format(id=quote(str(params.get("id", "")), safe=""))
    if call.verb == "GET":
        asked = {name: _query(value) for name, value in params.items() if name != "id"}
        return Outgoing(
            method="GET", url=f"{url}?{urlencode(asked)}" if asked else url, headers=tuple(headers), streams=streams
        )
    headers.append(("content-type", JSON))
    return Outgoing(method="POST", url=url, headers=tuple(headers), body=msgspec.json.encode(params), streams=streams)


def _query(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _decode(body: bytes, status: int) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if 200 <= status < 300:  # noqa: PLR2004 -- as everybody knows
            raise NotA2aError("the answer is not JSON") from None
        found = {}
    if not isinstance(found, dict):
        raise NotA2aError("the answer is no JSON object")
    return found


def _refusal(error: dict[str, Any], status: int) -> RefusedError:
    code = error.get("code")
    kind = _KINDS_BY_CODE.get(code) if isinstance(code, int) else None
    details = error.get("details")
    for one in details if isinstance(details, list) else []:
        if kind is None and isinstance(one, dict):
            kind = _KINDS_BY_REASON.get(_text(one, "reason"))
    if kind is None:
        kind = _KINDS_BY_STATUS.get(status, "other")
    return RefusedError(kind, _short(error, "message"))


def _task(value: dict[str, Any]) -> Task:
    artifacts, history = value.get("artifacts"), value.get("history")
    return Task(
        id=_id(value, "id"),
        context_id=_maybe_id(value, "contextId"),
        status=_status(value.get("status")),
        artifacts=tuple(_artifact(one) for one in artifacts if isinstance(one, dict))
        if isinstance(artifacts, list)
        else (),
        history=tuple(_message(one) for one in history if isinstance(one, dict)) if isinstance(history, list) else (),
    )


def _message(value: dict[str, Any]) -> Message:
    return Message(
        msg_id=_maybe_id(value, "messageId"),
        task_id=_maybe_id(value, "taskId"),
        context_id=_maybe_id(value, "contextId"),
        is_agents="user" not in _text(value, "role").lower(),
        parts=_parts(value),
    )


def _status_update(value: dict[str, Any]) -> StatusUpdate:
    return StatusUpdate(
        task_id=_id(value, "taskId"), context_id=_maybe_id(value, "contextId"), status=_status(value.get("status"))
    )


def _artifact_update(value: dict[str, Any]) -> ArtifactUpdate:
    artifact = value.get("artifact")
    if not isinstance(artifact, dict):
        raise NotA2aError("an update of an artifact has none")
    return ArtifactUpdate(
        task_id=_id(value, "taskId"),
        context_id=_maybe_id(value, "contextId"),
        artifact=_artifact(artifact),
        append=value.get("append") is True,
    )


_WRAPPED: Final = (
    (("task",), _task),
    (("message", "msg"), _message),
    (("statusUpdate",), _status_update),
    (("artifactUpdate",), _artifact_update),
)


def _status(value: object) -> Status:
    if not isinstance(value, dict):
        raise NotA2aError("a task has no status")
    state = _text(value, "state").upper().removeprefix("TASK_STATE_").replace("-", "_").lower()
    message = value.get("message")
    return Status(_STATES.get(state, "unknown"), _message(message) if isinstance(message, dict) else None)


def _artifact(value: dict[str, Any]) -> Artifact:
    return Artifact(id=_maybe_id(value, "artifactId"), name=_text(value, "name")[:NAME_CHARS_MAX], parts=_parts(value))


def _parts(value: dict[str, Any]) -> tuple[Part, ...]:
    parts = value.get("parts")
    if not isinstance(parts, list):
        parts = value.get("content")
    read = (_part(one) for one in (parts if isinstance(parts, list) else []) if isinstance(one, dict))
    return tuple(one for one in read if one is not None)


def _part(value: dict[str, Any]) -> Part | None:
    text = value.get("text")
    if isinstance(text, str):
        return TextPart(text)
    inner = value.get("file")
    file = inner if isinstance(inner, dict) else value
    media_type = _text(file, "mediaType") or _text(file, "mimeType")
    media_type = media_type if _MEDIA_TYPE.fullmatch(media_type) else ""
    name = (_text(file, "filename") or _text(file, "name"))[:NAME_CHARS_MAX]
    for key in ("url", "uri", "fileWithUri"):
        if isinstance(uri := file.get(key), str) and uri:
            return FilePart(uri, media_type, name)
    for key in ("raw", "bytes", "fileWithBytes"):
        if isinstance(raw := file.get(key), str) and _BASE64.fullmatch(raw):
            plain = raw.replace("-", "+").replace("_", "/")
            return FilePart(f"data:{media_type or UNKNOWN_TYPE};base64,{plain}", media_type or UNKNOWN_TYPE, name)
    if "data" in value:
        return DataPart(msgspec.json.encode(value["data"]).decode())
    return None


def _skill(value: object) -> Skill | None:
    if not isinstance(value, dict):
        return None
    name = (_text(value, "name") or _text(value, "id")).strip()[:NAME_CHARS_MAX]
    return Skill(name=name, description=_text(value, "description").strip()[:WORDS_CHARS_MAX]) if name else None


def _doors(card: dict[str, Any], *, streams: bool) -> Iterable[Door]:
    """Yield the doors of a card, in its order; one of wire 0.3 has them in other places."""
    listed = card.get("supportedInterfaces")
    if isinstance(listed, list) and listed:
        offered = [
            (one, _text(one, "protocolBinding"), _text(one, "protocolVersion")) for one in listed if _is_object(one)
        ]
    else:
        version = _text(card, "protocolVersion") or "0.3"
        more = card.get("additionalInterfaces")
        offered = [(card, _text(card, "preferredTransport") or "JSONRPC", version)]
        offered += [
            (one, _text(one, "transport"), version)
            for one in (more if isinstance(more, list) else [])
            if _is_object(one)
        ]
    seen: set[tuple[str, str]] = set()
    for one, binding, version in offered:
        url = _text(one, "url")
        if url and binding in ("JSONRPC", "HTTP+JSON") and (url, binding) not in seen:
            seen.add((url, binding))
            known: Binding = "JSONRPC" if binding == "JSONRPC" else "HTTP+JSON"
            tenant = _text(one, "tenant")[:NAME_CHARS_MAX]
            yield Door(url=url, binding=known, legacy=_is_legacy(version), tenant=tenant, streams=streams)


def _is_legacy(version: str) -> bool:
    """Whether a version is older than 1.0; one that says nothing is not."""
    found = _VERSION.match(version)
    return found is not None and int(found[1]) == 0


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _id(value: dict[str, Any], key: str) -> str:
    found = _maybe_id(value, key)
    if not found:
        raise NotA2aError(f"there is no {key}")
    return found


def _maybe_id(value: dict[str, Any], key: str) -> str:
    found = _text(value, key)
    if len(found) > ID_CHARS_MAX:
        raise NotA2aError(f"{key} is too long")
    return found


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def _short(value: dict[str, Any], *keys: str) -> str:
    words = next((found for key in keys if (found := _text(value, key).strip())), "")
    return " ".join("".join(char if char.isprintable() else " " for char in words[:WORDS_CHARS_MAX]).split())


def _clean(text: str) -> str:
    """Return a text that can be written: half a character becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
