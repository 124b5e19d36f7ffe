"""The cookie and the token of a browser that has logged in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.api.browser import (
    PLAIN_NAME,
    SECURE_NAME,
    Browsers,
    cookie_of,
    drop_cookie,
    form_token_of,
    set_cookie,
)
from convene.errors import Forbidden
from convene.serving.base import Principal
from convene.serving.base_accounts import User, Visitor
from convene.serving.tokens import form_token
from fakes import FakeClock
from unit.api.asgi_doubles import Connection

if TYPE_CHECKING:
    from convene.api.call import Call
    from convene.serving.base_accounts import Link

SESSION = form_token("session", FakeClock())
BOB = User(id="usr_bob", name="Bob", email="bob@x.org", created_at=1.0)
VISITOR = Visitor(principal=Principal(key_id="browser", owner="usr_bob", scopes=("api",)), user=BOB, session=SESSION)


class OneDoor:
    """Knows one session; everything else of the seam is not asked for here."""

    is_open = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def admit(self, session: str) -> Visitor | None:
        self.asked.append(session)
        return VISITOR if session == SESSION else None

    async def log_in(self, email: str, password: str, address: str) -> str:
        raise AssertionError(email + password + address)

    async def log_out(self, session: str) -> None:
        raise AssertionError(session)

    async def look_at(self, link: str) -> Link | None:
        raise AssertionError(link)

    async def sign_up(self, link: str, name: str, email: str, password: str, address: str) -> None:
        raise AssertionError(link + name + email + password + address)

    async def set_password(self, link: str, password: str, address: str) -> None:
        raise AssertionError(link + password + address)

    async def change_password(self, visitor: Visitor, old: str, new: str, address: str) -> str:
        raise AssertionError(visitor, old, new, address)


def asked(
    cookie: str | None, *more: tuple[bytes, bytes], host: bytes = b"convene.example", method: str = "POST"
) -> Call:
    headers = [(b"host", host), *more]
    if cookie is not None:
        headers.append((b"cookie", cookie.encode()))
    return Connection(method=method, headers=headers).call()


def secure(value: str = SESSION) -> str:
    return f"{SECURE_NAME}={value}"


# The cookie.


def test_over_tls_the_cookie_is_for_this_host_alone_and_secure() -> None:
    name, value = set_cookie(asked(None), SESSION)
    assert name == b"set-cookie"
    assert value.decode() == f"__Host-convene={SESSION}; Path=/; HttpOnly; SameSite=Lax; Secure"


@pytest.mark.parametrize("host", [b"localhost:8000", b"127.0.0.1:8000", b"[::1]:8000"])
def test_on_a_loopback_name_it_is_plain_since_browsers_take_no_secure_one_there(host: bytes) -> None:
    _, value = set_cookie(asked(None, host=host), SESSION)
    assert value.decode() == f"convene={SESSION}; Path=/; HttpOnly; SameSite=Lax"


def test_it_is_dropped_with_the_same_attributes() -> None:
    _, value = drop_cookie(asked(None))
    assert value.decode() == "__Host-convene=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure"


def test_it_is_found_among_others() -> None:
    assert cookie_of(asked(f"a=b; {secure()}; c=d")) == SESSION
    assert cookie_of(asked(f"convene={SESSION}", host=b"localhost")) == SESSION


@pytest.mark.parametrize(
    "cookie",
    [
        None,
        "",
        ";;;",
        "=",
        f"{PLAIN_NAME}={SESSION}",  # the plain one counts on loopback only
        f"{SECURE_NAME.lower()}={SESSION}",
        f"x{SECURE_NAME}={SESSION}",
        f"{secure()}; {secure()}",  # two: whose?
        secure(""),
        secure("short"),
        secure(SESSION + "!"),
        secure(f'"{SESSION}"'),
        secure("x" * 5000),
    ],
)
def test_anything_else_is_no_cookie_of_ours(cookie: str | None) -> None:
    assert cookie_of(asked(cookie)) is None


def test_the_secure_one_does_not_count_on_loopback() -> None:
    assert cookie_of(asked(secure(), host=b"localhost")) is None


# Who is logged in.


async def test_who_holds_the_cookie_is_known_and_nobody_else() -> None:
    doors = OneDoor()
    browsers = Browsers(doors)
    assert await browsers.visitor(asked(secure())) == VISITOR
    assert await browsers.visitor(asked(secure(form_token("session", FakeClock(seed=5))))) is None
    assert await browsers.visitor(asked(None)) is None
    assert len(doors.asked) == 2, "without a cookie nobody is asked"


async def test_reading_needs_the_cookie_alone() -> None:
    for method in ("GET", "HEAD"):
        assert await Browsers(OneDoor()).caller(asked(secure(), method=method)) == VISITOR


SAME = (b"sec-fetch-site", b"same-origin")
TOKEN = (b"x-convene-token", form_token_of(SESSION).encode())


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT"])
async def test_a_change_needs_origin_and_token_too(method: str) -> None:
    browsers = Browsers(OneDoor())
    assert await browsers.caller(asked(secure(), SAME, TOKEN, method=method)) == VISITOR
    for headers in ((), (SAME,), (TOKEN,), ((b"sec-fetch-site", b"cross-site"), TOKEN), (SAME, (TOKEN[0], b"x"))):
        with pytest.raises(Forbidden):
            await browsers.caller(asked(secure(), *headers, method=method))


async def test_a_stranger_is_nobody_whatever_it_sends() -> None:
    assert await Browsers(OneDoor()).caller(asked(None, SAME, TOKEN)) is None


# The token.


def test_a_token_belongs_to_one_cookie_and_tells_nothing_of_it() -> None:
    other = form_token("session", FakeClock(seed=5))
    assert form_token_of(SESSION) != form_token_of(other)
    assert form_token_of(SESSION) == form_token_of(SESSION)
    assert SESSION not in form_token_of(SESSION)
    assert len(form_token_of(SESSION)) == 64


@pytest.mark.parametrize("token", ["", "x", form_token_of("other"), form_token_of(SESSION).upper(), "\ud800", "é"])
def test_another_token_is_refused(token: str) -> None:
    with pytest.raises(Forbidden):
        Browsers(OneDoor()).check_change(asked(secure(), SAME), token)


def test_without_a_cookie_no_token_is_right() -> None:
    for token in ("", form_token_of("")):
        with pytest.raises(Forbidden):
            Browsers(OneDoor()).check_change(asked(None, SAME), token)


def test_the_right_one_passes_also_behind_a_proxy() -> None:
    browsers = Browsers(OneDoor(), "https://convene.example/")
    call = asked(secure(), (b"origin", b"https://convene.example"), host=b"10.0.0.7:8000")
    browsers.check_change(call, form_token_of(SESSION))
