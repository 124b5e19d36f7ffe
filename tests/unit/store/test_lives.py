"""Lock files that say which processes of this machine live."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from convene.store.lives import Lives
from convene.store.presence import Presence
from convene.store.sqlite_file import SqliteFile
from fakes import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HOLD_AND_WAIT = """
import sys
from pathlib import Path
from convene.store.lives import Lives
Lives(Path(sys.argv[1])).hold(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def another_process(database: Path, writer: str) -> subprocess.Popen[str]:
    """Start a process that holds a writer's lock and wait until it does."""
    process = subprocess.Popen(  # noqa: S603 -- our own interpreter
        [sys.executable, "-c", HOLD_AND_WAIT, str(database), writer],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_living_process_is_never_dead_and_a_killed_one_at_once(tmp_path: Path) -> None:
    database = tmp_path / "convene.db"
    with another_process(database, "w-1") as process:
        lives = Lives(database)
        assert lives.known() == ["w-1"]
        assert not lives.is_dead("w-1")
        process.kill()
        process.wait()
        assert lives.is_dead("w-1")
    lives.forget("w-1")
    assert lives.known() == []


def test_of_what_has_no_file_nothing_is_known(tmp_path: Path) -> None:
    lives = Lives(tmp_path / "convene.db")
    assert lives.known() == []
    assert not lives.is_dead("w-1")
    lives.forget("w-1")


def test_two_of_one_process_do_not_take_each_other_for_dead(tmp_path: Path) -> None:
    one, other = Lives(tmp_path / "convene.db"), Lives(tmp_path / "convene.db")
    one.hold("w-1")
    other.hold("w-2")
    assert not one.is_dead("w-1")
    assert not one.is_dead("w-2")
    assert not other.is_dead("w-1")
    one.forget("w-1")
    assert other.known() == ["w-2"]
    other.forget("w-2")


def test_where_locks_cannot_be_had_nobody_is_told_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks here")

    lives = Lives(tmp_path / "convene.db")
    monkeypatch.setattr("fcntl.flock", refuse)
    lives.hold("w-1")
    assert lives.known() == []
    assert "only by silence" in caplog.text


def test_a_folder_that_cannot_be_made_is_told_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "convene.db-writers").write_text("in the way")
    lives = Lives(tmp_path / "convene.db")
    lives.hold("w-1")
    assert "cannot be made" in caplog.text
    assert lives.known() == []


async def test_who_was_killed_is_off_the_table_as_soon_as_anybody_looks(tmp_path: Path) -> None:
    path = tmp_path / "convene.db"
    file = await SqliteFile.open(path)
    clock = FakeClock()
    with another_process(path, "w-killed") as process:
        await file.write([("INSERT INTO writers (id, seen_at_us) VALUES ('w-killed', ?)", (int(clock.now() * 1e6),))])
        presence = await Presence.start(file, clock, Lives(path))
        process.kill()
        process.wait()
    await presence.bury()
    assert [row[0] for row in await file.rows("SELECT id FROM writers")] == [presence.id]
    await presence.aclose()
    assert Lives(path).known() == []
    await file.aclose()
