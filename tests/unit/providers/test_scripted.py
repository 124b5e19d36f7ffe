"""The scripted models: the order of events, and each thing a request may ask of a model."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.errors import BadRequest, ConveneError, Malformed, Rejected, TimedOut, Unavailable
from convene.events import (
    Began,
    CallDelta,
    Event,
    Finished,
    Fold,
    ReasoningDelta,
    TextDelta,
    UsageReported,
    fold,
)
from convene.messages import (
    FunctionTool,
    ImagePart,
    Message,
    OpaquePart,
    ResponseFormat,
    TextPart,
    ToolCall,
    ToolChoice,
)
from convene.providers.base import Generation, Sampling
from convene.providers.scripted import ScriptedChat, ScriptedEmbeddings, ScriptedSettings, catalogue
from convene.providers.scripted_pieces import split_tokens
from convene.providers.scripted_scripts import Call, Fail, Pause, Play, Say, Spend, Step, Think, Turn, load_scripts
from convene.usage import Usage
from fakes import FakeClock
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from convene.providers.base import ChatModel, EmbeddingModel

CITY: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = FunctionTool("get_weather", "Look at the sky", CITY)
CLOCK = FunctionTool("get_time", "Look at the clock")
BOOK = FunctionTool("book", "Book it", {"type": "object", "properties": {}})


def user(text: str) -> Message:
    return Message(role="user", content=text)


def asking(*messages: Message | str, **options: object) -> Generation:
    spoken = tuple(user(m) if isinstance(m, str) else m for m in messages)
    return Generation(messages=spoken, **options)  # type: ignore[arg-type]


def model(name: str) -> ScriptedChat:
    return catalogue(FakeClock(), ScriptedSettings(enabled=True, slow_pause_s=0.0))[name]


def playing(*steps: Step) -> ScriptedChat:
    return ScriptedChat("play", Play((Turn(steps),)), FakeClock())


async def gather(chat: ScriptedChat, generation: Generation) -> list[Event]:
    return [event async for event in chat.generate(generation)]


async def answer(chat: ScriptedChat, generation: Generation) -> Fold:
    return fold(await gather(chat, generation))


async def say(chat: ScriptedChat, generation: Generation) -> str:
    return "".join((await answer(chat, generation)).choice(0).text)


async def fail(chat: ScriptedChat, generation: Generation) -> tuple[list[Event], ConveneError]:
    """Return the events before the fault, and the fault."""
    events: list[Event] = []
    try:
        async for event in chat.generate(generation):
            events.append(event)  # noqa: PERF401 - a comprehension would lose them with the fault
    except ConveneError as fault:
        return events, fault
    pytest.fail("the model did not fail")


# Which models there are


def test_there_are_no_scripted_models_unless_they_are_switched_on() -> None:
    assert catalogue(FakeClock(), ScriptedSettings()) == {}


def test_every_scripted_model_stands_ready_and_names_its_upstream() -> None:
    models: Mapping[str, ChatModel] = catalogue(FakeClock(), ScriptedSettings(enabled=True))
    assert set(models) == {
        "scripted-echo",
        "scripted-slow",
        "scripted-flaky",
        "scripted-tools",
        "scripted-think",
        "scripted-fail-before",
        "scripted-fail-after",
    }
    for name, chat in models.items():
        assert (chat.ready(), chat.upstream) == (None, "scripted"), name
        assert chat.capabilities.tools
    vectors: EmbeddingModel = ScriptedEmbeddings()
    assert (vectors.ready(), vectors.upstream) == (None, "scripted")


# Echo, and the order of events


async def test_echo_says_the_last_user_text_word_by_word_in_the_order_of_the_contract() -> None:
    history = [user("first"), Message(role="assistant", content="second"), user("Good morning,\n world ")]
    assert await gather(model("scripted-echo"), asking(*history)) == [
        Began("scripted", "scripted-echo", "fp_scripted"),
        TextDelta("Good"),
        TextDelta(" morning,"),
        TextDelta("\n world"),
        TextDelta(" "),
        Finished("stop"),
        UsageReported(Usage(prompt_tokens=6, completion_tokens=4)),
    ]


@pytest.mark.parametrize("messages", [(user(""),), (Message(role="system", content="Be brief."),), ()])
async def test_echo_of_nothing_still_has_content(messages: tuple[Message, ...]) -> None:
    assert await say(model("scripted-echo"), asking(*messages)) == "(empty message)"


async def test_echo_marks_the_parts_that_are_not_text() -> None:
    parts = (TextPart("Look:"), ImagePart("data:image/png;base64,AA"), OpaquePart("input_audio", {"data": "AA"}))
    message = Message(role="user", content=parts)
    assert await say(model("scripted-echo"), asking(message)) == "Look: [input_audio] [image]"
    assert await say(model("scripted-echo"), asking(Message(role="user", content=parts[1:2]))) == "[image]"


@given(st.text())
def test_the_tokens_of_a_text_joined_are_the_text(text: str) -> None:
    tokens = split_tokens(text)
    assert "".join(tokens) == text
    assert all(tokens)


async def test_two_calls_with_the_same_conversation_get_the_same_events() -> None:
    for name in ("scripted-echo", "scripted-think"):
        chat = model(name)
        asked = asking("Once more", n=2)
        assert await gather(chat, asked) == await gather(chat, asked)


@pytest.mark.req("OAI-19")
async def test_each_of_n_choices_is_whole_and_finished_once() -> None:
    events = await gather(model("scripted-think"), asking("one two", n=3))
    got = fold(events)
    assert sorted(got.choices) == [0, 1, 2]
    assert {"".join(choice.text) for choice in got.choices.values()} == {"one two"}
    assert {"".join(choice.reasoning) for choice in got.choices.values()} != {""}
    assert [event.choice for event in events if isinstance(event, Finished)] == [0, 1, 2]
    assert sum(isinstance(event, Began) for event in events) == 1
    assert isinstance(events[-1], UsageReported)
    assert events[-1].usage.completion_tokens == 3 * (2 + 9)


# Sampling


@pytest.mark.req("OAI-18")
@pytest.mark.parametrize(
    ("stop", "said"),
    [
        ((" three",), "one two"),
        (("o t",), "one tw"),
        (("four", "two"), "one "),
        (("one",), ""),
        (("five",), "one two three"),
        (("",), "one two three"),
    ],
)
async def test_a_stop_string_ends_the_text_before_it(stop: tuple[str, ...], said: str) -> None:
    got = await answer(model("scripted-echo"), asking("one two three", sampling=Sampling(stop=stop)))
    assert "".join(got.choice(0).text) == said
    assert got.choice(0).finish == "stop"


@pytest.mark.req("OAI-18")
async def test_a_stop_string_over_two_steps_ends_the_text_and_all_that_follows() -> None:
    chat = playing(Say("begin en"), Pause(0), Say("d here"), Call("f", "{}"), Fail("malformed"))
    got = await answer(chat, asking("x", sampling=Sampling(stop=("end",))))
    assert "".join(got.choice(0).text) == "begin "
    assert (got.choice(0).finish, got.choice(0).tool_calls) == ("stop", ())


@given(st.text("ab \n", max_size=40), st.lists(st.text("ab ", min_size=1, max_size=3), max_size=4))
@settings(deadline=None)
def test_no_stop_string_is_ever_in_the_output_and_nothing_before_it_is_lost(text: str, stops: list[str]) -> None:
    async def scene(_: World) -> str:
        return await say(playing(Say(text)), asking("x", sampling=Sampling(stop=tuple(stops))))

    said = run(scene, 0)
    assert text.startswith(said)
    assert not any(stop in said for stop in stops)
    assert said == text or any(text.startswith(stop, len(said)) for stop in stops)


@pytest.mark.req("OAI-43")
@pytest.mark.parametrize(
    ("limit", "said", "reason"),
    [(1, "one", "length"), (2, "one two", "length"), (3, "one two three", "stop"), (None, "one two three", "stop")],
)
async def test_the_token_limit_cuts_after_so_many_words(limit: int | None, said: str, reason: str) -> None:
    got = await answer(model("scripted-echo"), asking("one two three", sampling=Sampling(max_tokens=limit)))
    assert ("".join(got.choice(0).text), got.choice(0).finish) == (said, reason)
    assert got.usage is not None
    assert got.usage.completion_tokens == len(said.split())


@pytest.mark.req("CHAT-07")
async def test_reasoning_counts_as_completion_and_against_the_limit() -> None:
    chat = playing(Think("let me see"), Say("four"))
    whole = await answer(chat, asking("two and two"))
    assert whole.usage == Usage(prompt_tokens=3, completion_tokens=4, reasoning_tokens=3)
    cut = await answer(chat, asking("two and two", sampling=Sampling(max_tokens=2)))
    assert ("".join(cut.choice(0).reasoning), cut.choice(0).text) == ("let me", [])
    assert (cut.choice(0).finish, cut.usage) == ("length", Usage(3, 2, 2))


@pytest.mark.req("OAI-21")
async def test_logprobs_name_every_token_and_joined_they_are_the_text() -> None:
    sampling = Sampling(logprobs=True, top_logprobs=3, stop=("ße",))
    got = (await answer(model("scripted-echo"), asking("Eine lange Straße", sampling=sampling))).choice(0)
    assert "".join(entry.token for entry in got.logprobs) == "".join(got.text) == "Eine lange Stra"
    for entry in got.logprobs:
        assert bytes(entry.bytes or []).decode() == entry.token
        assert entry.logprob == 0.0
        assert [(rival.token, rival.logprob) for rival in entry.top_logprobs] == [(entry.token, 0.0)]


@pytest.mark.req("OAI-21")
async def test_there_are_no_logprobs_unasked_and_no_rivals_for_none() -> None:
    assert (await answer(model("scripted-echo"), asking("a b"))).choice(0).logprobs == []
    got = await answer(model("scripted-echo"), asking("a b", sampling=Sampling(logprobs=True, top_logprobs=0)))
    assert [entry.top_logprobs for entry in got.choice(0).logprobs] == [(), ()]


async def test_usage_counts_the_words_of_messages_calls_and_results() -> None:
    called = Message(role="assistant", tool_calls=(ToolCall("c", "f", '{"a": 1}'),))
    result = Message(role="tool", content="three words here", tool_call_id="c")
    got = await answer(model("scripted-echo"), asking("two words", called, result))
    assert got.usage == Usage(prompt_tokens=2 + 3 + 3, completion_tokens=2)


# Thinking, slowness, failing


@pytest.mark.req("OAI-48")
async def test_the_thinking_model_keeps_its_reasoning_out_of_the_text() -> None:
    events = await gather(model("scripted-think"), asking("two words"))
    kinds = [type(event) for event in events]
    assert kinds.index(ReasoningDelta) < kinds.index(TextDelta)
    got = fold(events).choice(0)
    assert "".join(got.text) == "two words"
    assert "".join(got.reasoning) == "The user wrote 2 words. I shall repeat them."


def test_the_slow_model_pauses_after_each_word() -> None:
    async def scene(world: World) -> list[tuple[float, str]]:
        chat = catalogue(world.clock, ScriptedSettings(enabled=True, slow_pause_s=0.25))["scripted-slow"]
        events = chat.generate(asking("one two three"))
        return [(world.clock.monotonic(), type(event).__name__) async for event in events]

    assert run(scene, 1) == [
        (0.0, "Began"),
        (0.0, "TextDelta"),
        (0.25, "TextDelta"),
        (0.5, "TextDelta"),
        (0.75, "Finished"),
        (0.75, "UsageReported"),
    ]


def test_a_pause_before_the_first_word_keeps_back_the_first_event() -> None:
    async def scene(world: World) -> float:
        chat = ScriptedChat("late", Play((Turn((Pause(30.0), Say("now"))),)), world.clock)
        async with aclosing(chat.generate(asking("x"))) as events:
            assert isinstance(await anext(events), Began)
            return world.clock.monotonic()

    assert run(scene, 1) == 30.0


def test_a_cancelled_generation_ends_in_the_middle_of_a_pause() -> None:
    async def scene(world: World) -> tuple[int, float]:
        chat = ScriptedChat("slow", Play((Turn((Say("word " * 100),)),)), world.clock, pause_s=1.0)
        seen: list[Event] = []

        async def read() -> None:
            async with aclosing(chat.generate(asking("x"))) as events:
                async for event in events:
                    seen.append(event)  # noqa: PERF401 - a comprehension would lose them when it is cancelled

        reader = asyncio.create_task(read())
        await asyncio.sleep(5.5)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        return len(seen), world.clock.monotonic()

    assert run(scene, 1) == (1 + 6, 5.5)


async def test_a_closed_generation_says_no_more() -> None:
    events = model("scripted-echo").generate(asking("one two three"))
    await anext(events)
    assert await anext(events) == TextDelta("one")
    await events.aclose()
    assert [event async for event in events] == []


async def test_a_long_answer_lets_other_tasks_run() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        for _ in range(100):
            ticks += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(tick())
    await say(model("scripted-echo"), asking("word " * 640))
    assert ticks >= 10
    await other


@pytest.mark.parametrize(("seed", "pattern"), [(0, "..x..x"), (1, ".x..x."), (2, "x..x..")])
async def test_the_flaky_model_answers_one_call_in_three_by_a_fixed_pattern(seed: int, pattern: str) -> None:
    chat = catalogue(FakeClock(), ScriptedSettings(enabled=True, flaky_seed=seed))["scripted-flaky"]
    outcomes = ""
    for _ in pattern:
        try:
            outcomes += "x" if await say(chat, asking("hello")) == "hello" else "?"
        except Unavailable:
            outcomes += "."
    assert outcomes == pattern


async def test_the_flaky_model_fails_without_any_event() -> None:
    events, fault = await fail(model("scripted-flaky"), asking("hello"))
    assert (events, type(fault)) == ([], Unavailable)


async def test_one_model_fails_before_and_one_after_the_first_words() -> None:
    before, fault = await fail(model("scripted-fail-before"), asking("hello"))
    assert (before, type(fault)) == ([], Unavailable)
    after, fault = await fail(model("scripted-fail-after"), asking("hello"))
    assert [type(event) for event in after] == [Began, TextDelta, TextDelta, TextDelta]
    assert isinstance(fault, Malformed)
    assert "'scripted-fail-after'" in fault.message


# Tools


@pytest.mark.req("OAI-15", "CHAT-15")
@pytest.mark.parametrize(
    ("options", "called"),
    [
        ({}, ["get_weather", "get_time"]),
        ({"parallel_tool_calls": True}, ["get_weather", "get_time"]),
        ({"parallel_tool_calls": False}, ["get_weather"]),
        ({"tool_choice": ToolChoice("required")}, ["get_weather", "get_time"]),
        ({"tool_choice": ToolChoice("required"), "parallel_tool_calls": False}, ["get_weather"]),
        ({"tool_choice": ToolChoice("named", name="book")}, ["book"]),
        ({"tool_choice": ToolChoice("named", name="book"), "parallel_tool_calls": False}, ["book"]),
        ({"tool_choice": ToolChoice("auto", allowed=("book", "get_time"))}, ["get_time", "book"]),
        ({"tool_choice": ToolChoice("required", allowed=("book",))}, ["book"]),
        ({"tool_choice": ToolChoice("none")}, []),
        ({"tools": (WEATHER,)}, ["get_weather"]),
    ],
)
async def test_the_tool_model_calls_what_the_choice_allows(options: dict[str, object], called: list[str]) -> None:
    asked = asking("Berlin", **{"tools": (WEATHER, CLOCK, BOOK), **options})
    got = (await answer(model("scripted-tools"), asked)).choice(0)
    assert [call.name for call in got.tool_calls] == called
    assert got.finish == ("tool_calls" if called else "stop")
    assert "".join(got.text) == ("" if called else "Berlin")


@pytest.mark.req("OAI-13")
@pytest.mark.parametrize("mode", ["required", "named"])
async def test_a_choice_without_tools_demands_nothing(mode: str) -> None:
    choice = ToolChoice(mode, name="f" if mode == "named" else None)  # type: ignore[arg-type]
    for name in ("scripted-tools", "scripted-echo"):
        assert await say(model(name), asking("Berlin", tool_choice=choice)) == "Berlin"


async def test_arguments_are_valid_and_carry_the_user_text() -> None:
    got = (await answer(model("scripted-tools"), asking("Bad Honnef", tools=(WEATHER, CLOCK)))).choice(0)
    assert [json.loads(call.arguments) for call in got.tool_calls] == [{"city": "Bad Honnef"}, {}]


@pytest.mark.req("SSE-08")
async def test_a_calls_id_and_name_come_once_and_ids_differ_between_calls_and_choices() -> None:
    events = await gather(model("scripted-tools"), asking("Bad Honnef", tools=(WEATHER, BOOK), n=2))
    pieces = [event for event in events if isinstance(event, CallDelta)]
    opened = [(piece.choice, piece.index, piece.name) for piece in pieces if piece.name is not None]
    assert sorted(opened) == [(c, i, n) for c in (0, 1) for i, n in ((0, "get_weather"), (1, "book"))]
    ids = [piece.id for piece in pieces if piece.id is not None]
    assert len(set(ids)) == len(ids) == len(opened)
    assert all(call_id.startswith("call_") for call_id in ids)
    assert all((piece.id is None) == (piece.name is None) for piece in pieces)
    assert len(pieces) > len(opened) + 2


async def test_with_results_the_tool_model_quotes_them() -> None:
    first = await answer(model("scripted-tools"), asking("Berlin", tools=(WEATHER, CLOCK)))
    calls = first.choice(0).tool_calls
    results = [Message(role="tool", content=f"{call.name} says 7", tool_call_id=call.id) for call in calls]
    asked = asking("Berlin", Message(role="assistant", tool_calls=calls), *results, tools=(WEATHER, CLOCK))
    got = (await answer(model("scripted-tools"), asked)).choice(0)
    assert "".join(got.text) == 'The tools answered: "get_weather says 7"; "get_time says 7"'
    assert got.finish == "stop"


async def test_results_of_an_earlier_question_do_not_answer_the_new_one() -> None:
    old = (Message(role="tool", content="sun", tool_call_id="c"), Message(role="assistant", content="Sun."))
    got = (await answer(model("scripted-tools"), asking("Berlin", *old, "And Rome?", tools=(WEATHER,)))).choice(0)
    assert [json.loads(call.arguments) for call in got.tool_calls] == [{"city": "And Rome?"}]


async def test_a_demanded_call_is_made_even_with_results_and_by_models_that_only_talk() -> None:
    result = Message(role="tool", content="sun", tool_call_id="c")
    must = ToolChoice("required")
    for name in ("scripted-tools", "scripted-echo", "scripted-think"):
        asked = asking("Berlin", result, tools=(WEATHER,), tool_choice=must)
        got = (await answer(model(name), asked)).choice(0)
        assert [call.name for call in got.tool_calls] == ["get_weather"]
        assert got.finish == "tool_calls"


async def test_a_named_tool_that_is_not_there_is_the_callers_fault() -> None:
    asked = asking("x", tools=(WEATHER,), tool_choice=ToolChoice("named", name="nobody"))
    events, fault = await fail(model("scripted-tools"), asked)
    assert (events, type(fault), fault.param) == ([], BadRequest, "tool_choice")


async def test_a_tool_whose_schema_cannot_be_filled_is_the_callers_fault() -> None:
    odd = FunctionTool("odd", "", {"type": "object", "properties": {"a": False}, "required": ["a"]})
    events, fault = await fail(model("scripted-tools"), asking("x", tools=(odd,)))
    assert (events, type(fault), fault.param) == ([], BadRequest, "tools")
    assert "'odd'" in fault.message


async def test_the_token_limit_cuts_a_call_short() -> None:
    asked = asking("Bad Honnef", tools=(WEATHER,), sampling=Sampling(max_tokens=2))
    got = (await answer(model("scripted-tools"), asked)).choice(0)
    assert got.finish == "length"
    assert [call.arguments for call in got.tool_calls] == ['{"city":']


# Structured output

PERSON: dict[str, object] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 18}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.req("OAI-16", "OAI-17")
@pytest.mark.parametrize("name", ["scripted-echo", "scripted-slow", "scripted-tools", "scripted-think"])
async def test_every_model_that_talks_fills_the_schema_it_is_given(name: str) -> None:
    shape = ResponseFormat("json_schema", schema=PERSON)
    assert json.loads(await say(model(name), asking("Ada", response_format=shape))) == {"name": "Ada", "age": 18}


@pytest.mark.req("OAI-16")
async def test_a_json_object_holds_the_text_and_text_of_the_right_form_stays() -> None:
    anything = ResponseFormat("json_object")
    assert json.loads(await say(model("scripted-echo"), asking("Ada", response_format=anything))) == {"text": "Ada"}
    own = '{"name":"Bo","age":40}'
    for shape in (anything, ResponseFormat("json_schema", schema=PERSON)):
        assert await say(model("scripted-echo"), asking(own, response_format=shape)) == own
    assert json.loads(await say(model("scripted-echo"), asking("[1]", response_format=anything))) == {"text": "[1]"}


async def test_reasoning_stays_beside_structured_text() -> None:
    chat = playing(Say("not "), Think("hm"), Say("json"))
    got = await answer(chat, asking("Ada", response_format=ResponseFormat("json_schema", schema=PERSON)))
    assert json.loads("".join(got.choice(0).text)) == {"name": "Ada", "age": 18}
    assert got.choice(0).reasoning == ["hm"]


@pytest.mark.req("OAI-17")
@pytest.mark.parametrize("schema", [{"type": "strin"}, {"$ref": "http://127.0.0.1:1/x"}, {"not": {}}])
async def test_a_schema_that_cannot_be_filled_is_the_callers_fault(schema: dict[str, object]) -> None:
    asked = asking("x", response_format=ResponseFormat("json_schema", schema=schema))
    events, fault = await fail(model("scripted-echo"), asked)
    assert (events, type(fault), fault.param) == ([], BadRequest, "response_format")


async def test_a_model_that_is_to_fail_fails_whatever_the_form() -> None:
    asked = asking("x", response_format=ResponseFormat("json_object"))
    assert isinstance((await fail(model("scripted-fail-before"), asked))[1], Unavailable)
    assert isinstance((await fail(model("scripted-fail-after"), asked))[1], Malformed)


# Written scripts


async def test_turns_are_taken_in_the_order_of_the_assistants_messages_and_the_last_repeats() -> None:
    chat = ScriptedChat("play", Play((Turn((Say("one"),)), Turn((Say("two"),)))), FakeClock())
    history: list[Message] = []
    said = []
    for _ in range(3):
        history.append(user("next"))
        said.append(await say(chat, asking(*history)))
        history.append(Message(role="assistant", content=said[-1]))
    assert said == ["one", "two", "two"]


async def test_a_turn_with_a_matching_word_goes_first_and_its_second_answers_the_result() -> None:
    turns = (
        Turn((Say("hello"),)),
        Turn((Call("get_weather", '{"city": "Bonn"}'),), when="weather"),
        Turn((Say("It rains."),), when="weather"),
    )
    chat = ScriptedChat("play", Play(turns), FakeClock())
    before = (user("hi"), Message(role="assistant", content="hello"))
    question = "What weather is it?"
    assert await say(chat, asking("hi")) == "hello"
    first = (await answer(chat, asking(*before, question, tools=(WEATHER,)))).choice(0)
    assert first.tool_calls == (ToolCall(first.tool_calls[0].id, "get_weather", '{"city": "Bonn"}'),)
    result = Message(role="tool", content="rain", tool_call_id="c")
    called = Message(role="assistant", tool_calls=first.tool_calls)
    assert await say(chat, asking(*before, question, called, result)) == "It rains."


async def test_without_any_match_the_last_turn_is_played() -> None:
    chat = ScriptedChat("play", Play((Turn((Say("a"),), "x"), Turn((Say("b"),), "y"))), FakeClock())
    assert await say(chat, asking("neither")) == "b"


async def test_a_play_may_report_its_own_usage_and_break_its_own_arguments() -> None:
    usage = Usage(prompt_tokens=1000, completion_tokens=5, cached_tokens=900)
    got = await answer(playing(Call("f", '{"a": '), Spend(usage)), asking("x", tools=(BOOK,)))
    assert got.usage == usage
    assert [call.arguments for call in got.choice(0).tool_calls] == ['{"a": ']


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("unavailable", Unavailable),
        ("timed_out", TimedOut),
        ("rejected", Rejected),
        ("malformed", Malformed),
        ("bad_request", BadRequest),
    ],
)
async def test_a_fail_step_raises_the_fault_it_names(code: str, kind: type[ConveneError]) -> None:
    events, fault = await fail(playing(Say("a"), Fail(code)), asking("x"))
    assert ([type(event) for event in events], type(fault), fault.detail) == ([Began, TextDelta], kind, code)


async def test_a_play_that_says_nothing_still_keeps_the_order_of_events() -> None:
    events = await gather(playing(), asking("x"))
    assert [type(event) for event in events] == [Began, Finished, UsageReported]


async def test_calls_of_a_play_are_left_out_when_the_caller_wants_none() -> None:
    asked = asking("x y", tools=(BOOK,), tool_choice=ToolChoice("none"))
    assert await say(playing(Say("talk"), Call("book", "{}")), asked) == "talk"
    assert await say(playing(Call("book", "{}")), asked) == "x y"


TOML = """
[[models]]
name = "guide"

