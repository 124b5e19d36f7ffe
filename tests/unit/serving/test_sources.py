"""A source keeps its number, and nothing in its address or title ends the link it stands in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from convene.serving.sources import (
    SOURCES_MAX,
    TITLE_CHARACTERS_MAX,
    URL_CHARACTERS_MAX,
    Sources,
    clean_title,
    link_url,
    mark,
    normal_url,
    plain_title,
)
from convene.tools.base import Source


def test_numbers_follow_first_appearance_and_an_address_keeps_its_number() -> None:
    sources = Sources()
    urls = ["https://b.test/", "https://a.test/x", "https://B.test:443", "HTTPS://b.test/#part", "https://a.test/y"]
    assert [sources.add(Source(url, "")) for url in urls] == [1, 2, 1, 1, 3]
    assert [(number, source.url) for number, source in sources] == [
        (1, "https://b.test/"),
        (2, "https://a.test/x"),
        (3, "https://a.test/y"),
    ]
    assert (sources.number("https://b.test#z"), sources.number("https://c.test"), sources.number("x")) == (
        1,
        None,
        None,
    )
    assert (sources.get(0), sources.get(4)) == (None, None)
    found = sources.get(2)
    assert found is not None
    assert found.url == "https://a.test/x"


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("https://a.test/x", "https://a.test/X"),
        ("https://a.test/x", "http://a.test/x"),
        ("https://a.test/x", "https://a.test/x?y=1"),
        ("https://a.test:444/", "https://a.test/"),
        ("http://a.test:443/", "http://a.test/"),
    ],
)
def test_addresses_that_may_lead_elsewhere_are_different(url: str, other: str) -> None:
    assert normal_url(url) != normal_url(other)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ftp://a.test/",
        "//a.test/x",
        "a.test/x",
        "https://",
        "https:///x",
        "https://me:secret@a.test/",
        "https://a b.test/",
        "https://a.test)(x/",
        "https://[x/",
        "https://evil.test℀/",
        "https://" + "a" * URL_CHARACTERS_MAX + ".test/",
        "",
    ],
)
def test_what_is_no_plain_web_address_is_no_source(url: str) -> None:
    assert (Sources().add(Source(url, "T")), link_url(url), normal_url(url)) == (None, "", None)


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://a.test/x_(y)", "https://a.test/x_%28y%29"),
        ("https://a.test/a b\"c'd", "https://a.test/a%20b%22c%27d"),
        ("https://a.test/?q=[1]|2#`x`", "https://a.test/?q=%5B1%5D%7C2#%60x%60"),
        ("https://a.test/a%20b", "https://a.test/a%20b"),
        ("https://a.test//b", "https://a.test//b"),
        ("https://bücher.test/ä", "https://xn--bcher-kva.test/%C3%A4"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("https://a.test/\u202e", "https://a.test/%E2%80%AE"),
        ("https://a.test/\ud800", "https://a.test/?"),
    ],
)
def test_an_address_is_written_so_that_it_cannot_end_its_link(url: str, written: str) -> None:
    assert link_url(url) == written


HOSTILE = st.text(alphabet=st.sampled_from("()[]<>\"'`\\*_!|~ \n\t:/ax1&;#$%?\u202e"), max_size=30)


@given(HOSTILE, HOSTILE)
def test_the_line_of_a_source_is_one_link_and_plain_text_whatever_strangers_named_it(path: str, title: str) -> None:
    """Judged by a reader of markdown that is not ours."""
    source = Source(f"https://a.test/{path}", title)
    if Sources().add(source) is None:
        return
    line = f"- {mark(1, source.url)} {plain_title(source)}"
    inline = [token for token in MarkdownIt().parse(line) if token.type == "inline"]
    assert len(inline) == 1
    children = inline[0].children or []
    assert [token.type for token in children if token.type not in {"text", "text_special"}] == [
        "link_open",
        "link_close",
    ]
    opening = next(token for token in children if token.type == "link_open")
    assert str(opening.attrs["href"]).startswith("https://a.test/")
    assert children[-1].content.endswith(clean_title(source)[-1:]) or len(clean_title(source)) > TITLE_CHARACTERS_MAX


def test_a_title_is_one_line_of_text_and_the_host_where_there_is_none() -> None:
    assert clean_title(Source("https://a.test/", "  Two\nlines\u202e and\ttabs ")) == "Two lines and tabs"
    assert plain_title(Source("https://a.test/", "[x](y) *b*")) == r"\[x\]\(y\) \*b\*"
    assert plain_title(Source("https://a.test/p", "\n")) == "a.test"
    assert len(plain_title(Source("https://a.test/", "long " * 100))) == TITLE_CHARACTERS_MAX


def test_numbers_have_three_digits_at_most() -> None:
    sources = Sources()
    numbers = [sources.add(Source(f"https://a.test/{i}", "")) for i in range(SOURCES_MAX + 1)]
    assert numbers[-2:] == [SOURCES_MAX, None]
    assert len(sources) == SOURCES_MAX
