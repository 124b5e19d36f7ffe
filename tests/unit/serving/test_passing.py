"""The journal that keeps nothing, and the values of the seam: numbers, what readers see, loss-free JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene.events import Fold, TextDelta
from convene.messages import FunctionTool, ImagePart, Message, OpaquePart, ResponseFormat, TextPart, ToolCall
from convene.providers.base import Generation, Sampling
from convene.serving.base import Agentic, ChatRequest
from convene.serving.base_agentic import AllowAll, Job, PlainText, Ran, Round, RunView
from convene.serving.base_steps import StepPlan
from convene.serving.passing import PassingJournal, PassingRuns
from convene.tools.base import Source, ToolResult, ToolSpec
from convene.usage import Usage

if TYPE_CHECKING:
    from convene.serving.base_agentic import CitedText, Policy, RunJournal, RunRoom

JOB = Job(
    run_id="run_1",
    turn_id="chatcmpl-1",
    request_id="req_1",
    owner="user:ada",
    key_id="key_1",
    created_us=5,
    conversation_id="conv_1",
    request=ChatRequest(
        model="asi1",
        agentic=Agentic(web_search=True, web_search_options={"user_location": {"city": "Rome"}}, session_id="s"),
        metadata={"a": "b"},
        generation=Generation(
            messages=(
                Message(role="system", content="be kind"),
                Message(role="user", content=(TextPart("look"), ImagePart("data:x", "low"), OpaquePart("file", {}))),
                Message(role="assistant", tool_calls=(ToolCall("call_1", "f", '{"a": 1}'),), reasoning="hm"),
                Message(role="tool", content="7", tool_call_id="call_1"),
            ),
            sampling=Sampling(temperature=0.5, stop=("x",), logit_bias={"5": 1.0}),
            tools=(FunctionTool("f", "does", {"type": "object"}, strict=True),),
            response_format=ResponseFormat("json_schema", schema={"type": "object"}),
            extra={"odd": [1, {"two": None}]},
        ),
    ),
)


def ticking() -> float:
    return 100.0


async def test_steps_are_numbered_when_they_are_asked_for_not_when_they_are_awaited() -> None:
    journal = PassingJournal("run_1", ticking)
    first, second = journal.open(StepPlan(kind="tool", name="a")), journal.open(StepPlan(kind="tool", name="b"))
    later, sooner = await second, await first
    assert (sooner.id, sooner.change.name) == ("s1", "a")
    assert (later.id, later.change.name) == ("s2", "b")
    assert sooner.idempotency_key == "run_1:s1:1"
    assert sooner.recorded is None


async def test_a_step_shows_how_it_goes_and_how_it_ended() -> None:
    plan = StepPlan(kind="search", name="web_search", summary="Searching", detail={"q": 1}, depends_on=("s0",))
    step = await PassingJournal("run_1", ticking).open(plan)
    assert (step.change.status, step.change.summary, step.change.detail) == ("running", "Searching", {"q": 1})
    assert (step.change.started_at, step.change.ended_at) == (100.0, None)
    shown = step.show("Reading the third page")
    assert (shown.status, shown.summary, shown.detail) == ("running", "Reading the third page", {"q": 1})
    ended = await step.close("done", b"{}", usage=Usage(3, 4))
    assert (ended.status, ended.summary, ended.ended_at) == ("done", "Reading the third page", 100.0)
    assert ended.depends_on == ("s0",)
    assert ended.usage == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert step.change == ended


async def test_runs_that_nobody_keeps_begin_and_end_like_any_others() -> None:
    room: RunRoom = PassingRuns(ticking)
    journal: RunJournal = await room.begin(JOB)
    assert journal.run_id == "run_1"
    journal.attach(lambda: None)
    journal.saw(TextDelta("x"))
    await journal.finish("done", Fold())


def test_a_job_comes_back_from_json_as_it_was() -> None:
    assert msgspec.json.decode(msgspec.json.encode(JOB), type=Job) == JOB


def test_what_a_journal_keeps_of_rounds_and_calls_comes_back_from_json_as_it_was() -> None:
    said = Round(text="a", reasoning="b", calls=(ToolCall("c", "f", "{"),), finish="tool_calls", usage=Usage(1, 2))
    assert msgspec.json.decode(msgspec.json.encode(said), type=Round) == said
    found = ToolResult(text="t", data={"x": [1]}, sources=(Source("https://a.example", "A", "s"),), links=("l",))
    ran = Ran(call=ToolCall("c", "f", "{}"), status="done", text="t", result=found, step_id="s1")
    assert msgspec.json.decode(msgspec.json.encode(ran), type=Ran) == ran


def test_without_citations_text_passes_as_it_is_and_without_a_policy_every_call_runs() -> None:
    text: CitedText = PlainText()
    assert text.present(ToolResult(text="found", sources=(Source("https://a.example", "A"),))) == "found"
    assert [*text.write("see [1"), *text.write(""), *text.end()] == [TextDelta("see [1")]
    policy: Policy = AllowAll()
    spec = ToolSpec(name="f", description="", parameters={})
    assert policy.check(ToolCall("c", "f", "{}"), spec, {}, RunView(messages=())) is None
