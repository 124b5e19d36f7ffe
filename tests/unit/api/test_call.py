"""One request in the hands of an endpoint: bodies in pieces, packed bodies, caps."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.api.call import DIRECT_BYTES_MAX, Call, ClientLeftError
from convene.api.problems import UnsupportedMedia
from convene.errors import BadRequest, TooLarge
from convene.http.base import DIRECT
from unit.api.asgi_doubles import Connection


@pytest.mark.parametrize("pieces", [(b"abc",), (b"a", b"b", b"c"), (b"", b"abc", b""), (b"abc", b"")])
async def test_a_body_in_pieces_is_whole(pieces: tuple[bytes, ...]) -> None:
    assert await Connection(*pieces).call().body() == b"abc"


@pytest.mark.req("OAI-29")
@pytest.mark.parametrize("pieces", [(b"x" * 11,), (b"x" * 6, b"x" * 5), (b"x" * 11, b""), (b"x",) * 11])
async def test_a_body_over_the_cap_is_refused_with_the_limit(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(TooLarge, match="larger than 10 bytes"):
        await Connection(*pieces).call(10).body()
    assert await Connection(b"x" * 10).call(10).body() == b"x" * 10


async def test_an_endless_body_is_read_no_further_than_the_cap() -> None:
    connection = Connection(*[b"x" * 6] * 1000)
    with pytest.raises(TooLarge):
        await connection.call(10).body()
    assert connection.received == 2


@pytest.mark.parametrize("pieces", [(b"a",), (b"a", b"b")])
async def test_a_client_that_leaves_in_mid_body_is_told_apart(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(ClientLeftError):
        await Connection(*pieces, leaves=True).call().body()


@pytest.mark.req("OAI-28")
@pytest.mark.parametrize("encoding", ["gzip", " GZIP ", "deflate", "identity", ""])
async def test_packed_bodies_are_unpacked(encoding: str) -> None:
    packed = {"gzip": gzip.compress(b"plain"), "deflate": zlib.compress(b"plain")}
    body = packed.get(encoding.strip().lower(), b"plain")
    connection = Connection(body, headers=[(b"content-encoding", encoding.encode())])
    assert await connection.call().body() == b"plain"


@pytest.mark.req("OAI-29")
async def test_a_bomb_is_unpacked_no_further_than_the_cap() -> None:
    bomb = gzip.compress(b"\0" * 1_000_000)
    with pytest.raises(TooLarge):
        await Connection(bomb, headers=[(b"content-encoding", b"gzip")]).call(2000).body()
    exact = gzip.compress(b"x" * 2000)
    assert await Connection(exact, headers=[(b"content-encoding", b"gzip")]).call(2000).body() == b"x" * 2000


@pytest.mark.req("OAI-29")
async def test_a_bomb_costs_no_more_memory_than_the_cap() -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)
    call = Connection(bomb, headers=[(b"content-encoding", b"gzip")]).call(100_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            await call.body()
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body", [b"", b"plain", gzip.compress(b"x")[:-1], gzip.compress(b"x") * 2])
async def test_what_is_not_one_whole_packed_stream_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        await Connection(body, headers=[(b"content-encoding", b"gzip")]).call().body()
    assert caught.value.code == "invalid_encoding"


async def test_other_encodings_are_not_read() -> None:
    with pytest.raises(UnsupportedMedia, match="'br'"):
        await Connection(b"x", headers=[(b"content-encoding", b"br")]).call().body()


async def test_an_answer_has_its_length_its_type_and_the_common_headers() -> None:
    connection = Connection()
    call = connection.call()
    await call.reply(201, b"{}", headers=[(b"x-more", b"1")])
    assert (connection.status, connection.body, call.status) == (201, b"{}", 201)
    assert connection.headers == {
        b"content-type": b"application/json",
        b"content-length": b"2",
        b"x-request-id": b"req_1",
        b"x-more": b"1",
    }


def test_headers_are_found_by_lower_case_name() -> None:
    call = Connection(headers=[(b"a", b"1"), (b"b", b"\xe9")]).call()
    assert (call.header(b"a"), call.header(b"b"), call.header(b"c")) == ("1", "é", None)


class WholeBody:
    """The extension of our own server, holding a whole body or still waiting for it."""

    notes: dict[str, object] | None = None

    def __init__(self, body: bytes | None) -> None:
        self.body = body

    def take_body(self) -> bytes | None:
        body, self.body = self.body, None
        return body

    def respond(self, status: int, headers: object, body: bytes, lines: bytes = b"") -> None:
        raise AssertionError((status, headers, body, lines))


def call_with(body: bytes | None, *headers: tuple[bytes, bytes], cap: int = 10) -> Call:
    """Return a call whose body our own server has, or has not yet."""
    connection = Connection(b"by message", headers=headers)
    connection.scope["extensions"] = {DIRECT: WholeBody(body)}
    return connection.call(cap)


async def test_a_whole_body_is_had_without_a_wait_and_once() -> None:
    call = call_with(b"abc")
    assert call.whole_body() == b"abc"
    assert call.whole_body() is None
    assert call_with(b"").whole_body() == b"", "an empty one is whole too"


async def test_a_body_that_is_still_coming_or_packed_must_be_waited_for() -> None:
    assert call_with(None).whole_body() is None
    assert Connection(b"abc").call().whole_body() is None, "another server has no such extension"
    packed = call_with(gzip.compress(b"abc"), (b"content-encoding", b"gzip"), cap=100)
    assert packed.whole_body() is None
    assert await packed.body() == b"abc"


FIELDS = st.lists(st.tuples(st.sampled_from([b"host", b"accept", b"x-a"]), st.binary(max_size=3)), max_size=6)


@given(FIELDS, st.integers(0, 6), st.lists(st.integers(0, 2000), min_size=1, max_size=4), st.booleans())
def test_a_head_that_comes_again_has_the_fields_that_reading_it_gives(
    fields: list[tuple[bytes, bytes]],
    place: int,
    lengths: list[int],
    sized: bool,  # noqa: FBT001 -- hypothesis gives by place
) -> None:
    notes: dict[str, object] = {}
    for length in lengths:
        headers = list(fields)
        if sized:
            headers.insert(place, (b"content-length", b"%d" % length))
        connection = Connection(headers=headers)
        direct = WholeBody(b"")
        direct.notes = notes
        connection.scope["extensions"] = {DIRECT: direct}
        call = connection.call()
        assert call.headers == dict(headers)
        call.headers.clear()  # what one request does to its own is nothing to the next


class Taker(WholeBody):
    """The extension of our own server, taking an answer."""

    def respond(self, status: int, headers: object, body: bytes, lines: bytes = b"") -> None:
        self.answer = status, headers, body, lines


async def test_an_answer_that_needs_no_wait_is_the_one_that_waiting_gives() -> None:
    answers = []
    for waits in (False, True):
        connection, direct = Connection(), Taker(b"")
        connection.scope["extensions"] = {DIRECT: direct}
        call = connection.call()
        if waits:
            await call.reply(200, b"{}")
        else:
            assert call.reply_whole(b"{}")
        answers.append((call.status, direct.answer))
    assert answers[0] == answers[1]


def test_an_answer_that_is_large_or_goes_through_another_server_must_be_waited_for() -> None:
    assert not Connection().call().reply_whole(b"{}")
    connection = Connection()
    connection.scope["extensions"] = {DIRECT: WholeBody(b"")}
    call = connection.call()
    assert not call.reply_whole(b"x" * (DIRECT_BYTES_MAX + 1))
    assert call.status == 0, "nothing has left yet"


@pytest.mark.req("OAI-29")
async def test_a_whole_body_over_the_cap_is_refused_too() -> None:
    with pytest.raises(TooLarge, match="larger than 10 bytes"):
        call_with(b"x" * 11).whole_body()


async def test_a_body_that_was_diverted_is_read_from_there() -> None:
    call = call_with(b"abc")
    body = await call.raw_body()
    call.divert(body, call.send)
    assert call.whole_body() is None
    assert await call.body() == b"abc"
