"""Calling functions: which one, when none, and how the arguments come about."""

from __future__ import annotations

import msgspec
import pytest

from convene.engine.base import EngineSettings
from convene.errors import BadRequest, Malformed, Unavailable
from convene.events import Began, CallDelta, Finished, Noticed, UsageReported
from convene.messages import FunctionTool, Message, ResponseFormat, ToolCall, ToolChoice
from convene.providers.base import Generation
from convene.providers.local_tools import (
    list_parameters,
    narrow_choices,
    only_arguments,
    shape_parameters,
    write_turns,
)
from convene.usage import Usage
from unit.providers.local_doubles import (
    FINISH,
    SUM,
    VECTORS,
    WEATHER,
    FakeEngine,
    TableEmbeddings,
    body_of,
    counts,
    gather,
    make_chat,
    reply,
    say,
    text_of,
)

TOOLS = (WEATHER, SUM, FINISH)
ROME = '{"city":"Rome"}'
CALLED = Message(role="assistant", tool_calls=(ToolCall("c1", "get_weather", ROME),))
RESULT = Message(role="tool", tool_call_id="c1", content='{"sky":"blue"}')
AFTER = (Message(role="user", content="weather in Rome?"), CALLED, RESULT)


@pytest.mark.req("TOOLS-02", "TOOLS-04", "OAI-12")
async def test_a_request_that_means_a_function_calls_it() -> None:
    chat, client = make_chat(reply(ROME))
    events, gathered = await gather(chat, say("weather in Rome?", tools=TOOLS))
    (call,) = gathered.choices[0].tool_calls
    assert (call.name, call.arguments) == ("get_weather", ROME)
    assert call.id.startswith("call_")
    assert [type(event) for event in events] == [Began, CallDelta, Finished, UsageReported]
    assert gathered.choices[0].finish == "tool_calls"
    assert text_of(gathered) == ""
    body = body_of(client.requests[0])
    assert body["temperature"] == 0.0
    assert body["max_tokens"] == 120
    assert '"city"' in str(body["grammar"])
    assert "tools" not in body
    assert "tool_choice" not in body


async def test_a_request_that_means_none_is_answered() -> None:
    chat, client = make_chat(reply("hello"))
    _events, gathered = await gather(chat, say("hi", tools=TOOLS))
    assert text_of(gathered) == "hello"
    assert gathered.choices[0].finish == "stop"
    assert "grammar" not in body_of(client.requests[0])


@pytest.mark.req("OAI-12")
async def test_none_calls_nothing_and_asks_for_no_vectors() -> None:
    embeddings = TableEmbeddings(VECTORS)
    chat, _client = make_chat(reply("hello"), embeddings=embeddings)
    _events, gathered = await gather(chat, say("weather?", tools=TOOLS, tool_choice=ToolChoice("none")))
    assert text_of(gathered) == "hello"
    assert not embeddings.calls


@pytest.mark.req("OAI-15")
async def test_a_named_function_is_called_exactly_once_whatever_was_said() -> None:
    chat, _client = make_chat(reply(ROME))
    choice = ToolChoice("named", name="get_weather")
    _events, gathered = await gather(chat, say("hi", tools=TOOLS, tool_choice=choice, parallel_tool_calls=False))
    assert [call.name for call in gathered.choices[0].tool_calls] == ["get_weather"]


async def test_a_name_that_is_no_tool_is_refused() -> None:
    chat, client = make_chat()
    with pytest.raises(BadRequest) as caught:
        await gather(chat, say("hi", tools=TOOLS, tool_choice=ToolChoice("named", name="fly")))
    assert caught.value.param == "tool_choice"
    assert not client.requests


@pytest.mark.req("OAI-13")
@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("named", name="f")])
async def test_a_choice_without_tools_counts_as_none(choice: ToolChoice) -> None:
    chat, _client = make_chat(reply("hello"))
    _events, gathered = await gather(chat, say("hi", tool_choice=choice))
    assert text_of(gathered) == "hello"


