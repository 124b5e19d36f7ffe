"""Reading the books: whose entries a caller sees, pages, single entries."""

from __future__ import annotations

import msgspec
import pytest

from convene.errors import BadRequest, Forbidden, NotFound
from convene.serving.base import Principal
from convene.serving.base_usage import View
from convene.serving.usage import UsageReader, whose_of
from convene.store.base_ledger import Whose
from ledger_double import ListLedger, entry

ME = Principal(key_id="k1", owner="k1")
MEMBER = Principal(key_id="k2", owner="t1", user_id="u1", team_id="t1")
TEAM = Principal(key_id="k3", owner="t1", team_id="t1")
ADMIN = Principal(key_id="k4", owner="k4", user_id="u9", team_id="t9", scopes=("api", "admin"))

BOOKS = [
    entry(1),
    entry(2, model="large", session_id="s1", completion_tokens=20),
    entry(3, key_id="k2", user_id="u1", team_id="t1"),
    entry(4, key_id="k3", team_id="t1"),
    entry(90_000, agent_address="agent1q", request_id="req_1"),
]


@pytest.fixture
def ledger() -> ListLedger:
    """The books above."""
    return ListLedger(BOOKS)


@pytest.fixture
def reader(ledger: ListLedger) -> UsageReader:
    """A reader of them."""
    return UsageReader(lambda: ledger)


@pytest.mark.parametrize(
    ("caller", "view", "expected"),
    [
        (ME, View(), Whose("key", "k1")),
        (MEMBER, View(scope="user"), Whose("user", "u1")),
        (TEAM, View(scope="team"), Whose("team", "t1")),
        (ADMIN, View(), Whose("key", "k4")),
        (ADMIN, View(scope="all"), Whose("all")),
        (ADMIN, View(id="k1"), Whose("key", "k1")),
        (ADMIN, View(scope="user", id="u1"), Whose("user", "u1")),
        (ADMIN, View(scope="team", id="t1"), Whose("team", "t1")),
        (ADMIN, View(scope="team"), Whose("team", "t9")),
        (ADMIN, View(scope="user"), Whose("user", "u9")),
    ],
)
def test_a_view_shows_what_is_the_callers(caller: Principal, view: View, expected: Whose) -> None:
    assert whose_of(caller, view) == expected


@pytest.mark.parametrize(
    ("caller", "view"),
    [
        (ME, View(scope="user")),
        (ME, View(scope="team")),
        (ME, View(scope="all")),
        (ME, View(id="k2")),
        (MEMBER, View(scope="team")),
        (MEMBER, View(scope="team", id="t1")),
        (MEMBER, View(scope="user", id="u1")),
        (MEMBER, View(scope="all")),
        (TEAM, View(scope="user")),
        (TEAM, View(scope="all")),
        (Principal(key_id="k5", owner="k5", scopes=("administrator",)), View(scope="all")),
    ],
)
def test_what_is_not_the_callers_is_forbidden_whatever_is_asked_of_it(caller: Principal, view: View) -> None:
    with pytest.raises(Forbidden):
        whose_of(caller, view)


async def test_a_sum_over_all_time_and_over_a_range(reader: UsageReader) -> None:
    everything = await reader.total(ME, View())
    assert (everything.requests, everything.prompt_tokens, everything.completion_tokens) == (3, 30, 30)
    day = View(since_us=BOOKS[0].at_us, until_us=BOOKS[4].at_us)
    first_day = await reader.total(ME, day)
    assert (first_day.requests, first_day.total_tokens) == (2, 45)
    only = await reader.total(ME, View(model="large"))
    assert only.requests == 1
    nothing = await reader.total(ME, View(session_id="none"))
    assert (nothing.requests, nothing.total_tokens, nothing.cost_micros) == (0, 0, 0)


async def test_groups_come_in_order_and_in_pages(reader: UsageReader) -> None:
    first, more = await reader.groups(ME, View(), ("day", "model"), 2)
    assert [bucket.group for bucket in first] == [("2026-11-26", "large"), ("2026-11-26", "small")]
    assert more
    rest, more = await reader.groups(ME, View(), ("day", "model"), 2, first[-1].group)
    assert [bucket.group for bucket in rest] == [("2026-11-27", "small")]
    assert not more


async def test_a_key_sees_no_row_of_another(reader: UsageReader) -> None:
    """Goal E2."""
    mine, _ = await reader.entries(ME, View(), 10)
    assert {found.key_id for found in mine} == {"k1"}
    others, _ = await reader.entries(ME, View(key_id="k2"), 10)
    assert others == []
    groups, _ = await reader.groups(ME, View(), ("key",), 10)
    assert [bucket.group for bucket in groups] == [("k1",)]
    with pytest.raises(NotFound):
        await reader.find(ME, View(), "e3")
    with pytest.raises(BadRequest):
        await reader.entries(ME, View(), 10, after="e3")


async def test_an_unknown_id_and_a_foreign_one_answer_alike(reader: UsageReader) -> None:
    with pytest.raises(NotFound) as foreign:
        await reader.find(ME, View(), "e3")
    with pytest.raises(NotFound) as missing:
        await reader.find(ME, View(), "e0")
    assert foreign.value.message == missing.value.message


async def test_entries_come_newest_first_and_page_by_the_last_id(reader: UsageReader) -> None:
    first, more = await reader.entries(ME, View(), 2)
    assert ([found.id for found in first], more) == (["e90000", "e2"], True)
    rest, more = await reader.entries(ME, View(), 2, after="e2")
    assert ([found.id for found in rest], more) == (["e1"], False)


@pytest.mark.parametrize("after", ["nothing", "req_2"])
async def test_a_page_behind_what_is_no_entry_is_refused(reader: UsageReader, after: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await reader.entries(ME, View(), 2, after=after)
    assert caught.value.param == "after"


async def test_of_those_that_share_a_request_id_the_newest_comes_first(reader: UsageReader) -> None:
    assert [found.id for found in await reader.find(ME, View(), "req_1")] == ["e90000", "e1"]
    assert [found.id for found in await reader.find(ME, View(), "e1")] == ["e1"]


async def test_an_id_wins_over_request_ids_that_imitate_it(ledger: ListLedger, reader: UsageReader) -> None:
    ledger.kept.append(msgspec.structs.replace(BOOKS[4], id="e5", request_id="e1"))
    assert [found.id for found in await reader.find(ME, View(), "e1")] == ["e1", "e5"]


async def test_an_admin_sees_everybody(reader: UsageReader) -> None:
    assert (await reader.total(ADMIN, View(scope="all"))).requests == len(BOOKS)
    assert (await reader.find(ADMIN, View(scope="all"), "e3"))[0].key_id == "k2"
    assert (await reader.total(MEMBER, View(scope="user"))).requests == 1
    assert (await reader.total(TEAM, View(scope="team"))).requests == 2
