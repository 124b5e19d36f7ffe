"""The servers under test: real processes, `python -m convene serve`, each with a data folder of its own.

`scripted` and `open` (the same without keys) answer at once and always the same, `searching` also searches a SearXNG,
reads pages and has a tool of an MCP server, all doubles, and `embedded` is the default configuration with its real
model. Called by `run.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from conformance.environments import HERE, OUT, Absent, clean_environment
from mcp_double import DoubleTool, McpDouble
from searx_double import serving_searx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCRIPTED: Final = f"""\
[engine]
enabled = false
[agentic]
metadata_shape = "strings"
[scripted]
enabled = true
file = {json.dumps(str(HERE / "script.toml"))}
[models.asi1]
upstream = "scripted"
model = "scripted-tools"
aliases = ["gpt-6-astra"]
[models.text-embedding-3-small]
upstream = "scripted"
embeddings = true
"""
SEARCHING: Final = """\
[engine]
enabled = false
[scripted]
enabled = true
file = {script}
[models.asi1]
upstream = "scripted"
model = "guide"
[models.asi1-mini]
upstream = "scripted"
model = "mixer"
[models.asi1-ultra]
upstream = "scripted"
model = "planner"
[agentic]
metadata_shape = "strings"
[mcp.harbour]
url = "{mcp}"
[search]
engines = ["searxng"]
[search.searxng]
base_url = "{root}"
[egress]
allow = ["127.0.0.0/8"]
"""
CONFIGURATIONS: Final[Mapping[str, str]] = {
    "scripted": SCRIPTED,
    "open": f'auth = "none"\n{SCRIPTED}',
    "searching": SEARCHING,
    "embedded": "",
}
EMBEDDERS: Final[Mapping[str, str]] = {"embedded": "all-minilm-l6-v2"}
"""The embedding model of a server, where it is not the alias that the scripted ones have."""
START_S: Final = 60.0
READY_S: Final = 900.0
"""The first start of the embedded server fetches its weights."""
END_S: Final = 45.0
"""More than the grace that a server gives to running answers."""
LOOK_S: Final = 0.2

_GREETING = re.compile(r"curl (http://\S+)/v1/chat/completions -H 'Authorization: Bearer (\S+)'")


class Server(NamedTuple):
    """A running server: its name, its root URL, a key, and an embedding model."""

    name: str
    root: str
    key: str
    embedder: str

    @property
    def base(self) -> str:
        """The base URL of clients."""
        return f"{self.root}/v1"


@contextlib.contextmanager
def serve(name: str, *, keep: bool) -> Iterator[Server]:
    """Run one of `CONFIGURATIONS` on a free port until the block ends; with `keep` its folder stays.

    Raises:
        Absent: it does not come up; the text holds the end of its log.
    """
    OUT.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"server-{name}-", dir=OUT))
    head = f"port = 0\naccess_log = false\ndata_dir = {json.dumps(str(folder / 'data'))}\n"
    with contextlib.ExitStack() as stack:
        text = CONFIGURATIONS[name]
        if name == "searching":
            searx, mcp = stack.enter_context(serving_searx()), stack.enter_context(_serving_mcp())
            text = _write_guide(folder, searx.base_url, mcp)
        (folder / "convene.toml").write_text(head + text, "utf-8")
        yield from _run(name, folder, keep=keep)


def _run(name: str, folder: Path, *, keep: bool) -> Iterator[Server]:
    with (folder / "out.txt").open("wb") as out, (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "convene", "serve"], cwd=folder, env=clean_environment(), stdout=out, stderr=log
        )
    try:
        server = _wait(name, process, folder)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _serving_mcp() -> Iterator[str]:
    """Serve an MCP server with one tool from a thread, and yield its address."""
    tides = DoubleTool(
        name="tides",
        run=lambda place: f"High water at {place} is at 14:20.",
        description="Tells when it is high water at a place on the coast",
        schema={
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
            "additionalProperties": False,
        },
        annotations={"readOnlyHint": True, "openWorldHint": False},
    )
    server, loop = McpDouble(tides), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.up(), loop).result(START_S)
        yield server.url
        asyncio.run_coroutine_threadsafe(server.down(), loop).result(START_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _write_guide(folder: Path, root: str, mcp: str) -> str:
    """Write the scripts of models that search, mix, and plan; return the configuration with what they call."""
    turns: list[dict[str, object]] = [
        {"call": {"name": "web_search", "args": {"query": "lighthouse Vellmar height"}}},
        {"call": {"name": "web_fetch", "args": {"url": f"{root}/pages/lighthouse"}}},
        {"text": "The tower is 43 metres high [1] and was first lit in 1871 [1]. The mole is 612 metres long [2]."},
    ]
    search = {"call": {"name": "web_search", "args": {"query": "lighthouse Vellmar"}}}
    tides = {"call": {"name": "harbour__tides", "args": {"place": "vellmar"}}}
    mixed: list[dict[str, object]] = [
        {"steps": [search, tides]},
        {"steps": [{"call": {"name": "paint_wall", "args": {"colour": "red"}}}]},
        {"steps": [{"text": "High water is at 14:20; the wall is red [1]."}]},
    ]
    plan = [
        {"id": "a", "task": "find it", "tool": "web_search", "input": "lighthouse Vellmar", "depends_on": []},
        {"id": "b", "task": "the tides", "tool": "harbour__tides", "input": "vellmar", "depends_on": []},
    ]
    planned: list[dict[str, object]] = [
        {"when": "Make a plan for the last request", "steps": [{"text": json.dumps({"steps": plan})}]},
        {"when": "The plan was carried out", "steps": [{"text": "High water is at 14:20 [1]."}]},
    ]
    script = folder / "guide.json"
    guide: list[dict[str, object]] = [{"steps": [step]} for step in turns]
    models = [
        {"name": name, "turns": said} for name, said in (("guide", guide), ("mixer", mixed), ("planner", planned))
    ]
    script.write_text(json.dumps({"models": models}), "utf-8")
    return SEARCHING.format(script=json.dumps(str(script)), root=root, mcp=mcp)


def _wait(name: str, process: subprocess.Popen[bytes], folder: Path) -> Server:
    """Return the server once every model of it is ready."""
    greeting = None
    began = time.monotonic()
    while time.monotonic() - began < (READY_S if greeting else START_S):
        if process.poll() is not None:
            break
        if greeting is None:
            greeting = _GREETING.search((folder / "out.txt").read_text("utf-8"))
        elif _is_ready(greeting[1]):
            return Server(name, greeting[1], greeting[2], EMBEDDERS.get(name, "text-embedding-3-small"))
        time.sleep(LOOK_S)
    end = (folder / "log.txt").read_text("utf-8", "replace").splitlines()[-5:]
    raise Absent(f"the server {name!r} did not come up: {' | '.join(end)}")


def _is_ready(root: str) -> bool:
    try:
        with urllib.request.urlopen(f"{root}/readyz?verbose", timeout=10) as answer:  # noqa: S310 - our own server
            models = json.load(answer)["models"]
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
    return all(state == "ready" for state in models.values())
