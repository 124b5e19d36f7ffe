"""Sessions remember what is worth keeping, within bounds, for their owner alone (SESSION-01 to 06, decisions 9)."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.errors import BadRequest, NotFound
from convene.serving import sessions as sessions_module
from convene.serving.sessions import Conversations, SessionTerms, stored_id
from fakes import FakeClock
from run_doubles import OTHER, WHO, RunHouse, an_answer
from sessions_double import SessionsDouble

if TYPE_CHECKING:
    from convene.store.base_sessions import Sessions


class Talk:
    """Sessions over a double of the store."""

    def __init__(self, terms: SessionTerms = SessionTerms()) -> None:  # noqa: B008 -- frozen
        self.store = SessionsDouble()
        self.clock = FakeClock()
        self.house = RunHouse()
        self.sessions = Conversations(self.opened, lambda: self.house.store, self.clock, terms)

    def opened(self) -> Sessions:
        return self.store


@pytest.fixture
def talk() -> Talk:
    return Talk()


async def test_a_session_has_one_conversation_id_for_its_whole_life_and_another_for_each_owner(talk: Talk) -> None:
    first = await talk.sessions.enter("o", "any random string, ü")
    talk.clock.move(100)
    assert await talk.sessions.enter("o", "any random string, ü") == first
    assert await talk.sessions.enter("o2", "any random string, ü") != first
    assert await talk.sessions.enter("o", "another") != first
    assert first.startswith("conv_")


async def test_notes_are_recalled_by_their_owner_alone(talk: Talk) -> None:
    for owner in ("o", "o2"):
        await talk.sessions.enter(owner, "pdf-summarization-session")
        await talk.sessions.remember(owner, "pdf-summarization-session", {"plan": owner.encode(), "result:1": b"{}"})
    assert await talk.sessions.recall("o", "pdf-summarization-session") == {"plan": b"o", "result:1": b"{}"}
    assert await talk.sessions.recall("o2", "pdf-summarization-session", ("plan", "none")) == {"plan": b"o2"}
    assert await talk.sessions.recall("o3", "pdf-summarization-session") == {}
    await talk.sessions.forget_notes("o", "pdf-summarization-session", ("plan", "never there"))
    assert await talk.sessions.recall("o", "pdf-summarization-session") == {"result:1": b"{}"}
    assert len(await talk.sessions.recall("o2", "pdf-summarization-session")) == 2


@given(st.text(min_size=0, max_size=600))
def test_a_session_id_of_any_length_is_kept_within_bounds_and_never_mixed_with_another(text: str) -> None:
    kept = stored_id(text)
    assert len(kept) <= 256
    assert "\0" not in kept
    assert stored_id(kept) == kept, "what a list shows can be asked for"
    if len(text) <= 256 and "\0" not in text:
        assert kept == text
    else:
        assert kept == f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


async def test_long_ids_that_begin_alike_are_different_sessions(talk: Talk) -> None:
    one, other = "x" * 300, "x" * 300 + "y"
    assert await talk.sessions.enter("o", one) != await talk.sessions.enter("o", other)
    assert await talk.sessions.enter("o", one) == await talk.sessions.enter("o", one)


async def test_a_session_keeps_so_many_bytes_the_oldest_notes_go_first() -> None:
    talk = Talk(SessionTerms(bytes_max=100))
    await talk.sessions.enter("o", "s")
    for number in range(5):
        await talk.sessions.remember("o", "s", {f"result:{number}": b"x" * 40})
    assert list(await talk.sessions.recall("o", "s")) == ["result:3", "result:4"]
    await talk.sessions.remember("o", "s", {"result:9": b"x" * 101})
    assert list(await talk.sessions.recall("o", "s")) == ["result:3", "result:4"], "too large by itself: left out"


async def test_a_session_is_forgotten_a_stated_time_after_its_last_use(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "SWEEP_S", 0.0)
    await talk.sessions.enter("o", "used")
    await talk.sessions.enter("o", "left")
    talk.clock.move(SessionTerms().keep_us / 1e6)
    await talk.sessions.enter("o", "used")
    talk.clock.move(1)
    sweeping = asyncio.create_task(talk.sessions.sweep())
    for _ in range(5):
        await asyncio.sleep(0)
    assert [record.id for record in talk.store.records.values()] == ["used"]
    talk.store.broken = True
    for _ in range(5):
        await asyncio.sleep(0)
    sweeping.cancel()
    await asyncio.wait([sweeping])
    assert sweeping.cancelled(), "a store that fails does not end it"


async def test_what_belongs_to_client_calls_needs_no_session_and_mixes_with_none(talk: Talk) -> None:
    await talk.sessions.keep_calls("o", "call_1", b'{"ran":1}')
    assert await talk.sessions.recall_calls("o", "call_1") == b'{"ran":1}'
    assert await talk.sessions.recall_calls("o", "call_1") == b'{"ran":1}', "a client may send its results twice"
    assert await talk.sessions.recall_calls("o2", "call_1") is None
    assert await talk.sessions.recall_calls("o", "call_2") is None
    assert await talk.sessions.page(WHO, 10, "") == ([], False)
    with pytest.raises(NotFound):
        await talk.sessions.show(WHO, "call_1")
    await talk.sessions.enter("o", "call_1")
    assert await talk.sessions.recall("o", "call_1") == {}
    assert await talk.sessions.recall_calls("o", "call_1") == b'{"ran":1}'


async def test_sessions_are_listed_last_used_first_page_by_page(talk: Talk) -> None:
    for number in range(5):
        talk.clock.move(1)
        await talk.sessions.enter("o", f"s{number}" if number else "long" * 100)
    await talk.sessions.enter("o2", "foreign")
    talk.clock.move(1)
    await talk.sessions.enter("o", "s2")
    seen: list[str] = []
    after = ""
    while True:
        page, more = await talk.sessions.page(WHO, 2, after)
        seen += (record.id for record in page)
        if not more:
            break
        after = page[-1].id
    assert seen == ["s2", "s4", "s3", "s1", stored_id("long" * 100)]
    with pytest.raises(BadRequest):
        await talk.sessions.page(WHO, 2, "foreign")


async def test_a_foreign_session_is_not_there_like_a_missing_one(talk: Talk) -> None:
    await talk.sessions.enter("o", "mine")
    told = set()
    for who, session_id in ((OTHER, "mine"), (WHO, "none"), (OTHER, "none")):
        for work in (talk.sessions.show, talk.sessions.forget):
            with pytest.raises(NotFound) as raised:
                await work(who, session_id)
            told.add((raised.value.message, raised.value.code, raised.value.param))
    assert len(told) == 1
    assert ("o", "mine") in talk.store.records


async def test_deleting_a_session_deletes_its_notes_and_its_runs_that_are_over(talk: Talk) -> None:
    long = "s" * 300
    for run_id, session in (("run_over", long), ("run_going", long), ("run_other", "t"), ("run_none", None)):
        journal = await talk.house.begun(run_id, session=session)
        if run_id != "run_going":
            await journal.finish("done", an_answer())
    await talk.sessions.enter("o", long)
    await talk.sessions.remember("o", long, {"plan": b"{}"})
    record, notes = await talk.sessions.show(WHO, long)
    assert (record.size, [note.name for note in notes]) == (2, ["plan"])
    assert await talk.sessions.forget(WHO, long) == stored_id(long)
    assert set(talk.house.store.runs) == {"run_going", "run_other", "run_none"}
    assert await talk.sessions.recall("o", long) == {}
    with pytest.raises(NotFound):
        await talk.sessions.forget(WHO, long)
