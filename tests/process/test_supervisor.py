"""The supervisor of workers, with played workers: what it tells them, what it makes of their deaths, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from convene import app_workers
from convene.app_workers import Supervisor
from convene.config import Config, load
from convene.config_handover import unseal
from convene.engine.base import ChildAddress, EngineSettings, EngineStatus, EngineView
from convene.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

PATIENCE_S = 60.0
PRELUDE = f"""#!{sys.executable}
import json, os, signal, socket, sys, time
end = socket.socket(fileno=0)
lines = end.makefile("rb")
raw = lines.readline()
order = json.loads(raw)
def say(kind, **fields):
    end.sendall(json.dumps({{"type": kind, **fields}}).encode() + b"\\n")
def hear():
    line = lines.readline()
    return json.loads(line) if line else None
def note(text):
    with open(os.environ["NOTES"], "ab", buffering=0) as notes:
        notes.write(text.encode() + b"\\n")
def serve():
    say("Up")
    while (heard := hear()) is not None and heard["type"] != "Go":
        pass
    say("Listening")
def wait_for(kind):
    while (heard := hear()) is not None:
        if heard["type"] == kind:
            return heard
"""


class Stage:
    """Where workers are played and what they have noted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._notes = folder / "notes"
        self._player = folder / "player"
        self._notes.touch()
        monkeypatch.setenv("NOTES", str(self._notes))
        monkeypatch.setattr(sys, "executable", str(self._player))
        monkeypatch.setattr(app_workers, "BACKOFF_FIRST_S", 0.01)
        monkeypatch.setattr(app_workers, "GRACE_BEYOND_S", 0.3)

    def play(self, script: str) -> None:
        """Let every worker do this from now on."""
        self._player.write_text(PRELUDE + script)
        self._player.chmod(0o700)

    def config(self, **flags: str) -> Config:
        """Return settings without models, for two workers."""
        given = {"port": "0", "workers": "2", "auth": "none", "engine.enabled": "false", "edge.grace_s": "0"} | flags
        return load({"data_dir": str(self._folder / "data")} | given, {"HOME": str(self._folder)}, self._folder)

    def notes(self) -> list[str]:
        """Return what the players have noted."""
        return self._notes.read_text().splitlines()

    async def wait_notes(self, count: int) -> list[str]:
        """Wait for so many notes."""
        await wait_for(lambda: len(self.notes()) >= count)
        return self.notes()


async def let_go() -> None:
    """Give the loop the turns in which it closes the transports of processes that have just ended."""
    for _ in range(5):
        await asyncio.sleep(0)


