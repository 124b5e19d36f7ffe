"""Memory and SQLite say the same after every step of long random lives: the plain one is the oracle of the other."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from convene.errors import Conflict, NotFound
from convene.limits.allowance import Allowance
from convene.store.base import KeyChange, KeyRecord
from convene.store.base_accounts import BrowserSession, Link, Member, Team, TeamChange, User, UserChange
from convene.store.memory import MemoryStore
from convene.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from convene.store.base import Store

STEPS: Final = 400
FEW: Final = 5
"""Of each kind, so that ids, emails and digests collide often."""


def digest(number: int) -> bytes:
    return hashlib.sha256(bytes([number])).digest()


class Life:
    """Draws one step after the other, each as a call on whichever store."""

    def __init__(self, seed: int) -> None:
        self.lots = random.Random(seed)  # noqa: S311 -- repeatable on purpose
        self.now = 1_000.0

    def number(self) -> int:
        return self.lots.randrange(FEW)

    def user(self) -> User:
        return User(
            id=f"usr_{self.number()}",
            name=self.lots.choice(("Ada", "Bob", "é\u202e'\"%")),
            email=f"{self.number()}@x.org",
            password=self.lots.choice((None, "$argon2id$x")),
            role=self.lots.choice(("admin", "member")),
            plan=self.lots.choice(("", "pro")),
            limits=self.lots.choice((None, Allowance(), Allowance(requests_per_minute=5, budget_total=0))),
            created_at=self.now,
        )

    def link(self) -> Link:
        return Link(
            id=f"lnk_{self.number()}",
            digest=digest(self.number()),
            purpose=self.lots.choice(("signup", "password")),
            role=self.lots.choice(("admin", "member")),
            email=self.lots.choice(("", "1@x.org")),
            team_id=self.lots.choice(("", f"team_{self.number()}")),
            user_id=self.lots.choice(("", f"usr_{self.number()}")),
            created_by="x",
            created_at=self.now,
            expires_at=self.now + self.lots.choice((0.5, 50.0)),
        )

    def session(self) -> BrowserSession:
        return BrowserSession(
            digest=digest(self.number()),
            user_id=f"usr_{self.number()}",
            created_at=self.now,
            seen_at=self.now,
            expires_at=self.now + self.lots.choice((1.0, 50.0)),
        )

    def user_change(self) -> UserChange:
        fields = {
            "name": "new",
            "password": "$argon2id$y",
            "role": self.lots.choice(("admin", "member")),
            "limits": self.lots.choice((None, Allowance(tokens_per_day=1))),
            "disabled_at": self.lots.choice((None, self.now)),
        }
        said = {name: fields[name] for name in self.lots.sample(sorted(fields), self.lots.randrange(3))}
        return msgspec.structs.replace(UserChange(), **said)

    def key(self) -> KeyRecord:
        return KeyRecord(
            id=f"key_{self.number()}",
            name="k",
            owner="o",
            plan=self.lots.choice(("", "pro")),
            digest=digest(self.number()),
            last4="wxyz",
            created_at=self.now,
            user_id=self.lots.choice(("", f"usr_{self.number()}")),
            team_id=self.lots.choice(("", f"team_{self.number()}")),
        )

    def step(self) -> Callable[[Store], Any]:
        """Return the next step; time goes on a little with each."""
        self.now += 1
        now, seen = self.now, self.now - self.lots.choice((1, 20))
        user, link, session, change, key = self.user(), self.link(), self.session(), self.user_change(), self.key()
        team_id, user_id, one = f"team_{self.number()}", f"usr_{self.number()}", digest(self.number())
        fresh = msgspec.structs.replace(user, id=f"usr_new_{now:.0f}")  # as `Doors` does: an id is never used again
        member = Member(team_id=team_id, user_id=user_id, role=self.lots.choice(("owner", "member")))
        team = Team(id=team_id, name="Lab", created_at=now)
        steps: tuple[Callable[[Store], Any], ...] = (
            lambda store: store.accounts.add_user(user),
            lambda store: store.accounts.add_user(user),
            lambda store: store.accounts.change_user(user_id, change),
            lambda store: store.accounts.change_user(user_id, change),
            lambda store: store.accounts.find_user(user.email),
            lambda store: store.accounts.add_team(team),
            lambda store: store.accounts.change_team(team_id, TeamChange(plan="pro", limits=Allowance())),
            lambda store: store.accounts.put_member(member),
            lambda store: store.accounts.put_member(member),
            lambda store: store.accounts.remove_member(team_id, user_id),
            lambda store: store.accounts.standing(user_id, team_id),
            lambda store: store.accounts.add_link(link),
            lambda store: store.accounts.add_link(link),
            lambda store: store.accounts.add_first_link(link, now),
            lambda store: store.accounts.withdraw_link(link.id),
            lambda store: store.accounts.redeem_signup(one, fresh, now),
            lambda store: store.accounts.redeem_signup(one, fresh, now),
            lambda store: store.accounts.redeem_password(one, "$argon2id$z", now),
            lambda store: store.accounts.redeem_password(one, "$argon2id$z", now),
            lambda store: store.accounts.add_session(session),
            lambda store: store.accounts.touch_session(one, now),
            lambda store: store.accounts.end_session(one),
            lambda store: store.accounts.forget_sessions(seen, now),
            lambda store: store.keys.add(key),
            lambda store: store.keys.change(key.id, KeyChange(limits=Allowance(images_per_day=1), models=("a",))),
            lambda store: store.keys.revoke(key.id, now),
            lambda store: store.keys.list_of(user_id, [team_id]),
        )
        return self.lots.choice(steps)


async def outcome(step: Callable[[Store], Any], store: Store) -> object:
    """Return what a step gives, or the kind of its refusal."""
    try:
        return await step(store)
    except (Conflict, NotFound) as refusal:
        return type(refusal)


async def everything(store: Store) -> list[object]:
    """Return all that a store holds."""
    accounts = store.accounts
    users, teams = await accounts.list_users(100), await accounts.list_teams(100)
    return [
        users,
        teams,
        [await accounts.members_of(f"team_{number}") for number in range(FEW)],
        [await accounts.teams_of(f"usr_{number}") for number in range(FEW)],
        await accounts.list_links(),
        [await accounts.get_link(digest(number)) for number in range(FEW)],
        [await accounts.get_session(digest(number)) for number in range(FEW)],
        await store.keys.list_all(),
    ]


@pytest.mark.parametrize("seed", range(6))
async def test_memory_and_sqlite_live_the_same_life(tmp_path: Path, seed: int) -> None:
    plain, other = MemoryStore(), await SqliteStore.open(tmp_path / "convene.db")
    life = Life(seed)
    kinds: dict[str, int] = {}
    for number in range(STEPS):
        step = life.step()
        expected, found = await outcome(step, plain), await outcome(step, other)
        assert found == expected, (seed, number)
        kinds[str(expected)[:20]] = kinds.get(str(expected)[:20], 0) + 1
        if number % 10 == 0:
            assert await everything(other) == await everything(plain), (seed, number)
    assert await everything(other) == await everything(plain)
    assert len(kinds) > 8, "the life was eventful"
    await other.aclose()
    await plain.aclose()


def test_a_life_can_be_lived_again() -> None:
    first, second = Life(3), Life(3)
    assert [first.user() for _ in range(20)] == [second.user() for _ in range(20)]
    assert msgspec.structs.asdict(first.key()) == msgspec.structs.asdict(second.key())
