"""The connections to one origin: who gets which, who waits, and when waiting ends.

Here: slots, idle connections, waiters, the one timer. Not here: opening a connection (`connect`, handed in as `dial`)
and what happens on it (`client_connection`). Called by `client`.

A *slot* is the right to have one connection. It is counted in `_open` from the decision to connect until the
connection is gone, and is always somebody's: a connecting caller's, a busy or idle connection's, or on its way to a
waiter inside the result of that waiter's future. A caller that is cancelled while a slot is on its way passes it on,
so none is ever lost (the fault that leaves httpcore's pool full of dead entries after cancellations: encode/httpcore
#658, #1093).

Idle connections are reused last in, first out, so that a burst's extra connections expire; waiters are served first in,
first out, and nobody overtakes them, because a freed connection goes straight to the first waiter.

All five time-outs of all exchanges hang on one `loop.call_at`, set for the earliest deadline but at least `TICK_S`
away. An own timer for each wait would cost more than the rest of a small exchange.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from convene.http.base import ConnectFailed, HttpError, PoolTimedOut, TimedOut
from convene.http.batch import WriteBatch
from convene.http.client_connection import Connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.http.base import Timeouts
    from convene.http.client_codec import Caps

    Dial = Callable[[Callable[[], Connection]], Awaitable[object]]

TICK_S: Final = 0.05
"""A time-out may come this much late."""
_KEEP_ALIVE_MARGIN_S: Final = 0.5
"""A peer's own idle time-out began when it sent its answer, not when we read it."""
_NEVER: Final = float("inf")


class PoolStats(msgspec.Struct, frozen=True):
    """What a health view may show of one origin: counts of now."""

    origin: str
    open: int
    idle: int
    connecting: int
    waiting: int


class _Waiter:
    """Waits for a slot; the future's result is a connection, or None for the right to make one."""

    __slots__ = ("due", "error", "future")

    def __init__(self, future: asyncio.Future[Connection | None], due: float, error: HttpError) -> None:
        self.future = future
        self.due = due
        self.error = error


