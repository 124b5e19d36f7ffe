"""How a SQLite file is opened while other processes open, close, recover and write it.

SQLite's own busy handler does not cover a start. Three locks that are held for microseconds end it at once:

- The change to WAL takes the write lock inside a read transaction, where waiting might be a deadlock: nobody is waited
  for, whatever the time-out.
- The first read of a connection looks at a lock that whoever closes the file takes for a moment. A connection that must
  not wait later, on the event loop, has no time-out, and so does not wait here either.
- Two that find a WAL without an index both want to rebuild it.

Eight processes on one fresh file failed 6 times in 1,200 starts for want of this. So whatever is found busy while a
connection is made ready is done again, after short pauses, for a stated time. Called by the parts of this room that
open a file; not here: what they make ready, and what a statement waits for later.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START_S: Final = 15.0
"""How long a start waits for others to let go of a file: locks are held for milliseconds, also on a loaded machine.
One that lasts belongs to a process that is frozen or ended half-way, which somebody has to look at."""
LOOP_S: Final = 1.0
"""How long the event loop may be held up by one that opens a further connection to a file that is open here already;
nothing but the moments named above can be in the way."""
_FIRST_PAUSE_S: Final = 0.0005
_LONGEST_PAUSE_S: Final = 0.02
_PASSING: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL)
"""Others are in the way; the second is what a reader gets that has lost the race for the WAL's index too often."""


def is_busy(error: BaseException) -> bool:
    """Whether another connection was in the way, and nothing else is wrong."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _PASSING


def opened(
    path: Path,
    prepare: Callable[[sqlite3.Connection], None],
    wait_s: float = START_S,
    pause: Callable[[float], None] = time.sleep,
) -> sqlite3.Connection:
    """Return a connection in autocommit mode that `prepare` has made ready. Blocks.

    Its statements wait for nobody (`busy_s` changes that).

    Args:
        path: the file; made if it is not there.
        prepare: run again from its beginning as long as others are in the way, so its second time must be right too.
        wait_s: for how long, in pauses.
        pause: waits so many seconds, in place.

    Raises:
        sqlite3.Error: `prepare` failed, or others were in the way all that time. The connection is closed then.
    """
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        waited_s, pause_s = 0.0, _FIRST_PAUSE_S
        while True:
            try:
                prepare(connection)
            except sqlite3.OperationalError as error:
                if not is_busy(error) or waited_s >= wait_s:
                    raise
            else:
                return connection
            pause(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    except BaseException:  # an interrupt too must not leave the file open; nothing is swallowed
        connection.close()
        raise


def busy_s(connection: sqlite3.Connection, seconds: float) -> None:
    """Let every later statement wait so long for another process's write before it fails."""
    connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
