"""Planner mode: what the model is asked, what runs beside each other, what a failure leads to, what readers see."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import msgspec

from convene.events import StepChanged
from convene.messages import Message, ResponseFormat, ToolCall
from convene.providers.base import Capabilities, Generation, Sampling
from convene.serving.base_agentic import PlainText, Ran, Round, RunView
from convene.serving.planner import REVISIONS, TRIES, Planner
from convene.tools.base import ToolResult, ToolSpec
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from convene.events import Event, FinishReason, StepKind
    from convene.serving.base_agentic import AgenticRun, Shown
    from convene.tools.base import ToolContext

ASKED = Generation(
    messages=(),
    sampling=Sampling(max_tokens=20, stop=("END",), temperature=0.5),
    response_format=ResponseFormat(kind="json_object"),
)
"""What the client asks of the answer."""
QUESTION = Message(role="user", content="Which of the two cities is warmer today?")
SEARCH: dict[str, object] = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}


class NamedTool:
    """A tool of which only the description matters here: `PlayedRun` says what it gives."""

    def __init__(self, name: str) -> None:
        self.spec = ToolSpec(name=name, description=f"the tool {name}", parameters=SEARCH, kind="search")

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        del arguments, context
        raise AssertionError("the run calls tools, the planner does not")


class PlayedRun:
    """A run whose model says what `says` gives for the name of a round, and whose tools do what `does` gives."""

    def __init__(
        self,
        says: Callable[[str, Generation], str],
        does: Callable[[ToolCall], str | None] = lambda _: "found",
        can: Capabilities | None = None,
    ) -> None:
        self.messages = [QUESTION]
        self.view = RunView(messages=(QUESTION,))
        self.text = PlainText()
        self.tools = {"web_search": NamedTool("web_search")}
        self.capabilities = can or Capabilities()
        self.asked: list[tuple[str, Generation, Shown]] = []
        self.called: list[list[ToolCall]] = []
        self.events: list[Event] = []
        self.notices: list[str] = []
        self.at_once = 0
        self._says, self._does = says, does
        self._now = 0

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def notice(self, code: str, message: str) -> None:
        del message
        self.notices.append(code)

    def generation(self, messages: Sequence[Message] | None = None) -> Generation:
        return msgspec.structs.replace(ASKED, messages=tuple(self.messages if messages is None else messages))

    async def ask(
        self,
        generation: Generation,
        *,
        shown: Shown = "content",
        kind: StepKind = "model",
        name: str = "",
        summary: str = "",
        depends_on: tuple[str, ...] = (),
        last: bool = False,
    ) -> Round:
        del kind, summary, depends_on, last
        self.asked.append((name, generation, shown))
        step_id = f"s{len(self.asked)}"
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        return Round(text=self._says(name, generation), step_id=step_id)

    async def call(self, calls: Sequence[ToolCall], *, depends_on: tuple[str, ...] = ()) -> list[Ran]:
        del depends_on
        self.called.append(list(calls))
        gave = [(call, self._does(call)) for call in calls]
        return [
            Ran(call=call, status="failed", text="it broke")
            if text is None
            else Ran(call=call, status="done", text=text)
            for call, text in gave
        ]

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.asked]

    def states(self, planned: str) -> list[str]:
        """Return how the planned step of this name stood, from the first to the last."""
        return [one.status for one in self.events if isinstance(one, StepChanged) and one.name == planned]


class Loop:
    """The driver that stands in."""

    def __init__(self) -> None:
        self.drove = 0

    async def drive(self, run: AgenticRun) -> FinishReason:
        del run
        self.drove += 1
        return "stop"


def plan(*steps: tuple[str, str, list[str]], text: str = "weather") -> str:
    """Return a plan as a model writes it: id, tool, what it depends on."""
    return json.dumps(
        {
            "steps": [
                {"id": name, "task": f"find {name}", "tool": tool, "input": text, "depends_on": needed}
                for name, tool, needed in steps
            ]
        }
    )


async def drive(run: PlayedRun, loop: Loop | None = None) -> FinishReason:
    return await Planner(loop or Loop(), FakeClock()).drive(run)  # type: ignore[arg-type]  # what is used of it


TWO_THEN_ONE = plan(("rome", "web_search", []), ("oslo", "web_search", []), ("compare", "none", ["rome", "oslo"]))


def told(answers: Mapping[str, str]) -> Callable[[str, Generation], str]:
    return lambda name, _: answers.get(name, "as asked")


async def test_independent_steps_run_at_once_and_those_that_need_them_get_their_results() -> None:
    run = PlayedRun(told({"plan": TWO_THEN_ONE, "answer": "Rome."}), lambda call: f"result of {call.id}")
    assert await drive(run) == "stop"
    assert [[call.arguments for call in calls] for calls in run.called] == [['{"query": "weather"}'] * 2]
    assert run.names == ["plan", "think: compare", "answer"]
    thinking = run.asked[1][1].messages[-1].text()
    assert "result of call_s1.rome" in thinking
    assert "result of call_s1.oslo" in thinking
    for name in ("rome", "oslo", "compare"):
        assert run.states(name) == ["pending", "running", "done"]


async def test_the_answer_is_written_from_the_results_and_is_all_that_readers_see_as_text() -> None:
    run = PlayedRun(told({"plan": TWO_THEN_ONE, "think: compare": "Rome is warmer"}), lambda _: "21 degrees")
    await drive(run)
    name, generation, shown = run.asked[-1]
    assert (name, shown) == ("answer", "content")
    assert "21 degrees" in generation.messages[-1].text()
    assert "Rome is warmer" in generation.messages[-1].text()
    assert {shown for _, _, shown in run.asked[:-1]} == {"hidden"}


async def test_a_plan_and_arguments_are_bound_to_their_schemas() -> None:
    run = PlayedRun(told({"plan": plan(("a", "web_search", []), text=""), "arguments: a": '{"query": "x"}'}))
    await drive(run)
    forms = {name: generation.response_format for name, generation, _ in run.asked}
    assert forms["plan"].schema is not None
    assert "web_search" in json.dumps(forms["plan"].schema)
    assert forms["arguments: a"].schema == SEARCH
    assert forms["answer"].kind == "json_object"
    assert [[call.arguments for call in calls] for calls in run.called] == [['{"query": "x"}']]


async def test_what_the_client_wants_of_the_answer_is_not_asked_of_the_rounds_before_it() -> None:
    run = PlayedRun(told({"plan": TWO_THEN_ONE}))
    await drive(run)
    *before, (_, answer, _) = run.asked
    assert answer.sampling == ASKED.sampling
    assert {generation.sampling for _, generation, _ in before} == {Sampling(temperature=0.5)}
    assert before[-1][1].response_format == ResponseFormat()


async def test_a_small_window_gets_a_short_plan() -> None:
    for window, most in ((2048, 4), (None, 12)):
        run = PlayedRun(told({"plan": TWO_THEN_ONE}), can=Capabilities(context_window=window))
        await drive(run)
        schema = run.asked[0][1].response_format.schema
        assert schema is not None
        assert f'"maxItems": {most}, "items"' in json.dumps(schema)


async def test_a_model_that_cannot_be_bound_is_told_the_schema_and_may_wrap_its_json_in_words() -> None:
    answers = told({"plan": f"Here is my plan:\n```json\n{TWO_THEN_ONE}\n```"})
    run = PlayedRun(answers, can=Capabilities(json_schema=False))
    await drive(run)
    assert '"depends_on"' in run.asked[0][1].messages[-1].text()
    assert run.asked[0][1].response_format.kind == "json_object"
    assert run.states("rome") == ["pending", "running", "done"]


async def test_questions_to_the_model_are_asked_at_once() -> None:
    run = PlayedRun(told({"plan": plan(("a", "none", []), ("b", "none", []), ("c", "none", []))}))
    await drive(run)
    assert run.at_once == 3


async def test_a_failure_is_followed_by_a_revision_that_replaces_what_is_to_come() -> None:
    first = plan(("rome", "web_search", []), ("oslo", "web_search", []), ("compare", "none", ["rome", "oslo"]))
    second = plan(("rome2", "web_search", []), ("compare2", "none", ["rome2", "oslo"]))
    run = PlayedRun(
        told({"plan": first, "revision 1": second}), lambda call: None if call.id.endswith(".rome") else "fine"
    )
    await drive(run)
    assert run.states("rome") == ["pending", "running", "failed"]
    assert run.states("compare") == ["pending", "skipped"]
    assert run.states("rome2") == ["pending", "running", "done"]
    assert run.states("compare2") == ["pending", "running", "done"]
    revising = next(generation for name, generation, _ in run.asked if name == "revision 1").messages[-1].text()
    assert "it broke" in revising
    assert "status=done" in revising


async def test_revisions_are_bounded_and_what_waits_for_a_failure_is_skipped() -> None:
    def says(name: str, generation: Generation) -> str:
        del generation
        if name == "plan":
            return plan(("n0", "web_search", []), ("end", "none", ["n0"]))
        if name.startswith("revision"):
            number = name.removeprefix("revision ")
            return plan((f"n{number}", "web_search", []), (f"end{number}", "none", [f"n{number}"]))
        return "Nothing could be found."

    run = PlayedRun(says, lambda _: None)
    await drive(run)
    assert run.names == ["plan", *(f"revision {number + 1}" for number in range(REVISIONS)), "answer"]
    assert run.states(f"end{REVISIONS}") == ["pending", "skipped"]
    assert "it broke" in run.asked[-1][1].messages[-1].text()


async def test_an_empty_revision_means_to_answer_with_what_there_is() -> None:
    run = PlayedRun(
        told({"plan": TWO_THEN_ONE, "revision 1": '{"steps": []}'}),
        lambda call: None if call.id.endswith(".rome") else "fine",
    )
    await drive(run)
    assert run.names == ["plan", "revision 1", "answer"]
    assert run.states("compare") == ["pending", "skipped"]


async def test_what_is_no_plan_goes_back_with_the_reason() -> None:
    written = iter(["no idea", plan(("a", "none", ["a"])), TWO_THEN_ONE])

    def says(name: str, generation: Generation) -> str:
        del generation
        return next(written) if name.startswith("plan") else "fine"

    run = PlayedRun(says)
    await drive(run)
    assert run.names[:3] == ["plan", "plan, again", "plan, again"]
    assert "not a plan" in run.asked[1][1].messages[-1].text()
    assert "wait for each other" in run.asked[2][1].messages[-1].text()
    assert run.notices == []


async def test_without_a_usable_plan_the_loop_answers_and_the_caller_is_told() -> None:
    run, loop = PlayedRun(told({})), Loop()
    assert await drive(run, loop) == "stop"
    assert run.names == ["plan", *["plan, again"] * (TRIES - 1)]
    assert (loop.drove, run.notices) == (1, ["plan_failed"])


async def test_results_are_cut_to_their_share_of_a_small_window() -> None:
    run = PlayedRun(told({"plan": TWO_THEN_ONE}), lambda _: "x" * 100_000, Capabilities(context_window=2048))
    await drive(run)
    assert len(run.asked[-1][1].messages[-1].text()) < 2048 * 4
    assert "[cut: " in run.asked[-1][1].messages[-1].text()


async def test_a_planned_step_shows_what_it_depends_on_and_when_it_ran() -> None:
    run = PlayedRun(told({"plan": TWO_THEN_ONE}))
    await drive(run)
    last = [one for one in run.events if isinstance(one, StepChanged) and one.name == "compare"][-1]
    assert last.depends_on == ("s1", "s1.rome", "s1.oslo")
    assert last.started_at is not None
    assert last.ended_at is not None
    assert last.detail == {"task": "find compare", "tool": "none"}
