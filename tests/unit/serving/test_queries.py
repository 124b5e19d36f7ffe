"""A query is made from the last message, with what it leans on, and always the same one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.messages import Message
from convene.serving.queries import QUERY_CHARACTERS_MAX, form_query


def query(*said: str) -> str | None:
    messages: list[Message] = [Message(role="system", content="Be brief.")]
    for text in said:
        messages += [Message(role="user", content=text), Message(role="assistant", content="An answer about cats.")]
    wanted = form_query(messages[:-1])
    return None if wanted is None else wanted.query


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("What is the weather in Rome?", "What is the weather in Rome?"),
        ("Please tell me about the weather in Rome", "the weather in Rome"),
        ("Hi, can you search the web for cheap flights to Oslo", "cheap flights to Oslo"),
        ("Was kostet Gold heute?", "Was kostet Gold heute?"),
        ("今天罗马的天气怎么样？", "今天罗马的天气怎么样？"),  # noqa: RUF001 - a question mark of another script
        ("```py\nx = 1\n```\nWhy is there a KeyError?", "Why is there a KeyError?"),
        ("two\nlines", "two lines"),
        ("word " * 40 + ". What is the price of gold? Thank you.", "What is the price of gold?"),
        ("It began with a long tale. " + "word " * 40, "It began with a long tale."),
    ],
)
def test_a_message_that_stands_alone_is_asked_without_its_politeness(said: str, wanted: str) -> None:
    assert query(said) == wanted


@pytest.mark.parametrize(
    "said",
    [
        "Hello!",
        "hi there, how are you?",
        "Thanks a lot",
        "ok",
        "Guten Tag!",
        "",
        "```\ncode\n```",
        "What is it?",
        "Why?",
        "### Task:\nGenerate a title for this chat",
        "Create a concise, 3-5 word title for the chat",
    ],
)
def test_small_talk_and_chores_are_not_searched_for(said: str) -> None:
    assert query(said) is None


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (("What is the tallest building in Dubai?", "And how old is it?"), "tallest building Dubai how old"),
        (("Who wrote Faust?", "when?"), "wrote Faust when"),
        (("Who wrote Faust?", "Thanks!", "What about Ulysses?"), "wrote Faust Ulysses"),
        (("Who wrote Faust?", "What is the capital of Peru"), "What is the capital of Peru"),
        (("Hello", "Where did it begin?"), "Where did it begin?"),
    ],
)
def test_a_short_question_takes_along_what_it_leans_on(said: tuple[str, ...], wanted: str) -> None:
    assert query(*said) == wanted


def test_a_query_that_a_model_would_make_better_is_told_apart() -> None:
    plain = form_query([Message(role="user", content="Who wrote Faust?")])
    leaning = form_query([Message(role="user", content="Who wrote Faust?"), Message(role="user", content="when?")])
    assert plain is not None
    assert leaning is not None
    assert (plain.doubtful, leaning.doubtful) == (False, True)


def test_without_a_user_there_is_nothing_to_search_for() -> None:
    assert form_query([Message(role="system", content="Who wrote Faust?")]) is None


@given(st.lists(st.text(max_size=400), min_size=1, max_size=4))
def test_any_conversation_gives_a_query_that_engines_take_or_none(said: list[str]) -> None:
    found = query(*said)
    assert found is None or 0 < len(found) <= QUERY_CHARACTERS_MAX
