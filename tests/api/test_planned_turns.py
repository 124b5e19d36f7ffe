"""`planner_mode` through HTTP: a plan that is a graph, steps at the same time, a failure, another plan, an answer."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from convene.config import Scripted, Search
from convene.errors import Failed
from tool_doubles import Box, PlayedTool, say_sunny

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from convene.tools.base import ToolContext, ToolResult

QUESTION = "Where is it warmest today, in Rome, Oslo or Bonn?"
ANSWER = "Rome and Oslo are sunny; of Bonn nothing is known."


def planned(step_id: str, city: str, *needs: str) -> dict[str, Any]:
    """Return a step of a plan that asks for the weather; one that needs others finds its city by itself."""
    return {"id": step_id, "task": f"weather of {city}", "tool": "weather", "input": city, "depends_on": list(needs)}


FIRST = [
    planned("rome", "Rome"),
    planned("oslo", "Oslo"),
    planned("bonn", "Bonn"),
    {"id": "compare", "task": "compare them", "tool": "none", "input": "", "depends_on": ["rome", "oslo", "bonn"]},
]
SECOND = [{"id": "compare2", "task": "compare the two", "tool": "none", "input": "", "depends_on": ["rome", "oslo"]}]
SCRIPT = {
    "models": [
        {
            "name": "planner",
            "turns": [
                {"when": "Make a plan for the last request", "steps": [{"text": json.dumps({"steps": FIRST})}]},
                {"when": "Some steps of the plan failed", "steps": [{"text": json.dumps({"steps": SECOND})}]},
                {"when": "You carry out one step", "steps": [{"text": "Both are sunny."}]},
                {"when": "The plan was carried out", "steps": [{"text": ANSWER}]},
            ],
        }
    ]
}


class Weather:
    """Answers for two cities once both are asked for, and fails for the third."""

    def __init__(self) -> None:
        self.together = asyncio.Barrier(2)

    async def look(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        if arguments["city"] == "Bonn":
            raise Failed("The station of Bonn is out of order.")
        async with asyncio.timeout(60):
            await self.together.wait()
        return await say_sunny(arguments, context)


@pytest.fixture
def play(serve: Any, tmp_path: Path) -> Any:  # noqa: ANN401 -- a fixture's factory
    """Return a way to serve the model `planner` with the tool `weather`."""

    def start() -> Any:  # noqa: ANN401 -- the same
        file = tmp_path / "planner.json"
        file.write_text(json.dumps(SCRIPT))
        tool = PlayedTool(do=Weather().look)
        scripted = Scripted(enabled=True, file=str(file))
        return serve(box=Box(tool), scripted=scripted, search=Search(enabled=False))

    return start


BODY: dict[str, Any] = {
    "model": "planner",
    "messages": [{"role": "user", "content": QUESTION}],
    "planner_mode": True,
    "max_tokens": 30,
}


def states(steps: list[Any]) -> dict[str, list[str]]:
    """Return how each planned step stood, from its first state to its last."""
    found: dict[str, list[str]] = {}
    for step in steps:
        if "." in step["id"]:
            found.setdefault(step["name"], []).append(step["status"])
    return found


@pytest.mark.req("CHAT-20")
async def test_independent_steps_run_at_the_same_time_and_a_failure_leads_to_another_plan(play: Any) -> None:  # noqa: ANN401
    async with play() as served:
        reply = (await served.chat(**BODY)).json()
    message = reply["choices"][0]["message"]
    assert message["content"] == ANSWER
    assert [(ran["args"]["city"], ran["status"]) for ran in reply["executable_data"]] == [
        ("Rome", "done"),
        ("Oslo", "done"),
        ("Bonn", "failed"),
    ]
    planned = {step["name"]: step for step in reply["intermediate_steps"] if "." in step["id"]}
    assert {name: step["status"] for name, step in planned.items()} == {
        "rome": "done",
        "oslo": "done",
        "bonn": "failed",
        "compare": "skipped",
        "compare2": "done",
    }
    assert "out of order" in planned["bonn"]["summary"]
    assert planned["compare2"]["depends_on"][1:] == [planned["rome"]["id"], planned["oslo"]["id"]]
    kinds = [(step["kind"], step["name"]) for step in reply["intermediate_steps"] if "." not in step["id"]]
    assert kinds == [
        ("plan", "plan"),
        ("tool", "weather"),
        ("tool", "weather"),
        ("tool", "weather"),
        ("plan", "revision 1"),
        ("model", "think: compare2"),
        ("model", "answer"),
    ]


async def test_a_plan_and_the_state_of_each_step_stream_as_they_change(play: Any) -> None:  # noqa: ANN401
    async with play() as served:
        frames = await served.frames(**BODY)
    steps = [step for frame in frames[:-1] for step in frame.get("intermediate_steps", [])]
    seen = states(steps)
    assert seen["rome"] == seen["oslo"] == ["pending", "running", "done"]
    assert seen["bonn"] == ["pending", "running", "failed"]
    assert seen["compare"] == ["pending", "skipped"]
    assert seen["compare2"] == ["pending", "running", "done"]
    assert "".join(_text(frame) for frame in frames[:-1]) == ANSWER
    assert all("tool_calls" not in choice["delta"] for frame in frames[:-1] for choice in frame["choices"])


async def test_a_model_that_makes_no_plan_answers_without_one_and_the_caller_is_told(play: Any) -> None:  # noqa: ANN401
    async with play() as served:
        reply = (await served.chat(**(BODY | {"server_tools": False}))).json()  # then the script's plan has no tool
    assert [notice["code"] for notice in reply["metadata"]["notices"]] == ["plan_failed"]
    assert [step["kind"] for step in reply["intermediate_steps"]] == ["plan", "plan", "plan", "model"]
    assert reply["choices"][0]["message"]["content"]


def _text(frame: Any) -> str:  # noqa: ANN401 -- a frame as JSON
    return "".join(choice["delta"].get("content") or "" for choice in frame["choices"])
