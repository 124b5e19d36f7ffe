"""What engines give becomes what may be shown: texts, addresses, domains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.tools.search_base import Hit, Query
from convene.tools.search_clean import cut, domain, is_within, page_url, plain, present, same_page


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("The <strong>best</strong> of <b class='x'>it</b>", "The best of it"),
        ("Tom &amp; Jerry&#x27;s &lt;b&gt;", "Tom & Jerry's <b>"),
        ("a < b and c > d", "a < b and c > d"),
        ("before<script>alert(1)</script> after <style>p{}</style>end", "before after end"),
        ("cut off <script>alert(1)", "cut off"),
        ("x<!-- hidden words -->y<!-- open", "x y"),
        ("two\n\n\tlines\r\nand a\u00a0space", "two lines and a space"),
        ("in\u200bvi\u202esi\u2066ble\U000e0041\ufeff", "invisible"),
        ("bell\x07 and \ud800 half", "bell and half"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u2013 \u65e5\u672c\u8a9e",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u2013 \u65e5\u672c\u8a9e",
        ),
        ("", ""),
    ],
)
def test_a_text_is_one_line_without_markup_and_without_what_nobody_sees(raw: str, shown: str) -> None:
    assert plain(raw, 100) == shown


def test_a_long_text_is_cut_at_a_word_and_marked() -> None:
    assert cut("one two three four", 10) == "one two\u2026"
    assert cut("abcdefghijkl", 10) == "abcdefghi\u2026"
    assert cut("exactly 10", 10) == "exactly 10"


@given(st.text(max_size=300), st.integers(1, 120))
def test_no_text_is_longer_than_allowed_or_breaks_the_line(raw: str, chars: int) -> None:
    shown = plain(raw, chars)

    assert len(shown) <= chars
    assert "\n" not in shown
    shown.encode()


def test_a_huge_text_costs_no_more_than_its_beginning() -> None:
    assert len(plain("<" * 5_000_000, 50)) <= 50
    assert len(plain("<a " * 1_000_000, 50)) <= 50
    assert plain("<!--" * 1_000_000, 50) == ""


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JAVASCRIPT://example.com/%0aalert(1)",
        "data:text/html,hi",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "//example.com/x",
        "/relative",
        "http://",
        "http:///path",
        "https://user:pw@example.com/",
        "https://example.com\\@evil.example/",
        "https://example.com/a b",
        "https://example.com/\r\nx: y",
        "https://example.com/<script>",
        "http://[::1",
        "http://example.com:99999/",
        "http://example.com:0/",
        "https://example.com/" + "a" * 2000,
        "https://example.com/\ud800",
        "",
    ],
)
def test_what_is_no_address_of_a_page_is_dropped(url: str) -> None:
    assert page_url(url) is None
    assert present([Hit(url, "t")], Query(text="x")) == []


@pytest.mark.parametrize(
    "url", ["https://example.com", "http://example.com:8080/a?b=c#d", "https://m\u00fcnchen.example/\u00fc"]
)
def test_addresses_of_pages_stay_word_for_word(url: str) -> None:
    assert [one.url for one in present([Hit(f" {url} ", "t")], Query(text="x"))] == [url]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://www.Example.com/a/", "http://example.com/a"),
        ("https://example.com/a?utm_source=x&id=3&fbclid=9", "https://example.com/a?id=3#part"),
        ("https://example.com:443/", "https://example.com"),
        ("https://m\u00fcnchen.example/", "https://xn--mnchen-3ya.example"),
    ],
)
def test_addresses_of_one_page_are_one_result(one: str, other: str) -> None:
    assert [hit.url for hit in present([Hit(one, "1"), Hit(other, "2")], Query(text="x"))] == [one]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://example.com/a", "https://example.com/A"),
        ("https://example.com/?id=1", "https://example.com/?id=2"),
        ("https://example.com/", "https://example.com:8443/"),
        ("https://a.example.com/", "https://b.example.com/"),
    ],
)
def test_other_pages_stay_other_results(one: str, other: str) -> None:
    first, second = page_url(one), page_url(other)
    assert first
    assert second
    assert same_page(first) != same_page(second)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("example.com", "example.com"),
        (" HTTPS://www.Example.com:8443/path?x#y ", "example.com"),
        ("*.example.com", "example.com"),
        ("m\u00fcnchen.example", "xn--mnchen-3ya.example"),
        ("localhost", "localhost"),
        ("", None),
        ("a b", None),
        ("exa mple.com) OR site:evil", None),
        ("https://", None),
        ("x" * 300, None),
    ],
)
def test_a_domain_is_read_as_people_mean_it(said: str, meant: str | None) -> None:
    assert domain(said) == meant


def test_a_domain_holds_itself_and_what_is_below_it_alone() -> None:
    assert is_within("example.com", ["example.com"])
    assert is_within("docs.example.com.", ["example.com"])
    assert is_within("M\u00fcnchen.example", ["xn--mnchen-3ya.example"])
    assert not is_within("notexample.com", ["example.com"])
    assert not is_within("example.com.evil.test", ["example.com"])


def test_domain_filters_are_applied_whatever_the_engine_made_of_them() -> None:
    hits = [Hit(f"https://{host}/", host) for host in ("a.example", "b.a.example", "c.test", "x.c.test", "d.test")]

    only = present(hits, Query(text="x", include_domains=("a.example", "c.test"), exclude_domains=("x.c.test",)))

    assert [one.title for one in only] == ["a.example", "b.a.example", "c.test"]


def test_results_are_bounded_in_number_and_size_and_keep_their_order() -> None:
    hits = [
        Hit(f"https://example.com/{number}", "t" * 9000, "s " * 9000, "2026-11-30T08:00:00") for number in range(50)
    ]

    shown = present(hits, Query(text="x", count=3))

    assert [one.url[-1] for one in shown] == ["0", "1", "2"]
    assert all(len(one.title) <= 200 and len(one.snippet) <= 1200 for one in shown)
    assert {one.published for one in shown} == {"2026-11-30"}


def test_a_result_without_a_title_has_its_hosts_name_and_odd_dates_are_left_out() -> None:
    [one] = present([Hit("https://example.com/x", "<b></b>", "", "3 days ago")], Query(text="x"))

    assert one == Hit("https://example.com/x", "example.com")
