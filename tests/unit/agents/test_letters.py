"""What is kept of conversations with agents, and for how long."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from convene.agents import letters as post
from convene.agents.letters import Letter, Letters, Sent, uuid_of
from sessions_double import SessionsDouble

if TYPE_CHECKING:
    from fakes import FakeClock

SESSION = uuid_of(b"s", "a")


@pytest.fixture
def sessions() -> SessionsDouble:
    return SessionsDouble()


@pytest.fixture
def letters(sessions: SessionsDouble, clock: FakeClock) -> Letters:
    return Letters(lambda: sessions, clock)


def letter(at: float, body: bytes = b"{}") -> Letter:
    return Letter(schema_digest="model:x", body=body, at=at)


@pytest.mark.req("ENVL-02")
def test_a_session_is_a_uuid_of_version_4_that_follows_from_secret_and_parts_alone() -> None:
    found = uuid_of(b"secret", "session", "owner", "key", "agent")
    assert uuid.UUID(found).version == 4
    assert found == uuid_of(b"secret", "session", "owner", "key", "agent")
    others = {
        uuid_of(b"other", "session", "owner", "key", "agent"),
        uuid_of(b"secret", "session", "owner", "keyagent", ""),
        uuid_of(b"secret", "session", "ownerkey", "", "agent"),
        uuid_of(b"secret", "session", "owner\0", "key", "agent"),
    }
    assert len(others | {found}) == 5
    assert uuid.UUID(uuid_of(b"secret", "\ud800")).version == 4


async def test_a_conversation_is_known_by_its_partner(letters: Letters) -> None:
    assert await letters.partner(SESSION) is None
    await letters.open(SESSION, "agent1qa")
    await letters.open(SESSION, "agent1qa")
    assert await letters.partner(SESSION) == "agent1qa"
    assert await letters.recent("agent1qa") == [SESSION]
    assert await letters.recent("agent1qb") == []


async def test_what_was_asked_long_ago_is_not_recent(letters: Letters, clock: FakeClock) -> None:
    await letters.open(SESSION, "agent1qa")
    clock.move(901)
    assert await letters.recent("agent1qa") == []


@pytest.mark.req("ENVL-06")
async def test_a_letter_is_kept_once_and_told_in_the_order_it_came(letters: Letters) -> None:
    await letters.open(SESSION, "a")
    assert await letters.keep(SESSION, "z", letter(1.0))
    assert await letters.keep(SESSION, "b", letter(2.0))
    assert not await letters.keep(SESSION, "z", letter(3.0))
    assert [key for key, _ in await letters.waiting(SESSION, "c1")] == ["z", "b"]


async def test_what_a_call_has_told_is_told_to_that_call_again_and_to_no_other(letters: Letters) -> None:
    await letters.open(SESSION, "a")
    await letters.keep(SESSION, "x", letter(1.0))
    await letters.take(SESSION, "c1", await letters.waiting(SESSION, "c1"))
    assert [key for key, _ in await letters.waiting(SESSION, "c1")] == ["x"]
    assert await letters.waiting(SESSION, "c2") == []
    assert not await letters.keep(SESSION, "x", letter(2.0))


async def test_the_next_question_empties_what_was_told_and_its_names_stay_known(
    letters: Letters, sessions: SessionsDouble
) -> None:
    await letters.open(SESSION, "a")
    await letters.keep(SESSION, "x", letter(1.0, b"x" * 1000))
    await letters.keep(SESSION, "y", letter(2.0, b"y" * 1000))
    await letters.take(SESSION, "c1", (await letters.waiting(SESSION, "c1"))[:1])
    await letters.note_sent(SESSION, "c2", Sent(msg_id="m", at=3.0))
    bodies = {name: len(note.body) for name, note in sessions.kept[post.OWNER, SESSION].items()}
    assert bodies["in:x"] < 100
    assert bodies["in:y"] > 1000
    assert not await letters.keep(SESSION, "x", letter(4.0))


async def test_a_question_is_known_to_have_gone_out_until_it_is_taken_back(letters: Letters) -> None:
    await letters.open(SESSION, "a")
    assert not await letters.has_spoken(SESSION)
    assert await letters.sent(SESSION, "c1") is None
    await letters.note_sent(SESSION, "c1", Sent(msg_id="m", at=3.0))
    assert await letters.sent(SESSION, "c1") == Sent(msg_id="m", at=3.0)
    assert await letters.has_spoken(SESSION)
    await letters.take_back(SESSION, "c1")
    assert await letters.sent(SESSION, "c1") is None
