"""Markers in an answer become links with right annotations, however the text is cut, and nothing else changes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convene.serving.citations import LISTED_MAX, Citer
from convene.serving.sources import Sources
from convene.tools.base import Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convene.events import Cited


def three_sources() -> Sources:
    sources = Sources()
    for number in (1, 2, 3):
        sources.add(Source(f"https://x.test/{number}", f"Title {number}"))
    return sources


def cite(pieces: Iterable[str], *, list_sources: bool = False) -> tuple[str, list[Cited]]:
    """Return the final text and the citations of an answer that came in these pieces."""
    citer = Citer(three_sources())
    shown = [citer.feed(piece) for piece in pieces]
    shown.append(citer.end(list_sources=list_sources))
    return "".join(piece.text for piece in shown), [cited for piece in shown for cited in piece.cited]


def short(text: str) -> str:
    """Return what becomes of a text, letter by letter, with `u1` for the first source's address."""
    return cite(text)[0].replace("https://x.test/", "u")


ONE, TWO, THREE = "[[1]](u1)", "[[2]](u2)", "[[3]](u3)"


@pytest.mark.req("OAI-45")
@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Rome is hot [1].", f"Rome is hot {ONE}."),
        ("Rome is hot[1]", f"Rome is hot{ONE}"),
        ("both [1][2]", f"both {ONE}{TWO}"),
        ("both [1, 2]; all [1,2;3]", f"both {ONE}{TWO}; all {ONE}{TWO}{THREE}"),
        ("spaced [ 1 ]", f"spaced {ONE}"),
        ("twice [[2]]", f"twice {TWO}"),
        ("羅馬很熱【1】【2†L3-L5】", f"羅馬很熱{ONE}{TWO}"),
        ("as they say [1](as of today)", f"as they say {ONE}(as of today)"),
        ("[1] Title\n[2] Other", f"{ONE} Title\n{TWO} Other"),
        ("a note [see [1] too] ends", f"a note [see {ONE} too] ends"),
        ("an open [bracket [1]\nnext", f"an open [bracket {ONE}\nnext"),
        ("- [ ] open [1]\n- [x] done", f"- [ ] open {ONE}\n- [x] done"),
        ("`code` [1]", f"`code` {ONE}"),
        ("a `stray tick\n\nnext [1]", f"a `stray tick\n\nnext {ONE}"),
        ("```py\nx[1]\n```\nafter [1]", f"```py\nx[1]\n```\nafter {ONE}"),
        ("~~~\n```\n[1]\n~~~\n[1]", f"~~~\n```\n[1]\n~~~\n{ONE}"),
        ("1. do\n   ```\n   [1]\n   ```\n2. [1]", f"1. do\n   ```\n   [1]\n   ```\n2. {ONE}"),
        ("[text](http://q.test) [1]", f"[text](http://q.test) {ONE}"),
    ],
)
def test_a_marker_becomes_a_numbered_link(written: str, shown: str) -> None:
    assert short(written) == shown


@pytest.mark.parametrize(
    "text",
    [
        "no source has this: [9] [0] [1000]",
        "```\n[1]\n```",
        "````\n```\n[1]\n````",
        "    ```\n[1]",
        "`[1]` and ``a ` [1]``",
        "[text](http://q.test/a[1]b) and [1](https://elsewhere.test/) and [1](relative/page)",
        "[the text [1] of a link](http://q.test)",
        "- [ ] open\n- [x] done\n[X]",
        "x[1], a_list[2], arr[1][2], f()[1], sys.argv[1]",
        "value[1] = 2, value[1] += 2, value[1]=2, value[1].name",
        "[1]: https://q.test 'a definition'",
        r"escaped \[1\] and \[ 1 \]",
        "a footnote[^1] and [a] and []",
        "unfinished [1, and 【1",
        "1 < 2 [1",
    ],
)
def test_what_is_no_citation_is_left_as_it_is(text: str) -> None:
    """Of a marker that the text ends in the middle of, too."""
    assert cite(text) == (text, [])


def test_an_unknown_number_in_a_group_stays_text() -> None:
    assert short("see [1, 9, 2]") == f"see {ONE}[9]{TWO}"


def test_a_link_that_the_model_wrote_to_a_known_source_gets_the_number_of_this_run() -> None:
    """Models copy the form of their earlier answers, whose numbers were another run's."""
    assert short("as said [[2]](https://x.test/1), [7](https://X.test/3#part)") == f"as said {ONE}, {THREE}"


def test_a_citation_behind_an_exclamation_mark_does_not_become_an_image() -> None:
    assert short("Hot![1]") == f"Hot! {ONE}"


