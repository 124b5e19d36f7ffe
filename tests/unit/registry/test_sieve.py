"""Which group a search may keep to, so that few agents are not lost among many."""

from __future__ import annotations

import pytest

from agent_listings import agent
from convene.registry import sieve
from convene.registry.base_search import Circle, Filters, SearchRequest
from convene.registry.documents import CHAT_PROTOCOL
from convene.registry.sieve import smallest
from unit.registry.index_of import index_of

ROWS = [
    agent("one", tags=("x", "y")),
    agent("two", tags=("x",), geo=(48.1, 11.5, 1.0)),
    agent("three", tags=("z",)),
    agent("four"),
]
MUNICH = Circle(48.14, 11.58, 20.0)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), None),
        (Filters(tags=("x",)), {0, 1}),
        (Filters(tags=("y", "z")), {0, 2}),
        (Filters(tags=("x",), has_location=True), {1}),
        (Filters(tags=("nobody has it",)), set()),
        (Filters(protocol_digest=(CHAT_PROTOCOL,)), None),
        (Filters(protocol_digest=(CHAT_PROTOCOL,), tags=("z",)), {2}),
    ],
)
def test_the_smallest_group_that_all_hits_are_in_is_kept_to_if_it_is_small(
    filters: Filters, expected: set[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sieve, "SMALL", 3)
    assert smallest(index_of(ROWS), SearchRequest(filters=filters)) == expected


def test_a_place_is_a_group_too() -> None:
    assert smallest(index_of(ROWS), SearchRequest(near=MUNICH)) == {1}
    assert smallest(index_of(ROWS), SearchRequest(near=MUNICH, filters=Filters(tags=("y",)))) in ({0}, {1})
