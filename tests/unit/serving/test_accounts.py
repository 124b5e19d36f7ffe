"""Users, teams and links as an admin changes them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from convene.errors import BadRequest, Forbidden, NotFound
from convene.limits.allowance import Allowance
from convene.serving import accounts as module
from convene.serving import base_accounts
from convene.serving.accounts import check_admin
from convene.serving.base import Principal
from convene.serving.base_accounts import LinkDraft, TeamChange, UserChange, UserDraft
from convene.serving.keyring import LOCAL
from convene.store.base_accounts import Member
from unit.serving.account_doubles import HOME, OPERATOR, PASSWORD, House, as_browser

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def calls(house: House, caller: Principal) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return one call of each method that only an admin may make."""
    people = house.people
    return {
        "users": lambda: people.users(caller, 10, ""),
        "add_user": lambda: people.add_user(caller, UserDraft(email="dee@x.org")),
        "change_user": lambda: people.change_user(caller, "usr_bob", UserChange(role="admin")),
        "disable_user": lambda: people.disable_user(caller, "usr_cy"),
        "reset_link": lambda: people.reset_link(caller, "usr_bob"),
        "teams": lambda: people.teams(caller, 10, ""),
        "add_team": lambda: people.add_team(caller, "New", "", None),
        "change_team": lambda: people.change_team(caller, "team_lab", TeamChange(plan="owner")),
        "members": lambda: people.members(caller, "team_lab"),
        "put_member": lambda: people.put_member(caller, "team_lab", "usr_cy", "owner"),
        "remove_member": lambda: people.remove_member(caller, "team_lab", "usr_cy"),
        "links": lambda: people.links(caller),
        "invite": lambda: people.invite(caller, LinkDraft(role="admin")),
        "withdraw_link": lambda: people.withdraw_link(caller, "lnk_1"),
    }


ADMINS_ONLY = sorted(name for name in vars(base_accounts.People) if not name.startswith("_") and name != "about")


@pytest.mark.parametrize("name", ADMINS_ONLY)
async def test_only_an_admin_may(house: House, name: str) -> None:
    assert calls(house, OPERATOR).keys() == set(ADMINS_ONLY), "every method of the seam is in the matrix"
    before = (await house.accounts.list_users(10), await house.accounts.list_teams(10))
    for caller in (as_browser(house.bob), Principal(key_id="k", owner="usr_bob", user_id="usr_bob", scopes=("api",))):
        with pytest.raises(Forbidden):
            await calls(house, caller)[name]()
    assert (await house.accounts.list_users(10), await house.accounts.list_teams(10)) == before
    assert await house.accounts.list_links() == ()


@pytest.mark.parametrize("name", [name for name in ADMINS_ONLY if name != "withdraw_link"])
async def test_every_kind_of_admin_may(house: House, name: str) -> None:
    for caller in (OPERATOR, as_browser(house.ada), LOCAL):
        fresh = House()
        await fresh.settle()
        await calls(fresh, caller)[name]()


async def test_a_new_user_gets_a_link_that_sets_its_password(house: House) -> None:
    user, link = await house.people.add_user(
        OPERATOR, UserDraft(email=" DEE@x.org", plan="pro", limits=Allowance(requests_per_day=9), role="admin")
    )
    assert user == await house.accounts.get_user(user.id)
    assert (user.email, user.name, user.password, user.role) == ("dee@x.org", "dee@x.org", None, "admin")
    await house.doors.set_password(link, PASSWORD, HOME)
    house.clock.move(2)
    assert await house.doors.log_in("dee@x.org", PASSWORD, HOME)


async def test_what_is_wrong_with_a_draft_is_named(house: House) -> None:
    for draft, param in (
        (UserDraft(email="dee"), "email"),
        (UserDraft(email="dee@x.org", plan="platinum"), "plan"),
        (UserDraft(email="dee@x.org", name="\n"), "name"),
    ):
        with pytest.raises(BadRequest) as caught:
            await house.people.add_user(OPERATOR, draft)
        assert caught.value.param == param
    with pytest.raises(BadRequest):
        await house.people.add_user(OPERATOR, UserDraft(email="BOB@x.org"))
    assert len(await house.accounts.list_users(10)) == 3


async def test_a_user_is_changed_and_wrong_changes_change_nothing(house: House) -> None:
    changed = await house.people.change_user(OPERATOR, "usr_bob", UserChange(name="Robert", plan="free"))
    assert (changed.name, changed.plan) == ("Robert", "free")
    for change in (UserChange(name=""), UserChange(plan="platinum")):
        with pytest.raises(BadRequest):
            await house.people.change_user(OPERATOR, "usr_bob", change)
    assert await house.accounts.get_user("usr_bob") == changed
    with pytest.raises(NotFound):
        await house.people.change_user(OPERATOR, "usr_nobody", UserChange(name="x"))
    with pytest.raises(NotFound):
        await house.people.disable_user(OPERATOR, "usr_nobody")
    with pytest.raises(NotFound):
        await house.people.reset_link(OPERATOR, "usr_nobody")


