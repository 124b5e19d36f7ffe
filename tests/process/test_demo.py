"""`make demo` as it is run: real agents, the real embedded model, and what the answer's stream has told.

What is asserted is who was asked what and has answered what, never the tiny model's prose.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conformance.environments import Absent, ensure_python
from repo.modules import ROOT
from servers import do_without, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = ROOT / "examples/agents/demo.py"
WAIT_S = 20.0
PATIENCE_S = 600.0
"""Long enough for a first fetch of the weights over a slow line."""
FERRY = "When does the next ferry leave Vellmar for Ostrand after 14:00?"
MILES = "And how many kilometres are 12 nautical miles?"


@pytest.fixture(scope="module")
def python() -> str:
    """Return the interpreter that has uagents, from here as make names it."""
    try:
        return os.path.relpath(ensure_python("uagents"))
    except Absent as fault:
        do_without(str(fault))


def start(python: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    """Start the demo with a temporary folder of its own."""
    command = [sys.executable, str(DEMO), "--agents-python", python, *more]
    return subprocess.Popen(  # noqa: S603 -- our own program
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"TMPDIR": str(folder)}
    )


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Path]:
    """Lend a folder for temporary files, in which nothing may be left, and of which no program may be left."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    yield folder
    assert [*folder.iterdir()] == []
    until = time.monotonic() + WAIT_S
    while _running(str(folder)):  # what was killed takes a moment to be gone
        assert time.monotonic() < until, _running(str(folder))
        time.sleep(0.05)


def _running(words: str) -> list[str]:
    """Return the programs that have a word in their working folder or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            about = process.joinpath("environ").read_text("utf-8", "replace") + str(process.joinpath("cwd").readlink())
        except OSError:
            continue
        if words in about and process.name != str(os.getpid()):
            found.append(process.name)
    return found


def asked(report: Any) -> dict[str, tuple[str, str]]:  # noqa: ANN401 -- JSON
    """Return what each agent was told and has answered, by its handle."""
    return {
        item["agent"]["handle"]: (item["args"]["message"], item["result"]["answer"])
        for item in report["executable_data"]
        if item["type"] == "agent_manifest"
    }


@pytest.mark.req("AGENT-02", "AGENTIC-01", "AGENTIC-02")
def test_the_demo_asks_the_two_agents_that_the_question_takes(python: str, left: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with start(python, left, "--report", str(report)) as demo:
        printed, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, printed
    told = json.loads(report.read_text("utf-8"))
    answers = asked(told)
    assert answers.keys() == {"ferries", "units"}
    assert answers["ferries"][0] == FERRY
    assert "leaves at 14:40 and arrives at 15:25" in answers["ferries"][1]
    assert answers["units"] == (MILES, "12 nautical mile = 22.224 kilometre")
    steps = {(step["kind"], step["name"]): step["status"] for step in told["steps"]}
    assert steps[("agent", "ask_ferries")] == steps[("agent", "ask_units")] == "done"
    assert told["text"].strip()
    for words in (
        FERRY,
        MILES,
        "ferries: acknowledged",
        "units: acknowledged",
        *(answer for _, answer in answers.values()),
    ):
        assert words in printed


def test_a_question_for_nobody_is_no_success(python: str, left: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with start(python, left, "--report", str(report), "--question", "Who wrote Hamlet?") as demo:
        printed, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1, printed
    assert asked(json.loads(report.read_text("utf-8"))) == {}
    assert "Only 0 of 2 agents answered: nobody." in printed


@pytest.mark.parametrize(
    ("number", "when"), [(signal.SIGINT, "Starting the agents"), (signal.SIGTERM, "Starting Convene")]
)
def test_an_interrupted_demo_stops_what_it_has_started(
    python: str, left: Path, number: signal.Signals, when: str
) -> None:
    with start(python, left) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith(when):
                break
        demo.send_signal(number)
        printed, _ = demo.communicate(timeout=PATIENCE_S)
    assert (demo.returncode, printed.splitlines()[-1]) == (130, "Stopped.")


def test_what_cannot_be_had_is_said(left: Path) -> None:
    with start("/bin/false", left) as demo:
        printed, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1
    assert (
        printed
        == "\nThe demo cannot go on: /bin/false has no uagents; `make .venv-demo/.ready` sets one up that has.\n"
    )


def test_another_model_answers_where_one_is_named(python: str, left: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    with start(python, left, "--upstream", nobody, "--upstream-model", "m") as demo:
        printed, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1, printed
    assert "The demo cannot go on: the server refused with 5" in printed
