"""Deterministic simulation: an event loop whose time is virtual, a clock bound to it, and a network in memory.

`run(scene, seed)` plays a coroutine function in a `World`; when nothing is ready, time jumps to the next timer, so
hours pass in milliseconds. Every delay, fragment and fault is drawn from the seed: the same seed gives the same trace.
Real waits are refused: sockets, signals and other threads have no place here (`run_in_executor` runs its function at
once, in no time). Not here: what to simulate; tests bring their own scenes.

What a seed cannot fix: the iteration order of sets of tasks. Code that depends on it is not deterministic either way.
"""

from __future__ import annotations

import asyncio
import random
import threading
from asyncio.base_events import BaseEventLoop
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import msgspec

from convene.http.base import ConnectFailed, Disconnected, ProtocolBroken, Request, TimedOut

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping

    from convene.http.base import Phase

T = TypeVar("T")

STARTED_AT = 1_800_000_000.0
"""What the wall clock of every simulation says at its start, in Unix seconds."""

TURNS_MAX = 2_000_000
"""Turns of the loop before a scene counts as endless."""


class Stalled(AssertionError):
    """Every task waits for something that nothing will ever do."""


class Endless(AssertionError):
    """The scene took more than `TURNS_MAX` turns of the loop."""


class RealWait(AssertionError):
    """The scene asked for the real world: a socket, a name server, another thread."""


class LeftOver(AssertionError):
    """The scene ended with tasks still running, or responses still open."""


class _Selector:
    """Stands where the loop waits for sockets, and moves the time instead."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop

    def select(self, timeout: float | None) -> list[NoReturn]:
        self.loop.advance(timeout)
        return []


class SimulatedLoop(BaseEventLoop):
    """An asyncio loop with virtual time, starting at 0 s, and no input or output."""

    def __init__(self, turns_max: int = TURNS_MAX) -> None:
        super().__init__()
        self._selector = _Selector(self)
        self._time_s = 0.0
        self._turns_left = turns_max
        self._home = threading.get_ident()
        self.faults: list[BaseException] = []
        self.set_exception_handler(self._note_fault)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._time_s

    def advance(self, timeout_s: float | None) -> None:
        """Take the place of waiting `timeout_s`: None means that nothing is scheduled at all."""
        self._turns_left -= 1
        if self._turns_left < 0:
            raise Endless(f"the scene is still going at {self._time_s:.3f} s of its time")
        if timeout_s is None:
            raise Stalled(f"nothing can happen any more at {self._time_s:.3f} s")
        if timeout_s > 0:
            self._time_s = max(self._time_s, self._next_timer_s(self._time_s + timeout_s))

    def _next_timer_s(self, otherwise_s: float) -> float:
        """Return when the first timer is due, exactly: adding up differences would drift."""
        scheduled: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        return min(scheduled[0].when(), otherwise_s + 1e-6) if scheduled else otherwise_s

    def _process_events(self, event_list: list[NoReturn]) -> None:
        """Do nothing: there are no events from outside."""

    def _write_to_self(self) -> None:
        """Do nothing for this thread, whose loop never sleeps; refuse others."""
        if threading.get_ident() != self._home:
            raise RealWait("another thread called into the simulation")

    def _note_fault(self, _: object, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        self.faults.append(fault if fault is not None else AssertionError(context.get("message")))

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # noqa: ANN401 - asyncio's own signature
        """Run `func` now, in this thread and in no time."""
        del executor
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as fault:  # noqa: BLE001 - the caller's to handle, as from a thread
            future.set_exception(fault)
        return future

    async def getaddrinfo(self, *args: object, **options: object) -> NoReturn:
        """Refuse to ask a name server."""
        raise RealWait(f"getaddrinfo{args} {options}")

    async def create_connection(self, *args: object, **options: object) -> NoReturn:
        """Refuse to connect."""
        raise RealWait(f"create_connection{args} {options}")

    async def create_server(self, *args: object, **options: object) -> NoReturn:
        """Refuse to listen."""
        raise RealWait(f"create_server{args} {options}")


class SimulatedClock:
    """A `Clock` bound to the loop's virtual time, with ids, tokens and fractions from the seed."""

    def __init__(self, loop: SimulatedLoop, source: random.Random) -> None:
        self._loop = loop
        self._source = source

    def now(self) -> float:
        """Return Unix seconds."""
        return STARTED_AT + self._loop.time()

    def monotonic(self) -> float:
        """Return seconds since the scene began."""
        return self._loop.time()

    def new_id(self, prefix: str) -> str:
        """Return `prefix` plus 24 hexadecimal digits."""
        return f"{prefix}{self._source.getrandbits(96):024x}"

    def stamped_id(self, prefix: str) -> str:
        """Return `prefix`, 11 digits of the time in milliseconds and 13 random ones."""
        return f"{prefix}{int(self.now() * 1000):011x}{self._source.getrandbits(52):013x}"

    def token(self, n_bytes: int) -> bytes:
        """Return `n_bytes` bytes."""
        return self._source.randbytes(n_bytes)

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        return self._source.random()


