"""JSON-RPC off the wire and onto it: whatever the bytes are, there is a request, a notification, or a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.api.json_rpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    Notification,
    Request,
    RpcFault,
    failure,
    frame,
    note,
    read_request,
    reply,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error"])


def refused(body: bytes) -> RpcFault | None:
    """Return why a body is refused."""
    try:
        read_request(body)
    except RpcFault as fault:
        return fault
    return None


@given(st.binary(max_size=200))
def test_bytes_are_read_or_refused(body: bytes) -> None:
    assert refused(body) is None or refused(body).status == 400  # type: ignore[union-attr]  # asked before


@given(st.dictionaries(KEYS, JSON | st.just("2.0")))
def test_objects_are_read_or_refused_with_an_error_that_is_json(value: dict[str, Any]) -> None:
    try:
        found = read_request(json.dumps(value).encode())
    except RpcFault as fault:
        told = json.loads(failure(fault))
        assert told["error"]["code"] in {PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS}
        assert told["id"] is None or told["id"] == value["id"]
    else:
        if isinstance(found, Request):
            assert found.id == value["id"]
            assert found.method == value["method"]
        else:
            assert "id" not in value or "method" not in value or value["method"] is None


@given(st.one_of(st.text(max_size=1000), st.integers(-(2**63), 2**63), st.none()))
def test_an_id_is_given_back_as_it_came(request_id: Any) -> None:  # noqa: ANN401 -- whatever may be one
    found = read_request(json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "x"}).encode())
    assert isinstance(found, Request)
    assert json.loads(reply(found.id, {"a": 1})) == {"jsonrpc": "2.0", "id": request_id, "result": {"a": 1}}


@given(JSON)
def test_a_message_is_one_line_of_an_event_whatever_is_in_it(value: Any) -> None:  # noqa: ANN401 -- JSON
    event = frame(note("n", {"v": value, "breaks": "\r\n\u2028\u2029\x85"}))
    assert event.endswith(b"\n\n")
    lines = event[:-2].decode().splitlines()
    assert lines[0] == "event: message"
    assert len(lines) == 2
    assert json.loads(lines[1].removeprefix("data: "))["params"]["v"] == value


@pytest.mark.parametrize("value", [{"result": 1, "id": 3}, {"error": {}, "id": 3}, {"jsonrpc": "2.0", "method": "n"}])
def test_what_is_owed_no_answer_is_no_request(value: dict[str, Any]) -> None:
    assert isinstance(read_request(json.dumps(value).encode()), Notification)


@pytest.mark.parametrize("request_id", [True, {}, [], "x" * 1001])
def test_an_id_that_is_none_is_refused_and_not_repeated(request_id: Any) -> None:  # noqa: ANN401 -- whatever
    with pytest.raises(RpcFault) as caught:
        read_request(json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "x"}).encode())
    assert json.loads(failure(caught.value))["id"] is None


def test_parameters_may_be_left_out_or_null() -> None:
    for body in (b'{"jsonrpc":"2.0","id":1,"method":"x"}', b'{"jsonrpc":"2.0","id":1,"method":"x","params":null}'):
        found = read_request(body)
        assert isinstance(found, Request)
        assert found.params == {}
