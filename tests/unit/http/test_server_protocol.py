"""Bytes in, requests out: framing, smuggling, caps, pipelining and refusals, over a fake transport."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convene.http.base import DIRECT
from unit.http.server_doubles import (
    Line,
    echo,
    only,
    read_answers,
    read_body,
    request,
    respond,
    small,
    turn,
)

if TYPE_CHECKING:
    from convene.http.server_asgi import Receive, Scope, Send

HEAD = b"POST /p HTTP/1.1\r\nHost: a\r\n"


async def answer_to(*pieces: bytes, **changes: float) -> bytes:
    """Return everything that the echo application's server sends for some input."""
    line = Line(echo, small(**changes))
    sent = await line.feed(*pieces)
    await line.end()
    return sent


# --- requests ----------------------------------------------------------------------------------------------------


async def test_a_request_is_answered_in_one_write_with_date_and_length() -> None:
    line = Line(echo)
    await line.feed(request(body=b"hello"))
    assert len(line.transport.writes) == 1
    assert only(line.transport.sent).body == b"POST /v1/x?:hello"
    assert only(line.transport.sent).headers == {"date": "Tue, 14 Nov 2023 22:13:20 GMT", "content-length": "17"}
    await line.end()


async def test_the_scope_is_what_asgi_asks_for() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(dict(scope))
        await respond(send, b"")

    line = Line(app)
    line.edge.state["store"] = 1
    await line.feed(request("GET", "/a%20b?x=%20", "X-Mixed: Va lue \t\nauthorization: Bearer k"))
    await line.feed(request("GET", "/c"))
    await line.end()
    first, second = seen
    assert set(first.pop("extensions")) == {DIRECT}
    assert first == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"x=%20",
        "root_path": "",
        "headers": [(b"host", b"convene.test"), (b"x-mixed", b"Va lue"), (b"authorization", b"Bearer k")],
        "client": ("10.0.0.1", 4711),
        "server": ("10.0.0.2", 8000),
        "state": {"store": 1},
    }
    assert (second["path"], second["query_string"], second["headers"]) == ("/c", b"", [(b"host", b"convene.test")])
    assert first["state"] is not second["state"]
    assert first["state"] is not line.edge.state


async def test_headers_with_underscores_are_dropped_and_do_not_shadow_hyphens() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(scope)
        await respond(send, b"")

    line = Line(app)
    await line.feed(request("GET", headers="x_session_id: evil\nx-session-id: good\ncontent_length: 5"))
    await line.end()
    assert seen[0]["headers"] == [(b"host", b"convene.test"), (b"x-session-id", b"good")]


MESSAGES = (
    request(body=b"hello")
    + request("GET", "/second?q=1", "x-a: b")
    + HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
    + request("DELETE", "/last")
)
ANSWERS = [b"POST /v1/x?:hello", b"GET /second?q=1:", b"POST /p?:abcde", b"DELETE /last?:"]


@pytest.mark.parametrize("at", range(1, len(MESSAGES)))
async def test_requests_are_the_same_wherever_the_bytes_are_split(at: int) -> None:
    sent = await answer_to(MESSAGES[:at], MESSAGES[at:])
    assert [answer.body for answer in read_answers(sent)] == ANSWERS


async def test_requests_are_the_same_byte_by_byte() -> None:
    line = Line(echo)
    for at in range(len(MESSAGES)):
        line.connection.data_received(MESSAGES[at : at + 1])
        if at % 7 == 0:
            await turn()
    await turn()
    assert [answer.body for answer in read_answers(line.transport.sent)] == ANSWERS
    await line.end()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, len(MESSAGES)), max_size=12), st.lists(st.booleans(), min_size=13, max_size=13))
async def test_requests_are_the_same_for_any_pieces_and_any_pauses(cuts: list[int], pauses: list[bool]) -> None:
    line = Line(echo)
    edges = [0, *sorted(cuts), len(MESSAGES)]
    for (begin, end), pause in zip(itertools.pairwise(edges), pauses, strict=False):
        if begin < end:
            line.connection.data_received(MESSAGES[begin:end])
        if pause:
            await turn()
    await turn()
    assert [answer.body for answer in read_answers(line.transport.sent)] == ANSWERS
    await line.end()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(MESSAGES)))
async def test_any_bytes_end_in_whole_answers_and_never_in_an_exception(noise: bytes, at: int) -> None:
    line = Line(echo)
    sent = await line.feed(MESSAGES[:at] + noise + MESSAGES[at:])
    await line.end()
    for answer in read_answers(sent):
        assert answer.status in {200, 400, 405, 413, 414, 417, 431, 505}


