"""The head of an answer that an upstream has sent before, known again by its bytes.

A host answers with the same head each time, but for `date` and `content-length`. Once llhttp has read such a head and
the rules of `client_codec.py` have judged it, the same bytes mean the same: they are compared instead of read. Only a
whole answer of status 200 that came in one piece and whose length is given is learned or taken here; whatever is
different in any byte goes the usual way. The counterpart of `server_known.py`.

Pure. Called by `client_codec.py`; held to what the parser makes of the same bytes by
`tests/unit/http/test_client_known.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.http.known import form_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.http.known import HeadForm

OK: Final = 200
_UNFIT: Final = frozenset({"transfer-encoding", "content-encoding", "upgrade"})


class KnownAnswer:
    """One head. After `take` has found an answer, `headers` and `body` are its."""

    __slots__ = ("_form", "_head", "_headers", "body", "headers", "keep_alive_s")

    def __init__(self, form: HeadForm, headers: dict[str, str], keep_alive_s: float | None) -> None:
        self._form = form
        self._head = b""
        self._headers = headers
        self.headers: dict[str, str] = headers
        """Nobody may change them: answers with the same head share them."""
        self.body = b""
        self.keep_alive_s = keep_alive_s

    def take(self, data: bytes) -> bool:
        """Take `data` if it is this head and a body that fills it exactly. Return whether it is."""
        head = self._form.find(data)
        if head is None:
            return False
        self.body = body = data[len(head) :]
        if head is not self._head:
            self._head = head
            headers = self._headers | {"content-length": str(len(body))}
            if self._form.dated:
                headers["date"] = self._form.date.decode("ascii")
            self.headers = headers
        return True


def learn(data: bytes, status: int, headers: Mapping[str, str], keep_alive_s: float | None) -> KnownAnswer | None:
    """Return the head of `data`, which was read as one whole answer; None if it is not to be kept."""
    plain = status == OK and data.startswith(b"HTTP/1.1 200")  # not behind an interim answer
    form = form_of(data) if plain and "content-length" in headers and _UNFIT.isdisjoint(headers) else None
    if form is None or form.dated != ("date" in headers):
        return None
    return KnownAnswer(form, dict(headers), keep_alive_s)
