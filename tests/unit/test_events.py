"""Gathering events gives one answer, however the pieces were cut and interleaved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.events import (
    Began,
    CallDelta,
    Cited,
    Event,
    Finished,
    Fold,
    Noticed,
    ReasoningDelta,
    RefusalDelta,
    StepChanged,
    TextDelta,
    TokenLogprob,
    ToolRan,
    UsageReported,
    fold,
)
from convene.messages import ToolCall
from convene.usage import Usage

if TYPE_CHECKING:
    from convene.events import Choice


def seen(choice: Choice) -> tuple[object, ...]:
    """Return everything a choice holds, to compare."""
    pieces = ("".join(choice.text), "".join(choice.reasoning), "".join(choice.refusal))
    return (*pieces, choice.tool_calls, choice.logprobs, choice.finish)


def cut(text: str, marks: list[int]) -> list[str]:
    """Return `text` cut at the marks that lie within it."""
    ends = sorted({mark for mark in marks if 0 < mark < len(text)})
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


def test_no_events_are_an_empty_answer() -> None:
    empty = fold([])
    assert (empty.choices, empty.usage, empty.began) == ({}, None, None)
    assert (empty.steps, empty.tools, empty.citations, empty.notices) == ({}, [], [], [])


def test_a_whole_generation_is_gathered() -> None:
    got = fold(
        [
            Began("host", "model-7", "fp"),
            ReasoningDelta("I "),
            ReasoningDelta("think"),
            TextDelta("Hel"),
            TextDelta("lo"),
            RefusalDelta("no"),
            RefusalDelta("pe"),
            Finished("stop"),
            UsageReported(Usage(3, 4)),
        ]
    )
    assert got.began == Began("host", "model-7", "fp")
    assert seen(got.choice(0)) == ("Hello", "I think", "nope", (), [], "stop")
    assert got.usage == Usage(3, 4)


@pytest.mark.req("OAI-48")
def test_reasoning_and_refusals_never_reach_the_text() -> None:
    got = fold([ReasoningDelta("secret"), RefusalDelta("no"), TextDelta("open")]).choice(0)
    assert "".join(got.text) == "open"


@given(st.text(max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_text_is_the_same_however_it_was_cut(text: str, marks: list[int]) -> None:
    assert "".join(fold(TextDelta(piece) for piece in cut(text, marks)).choice(0).text) == text


@given(st.text(max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_arguments_are_the_same_however_they_were_cut(text: str, marks: list[int]) -> None:
    pieces = [CallDelta(0, "", "c1", "f"), *(CallDelta(0, piece) for piece in cut(text, marks))]
    assert fold(pieces).choice(0).tool_calls == (ToolCall("c1", "f", text),)


@pytest.mark.req("SSE-08")
def test_a_calls_id_and_name_are_those_of_its_first_piece() -> None:
    pieces = [CallDelta(0, "{", "c1", "f"), CallDelta(0, "}", "", ""), CallDelta(0, " ", "c2", "g")]
    assert fold(pieces).choice(0).tool_calls == (ToolCall("c1", "f", "{} "),)


def test_a_call_whose_host_gave_no_id_is_still_gathered() -> None:
    assert fold([CallDelta(0, "{}")]).choice(0).tool_calls == (ToolCall("", "", "{}"),)


def test_interleaved_calls_come_out_in_the_order_of_their_index() -> None:
    pieces = [
        CallDelta(2, "[", "c", "third"),
        CallDelta(0, "{", "a", "first"),
        CallDelta(2, "]"),
        CallDelta(0, "}"),
    ]
    assert fold(pieces).choice(0).tool_calls == (ToolCall("a", "first", "{}"), ToolCall("c", "third", "[]"))


@pytest.mark.req("OAI-21")
def test_logprobs_are_kept_in_order_with_their_text() -> None:
    first, second = TokenLogprob("Hel", -0.5, [72, 101, 108], (TokenLogprob("Hal", -1.5),)), TokenLogprob("lo", 0.0)
    got = fold([TextDelta("Hel", logprobs=(first,)), TextDelta("lo", logprobs=(second,))]).choice(0)
    assert got.logprobs == [first, second]
    assert "".join(entry.token for entry in got.logprobs) == "".join(got.text)


GENERATION = st.one_of(
    st.builds(TextDelta, st.text(max_size=4)),
    st.builds(ReasoningDelta, st.text(max_size=4)),
    st.builds(RefusalDelta, st.text(max_size=4)),
    st.builds(
        CallDelta, st.integers(0, 2), st.text(max_size=4), st.sampled_from([None, "c1"]), st.sampled_from([None, "f"])
    ),
    st.builds(Finished, st.sampled_from(["stop", "length", "tool_calls", "content_filter"])),
)


@pytest.mark.req("OAI-19")
@given(st.lists(st.lists(GENERATION, max_size=8), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_choices_do_not_touch_each_other_however_they_are_interleaved(
    choices: list[list[Event]], random: object
) -> None:
    placed = [[msgspec.structs.replace(event, choice=i) for event in events] for i, events in enumerate(choices)]
    order = [i for i, events in enumerate(placed) for _ in events]
    random.shuffle(order)  # type: ignore[attr-defined]
    queues = [iter(events) for events in placed]
    mixed = fold(next(queues[i]) for i in order)
    for i, events in enumerate(choices):
        assert seen(mixed.choice(i)) == seen(fold(events).choice(0))


def test_usage_of_several_generations_adds_up() -> None:
    got = fold([UsageReported(Usage(1, 2)), UsageReported(Usage(10, 20, estimated=True))])
    assert got.usage == Usage(11, 22, estimated=True)


def test_a_step_is_its_newest_state_in_the_place_where_it_first_stood() -> None:
    running = StepChanged(id="a", kind="search", name="web", status="running", started_at=1.0)
    other = StepChanged(id="b", kind="tool", name="sum", status="pending", depends_on=("a",))
    done = msgspec.structs.replace(running, status="done", ended_at=2.0)
    got = fold([running, other, done])
    assert list(got.steps.items()) == [("a", done), ("b", other)]


def test_tools_citations_and_notices_are_kept_in_order() -> None:
    ran = [ToolRan(id="t1", tool_name="search"), ToolRan(id="t2", tool_name="fetch", status="failed")]
    cited = [Cited("https://a.example", "A", 0, 3), Cited("https://b.example", "B", 4, 9)]
    noticed = [Noticed("late", "The agent was late."), Noticed("cut", "The result was cut.")]
    got = fold([ran[0], cited[0], noticed[0], ran[1], cited[1], noticed[1]])
    assert (got.tools, got.citations, got.notices) == (ran, cited, noticed)
    assert got.choices == {}


def test_the_last_host_to_begin_is_the_one_that_answered() -> None:
    assert fold([Began("first", "m"), Began("second", "m")]).began == Began("second", "m")


def test_an_answer_can_be_read_at_any_moment() -> None:
    gathered = Fold()
    gathered.add(TextDelta("half"))
    gathered.add(CallDelta(0, '{"a', "c", "f"))
    assert "".join(gathered.choice(0).text) == "half"
    assert gathered.choice(0).tool_calls == (ToolCall("c", "f", '{"a'),)
    assert gathered.choice(0).finish is None
    gathered.add(TextDelta(" more"))
    assert "".join(gathered.choice(0).text) == "half more"


def test_looking_at_a_choice_that_said_nothing_gives_an_empty_one() -> None:
    gathered = Fold()
    assert seen(gathered.choice(3)) == ("", "", "", (), [], None)
    assert gathered.choice(3) is gathered.choice(3)


@pytest.mark.parametrize(
    "event", [Began("h", "m"), TextDelta("x"), Finished("stop"), CallDelta(0), ToolRan(id="t", tool_name="f")]
)
def test_events_cannot_be_changed(event: Event) -> None:
    with pytest.raises(AttributeError):
        setattr(event, event.__struct_fields__[0], "other")


def test_tools_that_ran_do_not_share_their_empty_arguments() -> None:
    one, other = ToolRan(id="1", tool_name="f"), ToolRan(id="2", tool_name="f")
    assert one.args == {}
    assert one.args is not other.args