class World:
    """What a scene is given: time, chance and a record of what happened, all of one seed."""

    def __init__(self, seed: int, loop: SimulatedLoop) -> None:
        self.seed = seed
        self.loop = loop
        self.clock = SimulatedClock(loop, self.source("clock"))
        self.trace: list[tuple[float, str]] = []
        self.clients: list[FakeClient] = []

    def source(self, name: str) -> random.Random:
        """Return a source of chance of its own for `name`, so that draws of one part do not shift another's."""
        return random.Random(f"{self.seed}/{name}")  # noqa: S311 - it must be foreseeable

    def note(self, what: str) -> None:
        """Add to the trace, with the virtual time."""
        self.trace.append((round(self.loop.time(), 6), what))


def run(scene: Callable[[World], Coroutine[Any, Any, T]], seed: int, *, turns_max: int = TURNS_MAX) -> T:
    """Play `scene` to its end in a new world and return its result.

    Raises:
        Stalled: for a dead scene, `Endless` for one that never ends, `RealWait` for one that leaves the simulation,
            `LeftOver` for tasks and responses it leaves behind. Every error carries the seed as a note.
    """
    loop = SimulatedLoop(turns_max)
    world = World(seed, loop)
    try:
        result = loop.run_until_complete(scene(world))
        _check_left_over(loop, world)
    except BaseException as fault:  # only to say how to see it again
        fault.add_note(f"simulation seed {seed}, at {loop.time():.6f} s")
        raise
    else:
        return result
    finally:
        _close(loop)


def _check_left_over(loop: SimulatedLoop, world: World) -> None:
    tasks = [task.get_name() for task in asyncio.all_tasks(loop)]
    still_open = [response.url for client in world.clients for response in client.open]
    if tasks or still_open:
        raise LeftOver(f"tasks {tasks}, open responses {still_open}")
    if loop.faults:
        raise BaseExceptionGroup("nobody looked at these errors", loop.faults)


def _close(loop: SimulatedLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    try:
        loop._turns_left = TURNS_MAX
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True)) if tasks else None
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


