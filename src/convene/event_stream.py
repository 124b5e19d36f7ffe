"""The event streams of MCP and A2A as a byte machine: bytes in, events with their ids out (WHATWG HTML 9.2.6). Pure.

Called by `tools/mcp_exchange.py` and `agents/a2a_wire.py`. Unlike the reader of models' answers (`providers/sse.py`),
which must be fast, this one keeps `id` and `retry`, by which a broken stream is taken up again.
"""

from __future__ import annotations

import re
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"
_ID: Final = re.compile(rb"([!-~]([ -~]{0,1022}[!-~])?)?")
"""What may stand in a header; other ids are no use."""
_RETRY_DIGITS_MAX: Final = 7


class EventTooLarge(ValueError):
    """An event, or a line, above the cap."""


class EventStream:
    """Cuts bytes into the data of events. `last_id` and `retry_ms` are what the stream has said last."""

    def __init__(self, event_bytes_max: int, before: EventStream | None = None) -> None:
        """Allow events, and lines of any kind, of up to `event_bytes_max` bytes; go on where `before` ended."""
        self.last_id: str = before.last_id if before else ""
        self.retry_ms: int | None = before.retry_ms if before else None
        self._bytes_max = event_bytes_max
        self._held = bytearray()
        """A line whose end has not come."""
        self._searched = 0
        self._data: list[bytes] = []
        self._id = self.last_id
        self._size = 0
        self._first = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes, return the data of the events they complete; events without data are none.

        Raises `EventTooLarge` for an event above the cap. A CR at the end of a chunk waits for what follows it.
        """
        self._held += chunk
        events: list[bytes] = []
        start = 0
        while (end := _LINE_END.search(self._held, max(start, self._searched))) is not None:
            if end[0] == b"\r" and end.end() == len(self._held):
                break
            self._take(bytes(self._held[start : end.start()]), events)
            start = end.end()
        del self._held[:start]
        self._searched = max(0, len(self._held) - 1)
        if len(self._held) + self._size > self._bytes_max:
            raise EventTooLarge("an event is too large")
        return events

    def _take(self, line: bytes, events: list[bytes]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            data = b"\n".join(self._data)
            if data:
                events.append(data)
            self._data, self._size = [], 0
            self.last_id = self._id  # only now: whoever goes on from an id has seen its whole event
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(line)
            if self._size > self._bytes_max:
                raise EventTooLarge("an event is too large")
            self._data.append(value)
        elif field == b"id" and _ID.fullmatch(value):
            self._id = value.decode()
        elif field == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS_MAX:
            self.retry_ms = int(value)
