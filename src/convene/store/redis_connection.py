"""One connection to Redis, shared by all callers: commands out in order, replies back in the same order.

    ask(words)   writes at once, waits at most `wait_s` for the reply     tell(words)   writes, and nobody waits

Why not a pool of a client library: measured on two cores, a call takes 35 us here and 97 us there, and 50 callers get
five times as much through (docs/decisions/0010-redis.md). A caller that is cancelled leaves its place in the queue of
replies behind, so the order is never lost and the connection goes on. A reply that is late ends the connection, and
with it every call that waits behind; the next call makes a new one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast
from urllib.parse import parse_qs, unquote, urlsplit

from convene.errors import StoreFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from hiredis import Reader

Word: TypeAlias = str | bytes | int
Reply: TypeAlias = int | bytes | str | list["Reply"] | Exception | None

CONNECT_S: Final = 1.0
"""How long the making of a connection may take. Callers wait for it no longer than for a reply."""
FIRST_LOOK: Final = 0.9
"""The part of the wait after which is looked at first. A loop that was busy then finds the reply in the socket before
the second look."""
LOOKS_APART_S: Final = 0.001


class Address(NamedTuple):
    """Where a Redis is, from its URL."""

    host: str
    port: int
    path: str
    """Of a Unix socket; then host and port mean nothing."""
    tls: bool
    user: str
    password: str
    database: int


def address_of(url: str) -> Address:
    """Read `redis[s]://[[user]:password@]host[:port][/database]` or `unix://[[user]:password@]/path[?db=n]`.

    Raises ValueError without repeating the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        local = parts.scheme == "unix"
        asked = parse_qs(parts.query)
        number = asked["db"][0] if "db" in asked else "" if local else parts.path.strip("/")
        address = Address(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            path=unquote(parts.path) if local else "",
            tls=parts.scheme == "rediss",
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=int(number or "0"),
        )
    except ValueError:
        raise ValueError("not the URL of a Redis: a bad port or database number") from None
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("not the URL of a Redis: it begins with redis://, rediss:// or unix://")
    return address


def failed(detail: str) -> StoreFault:
    """Return what is raised for any failure."""
    return StoreFault("The counters cannot be used now; try again in a moment.", detail=f"redis: {detail}")


class Wire(asyncio.Protocol):
    """An open connection. Dead for good once it was dropped or lost."""

    def __init__(self, wait_s: float) -> None:
        # The client library is an extra, which a server without a Redis does not have.
        import hiredis  # noqa: PLC0415

        self._reader: Reader = hiredis.Reader()
        # Declared there as if a command had one word.
        self._pack = cast("Callable[[tuple[Word, ...]], bytes]", hiredis.pack_command)
        self._loop = asyncio.get_running_loop()
        self._wait_s = wait_s
        self._waiting: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the open transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by behaviour alone

    def send(self, words: tuple[Word, ...]) -> asyncio.Future[Reply]:
        """Write a command and return the future of its reply, which fails with `StoreFault` if none comes in time."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        if not self.alive or self._transport is None:
            future.set_exception(failed("the connection was lost"))
            return future
        self._transport.write(self._pack(words))
        self._waiting.append((future, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(self._wait_s * FIRST_LOOK, self._look)
        return future

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that have come, one to each caller in the order of the commands."""
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                future, _ = self._waiting.popleft()
                if not future.done():  # a caller that was cancelled is passed over
                    future.set_result(reply)
        except Exception as fault:  # noqa: BLE001 - not the protocol, or a reply to nothing: we are out of step
            self.drop(f"not a reply: {fault!r}")

    def connection_lost(self, fault: Exception | None) -> None:
        """Fail everyone who still waits."""
        self.drop(f"the connection was lost: {fault}")
        if not self.closed.done():
            self.closed.set_result(None)

    def drop(self, reason: str) -> None:
        """Close the connection at once; whoever waits gets a `StoreFault` with this reason."""
        if not self.alive:
            return
        self.alive = False
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for future, _ in waiting:
            if not future.done():
                future.set_exception(failed(reason))

    def _look(self) -> None:
        """See whether the oldest command is late. If so, look again after the loop had time to read the socket."""
        self._timer = None
        if not self._waiting:
            return
        future, since = self._waiting[0]
        now = self._loop.time()
        if since + self._wait_s * FIRST_LOOK > now:
            self._timer = self._loop.call_at(since + self._wait_s * FIRST_LOOK, self._look)
        else:
            self._timer = self._loop.call_at(max(since + self._wait_s, now + LOOKS_APART_S), self._judge, future)

    def _judge(self, late: asyncio.Future[Reply]) -> None:
        if self._waiting and self._waiting[0][0] is late:
            self.drop("no answer in time")
        else:
            self._look()


