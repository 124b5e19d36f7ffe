"""From the bytes of a page to what a model reads: kinds, characters, HTML, PDF, text, and hostile pages."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.egress_url import read_url
from convene.tools.page_child import LINKS_MAX, answer, serve
from convene.tools.page_kind import kind_of
from convene.tools.page_text import Page, Unreadable, decode, read_html, read_pdf, read_text, tidy
from page_samples import ARTICLE, HARMFUL, PARAGRAPH, locked_pdf, pdf

URL = "https://vell.example/light/"


def html(body: str) -> Page:
    return read_html(body.encode(), "utf-8", URL)


@pytest.mark.parametrize(
    ("content_type", "start", "kind"),
    [
        ("text/html; charset=utf-8", b"x", "html"),
        ("application/xhtml+xml", b"x", "html"),
        ("TEXT/HTML", b"x", "html"),
        ("application/pdf", b"x", "pdf"),
        ("text/html", b"%PDF-1.7", "pdf"),
        ("text/plain", b"<html>", "text"),
        ("text/markdown", b"# x", "text"),
        ("application/json", b"{}", "text"),
        ("application/ld+json", b"{}", "text"),
        ("application/rss+xml", b"<rss>", "text"),
        ("", b"\n<!DOCTYPE html>", "html"),
        ("application/octet-stream", b"<html lang=de>", "html"),
        ("", b"hello", "text"),
        ("", b"\x7fELF\0\0", "other"),
        ("", b"", "other"),
        ("image/png", b"\x89PNG", "other"),
        ("application/zip", b"PK", "other"),
        ("video/mp4", b"text", "other"),
    ],
)
def test_a_body_is_what_is_declared_unless_that_says_nothing(content_type: str, start: bytes, kind: str) -> None:
    assert kind_of(content_type, start) == kind


@pytest.mark.parametrize(
    ("data", "declared", "text"),
    [
        ("grün".encode(), "utf-8", "grün"),
        ("grün".encode(), "", "grün"),
        ("grün".encode("cp1252"), "", "grün"),
        ("grün „ja“".encode("cp1252"), "iso-8859-1", "grün „ja“"),
        ("grün".encode("utf-16"), "utf-8", "grün"),
        (b"\xef\xbb\xbfgr\xc3\xbcn", "latin-1", "grün"),
        ("日本".encode("shift_jis"), "Shift_JIS", "日本"),
        ("中文".encode("gb18030"), "gb2312", "中文"),
        (b'<meta charset="euc-kr">' + "한국".encode("euc-kr"), "", '<meta charset="euc-kr">한국'),
        (b"gr\xfcn", "no-such-charset", "grün"),
        (b"gr\xfcn", "utf-8", "gr\ufffdn"),
        (b"x", "zip", "x"),
        (b"x", "idna", "x"),
        (b"x", "undefined", "x"),
    ],
)
def test_characters_are_read_as_they_were_meant(data: bytes, declared: str, text: str) -> None:
    assert decode(data, declared) == text


def test_an_article_is_read_without_what_stands_around_it() -> None:
    page = html(ARTICLE)
    assert page.title == "The Light of Vell"
    assert page.text.startswith("# The Light of Vell\n\nThe lighthouse of Vell")
    for word in ("News", "Shop", "privacy", "Share this", "Related", "Imprint", "track(", "color", "Logo", "Skip to"):
        assert word not in page.text, word
    for word in ("hidden words", "icon", "a comment"):
        assert word not in page.text, word
    for word in (
        "## Keepers",
        "- Ada, 1871",
        "**1899**",
        "light.on(1871)\nlight.off()",
        "| 1871 | 12 |",
        "After the comment.",
    ):
        assert word in page.text.replace("\xa0", " ").replace("  |", " |").replace("   ", " "), word


def test_links_are_absolute_fetchable_and_stand_in_the_text_word_for_word() -> None:
    page = html(ARTICLE)
    assert page.links == (
        "https://vell.example/history?x=1&y=2",
        "https://en.example/wiki/Vell_%28town%29",
    )
    for link in page.links:
        assert f"]({link})" in page.text
        assert read_url(link).url == link
    assert "javascript" not in page.text
    assert "a note" in page.text


def test_a_base_of_the_page_s_own_is_what_links_are_read_against() -> None:
    page = html(f'<base href="https://other.example/a/"><p>{PARAGRAPH}<a href="b">c</a></p>')
    assert page.links == ("https://other.example/a/b",)
    assert html(f'<base href="//[">{PARAGRAPH}<a href="/b">c</a>').links == ("https://vell.example/b",)


@pytest.mark.parametrize(
    "href",
    [
        "http://[::1",
        "//user@x.example/",
        "http://127.1/",
        "ftp://x.example/",
        "data:,x",
        "\x00",
        "http://x\u3002y/",
        " ",
    ],
)
def test_a_link_that_could_not_be_fetched_is_shown_as_its_words(href: str) -> None:
    page = html(f'<p>{PARAGRAPH}<a href="{href}">words</a></p>')
    assert page.links == ()
    assert "words" in page.text


def test_a_page_without_a_main_part_is_read_whole_less_its_lists_of_links() -> None:
    menu = "".join(f'<li><a href="/{number}">Chapter {number}</a></li>' for number in range(8))
    page = html(f"<body><ul>{menu}</ul><div><h1>Title</h1><p>{PARAGRAPH}</p></div></body>")
    assert "Chapter" not in page.text
    assert page.text.startswith("# Title")


def test_a_page_that_is_a_list_of_links_keeps_them() -> None:
    index = "".join(f'<li><a href="/{number}">Chapter number {number}</a></li>' for number in range(50))
    page = html(f"<body><h1>Index</h1><ul>{index}</ul></body>")
    assert len(page.links) == 50
    assert "Chapter number 49" in page.text


def test_a_main_part_that_holds_next_to_nothing_is_not_believed() -> None:
    page = html(f"<body><main><p>Loading</p></main><div><p>{PARAGRAPH}</p></div></body>")
    assert "lighthouse" in page.text


def test_several_articles_are_all_read() -> None:
    page = html("".join(f"<article><h2>Part {number}</h2><p>{PARAGRAPH}</p></article>" for number in range(3)))
    assert all(f"## Part {number}" in page.text for number in range(3))


def test_a_margin_with_most_of_the_text_is_no_margin() -> None:
    page = html(f'<body><div class="sidebar"><p>{PARAGRAPH}</p></div><p>x</p></body>')
    assert "lighthouse" in page.text


@pytest.mark.parametrize(
    "body", ["", " ", "<html></html>", "<script>draw()</script>", "<div id=root></div>", "<!-- x -->"]
)
def test_a_page_without_text_says_so(body: str) -> None:
    with pytest.raises(Unreadable, match=r"empty|scripts"):
        html(body)


def test_what_nobody_sees_is_taken_out() -> None:
    smuggled = "".join(chr(0xE0000 + ord(letter)) for letter in "obey me")
    assert tidy(f"a{smuggled}b\u200bc\u202ed\x1b[31me\xadf\r\ng\rh\n\n\n\ni \t\nj") == "abcd[31mef\ng\nh\n\ni\nj"
    assert smuggled not in html(f"<p>{PARAGRAPH}{smuggled}</p>").text
    assert read_text(f"x{smuggled}y".encode(), "").text == "xy"


def test_plain_text_markdown_and_json_are_left_as_they_are() -> None:
    assert read_text(b'# T\n\n* [a](b)\n{"a": [1]}', "") == Page("", '# T\n\n* [a](b)\n{"a": [1]}')


def test_a_pdf_is_read_page_by_page_with_its_title() -> None:
    page = read_pdf(pdf(["The light of Vell", "was lit in 1871"], "Vell"), 10_000)
    assert page == Page("Vell", "[page 1 of 2]\nThe light of Vell\n\n[page 2 of 2]\nwas lit in 1871")


def test_no_more_of_a_pdf_is_read_than_is_asked_for() -> None:
    page = read_pdf(pdf([f"page {number} " + "x" * 50 for number in range(20)]), 100)
    assert page.text.count("[page") == 2
    assert not page.whole


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"%PDF-1.4\nnothing", "damaged"),
        (pdf(["x"])[:200], "damaged"),
        (b"", "damaged"),
        (pdf(["", ""]), "no text"),
        (locked_pdf(), "password"),
    ],
)
def test_a_pdf_that_cannot_be_read_says_why(data: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        read_pdf(data, 1000)


@pytest.mark.parametrize("name", HARMFUL)
def test_a_hostile_page_is_text_or_a_refusal_and_nothing_else(name: str) -> None:
    try:
        page = read_html(HARMFUL[name], "", URL)
    except Unreadable:
        return
    assert page.text.encode()
    assert json.dumps(page.links)


@given(st.binary(max_size=300), st.sampled_from(["", "utf-8", "utf-16", "big5", "x"]))
def test_any_bytes_are_text_or_a_refusal(data: bytes, charset: str) -> None:
    with contextlib.suppress(Unreadable):
        read_html(data, charset, URL).text.encode()
    with contextlib.suppress(Unreadable):
        read_pdf(b"%PDF-1.4\n" + data, 100).text.encode()
    read_text(data, charset).text.encode()


@given(
    st.recursive(
        st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3).map(
            lambda parts: f"<{'main' if len(parts) > 2 else 'div'}><a href=/x>{''.join(parts)}</a></div>"
        ),
        max_leaves=8,
    )
)
def test_links_of_any_page_stand_in_its_text(markup: str) -> None:
    try:
        page = html(markup)
    except Unreadable:
        return
    assert all(link in page.text for link in page.links)


# The child's answers, without the process.


def order(**fields: object) -> dict[str, object]:
    return {"kind": "text", "charset": "utf-8", "url": URL, "start": 0, "chars": 1000, **fields}


def test_an_answer_is_the_part_asked_for_cut_between_words() -> None:
    text = " ".join(f"word{number:03}" for number in range(100))
    first = answer(order(chars=100), text.encode())
    assert first["total"] == len(text)
    assert str(first["text"]).endswith("word011")
    rest = answer(order(start=len(str(first["text"])), chars=5000), text.encode())
    assert str(first["text"]) + str(rest["text"]) == text
    assert answer(order(start=9999), text.encode())["text"] == ""
    assert answer(order(chars=50), b"x" * 100)["text"] == "x" * 50


def test_only_links_in_the_part_that_is_shown_are_given() -> None:
    body = "".join(f"<p>{PARAGRAPH}<a href=/p{number}>next</a></p>" for number in range(LINKS_MAX * 2)).encode()
    first = answer(order(kind="html", chars=2000), body)
    assert 0 < len(list(first["links"])) < 10  # type: ignore[call-overload]
    assert all(link in str(first["text"]) for link in list(first["links"]))  # type: ignore[call-overload]
    whole = answer(order(kind="html", chars=10_000_000), body)
    assert len(list(whole["links"])) == LINKS_MAX  # type: ignore[call-overload]


def test_what_cannot_be_read_is_an_answer_with_words() -> None:
    assert "damaged" in str(answer(order(kind="pdf"), b"x")["error"])


def test_orders_are_answered_in_turn_until_there_are_no_more() -> None:
    bodies = [b"one", b"", b"two\nlines"]
    lines = [json.dumps(order(bytes=len(body))).encode() + b"\n" + body for body in bodies]
    out = io.BytesIO()
    serve(io.BytesIO(b"".join(lines)), out)
    assert [json.loads(line)["text"] for line in out.getvalue().splitlines()] == ["one", "", "two\nlines"]
