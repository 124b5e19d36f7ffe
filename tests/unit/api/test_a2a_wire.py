"""The server's side of A2A as values: whatever comes is a message, a name or a reason; what goes out fits its form."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.api import a2a_wire as wire
from convene.api.json_rpc import INVALID_PARAMS, Request, RpcFault
from convene.serving.base_answering import AskedTask
from convene.store.base_runs import Run

WORDS = st.text(max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
PART = st.fixed_dictionaries({}, optional={"kind": JSON, "text": JSON, "data": JSON, "url": WORDS, "file": JSON})
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "messageId": JSON,
        "role": st.sampled_from(["ROLE_USER", "user", "agent"]) | JSON,
        "parts": st.lists(PART, max_size=3) | JSON,
        "contextId": JSON,
        "taskId": JSON,
        "metadata": JSON | st.dictionaries(st.sampled_from([wire.MODEL, wire.CALLER, "convene/hops"]), JSON),
    },
)


def asked(method: str, params: dict[str, Any]) -> Request:
    return Request(id=1, method=method, params=params)


def sent(params: dict[str, Any]) -> wire.Sent | RpcFault:
    """Return a message as it is read, or why it is not."""
    try:
        return wire.read_sent(asked("SendMessage", params))
    except RpcFault as fault:
        return fault


def task(status: wire.RunStatus = "done", **fields: Any) -> AskedTask:  # noqa: ANN401 -- fields of a task
    run = Run(
        id="run_1",
        owner="o",
        key_id="k",
        session_id="a2a:c",
        turn_id="t",
        model="m",
        request=b"",
        created_us=1_800_000_000_000_000,
        status=status,
    )
    given: dict[str, Any] = {"run": run, "context": "c", "said": "why?", "answer": "because"} | fields
    return AskedTask(**given)


@given(st.fixed_dictionaries({}, optional={"message": MESSAGE | JSON, "configuration": JSON, "metadata": JSON}))
def test_whatever_is_sent_is_a_message_within_bounds_or_a_reason(params: dict[str, Any]) -> None:
    found = sent(params)
    if isinstance(found, RpcFault):
        assert found.code in {INVALID_PARAMS, wire.CONTENT_UNSUPPORTED}
        assert found.request_id == 1
        return
    assert max(len(found.context), len(found.task), len(found.model), len(found.caller)) <= wire.ID_MAX
    assert (found.context + found.task).isprintable()


@given(JSON.filter(lambda value: isinstance(value, dict)))
def test_whatever_names_a_task_is_a_name_or_a_reason(params: Any) -> None:  # noqa: ANN401 -- JSON
    try:
        found = wire.read_named(asked("GetTask", params))
    except RpcFault as fault:
        assert fault.code == INVALID_PARAMS  # noqa: PT017 -- either is right
    else:
        assert len(found.task) <= wire.ID_MAX


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_the_words_of_a_message_are_those_of_its_parts_in_either_form(words: list[str]) -> None:
    plain = [{"text": one} for one in words]
    tagged = [{"kind": "text", "text": one} for one in words]
    for parts, role in ((plain, "ROLE_USER"), (tagged, "user")):
        found = sent({"message": {"messageId": "m", "role": role, "parts": parts}})
        assert isinstance(found, wire.Sent)
        assert found.text == "\n".join(words)


@pytest.mark.parametrize(
    ("configuration", "waits"),
    [
        (None, True),
        ({}, True),
        ({"returnImmediately": True}, False),
        ({"returnImmediately": False}, True),
        ({"blocking": False}, False),
        ({"blocking": True}, True),
    ],
)
def test_a_sender_waits_unless_it_says_otherwise(configuration: dict[str, bool] | None, waits: bool) -> None:  # noqa: FBT001
    message = {"messageId": "m", "role": "user", "parts": [{"text": "x"}]}
    params = {"message": message} | ({} if configuration is None else {"configuration": configuration})
    found = sent(params)
    assert isinstance(found, wire.Sent)
    assert found.waits is waits


@pytest.mark.req("A2A-05", "A2A-08")
@pytest.mark.parametrize(
    ("status", "new", "old"),
    [
        ("running", "TASK_STATE_WORKING", "working"),
        ("done", "TASK_STATE_COMPLETED", "completed"),
        ("failed", "TASK_STATE_FAILED", "failed"),
        ("cancelled", "TASK_STATE_CANCELED", "canceled"),
    ],
)
def test_a_state_has_a_name_in_each_form_and_only_ends_are_final(status: Any, new: str, old: str) -> None:  # noqa: ANN401
    one = task(status)
    assert wire.status_update(one, "1.0")["statusUpdate"]["status"]["state"] == new  # type: ignore[index]  # JSON
    update: Any = wire.status_update(one, "0.3")
    assert (update["status"]["state"], update["final"], update["kind"]) == (old, status != "running", "status-update")


@given(WORDS, WORDS, WORDS)
def test_what_goes_out_is_json_whatever_is_in_it(said: str, answer: str, message: str) -> None:
    one = task("failed", said=said, answer=answer, message=message)
    for form in ("1.0", "0.3"):
        for value in (
            wire.task_of(one, form),
            wire.status_update(one, form, said),
            wire.artifact_update(one, answer, form, append=True),
        ):
            assert json.loads(msgspec.json.encode(value)) is not None


def test_without_history_and_answer_there_are_none() -> None:
    shown = wire.task_of(task(answer="", said="x"), "1.0", 0)
    assert "history" not in shown
    assert "artifacts" not in shown
    assert "history" in wire.task_of(task(), "1.0", 5)


def test_every_method_has_a_form_and_the_forms_know_the_same_but_for_lists() -> None:
    forms = [{operation for form, operation in wire.METHODS.values() if form == one} for one in ("1.0", "0.3")]
    assert forms[0] == forms[1] | {"list"}


@pytest.mark.parametrize("version", [None, "", "1.0", "1.0.1", "0.3", "0.3.0"])
def test_versions_that_are_spoken(version: str | None) -> None:
    assert wire.operation_of(asked("SendMessage", {}), version) == ("1.0", "send")


def test_a_card_without_keys_asks_for_none() -> None:
    card = wire.card("http://a.test", has_keys=False, has_agents=False)
    assert "securitySchemes" not in card
    assert "security" not in card
