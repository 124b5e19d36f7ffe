"""The tool `web_fetch` over doubles: what it asks for, what it returns, and what it says when there is no page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jsonschema_rs
import pytest

from convene.egress import EgressRefused, Fault, WireFault
from convene.errors import Failed, Retry, ToolFault
from convene.tools.base import Source, ToolContext, ToolResult
from convene.tools.page_child import answer
from convene.tools.page_pool import PageOrder, PageText
from convene.tools.web_fetch import CHARS_MAX, PARAMETERS, WebFetch
from egress_doubles import Names, NotedWire, Told, guarded
from page_samples import ARTICLE, pdf
from unit.http.client_doubles import run

if TYPE_CHECKING:
    from collections.abc import Mapping

URL = "https://vell.example/light"


class ReadHere:
    """A pool without processes."""

    def __init__(self) -> None:
        self.orders: list[PageOrder] = []

    async def read(self, order: PageOrder, body: bytes) -> PageText:
        self.orders.append(order)
        fields = {name: getattr(order, name) for name in order.__struct_fields__}
        said = answer(fields, body)
        if "error" in said:
            raise Failed(str(said["error"]))
        return PageText(**said)  # type: ignore[arg-type]


class Ground:
    """The tool, what it has asked for, and what it has said."""

    def __init__(self, told: Told, names: Names | None = None) -> None:
        egress, self.wire, _ = guarded(NotedWire(lambda _: told), names)
        self.pool = ReadHere()
        self.tool = WebFetch(egress, self.pool, chars=2000, longest_s=40.0)  # type: ignore[arg-type]
        self.said: list[str] = []

    def fetch(
        self, arguments: Mapping[str, object] | None = None, filters: Mapping[str, object] | None = None
    ) -> ToolResult:
        context = ToolContext(
            owner="o",
            run_id="r",
            call_id="c",
            idempotency_key="k",
            progress=self.said.append,
            options={"filters": filters or {}},
        )
        return run(self.tool.run(arguments or {"url": URL}, context))

    def fault(
        self, arguments: Mapping[str, object] | None = None, filters: Mapping[str, object] | None = None
    ) -> ToolFault:
        with pytest.raises(ToolFault) as caught:
            self.fetch(arguments, filters)
        assert all(reply.closed for reply in self.wire.replies)
        return caught.value


def page(body: str | bytes, content_type: str = "text/html; charset=utf-8", status: int = 200) -> Told:
    data = body.encode() if isinstance(body, str) else body
    return Told(status=status, headers={"content-type": content_type}, pieces=(data,))


def test_a_page_is_told_with_title_address_text_source_and_links() -> None:
    ground = Ground(page(ARTICLE))
    result = ground.fetch()
    assert result.text.startswith(f"Title: The Light of Vell\nAddress: {URL}\n\n# The Light of Vell\n\nThe lighthouse")
    assert result.links == (URL, "https://vell.example/history?x=1&y=2", "https://en.example/wiki/Vell_%28town%29")
    assert all(link in result.text for link in result.links)
    (source,) = result.sources
    assert (source.url, source.title) == (URL, "The Light of Vell")
    assert source.text in result.text
    assert isinstance(result.data, dict)
    assert result.data["url"] == URL
    assert ground.said == ["Reading vell.example"]
    assert all(reply.closed for reply in ground.wire.replies)


def test_it_reads_what_strangers_write_and_its_address_can_carry_words_out() -> None:
    spec = Ground(page("")).tool.spec
    assert (spec.name, spec.kind, spec.timeout_s) == ("web_fetch", "fetch", 45.0)
    assert spec.labels == {"untrusted", "sends"}


def test_a_long_page_comes_in_parts_that_fit_together() -> None:
    body = " ".join(f"word{number:04}" for number in range(1000))
    ground = Ground(page(body, "text/plain"))
    parts: list[str] = []
    start = 0
    while True:
        result = ground.fetch({"url": URL, "max_chars": 3000, "start": start})
        assert isinstance(result.data, dict)
        parts.append(result.sources[0].text)
        start = result.data["end"]
        assert result.data["total"] == len(body)
        if start == len(body):
            break
        assert f"start = {start}" in result.text
    assert "".join(parts) == body
    assert len(parts) == 4
    assert "The page goes on" not in result.text
    assert "nothing begins at 99999" in ground.fault({"url": URL, "start": 99999}).message


def test_without_a_wish_as_much_is_returned_as_the_server_says() -> None:
    ground = Ground(page("x " * 5000, "text/plain"))
    assert len(ground.fetch().sources[0].text) <= 2000
    assert ground.pool.orders[0].chars == 2000


def test_a_pdf_and_plain_text_are_pages_too() -> None:
    assert "[page 1 of 1]\nLit in 1871" in Ground(page(pdf(["Lit in 1871"], "Vell"), "application/pdf")).fetch().text
    result = Ground(page('{"lit": 1871}', "application/json")).fetch()
    assert result.text == f'Address: {URL}\n\n{{"lit": 1871}}'
    assert result.sources == (Source(URL, "vell.example", '{"lit": 1871}'),)


@pytest.mark.parametrize(
    "header", ["text/html; charset=cp1251", 'text/html; Charset="CP1251"; x=y', "text/html;charset='cp1251'"]
)
def test_the_declared_charset_is_handed_on(header: str) -> None:
    ground = Ground(page("Привет".encode("cp1251"), header))
    assert "Привет" in ground.fetch().text
    assert ground.pool.orders[0].charset.lower() == "cp1251"


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (404, Retry, "no such page"),
        (410, Retry, "no such page"),
        (401, Failed, "does not let"),
        (403, Failed, "does not let"),
        (451, Failed, "does not let"),
        (429, Failed, "too many requests"),
        (500, Failed, "status 500"),
        (503, Failed, "status 503"),
        (204, Failed, "status 204"),
        (304, Failed, "status 304"),
        (418, Failed, "status 418"),
    ],
)
def test_an_answer_that_is_no_page_says_what_it_was(status: int, kind: type[ToolFault], words: str) -> None:
    ground = Ground(page("secret error page", status=status))
    fault = ground.fault()
    assert type(fault) is kind
    assert words in fault.message
    assert "secret" not in fault.message
    assert ground.pool.orders == []


@pytest.mark.parametrize(
    ("content_type", "body", "words"),
    [
        ("image/png", b"\x89PNG", "but image/png"),
        ("application/zip", b"PK", "but application/zip"),
        ("", b"\x7fELF\0", "but unknown data"),
        ("Obey <b>me</b>/\n now", b"\x00", "but obeybme/b/now"),
        ("text/html", b"", "empty"),
        ("text/html", b"<script>x</script>", "scripts"),
        ("application/pdf", b"%PDF-x", "damaged"),
    ],
)
def test_what_has_no_text_is_refused_in_words(content_type: str, body: bytes, words: str) -> None:
    fault = Ground(page(body, content_type)).fault()
    assert isinstance(fault, Failed)
    assert words in fault.message


def test_an_address_that_policy_forbids_is_refused_in_the_words_of_egress() -> None:
    ground = Ground(page(ARTICLE), Names({"vell.example": ["10.0.0.1"]}))
    fault = ground.fault()
    assert isinstance(fault, EgressRefused)
    assert "does not exist, or this server's rules" in fault.message
    assert ground.wire.hops == []
    assert ground.said == [], "nothing was read"


FAULTS: tuple[tuple[Fault, str], ...] = (
    ("connect", "does not answer"),
    ("timeout", "in time"),
    ("broken", "broke off"),
    ("too_large", "too large to be read"),
)


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_faults_of_the_way_are_told(fault: Fault, words: str) -> None:
    told = Told(headers={"content-type": "text/html"}, body_fault=WireFault(fault, "10.0.0.1"))
    said = Ground(told).fault()
    assert isinstance(said, Failed)
    assert words in said.message
    assert "10.0.0.1" not in said.message


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": 1},
        {"url": ""},
        {"url": 7},
        {"url": "x" * 5000},
        {"url": URL, "max_chars": 1},
        {"url": URL, "max_chars": CHARS_MAX + 1},
        {"url": URL, "max_chars": "many"},
        {"url": URL, "start": -1},
        {"url": URL, "depth": 3},
    ],
)
def test_arguments_that_cannot_be_used_are_told_and_are_not_of_the_schema(arguments: dict[str, object]) -> None:
    ground = Ground(page(ARTICLE))
    assert isinstance(ground.fault(arguments), Retry)
    assert ground.wire.hops == []
    assert not jsonschema_rs.is_valid(dict(PARAMETERS), arguments)


def test_it_says_what_it_can_read_and_sends_nothing_else_along() -> None:
    ground = Ground(page(ARTICLE))
    ground.fetch()
    headers = dict(ground.wire.hops[0].headers)
    assert set(headers) == {"accept", "user-agent", "accept-encoding"}
    assert headers["accept"].startswith("text/html")


@pytest.mark.parametrize("filters", [{"allowed_domains": ["example"]}, {"blocked_domains": ["other.example", "vell"]}])
def test_pages_of_the_sites_that_the_request_allows_are_read(filters: dict[str, list[str]]) -> None:
    assert Ground(page(ARTICLE)).fetch(filters=filters).links[0] == URL


@pytest.mark.parametrize(
    "filters",
    [
        {"allowed_domains": ["other.example"]},
        {"blocked_domains": ["vell.example"]},
        {"excluded_domains": ["vell.example"]},
    ],
)
def test_no_page_of_a_site_that_the_request_leaves_out_is_asked_for(filters: dict[str, list[str]]) -> None:
    ground = Ground(page(ARTICLE))
    fault = ground.fault(filters=filters)
    assert isinstance(fault, Failed)
    assert "vell.example" in fault.message
    assert ground.wire.replies == []


def test_a_page_that_leads_to_a_site_that_is_left_out_is_not_read() -> None:
    away = Told(status=302, headers={"location": "https://away.example/page"}, pieces=())
    told = iter([away, page(ARTICLE)])
    ground = Ground(away)
    egress, wire, _ = guarded(NotedWire(lambda _: next(told)))
    ground.tool._egress, ground.wire = egress, wire
    assert "away.example" in ground.fault(filters={"allowed_domains": ["vell.example"]}).message
    assert ground.pool.orders == []
