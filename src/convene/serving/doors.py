"""The ways in without a key: log in, sign up, one-time links, browser sessions. No HTTP: `api/signup.py` shows them.

Nobody learns from here which emails have accounts: an unknown one costs the same hash and gets the same words, a
sign-up with a taken one says the same as any other, and the throttle counts texts, not accounts. A try costs about
69 ms of a processor, so each address has one in two seconds (E11: at most 50 ms per address and second).
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.errors import BadRequest, Conflict, Forbidden, RateLimited, Unauthorized
from convene.serving.base import Principal
from convene.serving.base_accounts import ADMIN, API, Visitor
from convene.serving.passwords import check_password
from convene.serving.throttle import Throttle, network_of
from convene.serving.tokens import digest_of, digest_of_token, form_token
from convene.store.base_accounts import BrowserSession, Link, User, UserChange

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.clock import Clock
    from convene.serving.passwords import Passwords
    from convene.store.base_accounts import Accounts

Signup = Literal["invitation", "open", "closed"]

ADDRESS_S: Final = 2.0
ACCOUNT_S: Final = 30.0
ACCOUNT_BURST: Final = 10
"""Ten wrong passwords for one email, from wherever, then one each half minute; a right one costs nothing."""
IDLE_S: Final = 12 * 3600.0
TOTAL_S: Final = 7 * 86_400.0
TOUCH_S: Final = 60.0
"""A session's use is written down so often: each write is one to the disk."""
LINK_S: Final = 7 * 86_400.0
RESET_S: Final = 86_400.0
NAME_MAX: Final = 100
EMAIL_MAX: Final = 254

_WRONG: Final = "Email or password is wrong."
_DEAD: Final = "This link is used up, expired or mistyped. Ask for a new one."


class Doors:
    """The doors of one store (`serving.base_accounts.Doors`); `aclose` belongs to `passwords`."""

    def __init__(
        self, accounts: Callable[[], Accounts], clock: Clock, passwords: Passwords, signup: Signup = "invitation"
    ) -> None:
        """`accounts` gives the store as it is at each call: it is opened after this is built."""
        self._accounts = accounts
        self._clock = clock
        self._passwords = passwords
        self._signup = signup
        self._addresses = Throttle(clock, ADDRESS_S, 1)
        self._emails = Throttle(clock, ACCOUNT_S, ACCOUNT_BURST)

    @property
    def is_open(self) -> bool:
        """Whether anybody may sign up without a link."""
        return self._signup == "open"

    async def log_in(self, email: str, password: str, address: str) -> str:
        """Return a new session's text. Raises `Unauthorized`, `RateLimited`, `Busy`."""
        email = normal_email(email)
        _go_on(self._addresses.take(network_of(address)))
        _go_on(self._emails.take(email))
        user = await self._accounts().find_user(email)
        right = await self._passwords.matches(None if user is None else user.password, password)
        if user is None or not right or user.disabled_at is not None:
            raise Unauthorized(_WRONG, code="invalid_credentials")
        self._emails.give_back(email)
        return await self._open_session(user.id)

    async def admit(self, session: str) -> Visitor | None:
        """Return who holds this session, or None."""
        digest = digest_of_token("session", session)
        found = None if digest is None else await self._accounts().get_session(digest)
        now = self._clock.now()
        if digest is None or found is None or found.expires_at <= now or found.seen_at + IDLE_S <= now:
            return None
        user = await self._accounts().get_user(found.user_id)
        if user is None or user.disabled_at is not None:
            return None
        if found.seen_at + TOUCH_S <= now:
            await self._accounts().touch_session(digest, now)
        return Visitor(principal=principal_of(user), user=user, session=session)

    async def log_out(self, session: str) -> None:
        """End a session."""
        digest = digest_of_token("session", session)
        if digest is not None:
            await self._accounts().end_session(digest)

    async def look_at(self, link: str) -> Link | None:
        """Return a live link, or None."""
        digest = digest_of_token("link", link)
        found = None if digest is None else await self._accounts().get_link(digest)
        is_shut = found is not None and found.purpose == "signup" and self._signup == "closed" and found.role != ADMIN
        return found if found is not None and found.is_live(self._clock.now()) and not is_shut else None

    async def sign_up(self, link: str, name: str, email: str, password: str, address: str) -> None:
        """Make an account. Raises `BadRequest`, `Forbidden`, `RateLimited`, `Busy`."""
        found = await self._signup_link(link)
        user = User(
            id=self._clock.new_id("usr_"),
            name=check_text(name, "name"),
            email=check_email(email),
            role="member" if found is None else found.role,
            plan="" if found is None else found.plan,
            created_at=self._clock.now(),
        )
        if found is not None and found.email not in ("", user.email):
            raise BadRequest("This link is for another email address.", param="email")
        check_password(password)
        _go_on(self._addresses.take(network_of(address)))
        user = msgspec.structs.replace(user, password=await self._passwords.hash(password))
        if found is None:
            try:
                await self._accounts().add_user(user)
            except Conflict:  # the email has an account: whoever asks from outside must not learn it
                return
        elif await self._accounts().redeem_signup(found.digest, user, self._clock.now()) == "gone":
            raise Forbidden(_DEAD)

    async def set_password(self, link: str, password: str, address: str) -> None:
        """Set the password a link is for. Raises `BadRequest`, `Forbidden`, `RateLimited`, `Busy`."""
        found = await self.look_at(link)
        if found is None or found.purpose != "password":
            raise Forbidden(_DEAD)
        check_password(password)
        _go_on(self._addresses.take(network_of(address)))
        hashed = await self._passwords.hash(password)
        if await self._accounts().redeem_password(found.digest, hashed, self._clock.now()) is None:
            raise Forbidden(_DEAD)

    async def change_password(self, visitor: Visitor, old: str, new: str, address: str) -> str:
        """Change the password, end all sessions and return a new one."""
        check_password(new)
        _go_on(self._addresses.take(network_of(address)))
        if not await self._passwords.matches(visitor.user.password, old):
            raise Unauthorized("The present password is wrong.", code="invalid_credentials")
        hashed = await self._passwords.hash(new)
        await self._accounts().change_user(visitor.user.id, UserChange(password=hashed))
        return await self._open_session(visitor.user.id)

    async def _signup_link(self, link: str) -> Link | None:
        """Return the link to sign up with, None where none is needed. Raises `Forbidden`."""
        if not link:
            if self.is_open:
                return None
            raise Forbidden("Signing up needs an invitation: ask whoever runs this server for a link.")
        found = await self.look_at(link)
        if found is None or found.purpose != "signup":
            raise Forbidden(_DEAD)
        return found

    async def _open_session(self, user_id: str) -> str:
        now = self._clock.now()
        text = form_token("session", self._clock)
        await self._accounts().forget_sessions(now - IDLE_S, now)
        await self._accounts().add_session(
            BrowserSession(
                digest=digest_of(text), user_id=user_id, created_at=now, seen_at=now, expires_at=now + TOTAL_S
            )
        )
        return text


