"""The agents of `examples/agents`: what they answer, and the A2A and MCP ones through the programs of their SDKs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio
import httpx2
import pytest
from mcp.client import Client

from conformance.environments import Absent, clean_environment, ensure_python
from process.program import program
from process.test_cli_agents import run
from repo.modules import ROOT
from servers import do_without, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from process.program import Program

HERE = ROOT / "examples/agents"
WAIT_S = 60.0
"""No test takes it; it turns one that hangs into one that fails."""
LINES_MAX = 80
MARKET = "[engine]\nenabled = false\n[scripted]\nenabled = true\n"
COUNT = '@text {"tool": "count_text", "arguments": {"text": "How many words are these?"}}'
COUNTED = "5 words, 1 sentences, 25 characters, 1 seconds to read."


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return an example as a module, without the library that runs it."""
    monkeypatch.setitem(sys.modules, "chat_agent", SimpleNamespace(run=None))
    spec = importlib.util.spec_from_file_location(f"example_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "said", "answered"),
    [
        ("units", "And how many kilometres are 12 nautical miles?", "12 nautical mile = 22.224 kilometre"),
        ("units", "At 14:40, what are 12 nautical miles in kilometres?", "12 nautical mile = 22.224 kilometre"),
        ("units", "convert 5 feet to cm", "5 feet = 152.4 cm"),
        ("units", "What is 100 °F in Celsius?", "100 °F = 37.7778 °C"),
        ("units", "-40 celsius to fahrenheit", "-40 °C = -40 °F"),
        ("units", "2,000 inches in meters", "2000 inches = 50.8 metre"),
        ("units", "how many cups is 1 liter", "1 litre = 4.22675 cup"),
        ("units", "90 mph in km/h", "90 mph = 144.841 km/h"),
        ("units", "1000000 km in mm", "1000000 km = 1000000000000 mm"),
        ("units", "5 kilometres in kilograms", "Tell me a number"),
        ("units", "kilometres", "Tell me a number"),
        (
            "ferries",
            "ferry to Ostrand from Vellmar after 2 pm",
            "leaves at 14:40 and arrives at 15:25. The fare is 6.50",
        ),
        ("ferries", "When does it leave Vellmar for Ostrand after 14:40?", "leaves at 14:40 and"),
        ("ferries", "Vellmar to Ostrand after 20:00", "leaves at 06:20 the next day"),
        ("ferries", "Lunholm to Vellmar", "after 00:00 leaves at 10:10"),
        ("ferries", "Ostrand to Lunholm", "There is no ferry from Ostrand to Lunholm."),
        ("ferries", "a ferry from Vellmar, please", "The harbours are Lunholm, Ostrand, Vellmar."),
        ("recipes", "What goes into pancakes for six people?", "Pancakes for 6: 375 g flour, 750 ml milk, 4.5 eggs"),
        ("recipes", "lentil soup for 2", "Lentil soup for 2: 150 g red lentils, 1 carrots, 0.5 onions, 600 ml"),
        ("recipes", "rice pudding", "Rice pudding for 3: 120 g rice"),
        ("recipes", "pancakes for 999", "I scale recipes to 1 to 500 people."),
        ("recipes", "a cake", "Tell me a recipe"),
    ],
)
def test_an_example_answers(name: str, said: str, answered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answered in load(name, monkeypatch).answer(said)


def test_examples_are_short_enough_to_be_read_at_once() -> None:
    long = {
        file.name: lines
        for file in HERE.glob("*.py")
        if (lines := len(file.read_text("utf-8").splitlines())) > LINES_MAX and file.name != "demo.py"
    }
    assert long == {}


@pytest.fixture
def calendar() -> Iterator[str]:
    """Run the A2A agent; return where it is."""
    try:
        python = str(ensure_python("a2a"))
    except Absent as fault:
        do_without(str(fault))
    yield from running(python, "calendar_a2a.py", "/.well-known/agent-card.json")


@pytest.fixture
def counter() -> Iterator[str]:
    """Run the MCP server; return where it is."""
    yield from running(sys.executable, "text_mcp.py", "/mcp")


def running(python: str, name: str, path: str) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(  # noqa: S603 -- our own program
        [python, str(HERE / name), "--port", str(port)], env=clean_environment(), stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + WAIT_S
    try:
        while not _answers(url + path):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code < 500
    except httpx2.HTTPError:
        return False


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        ("What day is 2026-12-24?", "2026-12-24 is a Thursday in week 52."),
        ("From 2026-12-24 to 2027-01-01", "There are 8 days between them."),
        ("2026-13-40", "2026-13-40 is no date."),
        ("hello", "Tell me one or two dates"),
    ],
)
def test_the_a2a_example_answers_by_its_protocol(calendar: str, said: str, answered: str) -> None:
    card = httpx2.get(f"{calendar}/.well-known/agent-card.json").json()
    assert (card["name"], card["supportedInterfaces"][0]["url"]) == ("calendar", f"{calendar}/a2a")
    message = {"role": "ROLE_USER", "messageId": "m1", "parts": [{"text": said}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    reply = httpx2.post(f"{calendar}/a2a", json=body, headers={"A2A-Version": "1.0"}).json()
    task = reply["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert answered in task["artifacts"][0]["parts"][0]["text"]


async def test_the_mcp_example_counts(counter: str) -> None:
    with anyio.fail_after(WAIT_S):
        async with Client(f"{counter}/mcp") as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            counted = await client.call_tool("count_text", {"text": "One two. Three-four!"})
            often = await client.call_tool("frequent_words", {"text": "a b a c a b", "most": 2})
    assert names == {"count_text", "frequent_words"}
    assert counted.content[0].text == "3 words, 2 sentences, 20 characters, 1 seconds to read."  # type: ignore[union-attr]
    assert often.content[0].text == "a 3, b 2"  # type: ignore[union-attr]


def _first(server: Program, query: str) -> str:
    status, found = server.get(f"/v1/agents?query={quote(query)}", server.key)
    assert status == 200
    return next((one["handle"] for one in json.loads(found)["data"]), "")


@pytest.mark.req("AGENT-01", "A2A-01", "A2A-03", "MCP-01", "MCP-04")
def test_both_are_added_to_a_server_found_and_answer_in_a_chat(calendar: str, counter: str, tmp_path: Path) -> None:
    with program(tmp_path, MARKET) as server:
        server.wait_ready()
        home = {"CONVENE_DATA_DIR": str(tmp_path / "data")}
        added = run(tmp_path, "add", calendar, "--handle", "calendar", environ=home)
        assert (added["name"], added["protocol"]) == ("calendar", "a2a")
        added = run(tmp_path, "add", f"{counter}/mcp", "--handle", "text", environ=home)
        assert (added["name"], added["protocol"]) == ("text-statistics", "mcp")
        for query, handle in (("which weekday is a date", "calendar"), ("count the words of a text", "text")):
            until = time.monotonic() + WAIT_S  # the index follows the store
            while (found := _first(server, query)) != handle:
                assert time.monotonic() < until, found
                time.sleep(0.05)
        for said, answered in (
            ("@calendar which day is 2026-12-24?", "2026-12-24 is a Thursday in week 52."),
            (COUNT, COUNTED),
        ):
            with server.chat(model="scripted-echo", messages=[{"role": "user", "content": said}]) as reply:
                assert json.load(reply)["choices"][0]["message"]["content"] == answered