async def wait_for(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is looked for happens in another process
            await asyncio.sleep(0.01)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[tuple[Supervisor, asyncio.Task[None]]]:
    """Run a supervisor and stop it at the end of the block, if it still runs."""
    with tempfile.TemporaryFile() as lock:
        supervisor = Supervisor(config, lock.fileno())
        task = asyncio.create_task(supervisor.run())
        try:
            yield supervisor, task
        finally:
            if not task.done():
                supervisor._stop()
            await asyncio.wait([task], timeout=PATIENCE_S)
            assert task.done()
            await let_go()


async def test_a_worker_is_told_which_it_is_with_all_settings_and_its_own_socket(stage: Stage) -> None:
    stage.play("""
port = socket.socket(fileno=order["listeners"][0]).getsockname()[1]
shown = {key: order[key] for key in ("index", "count", "views")} | {"settings": json.dumps(order["settings"])}
note(json.dumps(shown | {"port": port, "argv": sys.argv[1:], "lock": os.fstat(order["lock"]).st_nlink}))
serve()
wait_for("Stop")
""")
    config = stage.config()
    async with running(config) as (supervisor, _):
        told: list[dict[str, Any]] = [json.loads(note) for note in await stage.wait_notes(2)]
        port = supervisor._claimed[0].getsockname()[1]
    assert {one["index"] for one in told} == {0, 1}
    assert {one["count"] for one in told} == {2}
    assert {one["port"] for one in told} == {port}
    assert all(unseal(one["settings"].encode()) == config for one in told)
    assert all(one["argv"] == ["-P", "-m", "convene.app_worker"] for one in told)
    assert all(one["lock"] == 0 for one in told), "the lock is a file without a name"


async def test_where_the_server_is_comes_once_and_before_any_worker_listens(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.play("""
say("Up")
note("up")
wait_for("Go")
note("go")
say("Listening")
wait_for("Stop")
""")
    async with running(stage.config()):
        notes = await stage.wait_notes(4)
    said = capsys.readouterr()
    assert sorted(notes) == ["go", "go", "up", "up"]
    assert said.err.count("listens on http://127.0.0.1:") == 1
    assert said.out.count("curl ") == 1


async def test_a_worker_that_is_not_up_keeps_the_others_from_nothing(stage: Stage) -> None:
    stage.play("""
if order["index"] == 1:
    note("silent")
    wait_for("Stop")
    sys.exit(0)
serve()
note("serves")
wait_for("Stop")
""")
    async with running(stage.config()):
        assert sorted(await stage.wait_notes(2)) == ["serves", "silent"]


async def test_workers_that_die_before_any_was_up_are_given_up(
    stage: Stage, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    stage.play('note("tried")\nsys.exit(7)\n')
    async with running(stage.config()) as (_, task):
        with pytest.raises(
            Unavailable, match=r"No worker came up: worker \d \(process \d+\) ended with code 7, 3 times"
        ):
            await asyncio.wait_for(asyncio.shield(task), PATIENCE_S)
    assert 3 <= len(stage.notes()) <= 6
    assert "curl" not in capsys.readouterr().out
    assert "it is started anew in" in caplog.text


async def test_a_crash_loop_of_one_is_said_and_tried_again_more_slowly(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.play("""
serve()
if order["index"] == 1:
    note("dies")
    os.kill(os.getpid(), signal.SIGKILL)
wait_for("Stop")
""")
    async with running(stage.config()) as (_, task):
        await stage.wait_notes(4)
        assert not task.done()
    said = [record.getMessage() for record in caplog.records if "started anew" in record.getMessage()]
    assert "was killed by signal 9; it is started anew in 0.01 s" in said[0]
    assert said[1].endswith("; it is started anew in 0.02 s")
    assert "was killed by signal 9, 3 times in a row; it is started anew in 0.04 s" in said[2]


async def test_a_pause_never_grows_beyond_its_bound(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_workers, "BACKOFF_MAX_S", 0.02)
    stage.play('serve()\nif order["index"] == 1:\n    note("dies")\n    sys.exit(1)\nwait_for("Stop")\n')
    async with running(stage.config()):
        await stage.wait_notes(6)
    assert "5 times in a row; it is started anew in 0.02 s" in caplog.text


async def test_a_worker_that_lived_long_has_earned_a_short_pause(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_workers, "STABLE_S", 0.0)
    stage.play('serve()\nif order["index"] == 1:\n    note("dies")\n    sys.exit(1)\nwait_for("Stop")\n')
    async with running(stage.config()):
        await stage.wait_notes(5)
    assert "in a row" not in caplog.text
    assert "0.02 s" not in caplog.text


async def test_a_signal_is_passed_on_and_a_second_one_hurries(stage: Stage) -> None:
    stage.play("""
serve()
note("serves")
note(str(wait_for("Stop")["hurry"]))
note(str(wait_for("Stop")["hurry"]))
""")
    async with running(stage.config(**{"edge.grace_s": "60"})) as (supervisor, task):
        await stage.wait_notes(2)
        supervisor._stop()
        await stage.wait_notes(4)
        assert not task.done()
        supervisor._stop()
        await asyncio.wait_for(asyncio.shield(task), PATIENCE_S)
    assert stage.notes()[2:] == ["False", "False", "True", "True"]


async def test_a_worker_that_does_not_end_in_time_is_killed(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.play("""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
serve()
note(str(os.getpid()))
while True:
    time.sleep(600)
""")
    async with running(stage.config()) as (supervisor, task):
        pids = [int(note) for note in await stage.wait_notes(2)]
        supervisor._stop()
        await asyncio.wait_for(asyncio.shield(task), PATIENCE_S)
    assert caplog.text.count("did not end in time and was killed") == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_worker_that_is_still_starting_is_told_to_stop_at_once(stage: Stage) -> None:
    stage.play('note("starts")\nwait_for("Stop")\nnote("stops")\n')
    async with running(stage.config(**{"edge.grace_s": "60"})) as (supervisor, task):
        await stage.wait_notes(2)
        supervisor._stop()
        await asyncio.wait_for(asyncio.shield(task), PATIENCE_S)
    assert sorted(stage.notes()) == ["starts", "starts", "stops", "stops"]


class PlayedEngine:
    """As much of an engine as the supervisor asks for."""

    name, mode, settings = "tiny", "chat", EngineSettings()

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.number = 0
        self.reasons: list[str] = []

    def status(self) -> EngineStatus:
        return EngineStatus(state="ready", restarts=self.number)

    def view(self) -> EngineView:
        return EngineView(status=self.status(), address=ChildAddress(f"http://127.0.0.1:{self.number}", "key"))

    async def restart(self, reason: str) -> None:
        self.reasons.append(reason)
        self.change()

    def change(self) -> None:
        self.number += 1
        self.changed.set()
        self.changed = asyncio.Event()


async def test_workers_see_an_engine_change_and_one_of_them_may_have_it_restarted(stage: Stage) -> None:
    """Each is told from its order on: what comes before it serves counts, too."""
    stage.play("""
def look(heard):
    if heard["type"] == "Seen":
        note(str(order["index"]) + " sees " + heard["view"]["address"]["base_url"])
note("first " + order["views"]["chat"]["address"]["base_url"])
with open(os.environ["NOTES"]) as notes:
    while notes.read().count("first ") < order["count"]:
        notes.seek(0)
        time.sleep(0.01)
say("Up")
while (heard := hear()) is not None and heard["type"] != "Stop":
    look(heard)
    if heard["type"] == "Go" and order["index"] == 0:
        say("RestartEngine", mode="chat", reason="stuck")
    if heard["type"] == "Restarted":
        note("restarted")
""")
    engine = PlayedEngine()
    config = stage.config()
    with tempfile.TemporaryFile() as lock:
        supervisor = Supervisor(config, lock.fileno())
        engines: dict[str, Any] = {"chat": engine}
        vars(supervisor)["_engines"] = engines
        task = asyncio.create_task(supervisor.run())
        await wait_for(lambda: "restarted" in stage.notes())
        engine.change()
        last = f"sees http://127.0.0.1:{engine.number}"
        await wait_for(lambda: {f"0 {last}", f"1 {last}"} <= set(stage.notes()))
        supervisor._stop()
        await asyncio.wait_for(task, PATIENCE_S)
        await let_go()
    assert engine.reasons == ["stuck"]
    assert stage.notes().count("first http://127.0.0.1:0") == 2
