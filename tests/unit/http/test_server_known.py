"""Heads known again by their bytes: what comes of them is what the parser would have made of them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.http.base import DIRECT
from convene.http.known import HEAD_BYTES_MAX, LESSONS
from convene.http.server_known import learn
from convene.http.server_settings import ServerSettings
from unit.http.server_doubles import Line, read_body, request, respond

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.http.server_asgi import Receive, Scope, Send

KEY = "Authorization: Bearer k\nContent-Type: application/json"
FIRST = request(headers=KEY, body=b'{"a": 1}')


class Recorder:
    """An application that echoes bodies and keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, Any], bytes]] = []
        self.notes: list[dict[str, object] | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.notes.append(scope["extensions"][DIRECT].notes)
        kept = {name: value for name, value in scope.items() if name != "extensions"}
        body = await read_body(receive)
        self.seen.append((kept, body))
        await respond(send, body)


async def played(pieces: Sequence[bytes], *, knows: bool) -> tuple[bytes, list[tuple[dict[str, Any], bytes]], bool]:
    """Return what a connection sends and its application sees, and whether it was closed."""
    app = Recorder()
    line = Line(app, ServerSettings(header_bytes_max=2000, body_bytes_max=100))
    if not knows:
        line.connection._lessons = 0
    for piece in pieces:
        await line.feed(piece)
    closing = line.transport.is_closing() or line.transport.eof
    await line.end()
    return line.transport.sent, app.seen, closing


def alike(pieces: Sequence[bytes]) -> None:
    """Assert that knowing heads changes nothing."""

    async def both() -> None:
        assert await played(pieces, knows=True) == await played(pieces, knows=False)

    asyncio.run(both())


async def test_a_head_that_comes_again_is_served_with_its_own_body_and_length() -> None:
    app = Recorder()
    line = Line(app)
    for body in (b"one", b"three", b"x" * 1000):
        await line.feed(request(headers=KEY, body=body))
    await line.end()
    assert [body for _, body in app.seen] == [b"one", b"three", b"x" * 1000]
    assert [dict(scope["headers"])[b"content-length"] for scope, _ in app.seen] == [b"3", b"5", b"1000"]
    assert app.notes == [None, {}, {}], "the second and the third were known"


async def test_notes_come_back_with_the_same_head_and_with_no_other() -> None:
    app = Recorder()
    line = Line(app)
    await line.feed(FIRST)
    await line.feed(FIRST)
    assert app.notes[0] is None
    assert app.notes[1] == {}
    assert app.notes[1] is not None
    app.notes[1]["mine"] = 1
    await line.feed(request(headers=KEY, body=b"another body"))
    assert app.notes[2] == {"mine": 1}
    await line.feed(request(headers=KEY.replace("Bearer k", "Bearer j"), body=b'{"a": 1}'))
    assert app.notes[3] is None
    await line.end()


async def test_a_connection_keeps_no_exchange_of_the_past() -> None:
    kept: list[weakref.ref[object]] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        kept.append(weakref.ref(scope["extensions"][DIRECT]))
        await respond(send, b"")

    line = Line(app)
    gc.disable()
    try:
        await line.feed(FIRST)
        await line.feed(FIRST)
        assert [found() for found in kept] == [None, None]
    finally:
        gc.enable()
    await line.end()


async def test_a_client_whose_heads_all_differ_is_soon_left_alone() -> None:
    line = Line(Recorder())
    for number in range(2 * LESSONS):
        await line.feed(request(headers=f"X-Request-Id: {number}", body=b"x"))
    assert line.connection._lessons == 0
    await line.end()


async def test_draining_and_a_body_above_the_cap_go_the_usual_way() -> None:
    app = Recorder()
    line = Line(app, ServerSettings(body_bytes_max=10))
    await line.feed(request(body=b"x" * 10))
    await line.feed(request(body=b"x" * 11))
    assert b"HTTP/1.1 413" in line.transport.sent
    await line.end()
    line = Line(app)
    await line.feed(request(body=b"x"))
    line.edge.draining = True
    await line.feed(request(body=b"x"))
    assert b"HTTP/1.1 503" in line.transport.sent
    await line.end()


@pytest.mark.parametrize(
    "data",
    [
        request("GET", "/"),
        request(body=b"x" * 10)[:-1],
        request(body=b"x") + request(body=b"x"),
        request(headers="Expect: 100-continue", body=b"x"),
        request(headers="Upgrade: h2c\nConnection: Upgrade", body=b"x"),
        request(headers="X-A: " + "x" * HEAD_BYTES_MAX, body=b"x"),
        request(version="1.0", body=b"x"),
    ],
)
def test_what_is_no_whole_plain_request_is_not_learned(data: bytes) -> None:
    async def learned() -> bool:
        line = Line(Recorder())
        await line.feed(data)
        found = line.connection._known
        await line.end()
        return found is not None

    assert not asyncio.run(learned())


def test_a_length_in_the_body_is_no_length_of_the_head() -> None:
    scope: dict[str, Any] = {"http_version": "1.1", "headers": [(b"host", b"h")]}
    assert learn(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n\r\nContent-Length: 0\r\n", scope) is None


@st.composite
def followers(draw: st.DrawFn) -> bytes:
    """A second request: the first one with bytes changed, lost, doubled or put in anywhere, or another length."""
    body = draw(st.binary(max_size=20))
    data = bytearray(request(headers=KEY, body=body) if body else FIRST)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["put", "lose", "change", "cut", "line"]))
        if kind == "put":
            data[place:place] = draw(st.sampled_from([b"\r", b"\n", b" ", b"0", b"9", b"a", b":", b"\r\n", b"\0"]))
        elif kind == "lose":
            del data[place : place + draw(st.integers(1, 3))]
        elif kind == "change" and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place:]
        else:
            at = data.find(b"\r\n", place)
            line = draw(st.sampled_from([b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Connection: close"]))
            data[at : max(at, 0)] = b"\r\n" + line if at >= 0 else b""
    return bytes(data)


@settings(deadline=None)
@given(st.lists(followers(), min_size=1, max_size=3))
def test_whatever_follows_a_known_head_is_answered_as_without_it(data: list[bytes]) -> None:
    alike([FIRST, *data, FIRST])


@settings(deadline=None)
@given(st.lists(followers(), min_size=1, max_size=3), st.integers(10, 200))
def test_whatever_comes_in_pieces_or_together_is_answered_as_without_it(data: list[bytes], size: int) -> None:
    stream = FIRST + b"".join(data) + FIRST
    alike([FIRST, *(stream[start : start + size] for start in range(0, len(stream), size))])


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=99), st.sampled_from(["0", "00", " ", "\t", "  "]))
def test_lengths_written_in_other_ways_are_answered_as_without_it(body: bytes, before: str) -> None:
    odd = f"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length:{before}{len(body)}\r\n\r\n".encode() + body
    alike([odd, odd, FIRST, odd])
