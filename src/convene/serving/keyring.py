"""API keys: their text, who holds one, and the four things an operator does with them.

    convene_<id: 12>_<secret: 32><check: 6>      all base62; check = CRC32 of everything before it

The secret has 190.5 random bits (32 x log2 62), so its SHA-256 is kept plainly, without a slow hash; the text is shown
once (OPS-33, reliability 6.4). The check refuses typos without a look-up (E4). Who holds a key is remembered, and
forgotten as soon as `watch` sees that the store has changed: a revocation made by another process is effective within
half a second and a poll (E5). Not here: HTTP, what a principal may do, and how keys are stored (`store/`).

Called by `api/` through `Gatekeeper`, by `cli_keys.py`, and built by `app.py`.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from typing import TYPE_CHECKING, NoReturn

import msgspec
from msgspec import UNSET

from convene.errors import BadRequest, Conflict, NotFound, Unauthorized
from convene.serving.base import Principal
from convene.serving.base_accounts import ADMIN, KeyDraft
from convene.serving.tokens import SECRET_LENGTH, check_of, digest_of, random_text
from convene.store.base import KeyRecord, StoreFault
from convene.store.base_accounts import Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.clock import Clock
    from convene.store.base import KeyChange, Keys
    from convene.store.base_accounts import Accounts

_FORM = re.compile(r"(convene_([0-9A-Za-z]{12})_[0-9A-Za-z]{32})([0-9A-Za-z]{6})", re.ASCII)
_ID_LENGTH = 12
_NAME_LENGTH_MAX = 100

POLL_S = 0.5
"""How often `watch` asks the store whether it has changed; half of what E5 allows."""
REFUSAL_S = 0.25
"""How long a refusal is remembered: long enough to spare the store, short enough that a new key works at once."""
_REFUSALS_MAX = 4096

LOCAL = Principal(key_id="local", owner="local", name="local", scopes=("api", "admin"))
"""Everybody, where `auth = "none"` (decisions 20: on loopback only)."""

_MISSING = "No API key was given. Send the header Authorization: Bearer KEY; `convene keys create NAME` makes a key."
_SCHEME = "The Authorization header must be: Bearer KEY."
_MISTYPED = "This is not a Convene API key: it is cut off, mistyped, or another service's. Copy it again."
_UNKNOWN = "This API key is not known here. `convene keys create NAME` makes a new one."
_REVOKED = "This API key has been revoked. Ask for a new one."
_EXPIRED = "This API key has expired. Ask for a new one."
_DISABLED = "The account that this API key belongs to is disabled."
_ORPHANED = "The user or team that this API key belongs to is not there (any more). Ask for a new one."
_LEFT = "This API key is for a team that its user has left. Ask for a new one."
_NOBODY = Standing()


class KeyParts(msgspec.Struct, frozen=True):
    """What a well-formed key text consists of, as far as anybody needs to know."""

    id: str
    digest: bytes
    """SHA-256 of the whole text."""


class _Known(msgspec.Struct, frozen=True):
    principal: Principal
    expires_at: float


class _Refusal(msgspec.Struct, frozen=True):
    message: str
    until: float
    """On the monotonic clock."""


def parse_key(text: str) -> KeyParts | None:
    """Return the parts of a key text, or None if it cannot be one: wrong form or wrong check. Asks nobody."""
    match = _FORM.fullmatch(text)
    if match is None or not hmac.compare_digest(check_of(match[1]), match[3]):
        return None
    return KeyParts(match[2], digest_of(text))


def form_key(key_id: str, clock: Clock) -> str:
    """Return a new key text for `key_id`."""
    body = f"convene_{key_id}_{random_text(SECRET_LENGTH, clock)}"
    return body + check_of(body)


class KeyRing:
    """The keys of one store, with a memory for those that were shown lately. Belongs to one event loop."""

    def __init__(self, keys: Keys, clock: Clock, accounts: Accounts | None = None, default_plan: str = "free") -> None:
        """`default_plan` is for keys where nobody behind them says one; without `accounts` only nobody's keys pass."""
        self._keys = keys
        self._clock = clock
        self._now = clock.now
        self._accounts = accounts
        self._default_plan = default_plan
        self._known: dict[bytes, _Known] = {}
        self._holders: dict[int, _Known] = {}
        """The same by the identity of their principals."""
        self._refused: dict[bytes, _Refusal] = {}
        self._generation = 0
        self._version: int | None = None

    def admit(self, authorization: str | None) -> Principal | None:
        """Return who holds this header's key if that is remembered, else None (then `look_up`). A few microseconds.

        Raises:
            Unauthorized: no key, no key's form, expired, or refused a moment ago.
        """
        text = _bearer(authorization)
        digest = digest_of(text)
        # Finding an entry by 256 bits of a hash is the comparison: how long it takes says nothing of the secret.
        known = self._known.get(digest)
        if known is not None:
            if known.expires_at <= self._clock.now():
                _refuse(_EXPIRED)
            return known.principal
        if parse_key(text) is None:
            _refuse(_MISTYPED)
        refusal = self._refused.get(digest)
        if refusal is not None and refusal.until > self._clock.monotonic():
            _refuse(refusal.message)
        return None

    def still(self, principal: Principal) -> bool:
        """Whether the key that this principal was given to holds as it did then; False asks for `admit`."""
        known = self._holders.get(id(principal))
        now = self._now
        return known is not None and known.principal is principal and known.expires_at > now()

    async def look_up(self, authorization: str | None) -> Principal:
        """Return who holds this header's key, asking the store.

        Raises:
            Unauthorized: no key, not one of ours, unknown, revoked or expired; the text is never repeated.
            StoreFault: the store cannot be read.
        """
        parts = parse_key(_bearer(authorization))
        if parts is None:
            _refuse(_MISTYPED)
        generation = self._generation
        record = await self._keys.get(parts.id)
        # An unknown id costs the same comparison as a wrong secret (E4: timing tells nothing).
        same = hmac.compare_digest(record.digest if record else bytes(len(parts.digest)), parts.digest)
        standing = await self._standing_of(record) if record is not None and same else _NOBODY
        message = _UNKNOWN if record is None or not same else _fault_of(record, standing, self._clock.now())
        if record is not None and not message:
            principal = _principal_of(record, standing, self._default_plan)
            # Whatever was read before a change seen meanwhile may be stale: it serves this request, not the next.
            if generation == self._generation:
                expires_at = float("inf") if record.expires_at is None else record.expires_at
                known = _Known(principal, expires_at)
                self._known[parts.digest] = self._holders[id(principal)] = known
            return principal
        if len(self._refused) >= _REFUSALS_MAX:
            self._refused.clear()
        self._refused[parts.digest] = _Refusal(message, self._clock.monotonic() + REFUSAL_S)
        raise Unauthorized(message)

    async def check(self, authorization: str | None) -> Principal:
        """Return who holds this header's key: `admit`, else `look_up`. Raises as they do."""
        return self.admit(authorization) or await self.look_up(authorization)

    async def poll(self) -> None:
        """Forget everything remembered if the store has changed, or cannot be asked whether it has."""
        try:
            version = await self._keys.version()
        except StoreFault:
            version = None
        if version is None or version != self._version:
            self._version = version
            self._forget()

    async def watch(self) -> None:
        """Poll the store every `POLL_S`, until cancelled: the task that makes others' revocations effective (E5)."""
        while True:
            await self.poll()
            await asyncio.sleep(POLL_S)

    async def create(
        self,
        name: str,
        plan: str = "owner",
        *,
        owner: str | None = None,
        expires_at: float | None = None,
        models: tuple[str, ...] | None = None,
        scopes: tuple[str, ...] = ("api",),
    ) -> tuple[str, KeyRecord]:
        """Make a key and return its text, which is not kept, with its record.

        Args:
            name: for people, at most 100 characters.
            plan: whose limits apply.
            owner: the user or team that owns what the key makes; by default the key itself, so that sessions of two
                keys never mix (decisions 9, E2).
            expires_at: Unix seconds, in the future.
            models: the only models it may ask; None = all.
            scopes: what it may do.

        Raises:
            BadRequest: naming the argument.
            StoreFault: the store cannot be written.
        """
        return await self.issue(
            KeyDraft(
                name=name, plan=plan, owner=owner or "", expires_at=expires_at, models=models, scopes=tuple(scopes)
            )
        )

    async def issue(self, draft: KeyDraft) -> tuple[str, KeyRecord]:
        """Make a key as drafted; whether its user and team exist is for the caller to know. Raises as `create`."""
        text, record = self._form(draft)
        await self._keys.add(record)
        self._forget()
        return text, record

    async def create_first(self, name: str, *, scopes: tuple[str, ...] = ("api",)) -> str | None:
        """Make the store's very first key and return its text; None if there has been a key already.

        However many processes ask at the same moment, one gets a text. Raises as `create` does.
        """
        text, record = self._form(KeyDraft(name=name, plan="owner", scopes=scopes))
        if not await self._keys.add_first(record):
            return None
        self._forget()
        return text

    def _form(self, draft: KeyDraft) -> tuple[str, KeyRecord]:
        """Return the text and the record of a new key that is not kept yet. Raises `BadRequest`."""
        now = self._clock.now()
        check_name(draft.name)
        _check_terms(draft.expires_at, draft.models, now)
        key_id = random_text(_ID_LENGTH, self._clock)
        text = form_key(key_id, self._clock)
        record = KeyRecord(
            id=key_id,
            name=draft.name,
            owner=draft.owner or draft.team_id or draft.user_id or key_id,
            plan=draft.plan,
            digest=digest_of(text),
            last4=text[-4:],
            created_at=now,
            expires_at=draft.expires_at,
            models=draft.models,
            scopes=draft.scopes,
            user_id=draft.user_id,
            team_id=draft.team_id,
            limits=draft.limits,
            model_limits=draft.model_limits,
        )
        return text, record

    async def change(self, key_id: str, change: KeyChange) -> KeyRecord:
        """Change what a key is called and may do. Raises `NotFound`, `BadRequest`, `StoreFault`."""
        if change.name is not UNSET:
            check_name(change.name)
        expires_at = None if change.expires_at is UNSET else change.expires_at
        _check_terms(expires_at, None if change.models is UNSET else change.models, self._clock.now())
        record = await self._keys.change(key_id, change)
        self._forget()
        return record or await self.find(key_id)

    async def list_of(self, user_id: str, team_ids: Sequence[str] = ()) -> tuple[KeyRecord, ...]:
        """Return the keys of a user and of these teams, oldest first. Raises `StoreFault`."""
        return await self._keys.list_of(user_id, team_ids)

    async def rotate(self, key_id: str) -> tuple[str, KeyRecord]:
        """Give a key another secret; the id, and all that hangs on it, stays (decisions 9). Return text and record.

        Raises:
            NotFound: no such key.
            Conflict: it has been revoked.
            StoreFault: the store cannot be used.
        """
        record = await self.find(key_id)
        text = form_key(record.id, self._clock)
        if not await self._keys.replace_secret(record.id, digest_of(text), text[-4:]):
            raise Conflict(f"The key {record.id} has been revoked. Make a new one with `convene keys create NAME`.")
        self._forget()
        return text, await self.find(record.id)

    async def revoke(self, key_id: str) -> KeyRecord:
        """End a key for good, here at once and in other processes within a second. Return its record.

        Raises:
            NotFound: no such key.
            StoreFault: the store cannot be used.
        """
        await self._keys.revoke(key_id, self._clock.now())
        self._forget()
        return await self.find(key_id)

    async def find(self, key_id: str) -> KeyRecord:
        """Return a key's record. Raises `NotFound` or `StoreFault`."""
        record = await self._keys.get(key_id)
        if record is None:
            raise NotFound(
                f"There is no key with the id {key_id[:_NAME_LENGTH_MAX]}. `convene keys list` shows all ids."
            )
        return record

    async def list_all(self) -> tuple[KeyRecord, ...]:
        """Return the records of all keys, oldest first. Raises `StoreFault`."""
        return await self._keys.list_all()

    async def holder(self, key_id: str) -> Principal | None:
        """Return who is behind a key that is valid now, else None: for work that goes on without a request.

        Raises `StoreFault`.
        """
        record = await self._keys.get(key_id)
        if record is None:
            return None
        standing = await self._standing_of(record)
        if _fault_of(record, standing, self._clock.now()):
            return None
        return _principal_of(record, standing, self._default_plan)

    async def principals(self) -> dict[str, Principal]:
        """Return who is behind every key, by its id; of revoked and expired ones too. Raises `StoreFault`."""
        found: dict[str, Principal] = {}
        for record in await self._keys.list_all():
            found[record.id] = _principal_of(record, await self._standing_of(record), self._default_plan)
        return found

    async def _standing_of(self, record: KeyRecord) -> Standing:
        if self._accounts is None or not (record.user_id or record.team_id):
            return _NOBODY
        return await self._accounts.standing(record.user_id, record.team_id)

    def _forget(self) -> None:
        self._generation += 1
        self._known.clear()
        self._holders.clear()
        self._refused.clear()


