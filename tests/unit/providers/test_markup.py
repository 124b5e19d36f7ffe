"""Markup in the text: thinking and tool calls come out as events, whatever the cuts, and none of it stays in text."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.errors import Malformed
from convene.events import CallDelta, ReasoningDelta, TextDelta
from convene.providers.markup import CALL_CHARS_MAX, Markup, Piece, held_length, read_calls


def made(*, tools: bool = False, template_opens: bool = False) -> Markup:
    numbers = count()

    def new_call() -> tuple[int, str]:
        number = next(numbers)
        return number, f"call_{number}"

    return Markup(new_call, tools=tools, template_opens=template_opens)


def read(*texts: str, tools: bool = False, template_opens: bool = False) -> tuple[str, str, list[tuple[str, str]]]:
    """Return text, reasoning and calls."""
    markup = made(tools=tools, template_opens=template_opens)
    pieces: list[Piece] = [piece for text in texts for piece in markup.feed(text)] + markup.end()
    said = "".join(piece.text for piece in pieces if isinstance(piece, TextDelta))
    reasoned = "".join(piece.text for piece in pieces if isinstance(piece, ReasoningDelta))
    calls = [(piece.name or "", piece.arguments) for piece in pieces if isinstance(piece, CallDelta)]
    return said, reasoned, calls


@pytest.mark.req("OAI-48")
def test_thinking_at_the_start_is_reasoning() -> None:
    assert read("<think>\nhm\n</think>\n\nYes.") == ("Yes.", "hm\n", [])


@pytest.mark.req("OAI-48")
def test_thinking_that_the_template_opened_is_reasoning() -> None:
    assert read("hm</think>\nYes.", template_opens=True) == ("Yes.", "hm", [])
    assert read("<think>hm</think>Yes.", template_opens=True) == ("Yes.", "hm", [])


def test_white_space_before_the_tag_does_not_hide_it() -> None:
    assert read("\n \n<thinking>a</thinking>b") == ("b", "a", [])


def test_an_empty_block_gives_no_reasoning() -> None:
    assert read("<think>\n\n</think>\n\nYes.") == ("Yes.", "", [])


def test_a_second_block_right_after_the_first_is_reasoning_too() -> None:
    assert read("<think>a</think>\n<think>b</think>c") == ("c", "ab", [])


def test_a_tag_in_mid_text_is_words() -> None:
    assert read("Write <think> first.") == ("Write <think> first.", "", [])


def test_what_only_begins_like_a_tag_comes_out_in_the_end() -> None:
    assert read("<thi") == ("<thi", "", [])
    assert read("<think>a</thi") == ("", "a</thi", [])
    assert read("a <tool_", tools=True) == ("a <tool_", "", [])


def test_thinking_without_an_end_is_reasoning() -> None:
    assert read("<think>a b") == ("", "a b", [])


def test_text_passes_at_once_when_nothing_is_to_be_decided() -> None:
    markup = made()
    assert markup.feed("Hi") == [TextDelta("Hi")]
    assert markup.idle
    assert markup.feed(" <") == [TextDelta(" <")]


def test_text_is_held_only_as_far_as_it_may_be_a_tag() -> None:
    markup = made(tools=True)
    assert markup.feed("a <tool") == [TextDelta("a ")]
    assert markup.feed("box>") == [TextDelta("<toolbox>")]


@pytest.mark.req("TOOLS-12")
def test_a_hermes_call_is_a_call_with_its_arguments_as_written() -> None:
    text = 'Let me see.\n<tool_call>\n{"name": "look", "arguments": {"q":  1.0}}\n</tool_call>'
    assert read(text, tools=True) == ("Let me see.\n", "", [("look", '{"q":  1.0}')])


@pytest.mark.req("TOOLS-12")
def test_several_calls_are_numbered_and_the_space_between_them_is_dropped() -> None:
    text = '<tool_call>{"name":"a"}</tool_call>\n\n<tool_call>{"name":"b","arguments":"{\\"x\\":1}"}</tool_call>\n'
    markup = made(tools=True)
    assert markup.feed(text) + markup.end() == [
        CallDelta(0, "{}", "call_0", "a"),
        CallDelta(1, '{"x":1}', "call_1", "b"),
    ]


@pytest.mark.req("TOOLS-12")
def test_text_after_a_call_is_text() -> None:
    assert read('<tool_call>{"name":"a"}</tool_call>\n So.', tools=True) == ("So.", "", [("a", "{}")])


@pytest.mark.req("TOOLS-12")
@pytest.mark.parametrize(
    ("body", "calls"),
    [
        ('{"name": "a", "arguments": {"x": 1}', [("a", '{"x": 1}')]),
        ('{"name": "a", "parameters": {"x": 1}}', [("a", '{"x": 1}')]),
        ('{"name": "a", "arguments": null}', [("a", "{}")]),
        ('{"name": "a", "arguments": {"x": "cut', [("a", '{"x": "cut')]),
        ('{"name": "a", oops', [("a", "{}")]),
        ('{"nom": "a"}', []),
        ("look\n<arg_key>q</arg_key>\n<arg_value>two words</arg_value>", [("look", '{"q":"two words"}')]),
        ("look<arg_key>n</arg_key><arg_value>3</arg_value>", [("look", '{"n":3}')]),
        (
            "<function=look>\n<parameter=q>\nParis\n</parameter>\n<parameter=n>2</parameter>\n</function>",
            [("look", '{"q":"Paris","n":2}')],
        ),
        ("!?", []),
        ("", []),
    ],
)
def test_calls_of_every_dialect_are_read_and_broken_ones_as_far_as_they_go(
    body: str, calls: list[tuple[str, str]]
) -> None:
    assert read_calls(body) == calls
    assert read(f"<tool_call>{body}</tool_call>", tools=True) == ("", "", calls)


@pytest.mark.req("TOOLS-12")
def test_a_call_cut_by_a_token_limit_is_still_a_call() -> None:
    assert read('<tool_call>{"name": "a", "arguments": {"x": 1', tools=True) == ("", "", [("a", '{"x": 1')])


def test_without_tools_the_tag_is_words() -> None:
    assert read("<tool_call>x</tool_call>") == ("<tool_call>x</tool_call>", "", [])


def test_thinking_and_a_call_in_one_answer() -> None:
    text = '<think>I need it</think>\n<tool_call>{"name":"a"}</tool_call>'
    assert read(text, tools=True) == ("", "I need it", [("a", "{}")])


def test_a_call_without_an_end_is_malformed_before_it_fills_the_memory() -> None:
    markup = made(tools=True)
    markup.feed("<tool_call>")
    with pytest.raises(Malformed):
        markup.feed("x" * (CALL_CHARS_MAX + 1))


def test_a_host_that_takes_reasoning_out_itself_does_not_begin_inside_of_it() -> None:
    markup = made(template_opens=True)
    markup.expect_no_thinking()
    assert markup.feed("Yes.") == [TextDelta("Yes.")]


@pytest.mark.parametrize(("text", "length"), [("", 0), ("a", 0), ("a<", 1), ("a<t>", 0), ("<tool_call", 10), ("<<", 1)])
def test_held_length_is_the_longest_beginning_of_the_tag(text: str, length: int) -> None:
    assert held_length(text, "<tool_call>") == length


SAMPLES = [
    "plain words, 1 < 2",
    "<think>a\nb</think>\n\ntext <b>",
    '<think>x</think>say <tool_call>{"name":"f","arguments":{"a":"é"}}</tool_call>\n<tool_call>g</tool_call> end',
    "  <thinking>y</thinking> z",
    "<tool_call>unfinished",
]


@pytest.mark.req("OAI-48", "TOOLS-12")
@given(st.sampled_from(SAMPLES), st.booleans(), st.booleans(), st.data())
def test_where_the_text_is_cut_makes_no_difference(text: str, tools: bool, opens: bool, cuts: st.DataObject) -> None:  # noqa: FBT001 - drawn
    at = sorted(cuts.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[start:end] for start, end in zip([0, *at], [*at, len(text)], strict=True)]
    assert read(*pieces, tools=tools, template_opens=opens) == read(text, tools=tools, template_opens=opens)