async def test_the_last_admin_can_be_neither_demoted_nor_disabled(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_MAX", 1)  # the others are on further pages
    for change in (UserChange(role="member"), UserChange(disabled_at=1.0)):
        with pytest.raises(BadRequest):
            await house.people.change_user(as_browser(house.ada), "usr_ada", change)
    await house.people.change_user(OPERATOR, "usr_cy", UserChange(role="admin"))
    await house.people.change_user(OPERATOR, "usr_ada", UserChange(role="member"))
    with pytest.raises(BadRequest):
        await house.people.disable_user(OPERATOR, "usr_cy")
    await house.people.disable_user(OPERATOR, "usr_bob")


async def test_an_admin_who_is_disabled_is_none(house: House) -> None:
    await house.people.change_user(OPERATOR, "usr_cy", UserChange(role="admin"))
    await house.people.disable_user(OPERATOR, "usr_cy")
    with pytest.raises(BadRequest):
        await house.people.disable_user(OPERATOR, "usr_ada")
    back = await house.people.change_user(OPERATOR, "usr_cy", UserChange(disabled_at=None))
    assert back.disabled_at is None
    await house.people.disable_user(OPERATOR, "usr_ada")


async def test_teams_and_members(house: House) -> None:
    team = await house.people.add_team(OPERATOR, " Works ", "pro", Allowance(budget_total=5))
    assert (team.name, team.plan, team.limits) == ("Works", "pro", Allowance(budget_total=5))
    assert team in await house.people.teams(OPERATOR, 10, "")
    changed = await house.people.change_team(OPERATOR, team.id, TeamChange(limits=None, name="Shop"))
    assert (changed.name, changed.limits) == ("Shop", None)
    member = await house.people.put_member(OPERATOR, team.id, "usr_cy", "owner")
    assert await house.people.members(OPERATOR, team.id) == (member,)
    await house.people.remove_member(OPERATOR, team.id, "usr_cy")
    assert await house.people.members(OPERATOR, team.id) == ()
    with pytest.raises(NotFound):
        await house.people.remove_member(OPERATOR, team.id, "usr_cy")


async def test_what_is_missing_is_not_found(house: House) -> None:
    for call in (
        house.people.members(OPERATOR, "team_9"),
        house.people.change_team(OPERATOR, "team_9", TeamChange(name="x")),
        house.people.put_member(OPERATOR, "team_9", "usr_cy", "member"),
        house.people.put_member(OPERATOR, "team_lab", "usr_9", "member"),
        house.people.invite(OPERATOR, LinkDraft(team_id="team_9")),
        house.people.withdraw_link(OPERATOR, "lnk_9"),
    ):
        with pytest.raises(NotFound):
            await call


@pytest.mark.parametrize("name", ["", "x" * 101])
async def test_a_team_needs_a_name_and_a_known_plan(house: House, name: str) -> None:
    with pytest.raises(BadRequest):
        await house.people.add_team(OPERATOR, name, "", None)
    with pytest.raises(BadRequest):
        await house.people.change_team(OPERATOR, "team_lab", TeamChange(name=name))
    with pytest.raises(BadRequest):
        await house.people.add_team(OPERATOR, "Works", "platinum", None)
    with pytest.raises(BadRequest):
        await house.people.change_team(OPERATOR, "team_lab", TeamChange(plan="platinum"))


async def test_an_invitation_is_listed_without_its_text_and_can_be_withdrawn(house: House) -> None:
    text, link = await house.people.invite(as_browser(house.ada), LinkDraft(email="DEE@x.org", lifetime_s=60))
    assert (link.email, link.created_by, link.expires_at) == ("dee@x.org", "usr_ada", house.clock.now() + 60)
    [listed] = await house.people.links(OPERATOR)
    assert listed == link
    assert text.encode() not in repr(listed).encode()
    await house.people.withdraw_link(OPERATOR, link.id)
    assert await house.doors.look_at(text) is None


@pytest.mark.parametrize("lifetime_s", [0, -1, 91 * 86_400, float("inf"), float("nan")])
async def test_a_link_lives_for_a_bounded_time(house: House, lifetime_s: float) -> None:
    with pytest.raises(BadRequest):
        await house.people.invite(OPERATOR, LinkDraft(lifetime_s=lifetime_s))


async def test_no_invitation_for_who_has_an_account_or_into_a_plan_that_is_none(house: House) -> None:
    with pytest.raises(BadRequest):
        await house.people.invite(OPERATOR, LinkDraft(email="Bob@x.org"))
    with pytest.raises(BadRequest):
        await house.people.invite(OPERATOR, LinkDraft(plan="platinum"))
    with pytest.raises(BadRequest):
        await house.people.invite(OPERATOR, LinkDraft(email="dee"))
    assert await house.people.links(OPERATOR) == ()


async def test_everybody_may_ask_who_they_are(house: House) -> None:
    bob = await house.people.about(as_browser(house.bob))
    member = Member(team_id="team_lab", user_id="usr_bob", role="owner")
    assert (bob.user, bob.teams) == (house.bob, ((house.lab, member),))
    key = await house.people.about(OPERATOR)
    assert (key.principal, key.user, key.teams) == (OPERATOR, None, ())


def test_the_check_says_what_is_missing() -> None:
    check_admin(OPERATOR)
    with pytest.raises(Forbidden, match="scope admin"):
        check_admin(Principal(key_id="k", owner="o", scopes=("api",)))


def test_the_seam_is_what_is_built() -> None:
    for name in (*ADMINS_ONLY, "about"):
        face, built = getattr(base_accounts.People, name), getattr(module.People, name)
        assert inspect.signature(face) == inspect.signature(built)