@pytest.mark.req("OAI-12")
async def test_allowed_narrows_the_tools() -> None:
    chat, _client = make_chat(reply('{"terms":[1]}'), reply("hello"))
    required = ToolChoice("required", allowed=("sum_up",))
    _events, gathered = await gather(chat, say("weather?", tools=TOOLS, tool_choice=required))
    assert gathered.choices[0].tool_calls[0].name == "sum_up"
    _events, gathered = await gather(chat, say("weather?", tools=TOOLS, tool_choice=ToolChoice(allowed=("sum_up",))))
    assert text_of(gathered) == "hello"


@pytest.mark.req("TOOLS-11")
async def test_required_always_calls() -> None:
    chat, _client = make_chat(reply(ROME))
    _events, gathered = await gather(chat, say("hello there", tools=TOOLS, tool_choice=ToolChoice("required")))
    assert len(gathered.choices[0].tool_calls) == 1


@pytest.mark.req("OAI-14")
@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "required": []},
    ],
)
async def test_a_tool_without_parameters_is_called_without_asking_the_model(
    parameters: dict[str, object] | None,
) -> None:
    chat, client = make_chat()
    tool = FunctionTool("finish", "", parameters)
    events, gathered = await gather(chat, say("finish now", tools=(tool,)))
    assert gathered.choices[0].tool_calls[0].arguments == "{}"
    assert events[-1] == UsageReported(Usage())
    assert not client.requests


@pytest.mark.req("OAI-14")
def test_odd_parameters_become_something_the_engine_holds() -> None:
    odd = shape_parameters(FunctionTool("f", "", {"type": "object", "properties": {"a": {"$ref": "https://x/y"}}}))
    assert odd is not None
    assert odd.starts == "{"
    scalar = shape_parameters(FunctionTool("f", "", {"type": "string"}))
    assert scalar is None or scalar.starts == "{"
    unique: dict[str, object] = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    assert shape_parameters(FunctionTool("f", "", unique)) is not None


# After a result.


@pytest.mark.req("TOOLS-06", "TOOLS-08")
@pytest.mark.parametrize("tools", [TOOLS, ()])
async def test_after_a_result_auto_answers_with_text(tools: tuple[FunctionTool, ...]) -> None:
    chat, client = make_chat(reply("It is sunny."))
    _events, gathered = await gather(chat, Generation(messages=AFTER, tools=tools))
    assert text_of(gathered) == "It is sunny."
    assert gathered.choices[0].finish == "stop"
    turns = body_of(client.requests[0])["messages"]
    assert isinstance(turns, list)
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]


@pytest.mark.req("TOOLS-11")
async def test_after_a_result_required_calls_what_this_round_has_not_called() -> None:
    chat, client = make_chat(reply('{"terms":[1]}'))
    generation = Generation(messages=AFTER, tools=(WEATHER, SUM), tool_choice=ToolChoice("required"))
    _events, gathered = await gather(chat, generation)
    assert gathered.choices[0].tool_calls[0].name == "sum_up"
    assert "get_weather returned" in str(body_of(client.requests[0])["messages"])


@pytest.mark.req("TOOLS-11")
async def test_required_survives_fifteen_rounds() -> None:
    messages: tuple[Message, ...] = (Message(role="user", content="weather in Rome?"),)
    called: list[str] = []
    for turn in range(15):
        chat, _client = make_chat(reply(ROME))
        generation = Generation(messages=messages, tools=(WEATHER, FINISH), tool_choice=ToolChoice("required"))
        _events, gathered = await gather(chat, generation)
        (call,) = gathered.choices[0].tool_calls
        called.append(call.name)
        call = msgspec.structs.replace(call, id=f"c{turn}")
        messages += (
            Message(role="assistant", tool_calls=(call,)),
            Message(role="tool", tool_call_id=call.id, content="ok"),
        )
    assert called[:2] == ["get_weather", "finish"]
    assert len(called) == 15


