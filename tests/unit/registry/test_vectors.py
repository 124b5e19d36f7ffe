"""The index of meaning gives the nearest vectors."""

from __future__ import annotations

import math
import random
from operator import mul

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.registry import vectors as vectors_module
from convene.registry.pace import Pace
from convene.registry.vectors import LEAST, PARTS_MAX, SIGNS, VectorIndex, fold, pack, signs
from fakes import FakeClock

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def is_sized(vector: list[float]) -> bool:
    """Whether it is not too short to have a direction, or has no part at all."""
    return not any(vector) or max(map(abs, vector)) > 100 * LEAST


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


@pytest.mark.parametrize("parts", [8, 384, 500])
async def test_in_many_blocks_with_little_rescored_the_best_is_found_whatever_was_replaced_or_taken(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "BLOCK", 64)
    monkeypatch.setattr(vectors_module, "BATCH", 16)
    monkeypatch.setattr(vectors_module, "RESCORED", 30)
    draw = random.Random(parts)  # noqa: S311 -- repeatable on purpose
    index, there = VectorIndex(), dict[int, list[float]]()
    for step in range(900):
        place = draw.randrange(300)
        if step % 3 == 2:
            index.take(place)
            there.pop(place, None)
        else:
            there[place] = [draw.gauss(0, 1) for _ in range(parts)]
            index.put(place, pack(there[place]))
    assert len(index) == len(there)
    for place, vector in there.items():
        near = await index.search(vector, 1, pace())
        assert near[0][0] == place
    some = set(list(there)[::3]) | {999}
    question = [draw.gauss(0, 1) for _ in range(parts)]
    got = await index.search(question, 400, pace(), some)
    assert {place for place, _ in got} == some - {999}
    assert [value for _, value in got] == sorted((value for _, value in got), reverse=True)
    assert all(abs(value - cosine(question, there[place])) < 0.03 for place, value in got)


async def test_cosines_of_others_are_told_too_if_they_are_asked_for() -> None:
    vectors = drawn(60)
    index = VectorIndex()
    for place, vector in enumerate(vectors):
        index.put(place, pack(vector))
    near = await index.search(vectors[0], 3, pace())
    both = await index.search(vectors[0], 3, pace(), also=[near[0][0], 50, 55, 999])
    assert both[:3] == near
    assert {place for place, _ in both[3:]} == {50, 55} - {place for place, _ in near}


async def test_what_comes_and_goes_during_a_search_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "BLOCK", 32)
    monkeypatch.setattr(vectors_module, "BATCH", 8)
    vectors = drawn(200, 16)
    index = VectorIndex()
    for place, vector in enumerate(vectors[:100]):
        index.put(place, pack(vector))

    class Busy(Pace):
        count = 0

        async def breathe(self) -> None:
            index.take(self.count)
            index.put(100 + self.count, pack(vectors[100 + self.count]))
            self.count += 1

    busy = Busy(FakeClock().monotonic)
    got = await index.search(vectors[90], 50, busy)
    assert busy.count > 3
    assert got[0][0] == 90
    assert all(abs(value - cosine(vectors[90], vectors[place])) < 0.05 for place, value in got)


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
    assert await index.search([1e-310] * 8, 5, pace()) == []


async def test_the_usual_likeness_of_a_model_that_finds_everything_alike_is_high() -> None:
    apart, alike = VectorIndex(), VectorIndex()
    for place, vector in enumerate(drawn(400)):
        apart.put(place, pack(vector))
        alike.put(place, pack([part + 3.0 for part in vector]))
    assert abs(await apart.baseline(pace())) < 0.15
    assert await alike.baseline(pace()) > 0.7


@given(st.lists(FINITE, min_size=1, max_size=40).filter(is_sized), st.floats(0.01, 100))
def test_a_packed_vector_has_the_same_direction_at_any_length(vector: list[float], factor: float) -> None:
    packed = pack(vector)
    assert len(packed) == len(vector)
    again = pack([part * factor for part in vector])
    assert all(abs(one - other) <= 1 for one, other in zip(signed(packed), signed(again), strict=True))
    assert signs(packed) == bytes(48 + (part >= 0) for part in signed(packed))


@settings(max_examples=20)
@given(st.lists(FINITE, min_size=SIGNS + 1, max_size=SIGNS + 40))
def test_more_parts_than_signs_are_folded_before_their_signs_are_kept(vector: list[float]) -> None:
    assert len(signs(pack(vector))) == SIGNS
    assert set(signs(pack(vector))) <= {48, 49}


def test_folding_keeps_angles_about_the_same() -> None:
    near, far = drawn(1, 3072, seed=3)[0], drawn(1, 3072, seed=4)[0]
    beside = [part + 0.3 * other for part, other in zip(near, far, strict=True)]
    assert len(fold(near, PARTS_MAX)) == PARTS_MAX
    for one, other in ((near, beside), (near, far)):
        assert abs(cosine(fold(one, PARTS_MAX), fold(other, PARTS_MAX)) - cosine(one, other)) < 0.12


def signed(packed: bytes) -> list[int]:
    return list(memoryview(packed).cast("b"))
