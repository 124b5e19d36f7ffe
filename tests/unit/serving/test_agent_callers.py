"""Agents without a key: their own limits, those of all together, and how they are known again by their key id."""

from __future__ import annotations

import pytest

from convene.limits.allowance import Allowance
from convene.serving.agent_callers import TEAM, AgentCallers, KnownCallers
from convene.serving.allowances import Allowances
from convene.serving.base import Principal
from convene.serving.terms import PLAIN

CALLERS = AgentCallers("free", Allowance(requests_per_minute=100))
PLANS = Allowances({"free": Allowance(requests_per_minute=5)})


def test_each_agent_has_its_own_limits_and_all_of_them_share_others() -> None:
    first, second = (PLANS.of(CALLERS.of(address), "m", PLAIN) for address in ("agent1qa", "agent1qb"))
    assert [(one.scope, one.subject, one.amount) for one in first] == [
        ("key", "agent:agent1qa", 5),
        ("team", TEAM, 100),
    ]
    assert first[0].counter != second[0].counter
    assert first[1].counter == second[1].counter


def test_an_agent_owns_what_it_makes_and_the_books_name_it() -> None:
    one = CALLERS.of("agent1qa")
    assert (one.owner, one.user_id, one.team_id) == ("agent:agent1qa", "agent1qa", "agents")
    assert "admin" not in one.scopes


def test_who_is_behind_a_key_id_is_known_after_a_restart() -> None:
    assert CALLERS.holder("agent:agent1qa") == CALLERS.of("agent1qa")
    assert CALLERS.holder("abc") is None


def test_the_past_counts_for_agents_as_for_keys() -> None:
    ada = Principal(key_id="k", owner="ada")
    known = KnownCallers({"k": ada}, CALLERS)
    assert known["k"] is ada
    assert known["agent:agent1qa"] == CALLERS.of("agent1qa")
    assert known.get("gone") is None
    assert (list(known), len(known)) == (["k"], 1)
    with pytest.raises(KeyError):
        known["gone"]
