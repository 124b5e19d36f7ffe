"""The face of usage and limits to `api/` and the command line: what was used, what is left, and for whose eyes.

    UsageDesk   sums, groups and single entries of the ledger (USAGE-02)
    LimitDesk   the limits of a caller and where they stand

Every call takes the `Principal` who asks. A key sees what it used itself; more is seen with a reason (`View.scope`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from convene.limits.limit import Limit
from convene.store.base_ledger import Bucket, Entry, GroupBy, Sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.serving.base import Principal

__all__ = [
    "GROUP_BY",
    "LIMIT_MAX",
    "SCOPES",
    "Bucket",
    "Entry",
    "GroupBy",
    "Level",
    "LimitDesk",
    "Scope",
    "Sums",
    "UsageDesk",
    "View",
]

Scope = Literal["key", "user", "team", "all"]

SCOPES: Final[tuple[Scope, ...]] = ("key", "user", "team", "all")
GROUP_BY: Final[tuple[GroupBy, ...]] = ("day", "hour", "model", "key", "user", "team", "session", "agent")
LIMIT_MAX: Final = 1000
"""Most groups or entries in one answer."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are looked at. Times are Unix microseconds, `since_us` inclusive, `until_us` exclusive.

    `scope` says whose: the calling key's, its user's, its team's (only for a key that is the team's own, or an admin),
    or everybody's (only for an admin). `id` names another key, user or team and is for admins only.
    """

    scope: Scope = "key"
    id: str = ""
    since_us: int | None = None
    until_us: int | None = None
    model: str | None = None
    key_id: str | None = None
    session_id: str | None = None
    agent_address: str | None = None


class UsageDesk(Protocol):
    """Reads the books for a caller. Raises `Forbidden` for a view that is not the caller's, and `StoreFault`."""

    async def total(self, caller: Principal, view: View) -> Sums:
        """Return one sum over everything in view."""
        ...

    async def groups(
        self, caller: Principal, view: View, by: Sequence[GroupBy], limit: int, after: tuple[str, ...] = ()
    ) -> tuple[list[Bucket], bool]:
        """Return at most `limit` groups behind `after`, in their order, and whether there are more.

        Raises `BadRequest` (`after`) for what is no group of these.
        """
        ...

    async def entries(self, caller: Principal, view: View, limit: int, after: str = "") -> tuple[list[Entry], bool]:
        """Return at most `limit` entries, newest first, older than the entry with id `after`; and if there are more.

        Raises `BadRequest` (`after`) for an id that is not in view.
        """
        ...

    async def find(self, caller: Principal, view: View, wanted: str) -> list[Entry]:
        """Return the entries with this id or request id, newest first.

        Raises `NotFound` if there is none, or it is somebody else's (invariant 9).
        """
        ...


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One limit and how it stands."""

    limit: Limit
    used: int
    """Units of the limit: what was used of it and has not come back. Above the amount, it is a debt."""
    remaining: int
    whole_after_us: int | None
    """Microseconds until nothing of it is used any more if nobody asks; None if time alone does not restore it."""


class LimitDesk(Protocol):
    """Shows limits to whom they bind."""

    async def limits(self, caller: Principal, model: str | None) -> list[Level]:
        """Return every limit that applies to the caller, on one model or whatever the model.

        Raises `NotFound` for a model it may not use, and `StoreFault`.
        """
        ...
