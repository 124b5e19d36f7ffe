"""Results are numbered for the model, and its answer goes out with links, annotations and nothing that loads."""

from __future__ import annotations

import pytest

from convene.events import Cited, TextDelta, fold
from convene.messages import Message, ResponseFormat
from convene.serving.answer_text import AnswerText
from convene.serving.base_agentic import RunView
from convene.tools.base import Shows, Source, ToolResult
from standin_run import job_of

USER = Message(role="user", content="How hot is Rome?")
SEARCHED = ToolResult(
    text="Rome today\nhttps://a.test/\nHot.\n\nHeat in Italy\nhttps://b.test/x\nVery hot[12].",
    sources=(Source("https://a.test/", "Rome today", "Hot."), Source("https://b.test/x", "Heat in Italy", "Very hot.")),
)


def answer(view: RunView | None = None, response_format: ResponseFormat | None = None) -> AnswerText:
    return AnswerText(job_of(USER, response_format=response_format), view or RunView(messages=(USER,)))


def test_a_model_reads_a_number_in_front_of_each_source() -> None:
    text = answer()
    assert text.present(SEARCHED) == (
        "[1] Rome today\nhttps://a.test/\nHot.\n\n[2] Heat in Italy\nhttps://b.test/x\nVery hot(12)."
    )
    page = ToolResult(
        text="The page.\n[1] a footnote, arr[0]", sources=(Source("https://b.test/x#top", "Heat in\nItaly"),)
    )
    assert text.present(page) == "[2] Heat in Italy https://b.test/x#top\n\nThe page.\n(1) a footnote, arr[0]"


def test_a_result_without_sources_is_read_as_it_is() -> None:
    data = ToolResult(text='{"a": [1], "b":[2][3]}')
    assert answer().present(data) == data.text


def test_a_source_that_cannot_be_linked_to_has_no_number() -> None:
    local = ToolResult(text="notes", sources=(Source("file:///etc/notes", "Notes"),))
    assert answer().present(local) == "notes"


def test_titles_that_repeat_or_stand_inside_a_line_do_not_mislead() -> None:
    twice = ToolResult(
        text="see T\nhttps://a.test/\n\nT\nhttps://a.test/\nfirst\n\nT\nhttps://b.test/\nsecond",
        sources=(Source("https://a.test/", "T"), Source("https://b.test/", "T")),
    )
    assert answer().present(twice) == (
        "see T\nhttps://a.test/\n\n[1] T\nhttps://a.test/\nfirst\n\n[2] T\nhttps://b.test/\nsecond"
    )


@pytest.mark.req("OAI-44", "OAI-45")
def test_an_answer_cites_by_link_and_annotation() -> None:
    text = answer()
    text.present(SEARCHED)
    events = [event for piece in ("Rome is hot [", "2].") for event in text.write(piece)]
    events += text.end()
    gathered = fold(events)
    assert "".join(gathered.choice(0).text) == "Rome is hot [[2]](https://b.test/x)."
    assert gathered.citations == [Cited("https://b.test/x", "Heat in Italy", 12, 35)]


def test_an_answer_that_cites_nothing_lists_its_sources_unless_it_is_not_the_whole() -> None:
    whole, half = answer(), answer()
    for text in (whole, half):
        text.present(SEARCHED)
        assert text.write("Hot.") == [TextDelta("Hot.")]
    listed = fold(whole.end())
    assert "".join(listed.choice(0).text).startswith("\n\nSources:\n\n- [[1]](https://a.test/) Rome today\n- [[2]]")
    assert len(listed.citations) == 2
    assert list(half.end(whole=False)) == []


FOX = Shows("![a fox](https://c.test/fox?signature=1)", "https://c.test/fox?signature=1")
OWL = Shows("![an owl](https://c.test/owl?signature=2)", "https://c.test/owl?signature=2")
DRAWN = ToolResult(text="drawn", links=(FOX.link,), shows=(FOX,))


def said(text: AnswerText, *pieces: str, whole: bool = True) -> str:
    events = [event for piece in pieces for event in text.write(piece)]
    return "".join(fold([*events, *text.end(whole=whole)]).choice(0).text)


def test_what_was_made_for_the_reader_stands_at_the_end_unless_the_model_has_shown_it() -> None:
    forgetful, careful, silent, wrong = answer(), answer(), answer(), answer()
    for text in (forgetful, careful, silent, wrong):
        text.present(DRAWN)
    assert said(forgetful, "Here ", "it is.") == f"Here it is.\n\n{FOX.line}"
    assert said(careful, "Here: ![a fox](https://c.test/fo", "x?signature=1) So.") == f"Here: {FOX.line} So."
    assert said(silent) == FOX.line
    assert said(wrong, "Here: ![a fox](https://c.test/fox)").endswith(f"\n\n{FOX.line}")


def test_of_several_things_made_those_that_lack_are_shown_in_their_order_before_the_sources() -> None:
    text = answer()
    text.present(SEARCHED)
    text.present(ToolResult(text="drawn", shows=(FOX, OWL)))
    text.present(DRAWN)
    shown = said(text, f"One: {OWL.line}. ")
    assert shown.startswith(f"One: {OWL.line}. \n\n{FOX.line}\n\nSources:")
    assert shown.count(FOX.link) == 1


def test_an_answer_that_is_not_whole_or_is_json_gets_nothing_more() -> None:
    half, data = answer(), answer(response_format=ResponseFormat("json_object"))
    for text in (half, data):
        text.present(DRAWN)
    assert said(half, "Here", whole=False) == "Here"
    assert said(data, "{}") == "{}"


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_an_answer_in_json_passes_untouched(kind: str) -> None:
    form = ResponseFormat("json_object") if kind == "json_object" else ResponseFormat("json_schema", schema={})
    text = answer(RunView(messages=(USER,), labels={"untrusted"}), form)
    text.present(SEARCHED)
    written = '{"a": "![x](https://evil.test/) [1]", "b": [1]}'
    assert [*text.write(written), *text.write(""), *text.end()] == [TextDelta(written)]


@pytest.mark.parametrize("form", [ResponseFormat(), ResponseFormat("json_object")])
def test_reasoning_loads_no_more_than_the_answer(form: ResponseFormat) -> None:
    text = answer(RunView(messages=(USER,), labels={"untrusted"}), form)
    shown = [text.think("![x](https://evil"), text.think(".test/) so!"), text.think("", end=True), text.think("[1]")]
    assert shown == ["", "! [x](https://evil.test/) so", "!", "[1]"]


def test_images_load_only_what_was_shown_once_strangers_text_is_in_the_run() -> None:
    view = RunView(messages=(USER,))
    text = answer(view)
    image = "![x](https://evil.test/?q=1) "
    assert text.write(image) == [TextDelta(image)]
    view.labels.add("untrusted")
    view.addresses.add("https://b.test/x.png")
    assert text.write(image) == [TextDelta("! [x](https://evil.test/?q=1) ")]
    assert text.write("![x](https://b.test/x.png) ") == [TextDelta("![x](https://b.test/x.png) ")]
