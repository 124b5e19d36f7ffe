"""The tools that find agents and ask them: what the model reads, what the caller is shown, what is said of failures."""

from __future__ import annotations

import pytest

from convene.agents.base import Heard
from convene.errors import Retry
from convene.tools import ask_agent
from convene.tools.base import ToolContext, ToolResult
from market_doubles import ADDRESS, OTHER, Market, image


def context(**fields: object) -> ToolContext:
    base: dict[str, object] = {
        "owner": "o",
        "run_id": "run_1",
        "call_id": "call_1",
        "idempotency_key": "run_1:s1:1",
        "conversation": "conv_1",
        "caller": "agent1qcaller",
    }
    return ToolContext(**(base | fields))  # type: ignore[arg-type]  # tests name real fields


async def ask(market: Market, *, agent: str = "@rome", **fields: object) -> ToolResult:
    return await market.tools()[1].run({"agent": agent, "message": "How is it?"}, context(**fields))


@pytest.mark.req("AGENTIC-11")
async def test_an_answer_is_told_to_the_model_and_its_manifest_to_the_caller() -> None:
    market = Market().add("rome", "Sunny.", " Hot.", skills=("weather",))
    result = await ask(market)
    assert result.text == "rome answered:\nSunny. Hot."
    assert result.agent == {
        "address": ADDRESS,
        "protocol": "acp",
        "name": "rome",
        "handle": "rome",
        "description": "Knows rome.",
        "manifest": {"skills": ["weather"]},
    }
    assert isinstance(result.data, dict)
    assert (result.data["answer"], result.data["outcome"]) == ("Sunny. Hot.", "success")
    assert market.notes == [("rome", "success")]
    [asking] = market.asked
    assert (asking.owner, asking.conversation, asking.call_key) == ("o", "conv_1", "run_1:s1:1")
    assert (asking.caller, asking.say) == ("agent1qcaller", "How is it?")


async def test_progress_is_shown_while_the_agent_works() -> None:
    words: list[str] = []
    market = Market().add("rome", Heard(kind="progress", text="looking outside"), "Sunny.")
    await ask(market, progress=words.append)
    assert words == ["rome: message_dispatched", "rome: acknowledged", "rome: looking outside", "rome: answering"]


@pytest.mark.req("ACP-10")
async def test_pictures_and_files_of_an_agent_reach_the_reader() -> None:
    shown = image("https://a.test/1.png")
    other = image("https://a.test/2 (x).png")
    inline = image("data:image/png;base64,AAAA")
    market = Market().add("rome", "See ![one](https://a.test/1.png)", shown, other, inline)
    result = await ask(market)
    assert isinstance(result.data, dict)
    assert result.data["answer"] == ("See ![one](https://a.test/1.png)\n\n![image](https://a.test/2%20%28x%29.png)")
    assert len(result.data["attachments"]) == 3
    assert result.links == ("https://a.test/1.png", "https://a.test/2 (x).png")


@pytest.mark.parametrize(
    ("end", "told", "outcome", "failed"),
    [
        (Heard(kind="error", text="It is down.", metadata={"reason": "unreachable"}), "It is down.", "failed", True),
        (Heard(kind="error", text="No sign.", metadata={"reason": "timed_out"}), "No sign.", "timed_out", True),
        (Heard(kind="payment", text="It wants 1 FET."), "It wants 1 FET.", "refused", True),
        (Heard(kind="needs_input", text="Which city?"), "waits for the user: Which city?", "success", False),
        (Heard(kind="end"), "without an answer", "success", False),
    ],
)
async def test_what_is_no_answer_is_said(end: Heard, told: str, outcome: str, failed: bool) -> None:  # noqa: FBT001 -- a row of the table
    market = Market().add("rome", end)
    result = await ask(market)
    assert told in result.text
    assert result.failed is failed
    assert market.notes == [("rome", outcome)]
    assert result.agent is not None


@pytest.mark.req("SESSION-05")
async def test_a_request_that_can_wait_no_longer_goes_on_without_the_agent_and_says_so() -> None:
    market = Market().add("rome", 100.0, "too late")
    result = await ask(market, wait_s=0.01)
    assert market.given_up == [("rome", market.asked[0].call_key)]
    assert result.failed
    assert "had not answered" in result.text
    assert [notice.code for notice in result.notices] == ["agent_late"]
    assert isinstance(result.data, dict)
    assert result.data["outcome"] == "late"
    assert market.notes == [("rome", "late")]


async def test_only_silence_is_held_against_an_agent_that_was_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_agent, "SILENT_S", 0.01)
    market = Market().add("rome", 100.0, "too late").add("oslo", 100.0, "too late", address=OTHER)
    market.silent.add("rome")
    for name in ("@rome", "@oslo"):
        result = await ask(market, agent=name, wait_s=0.02)
        assert result.failed
    assert market.notes == [("rome", "timed_out"), ("oslo", "late")]


async def test_what_came_after_the_turn_before_is_told_apart() -> None:
    late = Heard(kind="text", text="Yesterday it rained.", metadata={"late": "true"})
    result = await ask(Market().add("rome", late, "Sunny."))
    assert "too late for it:\nYesterday it rained." in result.text
    assert isinstance(result.data, dict)
    assert result.data["answer"] == "Sunny."
    assert result.data["late"] == ["Yesterday it rained."]


async def test_an_answer_without_end_is_cut() -> None:
    result = await ask(Market().add("rome", "x" * 500_000))
    assert len(result.text) < 401_000
    assert "it was cut here" in result.text


async def test_an_agent_that_nobody_knows_may_be_looked_for() -> None:
    with pytest.raises(Retry, match="search_agents"):
        await ask(Market(), agent="@nobody")


async def test_a_search_lists_who_was_found_with_all_that_a_choice_needs() -> None:
    market = Market().add("rome", skills=("weather", "news")).add("oslo", address=OTHER, reachable=False)
    result = await market.tools()[0].run({"query": "weather", "limit": 2}, context())
    assert result.text.splitlines() == [
        f"1. rome - agent: {ADDRESS} (@rome)",
        "   Knows rome.",
        "   Skills: weather, news",
        f"2. oslo - agent: {OTHER} (@oslo) - has not answered lately",
        "   Knows oslo.",
    ]
    assert isinstance(result.data, dict)
    assert [agent["reachable"] for agent in result.data["agents"]] == [True, False]
    assert market.searches == ["weather"]


async def test_a_search_that_finds_nobody_says_so() -> None:
    result = await Market().tools()[0].run({"query": "weather"}, context())
    assert "No agent was found" in result.text


def test_both_are_steps_of_the_kind_agent_and_their_results_are_strangers_words() -> None:
    for tool in Market().tools():
        assert tool.spec.kind == "agent"
        assert tool.spec.labels == {"untrusted"}