class Pool:
    """Connections to one origin: at most `slots`, opened by `dial`; an unused one lives `idle_s` seconds."""

    def __init__(
        self, *, name: str, dial: Dial, slots: int, idle_s: float, caps: Caps, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._name = name
        self._dial = dial
        self._slots = slots
        self._idle_s = idle_s
        self._caps = caps
        self._loop = loop
        self._batch = WriteBatch(loop)
        self._open = 0
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._connecting: set[asyncio.Timeout] = set()
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._closed = False

    # What the client calls.

    def take(self, now: float) -> Connection | None:
        """Return the idle connection used last, None if there is none to use at loop time `now`."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            connection.idle = False
            if connection.idle_until > now:
                return connection
            connection.abandon()
            self._pass_on(None)
        return None

    async def acquire(self, timeouts: Timeouts, total_at: float, *, fresh: bool) -> Connection:
        """Return a connection, a new one if `fresh`; wait or connect for it. Raises `HttpError`."""
        if self._closed:
            raise ConnectFailed("the client is closed")
        if not fresh and (connection := self.take(self._loop.time())) is not None:
            return connection
        if self._open < self._slots:
            self._open += 1
        elif self._idle:
            # Only for a fresh one: an idle connection gives up its slot.
            connection = self._idle.pop()
            connection.abandon()
        elif (given := await self._wait(timeouts, total_at)) is not None:
            if given.alive and not fresh and not self._closed:
                return given
            given.abandon()
        return await self._connect(timeouts, total_at)

    def stats(self) -> PoolStats:
        """Return the counts of now."""
        return PoolStats(self._name, self._open, len(self._idle), len(self._connecting), len(self._waiters))

    def close(self) -> None:
        """Drop every connection and refuse every waiter; later calls raise `ConnectFailed`."""
        self._closed = True
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(ConnectFailed("the client is closed"))
        self._waiters.clear()
        for connection in [*self._busy, *self._idle]:
            connection.shut()
        for limit in self._connecting:
            limit.reschedule(self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What connections call.

    def started(self, connection: Connection, due: float) -> None:
        """Note an exchange whose first deadline is loop time `due`."""
        self._busy.add(connection)
        if due < self._timer_at:
            self._arm(due)

    def watch(self, due: float) -> None:
        """Have the timer run at loop time `due`, rounded up to the tick."""
        if due < self._timer_at:
            self._arm(due)

    def give_back(self, connection: Connection) -> None:
        """Take a connection back after its exchange: to the first waiter, else to the idle ones."""
        self._busy.discard(connection)
        keep_s = self._idle_s
        if (asked_s := connection.keep_alive_s) is not None:
            keep_s = min(keep_s, asked_s - _KEEP_ALIVE_MARGIN_S)
        if keep_s <= 0 or self._closed:
            connection.abandon()
            self._pass_on(None)
            return
        connection.idle_until = until = connection.last_at + keep_s
        if self._waiters or not connection.alive:
            self._pass_on(connection)
            return
        connection.idle = True
        self._idle.append(connection)
        if until < self._timer_at:
            self._arm(until)

    def discard(self, connection: Connection) -> None:
        """Free the slot of a connection that is gone."""
        if connection.idle:
            connection.idle = False
            self._idle.remove(connection)
        else:
            self._busy.discard(connection)
        self._pass_on(None)

    # Slots.

    def _pass_on(self, connection: Connection | None) -> None:
        """Give a slot, with its connection if it has one, to the first waiter; else keep it idle or free."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.future.done():
                waiter.future.set_result(connection)
                return
        if connection is None:
            self._open -= 1
        elif self._closed or not connection.alive:
            connection.abandon()
            self._open -= 1
        else:
            connection.idle = True
            self._idle.append(connection)
            self.watch(connection.idle_until)

    async def _wait(self, timeouts: Timeouts, total_at: float) -> Connection | None:
        """Wait for a slot, which is then the caller's."""
        due = self._loop.time() + timeouts.pool_s
        error: HttpError = PoolTimedOut(f"no free connection to {self._name} within {timeouts.pool_s:g} s")
        if total_at < due:
            due, error = total_at, TimedOut("total", timeouts.total_s)
        waiter = _Waiter(self._loop.create_future(), due, error)
        self._waiters[waiter] = None
        self.watch(due)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._waiters.pop(waiter, None)
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                # The slot arrived in the same turn of the loop as the cancel.
                self._pass_on(future.result())
            raise

    async def _connect(self, timeouts: Timeouts, total_at: float) -> Connection:
        """Open a connection for a slot of the caller's; if that fails the slot is freed."""
        connection = Connection(self, self._caps, self._loop, self._batch)
        due = self._loop.time() + timeouts.connect_s
        connected = False
        try:
            async with asyncio.timeout_at(self._loop.time() if self._closed else min(due, total_at)) as limit:
                self._connecting.add(limit)
                try:
                    await self._dial(lambda: connection)
                finally:
                    self._connecting.discard(limit)
            connected = connection.alive and not self._closed
        except TimeoutError as error:
            raise self._name_delay(timeouts, late=total_at < due) from error
        except (OSError, UnicodeError) as error:
            # DNS, refusal, TLS (ssl.SSLError is an OSError), host names that IDNA refuses.
            raise ConnectFailed(f"no connection to {self._name}: {error}") from error
        finally:
            if not connected:
                connection.abandon()
                self._pass_on(None)
        if not connected:
            raise ConnectFailed(f"{self._name} closed the connection at once")
        return connection

    def _name_delay(self, timeouts: Timeouts, *, late: bool) -> HttpError:
        if self._closed:
            return ConnectFailed("the client is closed")
        if late:
            return TimedOut("total", timeouts.total_s)
        return ConnectFailed(f"no connection to {self._name} within {timeouts.connect_s:g} s")

    # Time.

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = max(due, self._loop.time() + TICK_S)
        self._timer = self._loop.call_at(self._timer_at, self._expire)

    def _expire(self) -> None:
        """End every wait that is over; sleep until the next deadline, or for good if there is none."""
        self._timer = None
        self._timer_at = _NEVER
        now = self._loop.time()
        earliest = _NEVER
        for connection in list(self._busy):
            if (due := connection.expire(now)) > now:
                earliest = min(earliest, due)
        for waiter in list(self._waiters):
            if waiter.due > now:
                earliest = min(earliest, waiter.due)
            elif not waiter.future.done():
                del self._waiters[waiter]
                waiter.future.set_exception(waiter.error)
        for connection in list(self._idle):
            if connection.idle_until > now:
                earliest = min(earliest, connection.idle_until)
            else:
                connection.drop()
        if earliest < self._timer_at:
            self._arm(earliest)
