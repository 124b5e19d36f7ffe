"""What a browser says of where a request comes from: everything but a page of ours is refused (E11)."""

from __future__ import annotations

import itertools

import pytest

from convene.api.origins import check_same_origin, is_loopback_host
from convene.errors import Forbidden
from unit.api.asgi_doubles import Connection

OURS = (b"host", b"convene.example")


def is_let_in(*headers: tuple[bytes, bytes], public_url: str = "") -> bool:
    call = Connection(headers=headers).call()
    try:
        check_same_origin(call, public_url)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize("origin", [None, b"https://evil.example", b"null", b"https://convene.example"])
@pytest.mark.parametrize("site", [b"same-origin", b"same-site", b"cross-site", b"none", b"", b"Same-Origin", b"x"])
def test_where_a_browser_says_the_site_that_alone_decides(site: bytes, origin: bytes | None) -> None:
    headers = [OURS, (b"sec-fetch-site", site)]
    if origin is not None:
        headers.append((b"origin", origin))
    assert is_let_in(*headers) is (site == b"same-origin")


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        (b"https://convene.example", True),
        (b"http://convene.example", True),
        (b"https://CONVENE.example", True),
        (b"https://convene.example:8443", False),
        (b"https://evil.example", False),
        (b"https://convene.example.evil.example", False),
        (b"https://evilconvene.example", False),
        (b"https://sub.convene.example", False),
        (b"null", False),
        (b"", False),
        (b"convene.example", False),
        (b"file://", False),
        (b"chrome-extension://convene.example", False),
        (b"https://", False),
        (b"https://convene.example/path", False),
        (b"\xff://convene.example", False),
    ],
)
def test_else_the_origin_must_be_the_host_that_was_asked(origin: bytes, *, own: bool) -> None:
    assert is_let_in(OURS, (b"origin", origin)) is own


def test_without_either_the_answer_is_no() -> None:
    assert not is_let_in(OURS)
    assert not is_let_in()
    assert not is_let_in((b"host", b""), (b"origin", b""))
    assert not is_let_in((b"origin", b"https://"))


def test_the_public_address_counts_where_a_proxy_changes_the_host() -> None:
    inside = (b"host", b"10.0.0.7:8000")
    assert is_let_in(inside, (b"origin", b"https://convene.example"), public_url="https://convene.example")
    assert not is_let_in(inside, (b"origin", b"http://convene.example"), public_url="https://convene.example")
    assert not is_let_in(inside, (b"origin", b"https://evil.example"), public_url="https://convene.example")
    assert not is_let_in(inside, (b"origin", b""), public_url="")


LOOPBACK = ("localhost", "127.0.0.1", "127.9.9.9", "[::1]")
ELSEWHERE = ("example.com", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.1", "[::2]", "")  # noqa: S104


@pytest.mark.parametrize(("name", "port"), [*itertools.product(LOOPBACK, ("", ":8000", ":"))])
def test_loopback_names_are_known_with_and_without_a_port(name: str, port: str) -> None:
    assert is_loopback_host(name + port)


@pytest.mark.parametrize(("name", "port"), [*itertools.product(ELSEWHERE, ("", ":8000"))])
def test_other_names_are_not_loopback(name: str, port: str) -> None:
    assert not is_loopback_host(name + port)


@pytest.mark.parametrize("host", ["localhost:80:80", "localhost:x", "127.0.0.1@evil.example", "[::1", "::1", "a b"])
def test_what_is_no_host_is_not_loopback(host: str) -> None:
    assert not is_loopback_host(host)
