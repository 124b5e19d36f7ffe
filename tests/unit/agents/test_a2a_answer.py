"""What of a task's events is told: whatever of it is heard again after a break, it is told once and in whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_doubles import kinds, text_of
from convene.agents import a2a_codec as codec
from convene.agents.a2a_answer import NO_WORDS, Telling
from convene.agents.faults import TalkFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.agents.base import Heard


def status(state: codec.State, words: str = "", task_id: str = "t") -> codec.StatusUpdate:
    message = codec.Message(parts=(codec.TextPart(words),)) if words else None
    return codec.StatusUpdate(task_id=task_id, context_id="c", status=codec.Status(state, message))


def piece(artifact: str, text: str, *, append: bool = False) -> codec.ArtifactUpdate:
    return codec.ArtifactUpdate(
        task_id="t", artifact=codec.Artifact(id=artifact, parts=(codec.TextPart(text),)), append=append
    )


def task(state: codec.State, artifacts: Sequence[tuple[str, str]] = (), history: Sequence[str] = ()) -> codec.Task:
    return codec.Task(
        id="t",
        context_id="c",
        status=codec.Status(state),
        artifacts=tuple(codec.Artifact(id=name, parts=(codec.TextPart(text),)) for name, text in artifacts),
        history=tuple(
            codec.Message(is_agents=number % 2 == 1, parts=(codec.TextPart(words),))
            for number, words in enumerate(history)
        ),
    )


def told(*events: codec.Event) -> list[Heard]:
    telling = Telling()
    return [heard for event in events for heard in telling.hear(event)]


@given(
    pieces=st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=5)), max_size=12),
    looks=st.lists(st.integers(0, 12), max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_looks_between_pieces_change_nothing_of_what_is_told(pieces: list[tuple[str, str]], looks: list[int]) -> None:
    whole: dict[str, str] = {}
    events: list[codec.Event] = []
    for number, (artifact, text) in enumerate(pieces):
        events.append(piece(artifact, text, append=artifact in whole))
        whole[artifact] = whole.get(artifact, "") + text
        if number in looks:
            events.append(task("working", tuple(whole.items())))
    alone = [one for one in events if isinstance(one, codec.ArtifactUpdate)]
    end = task("completed", tuple(whole.items()))
    assert text_of(told(*events, end)) == text_of(told(*alone, end))
    # A connection that breaks loses pieces, and the look after it brings them.
    for lost in range(len(events)):
        heard = text_of(told(*events[:lost], end))
        assert "".join(sorted(heard.replace("\n", ""))) == "".join(sorted("".join(whole.values()).replace("\n", "")))


@pytest.mark.req("A2A-04")
def test_artifacts_are_paragraphs_and_pieces_of_one_are_not() -> None:
    heard = told(piece("a", "one "), piece("a", "two", append=True), piece("b", "three"), status("completed"))
    assert text_of(heard) == "one two\n\nthree"
    assert kinds(heard) == ["acknowledged", "text", "text", "text", "end"]


def test_an_artifact_that_is_replaced_is_told_anew_for_nothing_can_be_taken_back() -> None:
    assert text_of(told(piece("a", "draft"), piece("a", "final"), status("completed"))) == "draft\n\nfinal"


@pytest.mark.req("A2A-05", "A2A-07")
def test_the_closing_message_is_the_answer_where_no_artifact_has_text() -> None:
    assert text_of(told(task("working"), status("completed", "It is done."))) == "It is done."
    assert text_of(told(piece("a", "the report"), status("completed", "It is done."))) == "the report"


def test_an_answer_in_the_history_alone_is_found_and_the_users_own_words_are_not() -> None:
    assert text_of(told(task("completed", history=("question", "answer")))) == "answer"
    assert text_of(told(task("completed", history=("question", "answer", "question")))) == ""


def test_what_was_said_last_counts_where_there_is_no_other_answer() -> None:
    assert text_of(told(status("working", "It rains in Rome."), status("completed"))) == "It rains in Rome."


def test_nothing_is_heard_after_the_end() -> None:
    heard = told(piece("a", "one"), status("completed"), piece("a", "late", append=True), status("failed"))
    assert kinds(heard) == ["acknowledged", "text", "end"]


@pytest.mark.parametrize("state", ["input_required", "auth_required", "failed", "canceled", "rejected"])
def test_an_end_without_words_gets_some(state: codec.State) -> None:
    heard = told(status(state))
    assert heard[-1].text == NO_WORDS[state]


def test_a_question_back_may_stand_in_the_history() -> None:
    telling = Telling()
    heard = telling.hear(task("input_required", history=("weather?", "Where?")))
    assert (heard[-1].kind, heard[-1].text, heard[-1].metadata) == (
        "needs_input",
        "Where?",
        {"state": "input_required"},
    )
    assert (telling.waits, telling.task_id, telling.context_id) == (True, "t", "c")


@pytest.mark.parametrize(
    "foreign",
    [
        status("completed", task_id="other"),
        codec.ArtifactUpdate(task_id="other", artifact=codec.Artifact(id="a")),
        codec.Task(id="other", status=codec.Status("completed")),
        codec.Message(task_id="other"),
    ],
)
def test_an_event_of_another_task_ends_the_talk(foreign: codec.Event) -> None:
    telling = Telling()
    telling.hear(task("working"))
    with pytest.raises(TalkFault, match="not the one it had begun"):
        telling.hear(foreign)


def test_artifacts_and_files_have_a_ceiling() -> None:
    many = [piece(f"a{number}", "x") for number in range(1_100)]
    with pytest.raises(TalkFault, match="more than 1000 parts"):
        told(*many)
    parts = tuple(codec.FilePart(f"https://f.test/{number}") for number in range(1_100))
    files = codec.ArtifactUpdate(task_id="t", artifact=codec.Artifact(id="a", parts=parts))
    with pytest.raises(TalkFault, match="more than 1000 parts"):
        told(files, files)


def test_values_beside_words_are_told_as_code() -> None:
    parts = (codec.TextPart("Here:"), codec.DataPart('{"a":1}'), codec.DataPart('{"a":1}'))
    update = codec.ArtifactUpdate(task_id="t", artifact=codec.Artifact(id="a", parts=parts))
    assert text_of(told(update, status("completed"))) == 'Here:\n\n```json\n{"a":1}\n```'
