"""Lock files that say which processes of this machine live."""

from __future__ import annotations

import fcntl
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
Lives(Path(sys.argv[1]), sys.argv[3]).hold(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def another_process(database: Path, writer: str, machine: str = "") -> subprocess.Popen[str]:
    """Start a process that holds a writer's lock and wait until it does."""
    process = subprocess.Popen(  # noqa: S603 -- our own interpreter
        [sys.executable, "-c", HOLD_AND_WAIT, str(database), writer, machine],
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


def test_a_file_that_is_just_being_made_says_nothing_and_is_not_locked_by_who_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making the file and locking it others may look: they must neither judge it nor get in the way."""
    judged: list[bool] = []
    flock = fcntl.flock

    def look_first(file: int, how: int) -> None:
        monkeypatch.setattr("fcntl.flock", flock)
        judged.append(Lives(tmp_path / "convene.db").is_dead("w-1"))
        flock(file, how)

    monkeypatch.setattr("fcntl.flock", look_first)
    lives = Lives(tmp_path / "convene.db")
    lives.hold("w-1")
    assert judged == [False]
    assert not Lives(tmp_path / "convene.db").is_dead("w-1")
    lives.forget("w-1")


def test_only_the_machine_that_made_a_file_judges_it(tmp_path: Path) -> None:
    """Two machines may share a folder whose locks do not reach from one to the other; a restart makes another of it."""
    database = tmp_path / "postgres-1"
    with another_process(database, "w-1", "boot-a") as process:
        process.kill()
        process.wait()
    assert not Lives(database, "boot-b").is_dead("w-1")
    assert not Lives(database).is_dead("w-1")
    assert Lives(database, "boot-a").is_dead("w-1")


def test_what_is_left_of_those_that_nobody_knows_is_swept_away(tmp_path: Path) -> None:
    database = tmp_path / "convene.db"
    lives = Lives(database, "boot-b")
    lives.hold("w-own")
    for writer in ("w-known", "w-unknown"):
        with another_process(database, writer, "boot-a") as process:
            process.kill()
            process.wait()
    with another_process(database, "w-living") as process:
        lives.sweep({"w-known"})
        assert sorted(lives.known()) == ["w-known", "w-living", "w-own"]
        process.kill()
    lives.forget("w-own")


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


async def test_a_start_buries_the_killed_and_sweeps_up_after_them(tmp_path: Path) -> None:
    path = tmp_path / "convene.db"
    file = await SqliteFile.open(path)
    clock = FakeClock()
    for writer in ("w-killed", "w-unknown"):
        with another_process(path, writer) as process:
            process.kill()
            process.wait()
    now_us = int(clock.now() * 1e6)
    await file.write([("INSERT INTO writers (id, seen_at_us) VALUES ('w-killed', ?)", (now_us,))])
    await file.write([("INSERT INTO writers (id, seen_at_us) VALUES ('w-elsewhere', ?)", (now_us,))])
    presence = await Presence.start(file, clock, Lives(path))
    assert {row[0] for row in await file.rows("SELECT id FROM writers")} == {presence.id, "w-elsewhere"}
    assert Lives(path).known() == [presence.id]
    await presence.aclose()
    await file.aclose()


async def test_without_lock_files_nobody_is_buried(tmp_path: Path) -> None:
    file = await SqliteFile.open(tmp_path / "convene.db")
    clock = FakeClock()
    await file.write([("INSERT INTO writers (id, seen_at_us) VALUES ('w-1', ?)", (int(clock.now() * 1e6),))])
    presence = await Presence.start(file, clock)
    await presence.bury()
    assert {row[0] for row in await file.rows("SELECT id FROM writers")} == {presence.id, "w-1"}
    await presence.aclose()
    await file.aclose()
