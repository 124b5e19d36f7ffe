"""Plans as graphs: what is refused, what can run beside each other, what a failure leaves."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.serving.plan import (
    ALL_STEPS_MAX,
    NO_TOOL,
    STEPS_MAX,
    Plan,
    PlannedStep,
    PlanRefused,
    arguments_of,
    plan_schema,
    read_plan,
)

TOOLS = ("web_search", "shop__buy")


def written(*steps: dict[str, object]) -> str:
    """Return a plan as a model writes it."""
    return json.dumps({"steps": [{"task": f"do {step['id']}", "tool": NO_TOOL, "input": ""} | step for step in steps]})


def of(**depends_on: list[str]) -> str:
    """Return a plan of steps without tools, by what each depends on."""
    steps: list[dict[str, object]] = [{"id": name, "depends_on": needed} for name, needed in depends_on.items()]
    return written(*steps)


def ids(steps: tuple[PlannedStep, ...]) -> list[str]:
    return [step.id for step in steps]


def test_steps_that_depend_on_nothing_run_beside_each_other_and_the_others_after_them() -> None:
    plan = Plan(read_plan(of(a=[], b=[], c=["a", "b"]), TOOLS))
    assert ids(plan.wave()) == ["a", "b"]
    plan.run("a")
    plan.run("b")
    assert plan.wave() == ()
    plan.end("a", "one")
    assert plan.wave() == ()
    plan.end("b", "two")
    assert ids(plan.wave()) == ["c"]
    assert plan.result("a") == "one"


def test_a_step_may_be_written_before_what_it_depends_on() -> None:
    assert ids(read_plan(of(last=["first"], first=[]), TOOLS)) == ["first", "last"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no JSON", "not a plan"),
        ('{"steps": [{"id": 1}]}', "not a plan"),
        ('{"steps": []}', "at least one step"),
        (of(a=["a"]), "wait for each other: 'a'"),
        (of(a=["b"], b=["a"], c=[]), "wait for each other: 'a', 'b'"),
        (of(a=["gone"]), "depends on 'gone'"),
        (written({"id": "a", "depends_on": []}, {"id": "a", "depends_on": []}), "'a' is there twice"),
        (written({"id": "", "depends_on": []}), "An id is 1 to 24 letters"),
        (written({"id": "a.b", "depends_on": []}), "not 'a.b'"),
        (written({"id": "a", "tool": "rm", "depends_on": []}), "there are: 'none', 'web_search', 'shop__buy'"),
        (of(**{f"s{number}": [] for number in range(STEPS_MAX + 1)}), f"at most {STEPS_MAX} steps"),
    ],
)
def test_what_is_no_plan_is_refused_in_words_that_a_model_can_mend(text: str, words: str) -> None:
    with pytest.raises(PlanRefused, match=words):
        read_plan(text, TOOLS)


def test_what_waits_for_a_failure_is_skipped_and_nothing_else() -> None:
    plan = Plan(read_plan(of(a=[], b=["a"], c=["b"], d=[]), TOOLS))
    plan.end("a", "the shop is closed", failed=True)
    assert ids(plan.failures) == ["a"]
    assert ids(plan.skip_blocked()) == ["b", "c"]
    assert [plan.status(one) for one in "abcd"] == ["failed", "skipped", "skipped", "pending"]
    assert ids(plan.wave()) == ["d"]
    assert plan.skip_blocked() == ()


def test_a_revision_replaces_what_is_pending_and_may_build_on_what_is_done() -> None:
    plan = Plan(read_plan(of(a=[], b=[], c=["b"]), TOOLS))
    plan.end("a", "one")
    plan.end("b", "no", failed=True)
    steps = read_plan(of(d=["a"], e=["d"]), TOOLS, plan)
    assert ids(plan.revise(steps)) == ["c"]
    assert ids(plan.steps) == ["a", "b", "d", "e"]
    assert ids(plan.wave()) == ["d"]
    assert ids(plan.open) == ["d", "e"]


def test_a_revision_may_be_empty_but_neither_reuse_an_id_nor_build_on_a_failure() -> None:
    plan = Plan(read_plan(of(a=[], b=[]), TOOLS))
    plan.end("a", "no", failed=True)
    assert read_plan('{"steps": []}', TOOLS, plan) == ()
    with pytest.raises(PlanRefused, match="used before"):
        read_plan(of(a=[]), TOOLS, plan)
    with pytest.raises(PlanRefused, match="no step that is or will be done"):
        read_plan(of(c=["a"]), TOOLS, plan)
    assert ids(read_plan(of(b=[]), TOOLS, plan)) == ["b"], "a pending step may be written again"


def test_a_plan_cannot_grow_for_ever() -> None:
    plan = Plan(read_plan(of(a=[]), TOOLS))
    plan.end("a", "done")
    for round_number in range(2):
        steps = read_plan(of(**{f"r{round_number}n{at}": [] for at in range(STEPS_MAX)}), TOOLS, plan)
        plan.revise(steps)
        for step in steps:
            plan.end(step.id, "done")
    with pytest.raises(PlanRefused, match=f"{ALL_STEPS_MAX} steps in all"):
        read_plan(of(**{f"x{at}": [] for at in range(STEPS_MAX)}), TOOLS, plan)


@given(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8))
def test_whatever_graph_is_read_every_step_runs_once_and_after_what_it_needs(needs: list[list[int]]) -> None:
    text = of(**{f"s{at}": [f"s{one}" for one in needed] for at, needed in enumerate(needs)})
    try:
        plan = Plan(read_plan(text, TOOLS))
    except PlanRefused:
        return
    order: list[str] = []
    while wave := plan.wave():
        for step in wave:
            assert set(step.depends_on) <= set(order)
            plan.run(step.id)
        for step in wave:
            order.append(step.id)
            plan.end(step.id, "")
    assert sorted(order) == [f"s{at}" for at in range(len(needs))]


def test_the_schema_takes_what_is_read_and_no_tool_that_is_not_there() -> None:
    schema = jsonschema_rs.validator_for(plan_schema(TOOLS))
    assert schema.is_valid(json.loads(of(a=[], b=["a"])))
    assert not schema.is_valid(json.loads(written({"id": "a", "tool": "rm", "depends_on": []})))
    assert not schema.is_valid({"steps": []})
    assert jsonschema_rs.validator_for(plan_schema(TOOLS, least=0)).is_valid({"steps": []})


ONE_TEXT: dict[str, object] = {
    "type": "object",
    "properties": {"query": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["query"],
}
TWO: dict[str, object] = {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a", "b"]}


@pytest.mark.parametrize(
    ("given", "parameters", "found"),
    [
        ("weather rome", ONE_TEXT, {"query": "weather rome"}),
        ('{"query": "x", "count": 2}', ONE_TEXT, {"query": "x", "count": 2}),
        ("", ONE_TEXT, None),
        (" None ", ONE_TEXT, None),
        ("{broken", ONE_TEXT, None),
        ("weather", TWO, None),
        ("7", {"properties": {"n": {"type": "integer"}}, "required": ["n"]}, None),
        ("x", {}, None),
        ('{"a":' * 100_000, ONE_TEXT, None),
    ],
)
def test_a_plan_may_name_the_arguments_itself(
    given: str, parameters: dict[str, object], found: dict[str, object] | None
) -> None:
    assert arguments_of(PlannedStep(id="a", task="t", tool="web_search", input=given), parameters) == found


def test_a_step_that_builds_on_others_never_has_its_arguments_from_the_plan() -> None:
    step = PlannedStep(id="b", task="t", tool="web_search", input="guess", depends_on=("a",))
    assert arguments_of(step, ONE_TEXT) is None
