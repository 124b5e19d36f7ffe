"""The head that a connection has sent before, known again by its bytes.

A client that stays connected sends the same head with every request, but for the number in `content-length`. Once
llhttp has read such a head and the rules of `server_protocol.py` have judged it, the same bytes mean the same: they are
compared instead of read, which takes a tenth of the time. Only a whole request that came in one piece and fills it
is learned or taken here; whatever is different in any byte goes the usual way.

Pure: no socket, no parser. Called by `server_protocol.py`. Held to what the parser makes of the same bytes by
`tests/unit/http/test_server_known.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from convene.http.known import form_of

if TYPE_CHECKING:
    from convene.http.known import HeadForm
    from convene.http.server_asgi import Scope

_UNFIT: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
"""With one of these a head decides about more than its own request."""


class KnownHead:
    """One head, and what was worked out of it. `notes` is the application's (`base.Direct.notes`)."""

    __slots__ = ("_form", "_length", "_length_at", "_length_field", "_scope", "notes")

    def __init__(self, form: HeadForm, scope: dict[str, Any], length_at: int) -> None:
        """`length_at`: the place of the length among the headers."""
        self._form = form
        self._scope = scope
        self._length_at = length_at
        self._length = -1
        self._length_field = (b"", b"")
        """The field that said the last length."""
        self.notes: dict[str, object] = {}

    def take(self, data: bytes) -> bytes | None:
        """Return the body if `data` is this head and a body that fills it exactly, else None."""
        head = self._form.find(data)
        return None if head is None else data[len(head) :]

    def scope(self, state: dict[str, Any], length: int) -> dict[str, Any]:
        """Return the scope of a request with a body of so many bytes."""
        scope = self._scope.copy()
        headers = scope["headers"].copy()
        if length != self._length:
            self._length = length
            self._length_field = (b"content-length", b"%d" % length)
        headers[self._length_at] = self._length_field
        scope["headers"] = headers
        scope["state"] = state.copy()
        return scope


def learn(data: bytes, scope: Scope) -> KnownHead | None:
    """Return the head of `data`, which was read as one whole request with this scope; None if it is not to be kept."""
    names = [name for name, _ in scope["headers"]]
    if scope["http_version"] != "1.1" or not _UNFIT.isdisjoint(names) or names.count(b"content-length") != 1:
        return None
    form = form_of(data)
    if form is None or form.dated:
        return None
    # Copied without what belongs to the one request: its exchange would be kept alive.
    kept = {**scope, "headers": list(scope["headers"]), "extensions": {}, "state": {}}
    return KnownHead(form, kept, names.index(b"content-length"))
