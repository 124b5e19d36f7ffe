"""A model that cannot call tools is asked for its next move as JSON; what it says is never shown."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest

from convene.events import CallDelta, Noticed, StepChanged, TextDelta
from convene.messages import Message, ResponseFormat
from convene.providers.base import Capabilities
from convene.serving.terms import AgenticTerms
from convene.serving.tool_talk import Move, move_schema, read_move
from unit.serving.agent_doubles import House, Rounds, says, text_of

NO_TOOLS = Capabilities(tools=False)


def move(action: str, tool: str = "", **arguments: object) -> str:
    return json.dumps({"action": action, "tool": tool, "arguments": arguments})


async def test_such_a_model_calls_by_json_reads_the_result_and_then_answers_in_plain_words() -> None:
    model = Rounds(says(move("call", "weather", city="Rome")), says(move("answer")), says("Sunny."), can=NO_TOOLS)
    house = House(model)
    events = await house.play()
    assert text_of(events) == "Sunny."
    assert house.tool.asked == [{"city": "Rome"}]
    assert not any(isinstance(event, CallDelta) for event in events)
    first, second, answer = model.asked
    assert first.tools == answer.tools == ()
    assert first.response_format.kind == "json_schema"
    assert (first.sampling.temperature, first.sampling.max_tokens) == (0.0, 1024)
    assert answer.response_format.kind == "text"
    head = first.messages[0]
    assert head.role == "system"
    assert "- weather: Returns what weather is about." in head.text()
    told = second.messages[-1]
    assert told.role == "user"
    assert "It is sunny in Rome." in told.text()
    assert [message.role for message in answer.messages] == ["user", "assistant", "user", "user"]
    assert answer.messages[-1].text() == "Now answer my request."


async def test_a_model_that_needs_no_tool_is_asked_for_its_answer_as_it_stands() -> None:
    model = Rounds(says(move("answer")), says("Hello."), can=NO_TOOLS)
    house = House(model)
    assert text_of(await house.play()) == "Hello."
    assert [message.role for message in model.asked[1].messages] == ["user"]


@pytest.mark.parametrize("written", ["", "no json", '{"action":"dance"}', "[1]", '{"action":"call","arguments":3}'])
async def test_what_is_no_move_counts_as_wanting_to_answer(written: str) -> None:
    model = Rounds(says(written), says("Hello."), can=NO_TOOLS)
    assert text_of(await House(model).play()) == "Hello."
    assert read_move(written) is None


async def test_wrong_arguments_are_told_and_may_be_mended() -> None:
    model = Rounds(
        says(move("call", "weather", town="Rome")),
        says(move("call", "weather", city="Rome")),
        says(move("answer")),
        says("Sunny."),
        can=NO_TOOLS,
    )
    house = House(model)
    assert text_of(await house.play()) == "Sunny."
    assert "The arguments are not valid" in model.asked[1].messages[-1].text()
    assert house.tool.asked == [{"city": "Rome"}]


async def test_the_clients_form_of_the_answer_is_asked_for_in_the_answer_alone() -> None:
    wanted = ResponseFormat("json_schema", "mine", {"type": "object"})
    model = Rounds(says(move("answer")), says("{}"), can=NO_TOOLS)
    house = House(model)
    await house.play(house.turn(response_format=wanted))
    assert model.asked[0].response_format.name == "move"
    assert model.asked[1].response_format == wanted


async def test_endless_moves_end_at_the_ceiling_with_an_answer() -> None:
    model = Rounds(
        says(move("call", "weather", city="Rome")),
        says(move("call", "weather", city="Oslo")),
        says(move("call", "weather", city="Bonn")),
        says("Enough."),
        can=NO_TOOLS,
    )
    house = House(model, agentic=AgenticTerms(calls=2))
    events = await house.play()
    assert text_of(events).startswith("Enough.\n\nI stopped here: this turn has reached its ceiling of 2 tool calls.")
    assert len(house.tool.asked) == 2
    assert "was not run: no tool calls are left" in model.asked[3].messages[-2].text()


async def test_moves_are_steps_without_text_of_their_own() -> None:
    model = Rounds(says(move("answer")), says("Hello."), can=NO_TOOLS)
    events = await House(model).play()
    ended = [event for event in events if isinstance(event, StepChanged) and event.status == "done"]
    assert [step.summary for step in ended] == ["Choosing the next step", ""]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hello."]


async def test_a_model_without_tools_and_without_json_answers_alone_and_says_so() -> None:
    model = Rounds(says("Hello."), can=Capabilities(tools=False, json_schema=False))
    events = await House(model).play()
    assert text_of(events) == "Hello."
    assert [event.code for event in events if isinstance(event, Noticed)] == ["server_tools_unavailable"]


def test_the_schema_of_a_move_takes_the_tools_that_there_are_and_no_others() -> None:
    valid = jsonschema_rs.validator_for(move_schema(["a", "b"])).is_valid
    assert valid({"action": "call", "tool": "a", "arguments": {"x": 1}})
    assert valid({"action": "answer", "tool": "", "arguments": {}})
    assert not valid({"action": "call", "tool": "c", "arguments": {}})
    assert not valid({"action": "call", "tool": "a", "arguments": {}, "more": 1})


def test_a_move_is_read_as_it_was_written() -> None:
    assert read_move(move("call", "a", x=1)) == Move("call", "a", {"x": 1})
    assert read_move('{"action":"answer"}') == Move("answer")


async def test_instructions_of_the_client_stay_before_the_manual() -> None:
    model = Rounds(says(move("answer")), says("Hello."), can=NO_TOOLS)
    house = House(model)
    await house.play(
        house.turn(Message(role="system", content="Be kind."), Message(role="user", content="Is it sunny?"))
    )
    assert model.asked[0].messages[0].text().startswith("Be kind.\n\nYou can use tools.")
    assert model.asked[1].messages[0].text() == "Be kind."
