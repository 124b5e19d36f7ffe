"""What only the books in SQLite can show: what is on the disk when, other writers of the file, faults, threads."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.clock import SystemClock
from convene.store import book_log, book_log_writer, presence, sqlite_ledger, sqlite_sync
from convene.store.backup import back_up
from convene.store.base import StoreFault
from convene.store.base_ledger import Sums, Whose
from convene.store.ledger_rows import ENTRY_FIELDS, row_of
from convene.store.presence import Presence
from convene.store.sql_ledger import SqlLedger
from convene.store.sqlite import SqliteStore
from convene.store.sqlite_file import SqliteFile
from convene.store.sqlite_ledger import SqliteLedger
from convene.store.sqlite_logs import log_folder
from convene.store.sqlite_sync import fdatasync
from fakes import FakeClock
from ledger_samples import ALL, entry, intent, random_entry, summed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from convene.store.base_ledger import Entry, Intent
    from convene.store.sql import Row

WAIT_S = 20.0


class Disk:
    """A disk whose syncs can be held up and made to fail, and that notes what each has made safe."""

    def __init__(self, look: Callable[[int], None] = lambda _: None) -> None:
        self.may_go = threading.Event()
        self.may_go.set()
        self.begun = threading.Event()
        self.failure: OSError | None = None
        self.syncs = 0
        self._look = look

    def sync(self, descriptor: int) -> None:
        self.begun.set()
        assert self.may_go.wait(WAIT_S)
        if self.failure is not None:
            raise self.failure
        self._look(descriptor)
        fdatasync(descriptor)
        self.syncs += 1


class Books:
    """An open file with a ledger on a disk of the test's."""

    def __init__(self, file: SqliteFile, writer: Presence, disk: Disk) -> None:
        self.file, self.writer, self.disk = file, writer, disk
        self.ledger = SqliteLedger(file, writer, disk.sync)

    async def aclose(self) -> None:
        await self.ledger.aclose()
        await self.writer.aclose()
        await self.file.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "books.db"


@pytest.fixture
async def books(path: Path) -> AsyncIterator[Books]:
    file = await SqliteFile.open(path)
    opened = Books(file, await Presence.start(file, SystemClock()), Disk())
    yield opened
    opened.disk.may_go.set()
    await opened.aclose()


async def silent_and_living(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SqliteStore, SqliteStore, FakeClock]:
    """Open two stores on one file: time stands still for the first, and is moved by the test for the second."""
    monkeypatch.setattr(presence, "WAKE_S", 0.0)
    now = FakeClock(seed=1)
    return await SqliteStore.open(path, FakeClock(seed=2)), await SqliteStore.open(path, now), now


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, WAIT_S)


async def come(true: Callable[[], bool]) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110 -- of what happens in the background
            await asyncio.sleep(0.01)


def stored(path: Path) -> list[str]:
    """Return the ids that another connection sees in the table."""
    with closing(sqlite3.connect(path)) as connection:
        return [found for (found,) in connection.execute("SELECT id FROM entries ORDER BY id")]


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        [number] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 -- a literal of this file
    return int(number)


async def read_elsewhere(path: Path) -> None:
    """Let another store bring what the logs have into the tables."""
    other = await SqliteStore.open(path)
    assert (await other.ledger.total(ALL)).requests == len(stored(path)) > 0
    await other.aclose()


# On the disk (goal B2).


async def test_an_entry_is_acknowledged_after_its_sync_and_an_intent_does_not_wait_for_one(books: Books) -> None:
    await books.ledger.finish(entry(1))
    books.disk.may_go.clear()
    books.disk.begun.clear()
    waiting = books.ledger.finish(entry(2))
    await until(books.disk.begun)
    await books.ledger.begin(intent(3))
    await books.ledger.begin(intent(4))
    assert not waiting.done()
    books.disk.may_go.set()
    await waiting


async def test_what_comes_during_a_sync_waits_for_the_next_one(books: Books) -> None:
    await books.ledger.finish(entry(1))
    before = books.disk.syncs
    books.disk.may_go.clear()
    books.disk.begun.clear()
    early = books.ledger.finish(entry(2))
    await until(books.disk.begun)
    late = [books.ledger.finish(entry(number)) for number in range(3, 40)]
    await books.ledger.begin(intent(50))  # they are committed when this is
    books.disk.may_go.set()
    await early
    assert not any(one.done() for one in late)
    await asyncio.gather(*late)
    assert books.disk.syncs == before + 2


