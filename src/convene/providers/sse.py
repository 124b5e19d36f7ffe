"""Server-sent events as a byte machine: bytes in, events out (WHATWG HTML, 9.2.6 "Interpreting an event stream").

Not here: I/O, JSON, and what an event means. `openai_reply.py` feeds it. Lines end at LF, CR or CRLF and at nothing
else: text line splitters also break at U+2028, U+2029 and U+0085, which JSON may hold raw (reliability 3.3, measured:
one event became seven lines).
"""

from __future__ import annotations

from typing import NamedTuple

EVENT_BYTES_MAX = 4 * 1024 * 1024
"""One event may carry a whole reply with many log probabilities; more than this is no chat chunk."""

BOM = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One dispatched event: its type (`b""` is the default type, `message`) and its data lines joined by LF."""

    name: bytes
    data: bytes


class EventParser:
    """Cuts a byte stream into events, however the stream is split.

    An event that the end of the stream leaves without its blank line is dropped, as the standard says. Comments, `id`
    and `retry` are skipped. `feed` is linear in the bytes fed, whatever their pieces.

    `too_large` says that an event, or a line of any kind, passed the cap; nothing more comes then.
    """

    __slots__ = ("_bytes_max", "_data", "_first_line", "_held", "_name", "_size", "_skip_lf", "too_large")

    def __init__(self, bytes_max: int = EVENT_BYTES_MAX) -> None:
        """Allow events, and lines of any kind, of up to `bytes_max` bytes."""
        self.too_large = False
        self._bytes_max = bytes_max
        self._held: list[bytes] = []  # the pieces of a line whose end has not come
        self._size = 0  # bytes of the event so far, held line included
        self._data: list[bytes] = []
        self._name = b""
        self._skip_lf = False
        self._first_line = True

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes, return the events they complete."""
        if self._skip_lf and data:
            self._skip_lf = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        events: list[ServerSentEvent] = []
        for line in lines:
            if self.too_large:
                return events
            self._take_line(line, events)
        if rest and not self.too_large:
            self._held.append(rest)
            self._grow(len(rest))
        return events

    def _take_line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        grown = len(line)
        if self._held:
            self._held.append(line)
            line = b"".join(self._held)
            self._held.clear()
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(BOM)
        if not line:
            if self._data:
                events.append(ServerSentEvent(self._name, b"\n".join(self._data)))
                self._data = []
            self._name = b""
            self._size = 0
            return
        self._grow(grown)
        if self.too_large:
            return
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            return
        self._take_field(line)

    def _take_field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if field == b"event":
            self._name = value.removeprefix(b" ")
        elif field == b"data":
            self._data.append(b"")
        elif not self._data:
            # comments and unknown fields between events are gone for good: a stream of pings must not add up
            self._size = 0

    def _grow(self, by: int) -> None:
        self._size += by
        if self._size > self._bytes_max:
            self.too_large = True
            self._held.clear()
            self._data = []
