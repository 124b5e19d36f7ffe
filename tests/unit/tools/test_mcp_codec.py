"""MCP's messages as bytes, word for word as the specification shows them, and what is made of odd ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convene
from convene.tools.mcp_codec import (
    Ask,
    Fault,
    McpFault,
    Note,
    NotMcp,
    Reply,
    clean,
    encode_answer,
    encode_initialize,
    encode_note,
    encode_request,
    read_discover,
    read_initialize,
    read_messages,
    read_outcome,
    read_page,
    read_progress,
)

CLIENT = {"name": "convene", "version": convene.__version__}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(
    (
        *("jsonrpc", "id", "method", "params", "result", "error", "code", "message", "tools", "name", "inputSchema"),
        *("nextCursor", "content", "type", "text", "isError", "structuredContent", "resultType", "resource", "blob"),
        *("uri", "annotations", "readOnlyHint", "supportedVersions", "protocolVersion", "capabilities", "image"),
        *("resource_link", "progressToken", "progress", "total", "notifications/progress"),
    )
)
LIKE_MCP = st.recursive(
    JSON | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=16,
)


def written(raw: bytes) -> dict[str, Any]:
    return msgspec.json.decode(raw, type=dict[str, Any])


def test_the_first_request_of_the_older_revisions_is_as_the_specification_shows_it() -> None:
    assert written(encode_initialize(1)) == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": CLIENT},
    }


def test_a_request_of_the_revision_without_sessions_says_who_asks_in_which_version() -> None:
    params: dict[str, object] = {"name": "get_weather", "arguments": {}, "_meta": {"progressToken": 3}}
    assert written(encode_request(3, "tools/call", params, "2026-07-28")) == {
        "jsonrpc": "2.0",
        "id": 3,
        "method": "tools/call",
        "params": {
            "name": "get_weather",
            "arguments": {},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": CLIENT,
                "io.modelcontextprotocol/clientCapabilities": {},
                "progressToken": 3,
            },
        },
    }
    assert "_meta" not in params.get("arguments", {})  # type: ignore[operator]
    assert params["_meta"] == {"progressToken": 3}


def test_a_request_of_an_older_revision_has_nothing_added() -> None:
    sent = written(encode_request(2, "tools/list", {"cursor": "next"}, "2025-06-18"))
    assert sent == {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"cursor": "next"}}


def test_a_notification_has_no_id() -> None:
    assert written(encode_note("notifications/initialized")) == {
        "jsonrpc": "2.0",
        "method": "notifications/initialized",
    }
    gone = {"requestId": 7, "reason": "nobody waits"}
    assert written(encode_note("notifications/cancelled", dict(gone)))["params"] == gone


def test_a_ping_is_answered_and_everything_else_a_server_asks_is_not_offered() -> None:
    assert written(encode_answer(Ask("p1", "ping"))) == {"jsonrpc": "2.0", "id": "p1", "result": {}}
    for method in ("sampling/createMessage", "elicitation/create", "roots/list", "anything"):
        answer = written(encode_answer(Ask(4, method)))
        assert (answer["id"], answer["error"]["code"]) == (4, -32601)


def test_each_kind_of_message_is_told_from_the_others() -> None:
    assert read_messages(b'{"jsonrpc":"2.0","id":1,"result":{"a":1}}') == [Reply(1, {"a": 1})]
    assert read_messages(b'{"jsonrpc":"2.0","method":"notifications/x"}') == [Note("notifications/x", {})]
    assert read_messages(b'{"jsonrpc":"2.0","id":"s1","method":"ping","params":{}}') == [Ask("s1", "ping")]
    error = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse\\nerror","data":[1]}}'
    assert read_messages(error) == [Fault(None, -32700, "Parse error", [1])]


def test_several_messages_may_come_as_a_list() -> None:
    both = b'[{"method":"notifications/progress","params":{"progress":1}},{"id":1,"result":{}}]'
    assert read_messages(both) == [Note("notifications/progress", {"progress": 1}), Reply(1, {})]


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"<html>", b"{", b"3", b"null", b"[1]", b'"text"', b"\xff\xfe", b"{}", b'{"id":1}'),
        *(b'{"id":1,"result":[]}', b'{"id":true,"result":{}}', b'{"id":1.5,"result":{}}', b'{"result":{}}'),
        *(b'{"id":[],"method":"ping"}', b"[" * 100_000),
    ],
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(NotMcp):
        read_messages(raw)


def test_an_error_without_a_code_or_words_is_still_an_error() -> None:
    assert read_messages(b'{"id":1,"error":{"code":"x","message":7}}') == [Fault(1, 0, "")]


def test_a_greeting_names_the_revision_and_whether_changes_are_told() -> None:
    result: dict[str, Any] = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {"listChanged": True}}}
    greeting = read_initialize(result)
    assert (greeting.versions, greeting.list_changed) == (("2025-06-18",), True)
    modern = read_discover({"supportedVersions": ["2026-07-28", 7], "capabilities": {"tools": {}}})
    assert (modern.versions, modern.list_changed) == (("2026-07-28",), False)


@pytest.mark.parametrize("version", [None, 7, "1999-01-01", "2026-07-28"])
def test_a_greeting_in_a_revision_that_is_not_spoken_here_is_refused(version: object) -> None:
    with pytest.raises(NotMcp):
        read_initialize({"protocolVersion": version})


def test_tools_are_read_page_by_page_and_what_cannot_be_read_is_counted() -> None:
    page = {
        "tools": [
            {
                "name": "add",
                "description": "Adds",
                "inputSchema": {"type": "object"},
                "annotations": {"readOnlyHint": True, "openWorldHint": False, "idempotentHint": True},
            },
            {"name": "titled", "title": "A title", "inputSchema": {}},
            {"name": "", "inputSchema": {}},
            {"name": "no schema"},
            {"name": "x" * 257, "inputSchema": {}},
            {"name": 3, "inputSchema": {}},
            "nothing",
        ],
        "nextCursor": "page 2",
    }
    tools, cursor, unread = read_page(page)
    assert [tool.name for tool in tools] == ["add", "titled"]
    assert (tools[0].read_only, tools[0].open_world, tools[0].idempotent) == (True, False, True)
    assert (tools[1].description, tools[1].read_only, tools[1].open_world) == ("A title", False, True)
    assert (cursor, unread) == ("page 2", 5)


def test_only_a_true_hint_counts() -> None:
    hints = {"readOnlyHint": "yes", "openWorldHint": 0, "idempotentHint": 1}
    (tool,), _, _ = read_page({"tools": [{"name": "a", "inputSchema": {}, "annotations": hints}]})
    assert (tool.read_only, tool.open_world, tool.idempotent) == (False, True, False)


@pytest.mark.parametrize("cursor", [None, "", 7])
def test_a_list_ends_where_no_further_page_is_named(cursor: object) -> None:
    assert read_page({"tools": [], "nextCursor": cursor}) == ([], None, 0)


def test_content_that_is_no_text_is_named_and_never_passed_on() -> None:
    content = [
        {"type": "text", "text": "first\nline"},
        {"type": "image", "data": "QUJD" * 100, "mimeType": "image/png"},
        {"type": "audio", "data": "QUJD"},
        {"type": "resource_link", "uri": "file:///etc/passwd", "name": "passwd", "mimeType": "text/plain"},
        {"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}},
        {"type": "resource", "resource": {"uri": "file:///b", "blob": "QUJD", "mimeType": "application/pdf"}},
        {"type": "resource", "resource": 3},
        {"type": "hologram"},
        "odd",
    ]
    assert read_outcome({"content": content}).text == (
        "first\nline\n\n"
        "[image, image/png, about 300 bytes, not shown]\n\n"
        "[audio, of an unknown type, about 3 bytes, not shown]\n\n"
        "[link to a resource: passwd, text/plain, file:///etc/passwd]\n\n"
        "[resource file:///a]\ninside\n\n"
        "[resource file:///b, application/pdf, about 3 bytes, not shown]\n\n"
        "[content of an unknown kind, not shown]"
    )


@pytest.mark.req("MCP-03")
def test_a_result_has_content_structured_content_and_whether_it_is_an_error() -> None:
    outcome = read_outcome(
        {"content": [{"type": "text", "text": "3"}], "structuredContent": {"result": 3}, "isError": False}
    )
    assert (outcome.text, outcome.structured, outcome.failed) == ("3", {"result": 3}, False)
    assert read_outcome({"content": [{"type": "text", "text": "no"}], "isError": True}).failed
    assert read_outcome({"structuredContent": [1, None]}).text == "[1,null]"
    assert read_outcome({"content": []}).structured is msgspec.UNSET
    assert read_outcome({"structuredContent": None}).structured is None


@pytest.mark.parametrize(
    "result", [{"resultType": "input_required", "inputRequests": {}}, {"resultType": "task"}, {"content": "text"}]
)
def test_a_result_that_is_not_whole_is_refused(result: dict[str, Any]) -> None:
    with pytest.raises(NotMcp):
        read_outcome(result)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"progressToken": 5, "progress": 1, "message": " half\x00 way\n"}, (5, "half way")),
        ({"progressToken": "t", "progress": 3, "total": 10}, ("t", "3 of 10")),
        ({"progressToken": 5, "progress": 0.5}, (5, "0.5")),
        ({"progressToken": 5, "progress": 3, "message": " "}, (5, "3")),
        ({"progressToken": True, "progress": 1}, None),
        ({"progressToken": [], "progress": 1}, None),
        ({"progress": 1}, None),
        ({"progressToken": 5}, None),
        ({"progressToken": 5, "progress": 10**400}, None),
    ],
)
def test_progress_is_said_in_a_few_words_with_the_call_it_is_about(
    params: dict[str, Any], told: tuple[int | str, str] | None
) -> None:
    assert read_progress(Note("notifications/progress", params)) == told
    assert read_progress(Note("notifications/message", params)) is None


def test_a_strangers_line_is_made_one_line_and_cut() -> None:
    assert clean("a\tb\r\nc\x1b[31m", 100) == "a b c [31m"
    assert clean("word " * 100, 12) == "word word w…"
    assert len(clean("x" * 1_000_000, 50)) == 50


@given(st.binary(max_size=200) | LIKE_MCP.map(msgspec.json.encode))
def test_whatever_comes_is_messages_or_refused(raw: bytes) -> None:
    try:
        messages = read_messages(raw)
    except McpFault:
        return
    for message in messages:
        if isinstance(message, Note) and (told := read_progress(message)):
            assert len(told[1]) <= 200
        if not isinstance(message, Reply):
            continue
        for read in (read_page, read_outcome, read_initialize, read_discover):
            try:
                read(message.result)
            except McpFault:
                continue


@given(st.dictionaries(WORDS, LIKE_MCP, max_size=6))
def test_whatever_a_result_holds_is_read_or_refused(result: dict[str, Any]) -> None:
    for read in (read_page, read_outcome, read_initialize, read_discover):
        try:
            read(result)
        except McpFault:
            continue
