"""Ids are cut from a stock of random digits: never twice the same, and of all digits."""

from __future__ import annotations

import re

from convene.clock import IDS_AT_ONCE, SystemClock


def test_ids_have_their_prefix_and_24_digits_and_are_never_given_twice() -> None:
    clock = SystemClock()
    made = [clock.new_id("key_") for _ in range(3 * IDS_AT_ONCE)]
    made += [clock.stamped_id("req_") for _ in range(3 * IDS_AT_ONCE)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("(?:key|req)_[0-9a-f]{24}", one) for one in made)


def test_the_random_ends_of_ids_take_every_digit() -> None:
    clock = SystemClock()
    ends = [clock.stamped_id("")[11:] for _ in range(IDS_AT_ONCE)]
    assert all(len({end[place] for end in ends}) > 8 for place in range(13))
    assert len({end[place] for end in ends for place in range(13)}) == 16
