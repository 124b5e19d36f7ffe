"""In study mode a model is told to tutor, by a versioned file, at the place where the lesson stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from convene.errors import StoreFault
from convene.messages import Message
from convene.serving.base import Agentic
from convene.serving.base_steps import Recorded
from convene.serving.lessons import Standing
from convene.serving.study import NOTE, Study, read_manual
from standin_run import StandIn, job_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.serving.base_agentic import AgenticRun
    from convene.serving.base_steps import StepPlan
    from convene.serving.passing import PassingStep

USER = Message(role="user", content="How do fractions add?")
REPLY = Message(role="assistant", content="What do you know?")
SECOND = Message(role="user", content="I'm a beginner. Add the tops?")


class Kept:
    """A session's notes."""

    def __init__(self, *, broken: bool = False) -> None:
        self.notes: dict[tuple[str, str], dict[str, bytes]] = {}
        self._broken = broken

    async def remember(self, owner: str, session_id: str, notes: Mapping[str, bytes]) -> None:
        if self._broken:
            raise StoreFault("The store is away.")
        self.notes.setdefault((owner, session_id), {}).update(notes)

    async def recall(self, owner: str, session_id: str, names: Sequence[str] | None = None) -> dict[str, bytes]:
        if self._broken:
            raise StoreFault("The store is away.")
        found = self.notes.get((owner, session_id), {})
        return {name: body for name, body in found.items() if names is None or name in names}


def run_of(*messages: Message, session: str | None = None, study: bool = True) -> StandIn:
    return StandIn(job_of(*messages, agentic=Agentic(study_mode=study, session_id=session)))


async def prepare(run: StandIn, kept: Kept | None = None) -> StandIn:
    await Study(kept).prepare(cast("AgenticRun", run))
    return run


async def test_what_the_model_is_told_depends_on_the_stage_and_the_level() -> None:
    first, second = await prepare(run_of(USER)), await prepare(run_of(USER, REPLY, SECOND))
    assert len(first.told) == len(second.told) == 1
    assert "end every message with exactly one question" in first.told[0]
    assert "Do not explain the subject yet" in first.told[0]
    assert "level is not known" in first.told[0]
    assert "end every message with exactly one question" in second.told[0]
    assert "the one next hint" in second.told[0]
    assert "The learner is a beginner" in second.told[0]
    assert "Do not explain the subject yet" not in second.told[0]


async def test_a_step_shows_the_mode_its_version_and_the_place_in_the_lesson() -> None:
    run = await prepare(run_of(USER, REPLY, SECOND))
    [plan] = run.plans
    assert (plan.kind, plan.name) == ("judge", "study")
    assert plan.detail == {"mode": "study", "version": "1", "stage": "guide", "level": "beginner"}
    assert [status for status, _ in run.closed] == ["done"]


async def test_nothing_happens_outside_of_study_mode() -> None:
    run = await prepare(run_of(USER, study=False))
    assert (run.told, run.plans) == ([], [])


async def test_a_session_keeps_the_place_for_its_owner() -> None:
    kept = Kept()
    await prepare(run_of(USER, REPLY, SECOND, session="s"), kept)
    again = await prepare(run_of(Message(role="user", content="a common bottom?"), session="s"), kept)
    other = await prepare(run_of(Message(role="user", content="a common bottom?"), session="t"), kept)
    assert again.plans[0].detail == {"mode": "study", "version": "1", "stage": "guide", "level": "beginner"}
    assert other.plans[0].detail is not None
    assert other.plans[0].detail["stage"] == "diagnose"
    assert set(kept.notes) == {("o", "s"), ("o", "t")}


async def test_a_store_that_is_away_costs_the_place_alone() -> None:
    run = await prepare(run_of(USER, session="s"), Kept(broken=True))
    assert len(run.told) == 1


async def test_a_run_that_is_repeated_tells_the_model_what_it_was_told() -> None:
    """The session has gone on by then; the journal has not."""

    class Repeated(StandIn):
        async def open_step(self, plan: StepPlan) -> PassingStep:
            step = await super().open_step(plan)
            recorded = Recorded("done", msgspec.json.encode(Standing(stage="tell", level="advanced")), step.change)
            step.recorded = recorded  # type: ignore[assignment]  # a passing step never has one
            return step

    kept = Kept()
    run = Repeated(job_of(USER, agentic=Agentic(study_mode=True, session_id="s")))
    await prepare(run, kept)
    assert "Give it now, completely" in run.told[0]
    assert (run.closed, kept.notes) == ([], {})


async def test_a_conversation_without_a_word_of_the_learner_is_diagnosed() -> None:
    run = await prepare(run_of(Message(role="user", content="  "), session="s"), Kept())
    assert "find out where the learner stands" in run.told[0]


GOOD = "---\nversion: 2\nguide_turns: 4\ninsist_turns: 1\n---\nWords.\n\n" + "".join(
    f"## {name}\n\nDo {name}.\n\n"
    for name in (
        *("always", "diagnose", "guide", "check", "tell"),
        *("level: unknown", "level: beginner", "level: intermediate", "level: advanced"),
    )
)


def test_a_prompt_file_has_a_head_and_all_parts() -> None:
    manual = read_manual(GOOD)
    assert (manual.version, manual.pace.guide_turns, manual.pace.insist_turns) == ("2", 4, 1)
    assert manual.words(Standing(stage="check", level="advanced")) == "Do always.\n\nDo check.\n\nDo level: advanced."


@pytest.mark.parametrize(
    "text", [GOOD.removeprefix("---\n"), GOOD.replace("## tell", "## told"), GOOD.replace("Do tell.", "")]
)
def test_a_prompt_file_that_lacks_something_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="prompt file"):
        read_manual(text)


async def test_the_note_is_named_for_what_it_is() -> None:
    kept = Kept()
    await prepare(run_of(USER, session="s"), kept)
    assert list(kept.notes["o", "s"]) == [NOTE]
