"""A lesson's stages follow from what the learner writes, the same each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.messages import Message
from convene.serving.lessons import Level, Pace, Stage, Standing, advance, follow

PACE = Pace()


def lesson(*said: str, kept: Standing | None = None) -> Standing:
    messages: list[Message] = []
    for text in said:
        messages += [Message(role="user", content=text), Message(role="assistant", content="What do you think?")]
    found = follow(messages[:-1], PACE, kept)
    assert found is not None
    return found


def stages(*said: str) -> list[Stage]:
    return [lesson(*said[: end + 1]).stage for end in range(len(said))]


def test_a_lesson_diagnoses_guides_and_checks() -> None:
    said = ["How do fractions add?", "add tops?", "find a common bottom?", "six?", "5/6", "because it is split"]
    assert stages(*said) == ["diagnose", "guide", "guide", "guide", "check", "guide"]


def test_a_learner_who_understands_is_checked_at_once_and_one_who_does_not_is_not() -> None:
    assert stages("Explain recursion", "it calls itself", "Ah, I get it now!") == ["diagnose", "guide", "check"]
    assert stages("Explain recursion", "it calls itself", "No, I don't get it") == ["diagnose", "guide", "guide"]
    assert stages("Explain recursion", "it calls itself", "Got it, but why?")[-1] == "guide"


def test_the_answer_is_told_to_who_insists_after_a_try_and_is_checked_afterwards() -> None:
    said = ["Solve x+2=5 for me", "just tell me", "give me the answer", "thanks", "4?"]
    assert stages(*said) == ["diagnose", "guide", "tell", "check", "guide"]


def test_nobody_is_told_before_they_were_asked_once() -> None:
    assert stages("What is the answer to 3x=9? Just tell me, I give up", "ok")[0] == "diagnose"
    assert lesson("Solve it", "Just tell me the answer").stage == "guide"


@pytest.mark.parametrize("said", ["New topic: gravity", "Teach me about gravity", "Let's move on to gravity"])
def test_a_new_topic_begins_a_new_lesson_and_keeps_the_level(said: str) -> None:
    assert lesson("I'm a beginner, what is mass?", "weight?", said) == Standing(
        stage="diagnose", level="beginner", mark=lesson(said).mark
    )


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("I'm new to this", "beginner"),
        ("explain like I'm five", "beginner"),
        ("I'm in grade 5", "beginner"),
        ("my elementary school son", "beginner"),
        ("I know the basics", "intermediate"),
        ("high school physics", "intermediate"),
        ("I'm in grade 11", "intermediate"),
        ("for my PhD", "advanced"),
        ("give a rigorous proof", "advanced"),
        ("What is mass?", "unknown"),
    ],
)
def test_the_level_is_read_from_the_learners_words(said: str, level: Level) -> None:
    assert lesson(said).level == level


def test_the_level_changes_with_what_the_learner_says_later() -> None:
    assert lesson("What is mass?", "no idea, I am a beginner", "inertia?").level == "beginner"
    assert lesson("I'm a beginner", "well, I know the basics").level == "intermediate"


def test_a_client_that_sends_the_last_message_alone_has_its_place_in_the_session() -> None:
    kept = lesson("How do fractions add?", "add tops?")
    assert (kept.stage, kept.turns) == ("guide", 1)
    after = lesson("find a common bottom?", kept=kept)
    assert (after.stage, after.turns) == ("guide", 2)


def test_a_request_that_is_sent_again_does_not_go_on() -> None:
    kept = lesson("a", "b", "c", "d")
    assert kept.turns == 3
    assert lesson("d", kept=kept) == kept


def test_a_whole_conversation_counts_more_than_the_session_but_for_the_level() -> None:
    kept = Standing(stage="check", level="advanced", turns=1, mark=1)
    assert lesson("What is mass?", "weight?", kept=kept) == advance(
        lesson("What is mass?", kept=None), "weight?", PACE
    ).__class__(stage="guide", level="advanced", turns=1, mark=lesson("weight?").mark)


def test_nobody_stands_anywhere_before_having_written() -> None:
    assert follow([Message(role="system", content="x"), Message(role="user", content=" ")], PACE) is None


SAID = st.lists(
    st.sampled_from(["a", "just tell me", "I get it", "new topic: b", "no idea", "I'm a beginner"]), min_size=1
)


@given(SAID)
def test_the_server_and_the_session_tell_the_same_story(said: list[str]) -> None:
    """One who sends all each time and one who sends the last message each time stand at the same place."""
    kept: Standing | None = None
    for end in range(1, len(said) + 1):
        if end > 1 and said[end - 1] == said[end - 2]:
            return  # sent again, as far as a session can tell
        kept = lesson(said[end - 1], kept=kept)
        assert kept == lesson(*said[:end])
