"""Reading the books: who may see what, and the pages of it. The use case behind `/v1/usage`, `/v1/limits`, the verbs.

The ledger keeps and adds (`store/base_ledger.py`); here is decided whose entries a caller may look at, so that one key
never sees another's (invariant 9, goal E2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.errors import BadRequest, Forbidden, NotFound
from convene.serving.base_usage import Sums, View
from convene.store.base_ledger import Filter, Whose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.serving.base import Principal
    from convene.serving.base_usage import Bucket, Entry, GroupBy
    from convene.store.base_ledger import Ledger

ADMIN: Final = "admin"


class UsageReader:
    """A `UsageDesk` over a ledger."""

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        """`ledger` returns the books; asked at each call, because a store opens after its readers are made."""
        self._ledger = ledger

    async def total(self, caller: Principal, view: View) -> Sums:
        """See `UsageDesk.total`. Over all time it is one look-up; of a range, the sum of its days."""
        whose = whose_of(caller, view)
        if view == View(scope=view.scope, id=view.id):
            return await self._ledger().total(whose)
        found = await self._ledger().report(_filter_of(view, whose), (), 1)
        return found[0].sums if found else Sums()

    async def groups(
        self, caller: Principal, view: View, by: Sequence[GroupBy], limit: int, after: tuple[str, ...] = ()
    ) -> tuple[list[Bucket], bool]:
        """See `UsageDesk.groups`. Raises `BadRequest` (`after`) for what is no group of these."""
        try:
            found = await self._ledger().report(_filter_of(view, whose_of(caller, view)), by, limit + 1, after)
        except ValueError as error:
            raise BadRequest("after must be where a page of the same groups ended.", param="after") from error
        return found[:limit], len(found) > limit

    async def entries(self, caller: Principal, view: View, limit: int, after: str = "") -> tuple[list[Entry], bool]:
        """See `UsageDesk.entries`."""
        ledger, whose = self._ledger(), whose_of(caller, view)
        behind = None
        if after:
            last = next((entry for entry in await ledger.find(after, whose) if entry.id == after), None)
            if last is None:
                raise BadRequest("after must be the id of the last entry of the page before.", param="after")
            behind = (last.at_us, last.id)
        found = await ledger.page(_filter_of(view, whose), limit + 1, behind)
        return found[:limit], len(found) > limit

    async def find(self, caller: Principal, view: View, wanted: str) -> list[Entry]:
        """See `UsageDesk.find`."""
        found = await self._ledger().find(wanted, whose_of(caller, view))
        if not found:
            raise NotFound("There is no usage with this id or request id. It may be under way still, or forgotten.")
        return sorted(found, key=lambda entry: (entry.id == wanted, entry.at_us, entry.id), reverse=True)


def whose_of(caller: Principal, view: View) -> Whose:
    """Return whose entries a caller's view shows. Raises `Forbidden` if they are not for the caller."""
    is_admin = ADMIN in caller.scopes
    if view.id and not is_admin:
        raise _forbidden("Naming another key, user or team")
    if view.scope == "all":
        if not is_admin:
            raise _forbidden("Looking at everybody's usage")
        return Whose("all")
    if view.scope == "key":
        return Whose("key", view.id or caller.key_id)
    if view.id:
        return Whose(view.scope, view.id)
    if view.scope == "user":
        if not caller.user_id:
            raise Forbidden("This key belongs to no user, so there is no user's usage to show.", param="scope")
        return Whose("user", caller.user_id)
    if not caller.team_id:
        raise Forbidden("This key belongs to no team, so there is no team's usage to show.", param="scope")
    if caller.user_id and not is_admin:
        raise Forbidden(
            "A member's key does not show what the rest of its team used; a key of the team itself does.",
            param="scope",
        )
    return Whose("team", caller.team_id)


def _filter_of(view: View, whose: Whose) -> Filter:
    return Filter(
        whose=whose,
        since_us=view.since_us,
        until_us=view.until_us,
        model=view.model,
        key_id=view.key_id,
        session_id=view.session_id,
        agent_address=view.agent_address,
    )


def _forbidden(what: str) -> Forbidden:
    return Forbidden(f"{what} needs a key with the scope 'admin'.", param="scope")
