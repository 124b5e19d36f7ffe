"""Each fact of an agent is in its column, and nothing of one who is gone."""

from __future__ import annotations

import math

import msgspec
import pytest

from agent_listings import DAY_US, NOW_US, address, agent
from convene.registry.agent_index import AgentIndex
from convene.registry.columns import (
    CALLABLE,
    FAILING,
    GEO,
    HERE,
    NAMES,
    NOBODY,
    REACHABLE,
    README,
    SAID_ACTIVE,
    Columns,
)
from convene.registry.ranking import fitness, quality, score, success
from convene.store.base_market import AgentRow, Tally
from unit.registry.index_of import index_of

PLAIN = HERE | SAID_ACTIVE | CALLABLE | REACHABLE
SILENT = "proto:" + "ab" * 32


def flags_of(row: AgentRow) -> int:
    return index_of([row]).columns.flags[0]


def failing(times: int, *, ago_us: int = 0) -> Tally:
    return Tally(calls=times, failures_in_row=times, failed_us=NOW_US - ago_us)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (agent("a"), PLAIN),
        (agent("a", active=False), PLAIN & ~SAID_ACTIVE),
        (agent("a", expires_us=NOW_US - 1), PLAIN),
        (agent("a", protocols=(SILENT,)), PLAIN & ~CALLABLE),
        (agent("a", protocol="a2a", protocols=()), PLAIN),
        (agent("a", readme="Read me."), PLAIN | README),
        (agent("a", geo=(1.0, 2.0, 3.0)), PLAIN | GEO),
        (agent("a", tally=failing(2)), PLAIN | FAILING),
        (agent("a", tally=failing(3)), (PLAIN | FAILING) & ~REACHABLE),
        (agent("a", tally=failing(3, ago_us=DAY_US)), PLAIN | FAILING),
        (agent("a", tally=failing(1, ago_us=DAY_US)), PLAIN),
    ],
    ids=[
        "there",
        "signed-off",
        "expired",
        "silent",
        "a2a",
        "readme",
        "place",
        "two-failures",
        "three-failures",
        "three-before-it-registered-anew",
        "one-before-it-registered-anew",
    ],
)
def test_a_flag_is_set_for_each_thing_that_is_true_of_an_agent(row: AgentRow, expected: int) -> None:
    assert flags_of(row) == expected


def test_every_number_of_an_agent_is_in_its_row() -> None:
    tally = Tally(calls=9, successes=6, judged=4, useful=3, answered_us=NOW_US - DAY_US, impressions=70)
    index = index_of([agent("first"), agent("second", "It helps.", tally=tally, version=7)])
    facts = index.facts[1]
    assert facts is not None
    found = {name: row[1] for name, row in index.columns.rows.items()}
    assert found == {
        "prior": score(1.0, facts.standing, NOW_US).value,
        "created": NOW_US - 10 * DAY_US + 7,
        "changed": NOW_US - 5 * DAY_US + 7,
        "calls": 9,
        "impressions": 70,
        "fitness": fitness(quality(facts.standing), success(tally)),
        "answered": NOW_US - DAY_US,
        "expires": NOW_US + 2 * DAY_US,
    }


def test_an_agent_that_never_expires_expires_at_no_time() -> None:
    index = index_of([agent("a", expires_us=0)])
    assert index.columns.rows["expires"][0] == math.inf


def test_of_one_who_is_gone_nothing_is_left() -> None:
    index = index_of([agent("a", readme="Read me.", geo=(1.0, 2.0, 3.0)), agent("b")])
    index.apply(msgspec.structs.replace(agent("a"), removed=True), NOW_US)
    assert index.place_of(address("a")) is None
    assert index.columns.flags[0] == 0
    assert {row[0] for row in index.columns.rows.values()} == {NOBODY}
    assert index.columns.flags[1] == PLAIN


def test_a_change_that_leaves_the_text_changes_the_columns_in_their_place() -> None:
    index = AgentIndex()
    index.apply(agent("a"), NOW_US)
    index.apply(agent("a", tally=Tally(calls=5, successes=5, answered_us=NOW_US), version=2), NOW_US)
    assert len(index.columns.flags) == 1
    assert index.columns.rows["calls"][0] == 5
    index.apply(agent("a", "Another text.", version=3), NOW_US)
    assert len(index.columns.flags) == 2
    assert (index.columns.flags[0], index.columns.flags[1]) == (0, PLAIN)


def test_a_new_place_is_nobodys() -> None:
    columns = Columns()
    columns.add()
    columns.add()
    assert columns.flags == bytes(2)
    assert set(columns.rows) == set(NAMES)
    assert all(list(row) == [NOBODY, NOBODY] for row in columns.rows.values())
