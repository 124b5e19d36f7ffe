"""The official A2A client against a real server: both wire forms, streams, whole answers, tasks that outlive kills."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conformance.environments import Absent, clean_environment, ensure_python
from process.served import WAIT_S, ScriptedServer
from servers import do_without

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CALLER = Path(__file__).with_name("a2a_caller.py")
SETTINGS = """
[agents.answering]
model = "played"
"""
SCRIPT = {
    "models": [
        {
            "name": "played",
            "turns": [
                {"steps": [{"text": "The first answer."}]},
                {"steps": [{"text": "The second answer."}]},
            ],
        },
        {"name": "slow", "turns": [{"steps": [{"text": "At "}, {"pause_s": 4.0}, {"text": "last."}]}]},
        {"name": "never", "turns": [{"steps": [{"pause_s": 600}, {"text": "Never."}]}]},
        {"name": "broken", "turns": [{"steps": [{"fail": "unavailable"}]}]},
    ]
}
WIRES = pytest.mark.parametrize("wire", ["1.0", "0.3", "1.0-http"])


class Server(ScriptedServer):
    """A real server, and the official client."""

    def __init__(self, folder: Path, python: Path) -> None:
        super().__init__(folder, SCRIPT, SETTINGS)
        self._python = python

    async def play(self, wire: str, scene: str, *words: str, key: str = "") -> Any:  # noqa: ANN401 -- JSON
        """Run a scene of the official client and return what came."""
        command = [str(CALLER), self.url, key or self.key, wire, scene, *words]
        process = await asyncio.create_subprocess_exec(
            str(self._python), *command, stdout=asyncio.subprocess.PIPE, env=clean_environment()
        )
        async with asyncio.timeout(WAIT_S):
            out, _ = await process.communicate()
        return json.loads(out)

    async def until(self, wire: str, task: str, state: str) -> Any:  # noqa: ANN401 -- JSON
        async with asyncio.timeout(WAIT_S):
            while (found := await self.play(wire, "get", task))["state"] != state:  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.1)
        return found


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return ensure_python("a2a")
    except Absent as fault:
        do_without(str(fault))


@pytest.fixture
async def server(tmp_path: Path, python: Path) -> AsyncIterator[Server]:
    async with Server(tmp_path, python) as one:
        yield one


@pytest.mark.req("A2A-01", "A2A-04", "A2A-05", "A2A-08", "A2A-09")
@WIRES
async def test_the_official_client_gets_streams_and_whole_answers_and_a_refusal_in_its_own_errors(
    server: Server, wire: str
) -> None:
    found = await server.play(wire, "ask", "hello")
    assert (found["card"], found["skills"]) == ("Convene", ["answer"])
    [asked] = found["asked"]
    assert asked["text"] == "The first answer."
    assert asked["kinds"][0] == "task"
    assert asked["kinds"][-1] == "status_update"
    assert "artifact_update" in asked["kinds"]
    assert asked["states"][-1] == "TASK_STATE_COMPLETED"
    assert asked["task"]["history"] == ["hello"]
    whole = (await server.play(wire, "whole-ask", "hello", "and then?"))["asked"]
    assert [one["kinds"] for one in whole] == [["task"], ["task"]]
    assert [one["task"]["artifacts"] for one in whole] == [["The first answer."], ["The second answer."]]
    assert [one["task"]["state"] for one in whole] == ["TASK_STATE_COMPLETED"] * 2
    assert whole[0]["task"]["context"] == whole[1]["task"]["context"]
    assert whole[0]["task"]["stamped"]
    missing = await server.play(wire, "get", "run_nobodys")
    assert missing["fault"] == "TaskNotFoundError"
    over = await server.play(wire, "cancel", whole[0]["task"]["id"])
    assert over["fault"] == "TaskNotCancelableError"


@pytest.mark.parametrize("wire", ["1.0", "1.0-http"])
async def test_tasks_are_listed_page_by_page(server: Server, wire: str) -> None:
    asked = (await server.play(wire, "whole-ask", "hello", "and then?"))["asked"]
    other = await server.play(wire, "whole-ask", "in another conversation")
    first, second = (one["task"]["id"] for one in asked)
    found = await server.play(wire, "list", asked[0]["task"]["context"])
    assert "pages" in found, found
    assert [[task["id"] for task in page] for page in found["pages"]] == [[second], [first]]
    assert found["pages"][0][0]["artifacts"] == []
    assert found["pages"][0][0]["history"] == ["and then?"]
    assert found["total"] == 2
    assert [task["id"] for task in found["whole"]] == [other["asked"][0]["task"]["id"], second, first]
    assert [task["artifacts"] for task in found["whole"][1:]] == [["The second answer."], ["The first answer."]]
    assert {tuple(task["history"]) for task in found["whole"]} == {()}


@pytest.mark.req("A2A-06")
@WIRES
async def test_a_task_is_followed_and_ended_from_elsewhere_and_outlives_a_kill(server: Server, wire: str) -> None:
    followed, ended, broken = await asyncio.gather(
        server.play(wire, "follow", "wait for it", "slow"),
        server.play(wire, "whole-stop", "wait for ever", "never"),
        server.play(wire, "whole-begin", "fail", "broken"),
    )
    assert "begun" in followed, followed
    slow = followed["begun"]
    assert (slow["state"], slow["artifacts"]) == ("TASK_STATE_WORKING", [])
    assert (followed["text"], followed["states"][-1]) == ("At last.", "TASK_STATE_COMPLETED")
    assert ended["state"] == "TASK_STATE_CANCELED"
    failed = await server.until(wire, broken["task"]["id"], "TASK_STATE_FAILED")
    assert failed["why"]
    begun = await server.play(wire, "whole-begin", "survive this", "slow")
    await server.kill()
    await server.start()
    found = await server.until(wire, begun["task"]["id"], "TASK_STATE_COMPLETED")
    assert (found["artifacts"], found["history"]) == (["At last."], ["survive this"])
    assert (await server.play(wire, "get", ended["id"]))["state"] == "TASK_STATE_CANCELED"
    assert (await server.play(wire, "get", slow["id"]))["artifacts"] == ["At last."]
