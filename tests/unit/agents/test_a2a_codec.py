"""The messages of A2A: what is written on each wire, and whatever comes is read or refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convene.agents import a2a_codec as codec
from convene.agents.a2a_codec import Door

NEW = Door(url="https://a.test/rpc", binding="JSONRPC", streams=True)
OLD = Door(url="https://a.test/rpc", binding="JSONRPC", legacy=True, streams=True)
REST = Door(url="https://a.test/api/", binding="HTTP+JSON", streams=True)
OLD_REST = Door(url="https://a.test/api/", binding="HTTP+JSON", legacy=True, streams=True)
DOORS = (NEW, OLD, REST, OLD_REST)


def body(outgoing: codec.Outgoing) -> Any:  # noqa: ANN401 -- JSON
    return json.loads(outgoing.body)


def sent(door: Door, *, streams: bool = True, context_id: str = "c", task_id: str = "t") -> codec.Outgoing:
    return codec.write_message(door, "hello", "m1", context_id, task_id, streams=streams)


@pytest.mark.req("A2A-08")
def test_a_message_on_the_wire_1_0() -> None:
    outgoing = sent(NEW)
    assert (outgoing.method, outgoing.url, outgoing.number, outgoing.streams) == ("POST", NEW.url, "m1", True)
    assert dict(outgoing.headers) == {
        "accept": "text/event-stream",
        "a2a-version": "1.0",
        "content-type": "application/json",
    }
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hello"}], "contextId": "c", "taskId": "t"}
    assert body(outgoing) == {
        "jsonrpc": "2.0",
        "id": "m1",
        "method": "SendStreamingMessage",
        "params": {"message": message},
    }
    whole = body(sent(NEW, streams=False))
    assert whole["method"] == "SendMessage"
    assert whole["params"]["configuration"] == {"returnImmediately": True}


@pytest.mark.req("A2A-08")
def test_a_message_on_the_wire_0_3() -> None:
    outgoing = sent(OLD, context_id="", task_id="")
    message = {
        "kind": "message",
        "messageId": "m1",
        "role": "user",
        "parts": [{"kind": "text", "text": "hello"}],
    }
    assert body(outgoing)["method"] == "message/stream"
    assert body(outgoing)["params"] == {"message": message}
    assert "a2a-version" not in dict(outgoing.headers)
    assert body(sent(OLD, streams=False))["params"]["configuration"] == {"blocking": False}


@pytest.mark.req("A2A-08")
def test_the_requests_of_http_json() -> None:
    assert (sent(REST).method, sent(REST).url) == ("POST", "https://a.test/api/message:stream")
    assert sent(OLD_REST, streams=False).url == "https://a.test/api/v1/message:send"
    assert body(sent(OLD_REST))["message"]["content"] == [{"text": "hello"}]
    assert codec.write_get(REST, "a/b c?").url == "https://a.test/api/tasks/a%2Fb%20c%3F"
    assert codec.write_get(REST, "t").method == "GET"
    assert codec.write_cancel(OLD_REST, "t").url == "https://a.test/api/v1/tasks/t:cancel"
    assert codec.write_subscribe(REST, "t").streams
    listed = urlsplit(codec.write_list(REST, "c d").url)
    assert parse_qs(listed.query) == {"pageSize": ["50"], "includeArtifacts": ["true"], "contextId": ["c d"]}
    tenant = Door(url="https://a.test/api", binding="HTTP+JSON", tenant="us/1")
    assert sent(tenant).url == "https://a.test/api/us%2F1/message:stream"


@pytest.mark.req("A2A-06")
@pytest.mark.parametrize(
    ("door", "methods"),
    [
        (NEW, ["GetTask", "CancelTask", "SubscribeToTask", "ListTasks"]),
        (OLD, ["tasks/get", "tasks/cancel", "tasks/resubscribe", "tasks/list"]),
    ],
)
def test_the_other_requests_of_json_rpc(door: Door, methods: list[str]) -> None:
    made = [codec.write_get(door, "t"), codec.write_cancel(door, "t"), codec.write_subscribe(door, "t")]
    made.append(codec.write_list(door, ""))
    assert [body(one)["method"] for one in made] == methods
    assert [body(one)["params"].get("id") for one in made] == ["t", "t", "t", None]
    assert len({one.number for one in made}) == 4
    tenant = Door(url="https://a.test", binding="JSONRPC", tenant="us")
    assert body(codec.write_get(tenant, "t"))["params"] == {"id": "t", "tenant": "us"}


@given(st.text())
@settings(deadline=None)
def test_any_text_can_be_written_by_every_door(text: str) -> None:
    for door in DOORS:
        made = body(codec.write_message(door, text + "\ud800", "m", "", "", streams=True))
        message = (made["params"] if door.binding == "JSONRPC" else made)["message"]
        [part] = message.get("parts") or message["content"]
        assert part["text"] == text.encode("utf-8", "replace").decode() + "?"


# Answers.


def reply(result: object, number: object = "m1") -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()


def test_an_answer_belongs_to_its_request() -> None:
    assert codec.open_body(sent(NEW), 200, reply({"a": 1})) == {"a": 1}
    assert codec.open_body(sent(REST), 200, b'{"a": 1}') == {"a": 1}
    for number in ("m2", None, 1):
        with pytest.raises(codec.NotA2aError, match="another request"):
            codec.open_body(sent(NEW), 200, reply({}, number))
    with pytest.raises(codec.NotA2aError, match="neither"):
        codec.open_body(sent(NEW), 200, b'{"id": "m1"}')


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (200, {"code": -32001, "message": "gone"}, "unknown_task"),
        (200, {"code": -32004, "message": "gone"}, "unsupported"),
        (200, {"code": -32601, "message": "gone"}, "unsupported"),
        (200, {"code": -32602, "message": "gone"}, "invalid"),
        (400, {"code": -32000, "message": "gone"}, "other"),
        (404, {"message": "gone", "details": ["x", {"reason": "TASK_NOT_FOUND"}]}, "unknown_task"),
        (400, {"message": "gone", "details": [{"reason": "UNSUPPORTED_OPERATION"}]}, "unsupported"),
        (405, {"message": "gone"}, "unsupported"),
    ],
)
@pytest.mark.parametrize("door", DOORS)
def test_a_refusal_is_told_apart_by_code_reason_or_status(
    door: Door, status: int, error: dict[str, object], kind: str
) -> None:
    with pytest.raises(codec.RefusedError, match="gone") as refused:
        codec.open_body(sent(door), status, json.dumps({"error": error, "id": None}).encode())
    assert refused.value.kind == kind


def test_a_status_without_json_is_a_refusal_too() -> None:
    with pytest.raises(codec.RefusedError):
        codec.open_body(sent(NEW), 500, b"<html>")
    with pytest.raises(codec.RefusedError, match="too many") as refused:
        codec.open_body(sent(REST), 429, b'{"message": "too\\u0000 many"}')
    assert refused.value.kind == "other"


STATES = ("submitted", "working", "input_required", "auth_required", "completed", "failed", "rejected")


@pytest.mark.req("A2A-08")
@pytest.mark.parametrize("state", STATES)
def test_states_have_one_name_here_and_two_on_the_wires(state: str) -> None:
    for wire in (f"TASK_STATE_{state.upper()}", state.replace("_", "-")):
        found = codec.read_event({"id": "t", "status": {"state": wire}})
        assert isinstance(found, codec.Task)
        assert found.status.state == state


def test_a_cancelled_task_has_two_spellings_and_an_unknown_state_is_none() -> None:
    for wire, state in (("TASK_STATE_CANCELLED", "canceled"), ("canceled", "canceled"), ("zzz", "unknown")):
        found = codec.read_event({"id": "t", "status": {"state": wire}})
        assert isinstance(found, codec.Task)
        assert found.status.state == state


@pytest.mark.parametrize(
    ("part", "read"),
    [
        ({"text": "x"}, codec.TextPart("x")),
        ({"kind": "text", "text": "x"}, codec.TextPart("x")),
        (
            {"url": "https://f", "mediaType": "image/png", "filename": "n"},
            codec.FilePart("https://f", "image/png", "n"),
        ),
        (
            {"kind": "file", "file": {"uri": "https://f", "mimeType": "image/png", "name": "n"}},
            codec.FilePart("https://f", "image/png", "n"),
        ),
        ({"file": {"fileWithUri": "https://f"}}, codec.FilePart("https://f")),
        ({"raw": "aGk=", "mediaType": "text/plain"}, codec.FilePart("data:text/plain;base64,aGk=", "text/plain")),
        (
            {"kind": "file", "file": {"bytes": "a-_="}},
            codec.FilePart("data:application/octet-stream;base64,a+/=", "application/octet-stream"),
        ),
        ({"raw": "not base64!"}, None),
        ({"url": "https://f", "mediaType": "image/png\r\nx: y"}, codec.FilePart("https://f")),
        ({"kind": "data", "data": {"a": [1]}}, codec.DataPart('{"a":[1]}')),
        ({"data": None}, codec.DataPart("null")),
        ({"kind": "video"}, None),
    ],
)
@pytest.mark.req("A2A-08")
def test_parts_of_both_wires(part: dict[str, object], read: codec.Part | None) -> None:
    found = codec.read_event({"message": {"messageId": "m", "role": "agent", "parts": [part]}})
    assert isinstance(found, codec.Message)
    assert found.parts == (() if read is None else (read,))


@pytest.mark.req("A2A-04")
def test_the_four_events_in_their_forms() -> None:
    status = {"taskId": "t", "contextId": "c", "status": {"state": "working"}}
    artifact = {"taskId": "t", "artifact": {"artifactId": "a", "parts": [{"text": "x"}]}, "append": True}
    message = {"messageId": "m", "role": "ROLE_AGENT", "content": [{"text": "x"}]}
    task = {"id": "t", "contextId": "c", "status": {"state": "working"}}
    for new, old, kind in (
        ({"statusUpdate": status}, {"kind": "status-update"} | status, codec.StatusUpdate),
        ({"artifactUpdate": artifact}, {"kind": "artifact-update"} | artifact, codec.ArtifactUpdate),
        ({"message": message}, {"kind": "message"} | message, codec.Message),
        ({"task": task}, {"kind": "task"} | task, codec.Task),
        ({"msg": message}, {"kind": "message"} | message, codec.Message),
    ):
        assert isinstance(codec.read_event(new), kind)
        assert codec.read_event(new) == codec.read_event(old)


def test_a_page_of_tasks_is_read_as_far_as_it_can_be() -> None:
    good = {"id": "t", "status": {"state": "working"}, "history": [{"messageId": "m1", "role": "user"}]}
    [task] = codec.read_tasks({"tasks": [good, {"id": "u"}, 5]})
    assert task.history == (codec.Message(msg_id="m1", is_agents=False),)
    with pytest.raises(codec.NotA2aError):
        codec.read_tasks({"tasks": {}})


NAMES = st.sampled_from(
    [
        *("task", "message", "statusUpdate", "artifactUpdate", "kind", "id", "taskId", "contextId", "status", "state"),
        *("artifact", "artifactId", "parts", "text", "url", "raw", "file", "data", "history", "artifacts", "role"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["t", "message", "task", "working", "x" * 600]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_an_event_holds_it_is_read_or_refused(value: dict[str, Any]) -> None:
    try:
        found = codec.read_event(value)
    except codec.NotA2aError:
        return
    if isinstance(found, codec.Task):
        assert 0 < len(found.id) <= codec.ID_CHARS_MAX


@given(st.binary(max_size=60), st.integers(100, 599), st.sampled_from(DOORS))
@settings(max_examples=200, deadline=None)
def test_whatever_bytes_come_they_are_opened_or_refused(raw: bytes, status: int, door: Door) -> None:
    with contextlib.suppress(codec.NotA2aError, codec.RefusedError):
        assert isinstance(codec.open_body(sent(door), status, raw), dict)


@pytest.mark.parametrize("door", DOORS)
def test_the_hops_of_a_question_stand_in_the_metadata_of_its_message(door: Door) -> None:
    found = body(codec.write_message(door, "hello", "m", "", "", streams=True, hops=("agent1qa", "agent1qours")))
    message = found.get("params", found)["message"]
    assert message["metadata"] == {"convene/hops": "agent1qa, agent1qours"}
    assert "metadata" not in json.dumps(body(sent(door)))