@pytest.mark.req("OAI-44")
def test_the_indexes_count_characters_not_bytes_or_units() -> None:
    text, cited = cite(["Ω😀é [1] ", "und 【2】"])
    assert text == "Ω😀é [[1]](https://x.test/1) und [[2]](https://x.test/2)"
    assert [(one.start_index, one.end_index, one.url, one.title) for one in cited] == [
        (4, 27, "https://x.test/1", "Title 1"),
        (32, 55, "https://x.test/2", "Title 2"),
    ]


def test_nothing_is_held_back_that_cannot_become_a_marker() -> None:
    citer = Citer(three_sources())
    pieces = ["Rome", " is [", "hot", "] [1", "]", ". [12", "34]"]
    assert [citer.feed(piece).text for piece in pieces] == [
        "Rome",
        " is ",
        "[hot",
        "] ",
        "",
        "[[1]](https://x.test/1). ",
        "[1234]",
    ]


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            (
                *(
                    "[1]",
                    "[2]",
                    "[1, 3]",
                    "[[2]]",
                    "[9]",
                    "[1](",
                    "https://x.test/2",
                    "(",
                    ")",
                    "[",
                    "]",
                    "](",
                    "![",
                    "!",
                ),
                *(
                    "【1】",
                    "【2†a】",
                    "【",
                    "】",
                    "†",
                    "`",
                    "`" * 70,
                    "``",
                    "```",
                    "\n```\n",
                    "~~~",
                    "\n",
                    "\n\n",
                    " ",
                    "\\",
                    ",",
                ),
                *("word", "x", "a_b", "()", " = ", ".n", ":", "- ", "> ", "1. ", "1", "é", "😀", ";", "http://q.test/"),
            )
        ),
        st.text(alphabet="[]1290, ()`~!\\\n x", max_size=4),
    ),
    max_size=14,
).map("".join)


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


@given(text=PIECES, places=st.lists(st.integers(0, 500), max_size=8), listed=st.booleans())
@example(text="a [1](https://x.test/2", places=[3, 9], listed=True)
@example(text="[a [1]](", places=[5, 6], listed=True)
@example(text="word[1] +", places=[7, 8], listed=False)
def test_however_a_text_is_cut_the_result_is_the_same_and_its_indexes_cut_out_the_links(
    *, text: str, places: list[int], listed: bool
) -> None:
    whole, cited = cite([text], list_sources=listed)
    assert cite(cut(text, places), list_sources=listed) == (whole, cited)
    assert cite(text, list_sources=listed) == (whole, cited)
    for one in cited:
        link = re.fullmatch(r"\[\[([123])\]\]\((.+)\)", whole[one.start_index : one.end_index])
        assert link is not None
        assert (link[2], link[1]) == (one.url, one.url[-1])
    assert sorted(cited, key=lambda one: one.start_index) == cited


@pytest.mark.parametrize("piece", ["`", "[", "[1", "[[1", "[1](x", "【1", "【1†a", "~", "[x [1] ", "(", "word[1] +"])
def test_what_is_held_back_has_an_end(piece: str) -> None:
    citer = Citer(three_sources())
    held = 0
    for _ in range(4_000):
        citer.feed(piece)
        held = max(held, len(citer._held))
    assert held < 2_200


@given(PIECES)
def test_without_sources_a_text_passes_unchanged(text: str) -> None:
    citer = Citer(Sources())
    assert citer.feed(text).text + citer.end().text == text


@pytest.mark.req("OAI-45")
def test_sources_that_were_used_but_not_cited_are_listed_with_annotations() -> None:
    text, cited = cite(["Rome is hot."], list_sources=True)
    assert text == (
        "Rome is hot.\n\nSources:\n\n- [[1]](https://x.test/1) Title 1\n- [[2]](https://x.test/2) Title 2"
        "\n- [[3]](https://x.test/3) Title 3"
    )
    assert [text[one.start_index : one.end_index][2] for one in cited] == ["1", "2", "3"]


def test_a_list_of_sources_is_short_and_stands_outside_of_code_left_open() -> None:
    sources = Sources()
    for number in range(LISTED_MAX + 5):
        sources.add(Source(f"https://x.test/{number}", "T"))
    citer = Citer(sources)
    text = citer.feed("~~~~py\nx!").text + citer.end().text
    assert text.startswith("~~~~py\nx!\n~~~~\n\nSources:\n\n- [[1]]")
    assert text.count("\n- ") == LISTED_MAX


@pytest.mark.parametrize("text", ["Cited [1].", ""])
def test_no_list_follows_an_answer_that_cites_or_is_empty(text: str) -> None:
    assert "Sources:" not in cite([text], list_sources=True)[0]
