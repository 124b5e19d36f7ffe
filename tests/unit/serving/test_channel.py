"""Events from a working task to a reader: in order, none lost, and the writer waits for a slow reader when asked."""

from __future__ import annotations

import asyncio

from convene.events import TextDelta
from convene.serving.channel import AHEAD_MAX, Channel


async def read_all(channel: Channel) -> list[str]:
    """Return the texts that come out."""
    found = []
    while await channel.news():
        event = channel.events.popleft()
        assert isinstance(event, TextDelta)
        found.append(event.text)
    return found


async def test_events_come_out_in_order_and_then_the_end() -> None:
    channel = Channel()
    for text in "abc":
        channel.emit(TextDelta(text))
    channel.close()
    assert await read_all(channel) == ["a", "b", "c"]


async def test_a_reader_that_waits_hears_of_each_event_at_once() -> None:
    channel = Channel()
    reader = asyncio.create_task(read_all(channel))
    for text in "abc":
        await asyncio.sleep(0)
        channel.emit(TextDelta(text))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not channel.events
    channel.close()
    assert await reader == ["a", "b", "c"]


async def test_a_writer_far_ahead_waits_until_the_reader_has_caught_up() -> None:
    channel = Channel()
    for number in range(AHEAD_MAX):
        channel.emit(TextDelta(str(number)))
    assert channel.full
    writer = asyncio.create_task(channel.room())
    await asyncio.sleep(0)
    assert not writer.done()
    assert await channel.news()
    channel.events.popleft()
    assert await channel.news()
    await asyncio.wait_for(writer, 5)
    assert not channel.full


async def test_with_room_nobody_waits() -> None:
    channel = Channel()
    channel.emit(TextDelta("a"))
    await channel.room()


async def test_an_empty_channel_that_is_closed_has_no_news() -> None:
    channel = Channel()
    reader = asyncio.create_task(channel.news())
    await asyncio.sleep(0)
    channel.close()
    assert await reader is False


async def test_all_writers_that_wait_for_room_get_it_and_one_that_gives_up_takes_it_from_nobody() -> None:
    channel = Channel()
    for number in range(AHEAD_MAX):
        channel.emit(TextDelta(str(number)))
    writers = [asyncio.create_task(channel.room()) for _ in range(3)]
    await asyncio.sleep(0)
    writers[1].cancel()
    await asyncio.sleep(0)
    channel.events.popleft()
    assert await channel.news()
    await asyncio.wait_for(asyncio.gather(writers[0], writers[2]), 5)
    assert writers[1].cancelled()


async def test_without_a_reader_nothing_is_kept_and_nobody_waits() -> None:
    channel = Channel()
    for number in range(AHEAD_MAX):
        channel.emit(TextDelta(str(number)))
    writer = asyncio.create_task(channel.room())
    await asyncio.sleep(0)
    channel.abandon()
    await asyncio.wait_for(writer, 5)
    channel.emit(TextDelta("late"))
    assert not channel.events
