"""The ways in: log-in, sign-up, links and sessions, and what nobody may learn from them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.errors import BadRequest, Forbidden, RateLimited, Unauthorized
from convene.serving import doors as module
from convene.serving.base_accounts import KeyDraft, LinkDraft, UserChange
from convene.serving.doors import check_email, check_text, make_first_link, normal_email
from convene.serving.tokens import form_token
from unit.serving.account_doubles import HOME, OPERATOR, PASSWORD, House, as_browser, without_digits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from convene.serving.doors import Signup


async def invitation(house: House, **fields: str) -> str:
    text, _ = await house.people.invite(OPERATOR, msgspec.convert(fields, LinkDraft))
    return text


@pytest.fixture
async def open_house() -> AsyncIterator[House]:
    made = House("open")
    await made.settle()
    yield made
    await made.passwords.aclose()


# Logging in.


async def test_the_right_password_opens_a_session_that_is_the_user(house: House) -> None:
    await house.give_password(house.bob)
    session = await house.doors.log_in(" BOB@x.org ", PASSWORD, HOME)
    visitor = await house.doors.admit(session)
    assert visitor is not None
    assert visitor.user.id == "usr_bob"
    assert visitor.session == session
    assert visitor.principal == as_browser(house.bob)
    assert (visitor.principal.owner, visitor.principal.scopes) == ("usr_bob", ("api",))


async def test_an_admin_who_logs_in_has_the_admins_scope(house: House) -> None:
    await house.give_password(house.ada)
    visitor = await house.doors.admit(await house.doors.log_in("ada@x.org", PASSWORD, HOME))
    assert visitor is not None
    assert visitor.principal.scopes == ("api", "admin")


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("bob@x.org", "wrong horse battery"),
        ("nobody@x.org", PASSWORD),
        ("cy@x.org", PASSWORD),  # has no password yet
        ("ada@x.org", PASSWORD),  # is disabled below
        ("", ""),
        ("%", PASSWORD),
    ],
)
async def test_every_refused_log_in_is_told_the_same(house: House, email: str, password: str) -> None:
    await house.give_password(house.bob)
    await house.give_password(house.ada)
    await house.accounts.change_user("usr_ada", UserChange(disabled_at=1.0))
    with pytest.raises(Unauthorized) as caught:
        await house.doors.log_in(email, password, HOME)
    assert (caught.value.message, caught.value.code) == ("Email or password is wrong.", "invalid_credentials")
    assert caught.value.detail == ""


async def test_every_refused_log_in_costs_one_hash(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.give_password(house.bob)
    compared: list[str | None] = []
    matches = house.passwords.matches

    async def note(kept: str | None, password: str) -> bool:
        compared.append(kept)
        return await matches(kept, password)

    monkeypatch.setattr(house.passwords, "matches", note)
    for email in ("bob@x.org", "nobody@x.org"):
        house.clock.move(2)
        with pytest.raises(Unauthorized):
            await house.doors.log_in(email, "wrong horse battery", HOME)
    assert len(compared) == 2
    assert compared[1] is None


async def test_an_address_has_one_try_in_two_seconds_whoever_it_tries(house: House) -> None:
    for email in ("bob@x.org", "nobody@x.org"):
        house.clock.move(2)
        with pytest.raises(Unauthorized):
            await house.doors.log_in(email, "x", HOME)
        with pytest.raises(RateLimited) as caught:
            await house.doors.log_in("cy@x.org", "x", HOME)
        assert caught.value.retry_after_s == pytest.approx(2.0)
    with pytest.raises(Unauthorized):
        await house.doors.log_in("cy@x.org", "x", "192.0.2.2")


async def test_the_tries_of_one_network_are_counted_together(house: House) -> None:
    with pytest.raises(Unauthorized):
        await house.doors.log_in("cy@x.org", "x", "2001:db8::1")
    with pytest.raises(RateLimited):
        await house.doors.log_in("cy@x.org", "x", "2001:db8::2")


async def test_at_most_50_ms_of_a_processor_go_to_one_address_each_second() -> None:
    assert 0.069 / module.ADDRESS_S <= 0.050


@pytest.mark.parametrize("email", ["bob@x.org", "nobody@x.org"])
async def test_guessing_one_email_from_everywhere_slows_down_whether_it_has_an_account_or_not(
    house: House, email: str
) -> None:
    await house.give_password(house.bob)
    for number in range(module.ACCOUNT_BURST):
        with pytest.raises(Unauthorized):
            await house.doors.log_in(email, "x", f"198.51.100.{number}")
    with pytest.raises(RateLimited) as caught:
        await house.doors.log_in(email, PASSWORD, "203.0.113.1")
    assert without_digits(caught.value.message) == "Too many tries. Wait a little before the next one."
    house.clock.move(module.ACCOUNT_S)
    with pytest.raises(Unauthorized):
        await house.doors.log_in(email, "x", "203.0.113.2")


async def test_right_passwords_are_not_counted(house: House) -> None:
    await house.give_password(house.bob)
    for _ in range(3 * module.ACCOUNT_BURST):
        house.clock.move(2)
        await house.doors.log_in("bob@x.org", PASSWORD, HOME)


# Sessions.


async def session_of(house: House) -> str:
    await house.give_password(house.bob)
    return await house.doors.log_in("bob@x.org", PASSWORD, HOME)


async def is_in(house: House, session: str) -> bool:
    return await house.doors.admit(session) is not None


async def test_every_log_in_has_a_session_of_its_own(house: House) -> None:
    first = await session_of(house)
    house.clock.move(2)
    second = await house.doors.log_in("bob@x.org", PASSWORD, HOME)
    assert first != second
    await house.doors.log_out(first)
    assert not await is_in(house, first)
    assert await is_in(house, second)


async def test_a_session_ends_when_it_is_idle_and_lives_while_it_is_used(house: House) -> None:
    session = await session_of(house)
    for _ in range(5):
        house.clock.move(module.IDLE_S - 1)
        assert await is_in(house, session)
    house.clock.move(module.IDLE_S)
    assert not await is_in(house, session)


async def test_a_session_ends_however_busy_it_is(house: House) -> None:
    session = await session_of(house)
    for _ in range(int(module.TOTAL_S // 3600)):
        assert await is_in(house, session)
        house.clock.move(3600)
    assert not await is_in(house, session)


async def test_looking_often_is_written_down_seldom(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await session_of(house)
    touched: list[float] = []

    async def note(digest: bytes, at: float) -> None:
        del digest
        touched.append(at)

    monkeypatch.setattr(house.accounts, "touch_session", note)
    for _ in range(10):
        await is_in(house, session)
    assert touched == []
    house.clock.move(module.TOUCH_S)
    await is_in(house, session)
    assert len(touched) == 1


@pytest.mark.parametrize("text", ["", "x", "convene_session_" + "0" * 38, "\ud800", "' OR 1=1 --"])
async def test_what_is_no_session_is_nobody(house: House, text: str) -> None:
    await session_of(house)
    assert await house.doors.admit(text) is None
    await house.doors.log_out(text)


async def test_neither_a_strangers_session_nor_a_link_nor_a_key_is_one(house: House) -> None:
    await session_of(house)
    key, _ = await house.desk.create(as_browser(house.bob), KeyDraft(name="k"))
    for text in (form_token("session", house.clock), form_token("link", house.clock), key):
        assert await house.doors.admit(text) is None


@pytest.mark.parametrize("change", [UserChange(disabled_at=1.0), UserChange(role="admin"), UserChange(password="x")])
async def test_disabling_a_new_role_and_a_new_password_end_all_sessions(house: House, change: UserChange) -> None:
    session = await session_of(house)
    await house.accounts.change_user("usr_bob", change)
    assert not await is_in(house, session)


async def test_a_user_who_is_disabled_by_another_road_is_not_let_in(house: House) -> None:
    session = await session_of(house)
    house.accounts._users["usr_bob"] = msgspec.structs.replace(house.bob, disabled_at=1.0)
    assert not await is_in(house, session)


async def test_old_sessions_are_cleared_out_at_log_in(house: House) -> None:
    await session_of(house)
    house.clock.move(module.IDLE_S + 1)
    await house.doors.log_in("bob@x.org", PASSWORD, HOME)
    assert len(house.accounts._sessions) == 1


# Changing a password.


async def test_a_new_password_ends_every_session_but_the_one_it_opens(house: House) -> None:
    session = await session_of(house)
    house.clock.move(2)
    other = await house.doors.log_in("bob@x.org", PASSWORD, HOME)
    visitor = await house.doors.admit(session)
    assert visitor is not None
    house.clock.move(2)
    fresh = await house.doors.change_password(visitor, PASSWORD, "another long secret", HOME)
    assert [await is_in(house, one) for one in (session, other, fresh)] == [False, False, True]
    house.clock.move(2)
    with pytest.raises(Unauthorized):
        await house.doors.log_in("bob@x.org", PASSWORD, HOME)
    house.clock.move(2)
    assert await house.doors.log_in("bob@x.org", "another long secret", HOME)


async def test_who_does_not_know_the_old_password_sets_no_new_one(house: House) -> None:
    visitor = await house.doors.admit(await session_of(house))
    assert visitor is not None
    house.clock.move(2)
    with pytest.raises(Unauthorized):
        await house.doors.change_password(visitor, "wrong horse battery", "another long secret", HOME)
    with pytest.raises(BadRequest):
        await house.doors.change_password(visitor, PASSWORD, "short", HOME)
    house.clock.move(2)
    assert await house.doors.log_in("bob@x.org", PASSWORD, HOME)


# Signing up.


async def test_an_invitation_makes_one_account_as_it_says(house: House) -> None:
    link = await invitation(house, plan="pro", team_id="team_lab")
    await house.doors.sign_up(link, " Dee ", "DEE@x.org", PASSWORD, HOME)
    dee = await house.accounts.find_user("dee@x.org")
    assert dee is not None
    assert (dee.name, dee.role, dee.plan) == ("Dee", "member", "pro")
    assert [one.team_id for one in await house.accounts.teams_of(dee.id)] == ["team_lab"]
    assert PASSWORD not in (dee.password or PASSWORD)
    house.clock.move(2)
    assert await house.doors.log_in("dee@x.org", PASSWORD, HOME)
    with pytest.raises(Forbidden):
        await house.doors.sign_up(link, "Eve", "eve@x.org", PASSWORD, HOME)
    assert await house.accounts.find_user("eve@x.org") is None


async def test_looking_at_a_link_does_not_use_it_up(house: House) -> None:
    link = await invitation(house)
    for _ in range(3):
        assert await house.doors.look_at(link) is not None
    await house.doors.sign_up(link, "Dee", "dee@x.org", PASSWORD, HOME)
    assert await house.doors.look_at(link) is None


async def test_a_mistake_in_the_form_does_not_use_the_link_up(house: House) -> None:
    link = await invitation(house, email="dee@x.org")
    for name, email, password in (
        ("", "dee@x.org", PASSWORD),
        ("Dee", "dee", PASSWORD),
        ("Dee", "dee@x.org", "short"),
        ("Dee", "eve@x.org", PASSWORD),
    ):
        with pytest.raises(BadRequest):
            await house.doors.sign_up(link, name, email, password, HOME)
    await house.doors.sign_up(link, "Dee", "dee@x.org", PASSWORD, HOME)
    assert await house.accounts.find_user("dee@x.org") is not None


async def test_of_many_who_sign_up_by_one_link_at_once_one_gets_in(house: House) -> None:
    link = await invitation(house)
    tries = (
        house.doors.sign_up(link, "Dee", f"dee{number}@x.org", PASSWORD, f"192.0.2.{number}") for number in range(8)
    )
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, Forbidden) for result in results) == 7
    assert len(await house.accounts.list_users(100)) == 4


async def test_a_link_dies_of_age(house: House) -> None:
    link = await invitation(house)
    house.clock.move(module.LINK_S)
    assert await house.doors.look_at(link) is None
    with pytest.raises(Forbidden):
        await house.doors.sign_up(link, "Dee", "dee@x.org", PASSWORD, HOME)


@pytest.mark.parametrize("signup", ["invitation", "closed"])
async def test_nobody_signs_up_without_a_link_unless_it_is_open(signup: Signup) -> None:
    house = House(signup)
    assert not house.doors.is_open
    with pytest.raises(Forbidden):
        await house.doors.sign_up("", "Dee", "dee@x.org", PASSWORD, HOME)
    assert await house.accounts.list_users(10) == ()


async def test_where_sign_up_is_closed_only_an_admins_link_and_a_new_password_work() -> None:
    house = House("closed")
    await house.settle()
    assert await house.doors.look_at(await invitation(house)) is None
    assert await house.doors.look_at(await invitation(house, role="admin")) is not None
    await house.give_password(house.bob)
    assert await house.doors.log_in("bob@x.org", PASSWORD, HOME)
    await house.passwords.aclose()


async def test_anybody_signs_up_as_a_member_where_it_is_open(open_house: House) -> None:
    await open_house.doors.sign_up("", "Dee", "dee@x.org", PASSWORD, HOME)
    dee = await open_house.accounts.find_user("dee@x.org")
    assert dee is not None
    assert (dee.role, dee.plan, dee.limits) == ("member", "", None)


async def test_signing_up_with_a_taken_email_says_nothing_and_changes_nothing(open_house: House) -> None:
    before = await open_house.accounts.list_users(10)
    await open_house.doors.sign_up("", "Bob again", "bob@x.org", PASSWORD, HOME)
    assert await open_house.accounts.list_users(10) == before
    link = await invitation(open_house)
    open_house.clock.move(2)
    await open_house.doors.sign_up(link, "Bob again", "bob@x.org", PASSWORD, HOME)
    assert await open_house.accounts.list_users(10) == before


async def test_signing_up_is_throttled_by_address_like_logging_in(open_house: House) -> None:
    await open_house.doors.sign_up("", "Dee", "dee@x.org", PASSWORD, HOME)
    with pytest.raises(RateLimited):
        await open_house.doors.sign_up("", "Eve", "eve@x.org", PASSWORD, HOME)
    with pytest.raises(RateLimited):
        await open_house.doors.log_in("dee@x.org", PASSWORD, HOME)


# Setting a password by link, and the first admin.


async def test_a_reset_link_sets_the_password_once_and_ends_the_sessions(house: House) -> None:
    session = await session_of(house)
    house.clock.move(2)
    link, _ = await house.people.reset_link(OPERATOR, "usr_bob")
    with pytest.raises(BadRequest):
        await house.doors.set_password(link, "short", HOME)
    await house.doors.set_password(link, "another long secret", HOME)
    assert not await is_in(house, session)
    house.clock.move(2)
    with pytest.raises(Forbidden):
        await house.doors.set_password(link, "a third long secret", HOME)
    assert await house.doors.log_in("bob@x.org", "another long secret", HOME)


async def test_links_do_only_what_they_are_for(house: House) -> None:
    reset, _ = await house.people.reset_link(OPERATOR, "usr_bob")
    with pytest.raises(Forbidden):
        await house.doors.sign_up(reset, "Dee", "dee@x.org", PASSWORD, HOME)
    with pytest.raises(Forbidden):
        await house.doors.set_password(await invitation(house), PASSWORD, HOME)
    with pytest.raises(Forbidden):
        await house.doors.set_password("", PASSWORD, HOME)


async def test_a_reset_link_of_a_user_who_was_disabled_meanwhile_is_dead(house: House) -> None:
    link, _ = await house.people.reset_link(OPERATOR, "usr_bob")
    await house.people.disable_user(OPERATOR, "usr_bob")
    with pytest.raises(Forbidden):
        await house.doors.set_password(link, PASSWORD, HOME)


async def test_the_first_link_makes_an_admin_and_there_is_no_second() -> None:
    house = House()
    link = await make_first_link(house.accounts, house.clock)
    assert link is not None
    assert await make_first_link(house.accounts, house.clock) is None
    await house.doors.sign_up(link, "Ada", "ada@x.org", PASSWORD, HOME)
    ada = await house.accounts.find_user("ada@x.org")
    assert ada is not None
    assert (ada.role, ada.plan) == ("admin", "owner")
    assert await make_first_link(house.accounts, house.clock) is None
    await house.passwords.aclose()


# Texts.


@pytest.mark.parametrize(
    ("text", "email"),
    [(" Ada@X.org\n", "ada@x.org"), ("a+b@x.org", "a+b@x.org"), ("\u212bke@x.org", "\u00e5ke@x.org")],
)
def test_emails_are_kept_in_one_form(text: str, email: str) -> None:
    assert check_email(text) == email
    assert normal_email(email) == email


@pytest.mark.parametrize(
    "text", ["", "@", "a@", "@x", "a b@x.org", "a\u0000@x.org", "a@x.org\nb", "x" * 250 + "@x.org"]
)
def test_what_cannot_be_an_email_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_email(text)
    assert caught.value.param == "email"


@pytest.mark.parametrize("text", ["", "  ", "x" * 101, "a\nb", "a\u202eb"])
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_text(text, "name")
    assert caught.value.param == "name"
    assert check_text(" Ada ", "name") == "Ada"