async def ensure_first_key(keyring: KeyRing) -> str | None:
    """Make the key "first" if there has never been any, and return its text, to be shown once (decisions 16)."""
    if await keyring.list_all():  # the usual start spares the write
        return None
    return await keyring.create_first("first", scopes=("api", "admin"))


def _bearer(authorization: str | None) -> str:
    """Return the key in an Authorization header; the scheme word counts in any case (HDR-02). Raises `Unauthorized`."""
    if not authorization:
        _refuse(_MISSING)
    scheme, _, text = authorization.strip().partition(" ")
    if scheme.lower() != "bearer":
        _refuse(_SCHEME)
    text = text.strip()
    if not text:
        _refuse(_MISSING)
    return text


def _refuse(message: str) -> NoReturn:
    raise Unauthorized(message)


def check_name(name: str) -> None:
    """Raise `BadRequest` unless this can be the name of a key."""
    if not name.strip() or len(name) > _NAME_LENGTH_MAX or not name.isprintable():
        raise BadRequest(f"A key's name has 1 to {_NAME_LENGTH_MAX} printable characters.", param="name")


def _check_terms(expires_at: float | None, models: tuple[str, ...] | None, now: float) -> None:
    if expires_at is not None and not expires_at > now:
        raise BadRequest("A key's expiry must be in the future.", param="expires_at")
    if models is not None and not models:
        raise BadRequest("Name at least one model, or leave the models out to allow all.", param="models")


