"""The composition of agentic turns: the agent with its tools, its journal and its hooks, for `app.py`.

A part of the composition root. To add a preparation, a policy or a planner, hand it in here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.api.chat_reply import ReplyShape
from convene.serving.agent import Agent, AgentSettings, Hooks
from convene.serving.answer_text import AnswerText
from convene.serving.judge import Judge
from convene.serving.marketplace import Marketplace
from convene.serving.planner import Planner
from convene.serving.policy import LabelPolicy
from convene.serving.recalling import Recalling
from convene.serving.research import Research
from convene.serving.study import Study
from convene.serving.terms import AgenticTerms

if TYPE_CHECKING:
    from convene.app_agents import AgentParts
    from convene.app_tools import ToolRoom
    from convene.clock import Clock
    from convene.config import Config
    from convene.serving.base_agentic import RunRoom
    from convene.serving.base_sessions import Memory

MICROS: Final = 1_000_000
AGENTIC_NAME: Final = "asi1"
AGENTIC_SUFFIX: Final = "-agentic"
LONG_RUNNING: Final = "asi1-ultra"
"""The model for long runs; upstream gives it this many calls a turn (MODEL-08)."""
LONG_CALLS: Final = 500


def make_agent(
    config: Config,
    clock: Clock,
    room: ToolRoom,
    runs: RunRoom | None = None,
    memory: Memory | None = None,
    agents: AgentParts | None = None,
) -> Agent:
    """Return the agent of a configuration; without `runs` and `memory` nothing of its turns is kept.

    `agents` says whether there is anybody in the marketplace, and keeps what is judged of their answers; without it the
    tools are asked, and nothing is judged.
    """
    judge = None if agents is None else Judge(agents.note_judged, config.agentic.judge)
    hooks = Hooks(
        policy=LabelPolicy(config.tools.allow_after_untrusted),
        text=AnswerText,
        preparations=(Recalling(), Research(), Study(memory), Marketplace()),
        planner=lambda loop: Planner(loop, clock, judge),
        judge=judge,
        runs=runs,
        memory=memory,
    )
    return Agent(
        room,
        agent_settings(config),
        clock,
        hooks,
        general=room.general,
        agents=None if agents is None else agents.anybody,
    )


def agent_settings(config: Config) -> AgentSettings:
    """Return what `[agentic]` says, as `serving/` knows it."""
    said = config.agentic
    return AgentSettings(
        rounds=said.max_rounds,
        seconds=said.wall_s,
        whole_s=said.whole_s,
        wait_s=said.agent_wait_s,
        tokens=said.max_tokens,
        micros=round(said.max_cost * MICROS),
        calls_at_once=said.calls_at_once,
        result_share=said.result_share,
        on_disconnect=said.on_disconnect,
        currency=config.currency,
    )


def reply_shape(config: Config) -> ReplyShape:
    """Return what `[agentic]` says of whole replies."""
    return ReplyShape(config.agentic.tool_calls_shape, config.agentic.metadata_shape)


def agentic_terms(config: Config, name: str) -> AgenticTerms:
    """Return what the model of that name may do in an agentic turn."""
    model = config.models.get(name)
    calls = None if model is None else model.max_tool_calls
    if calls is None:
        calls = (
            max(LONG_CALLS, config.agentic.max_tool_calls) if name == LONG_RUNNING else config.agentic.max_tool_calls
        )
    agents = None if model is None else model.agents
    offered = None if model is None else model.server_tools
    return AgenticTerms(
        server_tools=config.agentic.server_tools if offered is None else offered,
        calls=calls,
        agents=is_agentic(name) if agents is None else agents,
        search="auto" if model is None else model.search,
    )


def is_agentic(name: str) -> bool:
    """Whether a model of that name finds agents unless the operator says otherwise (AGENTIC-03)."""
    return name == AGENTIC_NAME or name.endswith(AGENTIC_SUFFIX)
