"""Asking the system which addresses a name has, without letting strangers' names hold up anybody else.

Here: `SystemLookup`. Not here: judging the answers (`egress_address`). `getaddrinfo` cannot be cancelled, and a
stranger may answer for a name as slowly as he likes; so each lookup has a thread of its own, that ends with the
process, and not one of the few that the event loop has for everybody (also for the names of configured upstreams).
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""Name and port → its addresses. Raises `OSError` if there are none, `LookupBusy` if it cannot ask now."""
LOOKUPS_MAX: Final = 32
"""Threads at the same time, those included whose caller has gone."""

_Ask = Callable[[str, int], Sequence[str]]


class LookupBusy(Exception):
    """Too many names are being asked for."""


def ask_system(host: str, port: int) -> list[str]:
    """Return the addresses of a name, in the order in which to try them. Blocks. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class SystemLookup:
    """A `Lookup` over `ask`, which may block."""

    def __init__(self, ask: _Ask = ask_system, lookups_max: int = LOOKUPS_MAX) -> None:
        self._ask = ask
        self._free = threading.Semaphore(lookups_max)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Ask; cancelled, it returns at once and the thread's answer is dropped."""
        if not self._free.acquire(blocking=False):
            raise LookupBusy
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()
        threading.Thread(target=self._work, args=(loop, answer, host, port), name="lookup", daemon=True).start()
        return await answer

    def _work(
        self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Sequence[str]], host: str, port: int
    ) -> None:
        found: Sequence[str] = ()
        fault: OSError | None = None
        try:
            found = self._ask(host, port)
        except (OSError, UnicodeError) as error:
            fault = error if isinstance(error, OSError) else OSError(str(error))
        finally:
            self._free.release()
        try:
            loop.call_soon_threadsafe(_tell, answer, found, fault)
        except RuntimeError:
            # The loop has ended meanwhile; nobody waits.
            return


def _tell(answer: asyncio.Future[Sequence[str]], found: Sequence[str], fault: OSError | None) -> None:
    if answer.done():
        return
    if fault is not None:
        answer.set_exception(fault)
    else:
        answer.set_result(found)
