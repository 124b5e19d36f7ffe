"""Links and sessions as text: as strong as keys, told apart from them, refused offline when mistyped."""

from __future__ import annotations

import hashlib
import math
import re

import pytest

from convene.clock import SystemClock
from convene.serving import tokens as module
from convene.serving.keyring import form_key, parse_key
from convene.serving.tokens import digest_of_token, form_token, random_text
from fakes import FakeClock


@pytest.mark.parametrize("kind", ["link", "session"])
def test_a_token_says_what_it_is_and_is_kept_as_its_digest(kind: module.Kind) -> None:
    text = form_token(kind, FakeClock())
    assert re.fullmatch(rf"convene_{kind}_[0-9A-Za-z]{{38}}", text)
    assert digest_of_token(kind, text) == hashlib.sha256(text.encode()).digest()


def test_no_two_tokens_are_alike() -> None:
    clock = SystemClock()
    assert len({form_token("link", clock) for _ in range(200)}) == 200


def test_a_link_is_no_session_and_neither_is_a_key() -> None:
    clock = FakeClock()
    link, session, key = form_token("link", clock), form_token("session", clock), form_key("abcDEF123456", clock)
    assert digest_of_token("session", link) is None
    assert digest_of_token("link", session) is None
    assert digest_of_token("link", key) is None
    assert digest_of_token("session", key) is None
    assert parse_key(link) is None
    assert parse_key(session) is None


@pytest.mark.parametrize("kind", ["link", "session"])
def test_every_mistyped_letter_and_every_swap_is_noticed(kind: module.Kind) -> None:
    text = form_token(kind, FakeClock())
    for place in range(len(text)):
        for letter in "0Zz_-é":
            typo = text[:place] + letter + text[place + 1 :]
            assert typo == text or digest_of_token(kind, typo) is None
    for place in range(len(text) - 1):
        swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        assert swapped == text or digest_of_token(kind, swapped) is None


@pytest.mark.parametrize(
    "text", ["", "convene_link_", "convene_link_" + "0" * 38, "\ud800", "x" * 10_000, "convene_link_\n"]
)
def test_what_is_no_token_is_no_error(text: str) -> None:
    assert digest_of_token("link", text) is None


def test_a_secret_has_at_least_190_random_bits() -> None:
    assert module.SECRET_LENGTH * math.log2(len(set(module.LETTERS))) >= 190


def test_every_letter_of_a_secret_is_as_likely_as_any_other() -> None:
    class Counting(SystemClock):
        def token(self, n_bytes: int) -> bytes:
            return bytes(range(256))[:n_bytes] if n_bytes < 256 else bytes(range(256))

    letters = random_text(248, Counting())
    assert {letter: letters.count(letter) for letter in set(letters)} == dict.fromkeys(module.LETTERS, 4)


def test_bytes_that_would_favour_some_letters_are_drawn_again() -> None:
    class Unfair(SystemClock):
        draws = 0

        def token(self, n_bytes: int) -> bytes:
            self.draws += 1
            return bytes([255] * n_bytes if self.draws == 1 else [61] * n_bytes)

    unfair = Unfair()
    assert random_text(8, unfair) == "z" * 8
    assert unfair.draws == 2
