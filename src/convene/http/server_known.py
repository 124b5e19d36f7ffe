"""The head that a connection has sent before, known again by its bytes.

A client that stays connected sends the same head with every request, but for the number in `content-length`. Once
llhttp has read such a head and the rules of `server_protocol.py` have judged it, the same bytes mean the same: they are
compared instead of read, which takes a tenth of the time. Only a whole request that came in one piece and fills it is
learned or taken here; whatever is different in any byte goes the usual way.

Pure: no socket, no parser. Called by `server_protocol.py`. Held to what the parser makes of the same bytes by
`tests/unit/http/test_server_known.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from convene.http.server_asgi import Scope

HEAD_BYTES_MAX: Final = 8 * 1024
"""Larger heads are not kept: each connection keeps one."""
LESSONS: Final = 4
"""So many heads are learned on one connection; a client that sends another one each time is left alone after them."""
_DIGITS_MAX: Final = 12
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})\r\n", re.IGNORECASE)
_UNFIT: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
"""With one of these a head decides about more than its own request."""


class KnownHead:
    """One head, and what was worked out of it. `notes` is the application's (`base.Direct.notes`)."""

    __slots__ = ("_after", "_before", "_length_at", "_scope", "digits", "notes")

    def __init__(self, before: bytes, after: bytes, scope: dict[str, Any], length_at: int) -> None:
        """`before` and `after` are the bytes around the digits of the length, whose place in the headers is given."""
        self._before = before
        self._after = after
        self._scope = scope
        self._length_at = length_at
        self.digits = b""
        """Of the length of the body that was taken last."""
        self.notes: dict[str, object] = {}

    def take(self, data: bytes) -> bytes | None:
        """Return the body if `data` is this head and a body that fills it exactly, else None."""
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + _DIGITS_MAX + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(after, end):
            return None
        body = data[end + len(after) :]
        if int(digits) != len(body):
            return None
        self.digits = digits
        return body

    def scope(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the scope of a request whose body was just taken."""
        scope = self._scope.copy()
        headers = scope["headers"].copy()
        headers[self._length_at] = (b"content-length", self.digits)
        scope["headers"] = headers
        scope["state"] = state.copy()
        return scope


def learn(data: bytes, scope: Scope) -> KnownHead | None:
    """Return the head of `data`, which was read as one whole request with this scope; None if it is not to be kept."""
    head_ends = data.find(b"\r\n\r\n") + 4
    found = _LENGTH.search(data, 0, head_ends)
    if found is None or head_ends > HEAD_BYTES_MAX or int(found[1]) != len(data) - head_ends:
        return None
    names = [name for name, _ in scope["headers"]]
    if scope["http_version"] != "1.1" or not _UNFIT.isdisjoint(names) or names.count(b"content-length") != 1:
        return None
    # Copied without what belongs to the one request: its exchange would be kept alive.
    kept = {**scope, "headers": list(scope["headers"]), "extensions": {}, "state": {}}
    return KnownHead(data[: found.start(1)], data[found.end(1) : head_ends], kept, names.index(b"content-length"))
