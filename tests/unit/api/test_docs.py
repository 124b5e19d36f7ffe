"""The endpoints of the documentation: what they answer, in which form, and that HTML from them is harmless."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from convene.api import docs_html
from convene.api.call import Call
from convene.api.docs import PAGES, Docs, read_page
from convene.api.docs_html import render_page, sections_of, title_of
from convene.api.docs_reference import reference_of, type_of
from convene.api.limit_headers import ReadyHeaders
from convene.api.openapi import document
from convene.api.routes import Router
from convene.api.table import Endpoints, route_table
from convene.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import MutableMapping

VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})


class Answer:
    """What one request got."""

    def __init__(self, sent: list[dict[str, Any]]) -> None:
        self.status: int = sent[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        self.body: bytes = sent[1]["body"]
        self.text = self.body.decode()


class Balance(HTMLParser):
    """Collects what a page refers to, and whether its elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        assert self.open.pop() == tag


async def nobody(call: Call) -> None:
    raise AssertionError(call.path)


async def no_body() -> MutableMapping[str, Any]:
    raise AssertionError("nothing here reads a body")


@pytest.fixture(scope="module")
def docs() -> Docs:
    return Docs(route_table(Endpoints(**dict.fromkeys(Endpoints.__struct_fields__, nobody))), listed=True)


async def get(docs: Docs, path: str, method: str = "GET") -> Answer:
    """Ask as the front door does."""
    sent: list[Any] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    call = Call({"type": "http", "method": method, "path": path, "headers": []}, no_body, send, 0, ReadyHeaders())
    route, call.params = Router(docs.routes()).find(method, path)
    assert route.open
    assert not route.described
    await route.endpoint(call)
    return Answer(sent)


def parsed(text: str) -> Balance:
    balance = Balance()
    balance.feed(text)
    balance.close()
    assert balance.open == []
    return balance


@pytest.mark.req("OAI-32")
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "//"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_points_to_the_documentation(docs: Docs, path: str, method: str) -> None:
    answer = await get(docs, path, method)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    pointer = msgspec.json.decode(answer.body)
    assert pointer["api"] == "/v1"
    for place in (pointer["docs"], pointer["openapi"], pointer["llms"]):
        assert (await get(docs, place)).status == 200


@pytest.mark.req("API-07", "OPS-20")
@pytest.mark.parametrize("path", ["/openapi.json", "/v1/openapi.json"])
async def test_the_description_is_served_as_the_command_line_prints_it(docs: Docs, path: str) -> None:
    answer = await get(docs, path)

    assert answer.headers["content-type"] == "application/json"
    assert answer.body == document()


@pytest.mark.req("OPS-20", "DOCS-01")
async def test_llms_txt_has_a_title_a_quote_and_sections_of_links_that_work(docs: Docs) -> None:
    answer = await get(docs, "/llms.txt")

    assert answer.headers["content-type"].startswith("text/plain")
    title, _, quote, *_ = answer.text.split("\n")
    assert title == "# Convene"
    assert quote.startswith("> ")
    assert re.findall(r"^## (.+)$", answer.text, re.MULTILINE) == ["Use", "Run", "Reference"]
    links = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", answer.text, re.MULTILINE)
    assert len(links) == len(PAGES) + 1
    for link in links:
        assert (await get(docs, link)).status == 200


@pytest.mark.req("DOCS-01")
async def test_llms_full_txt_holds_every_page(docs: Docs) -> None:
    answer = await get(docs, "/llms-full.txt")

    for page in PAGES:
        assert (await get(docs, f"/docs/{page.name}.md")).text.strip() in answer.text


@pytest.mark.req("OPS-20", "DOCS-01")
@pytest.mark.parametrize("page", [page.name for page in PAGES])
async def test_each_page_is_html_and_markdown_and_has_an_index_of_its_own(docs: Docs, page: str) -> None:
    shown = await get(docs, f"/docs/{page}")
    source = await get(docs, f"/docs/{page}.md")
    index = await get(docs, f"/docs/{page}/llms.txt")

    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert source.headers["content-type"] == "text/markdown; charset=utf-8"
    assert source.text.startswith("# ")
    assert f'<h1 id="{docs_anchor(source.text)}">' in shown.text
    assert index.text.startswith(f"# {title_of(source.text)}\n\n> ")
    for words, anchor in sections_of(source.text):
        assert f"[{words}](/docs/{page}.md#{anchor})" in index.text
        assert f'id="{anchor}"' in shown.text


def docs_anchor(markdown: str) -> str:
    return re.sub(r"[^\w\- ]", "", title_of(markdown).lower()).replace(" ", "-")


