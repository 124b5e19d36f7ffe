"""Who is let in by the front door: keys, browser sessions, scopes, and never the one for the other (E3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from convene.api.browser import Browsers, form_token_of
from convene.api.cors import Cors
from convene.api.front import Front, Lifespan
from convene.api.routes import Route, Router
from convene.errors import StoreFault, Unauthorized
from convene.serving.base import Principal
from convene.serving.base_accounts import User, Visitor
from convene.serving.tokens import form_token
from fakes import FakeClock
from unit.api.asgi_doubles import Connection

if TYPE_CHECKING:
    from convene.api.call import Call
    from convene.serving.base_accounts import Link

SESSION: Final = form_token("session", FakeClock())
BOB: Final = User(id="usr_bob", name="Bob", email="bob@x.org", created_at=1.0)
BROWSER: Final = Principal(key_id="browser", owner="usr_bob", scopes=("api",), user_id="usr_bob")
MEMBER: Final = Principal(key_id="key_1", owner="usr_bob", scopes=("api",))
ADMIN: Final = Principal(key_id="key_2", owner="usr_ada", scopes=("api", "admin"))
NOTHING: Final = Principal(key_id="key_3", owner="o", scopes=())
COOKIE: Final = (b"cookie", f"__Host-convene={SESSION}".encode())
SAME: Final = (b"sec-fetch-site", b"same-origin")
TOKEN: Final = (b"x-convene-token", form_token_of(SESSION).encode())


class Gate:
    """Knows three keys; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def admit(self, authorization: str | None) -> Principal | None:
        self.asked.append(authorization)
        known = {"Bearer member": MEMBER, "Bearer admin": ADMIN, "Bearer nothing": NOTHING}
        if authorization not in known:
            raise Unauthorized("No key.")
        return known[authorization]

    def still(self, principal: Principal) -> bool:
        return principal in (MEMBER, ADMIN, NOTHING)

    async def look_up(self, authorization: str | None) -> Principal:
        raise AssertionError(authorization)


class Doors:
    """Knows one session."""

    is_open = False
    broken = False

    def __init__(self) -> None:
        self.asked = 0

    async def admit(self, session: str) -> Visitor | None:
        self.asked += 1
        if self.broken:
            raise StoreFault("The store cannot be used.")
        return Visitor(principal=BROWSER, user=BOB, session=session) if session == SESSION else None

    async def log_in(self, email: str, password: str, address: str) -> str:
        raise AssertionError(email, password, address)

    async def log_out(self, session: str) -> None:
        raise AssertionError(session)

    async def look_at(self, link: str) -> Link | None:
        raise AssertionError(link)

    async def sign_up(self, link: str, name: str, email: str, password: str, address: str) -> None:
        raise AssertionError(link, name, email, password, address)

    async def set_password(self, link: str, password: str, address: str) -> None:
        raise AssertionError(link, password, address)

    async def change_password(self, visitor: Visitor, old: str, new: str, address: str) -> str:
        raise AssertionError(visitor, old, new, address)


async def nothing() -> None:
    """Start or stop nothing."""


async def tell(call: Call) -> None:
    """Answer with who is calling."""
    await call.reply_json({"key": call.principal.key_id if call.principal else None})


class House:
    """A front door with a route of each kind."""

    def __init__(self, *, with_browsers: bool = True) -> None:
        self.gate, self.doors = Gate(), Doors()
        rows = (
            Route(method="GET", path="/v1/plain", endpoint=tell, summary="keys only"),
            Route(method="GET", path="/v1/own", endpoint=tell, summary="browsers too", browser=True),
            Route(method="POST", path="/v1/own", endpoint=tell, summary="browsers too", browser=True),
            Route(method="GET", path="/v1/admin", endpoint=tell, summary="admins", browser=True, scope="admin"),
            Route(method="GET", path="/open", endpoint=tell, summary="open", open=True),
        )
        self.front = Front(
            router=Router(rows),
            gatekeeper=self.gate,
            clock=FakeClock(),
            lifespan=Lifespan(nothing, nothing),
            cors=Cors(()),
            witnesses=(),
            body_bytes_max=1000,
            browsers=Browsers(self.doors) if with_browsers else None,
        )

    async def ask(self, method: str, path: str, *headers: tuple[bytes, bytes]) -> tuple[int, str | None]:
        """Return the status, and who the endpoint was told is calling."""
        connection = Connection(method=method, path=path, headers=[(b"host", b"convene.example"), *headers])
        await self.front(connection.scope, connection.receive, connection.send)
        body = msgspec.json.decode(connection.body)
        return connection.status, body.get("key")


