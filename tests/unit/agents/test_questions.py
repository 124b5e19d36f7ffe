"""Open questions: each is taken up by one, whoever asks and however often, and none is lost by a crash."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from convene.agents.questions import CLAIM, HELD_S, OPEN, OWNER, Question, Questions
from convene.errors import StoreFault
from fakes import FakeClock
from sessions_double import SessionsDouble

if TYPE_CHECKING:
    from collections.abc import Coroutine

ASKED = Question(sender="agent1qa", session="s", msg_id="m", text="hello", hops=("x",), at=5.0)


def run(work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
    return asyncio.run(work)


class Store:
    """One store, and servers over it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sessions = SessionsDouble()
        self._seed = 0

    def server(self) -> Questions:
        self._seed += 1
        clock = FakeClock(self.clock.now(), seed=self._seed)
        clock.now = self.clock.now  # type: ignore[method-assign]
        return Questions(lambda: self.sessions, clock)


@pytest.mark.req("ENVL-06")
def test_a_question_is_new_once_and_stays_known_after_its_answer() -> None:
    store = Store()
    one, two = store.server(), store.server()
    assert run(one.add(ASKED)) == ASKED
    assert run(one.add(ASKED)) is None
    assert run(two.add(ASKED)) is None
    run(one.close(ASKED))
    assert run(two.add(ASKED)) is None
    assert run(two.left(alone=True)) == []


def test_the_same_message_id_of_another_sender_or_session_is_another_question() -> None:
    questions = Store().server()
    for changed in ({}, {"sender": "agent1qb"}, {"session": "t"}, {"msg_id": "n"}):
        other = msgspec.structs.replace(ASKED, **changed)
        assert run(questions.add(other)) == other


def test_what_a_server_has_left_is_taken_up_by_the_next_with_all_that_was_known() -> None:
    store = Store()
    before = store.server()
    run(before.add(ASKED))
    noted = msgspec.structs.replace(ASKED, run_id="run_1", reply="done")
    run(before.keep(noted))
    after = store.server()
    [found] = run(after.left(alone=True))
    assert found == msgspec.structs.replace(noted, turn=1)
    assert run(after.add(ASKED)) is None
    run(after.close(found))
    assert run(store.server().left(alone=True)) == []


def test_among_several_servers_only_what_nobody_holds_any_more_is_left() -> None:
    store = Store()
    holder, other = store.server(), store.server()
    run(holder.add(ASKED))
    assert run(other.left(alone=False)) == []
    store.clock.move(HELD_S - 1)
    run(holder.hold(ASKED))
    store.clock.move(HELD_S - 1)
    assert run(other.left(alone=False)) == []
    store.clock.move(2)
    assert [one.turn for one in run(other.left(alone=False))] == [1]
    assert run(store.server().left(alone=False)) == []


def test_of_many_servers_that_look_at_once_one_takes_a_question_up() -> None:
    store = Store()
    run(store.server().add(ASKED))
    store.clock.move(HELD_S + 1)

    async def look() -> list[list[Question]]:
        return await asyncio.gather(*(store.server().left(alone=False) for _ in range(8)))

    assert sum(map(len, run(look()))) == 1


def test_a_server_that_ends_between_claiming_and_holding_leaves_the_question_to_the_next() -> None:
    store = Store()
    run(store.server().add(ASKED))
    run(store.sessions.touch(OWNER, f"{CLAIM}:{ASKED.key}:1", "dead", int(store.clock.now() * 1e6)))
    store.clock.move(HELD_S + 1)
    assert [one.turn for one in run(store.server().left(alone=False))] == [2]


def test_alone_a_dead_claim_is_nobodys_at_once() -> None:
    store = Store()
    run(store.server().add(ASKED))
    run(store.sessions.touch(OWNER, f"{CLAIM}:{ASKED.key}:1", "dead", int(store.clock.now() * 1e6)))
    assert [one.turn for one in run(store.server().left(alone=True))] == [2]


def test_a_crash_before_the_first_claim_neither_loses_nor_repeats_the_question() -> None:
    store = Store()
    dying = store.server()
    run(store.sessions.touch(OWNER, OPEN, OPEN, 0))
    run(dying.keep(ASKED))
    assert run(store.server().add(ASKED)) is None
    assert [one.text for one in run(store.server().left(alone=True))] == ["hello"]
    run(store.server().close(ASKED))
    assert run(store.server().add(ASKED)) is None


def test_a_conversation_begins_once() -> None:
    store = Store()
    assert run(store.server().begins("a/s"))
    assert not run(store.server().begins("a/s"))
    assert run(store.server().begins("a/t"))


def test_a_store_that_fails_is_said() -> None:
    store = Store()
    store.sessions.broken = True
    with pytest.raises(StoreFault):
        run(store.server().add(ASKED))
