"""The hops of a question: what is read of whatever is stated, and whom a question is not taken to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.agent_hops import (
    DEPTH,
    HERE_BEFORE,
    HOP_MAX,
    HOPS_MAX,
    LEADS_BACK,
    fault,
    onward,
    read_hops,
    write_hops,
)

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N", "P"), exclude_characters=","), min_size=1)


@given(st.lists(NAMES, max_size=HOPS_MAX))
def test_what_is_written_is_read_again(hops: list[str]) -> None:
    assert read_hops(write_hops(hops)) == tuple(hop[:HOP_MAX] for hop in hops)


@given(st.one_of(st.text(), st.none(), st.integers(), st.lists(st.text()), st.binary()))
def test_whatever_is_stated_is_read_within_bounds(stated: Any) -> None:  # noqa: ANN401 -- whatever
    found = read_hops(stated)
    assert len(found) <= HOPS_MAX
    assert all(hop and len(hop) <= HOP_MAX and hop.isprintable() for hop in found)


@given(st.lists(st.text(min_size=1), max_size=30))
def test_what_is_written_fits_a_header_whatever_the_hops_are(hops: list[str]) -> None:
    line = write_hops(hops)
    assert line.isascii()
    assert line.isprintable() or not line
    assert len(read_hops(line)) <= HOPS_MAX


def test_a_comma_in_an_address_makes_no_second_hop() -> None:
    assert read_hops(write_hops(["http://a.test/x,y", "b"])) == ("http://a.test/x%2Cy", "b")


def test_a_question_goes_on_with_who_asked_it_and_ourselves() -> None:
    assert onward((), "", "me") == ("me",)
    assert onward((), "", "") == ()
    assert onward(("a",), "a", "me") == ("a", "me")
    assert onward(("a",), "b", "me") == ("a", "b", "me")


def test_an_agent_that_the_question_has_been_through_is_not_asked_back() -> None:
    assert fault((), "a", "me", "a") == LEADS_BACK
    assert fault(("a", "b"), "b", "me", "a") == LEADS_BACK
    assert fault((), "", "me", "me") == LEADS_BACK
    assert fault(("a", "b"), "b", "me", "c") == ""


def test_a_question_that_has_been_here_is_taken_to_no_agent_at_all() -> None:
    assert fault(("me", "a"), "a", "me", "c") == HERE_BEFORE


def test_a_server_that_has_no_address_yet_still_counts() -> None:
    assert fault(("a",), "a", "", "b") == ""
    assert fault(("a",), "a", "", "a") == LEADS_BACK


@pytest.mark.parametrize("depth", [1, 2, DEPTH, 9])
def test_a_question_passes_through_so_many_agents_and_no_more(depth: int) -> None:
    asked = 0
    hops: tuple[str, ...] = ()
    while not fault(hops, "", f"agent{asked}", "other", depth):
        hops = onward(hops, "", f"agent{asked}")
        asked += 1
        assert asked < 100
    assert asked == depth


@given(st.lists(st.sampled_from("abcde"), max_size=40), st.integers(min_value=1, max_value=HOPS_MAX))
def test_a_chain_of_servers_that_pass_hops_on_ends_whoever_they_choose(choices: list[str], depth: int) -> None:
    hops: tuple[str, ...] = ()
    me = "start"
    calls = 0
    for chosen in choices:
        if fault(hops, hops[-1] if hops else "", me, chosen, depth):
            break
        hops = onward(hops, hops[-1] if hops else "", me)
        me = chosen
        calls += 1
    assert calls <= depth
    assert len(set(hops)) == len(hops)
