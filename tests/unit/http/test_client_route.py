"""URLs, proxies and who is reached directly."""

from __future__ import annotations

import base64

import pytest

from convene.http.client_route import Origin, Proxy, choose_proxy, parse_proxy, parse_url


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "field", "target"),
    [
        ("http://a", "http", "a", 80, "a", "/"),
        ("https://a/", "https", "a", 443, "a", "/"),
        ("HTTP://A.Example:8080/v1?x=1&y", "http", "a.example", 8080, "a.example:8080", "/v1?x=1&y"),
        ("https://a:443/x", "https", "a", 443, "a", "/x"),
        ("http://a?q", "http", "a", 80, "a", "/?q"),
        ("http://[::1]:9/x#part", "http", "::1", 9, "[::1]:9", "/x"),
        ("http://a/%0d%0a", "http", "a", 80, "a", "/%0d%0a"),
    ],
)
def test_a_url_has_an_origin_and_a_target(url: str, scheme: str, host: str, port: int, field: str, target: str) -> None:
    origin, path = parse_url(url)
    assert (origin, path) == (Origin(scheme, host, port), target)
    assert origin.host_field == field


def test_an_authority_always_has_its_port() -> None:
    assert parse_url("https://a/")[0].authority == "a:443"
    assert parse_url("https://[::1]/")[0].authority == "[::1]:443"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/v1",
        "a.example/v1",
        "ftp://a/",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://a:port/",
        "http://a:99999/",
        "http://[::1/",
        "http://a/ b",
        "http://a/\r\nhost: b",
        "ht\ntp://a/",
        "http://a/\u00e9",
        "http://user:word@a/",
        "http://@a/",
    ],
)
def test_what_is_not_an_absolute_http_url_without_credentials_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        parse_url(url)
    assert "word" not in str(caught.value)


def test_a_proxy_url_may_have_credentials_and_never_shows_them() -> None:
    proxy = parse_proxy("http://us%40er:pa%3Ass@proxy:3128")
    assert (proxy.host, proxy.port) == ("proxy", 3128)
    assert base64.b64decode(proxy.authorization.removeprefix("Basic ")) == b"us@er:pa:ss"
    assert "ss" not in repr(proxy)
    assert proxy.authorization not in repr(Origin("http", "a", 80, proxy))


@pytest.mark.parametrize(("url", "port"), [("proxy", 80), ("proxy:3128", 3128), ("http://proxy/", 80)])
def test_a_proxy_url_may_lack_its_scheme(url: str, port: int) -> None:
    assert parse_proxy(url) == Proxy("proxy", port)


@pytest.mark.parametrize(
    "url", ["https://proxy", "socks5://proxy", "", "http://u:secret@pro xy", "http://u:secret@p:x"]
)
def test_a_proxy_of_another_kind_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="proxy URL") as caught:
        parse_proxy(url)
    assert "secret" not in str(caught.value)


def test_the_scheme_chooses_the_proxy() -> None:
    assert choose_proxy("http://a/", "http://p", "http://q", ()) == "http://p"
    assert choose_proxy("https://a/", "http://p", "http://q", ()) == "http://q"
    assert choose_proxy("https://a/", "http://p", None, ()) is None
    assert choose_proxy("https://a/", "http://p", "", ()) is None


@pytest.mark.parametrize(
    ("url", "entry", "direct"),
    [
        ("http://a.example/", "*", True),
        ("http://a.example/", "a.example", True),
        ("http://a.example/", " A.Example ", True),
        ("http://b.a.example/", "a.example", True),
        ("http://b.a.example/", ".a.example", True),
        ("http://a.example/", ".a.example", True),
        ("http://ba.example/", "a.example", False),
        ("http://a.example.com/", "a.example", False),
        ("http://a.example:81/", "a.example:81", True),
        ("http://a.example/", "a.example:81", False),
        ("http://a.example/", "", False),
        ("http://a.example/", ".", False),
        ("http://10.1.2.3/", "10.0.0.0/8", True),
        ("http://11.1.2.3/", "10.0.0.0/8", False),
        ("http://a.example/", "10.0.0.0/8", False),
        ("http://10.1.2.3/", "nonsense/8", False),
        ("http://127.0.0.1/", "127.0.0.1", True),
        ("http://[::1]/", "::1", True),
        ("http://[::1]:5/", "[::1]:5", True),
        ("http://[fd00::5]/", "fd00::/8", True),
    ],
)
def test_no_proxy_names_hosts_their_subdomains_ports_and_networks(url: str, entry: str, direct: bool) -> None:  # noqa: FBT001 - a table
    chosen = choose_proxy(url, "http://p", "http://p", ("other.example", entry))
    assert (chosen is None) is direct
