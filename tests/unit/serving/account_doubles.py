"""A store in memory with people in it, and the use cases over it: what the tests of accounts start from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from convene.limits.allowance import Allowance
from convene.serving.accounts import People
from convene.serving.base import Principal
from convene.serving.doors import Doors, principal_of
from convene.serving.key_desk import KeyDesk
from convene.serving.keyring import KeyRing
from convene.serving.passwords import Passwords
from convene.store.base_accounts import Member, Team, User
from convene.store.memory import MemoryStore
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.serving.doors import Signup

PASSWORD: Final = "correct horse battery"
HOME: Final = "192.0.2.1"
PLANS: Final[Mapping[str, Allowance]] = {
    "owner": Allowance(requests_per_minute=1_000_000),
    "pro": Allowance(requests_per_minute=600, concurrent_requests=64),
    "free": Allowance(requests_per_minute=20, tokens_per_minute=40_000),
}
OPERATOR: Final = Principal(key_id="operator", owner="operator", scopes=("api", "admin"))


class House:
    """Ada is the admin, Bob and Cy are members, Bob owns the team Lab, Cy is in it; nobody has a password yet."""

    def __init__(self, signup: Signup = "invitation") -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.accounts = self.store.accounts
        self.passwords = Passwords(self.clock, 64)
        self.ring = KeyRing(self.store.keys, self.clock, self.store.accounts, "free")
        self.doors = Doors(lambda: self.accounts, self.clock, self.passwords, signup)
        self.people = People(lambda: self.accounts, self.clock, PLANS.get)
        self.desk = KeyDesk(lambda: self.ring, lambda: self.accounts, PLANS.get, "free")
        self.ada = User(id="usr_ada", name="Ada", email="ada@x.org", role="admin", plan="owner", created_at=1.0)
        self.bob = User(id="usr_bob", name="Bob", email="bob@x.org", plan="pro", created_at=2.0)
        self.cy = User(id="usr_cy", name="Cy", email="cy@x.org", created_at=3.0)
        self.lab = Team(id="team_lab", name="Lab", plan="pro", created_at=4.0)

    async def settle(self) -> None:
        """Move everybody in."""
        for user in (self.ada, self.bob, self.cy):
            await self.accounts.add_user(user)
        await self.accounts.add_team(self.lab)
        await self.accounts.put_member(Member(team_id="team_lab", user_id="usr_bob", role="owner"))
        await self.accounts.put_member(Member(team_id="team_lab", user_id="usr_cy"))

    async def holder(self, text: str) -> Principal:
        """Return who holds a key."""
        return await self.ring.check(f"Bearer {text}")

    async def give_password(self, user: User, password: str = PASSWORD) -> None:
        """Let a user set its password, as by a link."""
        text, _ = await self.people.reset_link(OPERATOR, user.id)
        self.clock.move(2)
        await self.doors.set_password(text, password, HOME)
        self.clock.move(2)


def as_browser(user: User) -> Principal:
    """Return a user who is logged in."""
    return principal_of(user)


def without_digits(text: str) -> str:
    """Return a message without its figures, to compare two that differ in nothing else."""
    return re.sub(r"\d+", "0", text)
