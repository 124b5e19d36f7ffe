"""The real program as a process of a test's own: started on a folder, asked, and ended in order or killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S = 180.0
SERVE = [sys.executable, "-m", "convene", "serve"]
SCRIPTED = "[engine]\nenabled = false\n[scripted]\nenabled = true\n"


class Listening:
    """A running `convene serve`; the log is a file, so that nothing blocks on a full pipe."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.port = int(self.wait_for(r"listens on http://127\.0\.0\.1:(\d+)"))

    def wait_for(self, pattern: str) -> str:
        """Return the first group of `pattern`, or all of it, once it is in the log."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found[1] if found.groups() else found[0]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"{pattern} never came: {self.log.read_text()}")


class Program(Listening):
    """One with a key, to be asked by HTTP."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, key: str = "") -> None:
        """`key`: of another server on the same store, which printed it."""
        super().__init__(process, log)
        self.key = key or self.wait_for(r"Authorization: Bearer (convene_\w+)")

    def wait_ready(self) -> None:
        """Wait until `/readyz` says 200."""
        until = time.monotonic() + WAIT_S
        while self.get("/readyz")[0] != 200:
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def get(self, path: str, key: str = "") -> tuple[int, bytes]:
        """Ask, without a key unless one is given."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    @contextlib.contextmanager
    def chat(self, **fields: object) -> Iterator[http.client.HTTPResponse]:
        """Open a chat completion."""
        body = {"model": "asi1", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 24} | fields
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            yield connection.getresponse()

    def children(self) -> list[int]:
        """Return the process ids of the engine's children."""
        table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607
        pairs = (line.split() for line in table.stdout.splitlines())
        return [int(pid) for pid, parent in pairs if parent == str(self.process.pid)]


@contextlib.contextmanager
def program(folder: Path, config: str, key: str = "") -> Iterator[Program]:
    """Run `convene serve` until the end of the block, then make sure that it ends in order."""
    (folder / "convene.toml").write_text(config)
    with started(folder) as (process, log):
        yield Program(process, log, key)
        end(process, log)


@contextlib.contextmanager
def started(folder: Path, name: str = "log", **environ: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start `convene serve` on a folder that has its configuration; kill it at the end, if it has not ended before."""
    log = folder / name
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - ours
            SERVE, stdout=output, stderr=output, env=environment(folder) | environ, cwd=folder
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def end(process: subprocess.Popen[bytes], log: Path) -> None:
    """End it in order."""
    process.terminate()
    assert process.wait(60) == 0, log.read_text()


def environment(folder: Path) -> dict[str, str]:
    """Return what makes the program use a folder, and any free port."""
    settings = {"CONVENE_CONFIG": str(folder / "convene.toml"), "CONVENE_DATA_DIR": str(folder / "data"), "PORT": "0"}
    return dict(os.environ) | settings


def verb(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb on the folder."""
    return subprocess.run(  # noqa: S603 - this interpreter and the test's own words
        [sys.executable, "-m", "convene", *words],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def frames(text: str) -> list[Any]:
    """Return the data frames of a stream."""
    return [block[6:] for block in text.split("\n\n") if block.startswith("data: ")]
