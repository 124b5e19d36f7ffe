"""Writes gathered for a turn of the loop: in order, once, never to a closing transport, at once when asked."""

from __future__ import annotations

import asyncio

from convene.http.batch import HELD_BYTES_MAX, WriteBatch
from unit.http.server_doubles import FakeTransport


async def test_what_is_added_in_one_turn_leaves_in_order_in_the_next() -> None:
    batch = WriteBatch(asyncio.get_running_loop())
    one, two = FakeTransport(), FakeTransport()
    batch.add(one, b"a")
    batch.add(two, b"b")
    batch.add(one, b"c")
    assert one.writes == two.writes == []
    await asyncio.sleep(0)
    assert (one.writes, two.writes) == ([b"a", b"c"], [b"b"])
    await asyncio.sleep(0)
    assert (one.writes, two.writes) == ([b"a", b"c"], [b"b"])


async def test_a_write_that_is_added_later_has_a_turn_of_its_own() -> None:
    batch = WriteBatch(asyncio.get_running_loop())
    transport = FakeTransport()
    for data in (b"a", b"b"):
        batch.add(transport, data)
        await asyncio.sleep(0)
        assert transport.writes[-1] == data


async def test_sending_now_leaves_nothing_for_later_and_a_closed_transport_gets_nothing() -> None:
    batch = WriteBatch(asyncio.get_running_loop())
    open_one, closed = FakeTransport(), FakeTransport()
    batch.add(open_one, b"a")
    batch.add(closed, b"b")
    closed.close()
    batch.send()
    assert (open_one.writes, closed.writes) == ([b"a"], [])
    await asyncio.sleep(0)
    assert (open_one.writes, closed.writes) == ([b"a"], [])


async def test_a_writer_that_never_lets_the_loop_turn_is_not_gathered_without_end() -> None:
    batch = WriteBatch(asyncio.get_running_loop())
    transport = FakeTransport()
    piece = b"x" * 1000
    for _ in range(1000):
        batch.add(transport, piece)
    assert len(transport.sent) >= 1000 * 1000 - HELD_BYTES_MAX
    await asyncio.sleep(0)
    assert transport.sent == piece * 1000