# --- what is not HTTP --------------------------------------------------------------------------------------------


@pytest.mark.req("ERRSHAPE-01", "ERRSHAPE-02", "OSDK-07")
@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"hello\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/admin?\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_what_is_not_a_valid_request_gets_400_in_the_house_shape_and_a_close(raw: bytes) -> None:
    line = Line(echo)
    answer = only(await line.feed(raw))
    assert (answer.status, answer.error["code"], answer.error["type"]) == (400, "bad_request", "invalid_request_error")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "req_1"
    assert answer.headers["connection"] == "close"
    assert line.transport.eof
    await line.end()


SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
        b"Content-Length: 0x5",
        b"Content-Length: 5 5",
        b"Content-Length:",
        b"Content-Length: 99999999999999999999999999",
        b"Content-Length : 5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding:",
        b"Transfer-Encoding : chunked",
    ],
)
async def test_a_body_whose_end_two_parsers_could_see_differently_is_refused(framing: bytes) -> None:
    sent = await answer_to(HEAD + framing + b"\r\n\r\n0\r\n\r\n" + SMUGGLED)
    answer = only(sent)
    assert answer.status == 400
    assert b"/admin" not in sent


@pytest.mark.parametrize(
    "chunks",
    [
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"3;a\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
    ],
)
async def test_a_badly_chunked_body_is_refused_and_the_application_is_told_that_nobody_reads(chunks: bytes) -> None:
    answer = only(await answer_to(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + SMUGGLED))
    assert answer.status == 400


async def test_an_http_1_0_client_cannot_send_chunks() -> None:
    raw = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert only(await answer_to(raw)).status == 400


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
    ],
)
async def test_another_version_of_http_gets_505(raw: bytes) -> None:
    assert only(await answer_to(raw)).status == 505


@pytest.mark.req("ERRSHAPE-02")
@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "PROPFIND", "SOURCE"])
async def test_an_unserved_method_gets_405_with_allow(method: str) -> None:
    answer = only(await answer_to(request(method, "a:1" if method == "CONNECT" else "/")))
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


async def test_an_odd_expectation_gets_417() -> None:
    assert only(await answer_to(request(headers="Expect: 200-ok", body=b"x"))).status == 417


@pytest.mark.req("OSDK-07")
@pytest.mark.parametrize(("given_id", "used"), [("abc-1.2_Z", "abc-1.2_Z"), ("a b", "req_1"), ("x" * 129, "req_1")])
async def test_a_sane_request_id_of_the_client_is_used_in_refusals(given_id: str, used: str) -> None:
    answer = only(await answer_to(request(headers=f"X-Request-Id: {given_id}\nExpect: odd", body=b"x")))
    assert answer.headers["x-request-id"] == used


# --- caps --------------------------------------------------------------------------------------------------------


@pytest.mark.req("OSDK-10")
async def test_a_head_of_just_64_kib_is_served() -> None:
    padding = 64 * 1024 - len("/v1/x") - sum(len(n) + 4 for n in ("hostconvene.test", "x-pad"))
    assert only(await answer_to(request("GET", headers="x-pad: " + "a" * padding))).status == 200
    assert only(await answer_to(request("GET", headers="x-pad: " + "a" * (padding + 1)))).status == 431