async def test_a_flush_that_comes_during_a_sync_ends_though_nothing_is_left_to_write(books: Books) -> None:
    await books.ledger.finish(entry(1))
    books.disk.may_go.clear()
    books.disk.begun.clear()
    early = books.ledger.finish(entry(2))
    await until(books.disk.begun)
    flushed = asyncio.ensure_future(books.ledger.flush())
    await asyncio.sleep(0)
    books.disk.may_go.set()
    await early
    async with asyncio.timeout(WAIT_S):
        await flushed


async def test_at_every_acknowledgement_the_entry_is_in_what_the_last_syncs_made_safe(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power loss: of each file, whatever was written after its last fdatasync is dropped, and the store opened so."""
    monkeypatch.setattr(book_log_writer, "SLOT_BYTES", 1 << 14)
    monkeypatch.setattr(sqlite_ledger, "MARK_S", 0.001)
    safe = path.with_name("safe")
    (safe / "books.db-log").mkdir(parents=True)

    one_at_a_time = threading.Lock()

    def copy(descriptor: int) -> None:
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        with one_at_a_time:
            if file.name.endswith("-wal"):  # checkpoints sync both, so that the two belong together
                shutil.copyfile(path, safe / path.name)
                shutil.copyfile(file, safe / file.name)
            else:
                shutil.copyfile(file, safe / "books.db-log" / file.name)

    file = await SqliteFile.open(path)
    books = Books(file, await Presence.start(file, SystemClock()), Disk(copy))
    for end in ("", "-wal"):
        shutil.copyfile(f"{path}{end}", f"{safe / path.name}{end}")
    chance = random.Random(7)  # noqa: S311 -- repeatable on purpose
    kept: list[Entry] = []
    for round_number in range(60):
        some = [entry(100 * round_number + number) for number in range(chance.randrange(1, 120))]
        if chance.random() < 0.5:
            await asyncio.gather(*(books.ledger.begin(intent(100 * round_number + n)) for n in range(len(some))))
        await asyncio.gather(*(books.ledger.finish(one) for one in some))
        kept += [one for one in some if one.id not in {old.id for old in kept[-200:]}]
        if round_number % 8 == 7:
            with one_at_a_time:
                shutil.copytree(safe, after := path.with_name(f"after-{round_number}"))
            after_loss = await SqliteStore.open(after / path.name)
            assert await after_loss.ledger.total(ALL) == summed(kept)
            await after_loss.aclose()
    assert books.ledger._log.place.generation > 5, "the slots have taken turns"
    await books.aclose()


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), OSError(28, "No space left on device")])
async def test_a_sync_that_fails_is_not_tried_again_and_nothing_is_acknowledged(
    books: Books, failure: OSError, caplog: pytest.LogCaptureFixture
) -> None:
    await books.ledger.finish(entry(1))
    books.disk.may_go.clear()
    books.disk.failure = failure
    first = books.ledger.finish(entry(2))
    await until(books.disk.begun)
    second = books.ledger.finish(entry(3))
    await asyncio.sleep(0)
    books.disk.may_go.set()
    for waiting in (first, second):
        with pytest.raises(StoreFault):
            await waiting
    books.disk.failure = None
    for call in (books.ledger.begin, books.ledger.finish):
        with pytest.raises(StoreFault):
            call(intent(4) if call == books.ledger.begin else entry(4))  # type: ignore[arg-type]
    assert "restart" in caplog.text


async def test_a_log_that_somebody_deletes_is_noticed(books: Books) -> None:
    await books.ledger.finish(entry(1))
    for slot in books.ledger._log.slots:
        slot.path.unlink()
    with pytest.raises(StoreFault) as caught:
        await books.ledger.finish(entry(2))
    assert "deleted" in caught.value.detail


async def test_a_wal_that_somebody_deletes_is_noticed(
    books: Books, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ledger, "MARK_S", 0.0)
    await books.ledger.finish(entry(1))
    os.unlink(f"{path}-wal")  # noqa: PTH108 -- the name is no path of its own
    with pytest.raises(StoreFault) as caught:  # noqa: PT012 -- the disk is asked in the background
        for number in range(2, 2000):
            await books.ledger.finish(entry(number))
    assert "deleted" in caught.value.detail


async def test_others_who_open_and_close_the_file_leave_the_wal_and_the_locks_alone(books: Books, path: Path) -> None:
    await books.ledger.finish(entry(1))
    before = os.stat(f"{path}-wal").st_ino  # noqa: PTH116 -- the name is no path of its own
    look = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1])\n"
        "print(c.execute('SELECT count(*) FROM keys').fetchone(), c.execute('PRAGMA journal_mode=DELETE').fetchone())"
    )
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            *("python3", "-c", look, str(path)), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        assert b"database is locked" in errors  # it cannot end WAL mode while the ledger is open
    assert os.stat(f"{path}-wal").st_ino == before  # noqa: PTH116 -- as above
    await books.ledger.finish(entry(2))
    assert (await books.ledger.total(ALL)).requests == 2


async def test_checkpoints_keep_the_wal_short_and_lose_nothing(
    books: Books, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ledger, "CHECKPOINT_MOVES", 2)
    monkeypatch.setattr(sqlite_sync, "RESTART_FRAMES", 100)
    for number in range(0, 4000, 20):
        await asyncio.gather(*(books.ledger.finish(entry(number + one)) for one in range(20)))
    assert os.stat(f"{path}-wal").st_size < 2_000_000  # noqa: PTH116 -- some 9 MB without
    assert (await books.ledger.total(ALL)).requests == 4000
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Written while others write, or not at all.


async def test_while_another_process_writes_nobody_waits_and_the_tables_have_it_later(books: Books, path: Path) -> None:
    await books.ledger.finish(entry(1))
    await books.ledger.settle()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await asyncio.wait_for(asyncio.gather(books.ledger.begin(intent(2)), books.ledger.finish(entry(3))), WAIT_S)
        await asyncio.sleep(2 * sqlite_ledger.MOVE_S)
        assert stored(path) == [entry(1).id]
        other.execute("COMMIT")
    assert (await books.ledger.total(ALL)).requests == 2
    assert await books.ledger.open_intents() == [intent(2)]


async def test_tables_that_stay_busy_refuse_beginners_once_too_much_waits_and_keep_what_has_ended(
    books: Books, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_ledger, "WAITING_MAX", 3)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(1, 4):
            await books.ledger.begin(intent(number))
            await books.ledger.finish(entry(number))
        with pytest.raises(StoreFault):
            books.ledger.begin(intent(4))
        await books.ledger.finish(entry(5))  # what was admitted before may end
        await come(lambda: "wait for the tables" in caplog.text)
        other.execute("COMMIT")
    assert (await books.ledger.total(ALL)).requests == 4
    await books.ledger.begin(intent(4))
    assert await books.ledger.open_intents() == [intent(4)]


@pytest.mark.parametrize("by_another", [False, True])
async def test_texts_and_numbers_that_no_database_holds_hold_nobody_up(
    books: Books, path: Path, monkeypatch: pytest.MonkeyPatch, *, by_another: bool
) -> None:
    monkeypatch.setattr(sqlite_ledger, "MOVE_S", 1000.0)
    odd = [entry(1, finish="\ud800"), entry(2, cost_micros=1 << 70), entry(3, session_id="a\0b"), entry(4)]
    begun = books.ledger.begin(intent(9, model="\udfff"))
    await asyncio.gather(begun, *map(books.ledger.finish, odd))
    if by_another:  # which reads it in the log
        await read_elsewhere(path)
    assert (await books.ledger.total(ALL)).requests == 4
    [found] = await books.ledger.find(entry(1).id, ALL)
    assert found.finish == "?"
    assert [one.model for one in await books.ledger.open_intents()] == ["?"]


@pytest.mark.parametrize("by_another", [False, True])
async def test_values_of_the_wrong_kind_are_mended_and_hold_nobody_up(
    books: Books, path: Path, monkeypatch: pytest.MonkeyPatch, *, by_another: bool
) -> None:
    """No such entry is made today; a fault elsewhere must cost one figure of one row, not the books."""
    monkeypatch.setattr(sqlite_ledger, "MOVE_S", 1000.0)
    odd = [
        entry(1, prompt_tokens=12.5, finish=None, ttft_us="soon"),
        entry(2, at_us=float("nan"), key_id=b"key", upstream=7),
        entry(3, session_id={"a"}, cost_micros=None),
    ]
    await asyncio.gather(*map(books.ledger.finish, [*odd, entry(4)]))
    if by_another:
        await read_elsewhere(path)
    kept = {one.id: one for number in range(1, 5) for one in await books.ledger.find(entry(number).id, ALL)}
    first = kept[entry(1).id]
    assert (first.prompt_tokens, first.finish, first.ttft_us) == (12, "None", 0)
    assert (kept[entry(2).id].at_us, kept[entry(2).id].upstream) == (0, "7")
    assert kept[entry(3).id].cost_micros == 0
    assert kept[entry(4).id] == entry(4)
    assert (await books.ledger.total(ALL)).requests == 4


async def test_full_tables_keep_entries_in_the_log_until_there_is_room(books: Books, path: Path) -> None:
    await books.ledger.finish(entry(1))
    await books.ledger.settle()
    connection = books.ledger._mover._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    await asyncio.gather(*(books.ledger.finish(entry(number)) for number in range(2, 400)))
    await asyncio.sleep(2 * sqlite_ledger.MOVE_S)
    assert len(stored(path)) < 399
    connection.execute("PRAGMA max_page_count = 1000000")
    await come(lambda: len(stored(path)) == 399)
    assert (await books.ledger.total(ALL)).requests == 399


async def test_a_log_on_a_full_disk_refuses_beginners_and_holds_back_what_has_ended(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await books.ledger.begin(intent(1))
    write = os.pwrite
    # a disk that is full takes a part
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[: len(data) // 2], offset))
    with pytest.raises(StoreFault, match="doctor"):
        books.ledger.begin(intent(2))
    ended = books.ledger.finish(entry(1))
    await come(lambda: "cannot be written" in caplog.text)
    assert not ended.done()
    monkeypatch.undo()
    await asyncio.wait_for(ended, WAIT_S)
    await books.ledger.begin(intent(3))
    assert await books.ledger.open_intents() == [intent(3)]
    assert (await books.ledger.total(ALL)).requests == 1


# Other writers of the same file.


async def test_what_is_acknowledged_here_is_seen_everywhere_at_once(path: Path, clock: FakeClock) -> None:
    stores = [await SqliteStore.open(path, clock) for _ in range(3)]
    for number in range(30):
        await stores[number % 3].ledger.finish(entry(number))
        for store in stores:
            assert (await store.ledger.total(ALL)).requests == number + 1
    for store in stores:
        await store.aclose()
    assert len(stored(path)) == 30


async def test_many_writers_at_once_keep_every_entry_once(path: Path) -> None:
    stores = [await SqliteStore.open(path) for _ in range(3)]
    chance = random.Random(3)  # noqa: S311 -- repeatable on purpose
    ids = list(range(300))
    per_store = [chance.sample(ids, 200) for _ in stores]

    async def work(store: SqliteStore, numbers: list[int]) -> None:
        for start in range(0, len(numbers), 10):
            await asyncio.gather(*(store.ledger.finish(entry(number)) for number in numbers[start : start + 10]))

    await asyncio.gather(*(work(*pair) for pair in zip(stores, per_store, strict=True)))
    written = {number for numbers in per_store for number in numbers}
    assert await stores[0].ledger.total(ALL) == summed([entry(number) for number in written])
    for store in stores:
        await store.aclose()
    assert stored(path) == sorted(entry(number).id for number in written)
    assert count(path, "journal") == 0


async def test_what_a_closed_store_left_open_is_an_orphan_at_once(path: Path, clock: FakeClock) -> None:
    first, second = await SqliteStore.open(path, clock), await SqliteStore.open(path, clock)
    await asyncio.gather(*(first.ledger.begin(intent(number)) for number in (3, 1, 2)))
    await first.ledger.finish(entry(2))
    assert await second.ledger.orphans(0) == []  # no time has passed: nobody is dead
    await first.aclose()
    assert await second.ledger.orphans(10**12) == [intent(1), intent(3)]
    await asyncio.gather(*(second.ledger.finish(entry(number, status="unknown")) for number in (1, 3)))
    assert await second.ledger.orphans(10**12) == []
    assert count(path, "intents") == 0
    await second.aclose()


async def test_a_writer_that_shows_no_life_is_dead_and_one_that_does_is_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, living, now = await silent_and_living(path, monkeypatch)
    await silent.ledger.begin(intent(1))
    await living.ledger.begin(intent(2))
    now.move(30.0)
    assert await living.ledger.orphans(30_000_000) == []
    now.move(0.001)
    assert await living.ledger.orphans(30_000_000) == [intent(1)]
    assert await living.ledger.open_intents() == [intent(1), intent(2)]
    await living.aclose()
    await silent.aclose()


async def test_after_a_sleep_of_the_machine_nobody_is_taken_for_dead_who_wakes_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "WAKE_S", 0.0)
    clock = FakeClock()
    first, second = await SqliteStore.open(path, clock), await SqliteStore.open(path, clock)
    await first.ledger.begin(intent(1))
    clock.move(3600.0)
    show = second._presence.show

    async def both_wake_up() -> None:
        await show()
        await first._presence.show()

    monkeypatch.setattr(second._presence, "show", both_wake_up)
    assert await second.ledger.orphans(30_000_000) == []
    await first.aclose()
    assert await second.ledger.orphans(30_000_000) == [intent(1)]
    await second.aclose()


async def test_an_orphan_that_two_settle_is_one_entry(path: Path, clock: FakeClock) -> None:
    dead = await SqliteStore.open(path, clock)
    await dead.ledger.begin(intent(1))
    await dead.aclose()
    stores = [await SqliteStore.open(path, clock) for _ in range(2)]
    for store in stores:
        assert await store.ledger.orphans(10**12) == [intent(1)]
    await asyncio.gather(*(store.ledger.finish(entry(1, status="unknown")) for store in stores))
    assert (await stores[0].ledger.total(ALL)).requests == 1
    for store in stores:
        await store.aclose()


async def test_what_an_older_convene_left_in_its_journal_is_read_and_moved_once(path: Path, clock: FakeClock) -> None:
    store = await SqliteStore.open(path, clock)
    chance = random.Random(5)  # noqa: S311 -- repeatable on purpose
    kept = [random_entry(chance, number) for number in range(50)]
    with closing(sqlite3.connect(path)) as older:
        for start in range(0, 50, 10):
            body = msgspec.msgpack.encode((ENTRY_FIELDS, [row_of(one) for one in kept[start : start + 10]]))
            older.execute("INSERT INTO journal (number, body) VALUES (?, ?)", (start, body))
        older.commit()
    assert await store.ledger.total(ALL) == summed(kept)
    assert count(path, "journal") == 0
    await store.aclose()


# The logs of others.


def logs(path: Path) -> list[str]:
    """Return the writers of whom a log is left."""
    return list(book_log.writers(log_folder(path)))


async def test_a_log_whose_entries_are_all_in_the_tables_goes_when_its_store_is_closed(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.ledger.begin(intent(1))
    assert len(logs(path)) == 1
    await asyncio.gather(*(store.ledger.finish(entry(number)) for number in range(1, 30)))
    await store.aclose()
    assert logs(path) == []
    assert len(stored(path)) == 29


async def test_a_request_whose_entry_could_not_be_written_stays_open_for_whoever_comes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is written too: it must never look like one that never ran (goal A4)."""
    monkeypatch.setattr(sqlite_ledger, "CLOSE_S", 0.01)
    store = await SqliteStore.open(path)
    await store.ledger.begin(intent(1))
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[: len(data) // 2], offset))
    ended = store.ledger.finish(entry(1))
    assert await store.ledger.open_intents() == [intent(1)]
    await store.aclose()
    with pytest.raises(StoreFault):
        await ended
    monkeypatch.undo()
    later = await SqliteStore.open(path)
    assert await later.ledger.orphans(10**12) == [intent(1)]
    assert await later.ledger.total(ALL) == Sums()
    await later.aclose()


async def test_closing_waits_a_while_for_tables_that_another_keeps_locked(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.ledger.finish(entry(1))
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        ending = asyncio.ensure_future(store.ledger.aclose())
        await asyncio.sleep(0.2)
        assert not ending.done()
        other.execute("COMMIT")
        await ending
    assert stored(path) == [entry(1).id]
    assert logs(path) == []
    await store.aclose()


async def test_turns_of_the_slots_lose_nothing_and_carry_what_is_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_log_writer, "SLOT_BYTES", 1 << 13)
    monkeypatch.setattr(sqlite_ledger, "MARK_S", 0.0)
    store, other = await SqliteStore.open(path), await SqliteStore.open(path)
    long_ones = [intent(10**6 + number) for number in range(3)]
    for one in long_ones:
        await store.ledger.begin(one)
    for number in range(0, 2000, 10):
        await asyncio.gather(*(store.ledger.begin(intent(number + one)) for one in range(10)))
        await asyncio.gather(*(store.ledger.finish(entry(number + one)) for one in range(10)))
        if number % 100 == 0:
            assert (await other.ledger.total(ALL)).requests == number + 10
            assert await other.ledger.open_intents() == long_ones
    assert store.ledger._log.place.generation > 5
    await store.aclose()
    assert await other.ledger.orphans(10**12) == long_ones
    assert await other.ledger.orphans(10**12) == long_ones, "until they are settled"
    assert logs(path) == []
    assert stored(path) == sorted(entry(number).id for number in range(2000))
    await other.aclose()


async def test_the_log_of_one_that_is_silent_stays_while_its_process_holds_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, living, now = await silent_and_living(path, monkeypatch)
    await silent.ledger.begin(intent(1))
    await silent.ledger.begin(intent(2))
    now.move(30.001)
    for _ in range(2):
        assert await living.ledger.orphans(30_000_000) == [intent(1), intent(2)]
    await living.ledger.finish(entry(1, status="unknown"))
    await silent.ledger.finish(entry(1))  # it was only frozen: what was settled for it stays
    await silent.ledger.finish(entry(2))
    assert (await living.ledger.total(ALL)).requests == 2
    assert await living.ledger.find(entry(1).id, ALL) == [entry(1, status="unknown")]
    assert await living.ledger.orphans(30_000_000) == []
    await living.aclose()
    await silent.aclose()
    assert logs(path) == []


async def test_an_intent_is_never_out_of_sight_while_a_dead_ones_log_is_taken_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be taken for one that never ran, and what it had reserved be given back (goal A4)."""
    dead, looking, taking = [await SqliteStore.open(path) for _ in range(3)]
    await dead.ledger.begin(intent(1))
    await dead.aclose()
    in_tables = SqlLedger.open_intents

    async def taken_over_meanwhile(self: SqlLedger) -> list[Intent]:
        found = await in_tables(self)
        monkeypatch.undo()
        assert await taking.ledger.orphans(10**12) == [intent(1)]
        assert logs(path) == []
        return found

    monkeypatch.setattr(SqlLedger, "open_intents", taken_over_meanwhile)
    assert await looking.ledger.open_intents() == [intent(1)]
    assert await looking.ledger.open_intents() == [intent(1)], "it is a row now"
    await looking.aclose()
    await taking.aclose()


async def test_what_was_forgotten_is_not_brought_back_by_a_log(path: Path) -> None:
    """Neither of one that lives, whose log has a mark, nor of one that was killed before its mark."""
    store = await SqliteStore.open(path)
    await store.ledger.begin(intent(5))
    await store.ledger.finish(entry(0))
    await come(lambda: store.ledger._spare is not None)
    await store.ledger.finish(entry(1))
    assert store.ledger._log.place.generation == 2, "a turn that lasts"
    await asyncio.gather(*(store.ledger.finish(entry(number)) for number in range(2, 5)))
    for file in log_folder(path).iterdir():
        shutil.copyfile(file, file.with_name(f"w-killed.{file.name[-1]}"))
    await store.ledger.settle()
    await come(lambda: store.ledger._marked_to == store.ledger._moved_to)
    reader = await SqliteStore.open(path)
    assert await store.ledger.forget_before(entry(9).at_us) == 5
    for one in (reader, store):
        assert await one.ledger.total(ALL) == summed([entry(number) for number in range(5)])
    assert stored(path) == []
    assert await reader.ledger.orphans(10**12) == [intent(5)]
    await store.aclose()
    await reader.aclose()


@pytest.mark.parametrize("seed", range(3))
async def test_everything_is_there_after_closing_and_opening_again(path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 -- repeatable on purpose
    kept: dict[str, Entry] = {}
    begun: dict[str, Intent] = {}
    for _ in range(6):
        store = await SqliteStore.open(path)
        for _ in range(chance.randrange(1, 200)):
            number = chance.randrange(1000)
            one = random_entry(chance, number)
            if chance.random() < 0.5 and one.id not in begun:
                begun[one.id] = intent(number)
                waiting = store.ledger.begin(begun[one.id])
            else:
                kept.setdefault(one.id, one)
                waiting = store.ledger.finish(one)
            what = chance.random()
            if what < 0.1:
                await waiting
            elif what < 0.2:
                waiting.cancel()
        await store.aclose()  # what nobody waited for is written too
        store = await SqliteStore.open(path)
        assert await store.ledger.total(ALL) == summed(list(kept.values()))
        left = sorted((one for one in begun.values() if one.id not in kept), key=lambda one: one.at_us)
        assert await store.ledger.open_intents() == left
        assert await store.ledger.orphans(10**12) == left  # their writers have closed
        await store.aclose()
    assert stored(path) == sorted(kept)


async def test_a_copy_has_what_only_the_logs_have(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_ledger, "MOVE_S", 1000.0)
    store = await SqliteStore.open(path)
    await store.ledger.begin(intent(1))
    await asyncio.gather(*(store.ledger.finish(entry(number)) for number in range(2, 30)))
    assert stored(path) == []
    target = path.with_name("copy.db")
    await asyncio.to_thread(back_up, path, target)
    assert not log_folder(target).exists()
    copy = await SqliteStore.open(target)
    assert await copy.ledger.total(ALL) == summed([entry(number) for number in range(2, 30)])
    assert await copy.ledger.open_intents() == [intent(1)]
    assert await copy.ledger.orphans(10**12) == [], "its writer was alive then"
    await store.aclose()
    await copy.aclose()


# What it holds.


def store_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("convene-store")]


async def test_the_writing_half_starts_when_something_is_written_and_nothing_is_left_of_it(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.ledger.total(ALL)
    assert len(store_threads()) == 2  # the file's own, and one for reading the books
    await store.ledger.finish(entry(1))
    assert len(store_threads()) == 4  # one for what answers wait for, one for all else
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a count of names
    await store.aclose()
    assert store_threads() == []
    assert len(os.listdir("/proc/self/fd")) < descriptors  # noqa: PTH208 -- a count of names


async def test_a_writing_half_that_cannot_start_leaves_nothing_open_and_starts_later(
    path: Path,
) -> None:
    store = await SqliteStore.open(path)
    log_folder(path).write_text("in the way")
    descriptors = []
    for _ in range(4):
        with pytest.raises(StoreFault):
            store.ledger.begin(intent(1))
        descriptors.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 -- a count of names
    assert descriptors[1:] == descriptors[:-1], "but for the one that SQLite keeps for the next opening"
    log_folder(path).unlink()
    await store.ledger.begin(intent(1))
    await store.ledger.finish(entry(1))
    await store.aclose()
    assert stored(path) == [entry(1).id]


async def test_reading_the_books_for_long_keeps_nobody_waiting(books: Books) -> None:
    await books.ledger.finish(entry(1))
    reading, go_on = threading.Event(), threading.Event()

    def long(_: sqlite3.Connection) -> bool:
        reading.set()
        return go_on.wait(WAIT_S)

    held_up = asyncio.ensure_future((await books.ledger._reading._file()).run(long))
    await until(reading)
    await books.ledger.finish(entry(2))
    assert await books.file.rows("SELECT count(*) FROM keys") == [(0,)]
    go_on.set()
    assert await held_up
    assert (await books.ledger.total(ALL)).requests == 2


async def test_a_reader_who_leaves_while_the_file_is_opened_takes_nobody_along(path: Path) -> None:
    store = await SqliteStore.open(path)
    first, second = (asyncio.ensure_future(store.ledger.total(ALL)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).requests == 0
    await store.aclose()
    assert store_threads() == []


async def test_an_entry_is_looked_up_by_its_id_however_many_its_key_has(books: Books) -> None:
    await books.ledger.finish(entry(1))
    asked: list[str] = []
    rows = books.ledger._reading.rows

    async def explained(statement: str, values: Sequence[object] = ()) -> list[Row]:
        asked.extend(str(row[3]) for row in await rows(f"EXPLAIN QUERY PLAN {statement}", values))
        return await rows(statement, values)

    books.ledger._reading.rows = explained  # type: ignore[method-assign]
    for whose in (ALL, Whose("key", "key-1"), Whose("user", "user-1"), Whose("team", "team-1")):
        asked.clear()
        assert await books.ledger.find(entry(1).request_id, whose) == [entry(1)]
        assert [plan for plan in asked if plan.startswith("SEARCH")] == [
            "SEARCH entries USING INDEX sqlite_autoindex_entries_1 (id=?)",
            "SEARCH entries USING INDEX entries_by_request (request_id=?)",
        ]