def _fault_of(record: KeyRecord, standing: Standing, now: float) -> str:
    """Return why a key is void, or an empty text."""
    if record.revoked_at is not None:  # whatever the wall clock says by now
        return _REVOKED
    if record.expires_at is not None and record.expires_at <= now:
        return _EXPIRED
    if (record.user_id and standing.user is None) or (record.team_id and standing.team is None):
        return _ORPHANED
    if standing.user is not None and standing.user.disabled_at is not None:
        return _DISABLED
    return _LEFT if record.user_id and record.team_id and standing.membership is None else ""


def _principal_of(record: KeyRecord, standing: Standing, default_plan: str) -> Principal:
    user, team = standing.user, standing.team
    scopes = record.scopes
    if user is not None and user.role != ADMIN:  # who is no admin any more has no admin's keys
        scopes = tuple(scope for scope in scopes if scope != ADMIN)
    plan = record.plan or (user.plan if user else "") or (team.plan if team else "") or default_plan
    return Principal(
        key_id=record.id,
        owner=record.owner,
        name=record.name,
        plan=plan,
        models=record.models,
        scopes=scopes,
        user_id=record.user_id,
        team_id=record.team_id,
        limits=record.limits,
        user_limits=user.limits if user else None,
        team_limits=team.limits if team else None,
        model_limits=record.model_limits,
    )
