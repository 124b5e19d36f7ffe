"""Decompression: every form of gzip and deflate, in any cutting, and the bounds."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.http.base import ProtocolBroken
from convene.http.decode import DECODED_FREE_BYTES, DECODED_RATIO_MAX, Inflater

BIG = 1 << 40
CODINGS = ("gzip", "x-gzip", "deflate", "bare")


def bare(data: bytes) -> bytes:
    """Deflate without the zlib wrapping that the standard asks for."""
    press = zlib.compressobj(wbits=-15)
    return press.compress(data) + press.flush()


def pack(coding: str, data: bytes) -> bytes:
    """Return `data` in a coding, or deflated without wrapping for `bare`."""
    if coding == "bare":
        return bare(data)
    return zlib.compress(data) if coding == "deflate" else gzip.compress(data)


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=2000),
    coding=st.sampled_from(["gzip", "x-gzip", "deflate", "bare"]),
    step=st.integers(1, 40),
)
def test_what_was_packed_comes_back_in_any_cutting(data: bytes, coding: str, step: int) -> None:
    packed = pack(coding, data)
    inflater = Inflater("deflate" if coding == "bare" else coding, BIG)
    out = b"".join(inflater.feed(packed[i : i + step]) for i in range(0, len(packed), step))
    inflater.finish()
    assert out == data


def test_a_body_of_no_bytes_is_empty() -> None:
    Inflater("gzip", BIG).finish()
    Inflater("deflate", BIG).finish()


def test_a_gzip_body_may_have_several_members() -> None:
    inflater = Inflater("gzip", BIG)
    assert inflater.feed(gzip.compress(b"one ") + gzip.compress(b"two")) == b"one two"
    inflater.finish()


def test_nothing_may_follow_a_deflate_body() -> None:
    with pytest.raises(ProtocolBroken, match="followed"):
        Inflater("deflate", BIG).feed(zlib.compress(b"one") + b"more")


def test_no_garbage_may_follow_a_gzip_body() -> None:
    with pytest.raises(ProtocolBroken, match="damaged"):
        Inflater("gzip", BIG).feed(gzip.compress(b"one") + b"garbage")


@pytest.mark.parametrize("packed", [b"\x78", gzip.compress(b"abc")[:-1], zlib.compress(b"abc")[:-4]])
def test_a_body_cut_short_is_refused_at_its_end(packed: bytes) -> None:
    inflater = Inflater("gzip" if packed[:1] == b"\x1f" else "deflate", BIG)
    inflater.feed(packed)
    with pytest.raises(ProtocolBroken, match="cut short"):
        inflater.finish()


def test_the_ratio_is_bounded_beyond_the_first_mebibyte() -> None:
    packed = gzip.compress(bytes(DECODED_FREE_BYTES + (8 << 20)))
    assert len(packed) * DECODED_RATIO_MAX < DECODED_FREE_BYTES + (8 << 20)
    inflater = Inflater("gzip", BIG)
    produced = 0
    refused = False
    for start in range(0, len(packed), 100):
        try:
            produced += len(inflater.feed(packed[start : start + 100]))
        except ProtocolBroken:
            refused = True
            break
    assert refused
    assert produced <= max(DECODED_FREE_BYTES, DECODED_RATIO_MAX * len(packed))


def test_a_small_body_may_expand_as_it_likes_up_to_a_mebibyte() -> None:
    inflater = Inflater("gzip", BIG)
    assert inflater.feed(gzip.compress(bytes(DECODED_FREE_BYTES))) == bytes(DECODED_FREE_BYTES)


def test_an_honest_large_body_passes_the_ratio() -> None:
    chance = random.Random(7)  # noqa: S311 - test data
    data = b"".join(b'{"index": %d, "text": "%x"}\n' % (n, chance.getrandbits(64)) for n in range(100_000))
    inflater = Inflater("gzip", BIG)
    assert inflater.feed(gzip.compress(data)) == data


def test_the_decoded_size_has_a_cap() -> None:
    assert Inflater("gzip", 100).feed(gzip.compress(b"a" * 100)) == b"a" * 100
    with pytest.raises(ProtocolBroken, match="expands"):
        Inflater("gzip", 100).feed(gzip.compress(b"a" * 101))


def test_a_nested_chain_of_empty_members_ends() -> None:
    assert Inflater("gzip", BIG).feed(gzip.compress(b"") * 1000) == b""
