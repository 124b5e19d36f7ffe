"""The index of agents is the same whatever way it has come to what it is."""

from __future__ import annotations

import asyncio
from unittest import mock

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_listings import NOW_US, agent
from convene.registry import agent_index
from convene.registry.agent_index import AgentIndex
from convene.registry.pace import Pace
from convene.store.base_market import AgentRow, Tally, Terms
from fakes import FakeClock
from unit.registry.index_of import index_of

NAMES = ("ada", "bob", "cleo")
STEPS = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(["", "rain", "sun rain"]),
    st.sampled_from(["", "h1", "h2"]),
    st.sampled_from([(), ("x",), ("x", "y")]),
    st.sampled_from([None, (1.0, 2.0, 3.0), (50.0, 8.0, 500.0)]),
    st.sampled_from(["there", "there", "removed", "off"]),
)


def seen(index: AgentIndex) -> dict[str, object]:
    """Return all that can be asked of an index."""
    ids = {facts.id: place for place, facts in enumerate(index.facts) if facts is not None}
    called = {place: name for name, place in ids.items()}
    assert len(called) == len(ids) == len(index) == index.words.live

    def those(places: object) -> set[str]:
        return {called[place] for place in places}  # type: ignore[attr-defined]  # an iterable of places

    return {
        "rows": {name: index.facts[place] for name, place in ids.items()},
        "handles": {
            handle: those([place]) for handle in ("h1", "h2") if (place := index.by_handle(handle)) is not None
        },
        "names": {name: those(index.named(name)) for name in NAMES},
        "columns": {
            name: (index.columns.flags[place], *(row[place] for row in index.columns.rows.values()))
            for name, place in ids.items()
        },
        "groups": {name: those(index.group(name)) for name in ("tag:x", "tag:y", "geo", "kind:custom", "kind:uagent")},
    }


@settings(max_examples=150)
@given(st.lists(STEPS, max_size=12))
def test_an_index_that_has_followed_is_one_made_of_what_is_there_now(
    steps: list[tuple[str, str, str, tuple[str, ...], tuple[float, float, float] | None, str]],
) -> None:
    index = AgentIndex()
    index.names.update(index_of([]).names)
    now: dict[str, AgentRow] = {}
    for version, (name, description, handle, tags, geo, state) in enumerate(steps, 1):
        taken = {row.listing.handle for other, row in now.items() if other != name}
        own = handle if handle not in taken else ""
        row = agent(name, description, handle=own, tags=tags, geo=geo, version=version)
        if state == "removed":
            index.apply(msgspec.structs.replace(row, removed=True), NOW_US)
            now.pop(name, None)
        elif state == "off":
            index.apply(msgspec.structs.replace(row, terms=Terms(enabled=False)), NOW_US)
            now.pop(name, None)
        else:
            index.apply(row, NOW_US)
            now[name] = row
    assert seen(index) == seen(index_of(now.values()))


async def test_the_top_of_a_column_is_in_order_and_leaves_out_who_is_gone() -> None:
    index = index_of(agent(f"a{calls}", tally=Tally(calls=calls), version=calls + 1) for calls in (3, 9, 1, 7))
    index.apply(msgspec.structs.replace(agent("a9"), removed=True), NOW_US)
    pace = Pace(FakeClock().monotonic)
    assert await index.top("calls", 2, pace) == [3, 0]
    assert await index.top("calls", 9, pace, ascending=True) == [2, 0, 3]
    assert index.columns.rows["calls"][3] == 7


@settings(max_examples=40)
@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 12), st.booleans())
def test_the_top_of_a_column_is_what_sorting_all_of_it_gives(calls: list[int], most: int, ascending: bool) -> None:  # noqa: FBT001 -- drawn
    rows = [agent(f"a{number}", tally=Tally(calls=count), version=number + 1) for number, count in enumerate(calls)]
    index = index_of(rows)
    index.apply(msgspec.structs.replace(agent("a3"), removed=True), NOW_US)
    expected = sorted(
        (place for place in range(len(calls)) if place != 3),
        key=lambda place: (calls[place] if ascending else -calls[place], place),
    )
    with mock.patch.object(agent_index, "CHUNK", 4):
        found = asyncio.run(index.top("calls", most, Pace(FakeClock().monotonic), ascending=ascending))
    assert found == expected[:most]


def test_agents_of_one_name_are_found_by_it_as_long_as_they_are_there() -> None:
    rows = [agent("twin", version=number, id=f"agent1q{number:058d}") for number in range(1, 4)]
    index = AgentIndex()
    for count, row in enumerate(rows, 1):
        index.apply(row, NOW_US)
        assert set(index.named("twin")) == set(range(count))
    for gone, row in enumerate(rows):
        index.apply(msgspec.structs.replace(row, removed=True), NOW_US)
        assert set(index.named("twin")) == {0, 1, 2} - set(range(gone + 1))
    index.apply(rows[0], NOW_US)
    assert set(index.named("twin")) == {3}


def test_only_a_text_that_is_new_here_needs_a_vector() -> None:
    index = AgentIndex()
    assert index.apply(agent("a", "one"), NOW_US) == 0
    assert index.apply(agent("a", "one", tally=Tally(calls=1), version=2), NOW_US) is None
    assert index.apply(agent("a", "two", version=3), NOW_US) == 1
    assert index.apply(msgspec.structs.replace(agent("a"), removed=True), NOW_US) is None
