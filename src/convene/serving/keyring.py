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
import hashlib
import hmac
import re
import zlib
from typing import TYPE_CHECKING, NoReturn

import msgspec

from convene.errors import BadRequest, Conflict, NotFound, Unauthorized
from convene.serving.base import Principal
from convene.store.base import KeyRecord, StoreFault

if TYPE_CHECKING:
    from convene.clock import Clock
    from convene.store.base import Keys

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"(convene_([0-9A-Za-z]{12})_[0-9A-Za-z]{32})([0-9A-Za-z]{6})", re.ASCII)
_ID_LENGTH, _SECRET_LENGTH, _CHECK_LENGTH = 12, 32, 6
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
    if match is None or not hmac.compare_digest(_check_of(match[1]), match[3]):
        return None
    return KeyParts(match[2], _digest(text))


def form_key(key_id: str, clock: Clock) -> str:
    """Return a new key text for `key_id`."""
    body = f"convene_{key_id}_{_random(_SECRET_LENGTH, clock)}"
    return body + _check_of(body)


class KeyRing:
    """The keys of one store, with a memory for those that were shown lately. Belongs to one event loop."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._refused: dict[bytes, _Refusal] = {}
        self._generation = 0
        self._version: int | None = None

    def admit(self, authorization: str | None) -> Principal | None:
        """Return who holds this header's key if that is remembered, else None (then `look_up`). A few microseconds.

        Raises:
            Unauthorized: no key, no key's form, expired, or refused a moment ago.
        """
        text = _bearer(authorization)
        digest = _digest(text)
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
        if record is None or not same:
            message = _UNKNOWN
        elif record.revoked_at is not None:  # whatever the wall clock says by now
            message = _REVOKED
        elif record.expires_at is not None and record.expires_at <= self._clock.now():
            message = _EXPIRED
        else:
            principal = _principal_of(record)
            # Whatever was read before a change seen meanwhile may be stale: it serves this request, not the next.
            if generation == self._generation:
                expires_at = float("inf") if record.expires_at is None else record.expires_at
                self._known[parts.digest] = _Known(principal, expires_at)
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
        text, record = self._form(name, plan, owner, expires_at, models, scopes)
        await self._keys.add(record)
        self._forget()
        return text, record

    async def create_first(self, name: str, *, scopes: tuple[str, ...] = ("api",)) -> str | None:
        """Make the store's very first key and return its text; None if there has been a key already.

        However many processes ask at the same moment, one gets a text. Raises as `create` does.
        """
        text, record = self._form(name, "owner", None, None, None, scopes)
        if not await self._keys.add_first(record):
            return None
        self._forget()
        return text

    def _form(
        self,
        name: str,
        plan: str,
        owner: str | None,
        expires_at: float | None,
        models: tuple[str, ...] | None,
        scopes: tuple[str, ...],
    ) -> tuple[str, KeyRecord]:
        """Return the text and the record of a new key that is not kept yet. Raises `BadRequest`."""
        now = self._clock.now()
        if not name.strip() or len(name) > _NAME_LENGTH_MAX or not name.isprintable():
            raise BadRequest(f"A key's name has 1 to {_NAME_LENGTH_MAX} printable characters.", param="name")
        if expires_at is not None and not expires_at > now:
            raise BadRequest("A key's expiry must be in the future.", param="expires_at")
        if models is not None and not models:
            raise BadRequest("Name at least one model, or leave the models out to allow all.", param="models")
        key_id = _random(_ID_LENGTH, self._clock)
        text = form_key(key_id, self._clock)
        record = KeyRecord(
            id=key_id,
            name=name,
            owner=owner or key_id,
            plan=plan,
            digest=_digest(text),
            last4=text[-4:],
            created_at=now,
            expires_at=expires_at,
            models=models,
            scopes=scopes,
        )
        return text, record

    async def rotate(self, key_id: str) -> tuple[str, KeyRecord]:
        """Give a key another secret; the id, and all that hangs on it, stays (decisions 9). Return text and record.

        Raises:
            NotFound: no such key.
            Conflict: it has been revoked.
            StoreFault: the store cannot be used.
        """
        record = await self.find(key_id)
        text = form_key(record.id, self._clock)
        if not await self._keys.replace_secret(record.id, _digest(text), text[-4:]):
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

    def _forget(self) -> None:
        self._generation += 1
        self._known.clear()
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


def _digest(text: str) -> bytes:
    # A header may hold any text; what is not ASCII is no key, but must not be an error either.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _principal_of(record: KeyRecord) -> Principal:
    return Principal(
        key_id=record.id,
        owner=record.owner,
        name=record.name,
        plan=record.plan,
        models=record.models,
        scopes=record.scopes,
        user_id=record.user_id,
        team_id=record.team_id,
        limits=record.limits,
        model_limits=record.model_limits,
    )


def _check_of(body: str) -> str:
    """Return CRC32 in base62, most significant digit first, padded to six (62^6 > 2^32)."""
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(_CHECK_LENGTH):
        number, digit = divmod(number, len(_LETTERS))
        digits.append(_LETTERS[digit])
    return "".join(reversed(digits))


def _random(length: int, clock: Clock) -> str:
    """Return `length` letters, each of the 62 equally likely: bytes of 248 and above are drawn again."""
    fair = 256 - 256 % len(_LETTERS)
    letters = ""
    while len(letters) < length:
        letters += "".join(_LETTERS[byte % len(_LETTERS)] for byte in clock.token(length) if byte < fair)
    return letters[:length]
