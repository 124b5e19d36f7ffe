"""Password hashes: Argon2id with the parameters asked for, the same work for nobody, a bounded line."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from argon2.exceptions import VerifyMismatchError

from convene.clock import SystemClock
from convene.errors import BadRequest, Busy
from convene.serving import passwords as module
from convene.serving.passwords import MEMORY_KIB, Passwords, check_password

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SMALL_KIB = 64


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    made = Passwords(SystemClock(), SMALL_KIB)
    yield made
    await made.aclose()


async def test_the_right_password_matches_and_no_other(passwords: Passwords) -> None:
    kept = await passwords.hash("correct horse battery")
    assert await passwords.matches(kept, "correct horse battery")
    for wrong in ("correct horse batterY", "", "correct horse battery ", kept, "x" * 5000, "\ud800"):
        assert not await passwords.matches(kept, wrong)


async def test_one_password_has_many_hashes_and_none_holds_it(passwords: Passwords) -> None:
    hashes = [await passwords.hash("correct horse battery") for _ in range(3)]
    assert len(set(hashes)) == 3
    assert all("horse" not in one for one in hashes)


async def test_the_same_letters_match_however_they_were_typed(passwords: Passwords) -> None:
    kept = await passwords.hash("caf\u00e9 au lait, s'il")
    assert await passwords.matches(kept, "cafe\u0301 au lait, s'il")


@pytest.mark.parametrize("kept", [None, "", "no hash", "$argon2id$v=19$m=64,t=1,p=1$broken"])
async def test_nobodys_password_and_a_broken_hash_match_nothing(passwords: Passwords, kept: str | None) -> None:
    assert not await passwords.matches(kept, "")
    assert not await passwords.matches(kept, "correct horse battery")


async def test_by_default_a_hash_costs_46_mib_one_pass_one_lane() -> None:
    passwords = Passwords(SystemClock())
    kept = await passwords.hash("correct horse battery")
    await passwords.aclose()
    assert MEMORY_KIB >= 46 * 1024
    assert kept.startswith("$argon2id$v=19$m=47104,t=1,p=1$")


async def test_an_unknown_account_is_compared_with_a_hash_of_the_same_cost(passwords: Passwords) -> None:
    real = await passwords.hash("correct horse battery")
    head, salt, digest = real.rpartition("$")[0].rpartition("$")[0], *real.split("$")[-2:]
    nobodys = passwords._nobodys
    assert nobodys.startswith(f"{head}$")
    assert [len(part) for part in nobodys.split("$")[-2:]] == [len(salt), len(digest)]
    assert passwords._hasher.verify(real, "correct horse battery")
    with pytest.raises(VerifyMismatchError):  # it is read as a hash and computed to its end, not refused as no hash
        passwords._hasher.verify(nobodys, "correct horse battery")


async def test_the_line_is_bounded_and_a_caller_who_leaves_keeps_its_place_until_its_work_ends(
    passwords: Passwords,
) -> None:
    go_on = threading.Event()
    stuck = [asyncio.create_task(passwords._run(lambda: go_on.wait(30))) for _ in range(module.WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Busy) as caught:
        await passwords.hash("correct horse battery")
    assert caught.value.retry_after_s == 2
    stuck[0].cancel()  # runs: its place is still taken
    await asyncio.wait([stuck[0]])
    with pytest.raises(Busy):
        await passwords.hash("correct horse battery")
    go_on.set()
    await asyncio.gather(*stuck[1:])
    assert await passwords.hash("correct horse battery")


async def test_one_thread_and_none_after_closing() -> None:
    passwords = Passwords(SystemClock(), SMALL_KIB)

    def threads() -> list[str]:
        return [one.name for one in threading.enumerate() if one.name.startswith("convene-passwords")]

    assert threads() == []
    await asyncio.gather(*(passwords.hash("correct horse battery") for _ in range(4)))
    assert len(threads()) == 1
    await passwords.aclose()
    await passwords.aclose()
    assert threads() == []


@pytest.mark.parametrize("wrong", ["", "elevenchars", "x" * 257])
def test_a_password_that_is_too_short_or_too_long_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_password(wrong)
    assert caught.value.param == "password"
    assert wrong not in caught.value.message or not wrong


@pytest.mark.parametrize("right", ["twelve chars", "x" * 256, "密码密码密码密码密码密码"])
def test_any_letters_will_do(right: str) -> None:
    check_password(right)
