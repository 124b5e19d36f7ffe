"""Arguments against schemas, whoever wrote them; and calls that a driver makes by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from convene.events import Noticed, StepChanged, ToolRan
from convene.messages import ToolCall
from convene.serving.agent import Hooks
from convene.serving.base_agentic import CeilingReached
from convene.serving.terms import AgenticTerms
from convene.serving.tool_runs import KNOWN_MAX, Validators
from convene.tools.base import Source, ToolContext, ToolResult, ToolSpec
from tool_doubles import CITY, PlayedTool
from unit.serving.agent_doubles import House, Rounds, says

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.serving.base_agentic import AgenticRun, Ran


def spec(schema: dict[str, object]) -> ToolSpec:
    return ToolSpec(name="t", description="", parameters=schema)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"city": "Rome"}, None),
        ({"city": ""}, "at city"),
        ({}, "required"),
        ({"city": "Rome", "more": 1}, "more"),
        ({"city": 7}, "at city"),
    ],
)
def test_arguments_are_held_to_the_schema_and_the_fault_names_the_place(
    arguments: dict[str, object], wrong: str | None
) -> None:
    fault = Validators().find_fault(spec(CITY), arguments)
    assert fault is None if wrong is None else fault is not None and wrong in fault


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "http://schemas.test/secret.json"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"pattern": "("}}},
    ],
)
def test_a_schema_that_is_none_or_would_fetch_something_allows_anything_and_fetches_nothing(
    schema: dict[str, object],
) -> None:
    assert Validators().find_fault(spec(schema), {"a": 1}) is None


def test_validators_are_made_once_a_tool_and_the_oldest_is_forgotten() -> None:
    validators = Validators()
    kept = spec(CITY)
    assert validators.find_fault(kept, {"city": "Rome"}) is None
    first = validators._known[id(kept)]
    assert validators.find_fault(kept, {}) is not None
    assert validators._known[id(kept)] is first
    others = [spec(CITY) for _ in range(KNOWN_MAX)]
    for other in others:
        validators.find_fault(other, {})
    assert len(validators._known) == KNOWN_MAX
    assert id(kept) not in validators._known


class Calling:
    """A preparation that calls what the test wants and keeps what came of it."""

    def __init__(self, *calls: ToolCall, depends_on: tuple[str, ...] = ()) -> None:
        self.ran: list[Ran] = []
        self.view: Any = None
        self._calls = calls
        self._depends_on = depends_on

    async def prepare(self, run: AgenticRun) -> None:
        self.view = run.view
        self.ran = await run.call(self._calls, depends_on=self._depends_on)


async def find(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
    """Return something that may be cited, with words for the caller."""
    context.progress("found it")
    city = str(arguments["city"])
    return ToolResult(
        text=f"about {city}",
        sources=(Source(f"https://{city}.example/", city),),
        links=(f"https://{city}.example/more",),
        notices=(Noticed("old_page", "The page is old."),),
    )


def rome(call_id: str = "c", name: str = "weather", city: str = "Rome") -> ToolCall:
    return ToolCall(call_id, name, f'{{"city":"{city}"}}')


async def test_what_comes_into_a_run_is_known_to_the_policy_and_told_to_the_caller() -> None:
    calling = Calling(rome("a"), rome("b", city="Oslo"), depends_on=("s0",))
    tool = PlayedTool(do=find, labels=frozenset({"untrusted", "sends"}))
    house = House(Rounds(says("Hello.")), tool, hooks=Hooks(preparations=[calling]))
    events = await house.play()
    assert [ran.text for ran in calling.ran] == ["about Rome", "about Oslo"]
    assert [ran.step_id for ran in calling.ran] == ["s1", "s2"]
    assert calling.view.labels == {"untrusted", "sends"}
    assert calling.view.addresses == {
        "https://Rome.example/",
        "https://Rome.example/more",
        "https://Oslo.example/",
        "https://Oslo.example/more",
    }
    assert calling.view.results == calling.ran
    assert [event.code for event in events if isinstance(event, Noticed)] == ["old_page"]
    steps = [event for event in events if isinstance(event, StepChanged) and event.kind == "tool"]
    assert {step.depends_on for step in steps} == {("s0",)}
    assert "found it" in {step.summary for step in steps}


async def test_a_failed_call_brings_nothing_into_the_run() -> None:
    calling = Calling(rome(name="nothing"))
    house = House(Rounds(says("Hello.")), PlayedTool(do=find), hooks=Hooks(preparations=[calling]))
    events = await house.play()
    assert [ran.status for ran in calling.ran] == ["failed"]
    assert (calling.view.labels, calling.view.addresses, calling.view.results) == (set(), set(), [])
    (shown,) = [event for event in events if isinstance(event, ToolRan)]
    assert shown.result == {"error": calling.ran[0].text}


async def test_a_driver_that_asks_for_more_calls_than_are_left_ends_the_turn_before_the_first() -> None:
    calling = Calling(rome("a"), rome("b"), rome("c"))
    tool = PlayedTool()
    house = House(Rounds(says("Hello.")), tool, hooks=Hooks(preparations=[calling]), agentic=AgenticTerms(calls=2))
    events = await house.play()
    assert tool.asked == []
    assert [event.code for event in events if isinstance(event, Noticed)] == ["ceiling_reached"]


async def test_a_driver_may_also_answer_to_the_ceiling_itself() -> None:
    class Careful:
        async def prepare(self, run: AgenticRun) -> None:
            with pytest.raises(CeilingReached) as reached:
                await run.call([rome("a"), rome("b")])
            assert reached.value.which == "calls"
            await run.call([rome("a")])

    tool = PlayedTool()
    house = House(Rounds(says("Hello.")), tool, hooks=Hooks(preparations=[Careful()]), agentic=AgenticTerms(calls=1))
    await house.play()
    assert len(tool.asked) == 1


@pytest.mark.parametrize("written", ["", "  ", "{}"])
async def test_no_arguments_are_an_empty_object(written: str) -> None:
    calling = Calling(ToolCall("c", "weather", written))

    async def nothing(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        del context
        return ToolResult(text=f"{dict(arguments)}")

    tool = PlayedTool(do=nothing, parameters={"type": "object"})
    await House(Rounds(says("Hello.")), tool, hooks=Hooks(preparations=[calling])).play()
    assert calling.ran[0].text == "{}"


async def test_a_result_with_data_shows_the_data_and_one_without_its_text() -> None:
    calling = Calling(rome("a"))
    events = await House(Rounds(says("Hello.")), hooks=Hooks(preparations=[calling])).play()
    assert [event.result for event in events if isinstance(event, ToolRan)] == [{"sky": "sunny"}]
    events = await House(Rounds(says("Hi.")), PlayedTool(do=find), hooks=Hooks(preparations=[Calling(rome())])).play()
    assert [event.result for event in events if isinstance(event, ToolRan)] == [{"text": "about Rome"}]
