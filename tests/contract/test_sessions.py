"""The contract of `convene.store.base_sessions.Sessions`, run unchanged against every implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.errors import StoreFault
from convene.store.base_sessions import Note, SessionRecord

if TYPE_CHECKING:
    from convene.store.base import Store

BIG = 1_000_000


async def touch(store: Store, session_id: str = "s", owner: str = "ann", now_us: int = 10) -> SessionRecord:
    return await store.sessions.touch(owner, session_id, f"conv-{owner}-{session_id}-{now_us}", now_us)


async def names(store: Store, owner: str = "ann") -> list[str]:
    return [note.name for note in await store.sessions.notes(owner, "s")]


async def test_a_session_keeps_its_conversation_for_its_whole_life(store: Store) -> None:
    first = await touch(store, now_us=10)
    again = await touch(store, now_us=20)
    assert first == SessionRecord(
        owner="ann", id="s", conversation_id="conv-ann-s-10", created_us=10, used_us=10, size=0
    )
    assert (again.conversation_id, again.created_us, again.used_us) == ("conv-ann-s-10", 10, 20)
    assert await store.sessions.get("ann", "s") == again


async def test_the_same_id_of_another_owner_is_another_session(store: Store) -> None:
    await touch(store, owner="ann")
    await touch(store, owner="bob")
    await store.sessions.put("ann", "s", {"plan": b"a"}, 11, BIG)
    assert await names(store, "bob") == []
    assert await store.sessions.delete("bob", "s")
    assert await names(store, "ann") == ["plan"]
    assert await store.sessions.get("bob", "s") is None


async def test_notes_are_written_replaced_and_read_oldest_first(store: Store) -> None:
    await touch(store)
    await store.sessions.put("ann", "s", {"b": b"1", "a": b"\x00\xff"}, 11, BIG)
    await store.sessions.put("ann", "s", {"b": b"22"}, 12, BIG)
    assert await store.sessions.notes("ann", "s") == [
        Note(name="a", body=b"\x00\xff", at_us=11),
        Note(name="b", body=b"22", at_us=12),
    ]
    assert await store.sessions.notes("ann", "s", ["b", "gone"]) == [Note(name="b", body=b"22", at_us=12)]
    assert await store.sessions.notes("ann", "s", []) == []
    record = await store.sessions.get("ann", "s")
    assert record is not None
    assert record.size == 4


async def test_the_oldest_notes_go_until_the_rest_has_room(store: Store) -> None:
    await touch(store)
    for at in range(5):
        await store.sessions.put("ann", "s", {f"n{at}": b"x" * 10}, 11 + at, 30)
    assert await names(store) == ["n2", "n3", "n4"]
    record = await store.sessions.get("ann", "s")
    assert record is not None
    assert record.size == 30


async def test_a_note_that_has_no_room_at_all_is_not_kept(store: Store) -> None:
    await touch(store)
    await store.sessions.put("ann", "s", {"big": b"x" * 31}, 11, 30)
    assert await names(store) == []


async def test_nothing_is_written_into_a_session_that_is_gone(store: Store) -> None:
    await store.sessions.put("ann", "s", {"n": b"1"}, 11, BIG)
    await touch(store)
    assert await names(store) == []


async def test_notes_can_be_taken_away(store: Store) -> None:
    await touch(store)
    await store.sessions.put("ann", "s", {"a": b"1", "b": b"2"}, 11, BIG)
    await store.sessions.take("ann", "s", ["a", "gone"])
    await store.sessions.take("ann", "other", ["a"])
    assert await names(store) == ["b"]
    record = await store.sessions.get("ann", "s")
    assert record is not None
    assert record.size == 1


async def test_pages_are_last_used_first_and_follow_each_other(store: Store) -> None:
    for at, session_id in enumerate(("a", "b", "c", "d")):
        await touch(store, session_id, now_us=10 + at)
    await touch(store, "a", now_us=13)
    await touch(store, "z", owner="bob")
    first = await store.sessions.page("ann", 2)
    assert [one.id for one in first] == ["d", "a"]
    rest = await store.sessions.page("ann", 9, (first[-1].used_us, first[-1].id))
    assert [one.id for one in rest] == ["c", "b"]


async def test_a_deleted_session_is_gone_with_its_notes(store: Store) -> None:
    await touch(store)
    await store.sessions.put("ann", "s", {"a": b"1"}, 11, BIG)
    assert await store.sessions.delete("ann", "s")
    assert not await store.sessions.delete("ann", "s")
    assert (await touch(store, now_us=30)).conversation_id == "conv-ann-s-30"
    assert await names(store) == []


async def test_sessions_that_nobody_uses_any_more_are_forgotten(store: Store) -> None:
    await touch(store, "old", now_us=10)
    await touch(store, "s", now_us=20)
    await store.sessions.put("ann", "old", {"a": b"1"}, 11, BIG)
    assert await store.sessions.forget(20) == 1
    assert [one.id for one in await store.sessions.page("ann", 9)] == ["s"]
    assert await store.sessions.notes("ann", "old") == []


async def test_a_closed_store_refuses(store: Store) -> None:
    await store.aclose()
    with pytest.raises(StoreFault):
        await touch(store)
