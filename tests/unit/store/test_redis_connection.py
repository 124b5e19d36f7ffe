"""The connection to Redis without a Redis: the order of replies, cancelled callers, late and broken servers.

Time is virtual (`simulation.py`), the transport a list of what was written.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hiredis import ReplyError

from convene.errors import StoreFault
from convene.store.redis_connection import Address, Wire, address_of
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from convene.store.redis_connection import Reply

WAIT_S = 0.05


class Written(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.text = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Keep it."""
        self.text += bytes(data)

    def abort(self) -> None:
        """Remember it."""
        self.aborted = True


def opened() -> tuple[Wire, Written]:
    """Return a wire that was just connected."""
    wire, transport = Wire(WAIT_S), Written()
    wire.connection_made(transport)
    return wire, transport


def play(scene: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Run a scene in virtual time; nothing may be left over."""
    run(scene, 1)


async def fault_of(future: asyncio.Future[Reply]) -> str:
    """Return the detail of the fault that a future ends with."""
    with pytest.raises(StoreFault) as caught:
        await future
    return caught.value.detail


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", Address("h", 6379, "", tls=False, user="", password="", database=0)),
        ("redis://:p%40ss@h:1/3", Address("h", 1, "", tls=False, user="", password="p@ss", database=3)),
        ("rediss://u:p@h:6380/", Address("h", 6380, "", tls=True, user="u", password="p", database=0)),
        ("redis://[::1]:7/1", Address("::1", 7, "", tls=False, user="", password="", database=1)),
        ("redis://h?db=4", Address("h", 6379, "", tls=False, user="", password="", database=4)),
        ("unix:///run/r%20s?db=2", Address("127.0.0.1", 6379, "/run/r s", tls=False, user="", password="", database=2)),
    ],
)
def test_a_url_says_where_and_as_whom(url: str, address: Address) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize("url", ["", "h:6379", "http://:secret@h", "redis://:secret@h:port", "redis://:secret@h/x"])
def test_a_url_of_something_else_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="not the URL of a Redis") as caught:
        address_of(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_replies_come_back_in_the_order_of_the_commands() -> None:
    async def scene(_: World) -> None:
        wire, transport = opened()
        first, second, third = (wire.send(("GET", name)) for name in "abc")
        assert transport.text.count(b"GET") == 3
        wire.data_received(b"+one\r\n:2\r")
        assert not second.done()
        wire.data_received(b"\n-ERR three\r\n")
        assert await first == b"one"
        assert await second == 2
        assert isinstance(await third, ReplyError)
        wire.drop("done")

    play(scene)


def test_a_cancelled_caller_is_passed_over() -> None:
    async def scene(_: World) -> None:
        wire, _transport = opened()
        first, second, third = (wire.send(("GET", name)) for name in "abc")
        second.cancel()
        wire.data_received(b"+one\r\n+two\r\n+three\r\n")
        assert await first == b"one"
        assert await third == b"three"
        assert wire.alive
        wire.drop("done")

    play(scene)


def test_a_late_reply_ends_the_connection_when_the_wait_is_over() -> None:
    async def scene(world: World) -> None:
        wire, transport = opened()
        futures = [wire.send(("GET", name)) for name in "ab"]
        assert [await fault_of(one) for one in futures] == ["redis: no answer in time"] * 2
        assert world.loop.time() == pytest.approx(WAIT_S)
        assert transport.aborted
        assert not wire.alive
        assert await fault_of(wire.send(("GET", "c"))) == "redis: the connection was lost"

    play(scene)


def test_each_command_has_its_own_wait() -> None:
    async def scene(world: World) -> None:
        wire, _transport = opened()
        first = wire.send(("GET", "a"))
        await asyncio.sleep(WAIT_S * 0.8)
        second = wire.send(("GET", "b"))
        wire.data_received(b"+one\r\n")
        assert await first == b"one"
        await asyncio.sleep(WAIT_S * 0.8)
        assert wire.alive
        assert await fault_of(second) == "redis: no answer in time"
        assert world.loop.time() == pytest.approx(WAIT_S * 1.8)

    play(scene)


def test_a_reply_between_the_two_looks_is_in_time_and_the_next_is_looked_at() -> None:
    async def scene(world: World) -> None:
        wire, _transport = opened()
        first = wire.send(("GET", "a"))
        await asyncio.sleep(WAIT_S * 0.02)
        second = wire.send(("GET", "b"))
        await asyncio.sleep(WAIT_S * 0.94)
        wire.data_received(b"+one\r\n")
        assert await first == b"one"
        assert await fault_of(second) == "redis: no answer in time"
        assert world.loop.time() <= WAIT_S * 1.02 + 0.0011

    play(scene)


def test_an_idle_connection_is_left_alone() -> None:
    async def scene(_: World) -> None:
        wire, _transport = opened()
        future = wire.send(("PING",))
        wire.data_received(b"+PONG\r\n")
        assert await future == b"PONG"
        await asyncio.sleep(WAIT_S * 100)
        assert wire.alive
        future = wire.send(("PING",))
        wire.data_received(b"+PONG\r\n")
        assert await future == b"PONG"
        wire.drop("done")

    play(scene)


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+one\r\n+two\r\n+three\r\n"])
def test_what_is_not_a_reply_to_a_command_ends_the_connection(words: bytes) -> None:
    async def scene(_: World) -> None:
        wire, transport = opened()
        futures = [wire.send(("GET", name)) for name in "ab"]
        wire.data_received(words)
        assert not wire.alive
        assert transport.aborted
        await asyncio.gather(*futures, return_exceptions=True)

    play(scene)


def test_a_lost_connection_fails_all_who_wait() -> None:
    async def scene(_: World) -> None:
        wire, _transport = opened()
        futures = [wire.send(("GET", name)) for name in "ab"]
        futures[0].cancel()
        wire.connection_lost(ConnectionResetError("gone"))
        assert await fault_of(futures[1]) == "redis: the connection was lost: gone"
        assert wire.closed.done()
        wire.connection_lost(None)

    play(scene)


def test_a_command_is_written_as_the_protocol_wants_it() -> None:
    async def scene(_: World) -> None:
        wire, transport = opened()
        wire.send(("SET", "käse", b"\x00\r\n", 12)).cancel()
        assert transport.text == b"*4\r\n$3\r\nSET\r\n$5\r\nk\xc3\xa4se\r\n$3\r\n\x00\r\n\r\n$2\r\n12\r\n"
        wire.drop("done")

    play(scene)


def test_nothing_is_sent_before_there_is_a_connection() -> None:
    async def scene(_: World) -> None:
        wire = Wire(WAIT_S)
        assert "lost" in await fault_of(wire.send(("PING",)))
        wire.drop("never connected")
        assert not wire.alive

    play(scene)