@pytest.mark.parametrize("path", ["/docs", "/docs/", *(f"/docs/{page.name}" for page in PAGES)])
async def test_each_page_is_one_whole_harmless_document(docs: Docs, path: str) -> None:
    answer = await get(docs, path)

    page = parsed(answer.text)
    assert answer.text.startswith("<!doctype html>")
    assert 'lang="en"' in answer.text
    assert 'name="viewport"' in answer.text
    assert "prefers-color-scheme:dark" in answer.text
    assert not page.tags & {"script", "img", "iframe", "link", "object", "form"}
    assert not [name for name in page.attributes if name.startswith("on") or name == "style"]
    assert "src" not in page.attributes
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    for link in page.links:
        where, _, anchor = link.partition("#")
        assert re.match(r"/|#", link), link
        if where:
            other = await get(docs, where)
            assert not anchor or f'id="{anchor}"' in other.text, link


async def test_the_page_one_is_on_is_marked_in_the_menu(docs: Docs) -> None:
    answer = await get(docs, "/docs/chat")

    assert answer.text.count('aria-current="page"') == 1
    assert '<a href="/docs/chat" aria-current="page">Chat completions</a>' in answer.text
    assert '<a href="/docs" aria-current="page">' in (await get(docs, "/docs")).text


@pytest.mark.req("DOCS-01")
async def test_the_list_of_pages_has_its_own_markdown_and_index(docs: Docs) -> None:
    source = await get(docs, "/docs.md")

    assert source.headers["content-type"].startswith("text/markdown")
    assert "](chat.md)" in source.text
    assert (await get(docs, "/docs/llms.txt")).body == (await get(docs, "/llms.txt")).body


@pytest.mark.parametrize(
    "path",
    ["/docs/nothing", "/docs/nothing.md", "/docs/nothing/llms.txt", "/docs/../config", "/docs/chat/more", "/docs/.md"],
)
async def test_a_page_that_does_not_exist_is_an_ordinary_404(docs: Docs, path: str) -> None:
    with pytest.raises(NotFound) as caught:
        await get(docs, path)

    assert caught.value.code == "not_found"


async def test_a_page_is_made_once(docs: Docs, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await get(docs, "/docs/chat")
    monkeypatch.setattr("convene.api.docs.read_page", None)

    assert (await get(docs, "/docs/chat")).body == first.body


def test_switched_off_there_is_nothing() -> None:
    assert Docs((), listed=False).routes() == ()


def test_making_the_endpoints_reads_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convene.api.docs.read_page", None)

    assert Docs((), listed=True).routes()


def test_html_in_markdown_is_shown_and_not_obeyed() -> None:
    page = render_page("# T\n\n<script>alert(1)</script> [x](javascript:alert(1))\n", "t", []).decode()

    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert 'href="javascript:' not in page


def test_links_between_pages_lead_to_their_addresses_and_others_stay() -> None:
    text = "# T\n\n[a](chat.md) [b](chat.md#reply) [c](/openapi.json) [d](#t) [e](../x.md)\n"

    links = parsed(render_page(text, "t", []).decode()).links
    assert links[-6:-1] == ["/docs/chat", "/docs/chat#reply", "/openapi.json", "#t", "../x.md"]


def test_headings_of_one_name_get_anchors_of_their_own() -> None:
    assert sections_of("# T\n\n## One `x`\n\n## One x\n\n### Two, three\n") == [
        ("One `x`", "one-x"),
        ("One x", "one-x-1"),
        ("Two, three", "two-three"),
    ]


def test_wide_tables_scroll_by_themselves_on_a_phone() -> None:
    page = render_page("# T\n\n| a |\n| --- |\n| b |\n", "t", []).decode()

    assert '<div class="wide"><table>' in page
    assert "overflow-x:auto" in docs_html.STYLE


def test_a_page_without_a_title_is_a_fault_of_ours() -> None:
    with pytest.raises(ValueError, match="begins with its title"):
        title_of("No title\n")


def test_the_reference_shows_every_operation_and_every_field() -> None:
    described = msgspec.json.decode(document())

    page = reference_of(described)
    for path, methods in described["paths"].items():
        for method in methods:
            assert f"\n## {method.upper()} {path}\n" in page
    for name, schema in described["components"]["schemas"].items():
        part = page.partition(f"\n### {name}\n")[2].partition("\n###")[0]
        assert [field for field in schema["properties"] if f"| `{field}` |" not in part] == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "number", "minimum": 0, "maximum": 2}, "number (0 to 2)"),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, "whole number (64 bits)"),
        ({"type": "integer"}, "whole number"),
        ({"type": "string", "maxLength": 5}, "text (at most 5 characters)"),
        ({"type": "string", "minLength": 1, "maxLength": 5}, "text (1 to 5 characters)"),
        ({"type": "string", "minLength": 1}, "text (at least 1 characters)"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 4}, "list (at most 4) of text"),
        ({"type": "array"}, "list of anything"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "true or false or null"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
        ({"type": "object", "additionalProperties": {}}, "object"),
        ({"enum": ["a", "b"]}, '"a" or "b"'),
        ({"$ref": "#/components/schemas/Step"}, "Step"),
        ({}, "anything"),
    ],
)
def test_types_are_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert type_of(schema) == words


def test_every_page_is_part_of_the_installed_package() -> None:
    for page in PAGES:
        if page.name != "reference":
            assert read_page(page.name).startswith("# ")
