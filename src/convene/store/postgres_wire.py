"""Sessions with Postgres: the driver, fetched when first needed, and what its failures mean to everybody else.

`asyncpg` is an optional extra (`convene[postgres]`) and has no types of its own, so it is seen here alone, through the
few calls that `Session` lists. Why this driver: docs/decisions/0011-postgres.md.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any, Final, Protocol

from convene.store.base import StoreFault

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

CONNECT_S: Final = 5.0
COMMAND_S: Final = 30.0
"""How long a statement may take, here and (a second less) in the server. What we ask takes milliseconds."""
_CLOSE_S: Final = 2.0
_SETTINGS: Final = {
    "application_name": "convene",
    "timezone": "UTC",
    "statement_timeout": f"{COMMAND_S - 1:.0f}s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "30s",  # a frozen process must not hold rows that all replicas need
    "client_min_messages": "warning",
    "jit": "off",  # compiling costs milliseconds that such short statements never earn back
}
_POISON: Final = ("22", "23")
"""SQLSTATE classes of values that cannot be kept: data exceptions and violated constraints. Repeating is useless."""
_GONE: Final = ("57P01", "57P02", "57P03", "57P05", "25006")
"""SQLSTATEs of a server that ends, crashes, starts, or was demoted to a read-only copy."""


class Transaction(Protocol):
    """A block that is kept whole, or not at all."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...


class Session(Protocol):
    """One connection, as far as it is used here. One call at a time."""

    async def fetch(self, statement: str, *values: object) -> list[Any]:
        """Return the rows of one statement with `$1` holes."""
        ...

    async def execute(self, statement: str, *values: object) -> str:
        """Do one statement and return its command tag, such as `UPDATE 3`."""
        ...

    async def executemany(self, statement: str, values: Sequence[Sequence[object]]) -> None:
        """Do one statement for each of many rows of values, in one exchange."""
        ...

    async def copy_records_to_table(self, table: str, *, records: Sequence[object], columns: Sequence[str]) -> str:
        """Write rows with COPY."""
        ...

    def transaction(self) -> Transaction:
        """Return a block of statements."""
        ...

    def is_closed(self) -> bool:
        """Whether the connection is gone."""
        ...

    def is_in_transaction(self) -> bool:
        """Whether a block is open."""
        ...

    def terminate(self) -> None:
        """Drop the connection at once."""
        ...

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 -- the driver's own parameter
        """End the session in order, or drop it after `timeout` seconds."""
        ...


class Wire:
    """The way to one database."""

    def __init__(self, url: str, *, durable: bool = True) -> None:
        """`durable`: a commit is on the disk when it returns; else within a second. Raises `StoreFault`: no driver."""
        try:
            driver = importlib.import_module("asyncpg")
        except ImportError as error:
            raise StoreFault(
                "Postgres needs the extra `postgres`.", detail="pip install 'convene[postgres]' brings asyncpg"
            ) from error
        self._driver = driver
        self._url = url
        self._settings = _SETTINGS | {"synchronous_commit": "on" if durable else "off"}
        if "application_name=" in url:  # the operator's own name for this replica
            del self._settings["application_name"]
        self.failures: tuple[type[Exception], ...] = (
            *(driver.PostgresError, driver.InterfaceError, driver.InternalClientError),
            OSError,
        )
        """All that a call of a session may raise, cancellation aside (a time-out is an OSError)."""
        self._misfits: tuple[type[Exception], ...] = (*self.failures, ValueError)
        """What connecting may raise: the URL may be none."""

    async def connect(self, command_s: float = COMMAND_S) -> Session:
        """Open a session whose statements may take `command_s` seconds. Raises `StoreFault`."""
        try:
            async with asyncio.timeout(CONNECT_S):
                session: Session = await self._driver.connect(
                    self._url, timeout=CONNECT_S, command_timeout=command_s, server_settings=self._settings
                )
        except self._misfits as error:
            raise fault(error) from error
        return session

    def was_refused(self, error: BaseException) -> bool:
        """Whether the server has said no in order, so that the session is as good as before."""
        return isinstance(error, self._driver.PostgresError) and not self.is_lost(error)

    def is_poison(self, error: BaseException | None) -> bool:
        """Whether the values are at fault, so that the same statement would fail for ever."""
        unsendable = isinstance(error, self._driver.InterfaceError) and isinstance(error, ValueError)
        return unsendable or _state(error)[:2] in _POISON

    def is_taken(self, error: BaseException | None) -> bool:
        """Whether a row of that name was made by somebody else meanwhile."""
        return _state(error) == "23505"

    def is_lost(self, error: BaseException | None) -> bool:
        """Whether the connection is at fault, so that another one may do."""
        if isinstance(error, self._driver.PostgresError):
            return _state(error)[:2] == "08" or _state(error) in _GONE
        return isinstance(error, self.failures) and not self.is_poison(error)


def _state(error: BaseException | None) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def fault(error: Exception) -> StoreFault:
    """Return what a failure of Postgres is to everybody else. The URL, which may hold a password, is not part of it."""
    return StoreFault(
        "The database cannot be used; `convene doctor` says why.", detail=f"Postgres: {type(error).__name__}: {error}"
    )


async def end(session: Session) -> None:
    """Say goodbye, or hang up; never raises but for cancellation."""
    try:
        await session.close(timeout=_CLOSE_S)
    except Exception:  # noqa: BLE001 -- the connection is of no more use, whatever went wrong with it
        session.terminate()


def clean(text: str) -> str:
    """Return a text that Postgres can keep: U+0000, and halves of surrogate pairs, become U+FFFD (reliability 2.1)."""
    if text.isascii():
        return text.replace("\0", "\ufffd") if "\0" in text else text
    return "".join("\ufffd" if char == "\0" or "\ud800" <= char <= "\udfff" else char for char in text)