Fault = Literal["refuse", "reset", "stall", "garble"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an upstream answers: `body` in pieces of at most `piece_bytes`, over time, up to a fault.

    `delay_s` before the head and `gap_s` before each piece are ranges to draw from. `fault` strikes when `fault_at`
    bytes of the body are out; with None before the head. `refuse` is a failed connection, `reset` a closed one,
    `stall` silence for ever, `garble` bytes that are not HTTP.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    delay_s: tuple[float, float] = (0.0, 0.0)
    gap_s: tuple[float, float] = (0.0, 0.0)
    piece_bytes: int = 1 << 16
    fault: Fault | None = None
    fault_at: int | None = None


def draw_answer(source: random.Random, answer: Answer, fault_share: float) -> Answer:
    """Return `answer` in weather drawn from `source`: delays, fragments, and in `fault_share` of the cases a fault."""
    fault: Fault | None = None
    fault_at: int | None = None
    if source.random() < fault_share:
        fault = source.choice(("refuse", "reset", "stall", "garble"))
        fault_at = None if fault == "refuse" or source.random() < 0.3 else source.randrange(len(answer.body) + 1)
    return msgspec.structs.replace(
        answer,
        delay_s=(0.0, source.choice((0.001, 0.1, 5.0))),
        gap_s=(0.0, source.choice((0.0, 0.01, 1.0))),
        piece_bytes=source.choice((1, 7, 100, 1 << 16)),
        fault=fault,
        fault_at=fault_at,
    )


Play = Answer | list[Answer]
"""One answer for every request, or one after the other, of which the last repeats."""


class FakeClient:
    """An `http.Client` whose hosts live in memory: a `Play`, or a function of the request, for each URL.

    It keeps the waits of `Request.timeouts` in virtual time, except for those on connecting and the pool. `open` holds
    the responses nobody has closed, `sent` the requests.
    """

    def __init__(self, world: World, plays: Mapping[str, Play | Callable[[Request], Answer]]) -> None:
        self.world = world
        self.plays = plays
        self.sent: list[Request] = []
        self.open: dict[FakeResponse, None] = {}
        self.closed = False
        self._source = world.source("network")
        self._counts: dict[str, int] = {}
        world.clients.append(self)

    async def send(self, request: Request) -> FakeResponse:
        """Return when the head is there. Raises `HttpError`."""
        if self.closed:
            raise ConnectFailed("the client is closed")
        answer = self._choose(request)
        self.sent.append(request)
        self.world.note(f"send {request.method} {request.url}")
        if answer.fault == "refuse":
            raise ConnectFailed(f"{request.url} refused")
        response = FakeResponse(self, request, answer)
        self.open[response] = None
        try:
            await response.wait(self._source.uniform(*answer.delay_s), "first_byte", request.timeouts.first_byte_s)
            if answer.fault is not None and answer.fault_at is None:
                await response.strike("first_byte", request.timeouts.first_byte_s)
        except BaseException:  # also a cancelled caller: the connection is dropped
            response.close()
            raise
        self.world.note(f"head {answer.status} {request.url}")
        return response

    async def aclose(self) -> None:
        """Drop every connection."""
        self.closed = True
        for response in list(self.open):
            response.close()

    def draw_gap_s(self, answer: Answer) -> float:
        """Return the silence before the next piece."""
        return self._source.uniform(*answer.gap_s)

    def draw_size(self, answer: Answer) -> int:
        """Return the most bytes of the next piece."""
        return self._source.randint(1, max(1, answer.piece_bytes))

    def _choose(self, request: Request) -> Answer:
        play = self.plays.get(request.url)
        if play is None:
            raise ConnectFailed(f"no such host in the simulation: {request.url}")
        if isinstance(play, Answer):
            return play
        if not isinstance(play, list):
            return play(request)
        count = self._counts.get(request.url, 0)
        self._counts[request.url] = count + 1
        return play[min(count, len(play) - 1)]


class FakeResponse:
    """An `http.Response` that arrives in pieces over virtual time."""

    def __init__(self, client: FakeClient, request: Request, answer: Answer) -> None:
        self.client = client
        self.url = request.url
        self.status = answer.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in answer.headers}
        self.received = 0
        self._request = request
        self._answer = answer
        self._began_s = client.world.loop.time()
        self._ended = False
        self._closed = asyncio.Event()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body piece by piece. Raises `HttpError`."""
        answer = self._answer
        limit_s = self._request.timeouts.between_bytes_s
        end = len(answer.body) if answer.fault is None or answer.fault_at is None else answer.fault_at
        while self.received < end:
            await self.wait(self.client.draw_gap_s(answer), "between_bytes", limit_s)
            piece = answer.body[self.received : min(end, self.received + self.client.draw_size(answer))]
            self.received += len(piece)
            yield piece
        if answer.fault is not None:
            await self.strike("between_bytes", limit_s)
        self._ended = True

    def peek(self) -> None:
        """Nothing has come with the head."""

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body. Raises `HttpError`."""
        body = b""
        async with aclosing(self.chunks()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > max_bytes:
                    raise ProtocolBroken(f"the body is above {max_bytes} bytes")
        return body

    def close(self) -> None:
        """Give the connection back, or drop it in mid-answer."""
        if self in self.client.open:
            del self.client.open[self]
            self._closed.set()
            how = "closed" if self._ended else f"dropped after {self.received} bytes"
            self.client.world.note(f"{how} {self.url}")

    async def wait(self, silence_s: float, phase: Phase, limit_s: float) -> None:
        """Let `silence_s` pass. Raises `TimedOut`, or `Disconnected` when it is closed meanwhile."""
        total_s = self._request.timeouts.total_s
        left_s = total_s - (self.client.world.loop.time() - self._began_s)
        allowed_s = min(limit_s, left_s)
        try:
            async with asyncio.timeout(min(silence_s, allowed_s)):
                await self._closed.wait()
        except TimeoutError:
            if silence_s <= allowed_s:
                return
            raise (TimedOut("total", total_s) if left_s < limit_s else TimedOut(phase, limit_s)) from None
        raise Disconnected(received=self.received > 0)

    async def strike(self, phase: Phase, limit_s: float) -> None:
        """Do what the answer's fault is. Raises `HttpError` always."""
        self.client.world.note(f"{self._answer.fault} after {self.received} bytes {self.url}")
        if self._answer.fault == "stall":
            await self.wait(float("inf"), phase, limit_s)
        if self._answer.fault == "garble":
            raise ProtocolBroken(f"{self.url} does not speak HTTP")
        raise Disconnected(received=phase != "first_byte")