async def test_a_new_question_begins_a_new_round() -> None:
    chat, _client = make_chat(reply(ROME))
    messages = (*AFTER, Message(role="assistant", content="Sunny."), Message(role="user", content="weather again"))
    _events, gathered = await gather(chat, Generation(messages=messages, tools=TOOLS))
    assert gathered.choices[0].tool_calls[0].name == "get_weather"


# Arguments that fail.


async def test_arguments_cut_off_get_one_more_try_with_more_room() -> None:
    chat, client = make_chat(reply('{"city":"Ro', finish="length"), reply(ROME))
    _events, gathered = await gather(chat, say("weather in Rome?", tools=TOOLS))
    assert gathered.choices[0].tool_calls[0].arguments == ROME
    assert [body_of(request)["max_tokens"] for request in client.requests] == [120, 240]
    assert gathered.usage == Usage(20, 8, cached_tokens=12), "both tries were spent"


async def test_arguments_that_stay_invalid_under_auto_become_an_answer() -> None:
    chat, _client = make_chat(reply('{"town":3}'), reply("I cannot tell."))
    _events, gathered = await gather(chat, say("weather in Rome?", tools=TOOLS))
    assert not gathered.choices[0].tool_calls
    assert text_of(gathered) == "I cannot tell."
    assert gathered.usage == Usage(20, 8, cached_tokens=12)


async def test_text_without_a_grammar_is_no_call() -> None:
    chat, _client = make_chat(reply("Sure, Rome!"), reply("ok"))
    _events, gathered = await gather(chat, say("weather in Rome?", tools=TOOLS))
    assert text_of(gathered) == "ok"


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("named", name="get_weather")])
async def test_arguments_that_stay_invalid_where_a_call_is_owed_are_a_fault(choice: ToolChoice) -> None:
    chat, _client = make_chat(reply('{"ci', finish="length"), reply('{"ci', finish="length"))
    with pytest.raises(Malformed, match="get_weather"):
        await gather(chat, say("weather in Rome?", tools=(WEATHER,), tool_choice=choice))


async def test_a_required_call_that_cannot_be_filled_in_is_one_of_the_next_best_function() -> None:
    chat, _client = make_chat(reply('{"ci', finish="length"), reply('{"ci', finish="length"), reply("{}"))
    required = ToolChoice("required")
    _events, gathered = await gather(chat, say("weather in Rome?", tools=(WEATHER, FINISH), tool_choice=required))
    assert [call.name for call in gathered.choices[0].tool_calls] == [FINISH.name]
    assert gathered.usage is not None
    assert gathered.usage.completion_tokens >= 8, "the tries that failed are spent"


async def test_a_named_function_that_cannot_be_filled_in_is_no_other() -> None:
    chat, client = make_chat(reply('{"ci', finish="length"), reply('{"ci', finish="length"))
    with pytest.raises(Malformed, match="get_weather"):
        await gather(chat, say("weather?", tools=TOOLS, tool_choice=ToolChoice("named", name="get_weather")))
    assert len(client.requests) == 2


async def test_every_choice_gets_the_call_under_an_id_of_its_own() -> None:
    chat, client = make_chat(reply(ROME))
    _events, gathered = await gather(chat, say("weather in Rome?", tools=TOOLS, n=2))
    calls = [gathered.choices[choice].tool_calls[0] for choice in range(2)]
    assert calls[0].arguments == calls[1].arguments
    assert calls[0].id != calls[1].id
    assert len(client.requests) == 1


async def test_a_form_is_held_where_no_function_is_meant() -> None:
    chat, client = make_chat(reply("{}"))
    wanted = ResponseFormat(kind="json_object")
    await gather(chat, say("hello", tools=TOOLS, response_format=wanted))
    assert "grammar" in body_of(client.requests[0])


# Without vectors.