[[models.turns]]
when = "weather"
steps = [
  { reasoning = "I need the sky." },
  { call = { name = "get_weather", args = { city = "Köln" } } },
  { call = { name = "get_time", args = "{broken" } },
]

[[models.turns]]
steps = [{ pause_s = 0 }, { text = "Hello" }, { usage = { prompt_tokens = 7 } }]

[[models]]
name = "broken"
turns = [{ steps = [{ fail = "timed_out" }] }]
"""

PLAYS = {
    "guide": (
        Turn(
            (Think("I need the sky."), Call("get_weather", '{"city": "Köln"}'), Call("get_time", "{broken")),
            "weather",
        ),
        Turn((Pause(0), Say("Hello"), Spend(Usage(prompt_tokens=7)))),
    ),
    "broken": (Turn((Fail("timed_out"),)),),
}


def test_a_play_without_turns_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one turn"):
        Play(())


def test_scripts_are_read_from_toml_and_from_json(tmp_path: Path) -> None:
    toml = tmp_path / "scripts.toml"
    toml.write_text(TOML)
    assert {name: play.turns for name, play in load_scripts(toml).items()} == PLAYS
    other = tmp_path / "scripts.json"
    other.write_text(json.dumps({"models": [{"name": "a", "turns": [{"steps": [{"text": "b"}]}]}]}))
    assert load_scripts(other)["a"].turns == (Turn((Say("b"),)),)


async def test_written_models_stand_beside_those_that_ship(tmp_path: Path) -> None:
    path = tmp_path / "scripts.toml"
    path.write_text(TOML)
    models = catalogue(FakeClock(), ScriptedSettings(enabled=True, scripts=path))
    assert {"guide", "broken", "scripted-echo"} < set(models)
    assert await say(models["guide"], asking("hi")) == "Hello"
    path.write_text(TOML.replace('"guide"', '"scripted-echo"'))
    with pytest.raises(ValueError, match=r"scripts\.toml: models: 'scripted-echo' ships"):
        catalogue(FakeClock(), ScriptedSettings(enabled=True, scripts=path))


STEPS = '[[models]]\nname = "a"\nturns = [{ steps = [%s] }]'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models = 3", r"\$\.models"),
        ("modles = []", "modles"),
        ("[[models", "at end of document"),
        ('[[models]]\nname = "a"', "turns"),
        ('[[models]]\nname = "a"\nturns = []', r"models\[0\]\.turns: needs at least one turn"),
        ('[[models]]\nname = ""\nturns = [{ steps = [] }]', r"models\[0\]\.name: '' is empty or taken"),
        (f"{STEPS % ''}\n{STEPS % ''}", r"models\[1\]\.name: 'a' is empty or taken"),
        (STEPS % '{ txt = "x" }', r"txt.*\$\.models\[.*\]\.turns\[.*\]\.steps"),
        (STEPS % '{ text = "x" }, {}', r"models\[0\]\.turns\[0\]\.steps\[1\]: a step has exactly one of text"),
        (STEPS % '{ text = "x", fail = "rejected" }', r"steps\[0\]: a step has exactly one of"),
        (STEPS % '{ fail = "boom" }', r"steps\[0\]\.fail: 'boom' is none of unavailable"),
        (STEPS % "{ pause_s = -1 }", r"steps\[0\]\.pause_s: -1 is not within 0 and 3600 seconds"),
        (STEPS % "{ pause_s = nan }", r"steps\[0\]\.pause_s: nan"),
        (STEPS % "{ call = { args = {} } }", "name"),
        ("#" * ((1 << 20) + 1), "above the cap"),
    ],
)
def test_a_bad_file_of_scripts_is_refused_by_its_path_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "scripts.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        load_scripts(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_not_text_is_refused_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "scripts.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"scripts\.toml: "):
        load_scripts(path)


# Embeddings


def product(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


async def test_vectors_have_length_one_and_alike_texts_are_nearer() -> None:
    texts = ["the cat sat on the mat", "the cat sat on a mat", "quarterly revenue grew", ""]
    got = await ScriptedEmbeddings().embed(texts)
    assert {len(vector) for vector in got.vectors} == {256}
    assert all(product(vector, vector) == pytest.approx(1.0) for vector in got.vectors)
    cat, near, far, _ = got.vectors
    assert product(cat, near) > 0.5 > product(cat, far)
    assert got.model == "scripted-embedding"
    assert got.usage == Usage(prompt_tokens=6 + 6 + 3)


@pytest.mark.req("OAI-63")
async def test_the_length_of_vectors_can_be_chosen_and_tokens_may_be_ids() -> None:
    got = await ScriptedEmbeddings().embed([[1, 2, 3], [1, 2, 3], "abc"], dimensions=3)
    assert [len(vector) for vector in got.vectors] == [3, 3, 3]
    assert got.vectors[0] == got.vectors[1]
    assert got.usage == Usage(prompt_tokens=7)


@pytest.mark.parametrize("length", [0, -1, 4097])
async def test_a_length_out_of_range_is_the_callers_fault(length: int) -> None:
    with pytest.raises(BadRequest) as caught:
        await ScriptedEmbeddings().embed(["a"], dimensions=length)
    assert caught.value.param == "dimensions"


@given(st.text(), st.integers(1, 8))
@settings(deadline=None)
def test_any_text_has_a_vector_of_length_one(text: str, length: int) -> None:
    async def scene(_: World) -> tuple[float, ...]:
        return (await ScriptedEmbeddings().embed([text], length)).vectors[0]

    vector = run(scene, 0)
    assert len(vector) == length
    assert product(vector, vector) == pytest.approx(1.0)
    assert ScriptedEmbeddings().ready() is None
