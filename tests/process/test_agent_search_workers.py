"""Several processes behind one port: an agent that is added beside them is found by each, and after a kill -9 too."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from process.program import Program
from process.test_cli_agents import CONFIG, environment, run, tides
from servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["tides"]
WAIT_S = 90.0
ASKED = 24
"""Connections of their own, so that the kernel gives each worker some."""


@contextlib.contextmanager
def serving(folder: Path, name: str, key: str = "") -> Iterator[Program]:
    """Serve with two workers."""
    log = folder / name
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "convene", "serve", "--workers", "2"],
            cwd=folder,
            env=environment(folder),
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        yield Program(process, log, key)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(WAIT_S)


def search(program: Program, text: str) -> tuple[str, list[str]]:
    """Search as a stranger on a new connection; return who answered, and who was found."""
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=WAIT_S)
    with contextlib.closing(connection):
        body = json.dumps({"search_text": text})
        connection.request("POST", "/v1/search/agents", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        return found["search_id"], [one["name"] for one in found["agents"]]


def found_by_all(program: Program, text: str, wanted: list[str]) -> bool:
    return all(search(program, text)[1] == wanted for _ in range(ASKED))


def wait_until_all(program: Program, text: str, wanted: list[str]) -> None:
    until = time.monotonic() + WAIT_S
    while not found_by_all(program, text, wanted):
        assert time.monotonic() < until, f"{text!r} does not find {wanted} everywhere: {program.log.read_text()}"
        time.sleep(0.1)


def test_every_worker_follows_what_is_added_and_removed_and_starts_with_it_after_a_kill(
    tmp_path: Path, tides: str
) -> None:
    (tmp_path / "convene.toml").write_text(CONFIG.format(port=free_port(), data=tmp_path / "data"))
    with serving(tmp_path, "first") as program:
        key = program.key
        assert found_by_all(program, "high tide", [])
        added = run(tmp_path, "add", tides, "--handle", "tides")
        wait_until_all(program, "high tide", ["Tide Tables"])
        run(tmp_path, "add", tides, "--off")
        wait_until_all(program, "high tide", [])
        run(tmp_path, "add", tides)
        wait_until_all(program, "high tide", ["Tide Tables"])
    with serving(tmp_path, "second", key) as program:
        wait_until_all(program, "high tide", ["Tide Tables"])
        run(tmp_path, "remove", added["id"])
        wait_until_all(program, "high tide", [])
