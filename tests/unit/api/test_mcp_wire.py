"""The server's side of MCP as values: revisions, headers, what `_meta` states, and hostile input to all of them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.api import mcp_wire as wire
from convene.api.json_rpc import Request, RpcFault

MODERN_META = {f"{wire.META}protocolVersion": wire.MODERN, f"{wire.META}clientCapabilities": {}}
WORDS = st.text(max_size=30)
JSON = st.none() | st.booleans() | st.integers() | WORDS | st.lists(WORDS, max_size=2) | st.dictionaries(WORDS, WORDS)


def asked(method: str = "tools/list", **params: Any) -> Request:  # noqa: ANN401 -- JSON
    return Request(id=1, method=method, params=params)


def version(request: Request, headers: dict[bytes, bytes]) -> str | RpcFault:
    """Return the revision of a request, or why it has none."""
    try:
        return wire.version_of(request, headers)
    except RpcFault as fault:
        return fault


@given(JSON)
def test_whatever_stands_in_meta_makes_no_request_invalid(given_meta: Any) -> None:  # noqa: ANN401 -- JSON
    found = wire.meta_of({"_meta": given_meta})
    assert isinstance(found, wire.Meta)


@given(token=JSON, hops=JSON, caller=JSON)
def test_what_counts_of_meta_is_bounded(token: Any, hops: Any, caller: Any) -> None:  # noqa: ANN401 -- JSON
    found = wire.meta_of({"_meta": {"progressToken": token, "convene/hops": hops, wire.CALLER: caller}})
    assert found.progress_token is None or found.progress_token == token
    assert not isinstance(found.progress_token, bool)
    assert len(found.caller) <= 200


@given(
    st.dictionaries(
        st.sampled_from([wire.VERSION_HEADER, wire.METHOD_HEADER, wire.NAME_HEADER]),
        st.binary(max_size=30) | st.sampled_from([b"2026-07-28", b"2025-11-25", b"tools/call", b"ask"]),
    ),
    JSON | st.just(MODERN_META),
    JSON,
)
def test_a_request_has_a_revision_or_a_reason(headers: dict[bytes, bytes], meta: Any, name: Any) -> None:  # noqa: ANN401
    found = version(asked("tools/call", _meta=meta, name=name), headers)
    if isinstance(found, RpcFault):
        assert (found.status, found.request_id) == (400, 1)
        return
    assert found in {wire.MODERN, *wire.LEGACY}
    if found == wire.MODERN:
        assert headers[wire.VERSION_HEADER].decode() == wire.MODERN
        assert headers[wire.METHOD_HEADER] == b"tools/call"


@given(st.text(max_size=40).filter(lambda text: "\x00" not in text))
def test_the_name_of_a_tool_is_read_out_of_base64(name: str) -> None:
    try:
        marked = f"=?base64?{base64.b64encode(name.encode()).decode()}?=".encode()
    except UnicodeEncodeError:
        return
    assert wire.decoded(marked) == name


@pytest.mark.parametrize("value", [b"=?base64?!?=", b"=?base64?/w==?=", b"=?base64?YQ?="])
def test_base64_that_is_none_names_nothing(value: bytes) -> None:
    assert wire.decoded(value) is None


def test_without_a_version_a_request_is_of_an_old_revision() -> None:
    assert wire.version_of(asked(), {}) == wire.ASSUMED
    assert wire.version_of(asked("initialize"), {wire.VERSION_HEADER: b"anything"}) == wire.LEGACY[0]


def test_results_of_the_newest_revision_say_that_they_are_whole() -> None:
    assert wire.completed({"a": 1}, "2025-11-25") == {"a": 1}
    assert wire.completed({"a": 1}, wire.MODERN)["resultType"] == "complete"
    assert "ttlMs" in wire.listed((), wire.MODERN)
    assert wire.listed((), "2025-11-25") == {"tools": []}
