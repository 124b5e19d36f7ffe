"""The index of meaning gives the nearest vectors."""

from __future__ import annotations

import math
import random
from operator import mul

from hypothesis import given
from hypothesis import strategies as st

from convene.registry.pace import Pace
from convene.registry.vectors import PARTS_MAX, VectorIndex, fold, pack, sketch
from fakes import FakeClock

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def pace() -> Pace:
    return Pace(FakeClock().monotonic)


def cosine(one: list[float], other: list[float]) -> float:
    product: float = sum(map(mul, one, other))
    return product / math.sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))


def drawn(count: int, parts: int = 384, seed: int = 1) -> list[list[float]]:
    """Return vectors around twenty topics that are the same for every seed."""
    draw = random.Random(0)  # noqa: S311 -- repeatable on purpose
    topics = [[draw.gauss(0, 1) for _ in range(parts)] for _ in range(20)]
    draw.seed(seed)
    return [[part + draw.gauss(0, 0.8) for part in draw.choice(topics)] for _ in range(count)]


async def test_the_ten_nearest_of_two_thousand_are_nearly_all_found() -> None:
    vectors = drawn(2000)
    index = VectorIndex()
    for place, vector in enumerate(vectors):
        index.put(place, pack(vector))
    found = 0
    for question in drawn(10, seed=2):
        got = [place for place, _ in await index.search(question, 10, pace())]
        best = sorted(range(len(vectors)), key=lambda place: -cosine(question, vectors[place]))[:10]
        found += len(set(best).intersection(got))
    assert found >= 95


async def test_the_cosine_is_told_nearly_exactly_nearest_first() -> None:
    vectors = drawn(50)
    index = VectorIndex()
    for place, vector in enumerate(vectors):
        index.put(place, pack(vector))
    found = await index.search(vectors[7], 50, pace())
    assert found[0][0] == 7
    assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)
    assert all(abs(value - cosine(vectors[7], vectors[place])) < 0.02 for place, value in found)


async def test_a_vector_that_is_replaced_or_taken_away_is_found_no_more() -> None:
    index = VectorIndex()
    first, second, third = drawn(3, seed=9)
    for place, vector in enumerate((first, second, third)):
        index.put(place, pack(vector))
    index.put(0, pack(second))
    index.take(1)
    index.take(1)
    index.take(99)
    assert len(index) == 2
    assert (await index.search(second, 9, pace()))[0][0] == 0
    assert (await index.search(third, 1, pace()))[0][0] == 2
    index.take(2)
    index.take(0)
    assert await index.search(third, 1, pace()) == []


async def test_an_opposite_vector_harms_nothing() -> None:
    index = VectorIndex()
    (vector,) = drawn(1)
    index.put(0, pack([-part for part in vector]))
    index.put(1, pack(vector))
    place, value = (await index.search(vector, 2, pace()))[0]
    assert (place, round(value, 6)) == (1, 1.0)


async def test_a_vector_of_nothing_or_of_another_model_is_left_out() -> None:
    index = VectorIndex()
    index.put(0, pack([0.0] * 8))
    index.put(1, pack([1.0] * 8))
    index.put(2, pack([1.0] * 9))
    assert len(index) == 1
    assert await index.search([1.0] * 9, 5, pace()) == []
    assert await index.search([float("nan")] * 8, 5, pace()) == []


async def test_the_usual_likeness_of_a_model_that_finds_everything_alike_is_high() -> None:
    apart, alike = VectorIndex(), VectorIndex()
    for place, vector in enumerate(drawn(400)):
        apart.put(place, pack(vector))
        alike.put(place, pack([part + 3.0 for part in vector]))
    assert abs(apart.baseline()) < 0.15
    assert alike.baseline() > 0.7


@given(st.lists(FINITE, min_size=1, max_size=40), st.floats(0.01, 100))
def test_a_packed_vector_has_the_same_direction_at_any_length(vector: list[float], factor: float) -> None:
    packed = pack(vector)
    assert len(packed) == len(vector)
    again = pack([part * factor for part in vector])
    assert all(abs(one - other) <= 1 for one, other in zip(signed(packed), signed(again), strict=True))
    assert sketch(packed) == sketch(bytes(packed))


def test_folding_keeps_angles_about_the_same() -> None:
    near, far = drawn(1, 3072, seed=3)[0], drawn(1, 3072, seed=4)[0]
    beside = [part + 0.3 * other for part, other in zip(near, far, strict=True)]
    assert len(fold(near, PARTS_MAX)) == PARTS_MAX
    for one, other in ((near, beside), (near, far)):
        assert abs(cosine(fold(one, PARTS_MAX), fold(other, PARTS_MAX)) - cosine(one, other)) < 0.12


def signed(packed: bytes) -> list[int]:
    return list(memoryview(packed).cast("b"))