class Line:
    """The way to one Redis: connects when first needed and again after a loss. For one event loop."""

    def __init__(self, address: Address, wait_s: float) -> None:
        self._address = address
        self._wait_s = wait_s
        self._wire: Wire | None = None
        self._making: asyncio.Task[Wire] | None = None

    async def ask(self, words: tuple[Word, ...]) -> Reply:
        """Return the reply to a command; an error of Redis is returned, not raised.

        Raises `StoreFault` if there is no connection or no reply in `wait_s`. The command may then have been done.
        """
        wire = self._wire
        if wire is not None and wire.alive:
            return await wire.send(words)
        try:
            async with asyncio.timeout(self._wait_s):
                wire = await self._connected()
                return await wire.send(words)
        except TimeoutError:
            raise failed("no connection in time") from None

    def tell(self, words: tuple[Word, ...]) -> None:
        """Write a command behind those that were written; its reply is ignored. Nothing happens without connection."""
        if self._wire is not None and self._wire.alive:
            self._wire.send(words).add_done_callback(_ignore)

    def drop(self, reason: str) -> None:
        """Let the next call make a new connection."""
        if self._wire is not None:
            self._wire.drop(reason)

    async def aclose(self) -> None:
        """Close the connection; idempotent. A later call would make a new one."""
        making, wire = self._making, self._wire
        if making is not None:
            making.cancel()
            await asyncio.wait([making])
        if wire is not None:
            wire.drop("closed")
            await wire.closed

    async def _connected(self) -> Wire:
        """Return a connection that all callers of the moment wait for together; none of them can end its making."""
        if self._making is None:
            self._making = asyncio.create_task(self._make())
            self._making.add_done_callback(self._made)
        return await asyncio.shield(self._making)

    def _made(self, task: asyncio.Task[Wire]) -> None:
        self._making = None
        if not task.cancelled() and task.exception() is None:
            self._wire = task.result()

    async def _make(self) -> Wire:
        """Open a connection, log in and choose the database."""
        at = self._address
        loop = asyncio.get_running_loop()
        try:
            wire = Wire(self._wait_s)
        except ImportError as fault:
            raise failed("hiredis is not installed: pip install 'convene[redis]'") from fault
        try:
            async with asyncio.timeout(CONNECT_S):
                if at.path:
                    await loop.create_unix_connection(lambda: wire, at.path)
                else:
                    context = ssl.create_default_context() if at.tls else None
                    await loop.create_connection(lambda: wire, at.host, at.port, ssl=context)
                await _greet(wire, at)
        except BaseException as fault:
            # Whatever ended the making, a cancellation too, no half-open connection stays behind.
            wire.drop("not connected")
            if isinstance(fault, OSError):  # a TimeoutError is one
                raise failed(str(fault) or "no connection in time") from fault
            raise
        return wire


async def _greet(wire: Wire, at: Address) -> None:
    """Log in and choose the database, as the address wants."""
    if at.password:
        _expect(await wire.send(("AUTH", at.user, at.password) if at.user else ("AUTH", at.password)))
    if at.database:
        _expect(await wire.send(("SELECT", at.database)))


def _expect(reply: Reply) -> None:
    if isinstance(reply, Exception):
        raise failed(str(reply))


def _ignore(future: asyncio.Future[Reply]) -> None:
    """Look at a result that nobody wants, so that the loop does not complain of it."""
    if not future.cancelled():
        future.exception()
