"""What one connection measures beside its deadlines: whether a body keeps up its rate, and a reader takes what waits.

Pure: times, in seconds of the event loop, and counts of bytes are handed in. `server_protocol.py` makes a clock when a
body comes in pieces or something waits for the client, and asks it in each tick: most requests never have one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convene.http.server_settings import ServerSettings


class BodyClock:
    """The time of a request body, from when it may come; `read` is what of it was read so far."""

    __slots__ = ("_ends", "_mark", "_settings", "_window_ends")

    def __init__(self, settings: ServerSettings, now: float, read: int) -> None:
        self._settings = settings
        self._ends = now + settings.body_total_s
        self._begin_window(now, read)

    def stand_still(self, now: float, read: int) -> None:
        """Leave out a tick in which the socket was not read: the client could send nothing."""
        self._ends += self._settings.tick_s
        self._begin_window(now, read)

    def why_late(self, now: float, read: int) -> str:
        """Return why the body comes too slowly, in words for the client; empty: it does not."""
        settings = self._settings
        if now > self._ends:
            return f"The request body took longer than {settings.body_total_s:g} s."
        if now > self._window_ends:
            came = read - self._mark
            self._begin_window(now, read)
            if came < settings.body_bytes_per_s * settings.body_window_s:
                return f"The request body came slower than {settings.body_bytes_per_s} bytes per second."
        return ""

    def _begin_window(self, now: float, read: int) -> None:
        self._window_ends = now + self._settings.body_window_s
        self._mark = read


class ReaderClock:
    """How long a client has taken (nearly) nothing of what waits for it; `taken` is what it took so far."""

    __slots__ = ("_mark", "_settings", "_since")

    def __init__(self, settings: ServerSettings, now: float, taken: int) -> None:
        self._settings = settings
        self._since = now
        self._mark = taken

    def is_stalled(self, now: float, taken: int) -> bool:
        """Whether it is to be dropped; one that has taken enough since then begins anew."""
        settings = self._settings
        patience_s = settings.write_stall_s
        if taken - self._mark >= settings.write_bytes_per_s * patience_s:
            self._since, self._mark = now, taken
            return False
        return now - self._since >= patience_s - 2 * settings.tick_s