async def test_without_an_embedding_model_auto_answers_and_says_so() -> None:
    fault = Unavailable("The embedding model is loading.")
    for embeddings, chooser in ((TableEmbeddings(VECTORS, fault), True), (None, False)):
        chat, _client = make_chat(reply("hello"), embeddings=embeddings, chooser=chooser)
        events, gathered = await gather(chat, say("weather?", tools=TOOLS))
        assert text_of(gathered) == "hello"
        assert isinstance(events[0], Began)
        assert isinstance(events[1], Noticed)
        assert events[1].code == "tools_unavailable"


async def test_without_an_embedding_model_an_owed_choice_is_a_fault() -> None:
    chat, client = make_chat(embeddings=TableEmbeddings(VECTORS, Unavailable("The embedding model is loading.")))
    with pytest.raises(Unavailable, match="loading"):
        await gather(chat, say("weather?", tools=TOOLS, tool_choice=ToolChoice("required")))
    assert not client.requests


async def test_without_an_embedding_model_a_single_required_tool_is_called() -> None:
    chat, _client = make_chat(reply(ROME), chooser=False)
    _events, gathered = await gather(chat, say("weather?", tools=(WEATHER,), tool_choice=ToolChoice("required")))
    assert gathered.choices[0].tool_calls[0].arguments == ROME


# The prompt.


def test_parameters_are_listed_with_what_helps_most() -> None:
    properties = {
        "city": {"type": "string", "description": "City name"},
        "unit": {"enum": ["C", "F"], "description": "x"},
        "days": {"type": "integer"},
        "odd": True,
    }
    assert list_parameters({"properties": properties}) == "city (City name), unit (C or F), days (integer), odd"
    assert list_parameters({"$ref": "#/x"}) == '{"$ref":"#/x"}'


@pytest.mark.parametrize("letter", ["x", "東"])
async def test_long_requests_tools_and_results_are_cut_to_the_window(letter: str) -> None:
    tool = FunctionTool(
        "get_weather",
        letter * 9000,
        {"type": "object", "properties": {"city": {"type": "string", "description": letter * 9000}}},
    )
    messages = (
        Message(role="user", content="weather " + letter * 9000 + " the end"),
        CALLED,
        Message(role="tool", tool_call_id="c1", content=letter * 9000),
    )
    engine = FakeEngine(settings=EngineSettings(context_per_slot=8192))
    counted = () if letter.isascii() else counts(5000)
    chat, client = make_chat(*counted, reply(ROME), engine=engine)
    choice = ToolChoice("named", name="get_weather")
    await gather(chat, Generation(messages=messages, tools=(tool,), tool_choice=choice))
    turns = body_of(client.requests[-1])["messages"]
    assert isinstance(turns, list)
    assert len(turns[-1]["content"].encode()) < 8192 * 1.25
    assert "weather" in turns[-1]["content"]
    assert "the end" in turns[-1]["content"]


def test_results_in_the_prompt_are_data() -> None:
    messages = (*AFTER[:2], Message(role="tool", tool_call_id="c1", content="<|im_end|>"))
    assert "<|im_end|>" not in write_turns(WEATHER, "weather in Rome?", messages, 1000)[-1]["content"]


TWO = "What is the weather in Rome? What is the sum of 1 and 2?"


@pytest.mark.req("CHAT-15")
async def test_sentences_that_mean_different_functions_call_each_of_them_with_its_sentence() -> None:
    chat, client = make_chat(reply(ROME), reply('{"terms":[1,2]}'))
    events, gathered = await gather(chat, say(TWO, tools=TOOLS))
    calls = gathered.choices[0].tool_calls
    assert [(one.name, one.arguments) for one in calls] == [("get_weather", ROME), ("sum_up", '{"terms":[1,2]}')]
    assert len({one.id for one in calls}) == 2
    assert [type(event) for event in events] == [Began, CallDelta, CallDelta, Finished, UsageReported]
    assert events[-1] == UsageReported(Usage(20, 8, cached_tokens=12))
    asked = [str(body_of(request)["messages"]) for request in client.requests]
    assert ["Rome?" in one for one in asked] == [True, False]
    assert ["sum of 1" in one for one in asked] == [False, True]


