"""`convene users`: list, add, disable and invite users, and make links for new passwords, beside a running server.

Whoever may read the data folder is the operator, so every verb here acts as an admin does over HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import click

from convene.api.accounts_wire import account_of, invitation_of
from convene.app_books import allowances_by_plan
from convene.cli_keys import day_of, find_user, parse_expiry
from convene.cli_output import Verbs, configured, json_option, put, put_json, put_table, say
from convene.cli_store import with_store
from convene.clock import SystemClock
from convene.serving.accounts import People
from convene.serving.base_accounts import PAGE_MAX, LinkDraft, UserDraft
from convene.serving.keyring import LOCAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.config import Config
    from convene.serving.base_accounts import Role, User
    from convene.store.base import Store
    from convene.store.base_accounts import Accounts

T = TypeVar("T")

ROLES: Final = click.Choice(["member", "admin"])


@click.group("users", cls=Verbs)
def users() -> None:
    """List, add, disable and invite users."""


@users.command("list", examples=("convene users list", "convene users list --json"))
@json_option
@configured("data_dir")
def list_all(config: Config, *, as_json: bool) -> None:
    """List all users, disabled ones too."""

    async def read(people: People, _: Accounts) -> list[User]:
        found: list[User] = []
        while page := await people.users(LOCAL, PAGE_MAX, found[-1].id if found else ""):
            found += page
        return found

    found = _with_people(config, read)
    if as_json:
        put_json([account_of(user) for user in found])
        return
    rows = [(user.id, user.email, user.name, user.role, user.plan or "-", _state(user)) for user in found]
    put_table(("ID", "EMAIL", "NAME", "ROLE", "PLAN", "STATE"), rows)
    if not found:
        say("There is no user yet. `convene users invite` makes a link to sign up with.")


@users.command("add", examples=("convene users add ada@example.com --role admin", "convene users add bob@example.com"))
@click.argument("email")
@click.option("--name", default="", help="For people; default the email.")
@click.option("--role", type=ROLES, default="member", show_default=True, help="An admin manages everything.")
@click.option("--plan", default="", help="Plan of its keys that name none.")
@json_option
@configured("host", "port", "data_dir")
def add(config: Config, email: str, name: str, role: Role, plan: str, *, as_json: bool) -> None:
    """Make a user and print the link that sets its password, once; it works for a day."""
    draft = UserDraft(email=email, name=name, role=role, plan=plan)
    user, text = _with_people(config, lambda people, _: people.add_user(LOCAL, draft))
    link = link_address(config, text)
    if as_json:
        put_json(account_of(user, link))
        return
    say(f"Made the user {user.id} ({user.email}, {user.role}). Its password is set here, once, within a day:")
    put(link)


@users.command("disable", examples=("convene users disable bob@example.com",))
@click.argument("user", metavar="ID|EMAIL")
@configured("data_dir")
def disable(config: Config, user: str) -> None:
    """Shut a user out; its keys are refused within a second. Its record and its books stay."""

    async def act(people: People, accounts: Accounts) -> User:
        return await people.disable_user(LOCAL, await find_user(accounts, user))

    ended = _with_people(config, act)
    say(f"Disabled the user {ended.id} ({ended.email}).")


@users.command(
    "invite",
    examples=("convene users invite", "convene users invite --email ada@example.com --role admin --expires 2d"),
)
@click.option("--email", default="", help="The only address it is good for; default any.")
@click.option("--role", type=ROLES, default="member", show_default=True, help="What the new user will be.")
@click.option("--plan", default="", help="The new user's plan.")
@click.option("--team", default="", metavar="ID", help="The team it joins.")
@click.option("--expires", default="7d", show_default=True, metavar="WHEN", help="2d, 12h, or a date (UTC).")
@json_option
@configured("host", "port", "data_dir")
def invite(config: Config, email: str, role: Role, plan: str, team: str, expires: str, *, as_json: bool) -> None:
    """Make a link to sign up with and print it, once; it works once."""
    now = SystemClock.now()
    expires_at = parse_expiry(expires, now)
    lifetime_s = None if expires_at is None else expires_at - now
    draft = LinkDraft(email=email, role=role, plan=plan, team_id=team, lifetime_s=lifetime_s)
    text, link = _with_people(config, lambda people, _: people.invite(LOCAL, draft))
    if as_json:
        put_json(invitation_of(link, link_address(config, text)))
        return
    say(f"Whoever opens this link signs up as {link.role}, once, until {day_of(link.expires_at)} UTC:")
    put(link_address(config, text))


@users.command("reset-link", examples=("convene users reset-link ada@example.com",))
@click.argument("user", metavar="ID|EMAIL")
@json_option
@configured("host", "port", "data_dir")
def reset_link(config: Config, user: str, *, as_json: bool) -> None:
    """Make a link that sets a user's password and print it, once; it works once, for a day."""

    async def act(people: People, accounts: Accounts) -> tuple[str, object]:
        text, link = await people.reset_link(LOCAL, await find_user(accounts, user))
        return text, invitation_of(link, link_address(config, text))

    text, shown = _with_people(config, act)
    if as_json:
        put_json(shown)
        return
    say("A new password is set here, once, within a day:")
    put(link_address(config, text))


def link_address(config: Config, text: str) -> str:
    """Return a link as it can be opened: under `public_url`, else where the settings say that the server listens."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    base = config.public_url or f"http://{'127.0.0.1' if host in {'0.0.0.0', '[::]'} else host}:{config.port}"  # noqa: S104 -- only compared
    return f"{base.rstrip('/')}/signup?link={text}"


def _with_people(config: Config, work: Callable[[People, Accounts], Awaitable[T]]) -> T:
    def use(store: Store) -> Awaitable[T]:
        people = People(lambda: store.accounts, SystemClock(), allowances_by_plan(config).get)
        return work(people, store.accounts)

    return with_store(config, use)


def _state(user: User) -> str:
    if user.disabled_at is not None:
        return "disabled"
    return "active" if user.password is not None else "no password"
