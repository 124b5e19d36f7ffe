"""Memory, SQLite and Postgres say the same of runs and sessions after every step of long random lives."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from convene.errors import Conflict
from convene.store.base_runs import Hold, Run, Step
from convene.store.memory import MemoryStore
from convene.store.postgres import PostgresStore
from convene.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from convene.store.base import Store

STEPS: Final = 500
OWNERS: Final = ("ann", "bob", "é%_'")
SESSIONS: Final = ("", "s1", "s2")
ENDS: Final = ("done", "failed", "cancelled")


class Life:
    """Draws one step after the other, each as a call on whichever store. Few ids, so that they meet often."""

    def __init__(self, seed: int) -> None:
        self.lots = random.Random(seed)  # noqa: S311 -- repeatable on purpose
        self.now = 1_000

    def run_id(self) -> str:
        return f"run_{self.lots.randrange(12)}"

    def owner(self) -> str:
        return self.lots.choice(OWNERS)

    def hold(self) -> Hold:
        return Hold(self.run_id(), self.lots.choice((1, 1, 1, 2)))

    def body(self) -> bytes:
        return self.lots.randbytes(self.lots.randrange(40))

    def run(self) -> Run:
        return Run(
            id=self.run_id(),
            owner=self.owner(),
            key_id="k",
            session_id=self.lots.choice(SESSIONS),
            turn_id=f"chatcmpl-{self.lots.randrange(6)}",
            model=self.lots.choice(("asi1", "é\u202e")),
            request=self.body(),
            created_us=self.now - self.lots.randrange(3),
            fence=self.lots.choice((1, 1, 1, 2)),
            expires_us=self.now,
        )

    def steps(self, run_id: str) -> list[Step]:
        return [
            Step(
                run_id=run_id,
                number=self.lots.randrange(1, 5),
                seq=self.lots.randrange(1, 30),
                kind=self.lots.choice(("model", "tool", "search")),
                name="n",
                status=self.lots.choice(("pending", "running", "done", "failed", "skipped")),
                attempt=self.lots.randrange(3),
                output=self.body(),
                cost_micros=self.lots.randrange(1 << 50),
            )
            for _ in range(self.lots.randrange(3))
        ]

    def after(self) -> tuple[int, str] | None:
        return self.lots.choice((None, (self.now - self.lots.randrange(20), self.run_id())))

    def write_of_a_run(self) -> Callable[[Store], Awaitable[object]]:
        run, hold, status = self.run(), self.hold(), self.lots.choice(ENDS)
        steps, body, until = self.steps(hold.run_id), self.body(), self.now + self.lots.randrange(9)
        now, owner = self.now, self.owner()
        session = self.lots.choice((None, None, *SESSIONS))
        return self.lots.choice(
            (
                lambda store: store.runs.begin(run),
                lambda store: store.runs.begin(run),
                lambda store: store.runs.record(hold, steps),
                lambda store: store.runs.record(hold, steps),
                lambda store: store.runs.finish(hold, status, body, now, until, steps),
                lambda store: store.runs.ask_cancel(owner, hold.run_id),
                lambda store: store.runs.forget(now, owner, session),
            )
        )

    def look_at_runs(self) -> Callable[[Store], Awaitable[object]]:
        owner, run_id, seq, after = self.owner(), self.run_id(), self.lots.randrange(20), self.after()
        session, limit = self.lots.choice((None, *SESSIONS)), self.lots.randrange(1, 5)
        turns = [f"chatcmpl-{self.lots.randrange(8)}" for _ in range(self.lots.randrange(3))]

        async def by_turns(store: Store) -> object:
            return sorted(run.id for run in await store.runs.by_turns(turns))

        return self.lots.choice(
            (
                lambda store: store.runs.get(owner, run_id),
                lambda store: store.runs.steps(run_id, seq),
                lambda store: store.runs.page(owner, limit, session, after),
                lambda store: store.runs.asked_to_cancel(),
                lambda store: store.runs.claim(30_000_000, 5),
                by_turns,
            )
        )

    def step_of_a_session(self) -> Callable[[Store], Awaitable[object]]:
        owner, session, now = self.owner(), self.lots.choice(SESSIONS), self.now
        names = [self.lots.choice(("plan", "result:a", "result:é", "z")) for _ in range(self.lots.randrange(3))]
        notes = {name: self.body() for name in names}
        size, after = self.lots.choice((20, 60, 1000)), self.after()
        conversation = f"conv_{self.lots.randrange(1 << 30)}"
        return self.lots.choice(
            (
                lambda store: store.sessions.touch(owner, session, conversation, now),
                lambda store: store.sessions.put(owner, session, notes, now, size),
                lambda store: store.sessions.put(owner, session, notes, now, size),
                lambda store: store.sessions.notes(owner, session, names),
                lambda store: store.sessions.notes(owner, session),
                lambda store: store.sessions.get(owner, session),
                lambda store: store.sessions.page(owner, 2, after),
                lambda store: store.sessions.take(owner, session, names),
                lambda store: store.sessions.delete(owner, session) if size == 20 else store.sessions.get("x", session),
                lambda store: store.sessions.forget(now - 60) if size == 20 else store.sessions.get("x", session),
            )
        )

    def next(self) -> Callable[[Store], Awaitable[object]]:
        self.now += self.lots.randrange(3)
        return self.lots.choice((self.write_of_a_run, self.look_at_runs, self.step_of_a_session))()


async def outcome(work: Awaitable[object]) -> object:
    """Return what came of a call, a refusal as its name."""
    try:
        return await work
    except Conflict as refused:
        return refused.code


async def all_there_is(store: Store) -> dict[str, Any]:
    """Return everything that a store holds of the ids that a life draws."""
    found: dict[str, Any] = {}
    for owner in OWNERS:
        found[f"runs {owner}"] = await store.runs.page(owner, 100)
        found[f"sessions {owner}"] = await store.sessions.page(owner, 100)
        for session in SESSIONS:
            found[f"notes {owner} {session}"] = await store.sessions.notes(owner, session)
    for number in range(12):
        found[f"steps {number}"] = await store.runs.steps(f"run_{number}")
    return found


@pytest.fixture(params=["sqlite", "postgres"])
async def other(request: pytest.FixtureRequest, tmp_path: Path) -> Any:  # noqa: ANN401 -- a fixture that yields
    kind = request.param
    opened: Store = await (
        PostgresStore.open(request.getfixturevalue("postgres_url"))
        if kind == "postgres"
        else SqliteStore.open(tmp_path / "convene.db")
    )
    yield opened
    await opened.aclose()


@pytest.mark.parametrize("seed", range(2))
async def test_every_answer_is_the_same_in_a_random_life(other: Store, seed: int) -> None:
    life, plain = Life(seed), MemoryStore()
    for step in range(STEPS):
        call = life.next()
        said = [await outcome(call(store)) for store in (plain, other)]
        assert said[0] == said[1], f"seed {seed}, step {step}"
    assert await all_there_is(plain) == await all_there_is(other)


@pytest.mark.parametrize("seed", range(3))
async def test_writes_that_are_called_together_end_as_one_after_the_other(other: Store, seed: int) -> None:
    """What shares a commit is refused and kept as if each had been written by itself, in the order of the calls."""
    life, plain = Life(100 + seed), MemoryStore()
    for step in range(40):
        writes: list[tuple[Hold, list[Step], Run, bool]] = []
        for _ in range(life.lots.randrange(1, 12)):
            hold = life.hold()
            writes.append((hold, life.steps(hold.run_id), life.run(), life.lots.random() < 0.2))
            life.now += 1

        def calls(store: Store, group: list[tuple[Hold, list[Step], Run, bool]] = writes) -> list[Awaitable[object]]:
            begun: list[Awaitable[object]] = []
            for hold, steps, run, ends in group:
                begun.append(store.runs.begin(run))
                if ends:
                    begun.append(store.runs.finish(hold, "done", b"o", 5, 5, steps))
                else:
                    begun.append(store.runs.record(hold, steps))
            return begun

        said = [await asyncio.gather(*map(outcome, calls(store))) for store in (plain, other)]
        assert said[0] == said[1], f"seed {seed}, step {step}"
    assert await all_there_is(plain) == await all_there_is(other)
