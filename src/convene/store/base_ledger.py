"""The seam of the books: an intent before a model is asked, one entry when the request has ended (USAGE-01).

    begin(intent)   durable against kill -9 once awaited; before the upstream is called
    finish(entry)   durable against power loss once awaited; before the last byte of the answer leaves

Both take their place in the queue when they are called, not when they are awaited, so a cancelled caller loses nothing.
An intent whose writer died becomes an entry with status `unknown` at what it had reserved (`orphans`, settled by
`serving/`). Entries are never changed; one id has one entry, whoever writes it again. Totals and day sums are kept with
the entries, in the same transaction, so that they outlive retention. Every implementation passes
`tests/contract/test_ledger.py` unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from convene.limits.limit import Amounts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

__all__ = ["FOUND_MAX", "Bucket", "Entry", "Filter", "GroupBy", "Intent", "Ledger", "Sums", "Whose"]

FOUND_MAX: Final = 500
"""How many entries `Ledger.find` returns at most."""

Kind = Literal["chat", "embedding", "image", "agent"]
Status = Literal["ok", "client_left", "failed", "unknown"]
GroupBy = Literal["day", "hour", "model", "key", "user", "team", "session", "agent"]


class Intent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """That a request is about to cost something, and at most or about what. Times are Unix microseconds."""

    id: str
    """`chatcmpl-...`: unique, made by the server, ordered by time."""
    request_id: str
    """`x-request-id`; a caller may choose it, so it need not be unique."""
    at_us: int
    """When it was admitted; decides its day and its period."""
    kind: Kind
    key_id: str
    owner: str
    user_id: str = ""
    team_id: str = ""
    session_id: str = ""
    agent_address: str = ""
    model_asked: str
    model: str
    """The deployment that serves it."""
    stream: bool = False
    reserved: Amounts
    price: str = ""
    """The version of the price table that applies."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What one request was and has cost. The first fields are its intent's.

    By name, please; `books.py` gives the fields by their places, for CPython passes more than 15 names in a dictionary,
    which takes 3 us.
    """

    id: str
    request_id: str
    at_us: int
    kind: Kind
    key_id: str
    owner: str
    user_id: str = ""
    team_id: str = ""
    session_id: str = ""
    agent_address: str = ""
    model_asked: str = ""
    model: str = ""
    stream: bool = False
    price: str = ""
    upstream: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    images: int = 0
    tool_calls: int = 0
    agent_calls: int = 0
    cost_micros: int = 0
    estimated: bool = False
    """At least one token figure was not reported by whoever generated."""
    status: Status = "ok"
    finish: str = ""
    """The finish reason, or the error's code."""
    ttft_us: int | None = None
    duration_us: int = 0


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """What several requests came to."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    images: int = 0
    tool_calls: int = 0
    agent_calls: int = 0
    cost_micros: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt plus completion."""
        return self.prompt_tokens + self.completion_tokens


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """One group of a report: the values of what it is grouped by, in that order, and the sums."""

    group: tuple[str, ...]
    """A day as `2026-11-26`, an hour as `2026-11-26T19`, both of UTC; else an id, a name, a session, an address."""
    sums: Sums


class Whose(msgspec.Struct, frozen=True):
    """Whose entries may be seen: the owner is part of every look-up (invariant 9)."""

    kind: Literal["key", "user", "team", "all"]
    id: str = ""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries: admitted from `since_us` (inclusive) to `until_us` (exclusive); None leaves a side open."""

    whose: Whose
    since_us: int | None = None
    until_us: int | None = None
    model: str | None = None
    key_id: str | None = None
    session_id: str | None = None
    agent_address: str | None = None


class Ledger(Protocol):
    """The books of one store. Every call, and every awaitable it returns, raises `StoreFault` if it cannot be used."""

    def begin(self, intent: Intent) -> Awaitable[None]:
        """Write down an intent; awaited, it survives kill -9."""
        ...

    def finish(self, entry: Entry) -> Awaitable[None]:
        """Write down an entry and end its intent; awaited, it is on the disk. A second entry of one id is ignored."""
        ...

    async def orphans(self, dead_after_us: int) -> Sequence[Intent]:
        """Return intents without an entry whose writer has shown no life for `dead_after_us`, oldest first.

        A writer shows life by itself while its store is open, and is dead at once when its store was closed.
        """
        ...

    async def open_intents(self) -> Sequence[Intent]:
        """Return all intents without an entry, of living and dead writers, oldest first."""
        ...

    async def find(self, wanted: str, whose: Whose) -> Sequence[Entry]:
        """Return the entries with this id or request id that may be seen, oldest first, at most `FOUND_MAX`.

        Several may share a request id, for a caller may choose it.
        """
        ...

    async def total(self, whose: Whose) -> Sums:
        """Return the sums over all time, retention or not: one look-up, whatever the number of entries."""
        ...

    async def report(
        self, which: Filter, by: Sequence[GroupBy], limit: int, after: tuple[str, ...] = ()
    ) -> list[Bucket]:
        """Return sums by group, in the order of the groups, at most `limit` of those behind `after`."""
        ...

    async def page(self, which: Filter, limit: int, after: tuple[int, str] | None = None) -> list[Entry]:
        """Return entries, newest first, at most `limit` of those older than `after` (at_us, id)."""
        ...

    def entries(self, which: Filter) -> AsyncIterator[Entry]:
        """Yield entries, oldest admission first, without holding them all in memory: for rebuilding and export."""
        ...

    async def forget_before(self, at_us: int) -> int:
        """Delete entries admitted before `at_us` (their sums stay) and return how many."""
        ...

    async def flush(self) -> None:
        """Wait until everything begun and finished so far is written."""
        ...
