"""Our keys, addresses and signatures beside the library's: what one writes the other reads, and nothing else passes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uagents_core.identity import Identity as LibraryIdentity
from uagents_core.identity import generate_user_address

from convene.agent_identity import Identity, decode_bech32, encode_bech32, is_user_address, verify_digest

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
digests = st.binary(min_size=32, max_size=32)


@pytest.mark.req("ID-01", "ID-02", "ID-07")
@settings(max_examples=40, deadline=None)
@given(seed=st.text(), index=st.integers(0, 255))
def test_a_seed_gives_the_same_address_as_the_librarys_each_time(seed: str, index: int) -> None:
    ours = Identity.from_seed(seed, index)
    assert ours.address == LibraryIdentity.from_seed(seed, index).address
    assert ours.address == Identity.from_seed(seed, index).address
    assert ours.address.startswith("agent1q")
    assert len(ours.address) == 65


@pytest.mark.req("ID-03", "ID-04")
@settings(max_examples=60, deadline=None)
@given(seed=st.text("ab"), data=st.binary(max_size=40))
def test_each_verifies_what_the_other_has_signed(seed: str, data: bytes) -> None:
    ours, theirs = Identity.from_seed(seed, 0), LibraryIdentity.from_seed(seed, 0)
    digest = hashlib.sha256(data).digest()
    for signature in (ours.sign(data), ours.sign_digest(digest)):
        assert LibraryIdentity.verify_digest(theirs.address, digest, signature)
    for signature in (theirs.sign(data), theirs.sign_digest(digest)):
        assert verify_digest(ours.address, digest, signature)


@pytest.mark.req("ID-03")
def test_both_forms_of_one_signature_are_taken_as_the_library_does() -> None:
    ours, digest = Identity.from_seed("x"), bytes(range(32))
    _, compact = decode_bech32(ours.sign_digest(digest))
    turned = compact[:32] + (ORDER - int.from_bytes(compact[32:])).to_bytes(32)
    other = encode_bech32("sig", turned)
    assert LibraryIdentity.verify_digest(ours.address, digest, other)
    assert verify_digest(ours.address, digest, other)


@pytest.mark.req("ID-04")
@settings(max_examples=200, deadline=None)
@given(
    address=st.text(max_size=80) | st.builds(encode_bech32, st.just("agent"), st.binary(max_size=40)),
    digest=st.binary(max_size=40),
    signature=st.text(max_size=80) | st.builds(encode_bech32, st.just("sig"), st.binary(max_size=70)),
)
def test_whatever_is_given_nothing_is_raised_and_nothing_passes(address: str, digest: bytes, signature: str) -> None:
    assert not verify_digest(address, digest, signature)
    assert not verify_digest(Identity.from_seed("x").address, digest, signature)


@settings(max_examples=60, deadline=None)
@given(
    digest=digests, other=digests, place=st.integers(0, 100), letter=st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l")
)
def test_a_signature_of_something_else_or_with_another_letter_is_none(
    digest: bytes, other: bytes, place: int, letter: str
) -> None:
    ours, stranger = Identity.from_seed("x"), Identity.from_seed("y")
    signature = ours.sign_digest(digest)
    assert verify_digest(ours.address, other, signature) == (digest == other)
    assert not verify_digest(stranger.address, digest, signature)
    changed = signature[:4] + signature[4 : 4 + place] + letter + signature[5 + place :]
    assert verify_digest(ours.address, digest, changed) == (changed == signature)


@pytest.mark.req("ID-05")
def test_an_address_of_a_user_is_known_and_signs_nothing() -> None:
    address = generate_user_address()
    ours = Identity.from_seed("x")
    assert is_user_address(address)
    assert not is_user_address(ours.address)
    assert not verify_digest(address, bytes(32), ours.sign_digest(bytes(32)))


@given(prefix=st.text("abcdefg", min_size=1, max_size=6), data=st.binary(max_size=60))
def test_bech32_is_read_as_it_was_written(prefix: str, data: bytes) -> None:
    assert decode_bech32(encode_bech32(prefix, data)) == (prefix, data)


@pytest.mark.parametrize(
    "text", ["", "agent", "1qqqqqqq", "agent1", "AGENT1QQQQQQQ", "agent1bio", "é1qqqqqqq", "a" * 300]
)
def test_what_is_not_bech32_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_bech32(text)


@pytest.mark.parametrize("index", [-1, 256])
def test_an_index_has_one_byte(index: int) -> None:
    with pytest.raises(ValueError, match="byte"):
        Identity.from_seed("x", index)
