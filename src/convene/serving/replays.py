"""One answer for a request and its repeats: who runs, who waits, what is given again (goal B5, reliability 2.1).

    begun = await replays.begin(owner, key, fingerprint)
    SavedAnswer      it has been answered: give these bytes
    Flight           it is this request's to answer: `flight.keep(answer)`, else `flight.release()`

Repeats in one process wait for the flight itself; those in other processes ask the store, which also remembers across
restarts and knows when a process that was to answer is dead. Not here: HTTP, and which answers are worth keeping
(`api/idempotency.py`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NoReturn

from convene.errors import BadRequest
from convene.store.base import StoreFault

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from convene.clock import Clock
    from convene.store.base_answers import Answers, Claim, SavedAnswer

LOOK_FIRST_S: Final = 0.05
LOOK_MAX_S: Final = 1.0
"""How often the store is asked for an answer that another process is making; the pause grows from the first to this."""
SWEEP_S: Final = 600.0

_OTHER = (
    "The Idempotency-Key was used for another request (method, path or body differ); use a new key for each request."
)
log = logging.getLogger("convene.replays")

Name = tuple[str, str]


class Flight:
    """A request that is being answered under a key. Its owner ends it once, by `keep` or `release`."""

    def __init__(self, replays: Replays, name: Name, fingerprint: bytes) -> None:
        self._replays = replays
        self._name = name
        self.fingerprint = fingerprint
        self.ended = asyncio.Event()
        self.answer: SavedAnswer | None = None
        self._settling = False

    async def keep(self, answer: SavedAnswer) -> None:
        """Keep the answer for repeats; awaited, it is on the disk, or the log says why not. Later ends do nothing."""
        await self._settle(self._replays.save(self._name, answer), answer)

    async def release(self) -> None:
        """Give the key free: the next repeat runs."""
        await self._settle(self._replays.give_up(self._name), None)

    async def _settle(self, work: Coroutine[None, None, None], answer: SavedAnswer | None) -> None:
        if self._settling:
            work.close()
            return
        self._settling = True

        async def settle() -> None:
            try:
                await work
            finally:
                self.end(answer)

        # Not cut short by a client that leaves meanwhile: its repeat would wait for a claim that nobody ends.
        await asyncio.shield(self._replays.keep_task(settle()))

    def end(self, answer: SavedAnswer | None) -> None:
        """Let go of whoever waits."""
        self.answer = answer
        self._replays.land(self._name, self)
        self.ended.set()


class Replays:
    """The flights of this process over the answers of a store. Belongs to one event loop."""

    def __init__(self, answers: Answers, clock: Clock, keep_s: float) -> None:
        """`keep_s`: how long an answer is kept, from the moment its request came."""
        self._answers = answers
        self._clock = clock
        self._keep_s = keep_s
        self._flights: dict[Name, Flight] = {}
        self._owed: set[Name] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, owner: str, key: str, fingerprint: bytes) -> SavedAnswer | Flight:
        """Return the answer there is, waiting for one under way, else a flight for the caller to end.

        Raises:
            BadRequest: the key belongs to a request with another fingerprint.
            StoreFault: the store cannot be used, so nobody knows.
        """
        name = (owner, key)
        while True:
            flight = self._flights.get(name)
            if flight is None:
                flight = self._flights[name] = Flight(self, name, fingerprint)
                found = await self._claim(flight, name)
                return flight if found is None else found
            if flight.fingerprint != fingerprint:
                _refuse_other()
            await flight.ended.wait()
            if flight.answer is not None:
                return flight.answer

    async def _claim(self, flight: Flight, name: Name) -> SavedAnswer | None:
        """Return the store's answer, or None once the key is ours. Raises as `begin`; then the flight has ended."""
        pause_s = LOOK_FIRST_S
        asking = None
        try:
            while True:
                asking = asyncio.ensure_future(self._ask(name, flight.fingerprint))
                claim = await asyncio.shield(asking)
                if claim.state == "mine":
                    return None
                if claim.state == "other":
                    _refuse_other()
                if claim.answer is not None:
                    flight.end(claim.answer)
                    return claim.answer
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LOOK_MAX_S)
        except asyncio.CancelledError:
            # The store may be giving us the key at this moment; nobody would end that claim.
            self.keep_task(self._undo(flight, asking))
            raise
        except BaseException:  # whatever it is, whoever waits must not wait for ever; it is raised on
            flight.end(None)
            raise

    async def _ask(self, name: Name, fingerprint: bytes) -> Claim:
        if name in self._owed:
            await self._answers.release(*name)
            self._owed.discard(name)
        now = self._clock.now()
        return await self._answers.claim(*name, fingerprint, now + self._keep_s, now)

    @staticmethod
    async def _undo(flight: Flight, asking: asyncio.Future[Claim] | None) -> None:
        try:
            if asking is not None and (await asking).state == "mine":
                await flight.release()
        except StoreFault:
            pass
        finally:
            flight.end(None)

    async def save(self, name: Name, answer: SavedAnswer) -> None:
        """Keep an answer in the store; if it cannot be kept, repeats run anew."""
        try:
            await self._answers.save(*name, answer)
        except StoreFault as fault:
            log.warning("an answer could not be kept for repeats of its request: %s", fault.detail)
            await self.give_up(name)

    async def give_up(self, name: Name) -> None:
        """Release a claim in the store; one that cannot be released is released before the next use."""
        try:
            await self._answers.release(*name)
        except StoreFault:
            self._owed.add(name)

    def land(self, name: Name, flight: Flight) -> None:
        """Forget a flight that has ended."""
        if self._flights.get(name) is flight:
            del self._flights[name]

    def keep_task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something that must not be cut short; `aclose` waits for it."""
        task = asyncio.create_task(work, name="kept answer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def sweep(self) -> None:
        """Forget what has expired, every ten minutes, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                gone = await self._answers.sweep(self._clock.now())
            except StoreFault as fault:
                log.warning("kept answers that have expired could not be removed: %s", fault.detail)
            else:
                if gone:
                    log.info("%d kept answers have expired", gone)

    async def aclose(self) -> None:
        """Wait for what is being kept or released; the store is closed afterwards."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _refuse_other() -> NoReturn:
    raise BadRequest(_OTHER, code="idempotency_key_reused", param="Idempotency-Key")