async def test_underscored_headers_count_for_the_size_of_the_head() -> None:
    answer = only(await answer_to(request("GET", headers="x_pad: " + "a" * 65_536)))
    assert (answer.status, answer.error["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("pieces", [1, 4, 64])
async def test_a_megabyte_of_header_is_refused_before_it_is_complete(pieces: int) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2**20
    size = len(raw) // pieces + 1
    line = Line(echo)
    sent = await line.feed(*(raw[at : at + size] for at in range(0, len(raw), size)))
    answer = only(sent)
    assert (answer.status, answer.error["code"]) == (431, "headers_too_large")
    assert "65536 bytes" in answer.error["message"]
    await line.end()


@pytest.mark.parametrize("name", ["x-h", "x_h"])
async def test_the_hundredth_header_is_served_and_the_next_refused(name: str) -> None:
    lines = "\n".join(f"{name}: {n}" for n in range(99))
    assert only(await answer_to(request("GET", headers=lines))).status == 200
    answer = only(await answer_to(request("GET", headers=lines + "\nx-last: 1")))
    assert (answer.status, answer.error["code"]) == (431, "headers_too_many")


async def test_a_long_target_gets_414() -> None:
    assert only(await answer_to(request("GET", "/" + "a" * (16 * 1024 - 1)))).status == 200
    raw = request("GET", "/" + "a" * 16 * 1024)
    for pieces in ((raw,), (raw[:9000], raw[9000:])):
        answer = only(await answer_to(*pieces))
        assert (answer.status, answer.error["code"]) == (414, "target_too_long")


@pytest.mark.req("ERRSHAPE-02", "ERR-07")
async def test_a_body_above_the_cap_is_refused_by_its_length_before_it_is_read() -> None:
    answer = only(await answer_to(HEAD + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n", body_bytes_max=10))
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    assert "larger than 10 bytes" in answer.error["message"]
    assert only(await answer_to(request(body=b"x" * 10), body_bytes_max=10)).status == 200


@pytest.mark.req("ERRSHAPE-02", "ERR-07")
async def test_a_chunked_body_above_the_cap_is_refused_on_the_way_and_its_task_cancelled() -> None:
    line = Line(echo, small(body_bytes_max=10))
    await line.feed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n")
    assert line.edge.running
    answer = only(await line.feed(b"5\r\nabcde\r\n"))
    assert answer.status == 413
    assert not line.edge.running
    await line.end()


async def test_chunk_extensions_cannot_carry_more_than_the_body() -> None:
    line = Line(echo)
    await line.feed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;")
    answer = only(await line.feed(*([b"e" * 16_384] * 5)))
    assert (answer.status, answer.error["message"]) == (400, "The chunks carry more overhead than body.")
    await line.end()


async def test_trailers_are_counted() -> None:
    trailers = b"".join(b"t: %d\r\n" % n for n in range(101))
    sent = await answer_to(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + trailers + b"\r\n")
    assert only(sent).status == 431


async def test_after_a_refusal_further_input_is_thrown_away() -> None:
    line = Line(echo)
    sent = await line.feed(b"nonsense\r\n\r\n", request("GET"))
    assert await line.feed(request("GET")) == sent
    only(sent)
    await line.end()


# --- keeping alive, pipelining, closing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "connection", "kept"),
    [
        (request("GET"), None, True),
        (request("GET", headers="Connection: close"), "close", False),
        (request("GET", headers="Connection: keep-alive"), None, True),
        (request("GET", version="1.0"), "close", False),
        (request("GET", version="1.0", headers="Connection: keep-alive"), "keep-alive", True),
        (b"GET / HTTP/1.0\r\n\r\n", "close", False),
    ],
)
async def test_the_connection_stays_open_as_the_client_asked(raw: bytes, connection: str | None, *, kept: bool) -> None:
    line = Line(echo)
    answer = only(await line.feed(raw))
    assert (answer.status, answer.headers.get("connection")) == (200, connection)
    assert line.transport.closed is not kept
    await line.end()


async def test_what_follows_a_closing_request_is_ignored() -> None:
    line = Line(echo)
    only(await line.feed(request("GET", headers="Connection: close") + request("GET", "/second")))
    only(await line.feed(request("GET", "/third")))
    await line.end()


async def test_pipelined_requests_run_one_after_the_other_in_order() -> None:
    running: list[str] = []
    most = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal most
        running.append(scope["path"])
        most = max(most, len(running))
        await turn()
        await echo(scope, receive, send)
        running.remove(scope["path"])

    line = Line(app)
    await line.feed(b"".join(request("POST", f"/{n}", body=b"b%d" % n) for n in range(5)))
    for _ in range(10):
        await turn()
    assert [answer.body for answer in read_answers(line.transport.sent)] == [
        b"POST /%d?:b%d" % (n, n) for n in range(5)
    ]
    assert most <= 2  # the last send wakes the next request before this one's task has returned
    await line.end()


async def test_more_pipelined_requests_than_the_bound_are_left_to_another_connection() -> None:
    line = Line(echo, small(pipelined_max=3))
    sent = await line.feed(b"".join(request("GET", f"/{n}") for n in range(50)))
    answers = read_answers(sent)
    assert [answer.body for answer in answers] == [b"GET /%d?:" % n for n in range(len(answers))]
    assert len(answers) == 4
    assert answers[-1].headers["connection"] == "close"
    assert line.transport.closed
    await line.end()


async def test_bytes_behind_a_running_request_are_held_up_to_a_bound_and_then_not_read() -> None:
    async def hang(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.get_running_loop().create_future()

    line = Line(hang, small(pipelined_bytes=100))
    await line.feed(request("GET"))
    await line.feed(b"GET /next HTTP/1.1\r\nHost: a\r\nX: ")
    assert not line.transport.paused
    await line.feed(b"y" * 100)
    assert line.transport.paused
    await line.end()


async def test_a_held_request_is_served_after_the_running_one() -> None:
    line = Line(echo, small(pipelined_bytes=10))
    line.connection.data_received(request("GET", "/1"))
    line.connection.data_received(request("GET", "/2")[:20])
    assert line.transport.paused
    sent = await line.feed()
    assert not line.transport.paused
    sent = await line.feed(request("GET", "/2")[20:])
    assert [answer.body for answer in read_answers(sent)] == [b"GET /1?:", b"GET /2?:"]
    await line.end()


async def test_a_broken_request_behind_a_running_one_is_refused_in_its_turn() -> None:
    line = Line(echo)
    sent = await line.feed(request("GET", "/1") + request("GET", "/2") + b"nonsense\r\n\r\n")
    assert [answer.status for answer in read_answers(sent)] == [200, 200, 400]
    assert line.transport.eof
    await line.end()


async def test_a_broken_body_behind_a_running_request_takes_its_own_place() -> None:
    line = Line(echo)
    sent = await line.feed(request("GET", "/1") + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert [answer.status for answer in read_answers(sent)] == [200, 400]
    await line.end()


@pytest.mark.parametrize("upgrade", ["Connection: Upgrade\nUpgrade: h2c", "Connection: upgrade\nUpgrade: websocket"])
async def test_an_upgrade_is_ignored_and_its_body_stays_a_body(upgrade: str) -> None:
    line = Line(echo)
    smuggled = b"GET /admin HTTP/1.1\r\n\r\n"
    sent = await line.feed(request(headers=upgrade, body=smuggled))
    assert only(sent).body == b"POST /v1/x?:" + smuggled
    sent = await line.feed(request("GET", "/again"))
    assert [answer.body for answer in read_answers(sent)][1:] == [b"GET /again?:"]
    await line.end()


async def test_an_upgrade_with_a_chunked_body_in_pieces_or_without_body_is_served() -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    line = Line(echo)
    sent = await line.feed(HEAD + upgrade + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab", b"c\r\n0\r\n", b"\r\n")
    assert only(sent).body == b"POST /p?:abc"
    sent = await line.feed(HEAD + upgrade + b"\r\n" + request("GET", "/next"))
    assert [answer.body for answer in read_answers(sent)][1:] == [b"POST /p?:", b"GET /next?:"]
    await line.end()


@pytest.mark.parametrize("behind", [request("GET", "/evil"), HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"])
async def test_what_is_pipelined_behind_the_body_of_an_upgrade_is_not_served(behind: bytes) -> None:
    raw = request(headers="Connection: Upgrade\nUpgrade: h2c", body=b"xyz") + behind
    sent = await answer_to(raw)
    assert [answer.status for answer in read_answers(sent)] == [200, 400]
    assert b"evil" not in sent


# --- leaving -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
async def test_a_client_that_leaves_cancels_the_task_at_once_and_receive_says_so(*, whole: bool) -> None:
    seen: list[object] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        try:
            while True:
                seen.append((await receive())["type"])
        finally:
            seen.append((await receive())["type"])

    line = Line(app)
    await line.feed(request(body=b"abc") if whole else request(body=b"abc")[:-1])
    line.connection.connection_lost(None)
    await turn()
    assert seen[-1] == "http.disconnect"
    assert not line.edge.running
    assert not line.edge.connections


async def test_the_end_of_input_is_the_end_of_the_client() -> None:
    line = Line(echo)
    assert line.connection.eof_received() is False
    await line.end()


async def test_without_cancelling_the_application_learns_it_from_receive() -> None:
    seen: list[object] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        seen.append((await receive())["type"])
        try:
            await respond(send, b"late")
        except OSError as gone:
            seen.append(type(gone).__name__)

    line = Line(app, small(cancel_on_disconnect=False))
    await line.feed(request("GET"))
    await line.end()
    assert seen == ["http.disconnect", "ClientGone"]


async def test_waiting_requests_of_a_lost_connection_never_start() -> None:
    line = Line(echo)
    line.connection.data_received(request("GET", "/1") + request("GET", "/2"))
    await line.end()
    assert not line.transport.writes


async def test_work_after_a_complete_answer_is_not_cancelled_by_a_client_that_leaves() -> None:
    done: list[str] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, b"x")
        for _ in range(5):
            await turn()
        done.append("settled")

    line = Line(app)
    await line.feed(request("GET"))
    line.connection.connection_lost(None)
    for _ in range(10):
        await turn()
    assert done == ["settled"]
