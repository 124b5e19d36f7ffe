"""The parts of accounts, put together: they follow the store that is opened, and the settings."""

from __future__ import annotations

import msgspec
import pytest

from convene.api.table import Endpoints
from convene.app_accounts import AccountParts
from convene.clock import SystemClock
from convene.config import Config
from convene.errors import Unauthorized
from convene.store.memory import MemoryStore


def parts(**fields: object) -> AccountParts:
    return AccountParts(msgspec.structs.replace(Config(), **fields), SystemClock())


def test_the_endpoints_have_names_of_the_table() -> None:
    assert parts().endpoints().keys() <= set(Endpoints.__struct_fields__)
    assert len(parts().endpoints()) == 22


def test_where_nobody_is_asked_who_they_are_there_is_no_form() -> None:
    assert parts(auth="none").routes() == ()
    paths = {(route.method, route.path) for route in parts().routes()}
    assert {("GET", "/signup"), ("POST", "/signup"), ("GET", "/account"), ("POST", "/account/login")} <= paths
    assert all(route.open and not route.described for route in parts().routes())


@pytest.mark.parametrize("signup", ["invitation", "open", "closed"])
def test_who_may_sign_up_is_a_setting(signup: str) -> None:
    assert parts(signup=signup).doors.is_open is (signup == "open")


async def test_opening_another_store_leaves_the_keys_of_the_first_behind() -> None:
    mine = parts()
    first, second = MemoryStore(), MemoryStore()
    text, _ = await mine.open(first).create("k")
    assert (await mine.ring.check(f"Bearer {text}")).name == "k"
    ring = mine.open(second)
    assert ring is mine.ring
    with pytest.raises(Unauthorized):
        await mine.ring.check(f"Bearer {text}")
    await mine.aclose()
