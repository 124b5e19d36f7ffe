"""The servers under test: real processes, `python -m convene serve`, each with a data folder of its own.

`scripted` and `open` (the same without keys) answer at once and always the same, `searching` also searches a SearXNG
and reads pages of a double, `embedded` is the default configuration with its real model. Called by `run.py`.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from conformance.environments import HERE, OUT, Absent, clean_environment
from searx_double import serving_searx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCRIPTED: Final = f"""\
[engine]
enabled = false
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
            text = _write_guide(folder, stack.enter_context(serving_searx()).base_url)
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


def _write_guide(folder: Path, root: str) -> str:
    """Write the script of a model that searches, reads and cites; return the configuration with its search engine."""
    turns: list[dict[str, object]] = [
        {"call": {"name": "web_search", "args": {"query": "lighthouse Vellmar height"}}},
        {"call": {"name": "web_fetch", "args": {"url": f"{root}/pages/lighthouse"}}},
        {"text": "The tower is 43 metres high [1] and was first lit in 1871 [1]. The mole is 612 metres long [2]."},
    ]
    script = folder / "guide.json"
    models = [{"name": "guide", "turns": [{"steps": [step]} for step in turns]}]
    script.write_text(json.dumps({"models": models}), "utf-8")
    return SEARCHING.format(script=json.dumps(str(script)), root=root)


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
