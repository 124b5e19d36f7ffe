"""Passwords: Argon2id on a thread of its own, with a bounded line before it (reliability 6.4, E11).

46 MiB and one pass cost about 69 ms of a processor, which is what makes guessing dear and what an attacker would
like to make us spend: so few may wait, and `doors.py` counts tries before it comes here. The hash names its
parameters, so they can be raised later.
"""

from __future__ import annotations

import asyncio
import base64
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from convene.errors import BadRequest, Busy
from convene.serving.base_accounts import PASSWORD_MAX, PASSWORD_MIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.clock import Clock

T = TypeVar("T")

MEMORY_KIB: Final = 46 * 1024
PASSES: Final = 1
LANES: Final = 1
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
WAITING_MAX: Final = 16
"""At 69 ms each, whoever is last in the line waits about a second."""


class Passwords:
    """Makes and compares hashes. Belongs to one event loop at a time; `aclose` ends its thread."""

    def __init__(self, clock: Clock, memory_kib: int = MEMORY_KIB) -> None:
        """`memory_kib` is for tests, which hash often."""
        self._clock = clock
        self._hasher = PasswordHasher(
            time_cost=PASSES,
            memory_cost=memory_kib,
            parallelism=LANES,
            hash_len=HASH_BYTES,
            salt_len=SALT_BYTES,
            type=Type.ID,
        )
        # No password has this hash; comparing with it costs what comparing with a real one does.
        nothing = (base64.b64encode(bytes(size)).decode().rstrip("=") for size in (SALT_BYTES, HASH_BYTES))
        self._nobodys = f"$argon2id$v=19$m={memory_kib},t={PASSES},p={LANES}${'$'.join(nothing)}"
        self._room = threading.BoundedSemaphore(WAITING_MAX)
        self._thread: ThreadPoolExecutor | None = None

    async def hash(self, password: str) -> str:
        """Return what is kept of a password. Raises `Busy`."""
        text = _plain(password)
        return await self._run(lambda: self._hasher.hash(text, salt=self._clock.token(SALT_BYTES)))

    async def matches(self, kept: str | None, password: str) -> bool:
        """Return whether it is the password; without a hash False, after the same work. Raises `Busy`."""
        text = _plain(password)

        def verify() -> bool:
            try:
                self._hasher.verify(kept or self._nobodys, text)
            except (VerificationError, InvalidHashError):
                return False
            return kept is not None

        return await self._run(verify)

    async def aclose(self) -> None:
        """End the thread once it has done what it was given."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.shutdown)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._room.acquire(blocking=False):
            raise Busy("Too many are logging in at this moment. Try again in a few seconds.", retry_after_s=2)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="convene-passwords")
        future = self._thread.submit(work)
        # The place is given back when the work has ended, not when its caller has left.
        future.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(future)


def check_password(password: str, param: str = "password") -> None:
    """Raise `BadRequest` for a password that is too short or too long. No rules on letters: length is what counts."""
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise BadRequest(f"A password has {PASSWORD_MIN} to {PASSWORD_MAX} characters.", param=param)


def _plain(password: str) -> bytes:
    """Return the bytes that are hashed: the same for every way to type the same letters."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
