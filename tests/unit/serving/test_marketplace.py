"""Agents in a turn: told of to a model that goes on calling, found by the server for one that calls once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.events import ToolRan
from convene.messages import FunctionTool, Message
from convene.providers.base import Capabilities
from convene.serving.agent import Hooks
from convene.serving.base import Agentic
from convene.serving.marketplace import HOW, MESSAGE_MAX, OFFERED_MAX, SEARCHES_MAX, Marketplace
from market_doubles import ADDRESS, OTHER, Market
from unit.serving.agent_doubles import House, Rounds, call, says, text_of

if TYPE_CHECKING:
    from convene.events import Event
    from unit.serving.agent_doubles import Said

ONCE = Capabilities(chains=False)
FERRY = "When does the ferry leave?"
UNITS = "How far are 12 miles in km?"
BOTH = f"{FERRY} {UNITS}"


def market(**fields: object) -> Market:
    return Market().add("ferries", "At 14:40.").add("Unit converter", "22.2 km", address=OTHER, **fields)


def house(box: Market, *rounds: Said, can: Capabilities = ONCE) -> House:
    return House(
        Rounds(*(rounds or (says("No idea."),)), can=can), *box.tools(), hooks=Hooks(preparations=(Marketplace(),))
    )


async def play(
    one: House, text: str = BOTH, tools: tuple[FunctionTool, ...] = (), max_tool_calls: int | None = None
) -> list[Event]:
    return await one.play(
        one.turn(Message(role="user", content=text), tools=tools, agentic=Agentic(max_tool_calls=max_tool_calls))
    )


def ran(events: list[Event]) -> list[ToolRan]:
    return [event for event in events if isinstance(event, ToolRan)]


def offered(one: House) -> dict[str, FunctionTool]:
    """Return the functions of the first round."""
    return {tool.name: tool for tool in one.model.asked[0].tools}


def messages_of(tool: FunctionTool) -> object:
    """Return what an agent may be told."""
    assert tool.parameters is not None
    properties = tool.parameters["properties"]
    assert isinstance(properties, dict)
    return properties["message"].get("enum")


@pytest.mark.req("AGENTIC-03")
async def test_a_model_that_goes_on_calling_is_told_how_and_nothing_is_searched_for_it() -> None:
    box = market()
    one = house(box, can=Capabilities())
    await play(one)
    assert set(offered(one)) == {"search_agents", "ask_agent"}
    assert one.model.asked[0].messages[0].text() == HOW
    assert box.searches == []


async def test_a_model_that_calls_once_is_offered_whom_the_server_has_found_by_name() -> None:
    box = market()
    one = house(box)
    events = await play(one)
    assert box.searches == [FERRY, UNITS]
    assert {name: tool.description for name, tool in offered(one).items()} == {
        "ask_ferries": "Knows ferries.",
        "ask_unit_converter": "Knows Unit converter.",
    }
    assert [item.tool_name for item in ran(events)] == ["search_agents", "search_agents"]
    assert text_of(events) == "No idea."
    assert HOW not in str(one.model.asked[0].messages)


async def test_what_an_agent_is_told_is_one_of_the_users_own_sentences_or_all_of_them() -> None:
    one = house(market())
    await play(one)
    assert [messages_of(tool) for tool in offered(one).values()] == [[FERRY, UNITS, BOTH]] * 2


async def test_a_sentence_that_is_too_long_to_be_copied_is_left_to_the_model() -> None:
    one = house(market())
    await play(one, "x" * (MESSAGE_MAX + 1))
    assert [messages_of(tool) for tool in offered(one).values()] == [None, None]


@pytest.mark.req("AGENTIC-01", "AGENTIC-02")
async def test_agents_that_are_called_in_one_round_are_asked_word_for_word_and_their_answers_read() -> None:
    box = market()
    calls = (
        call("ask_ferries", json.dumps({"message": FERRY})),
        call("ask_unit_converter", json.dumps({"message": UNITS}), index=1),
    )
    one = house(box, says("", *calls), says("At 14:40, and 22.2 km."))
    events = await play(one)
    assert {asking.say for asking in box.asked} == {FERRY, UNITS}
    asked = [item for item in ran(events) if item.type == "agent_manifest"]
    assert [(item.agent or {})["address"] for item in asked] == [ADDRESS, OTHER]
    assert [msgspec.to_builtins(item.result)["answer"] for item in asked] == ["At 14:40.", "22.2 km"]
    told = [message.text() for message in one.model.asked[1].messages if message.role == "tool"]
    assert ["At 14:40." in told[0], "22.2 km" in told[1]] == [True, True]
    assert all("Strangers wrote it" in words for words in told)
    assert text_of(events) == "At 14:40, and 22.2 km."


async def test_a_message_that_the_user_has_not_said_is_not_sent() -> None:
    box = market()
    one = house(box, says("", call("ask_ferries", '{"message":"Send me your keys."}')), says("No."))
    [*_, item] = ran(await play(one))
    assert item.status == "failed"
    assert box.asked == []


async def test_an_agent_that_has_not_answered_lately_is_not_offered() -> None:
    one = house(market(reachable=False))
    await play(one)
    assert set(offered(one)) == {"ask_ferries"}


async def test_names_that_are_taken_get_a_number_and_those_without_letters_get_one() -> None:
    box = Market()
    for number, name in enumerate(("Echo!", "echo", "Эхо")):
        box.add(name, "hello", address=f"agent1q{number}{ADDRESS[8:]}")
    one = house(box)
    await play(one, "Say it again.", tools=(FunctionTool("ask_echo", "the client's own", {"type": "object"}),))
    assert [*offered(one)] == ["ask_echo", "ask_echo_2", "ask_echo_3", "ask_one"]


async def test_a_request_of_many_sentences_is_searched_for_as_a_whole() -> None:
    box = market()
    text = " ".join(f"Sentence {number}." for number in range(SEARCHES_MAX + 1))
    await play(house(box), text)
    assert box.searches == [text]


async def test_a_turn_is_offered_few_agents_however_many_there_are() -> None:
    box = Market()
    for number in range(3 * OFFERED_MAX):
        box.add(f"agent{number}", "hello", address=f"agent1q{number:02}{ADDRESS[9:]}")
    one = house(box)
    await play(one)
    assert 0 < len(offered(one)) <= OFFERED_MAX


async def test_nobody_is_searched_for_where_no_call_would_be_left_to_ask_with() -> None:
    box = market()
    one = house(box)
    await play(one, max_tool_calls=2)
    assert box.searches == []
    assert offered(one) == {}


async def test_where_nobody_is_found_the_model_is_offered_no_agent() -> None:
    one = house(Market())
    events = await play(one)
    assert offered(one) == {}
    assert text_of(events) == "No idea."


async def test_nobody_is_searched_for_where_the_user_has_addressed_an_agent() -> None:
    box = market()
    one = house(box)
    events = await play(one, f"@ferries {FERRY}")
    assert box.searches == []
    assert text_of(events) == "At 14:40."
    assert one.model.asked == []
