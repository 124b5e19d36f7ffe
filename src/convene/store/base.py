"""The face of this room: the values that are remembered and the seam behind which they are kept.

Every implementation passes `tests/contract/test_store_*.py` unchanged. Not here: what a key may do, what its text
looks like (`serving/keyring.py`) and any SQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from convene.errors import StoreFault
from convene.limits.allowance import Allowance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.base_accounts import Accounts
    from convene.store.base_answers import Answers
    from convene.store.base_ledger import Ledger
    from convene.store.base_market import Market
    from convene.store.base_runs import Runs
    from convene.store.base_sessions import Sessions
    from convene.store.base_vectors import Vectors

__all__ = ["KeyChange", "KeyRecord", "Keys", "Store", "StoreFault"]


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an API key: never its text (OPS-33, reliability 6.4). Times are Unix seconds."""

    id: str
    """Public, and kept when the secret is replaced (decisions 9)."""
    name: str
    owner: str
    plan: str
    digest: bytes
    """SHA-256 of the whole key text, 32 bytes."""
    last4: str
    """The last characters of the text, for people to tell keys apart."""
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    models: tuple[str, ...] | None = None
    """The models it may ask; None = all."""
    scopes: tuple[str, ...] = ()
    user_id: str = ""
    """Whose key it is; empty for a key that an operator made for nobody in particular."""
    team_id: str = ""
    limits: Allowance | None = None
    """Its own limits; what they leave open comes from its plan."""
    model_limits: dict[str, Allowance] = {}
    """Its own limits on single models, by the deployment's name."""


class KeyChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What becomes different of a key; what is unset stays. Its secret has a call of its own."""

    name: str | UnsetType = UNSET
    plan: str | UnsetType = UNSET
    expires_at: float | UnsetType | None = UNSET
    models: tuple[str, ...] | UnsetType | None = UNSET
    limits: Allowance | UnsetType | None = UNSET


class Keys(Protocol):
    """API keys. Every call raises `StoreFault` if the store cannot be used."""

    async def add(self, record: KeyRecord) -> None:
        """Keep a new key. Raises `convene.errors.Conflict` if the id is taken."""
        ...

    async def add_first(self, record: KeyRecord) -> bool:
        """Keep a key if there has never been any, in one step; return whether it was kept.

        Of all processes that ask this of one empty store at the same time, one is told True (decisions 16).
        """
        ...

    async def get(self, key_id: str) -> KeyRecord | None:
        """Return the key with this id, or None."""
        ...

    async def list_all(self) -> tuple[KeyRecord, ...]:
        """Return all keys, revoked and expired ones too, oldest first."""
        ...

    async def list_of(self, user_id: str, team_ids: Sequence[str] = ()) -> tuple[KeyRecord, ...]:
        """Return the keys of a user (none for an empty id) and those of these teams, oldest first."""
        ...

    async def change(self, key_id: str, change: KeyChange) -> KeyRecord | None:
        """Change a key and return it as it is then; None: there is no such key."""
        ...

    async def revoke(self, key_id: str, at: float) -> bool:
        """Mark the key revoked from `at` (Unix seconds); the first time stays. Return whether the id exists."""
        ...

    async def replace_secret(self, key_id: str, digest: bytes, last4: str) -> bool:
        """Give the key another secret; the old one is void. Return whether the id exists and is not revoked."""
        ...

    async def version(self) -> int:
        """Return a number that grows whenever anybody, in this process or another, has changed keys or accounts.

        The ledger and kept answers, which are written all the time, do not touch it.
        """
        ...


class Store(Protocol):
    """All that is remembered, behind one life cycle."""

    @property
    def keys(self) -> Keys:
        """The API keys."""
        ...

    @property
    def answers(self) -> Answers:
        """The kept answers of idempotent requests."""
        ...

    @property
    def accounts(self) -> Accounts:
        """The users, teams, links and browser sessions."""
        ...

    @property
    def ledger(self) -> Ledger:
        """The books."""
        ...

    @property
    def runs(self) -> Runs:
        """The journal of agentic turns."""
        ...

    @property
    def sessions(self) -> Sessions:
        """What is remembered between the requests of a conversation."""
        ...

    @property
    def market(self) -> Market:
        """The agents that have registered or were listed, and what is kept for them."""
        ...

    @property
    def vectors(self) -> Vectors:
        """What listings mean, for an embedding model."""
        ...

    async def aclose(self) -> None:
        """Finish what was begun and let go of files and threads; idempotent. Later calls raise `StoreFault`."""
        ...
