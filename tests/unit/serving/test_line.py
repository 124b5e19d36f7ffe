"""Who waits for a limit gets it in turn: fair between keys, in order within one, bounded in number and in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convene.errors import StoreFault
from convene.limits.limit import MINUTE_US, Grant, Limit, Refusal, Unit
from convene.serving.line import Line
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Literal

RATE = Limit.rate(Unit.REQUESTS, 60, MINUTE_US, scope="model", subject="m", name="requests per minute")
SLOTS = Limit.slots(1, scope="model", subject="m")
GRANT = Grant(0, (0,))


def refusal(
    reason: Literal["wait", "spent", "full", "never"] = "wait", wait_us: int | None = 1_000_000, limit: Limit = RATE
) -> Refusal:
    """Return a refusal."""
    return Refusal(limit, reason, wait_us, 0, (0,))


class Bucket:
    """One request a second, counted on the loop's own time."""

    def __init__(self) -> None:
        self.next_at = asyncio.get_running_loop().time() + 1
        self.served: list[str] = []
        self.undone: list[str] = []

    def ask(self, name: str) -> Callable[[], Awaitable[Grant | Refusal]]:
        """Return the question of one request."""

        async def again() -> Grant | Refusal:
            await asyncio.sleep(0)
            now = asyncio.get_running_loop().time()
            if now + 1e-9 < self.next_at:
                return refusal(wait_us=round((self.next_at - now) * 1_000_000))
            self.next_at = now + 1
            self.served.append(name)
            return GRANT

        return again

    async def stand(self, line: Line, key: str, name: str) -> Grant | Refusal:
        """Wait in line as request `name` of `key`."""
        return await line.wait(key, refusal(), self.ask(name), lambda: self.undone.append(name))


def test_keys_take_turns_and_a_key_keeps_its_order() -> None:
    async def scene(_: World) -> None:
        line, bucket = Line(60, 100), Bucket()
        names = [("a", f"a{n}") for n in range(6)] + [("b", "b0"), ("b", "b1"), ("c", "c0")]
        tasks = [asyncio.create_task(bucket.stand(line, key, name)) for key, name in names]
        assert await asyncio.gather(*tasks) == [GRANT] * 9
        assert bucket.served == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4", "a5"]
        assert (line.length, line.ahead((RATE,))) == (0, None)

    run(scene, 1)


def test_patience_ends_with_the_last_refusal_and_the_others_go_on() -> None:
    async def scene(_: World) -> None:
        line, bucket = Line(2.5, 100), Bucket()
        tasks = [asyncio.create_task(bucket.stand(line, "a", f"a{n}")) for n in range(4)]
        found = await asyncio.gather(*tasks)
        assert [isinstance(one, Grant) for one in found] == [True, True, False, False]
        await asyncio.sleep(0.1)
        assert (line.length, line.ahead((RATE,))) == (0, None)

    run(scene, 1)


@pytest.mark.parametrize(
    "pointless",
    [refusal("spent", 10), refusal("never", None), refusal("wait", 61_000_000), refusal("spent", None)],
)
def test_what_will_not_pass_in_time_is_refused_at_once(pointless: Refusal) -> None:
    async def scene(_: World) -> None:
        line, bucket = Line(60, 100), Bucket()
        assert await line.wait("a", pointless, bucket.ask("a"), list) is pointless
        assert bucket.served == []

    run(scene, 1)


def test_a_full_line_refuses_newcomers_at_once() -> None:
    async def scene(_: World) -> None:
        line, bucket = Line(60, 2), Bucket()
        first = [asyncio.create_task(bucket.stand(line, "a", f"a{n}")) for n in range(2)]
        await asyncio.sleep(0)
        assert isinstance(await bucket.stand(line, "b", "b0"), Refusal)
        assert await asyncio.gather(*first) == [GRANT, GRANT]

    run(scene, 1)


def test_one_that_leaves_is_passed_over_and_a_grant_that_came_too_late_is_given_back() -> None:
    async def scene(_: World) -> None:
        line, bucket = Line(60, 100), Bucket()
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> Grant | Refusal:
            reached.set()
            await go_on.wait()
            return GRANT

        leaver = asyncio.create_task(line.wait("a", refusal(), slow, lambda: bucket.undone.append("leaver")))
        gone = asyncio.create_task(bucket.stand(line, "b", "gone"))
        stayer = asyncio.create_task(bucket.stand(line, "c", "stayer"))
        await reached.wait()
        leaver.cancel()
        gone.cancel()
        await asyncio.wait([leaver, gone])
        go_on.set()
        assert await stayer == GRANT
        assert (bucket.undone, bucket.served) == (["leaver"], ["stayer"])

    run(scene, 1)


def test_a_freed_slot_is_given_on_without_waiting_for_the_guess() -> None:
    async def scene(_: World) -> None:
        line, free = Line(600, 100), False

        async def again() -> Grant | Refusal:
            return GRANT if free else refusal("full", 500_000_000, SLOTS)

        waiting = asyncio.create_task(line.wait("a", refusal("full", 500_000_000, SLOTS), again, list))
        await asyncio.sleep(1)
        assert line.ahead((RATE, SLOTS)) == refusal("full", 500_000_000, SLOTS)
        assert line.ahead((RATE,)) is None
        line.freed((SLOTS,))
        await asyncio.sleep(1)
        assert not waiting.done()
        free = True
        line.freed((RATE, SLOTS))
        async with asyncio.timeout(1):
            assert await waiting == GRANT

    run(scene, 1)


def test_a_store_that_fails_fails_only_who_asked_it() -> None:
    async def scene(_: World) -> None:
        line, bucket = Line(60, 100), Bucket()

        async def broken() -> Grant | Refusal:
            raise StoreFault("away")

        first = asyncio.create_task(line.wait("a", refusal(), broken, list))
        second = asyncio.create_task(bucket.stand(line, "b", "b0"))
        with pytest.raises(StoreFault):
            await first
        assert await second == GRANT

    run(scene, 1)


def test_closing_ends_the_service() -> None:
    async def scene(_: World) -> None:
        line, bucket = Line(5, 100), Bucket()
        waiting = asyncio.create_task(bucket.stand(line, "a", "a0"))
        await asyncio.sleep(0)
        await line.aclose()
        assert isinstance(await waiting, Refusal)
        await line.aclose()

    run(scene, 1)
