"""The contract of `convene.store.base_accounts.Accounts`, run unchanged against every implementation."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.errors import Conflict, NotFound
from convene.limits.allowance import Allowance
from convene.store.base import StoreFault
from convene.store.base_accounts import (
    BrowserSession,
    Link,
    Member,
    Standing,
    Team,
    TeamChange,
    User,
    UserChange,
)

if TYPE_CHECKING:
    from convene.store.base import Store
    from convene.store.base_accounts import Accounts
    from stores import OpenAnother

NOW = 1_000.0
ADA = User(
    id="usr_1",
    name="Ada Lovelace",
    email="ada@example.com",
    password="$argon2id$x",
    role="admin",
    plan="pro",
    limits=Allowance(requests_per_minute=5, budget_total=7_000_000),
    created_at=1.25,
)
BOB = User(id="usr_2", name="Bob", email="bob@example.com", created_at=2.0)
LAB = Team(id="team_1", name="Lab", plan="free", limits=Allowance(tokens_per_day=9), created_at=3.5)


@pytest.fixture
def accounts(store: Store) -> Accounts:
    return store.accounts


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def link(text: str = "one", **fields: object) -> Link:
    given: dict[str, object] = {
        "id": f"lnk_{text}",
        "digest": digest(text),
        "purpose": "signup",
        "created_by": "usr_1",
        "created_at": 10.0,
        "expires_at": NOW + 60,
    }
    return msgspec.convert(given | fields, Link)


def session(
    text: str = "s", user_id: str = "usr_1", *, seen_at: float = NOW, expires_at: float = 9e9
) -> BrowserSession:
    return BrowserSession(digest=digest(text), user_id=user_id, created_at=NOW, seen_at=seen_at, expires_at=expires_at)


# Users.


async def test_a_user_comes_back_as_it_was_kept(accounts: Accounts) -> None:
    await accounts.add_user(ADA)
    await accounts.add_user(BOB)
    assert await accounts.get_user("usr_1") == ADA
    assert await accounts.get_user("usr_2") == BOB
    assert await accounts.find_user("bob@example.com") == BOB


async def test_unknown_users_are_none_and_texts_are_compared_exactly(accounts: Accounts) -> None:
    await accounts.add_user(ADA)
    for wrong in ("usr_9", "", "usr_%", "USR_1", "usr_1' OR '1'='1"):
        assert await accounts.get_user(wrong) is None
    for wrong in ("", "%", "ADA@example.com", "ada@example.com "):
        assert await accounts.find_user(wrong) is None


async def test_neither_an_id_nor_an_email_is_given_twice(accounts: Accounts) -> None:
    await accounts.add_user(ADA)
    for twin in (msgspec.structs.replace(BOB, id="usr_1"), msgspec.structs.replace(BOB, email=ADA.email)):
        with pytest.raises(Conflict):
            await accounts.add_user(twin)
    assert await accounts.list_users(10) == (ADA,)


async def test_of_many_sign_ups_with_one_email_one_is_kept(accounts: Accounts) -> None:
    twins = [msgspec.structs.replace(BOB, id=f"usr_{number}") for number in range(20)]
    results = await asyncio.gather(*(accounts.add_user(twin) for twin in twins), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert len(await accounts.list_users(100)) == 1


async def test_users_are_paged_by_id(accounts: Accounts) -> None:
    for number in (3, 1, 5, 2, 4):
        await accounts.add_user(msgspec.structs.replace(BOB, id=f"usr_{number}", email=f"{number}@x.y"))
    first = await accounts.list_users(2)
    second = await accounts.list_users(2, first[-1].id)
    third = await accounts.list_users(2, second[-1].id)
    assert [user.id for user in (*first, *second, *third)] == ["usr_1", "usr_2", "usr_3", "usr_4", "usr_5"]
    assert await accounts.list_users(2, third[-1].id) == ()


async def test_a_change_of_a_user_touches_what_it_names_and_nothing_else(accounts: Accounts) -> None:
    await accounts.add_user(ADA)
    await accounts.add_user(BOB)
    changed = await accounts.change_user("usr_1", UserChange(name="A.", plan=""))
    assert changed == msgspec.structs.replace(ADA, name="A.", plan="")
    changed = await accounts.change_user("usr_1", UserChange(limits=None, disabled_at=5.5))
    assert changed == msgspec.structs.replace(ADA, name="A.", plan="", limits=None, disabled_at=5.5)
    changed = await accounts.change_user("usr_1", UserChange(limits=Allowance(), disabled_at=None, role="member"))
    assert changed == await accounts.get_user("usr_1")
    assert changed is not None
    assert (changed.limits, changed.disabled_at, changed.role) == (Allowance(), None, "member")
    assert await accounts.get_user("usr_2") == BOB


async def test_a_change_of_nothing_tells_whether_the_user_is_there(accounts: Accounts) -> None:
    await accounts.add_user(ADA)
    assert await accounts.change_user("usr_1", UserChange()) == ADA
    assert await accounts.change_user("usr_9", UserChange()) is None
    assert await accounts.change_user("usr_9", UserChange(name="x")) is None


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        (UserChange(password="new"), True),
        (UserChange(role="member"), True),
        (UserChange(disabled_at=5.0), True),
        (UserChange(disabled_at=None), False),
        (UserChange(name="A.", plan="x", limits=None), False),
    ],
)
async def test_a_new_role_or_password_and_disabling_end_the_sessions_of_that_user_alone(
    accounts: Accounts, change: UserChange, *, ends: bool
) -> None:
    await accounts.add_user(ADA)
    await accounts.add_session(session("a1"))
    await accounts.add_session(session("a2"))
    await accounts.add_session(session("b", "usr_2"))
    await accounts.change_user("usr_1", change)
    assert (await accounts.get_session(digest("a1")) is None) is ends
    assert (await accounts.get_session(digest("a2")) is None) is ends
    assert await accounts.get_session(digest("b")) is not None


# Teams.


async def test_a_team_is_kept_changed_and_listed(accounts: Accounts) -> None:
    await accounts.add_team(LAB)
    assert await accounts.get_team("team_1") == LAB
    with pytest.raises(Conflict):
        await accounts.add_team(LAB)
    changed = await accounts.change_team("team_1", TeamChange(name="Works", limits=None))
    assert changed == msgspec.structs.replace(LAB, name="Works", limits=None)
    await accounts.add_team(msgspec.structs.replace(LAB, id="team_0"))
    assert [team.id for team in await accounts.list_teams(10)] == ["team_0", "team_1"]
    assert [team.id for team in await accounts.list_teams(10, "team_0")] == ["team_1"]
    assert await accounts.get_team("team_9") is None
    assert await accounts.change_team("team_9", TeamChange(name="x")) is None


async def test_a_member_is_put_once_and_its_role_can_change(accounts: Accounts) -> None:
    await accounts.add_user(ADA)
    await accounts.add_user(BOB)
    await accounts.add_team(LAB)
    await accounts.put_member(Member(team_id="team_1", user_id="usr_2"))
    await accounts.put_member(Member(team_id="team_1", user_id="usr_1"))
    await accounts.put_member(Member(team_id="team_1", user_id="usr_2", role="owner"))
    ada, bob = Member(team_id="team_1", user_id="usr_1"), Member(team_id="team_1", user_id="usr_2", role="owner")
    assert await accounts.members_of("team_1") == (ada, bob)
    assert await accounts.teams_of("usr_2") == (bob,)
    assert await accounts.remove_member("team_1", "usr_1")
    assert not await accounts.remove_member("team_1", "usr_1")
    assert await accounts.members_of("team_1") == (bob,)
    assert await accounts.members_of("team_9") == ()


@pytest.mark.parametrize(("team_id", "user_id"), [("team_1", "usr_9"), ("team_9", "usr_1"), ("", "")])
async def test_nobody_becomes_a_member_of_nothing(accounts: Accounts, team_id: str, user_id: str) -> None:
    await accounts.add_user(ADA)
    await accounts.add_team(LAB)
    with pytest.raises(NotFound):
        await accounts.put_member(Member(team_id=team_id, user_id=user_id))
    assert await accounts.members_of(team_id) == ()


async def test_what_stands_behind_a_key_comes_in_one_piece(accounts: Accounts) -> None:
    await accounts.add_user(ADA)
    await accounts.add_team(LAB)
    assert await accounts.standing("usr_1", "team_1") == Standing(user=ADA, team=LAB)
    member = Member(team_id="team_1", user_id="usr_1", role="owner")
    await accounts.put_member(member)
    assert await accounts.standing("usr_1", "team_1") == Standing(user=ADA, team=LAB, membership=member)
    assert await accounts.standing("usr_1", "") == Standing(user=ADA)
    assert await accounts.standing("", "team_1") == Standing(team=LAB)
    assert await accounts.standing("usr_9", "team_9") == Standing()


# Links.


async def test_a_link_comes_back_as_it_was_kept_and_by_its_digest_alone(accounts: Accounts) -> None:
    whole = link(role="admin", email="x@y.z", plan="owner", team_id="team_1", user_id="usr_1")
    await accounts.add_link(whole)
    assert await accounts.get_link(digest("one")) == whole
    assert await accounts.get_link(digest("two")) is None
    assert await accounts.get_link(b"") is None
    for twin in (link("two", id="lnk_one"), link("one", id="lnk_two")):
        with pytest.raises(Conflict):
            await accounts.add_link(twin)


async def test_a_sign_up_link_works_once_and_brings_its_team(accounts: Accounts) -> None:
    await accounts.add_team(LAB)
    await accounts.add_link(link(team_id="team_1"))
    assert await accounts.redeem_signup(digest("one"), BOB, NOW) == "done"
    assert await accounts.get_user("usr_2") == BOB
    assert await accounts.teams_of("usr_2") == (Member(team_id="team_1", user_id="usr_2"),)
    assert await accounts.redeem_signup(digest("one"), ADA, NOW) == "gone"
    assert await accounts.get_user("usr_1") is None
    used = await accounts.get_link(digest("one"))
    assert used is not None
    assert used.used_at == NOW
    assert not used.is_live(NOW)


async def test_of_many_who_use_one_link_at_once_one_gets_in(accounts: Accounts) -> None:
    await accounts.add_link(link())
    users = [msgspec.structs.replace(BOB, id=f"usr_{number}", email=f"{number}@x.y") for number in range(20)]
    outcomes = await asyncio.gather(*(accounts.redeem_signup(digest("one"), user, NOW) for user in users))
    assert sorted(outcomes) == ["done"] + ["gone"] * 19
    assert len(await accounts.list_users(100)) == 1


async def test_a_link_for_a_taken_email_is_used_up_and_changes_nothing(accounts: Accounts) -> None:
    await accounts.add_user(ADA)
    await accounts.add_team(LAB)
    await accounts.add_link(link(team_id="team_1"))
    twin = msgspec.structs.replace(BOB, email=ADA.email)
    assert await accounts.redeem_signup(digest("one"), twin, NOW) == "taken"
    assert await accounts.list_users(10) == (ADA,)
    assert await accounts.members_of("team_1") == ()
    assert await accounts.redeem_signup(digest("one"), BOB, NOW) == "gone"


@pytest.mark.parametrize(
    "wrong", [link(purpose="password", user_id="usr_1"), link(expires_at=NOW), link(used_at=1.0), link("other")]
)
async def test_a_link_that_is_old_used_of_another_kind_or_unknown_opens_nothing(
    accounts: Accounts, wrong: Link
) -> None:
    await accounts.add_link(wrong)
    assert await accounts.redeem_signup(digest("one"), BOB, NOW) == "gone"
    assert await accounts.get_user("usr_2") is None


async def test_a_team_that_is_not_there_does_not_stop_a_sign_up(accounts: Accounts) -> None:
    await accounts.add_link(link(team_id="team_9"))
    assert await accounts.redeem_signup(digest("one"), BOB, NOW) == "done"
    assert await accounts.teams_of("usr_2") == ()


async def test_a_password_link_works_once_and_ends_the_sessions_of_its_user(accounts: Accounts) -> None:
    await accounts.add_user(ADA)
    await accounts.add_user(BOB)
    await accounts.add_session(session("a"))
    await accounts.add_session(session("b", "usr_2"))
    await accounts.add_link(link(purpose="password", user_id="usr_1"))
    assert await accounts.redeem_password(digest("one"), "new", NOW) == "usr_1"
    assert await accounts.get_user("usr_1") == msgspec.structs.replace(ADA, password="new")
    assert await accounts.get_user("usr_2") == BOB
    assert await accounts.get_session(digest("a")) is None
    assert await accounts.get_session(digest("b")) is not None
    assert await accounts.redeem_password(digest("one"), "newer", NOW) is None
    assert await accounts.get_user("usr_1") == msgspec.structs.replace(ADA, password="new")


async def test_of_many_who_set_a_password_by_one_link_one_does(accounts: Accounts) -> None:
    await accounts.add_user(ADA)
    await accounts.add_link(link(purpose="password", user_id="usr_1"))
    done = await asyncio.gather(*(accounts.redeem_password(digest("one"), f"p{n}", NOW) for n in range(20)))
    assert sorted(done, key=str) == [None] * 19 + ["usr_1"]


@pytest.mark.parametrize(
    "wrong",
    [
        link(user_id="usr_1"),
        link(purpose="password", user_id="usr_1", expires_at=NOW),
        link(purpose="password", user_id="usr_2"),
        link(purpose="password", user_id="usr_9"),
    ],
)
async def test_no_other_link_sets_a_password_nor_does_one_of_a_disabled_user(accounts: Accounts, wrong: Link) -> None:
    disabled = msgspec.structs.replace(BOB, disabled_at=1.0)
    await accounts.add_user(ADA)
    await accounts.add_user(disabled)
    await accounts.add_session(session("a"))
    await accounts.add_link(wrong)
    assert await accounts.redeem_password(digest("one"), "new", NOW) is None
    assert await accounts.list_users(10) == (ADA, disabled)
    assert await accounts.get_session(digest("a")) is not None


async def test_links_are_listed_until_used_and_can_be_withdrawn(accounts: Accounts) -> None:
    for text, created_at in (("b", 2.0), ("a", 2.0), ("c", 1.0)):
        await accounts.add_link(link(text, created_at=created_at))
    await accounts.redeem_signup(digest("b"), BOB, NOW)
    assert [one.id for one in await accounts.list_links()] == ["lnk_c", "lnk_a"]
    assert await accounts.withdraw_link("lnk_c")
    assert not await accounts.withdraw_link("lnk_c")
    assert not await accounts.withdraw_link("lnk_b")
    assert [one.id for one in await accounts.list_links()] == ["lnk_a"]
    assert await accounts.redeem_signup(digest("c"), ADA, NOW) == "gone"


async def test_the_first_link_is_made_once_by_whoever_comes_first(accounts: Accounts) -> None:
    links = [link(f"t{number}", role="admin") for number in range(10)]
    made = await asyncio.gather(*(accounts.add_first_link(one, NOW) for one in links))
    assert made.count(True) == 1
    assert len(await accounts.list_links()) == 1


async def test_an_invitation_of_a_member_is_no_link_for_an_admin(accounts: Accounts) -> None:
    await accounts.add_user(BOB)
    await accounts.add_link(link("m"))
    await accounts.add_link(link("p", purpose="password", role="admin", user_id="usr_2"))
    assert await accounts.add_first_link(link("a", role="admin"), NOW)


async def test_an_expired_first_link_is_followed_by_another_and_an_admin_ends_that(accounts: Accounts) -> None:
    assert await accounts.add_first_link(link("a", role="admin"), NOW)
    assert not await accounts.add_first_link(link("b", role="admin"), NOW + 59)
    assert await accounts.add_first_link(link("c", role="admin", expires_at=NOW + 500), NOW + 60)
    assert await accounts.redeem_signup(digest("c"), ADA, NOW + 61) == "done"
    assert not await accounts.add_first_link(link("d", role="admin"), NOW + 1000)
    await accounts.change_user("usr_1", UserChange(disabled_at=NOW))
    assert await accounts.add_first_link(link("e", role="admin", expires_at=9e9), NOW + 1000)


# Browser sessions.


async def test_a_session_is_kept_touched_and_ended(accounts: Accounts) -> None:
    await accounts.add_session(session())
    assert await accounts.get_session(digest("s")) == session()
    await accounts.touch_session(digest("s"), NOW + 5)
    await accounts.touch_session(digest("nobody"), NOW + 5)
    assert await accounts.get_session(digest("s")) == session(seen_at=NOW + 5)
    assert await accounts.get_session(digest("nobody")) is None
    assert await accounts.end_session(digest("s"))
    assert not await accounts.end_session(digest("s"))
    assert await accounts.get_session(digest("s")) is None


async def test_old_sessions_are_forgotten(accounts: Accounts) -> None:
    await accounts.add_session(session("idle", seen_at=NOW - 1))
    await accounts.add_session(session("over", expires_at=NOW))
    await accounts.add_session(session("good", seen_at=NOW, expires_at=NOW + 1))
    assert await accounts.forget_sessions(NOW, NOW) == 2
    assert await accounts.get_session(digest("good")) is not None
    assert await accounts.forget_sessions(NOW, NOW) == 0


# What the key ring watches.


async def test_every_change_that_may_void_a_key_changes_the_version(store: Store) -> None:
    accounts = store.accounts
    versions = [await store.keys.version()]

    async def note() -> None:
        versions.append(await store.keys.version())

    await accounts.add_user(ADA)
    await note()
    await accounts.add_team(LAB)
    await note()
    await accounts.put_member(Member(team_id="team_1", user_id="usr_1"))
    await note()
    await accounts.change_user("usr_1", UserChange(disabled_at=1.0))
    await note()
    await accounts.change_team("team_1", TeamChange(plan="pro"))
    await note()
    await accounts.remove_member("team_1", "usr_1")
    await note()
    assert versions == sorted(set(versions))


async def test_sessions_and_links_do_not_empty_the_key_rings_memory(store: Store) -> None:
    before = await store.keys.version()
    await store.accounts.add_session(session())
    await store.accounts.touch_session(digest("s"), 5.0)
    await store.accounts.add_link(link())
    await store.accounts.withdraw_link("lnk_one")
    await store.accounts.end_session(digest("s"))
    await store.accounts.forget_sessions(NOW, NOW)
    assert await store.keys.version() == before


async def test_a_closed_store_is_a_store_fault(store: Store) -> None:
    await store.aclose()
    with pytest.raises(StoreFault):
        await store.accounts.get_user("usr_1")
    with pytest.raises(StoreFault):
        await store.accounts.add_user(ADA)
    with pytest.raises(StoreFault):
        await store.accounts.get_session(digest("s"))


async def test_accounts_outlive_the_process_that_made_them(shared: OpenAnother) -> None:
    first = await shared()
    await first.accounts.add_user(ADA)
    await first.aclose()
    second = await shared()
    assert await second.accounts.get_user("usr_1") == ADA
