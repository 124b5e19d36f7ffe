"""Results are cut to the model's window: oldest first, marked, and nothing else is touched (decision 23)."""

from __future__ import annotations

import random

import pytest

from convene.messages import Message, ToolCall
from convene.serving.conversation import quote_result
from convene.serving.turn_size import message_bytes
from convene.serving.window import KEPT_BYTES, Window, can_cut, cut_text, fit_window, is_quoted, is_result
from convene.tools.base import ToolSpec

SPEC = ToolSpec(name="read", description="", parameters={})


def result(text: str, call: str = "c") -> Message:
    return Message(role="tool", content=quote_result("read", text, SPEC), tool_call_id=call)


def conversation(*texts: str) -> list[Message]:
    """Return a question and one call with its result for each text."""
    messages = [Message(role="system", content="be kind"), Message(role="user", content="find out")]
    for number, text in enumerate(texts):
        messages.append(Message(role="assistant", tool_calls=(ToolCall(f"c{number}", "read", "{}"),)))
        messages.append(result(text, f"c{number}"))
    return messages


def test_what_fits_is_left_as_it_is() -> None:
    messages = conversation("short", "also short")
    assert fit_window(messages, Window(room=10_000, result=1_000)) == tuple(messages)


def test_one_result_takes_at_most_its_share_of_the_window() -> None:
    messages = conversation("x" * 5_000, "short")
    fitted = fit_window(messages, Window(room=100_000, result=1_000))
    assert len(fitted[3].text()) <= 1_000
    assert "bytes left out]" in fitted[3].text()
    assert fitted[5] == messages[5]


def test_the_oldest_results_are_cut_first_and_say_so() -> None:
    messages = conversation("a" * 4_000, "b" * 4_000, "c" * 4_000)
    fitted = fit_window(messages, Window(room=9_500, result=100_000))
    assert "bytes left out]" in fitted[3].text()
    assert fitted[5] == messages[5]
    assert fitted[7] == messages[7]
    assert sum(map(message_bytes, fitted)) <= 9_500


def test_if_shorter_results_do_not_do_they_shrink_to_their_marks_oldest_first() -> None:
    messages = conversation("a" * 4_000, "b" * 4_000)
    fitted = fit_window(messages, Window(room=1_000, result=100_000))
    assert len(fitted[3].text()) < KEPT_BYTES
    assert "bytes left out]" in fitted[3].text()
    assert "bytes left out]" in fitted[5].text()
    nothing = fit_window(messages, Window(room=0, result=100_000))
    assert all(len(message.text()) < 60 for message in nothing if is_result(message))


def test_what_people_wrote_is_never_cut() -> None:
    messages = [Message(role="user", content="q" * 9_000), *conversation("a" * 9_000)]
    fitted = fit_window(messages, Window(room=100, result=100))
    assert [one for one in fitted if not is_result(one)] == [one for one in messages if not is_result(one)]


def test_a_clients_own_results_are_cut_for_want_of_room_only() -> None:
    own = Message(role="tool", content="y" * 5_000, tool_call_id="c")
    assert fit_window([own], Window(room=100_000, result=10))[0] == own
    assert "bytes left out]" in fit_window([own], Window(room=2_000, result=10))[0].text()


def test_results_that_a_model_without_tools_reads_as_messages_are_cut_too() -> None:
    told = Message(role="user", content=quote_result("read", "z" * 5_000, SPEC))
    assert is_quoted(told)
    assert "bytes left out]" in fit_window([told], Window(room=100_000, result=1_000))[0].text()
    assert not is_result(Message(role="user", content="[Data] of mine"))
    assert not is_quoted(Message(role="assistant", content=told.text()))


def test_the_window_leaves_room_for_the_answer_and_for_the_tools() -> None:
    assert Window.of(8_000, None, 0, 0.25) == Window(room=18_000, result=6_000)
    assert Window.of(8_000, 100, 0, 0.25) == Window(room=23_700, result=6_000)
    assert Window.of(8_000, 7_900, 500, 0.5) == Window(room=17_500, result=12_000)
    assert Window.of(100, None, 5_000, 0.25).room == 0


def test_a_model_of_unknown_window_gets_a_usual_one() -> None:
    assert Window.of(None, None, 0, 0.25) == Window.of(128_000, None, 0, 0.25)


def test_half_a_window_is_half_of_both() -> None:
    assert Window(room=100, result=50).halved() == Window(room=50, result=25)


def test_there_is_something_to_cut_while_a_result_is_long() -> None:
    assert can_cut(conversation("x" * 5_000))
    assert not can_cut(conversation("short"))
    assert not can_cut([Message(role="user", content="x" * 5_000)])


@pytest.mark.parametrize("size", [0, 1, 3, 4, 10, 100])
def test_a_cut_text_keeps_its_beginning_and_its_end_and_is_never_half_a_letter(size: int) -> None:
    text = "äöü€🙂" * 50
    cut = cut_text(text, size)
    assert "�" not in cut
    before, _, after = cut.partition("\n[cut: ")
    assert text.startswith(before)
    assert text.endswith(after.partition("]\n")[2])
    assert len(before.encode()) + len(after.partition("]\n")[2].encode()) <= size
    assert len(cut.encode()) <= max(size, 48)


def test_whatever_comes_in_is_fitted_and_keeps_its_order_and_its_ids() -> None:
    source = random.Random(7)  # noqa: S311 - repeatable on purpose
    for _ in range(300):
        texts = ["w" * source.randrange(0, 3_000) for _ in range(source.randrange(0, 6))]
        messages = conversation(*texts)
        window = Window(room=source.randrange(0, 12_000), result=source.randrange(1, 3_000))
        fitted = fit_window(messages, window)
        assert [(one.role, one.tool_call_id, one.tool_calls) for one in fitted] == [
            (one.role, one.tool_call_id, one.tool_calls) for one in messages
        ]
        fixed = sum(message_bytes(one) for one in messages if not is_result(one))
        marks = 80 * len(texts)
        assert sum(map(message_bytes, fitted)) <= max(window.room, fixed) + marks
