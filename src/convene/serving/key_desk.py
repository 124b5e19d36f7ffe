"""Who may do what with which key: the one place that decides it, for the API, the form and admins alike.

A user manages its own keys, and those of teams it owns; a caller with the scope "admin" all. A key that is restricted
(models, limits, plan, expiry) manages nothing but itself, else whoever has it could make itself one without bounds.
What a caller may not see answers like what is missing (invariant 9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from convene.errors import BadRequest, Forbidden, NotFound
from convene.limits.allowance import FIELDS, Allowance
from convene.serving.accounts import check_admin, check_plan
from convene.serving.base_accounts import ADMIN, API, KeyDraft

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.serving.base import Principal
    from convene.serving.keyring import KeyRing
    from convene.store.base import KeyChange, KeyRecord
    from convene.store.base_accounts import Accounts

KEYS_MAX: Final = 100
"""Keys of one user that are not revoked."""
SCOPES: Final = frozenset({API, ADMIN})


class KeyDesk:
    """The keys of one store (`serving.base_accounts.KeyDesk`)."""

    def __init__(
        self,
        ring: Callable[[], KeyRing],
        accounts: Callable[[], Accounts],
        plan_limits: Callable[[str], Allowance | None],
        default_plan: str = "free",
    ) -> None:
        """`ring` and `accounts` give what is open at each call; `plan_limits` a plan's limits, None if unknown."""
        self._ring = ring
        self._accounts = accounts
        self._plan_limits = plan_limits
        self._default_plan = default_plan

    async def mine(self, caller: Principal) -> Sequence[KeyRecord]:
        """Return the caller's keys, and those of teams it owns."""
        user_id = _user_of(caller)
        return await self._ring().list_of(user_id, await self._owned_teams(user_id))

    async def all(self, caller: Principal) -> Sequence[KeyRecord]:
        """Return every key."""
        check_admin(caller)
        return await self._ring().list_all()

    async def create(self, caller: Principal, draft: KeyDraft) -> tuple[str, KeyRecord]:
        """Make a key for the caller, or for a team it belongs to. Plan and owner follow from that."""
        user_id = _user_of(caller)
        await self._check_unrestricted(caller)
        _check_scopes(draft.scopes, caller)
        standing = await self._accounts().standing(user_id, draft.team_id)
        if draft.team_id and standing.membership is None:
            raise NotFound(f"You are in no team with the id {draft.team_id[:100]}.", param="team_id")
        held = [key for key in await self._ring().list_of(user_id) if key.revoked_at is None]
        if len(held) >= KEYS_MAX:
            raise Forbidden(f"You have {KEYS_MAX} keys, the most there may be. Revoke one first.")
        draft = msgspec.structs.replace(draft, plan="", owner="", user_id=user_id)
        plan = (standing.user.plan if standing.user else "") or (standing.team.plan if standing.team else "")
        self._check_tighter(draft.limits or Allowance(), Allowance(), plan)
        return await self._ring().issue(draft)

    async def issue(self, caller: Principal, draft: KeyDraft) -> tuple[str, KeyRecord]:
        """Make a key as drafted, for anybody."""
        check_admin(caller)
        _check_scopes(draft.scopes, caller)
        check_plan(draft.plan, self._plan_limits)
        standing = await self._accounts().standing(draft.user_id, draft.team_id)
        if draft.user_id and standing.user is None:
            raise BadRequest(f"There is no user with the id {draft.user_id[:100]}.", param="user_id")
        if draft.team_id and standing.team is None:
            raise BadRequest(f"There is no team with the id {draft.team_id[:100]}.", param="team_id")
        if draft.user_id and draft.team_id and standing.membership is None:
            raise BadRequest("The user is not in the team: such a key would be refused.", param="team_id")
        return await self._ring().issue(draft)

    async def rotate(self, caller: Principal, key_id: str) -> tuple[str, KeyRecord]:
        """Give a key another secret; whoever does it sees it, so a team's owner may not do it to a member's key."""
        record = await self._find(caller, key_id)
        if ADMIN not in caller.scopes and record.user_id not in ("", caller.user_id):
            raise Forbidden("Only the user whose key it is may rotate it. You may revoke it.")
        if record.revoked_at is not None:
            raise BadRequest(f"The key {key_id} is revoked for good. Make a new one.", code="key_revoked")
        return await self._ring().rotate(key_id)

    async def change(self, caller: Principal, key_id: str, change: KeyChange) -> KeyRecord:
        """Change a key; limits that are not said stay."""
        record = await self._find(caller, key_id)
        held = record.limits or Allowance()
        if isinstance(change.limits, Allowance):
            change = msgspec.structs.replace(change, limits=change.limits.over(held))
        if ADMIN in caller.scopes:
            check_plan(change.plan or "", self._plan_limits)
            return await self._ring().change(key_id, change)
        if (change.plan, change.models, change.expires_at) != (UNSET, UNSET, UNSET):
            raise Forbidden("You may change a key's name and tighten its limits; the rest is an admin's.")
        if change.limits is not UNSET:
            plan = record.plan or await self._plan_behind(record)
            self._check_tighter(change.limits or Allowance(), held, plan)
        return await self._ring().change(key_id, change)

    async def revoke(self, caller: Principal, key_id: str) -> KeyRecord:
        """End a key."""
        await self._find(caller, key_id)
        return await self._ring().revoke(key_id)

    async def _find(self, caller: Principal, key_id: str) -> KeyRecord:
        """Return a key that the caller may manage. Raises `NotFound`, `Forbidden`."""
        if ADMIN in caller.scopes:
            return await self._ring().find(key_id)
        user_id = _user_of(caller)
        mine = await self._ring().list_of(user_id, await self._owned_teams(user_id))
        record = next((key for key in mine if key.id == key_id), None)
        if record is None:
            raise NotFound(f"You have no key with the id {key_id[:100]}.")
        if record.id != caller.key_id:
            await self._check_unrestricted(caller)
        return record

    async def _owned_teams(self, user_id: str) -> list[str]:
        return [one.team_id for one in await self._accounts().teams_of(user_id) if one.role == "owner"]

    async def _plan_behind(self, record: KeyRecord) -> str:
        standing = await self._accounts().standing(record.user_id, record.team_id)
        return (standing.user.plan if standing.user else "") or (standing.team.plan if standing.team else "")

    async def _check_unrestricted(self, caller: Principal) -> None:
        if ADMIN in caller.scopes or not await self._is_restricted(caller):
            return
        raise Forbidden("This key is restricted, so it can manage no other keys. Log in, or use one that is not.")

    async def _is_restricted(self, caller: Principal) -> bool:
        if caller.models is not None or caller.limits is not None or caller.model_limits:
            return True
        if caller.key_id == BROWSER:
            return False
        record = await self._ring().find(caller.key_id)
        return record.expires_at is not None or bool(record.plan)

    def _check_tighter(self, new: Allowance, old: Allowance, plan: str) -> None:
        """Raise `BadRequest` if any limit, the plan's where a key says nothing, would become looser."""
        inherited = self._plan_limits(plan or self._default_plan) or Allowance()
        new, old = new.over(inherited), old.over(inherited)
        for field in FIELDS:
            before, after = getattr(old, field), getattr(new, field)
            if before is not None and (after is None or after > before):
                raise BadRequest(f"{field} may be {before} at most; an admin can raise it.", param=f"limits.{field}")


BROWSER: Final = "browser"
"""Stands for the id of a key where a browser session asks; no key can have it."""


def _user_of(caller: Principal) -> str:
    if not caller.user_id:
        raise Forbidden("This key belongs to no user. Log in at /account, or use a user's key.")
    return caller.user_id


def _check_scopes(scopes: Sequence[str], caller: Principal) -> None:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise BadRequest(f"A key's scopes are some of: {', '.join(sorted(SCOPES))}.", param="scopes")
    if ADMIN in scopes and ADMIN not in caller.scopes:
        raise Forbidden("Only an admin can make a key with the scope admin.")
