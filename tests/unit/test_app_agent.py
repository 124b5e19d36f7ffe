"""Which agent a configuration makes: ceilings, who is offered the server's tools, how models search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from convene.app_agent import LONG_CALLS, agent_settings, agentic_terms, make_agent
from convene.app_tools import ToolRoom
from convene.config import AgenticSettings, Config, Model
from convene.serving.planner import Planner
from convene.serving.policy import LabelPolicy
from convene.serving.study import Study
from fakes import FakeClock
from tool_doubles import Box, PlayedTool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> Any:  # noqa: ANN401 - a fixture's factory
    """Return a function from fields to a configuration."""
    return lambda **fields: Config(data_dir=tmp_path, cache_dir=tmp_path, **fields)


@pytest.mark.req("MODEL-08")
def test_the_ceiling_of_calls_is_the_operators_and_each_model_may_have_its_own(config: Any) -> None:  # noqa: ANN401
    one = config(agentic=AgenticSettings(max_tool_calls=7), models={"deep": Model(max_tool_calls=90), "plain": Model()})
    assert agentic_terms(one, "deep").calls == 90
    assert agentic_terms(one, "plain").calls == 7
    assert agentic_terms(one, "unheard-of").calls == 7
    assert agentic_terms(config(models={"deep": Model(max_tool_calls=0)}), "deep").calls == 0


@pytest.mark.req("MODEL-08")
def test_the_model_for_long_runs_may_call_five_hundred_times_unless_somebody_says_otherwise(config: Any) -> None:  # noqa: ANN401
    assert LONG_CALLS == 500
    assert agentic_terms(config(), "asi1-ultra").calls == 500
    assert agentic_terms(config(), "asi1").calls == 64
    assert agentic_terms(config(agentic=AgenticSettings(max_tool_calls=900)), "asi1-ultra").calls == 900
    assert agentic_terms(config(models={"asi1-ultra": Model(max_tool_calls=3)}), "asi1-ultra").calls == 3


@pytest.mark.parametrize(
    ("general", "own", "offered"),
    [(True, None, True), (True, False, False), (False, None, False), (False, True, True)],
)
def test_a_models_own_word_on_the_servers_tools_beats_the_general_one(
    config: Any,  # noqa: ANN401
    general: bool,  # noqa: FBT001 - a parameter of the test
    own: bool | None,  # noqa: FBT001 - the same
    offered: bool,  # noqa: FBT001 - the same
) -> None:
    one = config(agentic=AgenticSettings(server_tools=general), models={"m": Model(server_tools=own)})
    assert agentic_terms(one, "m").server_tools is offered


def test_how_a_model_searches_is_its_own_setting(config: Any) -> None:  # noqa: ANN401
    one = config(models={"m": Model(search="before")})
    assert (agentic_terms(one, "m").search, agentic_terms(one, "other").search) == ("before", "auto")


def test_every_ceiling_of_the_configuration_reaches_the_agent(config: Any) -> None:  # noqa: ANN401
    said = AgenticSettings(
        max_rounds=3,
        wall_s=5,
        whole_s=4,
        max_tokens=6,
        max_cost=0.25,
        calls_at_once=2,
        result_share=0.5,
        on_disconnect="continue",
    )
    settings = agent_settings(config(agentic=said, currency="EUR"))
    assert (settings.rounds, settings.seconds, settings.whole_s) == (3, 5, 4)
    assert (settings.tokens, settings.micros, settings.currency) == (6, 250_000, "EUR")
    assert (settings.calls_at_once, settings.result_share, settings.on_disconnect) == (2, 0.5, "continue")


def test_an_agent_has_the_policy_the_planner_and_the_tutor(config: Any) -> None:  # noqa: ANN401
    agent = make_agent(config(), FakeClock(), ToolRoom(()))
    assert isinstance(agent._hooks.policy, LabelPolicy)
    assert isinstance(agent._planner, Planner)
    assert any(isinstance(one, Study) for one in agent._preparations)


def test_tools_beside_search_are_known_of_before_anybody_asks() -> None:
    assert not ToolRoom(()).general
    room = ToolRoom((), more=(Box(PlayedTool()),))
    assert room.general
    assert [tool.spec.name for tool in room.tools()] == ["weather"]
