"""The one parser on the way out: what is refused, what is read, and that what is read has one spelling."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.egress_url import BadUrl, Place, follow, read_url
from convene.http.client_route import parse_url
from egress_samples import BAD_V4, BAD_V6, GOOD_NAMES, GOOD_TARGETS, odd_urls, spell_v4, spell_v6


@pytest.mark.parametrize("url", sorted({url for host in ("127.0.0.1", "[::1]") for url in odd_urls(host, 8000)}))
def test_a_url_that_programs_read_differently_is_refused(url: str) -> None:
    if url.startswith("http://example.com#"):  # what follows is a fragment to everybody
        assert read_url(url).host == "example.com"
        return
    with pytest.raises(BadUrl):
        read_url(url)


@pytest.mark.parametrize("address", BAD_V4)
def test_an_ipv4_address_is_read_in_its_plain_spelling_and_in_no_other(address: str) -> None:
    for host in spell_v4(address):
        try:
            place = read_url(f"http://{host}/")
        except BadUrl:
            continue
        assert place.is_address
        assert place.host == address or ":" in place.host, host


@pytest.mark.parametrize("address", BAD_V6)
def test_an_ipv6_address_is_read_as_one_without_zones(address: str) -> None:
    for host in spell_v6(address):
        if "%" in host or not host.startswith("["):
            with pytest.raises(BadUrl):
                read_url(f"http://{host}/")
        else:
            assert read_url(f"http://{host}/").is_address


@pytest.mark.parametrize(
    "host",
    [
        *("0", "0x", "0x7f", "127", "127.1", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4.", "01.2.3.4", "example.1"),
        *("1.2.3.0x4", "", ".", "..", "a..b", ".a", "-a", "a-", "a.-b", "a" * 64, "é" * 60, ".".join(["ab"] * 90)),
        *(
            "a b",
            "a%41",
            "a\u200bb",
            "a\u00adb",
            "\u212a",
            "\u017f",
            "①",
            "127。0。0。1",
            "\uff41",
            "a;b",
            "a,b",
            "a'b",
            "a!",
        ),
        *(
            "\u202ea",
            "a\ud800",
            "☃",
            "a\u0000",
            "[",
            "]",
            "[]",
            "[::1",
            "[::1]x",
            "[::1]]",
            "[1.2.3.4]",
            "[v1.a]",
            "a[b",
        ),
        *("*", "a:b", ":80", "ﬀ", "℀", "\ufe52", "ᴬ", "a\uff0eb", "x\u3002y", "[::ffff:1.2.3]", "[:::]", "[fe80::1%1]"),
    ],
)
def test_a_host_that_is_no_plain_name_is_refused(host: str) -> None:
    with pytest.raises(BadUrl):
        read_url(f"http://{host}/")


@pytest.mark.parametrize(
    "port", ["0", "00", "080", "65536", "99999999", "-1", "+1", "8o", " 80", "80 ", "\uff18\uff10", ""]
)
def test_a_port_that_is_not_a_plain_number_is_refused(port: str) -> None:
    with pytest.raises(BadUrl):
        read_url(f"http://example.com:{port}/")


def test_a_url_is_no_longer_than_4096_characters() -> None:
    assert read_url("http://a.example/" + "x" * 4079).target
    with pytest.raises(BadUrl, match="longer"):
        read_url("http://a.example/" + "x" * 4080)


@pytest.mark.parametrize(
    "character", [*map(chr, range(0x21)), "\x7f", "\x80", "\xa0", "\\", "\u2028", "\u3000", "\ufeff"]
)
@pytest.mark.parametrize(
    "url", ["http://a.example{}/", "http://a.example/{}", "{}http://a.example/", "http://a.example/?{}"]
)
def test_spaces_controls_and_backslashes_are_refused_wherever_they_stand(url: str, character: str) -> None:
    with pytest.raises(BadUrl):
        read_url(url.format(character))


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("EXAMPLE.com", "example.com"),
        ("example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ("मानक.भारत", "xn--11b1br8d.xn--h2brj9c"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("127.0.0.1.example.com", "127.0.0.1.example.com"),
        ("8.8.8.8", "8.8.8.8"),
        ("[2606:4700:4700:0:0:0:0:1111]", "2606:4700:4700::1111"),
    ],
)
def test_a_name_is_read_as_the_one_that_is_asked_for(host: str, ascii_host: str) -> None:
    assert read_url(f"https://{host}/").host == ascii_host


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://a.example", Place("http", "a.example", 80, "/", is_address=False)),
        ("HTTPS://A.example:443?q#f", Place("https", "a.example", 443, "/?q", is_address=False)),
        ("http://8.8.8.8:8080/x", Place("http", "8.8.8.8", 8080, "/x", is_address=True)),
        ("http://a.example/ü?ö=1", Place("http", "a.example", 80, "/%C3%BC?%C3%B6=1", is_address=False)),
        ('http://a.example/"{x}|<y>', Place("http", "a.example", 80, "/%22%7Bx%7D%7C%3Cy%3E", is_address=False)),
    ],
)
def test_scheme_host_port_and_target_are_read(url: str, place: Place) -> None:
    assert read_url(url) == place


@pytest.mark.parametrize("host", GOOD_NAMES)
@pytest.mark.parametrize("target", GOOD_TARGETS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_good_urls_have_one_spelling_that_the_client_reads_alike(scheme: str, host: str, target: str) -> None:
    place = read_url(f"{scheme}://{host}{target}")
    assert read_url(place.url) == place
    origin, seen = parse_url(place.url)
    assert ((origin.scheme, origin.host, origin.port), seen) == (place.origin, place.target)


@given(st.text(max_size=40), st.sampled_from(["http://{}/", "http://{}", "https://a.{}", "{}", "http://a.example/{}"]))
def test_whatever_is_read_is_plain_and_the_standard_parser_sees_the_same_host(text: str, shape: str) -> None:
    try:
        place = read_url(shape.format(text))
    except BadUrl:
        return
    assert place.url.isascii()
    assert read_url(place.url) == place
    parts = urlsplit(place.url)
    assert (parts.hostname, parts.port or {"http": 80, "https": 443}[place.scheme]) == (place.host, place.port)
    assert parts.username is None


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b", "https://a.example:8443/b"),
        ("b", "https://a.example:8443/x/b"),
        ("?q", "https://a.example:8443/x/y?q"),
        ("../c", "https://a.example:8443/c"),
        ("//b.example/c", "https://b.example/c"),
        ("http://b.example", "http://b.example/"),
        (" /b\t", "https://a.example:8443/b"),
        ("/b#part", "https://a.example:8443/b"),
        ("/\u00c3\u00bc", "https://a.example:8443/%C3%BC"),
        ("//127.0.0.1/", "https://127.0.0.1/"),
    ],
)
def test_a_redirect_is_read_against_where_it_comes_from(location: str, url: str) -> None:
    assert follow(read_url("https://a.example:8443/x/y"), location).url == url


@pytest.mark.parametrize(
    "location",
    [
        "",
        " ",
        "\\\\b",
        "/\\b",
        "http:\\b",
        "javascript:alert(1)",
        "file:///etc",
        "//user@b/",
        "//[",
        "/a b",
        "/\r\nx: y",
        *("/a\tb", "/a\rb", "/a\nb", "\x01/a", "//b.exa\tmple/", "/a\x7f", "/\u00c2\u00a0"),
        *("data:,x", "//0x7f.1/", "/\xff", "/" * 4097, "ftp://b/", "//b:0/"),
    ],
)
def test_a_redirect_to_what_is_no_plain_url_is_refused(location: str) -> None:
    with pytest.raises(BadUrl):
        follow(read_url("https://a.example/"), location)
