"""Adding up planes of bits gives what counting by hand gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from convene.registry.planes import Planes, added, bits_of, lowest, weights

NUMBERS = st.lists(st.integers(0, 255), max_size=40)


@given(st.lists(NUMBERS, max_size=3))
def test_bits_are_counted_however_many_numbers_there_are(heights: list[list[int]]) -> None:
    planes = added([list(numbers) for numbers in heights])
    for bit in range(8):
        count = sum((plane >> bit & 1) << height for height, plane in enumerate(planes))
        assert count == sum((number >> bit & 1) << height for height, some in enumerate(heights) for number in some)


def test_a_large_part_counts_more_often_than_a_small_one() -> None:
    assert weights([1.0, -1.0, 0.0, 3.0, -9.0]) == [([3], [4]), ([], [4])]
    assert weights([1.0, -2.0]) == [([0], []), ([], [1])]


@given(st.integers(1, 12), st.data())
def test_the_signs_in_which_vectors_differ_are_counted_after_additions_and_changes(
    width: int, data: st.DataObject
) -> None:
    sign_text = st.text("01", min_size=width, max_size=width).map(str.encode)
    planes, there = Planes(width), list[bytes]()
    for batch in data.draw(st.lists(st.lists(sign_text, min_size=1, max_size=5), max_size=4)):
        planes.add(b"".join(batch), len(batch))
        there += batch
    if there:
        bit, new = data.draw(st.integers(0, len(there) - 1)), data.draw(sign_text)
        planes.put(bit, there[bit], new)
        there[bit] = new
    question = [
        float(part) for part in data.draw(st.lists(st.integers(-9, 9), min_size=width, max_size=width).filter(any))
    ]
    asked = weights(question)
    counted = planes.differing(asked)
    assert planes.size == len(there)
    for bit, own in enumerate(there):
        count = sum((plane >> bit & 1) << height for height, plane in enumerate(counted))
        expected = 0
        for height, (up, down) in enumerate(asked):
            expected += sum(own[at] == ord("0") for at in up) + sum(own[at] == ord("1") for at in down) << height
        assert count == expected


@given(
    st.lists(st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=12), min_size=1, max_size=4),
    st.integers(0, 30),
)
def test_the_lowest_are_chosen_first_ones_of_equals(blocks: list[list[tuple[bool, int]]], most: int) -> None:
    given_ = []
    for block in blocks:
        may = sum(1 << bit for bit, (there, _) in enumerate(block) if there)
        given_.append(
            (may, [sum((value >> height & 1) << bit for bit, (_, value) in enumerate(block)) for height in range(4)])
        )
    found = {(at, bit) for at, bits in enumerate(lowest(given_, most)) for bit in bits}
    every = [(value, at, bit) for at, block in enumerate(blocks) for bit, (there, value) in enumerate(block) if there]
    assert found == {(at, bit) for _, at, bit in sorted(every)[:most]}


@given(st.sets(st.integers(0, 300)))
def test_the_ones_of_a_number_are_found_lowest_first(bits: set[int]) -> None:
    assert list(bits_of(sum(1 << bit for bit in bits))) == sorted(bits)
