"""The ranking learns: success lifts, failures sink, time heals, and nobody is starved."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_listings import DAY_US, NOW_US
from convene.registry.ranking import (
    NEWCOMER_PLACE,
    PRIOR_MEAN,
    UNREACHABLE_FROM,
    Ranked,
    Standing,
    freshness,
    health,
    health_word,
    is_reachable,
    order,
    quality,
    score,
    success,
)
from convene.store.base_market import Tally

COUNTS = st.integers(0, 10_000)


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    calls = draw(COUNTS)
    successes = draw(st.integers(0, calls))
    judged = draw(st.integers(0, successes))
    return Tally(
        calls=calls,
        successes=successes,
        judged=judged,
        useful=draw(st.integers(0, judged)),
        failures_in_row=draw(st.integers(0, min(calls - successes, 12))),
        answered_us=draw(st.sampled_from([0, NOW_US - 90 * DAY_US, NOW_US - 60_000_000])) if successes else 0,
        failed_us=draw(st.sampled_from([NOW_US - 40 * DAY_US, NOW_US - 60_000_000])) if calls > successes else 0,
    )


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    return Standing(
        tally=draw(tallies()),
        callable=draw(st.booleans()),
        readme_chars=draw(COUNTS),
        description_chars=draw(COUNTS),
        skills=draw(COUNTS),
        has_handle=draw(st.booleans()),
        has_avatar=draw(st.booleans()),
    )


def with_(standing: Standing, **changes: int) -> Standing:
    return msgspec.structs.replace(standing, tally=msgspec.structs.replace(standing.tally, **changes))


@pytest.mark.req("PICK-06")
@given(standings(), st.floats(0.01, 1.0))
def test_a_good_answer_never_lowers_an_agent_and_a_bad_one_never_lifts_it(standing: Standing, relevance: float) -> None:
    tally = standing.tally
    before = score(relevance, standing, NOW_US).value
    answered = {
        "calls": tally.calls + 1,
        "successes": tally.successes + 1,
        "failures_in_row": 0,
        "answered_us": NOW_US,
    }
    assert score(relevance, with_(standing, **answered), NOW_US).value >= before
    judged = answered | {"judged": tally.judged + 1, "useful": tally.useful + 1}
    assert score(relevance, with_(standing, **judged), NOW_US).value >= before
    failed = {"calls": tally.calls + 1, "failures_in_row": tally.failures_in_row + 1, "failed_us": NOW_US}
    assert score(relevance, with_(standing, **failed), NOW_US).value <= before


@given(tallies())
def test_a_judge_who_says_no_lowers_and_one_who_says_yes_lifts(tally: Tally) -> None:
    said = msgspec.structs.replace(tally, judged=tally.judged + 1, successes=tally.successes + 1, calls=tally.calls + 1)
    yes = msgspec.structs.replace(said, useful=said.useful + 1)
    assert success(said) < success(yes)
    assert success(yes) >= success(tally)


def test_success_is_weighted_by_how_often_it_was_seen() -> None:
    def rate(calls: int, share: float) -> float:
        return success(Tally(calls=calls, successes=calls, judged=calls, useful=int(calls * share)))

    assert success(Tally()) == PRIOR_MEAN
    assert PRIOR_MEAN > rate(10, 0.5) > rate(1000, 0.5) > 0.5
    assert PRIOR_MEAN < rate(10, 1.0) < rate(1000, 1.0) < 1.0


@given(standings(), st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_a_score_is_above_0_and_grows_with_relevance(standing: Standing, relevance: float, less: float) -> None:
    found = score(relevance, standing, NOW_US)
    assert 0 < found.value <= relevance
    assert score(relevance * less, standing, NOW_US).value <= found.value


@pytest.mark.req("PICK-06")
@pytest.mark.parametrize(
    "better",
    [
        {"callable": True},
        {"readme_chars": 500},
        {"description_chars": 90},
        {"has_handle": True},
        {"has_avatar": True},
        {"skills": 3},
    ],
)
def test_each_part_of_a_good_listing_lifts(better: dict[str, int]) -> None:
    bare = Standing(tally=Tally(), callable=False)
    assert quality(msgspec.structs.replace(bare, **better)) > quality(bare)
    assert quality(bare) == 0
    best = Standing(tally=Tally(), readme_chars=9999, description_chars=999, skills=9, has_handle=True, has_avatar=True)
    assert quality(best) == pytest.approx(1.0)


def failing(times: int, ago_us: int = 0) -> Standing:
    return Standing(tally=Tally(calls=times, failures_in_row=times, failed_us=NOW_US - ago_us))


@pytest.mark.req("SEARCH-11")
def test_an_agent_that_fails_in_a_row_sinks_with_each_failure_and_recovers_with_time() -> None:
    sunk = [health(failing(times), NOW_US) for times in range(5)]
    assert sunk[0] == 1.0
    assert sunk == sorted(sunk, reverse=True)
    assert len(set(sunk)) == 5
    later = [health(failing(4, ago_us=minutes * 60_000_000), NOW_US) for minutes in (0, 5, 20, 120)]
    assert later == sorted(later)
    assert later[-1] > 0.99


@pytest.mark.req("SEARCH-11")
def test_unreachable_is_said_until_there_is_a_good_answer_or_a_new_registration() -> None:
    down = failing(UNREACHABLE_FROM, ago_us=DAY_US)
    assert not is_reachable(down)
    assert health_word(down) == "unreachable"
    assert is_reachable(msgspec.structs.replace(down, registered_us=NOW_US))
    assert is_reachable(with_(down, failures_in_row=0))
    assert health_word(failing(1)) == "shaky"
    assert health_word(msgspec.structs.replace(down, active=False)) == "inactive"
    assert health_word(Standing(tally=Tally())) == "new"
    assert health_word(Standing(tally=Tally(calls=1, successes=1))) == "good"


def test_an_answer_of_last_year_counts_a_little_less_than_one_of_today() -> None:
    assert freshness(NOW_US, NOW_US) == 1.0
    old = freshness(NOW_US - 365 * DAY_US, NOW_US)
    assert old == pytest.approx(freshness(0, NOW_US), abs=1e-6)
    assert 0.9 < old < 1


def ranked(place: int, relevance: float, standing: Standing, impressions: int = 0) -> Ranked:
    its = score(relevance, standing, NOW_US)
    return Ranked(place, its.value, relevance, its.health, standing.tally.calls, impressions)


@given(st.lists(tallies().filter(lambda tally: tally.calls >= 3), min_size=NEWCOMER_PLACE, max_size=40))
def test_a_newcomer_that_fits_as_well_is_among_the_first_however_many_are_established(known: list[Tally]) -> None:
    agents = [ranked(place, 0.5, Standing(tally=tally)) for place, tally in enumerate(known)]
    newcomer = ranked(len(known), 0.5, Standing(tally=Tally()))
    assert newcomer in order([*agents, newcomer])[:NEWCOMER_PLACE]


def test_of_several_newcomers_the_one_shown_least_has_its_turn_and_a_poor_fit_has_none() -> None:
    proven = Standing(tally=Tally(calls=99, successes=99, judged=99, useful=99, answered_us=NOW_US))
    agents = [ranked(place, 0.9, proven) for place in range(8)]
    seen, unseen = ranked(20, 0.8, Standing(tally=Tally()), 9), ranked(21, 0.8, Standing(tally=Tally()), 2)
    poor = ranked(22, 0.3, Standing(tally=Tally()))
    broken = ranked(23, 0.9, failing(2), 0)
    shown = order([*agents, seen, unseen, poor, broken])
    assert shown[NEWCOMER_PLACE - 1] is unseen
    assert [one.place for one in shown[: NEWCOMER_PLACE - 1]] == [0, 1, 2, 3]
    assert shown.index(poor) > NEWCOMER_PLACE


@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_an_order_loses_nobody_and_puts_the_best_first(given_: list[tuple[float, int, int]]) -> None:
    agents = [Ranked(place, value, value, 1.0, calls, shown) for place, (value, calls, shown) in enumerate(given_)]
    ordered = order(agents)
    assert sorted(one.place for one in ordered) == list(range(len(agents)))
    if ordered:
        assert ordered[0].value == max(one.value for one in agents)