@pytest.mark.req("CHAT-15")
async def test_without_parallel_calls_there_is_one_whatever_the_sentences_mean() -> None:
    chat, _client = make_chat(reply(ROME))
    _events, gathered = await gather(chat, say(TWO, tools=TOOLS, parallel_tool_calls=False))
    assert [one.name for one in gathered.choices[0].tool_calls] == ["get_weather"]


async def test_sentences_that_mean_the_same_function_call_it_once_with_all_of_the_request() -> None:
    chat, client = make_chat(reply(ROME))
    text = "I go to Rome. What is the weather there? Is the weather nice?"
    _events, gathered = await gather(chat, say(text, tools=TOOLS))
    assert len(gathered.choices[0].tool_calls) == 1
    assert "I go to Rome." in str(body_of(client.requests[0])["messages"])


async def test_a_call_whose_arguments_fail_leaves_the_others() -> None:
    chat, _client = make_chat(reply('{"city":', finish="stop"), reply('{"terms":[1,2]}'))
    _events, gathered = await gather(chat, say(TWO, tools=TOOLS))
    assert [one.name for one in gathered.choices[0].tool_calls] == ["sum_up"]


def choices(**texts: list[str]) -> dict[str, object]:
    """Return parameters that are choices among texts."""
    properties = {name: {"type": "string", "enum": values} for name, values in texts.items()}
    return {"type": "object", "properties": properties, "required": list(texts)}


def enums(parameters: dict[str, object]) -> dict[str, list[str]]:
    properties = parameters["properties"]
    assert isinstance(properties, dict)
    return {name: schema["enum"] for name, schema in properties.items()}


@pytest.mark.parametrize(
    ("request_text", "left"),
    [
        ("in Celsius, please", ["celsius"]),
        ("celsius or fahrenheit?", ["celsius", "fahrenheit"]),
        ("how warm is it?", ["celsius", "fahrenheit"]),
        ("the celsiuses", ["celsius", "fahrenheit"]),
    ],
)
def test_choices_are_held_to_those_that_the_request_names(request_text: str, left: list[str]) -> None:
    parameters = choices(unit=["celsius", "fahrenheit"], other=["a b", "c.d"])
    assert enums(narrow_choices(parameters, request_text)) == {"unit": left, "other": ["a b", "c.d"]}
    assert enums(parameters)["unit"] == ["celsius", "fahrenheit"], "the tool itself is as it was"


@pytest.mark.parametrize("parameters", [{}, {"properties": 3}, {"properties": {"a": 1, "b": {"enum": [1, None]}}}])
def test_parameters_without_choices_among_texts_stay_as_they_are(parameters: dict[str, object]) -> None:
    assert narrow_choices(parameters, "a 1 None") == parameters


async def test_where_one_choice_is_left_no_model_is_asked() -> None:
    sentences = ["What is the weather in Rome?", "What is the sum of 1 and 2?", TWO]
    tools = (
        msgspec.structs.replace(WEATHER, parameters=choices(message=sentences)),
        msgspec.structs.replace(SUM, parameters=choices(message=sentences)),
    )
    chat, client = make_chat()
    _events, gathered = await gather(chat, say(TWO, tools=tools))
    told = [msgspec.json.decode(one.arguments)["message"] for one in gathered.choices[0].tool_calls]
    assert told == sentences[:2]
    assert not client.requests


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        (choices(a=["x"], b=["ü"]), '{"a": "x", "b": "ü"}'),
        (choices(a=["x", "y"]), None),
        (choices(), None),
        ({"properties": {"a": {"enum": ["x"]}}, "required": []}, None),
        ({"properties": {"a": {"enum": [1]}}, "required": ["a"]}, None),
        ({"properties": {"a": True}, "required": ["a"]}, None),
        ({"required": ["a"]}, None),
    ],
)
def test_arguments_are_known_only_where_nothing_is_to_be_chosen(
    parameters: dict[str, object], arguments: str | None
) -> None:
    assert only_arguments(parameters) == arguments
