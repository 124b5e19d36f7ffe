"""The log of the books as bytes: what was written whole is found; what was cut off, or of an earlier turn, is not."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.store import book_log, book_log_writer
from convene.store.base_ledger import Intent
from convene.store.book_log import ENTRIES, INTENT, MARK, NAMES, Place, Seeds, header, left_by, mark_body, scan, writers
from convene.store.book_log_writer import BookLog, Slot, is_let_go
from convene.store.ledger_rows import ENTRY_FIELDS, entry_of, packed_intent, packed_values, row_of
from ledger_samples import entry, intent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from convene.store.base_ledger import Entry


@pytest.fixture
def books(tmp_path: Path) -> Iterator[BookLog]:
    opened = BookLog(tmp_path, "w-1")
    yield opened
    for slot in opened.slots:
        slot.close(remove=False)


def begin(books: BookLog, *numbers: int) -> None:
    for number in numbers:
        books.append(INTENT, packed_intent(intent(number)))


def finish(books: BookLog, *numbers: int) -> None:
    books.append(ENTRIES, packed_values([row_of(entry(number)) for number in numbers]))


def found(folder: Path) -> tuple[list[Entry], list[str]]:
    """Return the entries beyond the last mark and the ids that are open."""
    left = left_by(folder, "w-1")
    return [entry_of(row) for row in left.rows], [one.id for one in left.open]


def test_what_was_appended_is_found_in_its_order(books: BookLog, tmp_path: Path) -> None:
    begin(books, 1, 2)
    finish(books, 1)
    begin(books, 3)
    finish(books, 3, 4)
    assert found(tmp_path) == ([entry(1), entry(3), entry(4)], [intent(2).id])
    assert left_by(tmp_path, "w-1").open == [intent(2)]
    assert list(writers(tmp_path)) == ["w-1"]


def test_a_reader_who_knows_a_place_reads_from_there(books: BookLog, tmp_path: Path) -> None:
    finish(books, 1)
    seen = left_by(tmp_path, "w-1").ends
    assert left_by(tmp_path, "w-1", seen).rows == []
    begin(books, 2)
    finish(books, 2)
    left = left_by(tmp_path, "w-1", seen)
    assert [entry_of(row) for row in left.rows] == [entry(2)]
    assert left.ends == {"0": books.place}


def test_a_mark_speaks_for_all_that_lies_before_it_in_earlier_turns_too(books: BookLog, tmp_path: Path) -> None:
    finish(books, 1)
    books.make_second()
    books.turn_to(books.slots[1], [])
    finish(books, 2)
    assert found(tmp_path)[0] == [entry(1), entry(2)]
    here = books.place
    finish(books, 3)
    books.append(MARK, mark_body(here))
    assert found(tmp_path)[0] == [entry(3)]


def test_a_turn_takes_what_is_open_along_and_writes_over_the_one_before_the_last(
    books: BookLog, tmp_path: Path
) -> None:
    begin(books, 1)
    finish(books, 2)
    books.make_second()
    old = books.turn_to(books.slots[1], [(INTENT, packed_intent(intent(1)))])
    assert found(tmp_path) == ([entry(2)], [intent(1).id])
    finish(books, 3)
    old.fill()
    books.turn_to(old, [(INTENT, packed_intent(intent(1)))])
    assert found(tmp_path) == ([entry(3)], [intent(1).id])
    finish(books, 1)
    assert found(tmp_path) == ([entry(3), entry(1)], [])
    assert books.place.generation == 3


def test_frames_of_an_earlier_turn_that_lie_behind_the_last_one_are_not_read(tmp_path: Path) -> None:
    """Also where a frame of the new turn ends exactly where one of the old begins."""
    file = tmp_path / "w-1.0"
    body = packed_values([row_of(entry(1))])
    old, new = Seeds(1), Seeds(3)
    frames = b"".join([old.frame(NAMES, book_log.names_body()), old.frame(ENTRIES, body), old.frame(ENTRIES, body)])
    file.write_bytes(header(1) + frames)
    first = scan(file)
    assert first is not None
    assert len(first.entries) == 2
    fresh = header(3) + new.frame(NAMES, book_log.names_body()) + new.frame(ENTRIES, body)
    file.write_bytes(fresh + (header(1) + frames)[len(fresh) :])
    again = scan(file)
    assert again is not None
    assert (len(again.entries), again.end) == (1, Place(3, len(fresh)))


@given(cut=st.integers(0, 3000), noise=st.binary(max_size=40))
@settings(max_examples=150)
def test_a_log_that_was_cut_off_anywhere_has_what_was_whole_and_no_more(
    tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes
) -> None:
    folder = tmp_path_factory.mktemp("log")
    books = BookLog(folder, "w-1")
    ends = []
    for number in range(8):
        begin(books, number)
        finish(books, number)
        ends.append(books.place.offset)
    path = books.current.path
    books.current.close(remove=False)
    whole = path.read_bytes()
    cut = min(cut, len(whole))
    path.write_bytes(whole[:cut] + noise)
    expected = sum(end <= cut for end in ends)
    rows = [entry_of(row).id for row in left_by(folder, "w-1").rows]
    if whole[cut : cut + len(noise)] != noise[: len(whole) - cut]:
        assert rows == [entry(number).id for number in range(expected)]
    else:
        assert rows[:expected] == [entry(number).id for number in range(expected)]


def test_bytes_that_are_flipped_end_the_log(books: BookLog, tmp_path: Path) -> None:
    finish(books, 1)
    start = books.place.offset
    finish(books, 2)
    finish(books, 3)
    for place in range(start, start + 40):
        [byte] = os.pread(books.current.file, 1, place)
        os.pwrite(books.current.file, bytes([byte ^ 0x40]), place)
        assert found(tmp_path)[0] == [entry(1)]
        os.pwrite(books.current.file, bytes([byte]), place)
    assert found(tmp_path)[0] == [entry(1), entry(2), entry(3)]


def test_a_frame_that_is_longer_than_what_is_read_at_once_is_read(books: BookLog, tmp_path: Path) -> None:
    finish(books, *range(2000))
    finish(books, 2001)
    assert len(found(tmp_path)[0]) == 2001


def test_a_log_of_an_older_convene_is_read_by_the_names_of_its_fields(tmp_path: Path) -> None:
    names = [name for name in Intent.__struct_fields__ if name != "agent_address"]
    fields = [name for name in ENTRY_FIELDS if name != "agent_calls"]
    one, begun, seeds = entry(1), intent(2), Seeds(5)
    encode = msgspec.msgpack.encode
    (tmp_path / "w-1.0").write_bytes(
        header(5)
        + seeds.frame(NAMES, encode((["gone", *names], ["gone", *fields])))
        + seeds.frame(INTENT, encode(["x", *(getattr(begun, name) for name in names)]))
        + seeds.frame(ENTRIES, encode([["x", *(getattr(one, name) for name in fields)]]))
    )
    assert found(tmp_path) == ([one], [begun.id])
    [end] = left_by(tmp_path, "w-1").ends.values()
    with (tmp_path / "w-1.0").open("ab") as file:
        file.write(seeds.frame(ENTRIES, encode([["x", *(getattr(entry(3), name) for name in fields)]])))
    assert [entry_of(row) for row in left_by(tmp_path, "w-1", {"0": end}).rows] == [entry(3)]


@pytest.mark.parametrize("content", [b"", b"CVBL", bytes(4096), b"x" * 100])
def test_a_file_that_is_no_log_has_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w-1.0").write_bytes(content)
    assert left_by(tmp_path, "w-1") == ([], [], {})
    assert left_by(tmp_path, "w-2") == ([], [], {})
    assert list(writers(tmp_path / "none")) == []


def test_an_append_that_fails_leaves_no_trace(books: BookLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(books, 1)
    before, write = books.place, os.pwrite
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:-1], offset))
        with pytest.raises(OSError, match="were written"):
            finish(books, 2)
        assert books.place == before
        books_before = books.current
        with pytest.raises(OSError, match="were written"):
            books.turn_to(Slot(tmp_path / "w-1.1"), [])
        assert books.current is books_before
    assert found(tmp_path)[0] == [entry(1)]
    finish(books, 3)
    assert found(tmp_path)[0] == [entry(1), entry(3)]


def test_a_slot_is_its_owners_alone_and_held_while_its_process_lives(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom convene.store.book_log_writer import BookLog\n"
        "books = BookLog(Path(sys.argv[1]), 'w-1')\nprint('ready', flush=True)\nsys.stdin.read()"
    )
    child = subprocess.Popen(  # noqa: S603 -- ourselves
        [sys.executable, "-c", script, str(tmp_path)], stdin=-1, stdout=-1
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    path = tmp_path / "w-1.0"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not is_let_go(path)
    child.kill()
    child.communicate()
    assert is_let_go(path)
    assert is_let_go(tmp_path / "w-1.1"), "there is none"


def test_where_a_file_system_has_no_locks_a_log_is_never_taken_for_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    slot = Slot(tmp_path / "w-1.0")
    assert "cannot be locked" in caplog.text
    assert not is_let_go(slot.path)
    slot.close(remove=True)
    assert not slot.path.exists()
    slot.close(remove=True)


def test_a_slot_is_filled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_log_writer, "SLOT_BYTES", 1 << 19)
    slot = Slot(tmp_path / "w-1.0")
    slot.fill()
    assert (slot.filled, slot.path.stat().st_size) == (True, 1 << 19)
    os.pwrite(slot.file, b"x", 5)
    slot.fill()
    assert slot.path.read_bytes()[5:6] == b"x"
    slot.close(remove=False)
