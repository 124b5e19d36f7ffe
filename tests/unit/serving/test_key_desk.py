"""Who may do what with which key: the matrix of roles, teams and restrictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.errors import BadRequest, Forbidden, NotFound, Unauthorized
from convene.limits.allowance import Allowance
from convene.serving import key_desk as module
from convene.serving.base import Principal
from convene.serving.base_accounts import KeyChange, KeyDraft, UserChange
from convene.serving.keyring import parse_key
from unit.serving.account_doubles import OPERATOR, House, as_browser

if TYPE_CHECKING:
    from convene.store.base import KeyRecord

LIMITS = Allowance(requests_per_minute=10)


def draft(name: str = "k", /, **fields: object) -> KeyDraft:
    return msgspec.convert({"name": name} | fields, KeyDraft)


async def refused(house: House, text: str) -> str:
    """Return why a key is refused after the next poll."""
    await house.ring.poll()
    with pytest.raises(Unauthorized) as caught:
        await house.holder(text)
    return caught.value.message


# Making keys.


async def test_a_user_makes_a_key_that_is_its_own(house: House) -> None:
    text, record = await house.desk.create(as_browser(house.bob), draft())
    assert parse_key(text) is not None
    assert (record.owner, record.user_id, record.team_id, record.plan) == ("usr_bob", "usr_bob", "", "")
    holder = await house.holder(text)
    assert (holder.owner, holder.user_id, holder.plan, holder.scopes) == ("usr_bob", "usr_bob", "pro", ("api",))


async def test_a_key_for_a_team_is_the_teams(house: House) -> None:
    text, record = await house.desk.create(as_browser(house.cy), draft(team_id="team_lab"))
    assert (record.owner, record.user_id, record.team_id) == ("team_lab", "usr_cy", "team_lab")
    assert (await house.holder(text)).plan == "pro"  # Cy has no plan of its own


async def test_neither_a_foreign_nor_a_missing_team_gets_a_key_and_both_answer_the_same(house: House) -> None:
    await house.people.add_team(OPERATOR, "Other", "", None)
    other = next(team for team in await house.accounts.list_teams(10) if team.name == "Other")
    messages = []
    for team_id in (other.id, "team_missing"):
        with pytest.raises(NotFound) as caught:
            await house.desk.create(as_browser(house.bob), draft(team_id=team_id))
        messages.append(caught.value.message.replace(team_id, "TEAM"))
    assert len(set(messages)) == 1


async def test_plan_and_owner_are_not_the_users_to_say(house: House) -> None:
    _, record = await house.desk.create(as_browser(house.bob), draft(plan="owner", owner="usr_ada", user_id="usr_ada"))
    assert (record.plan, record.owner, record.user_id) == ("", "usr_bob", "usr_bob")


@pytest.mark.parametrize("scopes", [(), ("root",), ("api", "")])
async def test_scopes_are_known_words(house: House, scopes: tuple[str, ...]) -> None:
    for make in (house.desk.create, house.desk.issue):
        with pytest.raises(BadRequest):
            await make(as_browser(house.ada), draft(scopes=scopes))


async def test_only_an_admin_makes_an_admins_key_and_it_ends_with_the_role(house: House) -> None:
    with pytest.raises(Forbidden):
        await house.desk.create(as_browser(house.bob), draft(scopes=("api", "admin")))
    text, _ = await house.desk.create(as_browser(house.ada), draft(scopes=("api", "admin")))
    assert (await house.holder(text)).scopes == ("api", "admin")
    await house.accounts.change_user("usr_ada", UserChange(role="member"))
    await house.ring.poll()
    assert (await house.holder(text)).scopes == ("api",)


async def test_a_key_of_nobody_makes_no_keys(house: House) -> None:
    nobody = Principal(key_id="k", owner="k", scopes=("api",))
    with pytest.raises(Forbidden):
        await house.desk.create(nobody, draft())
    with pytest.raises(Forbidden):
        await house.desk.mine(nobody)
    with pytest.raises(Forbidden):
        await house.desk.revoke(nobody, "k")


async def test_a_user_has_a_bounded_number_of_keys(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_MAX", 2)
    bob = as_browser(house.bob)
    _, first = await house.desk.create(bob, draft())
    await house.desk.create(bob, draft())
    with pytest.raises(Forbidden, match="the most"):
        await house.desk.create(bob, draft())
    await house.desk.revoke(bob, first.id)
    await house.desk.create(bob, draft())


# Limits.


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        (Allowance(requests_per_minute=601), "limits.requests_per_minute"),
        (Allowance(concurrent_requests=65), "limits.concurrent_requests"),
    ],
)
async def test_a_new_key_is_not_above_its_plan(house: House, limits: Allowance, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await house.desk.create(as_browser(house.bob), draft(limits=limits))
    assert caught.value.param == param
    _, record = await house.desk.create(as_browser(house.bob), draft(limits=Allowance(requests_per_minute=600)))
    assert record.limits == Allowance(requests_per_minute=600)


async def test_who_has_no_plan_is_held_to_the_default_one(house: House) -> None:
    with pytest.raises(BadRequest):
        await house.desk.create(as_browser(house.cy), draft(limits=Allowance(requests_per_minute=21)))
    _, record = await house.desk.create(as_browser(house.cy), draft(limits=Allowance(requests_per_day=10**6)))
    assert record.limits == Allowance(requests_per_day=10**6), "what the plan leaves open may be closed anywhere"


async def test_a_member_may_only_tighten(house: House) -> None:
    bob = as_browser(house.bob)
    _, record = await house.desk.create(bob, draft(limits=LIMITS))

    async def change(limits: Allowance | None) -> Allowance | None:
        return (await house.desk.change(bob, record.id, KeyChange(limits=limits))).limits

    for looser in (Allowance(requests_per_minute=11), Allowance(concurrent_requests=65), None):
        with pytest.raises(BadRequest):
            await change(looser)
    assert await change(Allowance(requests_per_minute=5)) == Allowance(requests_per_minute=5)
    kept = Allowance(requests_per_minute=5, tokens_per_day=7)
    assert await change(Allowance(tokens_per_day=7)) == kept, "what is not said stays"
    with pytest.raises(BadRequest):
        await change(LIMITS)
    assert (await house.ring.find(record.id)).limits == kept


async def test_a_key_with_a_plan_of_its_own_is_held_to_that(house: House) -> None:
    _, record = await house.desk.issue(OPERATOR, draft(user_id="usr_bob", plan="free"))
    with pytest.raises(BadRequest):
        await house.desk.change(as_browser(house.bob), record.id, KeyChange(limits=Allowance(requests_per_minute=21)))


async def test_a_member_renames_but_changes_neither_plan_nor_models_nor_expiry(house: House) -> None:
    bob = as_browser(house.bob)
    _, record = await house.desk.create(bob, draft())
    assert (await house.desk.change(bob, record.id, KeyChange(name="ci"))).name == "ci"
    for change in (KeyChange(plan="owner"), KeyChange(models=None), KeyChange(expires_at=None)):
        with pytest.raises(Forbidden):
            await house.desk.change(bob, record.id, change)
    with pytest.raises(BadRequest):
        await house.desk.change(bob, record.id, KeyChange(name=""))


async def test_an_admin_changes_everything(house: House) -> None:
    _, record = await house.desk.create(as_browser(house.bob), draft(limits=LIMITS))
    later = house.clock.now() + 60
    change = KeyChange(plan="owner", models=("asi1",), expires_at=later, limits=Allowance(requests_per_minute=10**6))
    changed = await house.desk.change(as_browser(house.ada), record.id, change)
    assert (changed.plan, changed.models, changed.expires_at) == ("owner", ("asi1",), later)
    assert changed.limits == Allowance(requests_per_minute=10**6)
    assert (await house.desk.change(OPERATOR, record.id, KeyChange(limits=None))).limits is None
    for wrong in (KeyChange(plan="platinum"), KeyChange(expires_at=1.0), KeyChange(models=())):
        with pytest.raises(BadRequest):
            await house.desk.change(OPERATOR, record.id, wrong)


# Whose key it is.


async def everybodys(house: House) -> dict[str, KeyRecord]:
    """Return a key of each kind, by name."""
    made = {}
    for name, make in (
        ("ada's", house.desk.create(as_browser(house.ada), draft())),
        ("bob's", house.desk.create(as_browser(house.bob), draft())),
        ("bob's for lab", house.desk.create(as_browser(house.bob), draft(team_id="team_lab"))),
        ("cy's", house.desk.create(as_browser(house.cy), draft())),
        ("cy's for lab", house.desk.create(as_browser(house.cy), draft(team_id="team_lab"))),
        ("lab's", house.desk.issue(OPERATOR, draft(team_id="team_lab"))),
        ("nobody's", house.desk.issue(OPERATOR, draft())),
    ):
        house.clock.move(1)
        _, made[name] = await make
    return made


MANAGED = {
    "usr_bob": {"bob's", "bob's for lab", "cy's for lab", "lab's"},
    "usr_cy": {"cy's", "cy's for lab"},
}


@pytest.mark.parametrize("user_id", MANAGED)
async def test_a_user_manages_its_keys_and_those_of_teams_it_owns_and_the_rest_is_not_there(
    house: House, user_id: str
) -> None:
    keys = await everybodys(house)
    caller = as_browser(house.bob if user_id == "usr_bob" else house.cy)
    mine = MANAGED[user_id]
    assert {key.id for key in await house.desk.mine(caller)} == {keys[name].id for name in mine}
    for name in keys.keys() - mine:
        for call in (
            house.desk.revoke(caller, keys[name].id),
            house.desk.rotate(caller, keys[name].id),
            house.desk.change(caller, keys[name].id, KeyChange(name="mine")),
        ):
            with pytest.raises(NotFound) as foreign:
                await call
            with pytest.raises(NotFound) as missing:
                await house.desk.revoke(caller, "missing")
            assert foreign.value.message.replace(keys[name].id, "missing") == missing.value.message
        assert await house.ring.find(keys[name].id) == keys[name]
    for name in mine:
        assert (await house.desk.revoke(caller, keys[name].id)).revoked_at is not None


async def test_a_teams_owner_revokes_but_does_not_take_over_a_members_key(house: House) -> None:
    keys = await everybodys(house)
    bob = as_browser(house.bob)
    with pytest.raises(Forbidden):
        await house.desk.rotate(bob, keys["cy's for lab"].id)
    text, _ = await house.desk.rotate(bob, keys["lab's"].id)
    assert (await house.holder(text)).owner == "team_lab"


async def test_a_revoked_key_is_not_rotated(house: House) -> None:
    _, record = await house.desk.create(as_browser(house.bob), draft())
    await house.desk.revoke(as_browser(house.bob), record.id)
    with pytest.raises(BadRequest) as caught:
        await house.desk.rotate(as_browser(house.bob), record.id)
    assert caught.value.code == "key_revoked"


async def test_an_admin_manages_all_keys(house: House) -> None:
    keys = await everybodys(house)
    for caller in (OPERATOR, as_browser(house.ada)):
        assert {key.id for key in await house.desk.all(caller)} == {key.id for key in keys.values()}
    for name in keys:
        text, _ = await house.desk.rotate(OPERATOR, keys[name].id)
        assert (await house.holder(text)).key_id == keys[name].id
        await house.desk.revoke(as_browser(house.ada), keys[name].id)
    with pytest.raises(NotFound):
        await house.desk.revoke(OPERATOR, "missing")


async def test_only_an_admin_sees_all_and_issues(house: House) -> None:
    for caller in (as_browser(house.bob), Principal(key_id="k", owner="k", scopes=("api",))):
        with pytest.raises(Forbidden):
            await house.desk.all(caller)
        with pytest.raises(Forbidden):
            await house.desk.issue(caller, draft())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"user_id": "usr_9"}, "user_id"),
        ({"team_id": "team_9"}, "team_id"),
        ({"user_id": "usr_ada", "team_id": "team_lab"}, "team_id"),
        ({"plan": "platinum"}, "plan"),
    ],
)
async def test_an_admin_issues_no_key_that_would_be_refused(house: House, fields: dict[str, str], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await house.desk.issue(OPERATOR, draft(**fields))
    assert caught.value.param == param
    assert await house.ring.list_all() == ()


# Restricted keys.


@pytest.mark.parametrize(
    "restriction",
    [{"models": ["asi1"]}, {"limits": {"requests_per_minute": 5}}, {"expires_at": 9e9}, {"plan": "free"}],
)
async def test_a_restricted_key_manages_nothing_but_itself(house: House, restriction: dict[str, object]) -> None:
    text, record = await house.desk.issue(OPERATOR, draft(user_id="usr_bob", **restriction))
    other_text, other = await house.desk.create(as_browser(house.bob), draft("free"))
    caller = await house.holder(text)
    for call in (
        house.desk.create(caller, draft()),
        house.desk.rotate(caller, other.id),
        house.desk.revoke(caller, other.id),
        house.desk.change(caller, other.id, KeyChange(name="x")),
    ):
        with pytest.raises(Forbidden):
            await call
    assert len(await house.desk.mine(caller)) == 2
    assert (await house.desk.change(caller, record.id, KeyChange(name="me"))).name == "me"
    await house.desk.rotate(caller, record.id)
    await house.desk.revoke(caller, record.id)
    free = await house.holder(other_text)
    await house.desk.create(free, draft())


# Those behind a key.


async def test_a_disabled_users_keys_are_refused_and_come_back_with_it(house: House) -> None:
    text, _ = await house.desk.create(as_browser(house.bob), draft())
    await house.holder(text)
    await house.people.disable_user(OPERATOR, "usr_bob")
    assert "disabled" in await refused(house, text)
    await house.people.change_user(OPERATOR, "usr_bob", UserChange(disabled_at=None))
    await house.ring.poll()
    house.clock.move(1)
    assert (await house.holder(text)).user_id == "usr_bob"


async def test_who_leaves_a_team_loses_its_keys_for_it_and_no_other(house: House) -> None:
    ours, _ = await house.desk.create(as_browser(house.cy), draft(team_id="team_lab"))
    mine, _ = await house.desk.create(as_browser(house.cy), draft())
    await house.people.remove_member(OPERATOR, "team_lab", "usr_cy")
    assert "team" in await refused(house, ours)
    assert (await house.holder(mine)).user_id == "usr_cy"
