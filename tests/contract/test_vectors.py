"""The contract of `convene.store.base_vectors.Vectors`, run unchanged against every implementation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convene.errors import StoreFault
from convene.store.base_vectors import USED_STEP_US
from convene.store.memory import MemoryStore

if TYPE_CHECKING:
    from convene.store.base import Store
    from stores import OpenAnother

DAY = USED_STEP_US
NOW = 100 * DAY


def many(count: int, start: int = 0) -> dict[str, bytes]:
    return {f"{number:032x}": bytes([number % 256]) * 384 for number in range(start, start + count)}


async def test_vectors_are_kept_as_they_came_and_others_are_not_there(store: Store) -> None:
    vectors = store.vectors
    assert await vectors.get(["a"], NOW) == {}
    await vectors.keep({"a": b"\x00\xff\x7f", "b": b""}, NOW)
    assert await vectors.get(["a", "b", "c"], NOW) == {"a": b"\x00\xff\x7f", "b": b""}
    assert await vectors.get([], NOW) == {}


async def test_a_vector_takes_the_place_of_one_with_the_same_key(store: Store) -> None:
    vectors = store.vectors
    await vectors.keep({"a": b"1", "b": b"2"}, NOW)
    await vectors.keep({"a": b"3"}, NOW)
    await vectors.keep({}, NOW)
    assert await vectors.get(["a", "b"], NOW) == {"a": b"3", "b": b"2"}


@pytest.mark.parametrize("count", [1, 199, 200, 201, 450])
async def test_any_number_is_got_at_once(store: Store, count: int) -> None:
    there = many(count)
    await store.vectors.keep(there, NOW)
    assert await store.vectors.get([*there, *many(9, 1000)], NOW) == there


async def test_what_nobody_uses_is_forgotten_and_what_is_used_stays(store: Store) -> None:
    vectors = store.vectors
    await vectors.keep({"old": b"1", "used": b"2"}, NOW - 50 * DAY)
    await vectors.keep({"new": b"3"}, NOW)
    assert set(await vectors.get(["used"], NOW - DAY)) == {"used"}
    assert await vectors.forget(NOW - 10 * DAY) == 1
    assert set(await vectors.get(["old", "used", "new"], NOW)) == {"used", "new"}
    assert await vectors.forget(NOW - 10 * DAY) == 0


async def test_a_look_with_an_older_clock_makes_nothing_older(store: Store) -> None:
    vectors = store.vectors
    await vectors.keep({"a": b"1"}, NOW)
    await vectors.get(["a"], NOW - 50 * DAY)
    assert await vectors.forget(NOW - DAY) == 0


async def test_what_one_process_keeps_another_finds_even_if_both_keep_the_same(shared: OpenAnother) -> None:
    one, other = await shared(), await shared()
    there = many(40)
    await asyncio.gather(one.vectors.keep(there, NOW), other.vectors.keep(there, NOW))
    assert await other.vectors.get(list(there), NOW) == there


async def test_vectors_survive_a_restart(shared: OpenAnother) -> None:
    first = await shared()
    await first.vectors.keep(many(3), NOW)
    await first.aclose()
    again = await shared()
    assert await again.vectors.get(list(many(3)), NOW) == many(3)


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.aclose()
    with pytest.raises(StoreFault):
        await store.vectors.get(["a"], NOW)
    with pytest.raises(StoreFault):
        await store.vectors.keep({"a": b"1"}, NOW)
    with pytest.raises(StoreFault):
        await store.vectors.forget(NOW)


STEPS = st.one_of(
    st.tuples(st.just("keep"), st.dictionaries(st.sampled_from("abcd"), st.binary(max_size=3), max_size=3)),
    st.tuples(st.just("get"), st.lists(st.sampled_from("abcd"), max_size=3, unique=True)),
    st.tuples(st.just("forget"), st.integers(0, 12)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=12))
def test_every_store_does_what_a_dictionary_would(steps: list[tuple[str, object]]) -> None:
    """Times are days, one for each step; the model keeps the day of the last use."""

    async def run() -> None:
        vectors = MemoryStore().vectors
        model: dict[str, tuple[bytes, int]] = {}
        for day, (kind, given_) in enumerate(steps):
            if kind == "keep":
                assert isinstance(given_, dict)
                await vectors.keep(given_, day)
                model |= {key: (vector, day) for key, vector in given_.items()}
            elif kind == "get":
                assert isinstance(given_, list)
                assert await vectors.get(given_, day) == {key: model[key][0] for key in given_ if key in model}
                model |= {key: (model[key][0], day) for key in given_ if key in model}
            else:
                assert isinstance(given_, int)
                gone = {key for key, (_, used) in model.items() if used < given_}
                assert await vectors.forget(given_) == len(gone)
                model = {key: kept for key, kept in model.items() if key not in gone}

    asyncio.run(run())
