"""When an answer is complete: the rules by themselves, message by message, on a clock that is a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.agents import chat_codec as codec
from convene.agents.answer_rules import (
    Listening,
    Patience,
    Unreadable,
    attachments_of,
    is_answer,
    is_card,
    is_progress,
    text_of,
)

MINE = "44444444-4444-4444-8444-444444444444"
OTHER = "55555555-5555-4555-8555-555555555555"
STREAM = "66666666-6666-4666-8666-666666666666"
END = codec.EndSession()


def says(*content: codec.Content | str) -> codec.ChatMessage:
    parts = tuple(codec.Text(one) if isinstance(one, str) else one for one in content)
    return codec.ChatMessage(msg_id=OTHER, content=parts)


def listening() -> Listening:
    return Listening(Patience(), MINE, 0.0)


@pytest.mark.req("END-01")
def test_an_end_mark_alone_does_not_end_an_answer_that_has_not_begun_at_once() -> None:
    one = listening()
    assert one.hear(says(END), 1.0) == []
    assert not one.over
    assert [heard.kind for heard in one.hear(says("late but mine", END), 2.0)] == ["text", "end"]


def test_an_agent_that_ends_with_nothing_is_over_after_its_silence() -> None:
    one = listening()
    one.hear(says(END), 1.0)
    assert one.wake_at() == 3.0
    assert [heard.kind for heard in one.wake(3.0)] == ["end"]


@pytest.mark.req("END-02")
def test_while_any_stream_is_open_silence_means_nothing() -> None:
    one = listening()
    second = "77777777-7777-4777-8777-777777777777"
    one.hear(says(codec.StartStream(STREAM), codec.StartStream(second), "a"), 1.0)
    one.hear(says(codec.EndStream(STREAM)), 2.0)
    assert not one.over
    assert one.wake_at() == 240.0
    assert [heard.kind for heard in one.hear(says(codec.EndStream(second)), 3.0)] == ["end"]


def test_an_end_of_a_stream_that_never_began_is_no_end() -> None:
    one = listening()
    one.hear(says("a", codec.EndStream(STREAM)), 1.0)
    assert not one.over


def test_an_answer_that_never_ends_is_cut_at_the_limit_and_says_so() -> None:
    one = listening()
    one.hear(says(codec.StartStream(STREAM), "a"), 1.0)
    [end] = one.wake(240.0)
    assert (end.kind, end.metadata) == ("end", {"cut": "true"})


def test_nothing_is_heard_behind_the_end_and_nothing_said_before_its_time() -> None:
    one = listening()
    assert one.wake(1.0) == []
    one.hear(says("a", END), 1.0)
    assert one.hear(says("b"), 2.0) == []
    assert one.wake(999.0) == []


@pytest.mark.req("END-05")
@pytest.mark.parametrize("text", ["Agent is working on your request...", " Working on it… ", "Please wait!"])
def test_phrases_of_progress_are_known(text: str) -> None:
    assert is_progress(text)
    assert not is_answer(says(text))
    assert not is_progress(f"{text} Here is the result")


def test_what_is_worth_telling_late_has_text_or_a_resource() -> None:
    resource = codec.Resources(STREAM, (codec.Resource("https://a.test/x"),))
    assert is_answer(says("x"))
    assert is_answer(says(resource))
    assert is_answer(codec.Structured({"a": 1}))
    for nothing in (says(END), says("  "), codec.Acknowledgement(MINE), Unreadable(), codec.PaymentNews()):
        assert not is_answer(nothing)
        assert text_of(nothing).strip() == ""
        assert attachments_of(nothing) == ()
    assert text_of(codec.Structured({"a": 1})) == '{"a":1}'
    assert [one.uri for one in attachments_of(says(resource))] == ["https://a.test/x"]


def test_only_a_card_that_wants_an_answer_is_a_question() -> None:
    card = {"card_protocol_version": "1", "requires_card_interaction": "true", "card_kind": "form"}
    assert is_card(card)
    for name in card:
        assert not is_card({key: value for key, value in card.items() if key != name})


parts: list[codec.Content] = [
    *(codec.Text("a"), codec.Text(""), END),
    *(codec.StartStream(STREAM), codec.EndStream(STREAM), codec.Meta({})),
]
messages = st.one_of(
    st.just(codec.Acknowledgement(MINE)),
    st.just(codec.AgentError("no")),
    st.just(codec.PaymentAsked(funds=())),
    st.just(Unreadable()),
    st.lists(st.sampled_from(parts), max_size=4).map(lambda content: says(*content)),
)


@given(st.lists(st.tuples(st.floats(0.0, 50.0), messages), max_size=12))
def test_whatever_comes_there_is_exactly_one_end_and_it_comes_by_the_limit(
    story: list[tuple[float, codec.Heard | Unreadable]],
) -> None:
    one, now, heard = listening(), 0.0, []
    for pause, said in story:
        until = now + pause
        while one.wake_at() <= until and not one.over:
            now = max(now, one.wake_at())
            heard += one.wake(now)
        now = until
        heard += one.hear(said, now)
    while not one.over:
        now = max(now, one.wake_at())
        heard += one.wake(now)
    ends = [one.kind for one in heard if one.kind in {"end", "error", "needs_input", "payment"}]
    assert len(ends) == 1
    assert heard[-1].kind == ends[0]