async def make_first_link(accounts: Accounts, clock: Clock) -> str | None:
    """Return the text of a link for the first admin, if there is no admin and no such link; else None.

    Once it has expired unused, the next start makes another; `convene users invite --role admin` makes one at any time.
    """
    text, link = draft_link(clock, role="admin", plan="owner", created_by="first start", lifetime_s=LINK_S)
    return text if await accounts.add_first_link(link, clock.now()) else None


def draft_link(clock: Clock, *, lifetime_s: float, created_by: str, **fields: str) -> tuple[str, Link]:
    """Return a new link's text and what is to be stored of it."""
    text = form_token("link", clock)
    now = clock.now()
    common = {"id": clock.new_id("lnk_"), "digest": digest_of(text), "created_by": created_by}
    given = {"purpose": "signup"} | fields | common | {"created_at": now, "expires_at": now + lifetime_s}
    return text, msgspec.convert(given, Link)


def principal_of(user: User) -> Principal:
    """Return a user who is logged in with a browser as who asks."""
    return Principal(
        key_id="browser",
        owner=user.id,
        name=user.name,
        plan=user.plan,
        scopes=(API, ADMIN) if user.role == ADMIN else (API,),
        user_id=user.id,
        user_limits=user.limits,
    )


def normal_email(text: str) -> str:
    """Return the form in which an email is kept and compared."""
    return unicodedata.normalize("NFC", text.strip()).lower()


def check_email(text: str) -> str:
    """Return an email as it is kept. Raises `BadRequest` for what cannot be one."""
    email = normal_email(text)
    name, at, host = email.rpartition("@")
    if not (at and name and host) or len(email) > EMAIL_MAX or " " in email or not email.isprintable():
        raise BadRequest("This is not an email address: write name@example.com.", param="email")
    return email


def check_text(text: str, param: str) -> str:
    """Return a name without space around it. Raises `BadRequest` for an empty, overlong or unprintable one."""
    text = text.strip()
    if not 0 < len(text) <= NAME_MAX or not text.isprintable():
        raise BadRequest(f"A {param} has 1 to {NAME_MAX} printable characters.", param=param)
    return text


def _go_on(wait_s: float) -> None:
    if wait_s > 0:
        raise RateLimited("Too many tries. Wait a little before the next one.", retry_after_s=wait_s)
