"""The transactions of the books in SQLite by themselves: all or nothing, moved once, nobody else's rows touched."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from convene.limits.limit import DAY_US
from convene.store.ledger_rows import FIGURES, row_of, unpacked_intents
from convene.store.sqlite_file import SqliteFile
from convene.store.sqlite_journal import Journal, move_all
from ledger_samples import START_US, entry, intent, random_entry, summed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from convene.store.base_ledger import Entry

FIRST = 1 << 40


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    file = await SqliteFile.open(tmp_path / "books.db")  # makes the tables
    yield file.path
    await file.aclose()


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path, "w-1", FIRST)
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


def move_everything(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        move_all(connection)
        connection.execute("COMMIT")


def test_a_commit_is_one_row_of_intents_and_one_of_the_journal(journal: Journal, path: Path) -> None:
    number = journal.next
    journal.commit([intent(1), intent(2)], rows(entry(3), entry(4)), [], move=False)
    [(found, writer, body)] = ask(path, "SELECT number, writer, body FROM intents")
    assert (found, writer) == (number, "w-1")
    assert isinstance(body, bytes)
    assert unpacked_intents(body) == [intent(1), intent(2)]
    assert len(ask(path, "SELECT * FROM journal")) == 1
    assert (journal.waiting, ids(path), requests(path)) == (2, [], 0)


def test_a_move_takes_what_waits_and_what_comes_and_empties_the_journal(journal: Journal, path: Path) -> None:
    for number in range(3):
        journal.commit([], rows(entry(number)), [], move=False)
    journal.commit([], rows(entry(3)), [], move=True)
    assert ids(path) == [entry(number).id for number in range(4)]
    assert (journal.waiting, requests(path)) == (0, 4)
    assert ask(path, "SELECT * FROM journal") == []


def test_a_move_ends_the_intents_it_is_told_and_no_others(journal: Journal, path: Path) -> None:
    numbers = []
    for number in range(3):
        numbers.append(journal.next)
        journal.commit([intent(number)], [], [], move=False)
    journal.commit([], rows(entry(0), entry(2)), [numbers[0], numbers[2]], move=True)
    assert ask(path, "SELECT number FROM intents") == [(numbers[1],)]


def test_intents_that_begin_and_end_in_one_commit_leave_no_row(journal: Journal, path: Path) -> None:
    journal.commit([intent(1)], rows(entry(1)), [journal.next], move=True)
    assert ask(path, "SELECT * FROM intents") == []


def test_sums_count_each_entry_once_whatever_comes_again(journal: Journal, path: Path) -> None:
    one, other = entry(1), entry(1, prompt_tokens=999, model="other")
    journal.commit([], rows(one, other, one), [], move=True)
    journal.commit([], rows(other), [], move=False)
    journal.commit([], rows(one, entry(2)), [], move=True)
    assert requests(path) == 2
    assert ask(path, "SELECT DISTINCT model FROM day_sums") == [("smollm2",)]


@pytest.mark.parametrize("move", [True, False])
def test_a_commit_that_fails_leaves_nothing_and_may_be_repeated(journal: Journal, path: Path, *, move: bool) -> None:
    journal.commit([], rows(entry(1)), [], move=False)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                journal.commit([intent(2)], rows(entry(2)), [], move=move)
        other.execute("ROLLBACK")
    assert (journal.waiting, ids(path)) == (1, [])
    journal.commit([intent(2)], rows(entry(2)), [], move=move)
    journal.commit([], [], [], move=True)
    assert ids(path) == [entry(1).id, entry(2).id]
    assert len(ask(path, "SELECT * FROM intents")) == 1


def test_a_commit_that_fails_half_way_leaves_nothing(journal: Journal, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TRIGGER no BEFORE INSERT ON day_sums BEGIN SELECT raise(ABORT, 'full'); END")
    with pytest.raises(sqlite3.IntegrityError, match="full"):
        journal.commit([intent(1)], rows(entry(1)), [], move=True)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM entries").fetchone() == (0,)
        assert other.execute("SELECT count(*) FROM intents").fetchone() == (0,)
        other.execute("DROP TRIGGER no")
    journal.commit([intent(1)], rows(entry(1)), [], move=True)
    assert (ids(path), requests(path)) == ([entry(1).id], 1)


def test_what_another_has_moved_meanwhile_is_not_moved_again(journal: Journal, path: Path) -> None:
    journal.commit([], rows(entry(1), entry(2)), [], move=False)
    move_everything(path)
    assert (ids(path), requests(path)) == ([entry(1).id, entry(2).id], 2)
    journal.commit([], rows(entry(3)), [], move=True)
    assert (len(ids(path)), requests(path)) == (3, 3)


def test_a_move_leaves_the_journal_of_another_writer_alone(journal: Journal, path: Path) -> None:
    other = Journal(path, "w-2", FIRST + 1000)
    other.commit([intent(9)], rows(entry(10)), [], move=False)
    journal.commit([], rows(entry(1)), [], move=False)
    journal.commit([], [], [], move=True)
    other.close()
    assert ids(path) == [entry(1).id]
    assert len(ask(path, "SELECT * FROM journal")) == 1
    assert len(ask(path, "SELECT * FROM intents")) == 1
    move_everything(path)
    assert ids(path) == [entry(1).id, entry(10).id]


def test_moving_an_empty_journal_does_nothing(path: Path) -> None:
    move_everything(path)
    assert ids(path) == []


def test_sums_are_the_same_whether_the_database_adds_up_or_we_do(journal: Journal, path: Path) -> None:
    known, new = entry(1), [entry(number, completion_tokens=number, model=f"m{number % 2}") for number in range(2, 9)]
    journal.commit([], rows(known), [], move=True)
    journal.commit([], rows(known, *new), [], move=True)  # one of them is no new one, so the database adds up
    by_database = ask(path, "SELECT * FROM day_sums ORDER BY model")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DELETE FROM entries; DELETE FROM day_sums;")
    journal.commit([], rows(known, *new), [], move=True)
    assert ask(path, "SELECT * FROM day_sums ORDER BY model") == by_database
    assert requests(path) == 8


def test_entries_of_all_kinds_come_to_the_sums_of_their_days(journal: Journal, path: Path) -> None:
    chance = random.Random(2)  # noqa: S311 -- repeatable on purpose
    kept: list[Entry] = []
    for start in range(0, 400, 40):
        some = [random_entry(chance, number) for number in range(start, start + 40)]
        journal.commit([], rows(*some), [], move=chance.random() < 0.3)
        kept += some
    journal.commit([], [], [], move=True)
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for one in kept:
        groups.setdefault((one.key_id, one.model, one.at_us // DAY_US, one.user_id, one.team_id), []).append(one)
    figures = ", ".join(FIGURES)
    found = ask(path, f"SELECT key_id, model, day, user_id, team_id, requests, {figures} FROM day_sums")  # noqa: S608 -- constants
    assert {row[:5]: row[5:] for row in found} == {day: sums(of) for day, of in groups.items()}


def sums(entries: Sequence[Entry]) -> tuple[int, ...]:
    whole = summed(entries)
    return (whole.requests, *(getattr(whole, name) for name in FIGURES))


def test_a_day_begins_at_midnight_of_universal_time(journal: Journal, path: Path) -> None:
    journal.commit([], rows(entry(1, at_us=START_US - 1), entry(2, at_us=START_US)), [], move=True)
    assert ask(path, "SELECT day FROM day_sums ORDER BY day") == [(START_US // DAY_US - 1,), (START_US // DAY_US,)]


def test_a_commit_waits_for_no_disk_and_makes_no_checkpoint(journal: Journal) -> None:
    """The thread of `sqlite_sync` does both."""
    settings = {
        name: journal._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "wal_autocheckpoint", "busy_timeout", "journal_mode")
    }
    assert settings == {"synchronous": 1, "wal_autocheckpoint": 0, "busy_timeout": 0, "journal_mode": "wal"}
