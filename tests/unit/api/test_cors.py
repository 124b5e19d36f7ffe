"""Browsers of other origins: who may call, what they are told, and that a preflight ends here."""

from __future__ import annotations

import pytest

from convene.api.cors import Cors
from unit.api.asgi_doubles import Connection

PAGE = b"https://page.test"
ASKS = (b"access-control-request-method", b"POST")


@pytest.mark.req("OSDK-13")
@pytest.mark.parametrize(
    ("asked", "admitted"),
    [(b"authorization,x-stainless-os", b"authorization,x-stainless-os"), (None, b"authorization, content-type")],
)
async def test_a_preflight_is_answered_here_and_admits_what_was_asked(asked: bytes | None, admitted: bytes) -> None:
    headers = [ASKS] if asked is None else [ASKS, (b"access-control-request-headers", asked)]
    connection = Connection(method="OPTIONS", headers=headers)
    assert await Cors((PAGE.decode(),)).apply(connection.call(), PAGE)
    assert connection.status == 204
    assert connection.headers[b"access-control-allow-headers"].startswith(admitted)
    assert b"x-session-id" in connection.headers[b"access-control-allow-headers"] or asked is not None


@pytest.mark.req("OSDK-13")
@pytest.mark.parametrize(("method", "headers"), [("GET", []), ("POST", [ASKS]), ("OPTIONS", [])])
async def test_other_requests_go_on_with_the_headers_of_an_allowed_origin(
    method: str, headers: list[tuple[bytes, bytes]]
) -> None:
    call = Connection(method=method, headers=headers).call()
    assert not await Cors((PAGE.decode() + "/",)).apply(call, PAGE)
    assert call.cross_origin_allowed
    given = dict(call.common)
    assert given[b"access-control-allow-origin"] == PAGE
    assert given[b"vary"] == b"origin"
    assert b"x-request-id" in given[b"access-control-expose-headers"]
    assert b"x-should-retry" in given[b"access-control-expose-headers"]


@pytest.mark.parametrize(
    "origin", [b"null", b"http://page.test", b"https://page.test.evil.test", b"https://page.test/"]
)
async def test_an_origin_that_is_not_listed_gets_nothing(origin: bytes) -> None:
    call = Connection(method="OPTIONS", headers=[ASKS]).call()
    assert not await Cors((PAGE.decode(),)).apply(call, origin)
    assert not call.cross_origin_allowed
    assert call.common == [(b"x-request-id", b"req_1")]


async def test_a_star_admits_all_and_never_with_credentials() -> None:
    call = Connection(method="GET").call()
    assert not await Cors(("*",)).apply(call, b"https://any.test")
    given = dict(call.common)
    assert given[b"access-control-allow-origin"] == b"*"
    assert b"access-control-allow-credentials" not in given
    assert b"vary" not in given