def key(name: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {name}".encode()


@pytest.mark.parametrize(
    ("method", "path", "headers", "answer"),
    [
        ("GET", "/v1/plain", [key("member")], (200, "key_1")),
        ("GET", "/v1/plain", [key("admin")], (200, "key_2")),
        ("GET", "/v1/plain", [key("nothing")], (403, None)),
        ("GET", "/v1/plain", [], (401, None)),
        ("GET", "/v1/plain", [COOKIE], (401, None)),
        ("GET", "/v1/own", [COOKIE], (200, "browser")),
        ("HEAD", "/v1/own", [COOKIE], (200, "browser")),
        ("GET", "/v1/own", [key("member")], (200, "key_1")),
        ("GET", "/v1/own", [key("nothing")], (403, None)),
        ("GET", "/v1/own", [key("wrong"), COOKIE], (401, None)),
        ("GET", "/v1/own", [key("nothing"), COOKIE], (403, None)),
        ("GET", "/v1/own", [(b"authorization", b""), COOKIE], (401, None)),
        ("GET", "/v1/own", [(b"cookie", b"__Host-convene=" + b"a" * 48)], (401, None)),
        ("GET", "/v1/own", [(b"cookie", f"convene={SESSION}".encode())], (401, None)),
        ("POST", "/v1/own", [COOKIE, SAME, TOKEN], (200, "browser")),
        ("POST", "/v1/own", [COOKIE, TOKEN], (403, None)),
        ("POST", "/v1/own", [COOKIE, SAME], (403, None)),
        ("POST", "/v1/own", [COOKIE, (b"sec-fetch-site", b"cross-site"), TOKEN], (403, None)),
        ("POST", "/v1/own", [key("member"), (b"sec-fetch-site", b"cross-site")], (200, "key_1")),
        ("GET", "/v1/admin", [key("admin")], (200, "key_2")),
        ("GET", "/v1/admin", [key("member")], (403, None)),
        ("GET", "/v1/admin", [COOKIE], (403, None)),
        ("GET", "/open", [], (200, None)),
        ("GET", "/open", [key("wrong"), COOKIE], (200, None)),
    ],
)
async def test_who_is_let_in(
    method: str, path: str, headers: list[tuple[bytes, bytes]], answer: tuple[int, str | None]
) -> None:
    assert await House().ask(method, path, *headers) == answer


async def test_a_key_in_the_header_is_all_that_is_looked_at() -> None:
    house = House()
    await house.ask("GET", "/v1/own", key("member"), COOKIE)
    assert (house.gate.asked, house.doors.asked) == (["Bearer member"], 0)


async def test_a_cookie_is_looked_at_only_where_it_counts() -> None:
    house = House()
    await house.ask("GET", "/v1/plain", COOKIE)
    await house.ask("GET", "/open", COOKIE)
    assert house.doors.asked == 0
    await house.ask("GET", "/v1/own", COOKIE)
    assert house.doors.asked == 1


async def test_without_browsers_only_keys_count() -> None:
    house = House(with_browsers=False)
    assert await house.ask("GET", "/v1/own", COOKIE) == (401, None)
    assert await house.ask("GET", "/v1/own", key("member")) == (200, "key_1")


async def test_a_store_that_fails_lets_nobody_in() -> None:
    house = House()
    house.doors.broken = True
    assert await house.ask("GET", "/v1/own", COOKIE) == (503, None)
