"""Random walks of several users over the API against a plain model of who may see and do what (E2).

A few thousand steps here, 100,000 by `make soak`. The model knows keys by owner and nothing else; whatever the API
answers beyond it, or keeps back, fails the walk with its seed.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from api.people import ask, made, someone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from api.conftest import Served
    from api.people import Someone

STEPS: Final = int(os.environ.get("CONVENE_SOAK_WALK", "300"))
SEED: Final = int(os.environ.get("CONVENE_SOAK_SEED", "20261126"))
KEYS_EACH: Final = 8
"""More are revoked first, so that a walk never meets the most there may be."""


class Known:
    """What the model knows of one key."""

    def __init__(self, key_id: str, text: str, owner: str, name: str) -> None:
        self.id, self.text, self.owner, self.name = key_id, text, owner, name
        self.rpm: int | None = None
        self.revoked = False


class Walk:
    """A house of users who do things at random; each step is checked at once."""

    def __init__(self, served: Served, people: dict[str, Someone], seed: int) -> None:
        self.served = served
        self.people = people
        self.lots = random.Random(seed)  # noqa: S311 -- repeatable on purpose
        self.keys: dict[str, Known] = {
            one.key_id: Known(one.key_id, one.key, name, f"{name}'s") for name, one in people.items()
        }
        self.old: list[str] = []
        """Texts that must never work again."""
        self.done: dict[str, int] = {}

    def who(self) -> str:
        return self.lots.choice(sorted(self.people))

    def any_key(self) -> Known:
        return self.keys[self.lots.choice(sorted(self.keys))]

    async def ask(self, who: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
        answer = await ask(self.served, method, path, self.keys[self.people[who].key_id].text, body)
        return answer.status_code, answer.json()

    async def step(self) -> None:
        """Do one thing at random."""
        steps: tuple[Callable[[], Awaitable[None]], ...] = (
            self.make,
            self.look,
            self.rename,
            self.tighten,
            self.rotate,
            self.revoke,
            self.use,
            self.use_old,
            self.climb,
        )
        step = self.lots.choice(steps)
        self.done[step.__name__] = self.done.get(step.__name__, 0) + 1
        await step()

    async def make(self) -> None:
        who = self.who()
        mine = [key for key in self.keys.values() if key.owner == who and not key.revoked]
        if len(mine) >= KEYS_EACH:
            return
        status, key = await self.ask(who, "POST", "/v1/keys", {"name": f"n{len(self.keys)}", "user_id": "usr_other"})
        assert (status, key["user_id"]) == (200, self.people[who].id)
        self.keys[key["id"]] = Known(key["id"], key["key"], who, key["name"])

    async def look(self) -> None:
        who = self.who()
        status, found = await self.ask(who, "GET", "/v1/keys?limit=1000")
        assert status == 200
        expected = {key.id: (key.name, key.revoked) for key in self.keys.values() if key.owner == who}
        assert {one["id"]: (one["name"], one["state"] == "revoked") for one in found["data"]} == expected

    async def rename(self) -> None:
        who, key = self.who(), self.any_key()
        status, answer = await self.ask(who, "PATCH", f"/v1/keys/{key.id}", {"name": f"r{self.lots.randrange(99)}"})
        if key.owner == who:
            assert status == 200
            key.name = answer["name"]
        else:
            assert status == 404

    async def tighten(self) -> None:
        who, key, rpm = self.who(), self.any_key(), self.lots.randrange(25)
        if key.id == self.people[who].key_id:
            return  # a restricted key could not go on with the walk
        status, _ = await self.ask(who, "PATCH", f"/v1/keys/{key.id}", {"limits": {"requests_per_minute": rpm}})
        most = 20 if key.rpm is None else key.rpm  # 20: the plan free
        if key.owner != who:
            assert status == 404
        elif rpm <= most:
            assert status == 200
            key.rpm = rpm
        else:
            assert status == 400

    async def rotate(self) -> None:
        who, key = self.who(), self.any_key()
        status, answer = await self.ask(who, "POST", f"/v1/keys/{key.id}/rotate")
        assert status == (404 if key.owner != who else 400 if key.revoked else 200)
        if status == 200:
            self.old.append(key.text)
            key.text = answer["key"]

    async def revoke(self) -> None:
        who, key = self.who(), self.any_key()
        if key.id in {one.key_id for one in self.people.values()}:
            return  # with it the user would leave the walk
        status, _ = await self.ask(who, "DELETE", f"/v1/keys/{key.id}")
        assert status == (200 if key.owner == who else 404)
        key.revoked = key.revoked or key.owner == who

    async def use(self) -> None:
        key = self.any_key()
        answer = await ask(self.served, "GET", "/v1/me", key.text)
        assert answer.status_code == (401 if key.revoked else 200)
        if not key.revoked:
            assert answer.json()["user"]["id"] == self.people[key.owner].id

    async def use_old(self) -> None:
        if self.old:
            answer = await ask(self.served, "GET", "/v1/me", self.lots.choice(self.old))
            assert answer.status_code == 401

    async def climb(self) -> None:
        who, key = self.who(), self.any_key()
        path, body = self.lots.choice(
            (
                ("/v1/admin/users", {"email": "evil@x.org", "role": "admin"}),
                ("/v1/admin/keys", {"name": "evil", "scopes": ["admin"]}),
                ("/v1/keys", {"name": "evil", "scopes": ["api", "admin"]}),
                ("/v1/admin/invitations", {"role": "admin"}),
            )
        )
        status, _ = await self.ask(who, "POST", path, body)
        assert status == 403
        status, _ = await self.ask(who, "PATCH", f"/v1/keys/{key.id}", {"plan": "owner", "models": None})
        assert status == (403 if key.owner == who else 404)


@pytest.mark.parametrize("seed", [SEED, SEED + 1, SEED + 2])
async def test_no_walk_sees_changes_or_becomes_what_is_not_its_own(served: Served, seed: int) -> None:
    people = {name: await someone(served, name) for name in ("ada", "bob", "cy")}
    await made(served, "/v1/admin/keys", {"name": "nobody's"})
    walk = Walk(served, people, seed)
    for number in range(STEPS):
        try:
            await walk.step()
        except AssertionError as fault:
            raise AssertionError(f"seed {seed}, step {number}: {fault}") from fault
    assert len(walk.done) == 9, "every kind of step was taken"
    everything = (await ask(served, "GET", "/v1/admin/keys?limit=1000")).json()["data"]
    ours = {one["id"]: one for one in everything if one["user_id"]}
    assert ours.keys() == walk.keys.keys()
    for key in walk.keys.values():
        kept = ours[key.id]
        assert kept["user_id"] == people[key.owner].id
        assert kept["plan"] is None
        assert kept["scopes"] == ["api"]
        assert (kept["limits"] or {}).get("requests_per_minute") == key.rpm
