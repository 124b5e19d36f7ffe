"""A copy of a SQLite store, made while servers go on writing (OPS-31): SQLite's online backup, then checked whole.

What only the logs of the writers have (`book_log.py`) is read before and brought into the copy, which needs no log.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from convene.errors import Conflict, NotFound, StoreFault
from convene.store.book_log import left_by, writers
from convene.store.sqlite_file import fault
from convene.store.sqlite_logs import log_folder, take_over

if TYPE_CHECKING:
    from pathlib import Path


def back_up(source: Path, target: Path) -> int:
    """Copy a store into a new file (mode 0600) and return its size in bytes; it appears only once it is whole.

    What was acknowledged before the call is in it. Blocks, so it belongs on the command line.

    Raises:
        NotFound: there is no store.
        Conflict: the target exists already.
        StoreFault: the store cannot be read, the target not be written, or the copy is not whole.
    """
    if not source.exists():
        raise NotFound(f"There is no store at {source}; the first start of the server makes it.")
    if target.exists():
        raise Conflict(f"{target} exists already; choose another name, or move it away.")
    part = target.with_name(f"{target.name}.part")
    try:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            _copy(source, part)
            _check(part)
            _sync(part)
            os.link(part, target)  # unlike a rename, it never replaces a file that came meanwhile
            _sync(target.absolute().parent)
        finally:
            part.unlink()
    except FileExistsError as error:
        raise Conflict(f"{target} exists already; choose another name, or move it away.") from error
    except (sqlite3.Error, OSError) as error:
        raise fault(target, error) from error
    return target.stat().st_size


def _copy(source: Path, part: Path) -> None:
    folder = log_folder(source)
    logs = {writer: left_by(folder, writer) for writer in writers(folder)}  # first: it may be in the tables a bit later
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with (
        contextlib.closing(sqlite3.connect(uri, uri=True)) as reading,
        contextlib.closing(sqlite3.connect(part)) as writing,
    ):
        reading.backup(writing)  # in one step, over one snapshot: a write beside it would begin smaller steps anew
        writing.execute("PRAGMA journal_mode=DELETE")  # one file, no -wal beside it
        with writing:
            for writer, left in logs.items():
                take_over(writing, writer, left)


def _check(part: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"{part.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        [found] = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise StoreFault("The copy is not whole, so it was thrown away.", detail=str(found))


def _sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
