"""The order in which agents are shown: relevance, and what is known of each agent. Pure; `search.py` calls it.

    score = relevance x quality x success x health x freshness

Each factor is from a floor above 0 up to 1, so that relevance counts most and nothing that an agent has or lacks makes
it vanish. What upstream ranks by is the model (PICK-06): chat protocol, readme, own handle, activity, and success
weighted by how often it was seen. Whatever is counted here is this server's own record (SEARCH-11), never a probe.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.store.base_market import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence


Health = Literal["good", "new", "shaky", "unreachable", "inactive"]

QUALITY_FLOOR: Final = 0.6
SUCCESS_FLOOR: Final = 0.4
HEALTH_FLOOR: Final = 0.05
PRIOR_MEAN: Final = 0.8
PRIOR_COUNT: Final = 4.0
"""An agent that nobody has asked counts as one that did well in four of five cases, so it is not held back."""
UNJUDGED: Final = 0.5
"""An answer that nobody has judged says half as much as one that somebody has."""
UNREACHABLE_FROM: Final = 3
"""Failures in a row from which on an agent is said to be unreachable."""
FAILURES_MAX: Final = 6
RECOVERY_US: Final = 600_000_000
"""Half of what failures cost is forgotten in ten minutes, so that the agent is tried again."""
FRESH_US: Final = 7 * 86_400_000_000
FRESH_SHARE: Final = 0.05
NEWCOMER_CALLS: Final = 3
NEWCOMER_PLACE: Final = 5
"""The last place of the first agents that a model is shown (`tools/find_agents.py` shows five)."""
NEWCOMER_RELEVANCE: Final = 0.75


class Standing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of an agent, beside how well it fits a question."""

    tally: Tally
    active: bool = True
    registered_us: int = 0
    callable: bool = True
    """It speaks a protocol that this server asks agents in."""
    readme_chars: int = 0
    description_chars: int = 0
    skills: int = 0
    has_handle: bool = False
    has_avatar: bool = False


class Score(msgspec.Struct, frozen=True, gc=False):
    """Why an agent ranks where it does; all from 0 to 1."""

    value: float
    relevance: float
    quality: float
    success: float
    health: float


def score(relevance: float, standing: Standing, now_us: int) -> Score:
    """Return an agent's score for a question that it fits with `relevance` (0 to 1)."""
    return scored(relevance, standing, quality(standing), success(standing.tally), now_us)


def scored(relevance: float, standing: Standing, good: float, won: float, now_us: int) -> Score:
    """Return the same, where its quality and success are known: they change with the row alone."""
    well = health(standing, now_us)
    value = relevance * (fitness(good, won) * well) * freshness(standing.tally.answered_us, now_us)
    return Score(value, relevance, good, won, well)


def fitness(good: float, won: float) -> float:
    """Return the factors of quality and success."""
    return (QUALITY_FLOOR + (1 - QUALITY_FLOOR) * good) * (SUCCESS_FLOOR + (1 - SUCCESS_FLOOR) * won)


def quality(standing: Standing) -> float:
    """Return how well an agent presents itself."""
    return (
        0.35 * standing.callable
        + 0.25 * min(1.0, standing.readme_chars / 400)
        + 0.15 * min(1.0, standing.description_chars / 80)
        + 0.10 * standing.has_handle
        + 0.10 * min(1.0, standing.skills / 3)
        + 0.05 * standing.has_avatar
    )


def success(tally: Tally) -> float:
    """Return how often it does what is asked: a Bayesian mean, near `PRIOR_MEAN` until there is evidence.

    Every good call raises it and every bad one lowers it, whatever came before.
    """
    unjudged = max(0, tally.successes - tally.judged)
    good = tally.useful + UNJUDGED * unjudged
    bad = max(0, tally.judged - tally.useful) + UNJUDGED * max(0, tally.calls - tally.successes)
    return (PRIOR_MEAN * PRIOR_COUNT + good) / (PRIOR_COUNT + good + bad)


def failures(standing: Standing) -> int:
    """Return how many failures in a row still count: one that has registered after them may have been mended."""
    tally = standing.tally
    return tally.failures_in_row // 2 if standing.registered_us > tally.failed_us else tally.failures_in_row


def health(standing: Standing, now_us: int) -> float:
    """Return how likely it is to answer now: halved by each failure in a row, and recovering with time."""
    missed = min(failures(standing), FAILURES_MAX)
    if not missed:
        return 1.0
    waited = max(0, now_us - standing.tally.failed_us)
    return max(HEALTH_FLOOR, 1.0 - (1.0 - math.pow(0.5, missed)) * math.pow(0.5, waited / RECOVERY_US))


def freshness(answered_us: float, now_us: int) -> float:
    """Return a little less than 1 for an agent whose last good answer is long ago, or that has never given one (0)."""
    if not answered_us:
        return 1.0 - FRESH_SHARE
    age = max(0, now_us - answered_us) / FRESH_US
    return 1.0 - FRESH_SHARE * (1.0 - math.pow(0.5, age))


def is_reachable(standing: Standing) -> bool:
    """Whether there is no reason to think that it does not answer."""
    return failures(standing) < UNREACHABLE_FROM


def health_word(standing: Standing) -> Health:
    """Return the state of an agent in a word."""
    if not standing.active:
        return "inactive"
    if not is_reachable(standing):
        return "unreachable"
    if failures(standing):
        return "shaky"
    return "good" if standing.tally.successes else "new"


class Ranked(msgspec.Struct, frozen=True, gc=False):
    """An agent in an order: its place in the index, its score, and what decides whether it is a newcomer."""

    place: int
    value: float
    relevance: float
    health: float
    calls: float
    impressions: float


def order(ranked: Sequence[Ranked]) -> list[Ranked]:
    """Return agents best first, with a newcomer among the first `NEWCOMER_PLACE`, so that new agents are tried.

    The newcomer is one that few have asked, fits nearly as well as the best, and has been shown least.
    """
    ordered = sorted(ranked, key=lambda one: (-one.value, one.place))
    first = ordered[:NEWCOMER_PLACE]
    if len(ordered) <= NEWCOMER_PLACE or any(is_newcomer(one) for one in first):
        return ordered
    enough = NEWCOMER_RELEVANCE * max(one.relevance for one in first)
    new = [
        one for one in ordered[NEWCOMER_PLACE:] if is_newcomer(one) and one.relevance >= enough and one.health == 1.0
    ]
    if not new:
        return ordered
    chosen = min(new, key=lambda one: (one.impressions, -one.value, one.place))
    rest = [one for one in ordered if one is not chosen]
    return [*rest[: NEWCOMER_PLACE - 1], chosen, *rest[NEWCOMER_PLACE - 1 :]]


def is_newcomer(one: Ranked) -> bool:
    """Whether too few have asked it for a judgement."""
    return one.calls < NEWCOMER_CALLS
