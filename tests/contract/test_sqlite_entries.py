"""How entries come into the tables of SQLite, by itself: all or nothing, each once, added up by day."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.limits.limit import DAY_US
from convene.store.ledger_rows import ENTRY_FIELDS, FIGURES, row_of
from convene.store.sqlite_entries import Mover, move_old_journal
from convene.store.sqlite_file import SqliteFile
from ledger_samples import START_US, entry, random_entry, summed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from convene.store.base_ledger import Entry


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    file = await SqliteFile.open(tmp_path / "books.db")  # makes the tables
    yield file.path
    await file.aclose()


@pytest.fixture
def mover(path: Path) -> Iterator[Mover]:
    opened = Mover(path)
    yield opened
    opened.close()


def rows(*entries: Entry) -> list[list[object]]:
    return [row_of(one) for one in entries]


def ask(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def ids(path: Path) -> list[object]:
    return [found for (found,) in ask(path, "SELECT id FROM entries ORDER BY id")]


def requests(path: Path) -> object:
    return ask(path, "SELECT coalesce(sum(requests), 0) FROM day_sums")[0][0]


def move_old(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        move_old_journal(connection)
        connection.execute("COMMIT")


def test_sums_count_each_entry_once_whatever_comes_again(mover: Mover, path: Path) -> None:
    one, other = entry(1), entry(1, prompt_tokens=999, model="other")
    mover.move(rows(one, other, one))
    mover.move(rows(other))
    mover.move(rows(one, entry(2)))
    assert requests(path) == 2
    assert ask(path, "SELECT DISTINCT model FROM day_sums") == [("smollm2",)]


def test_a_move_that_fails_leaves_nothing_and_may_be_repeated(mover: Mover, path: Path) -> None:
    mover.move(rows(entry(1)))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                mover.move(rows(entry(2)))
        other.execute("ROLLBACK")
    assert ids(path) == [entry(1).id]
    mover.move(rows(entry(2)))
    assert ids(path) == [entry(1).id, entry(2).id]


def test_a_move_that_fails_half_way_leaves_nothing(mover: Mover, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TRIGGER no BEFORE INSERT ON day_sums BEGIN SELECT raise(ABORT, 'full'); END")
    with pytest.raises(sqlite3.IntegrityError, match="full"):
        mover.move(rows(entry(1)))
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM entries").fetchone() == (0,)
        other.execute("DROP TRIGGER no")
    mover.move(rows(entry(1)))
    assert (ids(path), requests(path)) == ([entry(1).id], 1)


def test_what_an_older_convene_left_in_its_journal_is_moved_once(mover: Mover, path: Path) -> None:
    mover.move(rows(entry(1)))
    with closing(sqlite3.connect(path)) as older:
        body = msgspec.msgpack.encode((ENTRY_FIELDS, rows(entry(1), entry(2))))
        older.execute("INSERT INTO journal (number, body) VALUES (7, ?)", (body,))
        older.commit()
    for _ in range(2):
        move_old(path)
        assert (ids(path), requests(path)) == ([entry(1).id, entry(2).id], 2)
    assert ask(path, "SELECT * FROM journal") == []


def test_sums_are_the_same_whether_the_database_adds_up_or_we_do(mover: Mover, path: Path) -> None:
    known, new = entry(1), [entry(number, completion_tokens=number, model=f"m{number % 2}") for number in range(2, 9)]
    mover.move(rows(known))
    mover.move(rows(known, *new))  # one of them is no new one, so the database adds up
    by_database = ask(path, "SELECT * FROM day_sums ORDER BY model")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DELETE FROM entries; DELETE FROM day_sums;")
    mover.move(rows(known, *new))
    assert ask(path, "SELECT * FROM day_sums ORDER BY model") == by_database
    assert requests(path) == 8


def test_entries_of_all_kinds_come_to_the_sums_of_their_days(mover: Mover, path: Path) -> None:
    chance = random.Random(2)  # noqa: S311 -- repeatable on purpose
    kept: list[Entry] = []
    for start in range(0, 400, 40):
        some = [random_entry(chance, number) for number in range(start, start + 40)]
        mover.move(rows(*some))
        kept += some
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for one in kept:
        groups.setdefault((one.key_id, one.model, one.at_us // DAY_US, one.user_id, one.team_id), []).append(one)
    figures = ", ".join(FIGURES)
    found = ask(path, f"SELECT key_id, model, day, user_id, team_id, requests, {figures} FROM day_sums")  # noqa: S608 -- constants
    assert {row[:5]: row[5:] for row in found} == {day: sums(of) for day, of in groups.items()}


def sums(entries: Sequence[Entry]) -> tuple[int, ...]:
    whole = summed(entries)
    return (whole.requests, *(getattr(whole, name) for name in FIGURES))


def test_a_day_begins_at_midnight_of_universal_time(mover: Mover, path: Path) -> None:
    mover.move(rows(entry(1, at_us=START_US - 1), entry(2, at_us=START_US)))
    assert ask(path, "SELECT day FROM day_sums ORDER BY day") == [(START_US // DAY_US - 1,), (START_US // DAY_US,)]


def test_a_move_waits_for_no_disk_and_makes_no_checkpoint(mover: Mover) -> None:
    """Threads do both (`sqlite_sync.py`)."""
    settings = {
        name: mover._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "wal_autocheckpoint", "busy_timeout", "journal_mode")
    }
    assert settings == {"synchronous": 1, "wal_autocheckpoint": 0, "busy_timeout": 0, "journal_mode": "wal"}
