"""The composition of accounts: users, keys, the ways in and their endpoints, put together for `app.py`.

A further part of the composition root. The store and the key ring are opened after the parts are built, so each of them
is asked for when it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convene.api.admin import Admin
from convene.api.browser import Browsers
from convene.api.keys import Keys
from convene.api.signup import Forms
from convene.app_books import allowances_by_plan
from convene.serving.accounts import People
from convene.serving.doors import Doors
from convene.serving.key_desk import KeyDesk
from convene.serving.keyring import LOCAL, KeyRing
from convene.serving.passwords import Passwords
from convene.store.memory import MemoryStore

if TYPE_CHECKING:
    from convene.api.routes import Endpoint, Route
    from convene.clock import Clock
    from convene.config import Config
    from convene.serving.base import Principal
    from convene.store.base import Store


class AccountParts:
    """Everything about accounts of one application."""

    def __init__(self, config: Config, clock: Clock) -> None:
        plan_limits = allowances_by_plan(config).get
        self._config = config
        self._clock = clock
        self.open(MemoryStore())
        self.passwords = Passwords(clock)
        self.doors = Doors(lambda: self._store.accounts, clock, self.passwords, config.signup)
        people = People(lambda: self._store.accounts, clock, plan_limits)
        desk = KeyDesk(lambda: self.ring, lambda: self._store.accounts, plan_limits, config.default_plan)
        self.browsers = Browsers(self.doors, config.public_url)
        self._keys = Keys(desk, people, clock.now)
        # A random text that is no session, and whose length no session has.
        self.forms = Forms(self.doors, desk, self.browsers, lambda: clock.token(24).hex(), clock.now)
        self._admin = Admin(people, clock.now, config.public_url)

    def open(self, store: Store) -> KeyRing:
        """From now on be about the accounts of this store; return the ring of its keys."""
        self._store = store
        self.ring = KeyRing(store.keys, self._clock, store.accounts, self._config.default_plan)
        return self.ring

    async def holder(self, key_id: str) -> Principal | None:
        """Return who is behind a key that is valid now; where nobody is asked, everybody is. Raises `StoreFault`."""
        return LOCAL if self._config.auth == "none" else await self.ring.holder(key_id)

    def routes(self) -> tuple[Route, ...]:
        """Return the routes of the form; where nobody is asked who they are there is none."""
        return () if self._config.auth == "none" else self.forms.routes()

    def endpoints(self) -> dict[str, Any]:
        """Return the endpoints by their names in `api.table.Endpoints`."""
        keys, admin = self._keys, self._admin
        found: dict[str, Endpoint] = {
            "show_me": keys.show_me,
            "list_keys": keys.list_mine,
            "create_key": keys.create,
            "rotate_key": keys.rotate,
            "change_key": keys.change,
            "revoke_key": keys.revoke,
            "list_users": admin.list_users,
            "add_user": admin.add_user,
            "change_user": admin.change_user,
            "disable_user": admin.disable_user,
            "reset_link": admin.reset_link,
            "list_teams": admin.list_teams,
            "add_team": admin.add_team,
            "change_team": admin.change_team,
            "list_members": admin.list_members,
            "put_member": admin.put_member,
            "remove_member": admin.remove_member,
            "list_links": admin.list_links,
            "invite": admin.invite,
            "withdraw_link": admin.withdraw_link,
            "list_all_keys": keys.list_all,
            "issue_key": keys.issue,
        }
        return found

    async def aclose(self) -> None:
        """End the thread of password hashes; the store is not ours."""
        await self.passwords.aclose()
