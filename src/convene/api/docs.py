"""The documentation this server serves about itself: pages as HTML and as markdown, `llms.txt`, `/openapi.json`, `/`.

The pages are the markdown files of `convene/pages`, which every installed package holds; the API reference is made from
the route table. Everything is open, read or rendered on first use, off the loop, and kept. `app.py` puts the routes
beside those of the API. Not here: how markdown becomes HTML (`docs_html.py`), what the API is (`openapi.py`).
"""

from __future__ import annotations

import asyncio
import importlib.resources
from typing import TYPE_CHECKING, Final

import msgspec

import convene
from convene.api.docs_html import render_page, sections_of, title_of
from convene.api.docs_reference import reference_of
from convene.api.openapi import describe, encode
from convene.api.routes import Route
from convene.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.api.call import Call
    from convene.api.problems import Header
    from convene.api.routes import Endpoint


class Page(msgspec.Struct, frozen=True):
    """One page: its name in the address, the section it is listed under, and what it is for."""

    name: str
    section: str
    note: str


PAGES: Final = (
    Page("quickstart", "Use", "From nothing to a first answer, with curl and the OpenAI SDKs."),
    Page("compatibility", "Use", "Settings for SDKs, frameworks and chat interfaces, and what differs from OpenAI."),
    Page("chat", "Use", "Every parameter of a chat completion, and the reply."),
    Page("streaming", "Use", "The frames of a stream, keep-alive, usage, faults."),
    Page("models", "Use", "Which model to name, what the default one can do, how to get a better one."),
    Page("tools", "Use", "Calling your own functions, the round trip, what small models manage."),
    Page("server-tools", "Use", "What the server itself may call: MCP servers, what of them is offered, labels."),
    Page("structured-output", "Use", "Answers that follow a JSON schema."),
    Page("embeddings", "Use", "Texts to vectors."),
    Page("images", "Use", "Texts to pictures: who draws them, what to send, both forms of the reply."),
    Page("limits", "Use", "What is limited, what answers say of it, refusals, what is billed."),
    Page("usage", "Use", "What was used: sums, groups, single requests, exports, checks."),
    Page("agentic", "Use", "The fields ASI:One adds, their shapes, and what this version does with them."),
    Page("agents", "Use", "Agents inside an answer: found by the model, addressed by you, answers that come later."),
    Page("marketplace", "Use", "Agents that register here: one argument, listings, mailboxes; who may, for operators."),
    Page("agent-search", "Use", "Finding agents: how the marketplace is searched and ranked, health, adding agents."),
    Page("convene-as-an-agent", "Use", "Agents that ask this server: in which protocols, who pays, what ends circles."),
    Page("runs", "Use", "Agentic turns while they go on, after a lost connection, after a crash; sessions."),
    Page("web-search", "Use", "Searching the web for an answer: what to send, which engines, what leaves."),
    Page("errors", "Use", "Statuses, codes, what to repeat and what not."),
    Page("idempotency", "Use", "Sending a request again without running it twice."),
    Page("running", "Run", "Starting and stopping, health, logs, keys, a proxy in front."),
    Page("accounts", "Run", "Users, teams, invitations, keys of one's own, and the admin API."),
    Page("configuration", "Run", "Every setting, where it is read from, which source wins."),
    Page("command-line", "Run", "Every verb of the command convene."),
    Page("metrics", "Run", "Counters and histograms for Prometheus, and their names in vLLM."),
    Page("security", "Run", "What is protected how, and what is left to you."),
    Page("reference", "Reference", "Every operation and every shape, from the API description."),
)
"""In the order in which they are read. A test keeps this equal to the files; `reference` has none, it is generated."""

ABOUT: Final = (
    "Convene is a self-hosted, OpenAI-compatible, agentic LLM API server: clients of OpenAI's or ASI:One's chat API "
    "work with it after a change of base URL and key."
)
HTML: Final = b"text/html; charset=utf-8"
MARKDOWN: Final = b"text/markdown; charset=utf-8"
PLAIN: Final = b"text/plain; charset=utf-8"
JSON: Final = b"application/json"
GUARDED: Final[tuple[Header, ...]] = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""On every answer from here: no script runs and nothing is loaded, whatever a page should come to hold."""


class Docs:
    """The endpoints of the documentation of one route table."""

    def __init__(self, routes: Sequence[Route], *, listed: bool) -> None:
        """`routes` are described; `listed` is the setting `docs`: False serves nothing."""
        self._routes = tuple(routes)
        self._listed = listed
        self._made: dict[str, bytes] = {}
        self._pages = {page.name: page for page in PAGES}

    def routes(self) -> tuple[Route, ...]:
        """Return the routes that serve the documentation; none if it is switched off."""
        if not self._listed:
            return ()
        rows: tuple[tuple[str, Endpoint, str], ...] = (
            ("/", self.show_root, "Where the API and its documentation are"),
            ("/v1", self.show_root, "The same"),
            ("/v1/openapi.json", self.show_openapi, "This description"),
            ("/docs", self.show_index, "The pages"),
            ("/docs.md", self.show_index_markdown, "The pages, as markdown"),
            ("/docs/{page}", self.show_page, "One page; with .md as markdown, with /llms.txt its index"),
            ("/llms.txt", self.show_llms, "The pages, for language models"),
            ("/llms-full.txt", self.show_llms_full, "All pages in one, for language models"),
        )
        return tuple(
            Route(method="GET", path=path, endpoint=endpoint, summary=summary, open=True, tag="Docs", described=False)
            for path, endpoint, summary in rows
        )

    async def show_root(self, call: Call) -> None:
        """Point to the rest (OAI-32)."""
        await self._show(call, "/", self._root, JSON)

    async def show_openapi(self, call: Call) -> None:
        """Give the OpenAPI description (API-07, OPS-20)."""
        await self._show(call, "openapi", self._openapi, JSON)

    async def show_index(self, call: Call) -> None:
        """Give the list of pages as HTML."""
        await self._show(call, "index.html", lambda: render_page(self._index(), "", self._menu()), HTML)

    async def show_index_markdown(self, call: Call) -> None:
        """Give the list of pages as markdown (DOCS-01)."""
        await self._show(call, "index", lambda: self._index().encode(), MARKDOWN)

    async def show_llms(self, call: Call) -> None:
        """Give the list of pages in the form of llms.txt (OPS-20)."""
        await self._show(call, "llms", self._llms, PLAIN)

    async def show_llms_full(self, call: Call) -> None:
        """Give all pages in one text (DOCS-01)."""
        await self._show(call, "llms-full", self._llms_full, PLAIN)

    async def show_page(self, call: Call) -> None:
        """Give `x` as HTML, `x.md` as markdown, `x/llms.txt` as the page's own index. Raises `NotFound`."""
        asked = call.params["page"]
        if asked == "llms.txt":
            await self.show_llms(call)
            return
        name = asked.removesuffix("/llms.txt")
        if name != asked:
            name = name.removesuffix(".md")
            page = self._find(name, asked)
            await self._show(call, f"{name}/llms", lambda: self._page_index(page), PLAIN)
        elif asked.endswith(".md"):
            page = self._find(asked.removesuffix(".md"), asked)
            await self._show(call, page.name, lambda: self._text(page.name).encode(), MARKDOWN)
        else:
            page = self._find(asked, asked)
            await self._show(
                call,
                f"{page.name}.html",
                lambda: render_page(self._text(page.name), page.name, self._menu()),
                HTML,
            )

    def _find(self, name: str, asked: str) -> Page:
        page = self._pages.get(name)
        if page is None:
            raise NotFound(f"There is no page {asked[:100]}. /docs lists the pages.", code="not_found")
        return page

    async def _show(self, call: Call, key: str, make: Callable[[], bytes], content_type: bytes) -> None:
        body = self._made.get(key)
        if body is None:  # two first readers may both make it: the same bytes
            body = self._made[key] = await asyncio.to_thread(make)
        await call.reply(200, body, content_type, list(GUARDED))

    def _text(self, name: str) -> str:
        if name == "reference":
            return reference_of(self._description())
        return read_page(name)

    def _description(self) -> dict[str, object]:
        return describe(self._routes, convene.__version__)

    def _openapi(self) -> bytes:
        return encode(self._description())

    @staticmethod
    def _root() -> bytes:
        return msgspec.json.encode(
            {
                "name": "convene",
                "version": convene.__version__,
                "api": "/v1",
                "docs": "/docs",
                "openapi": "/openapi.json",
                "llms": "/llms.txt",
            }
        )

    def _menu(self) -> list[tuple[str, str]]:
        return [(page.name, title_of(self._text(page.name))) for page in PAGES]

    def _index(self) -> str:
        return f"# Convene\n\n{ABOUT}\n\n{self._sections('')}"

    def _llms(self) -> bytes:
        return f"# Convene\n\n> {ABOUT}\n\n{self._sections('/docs/')}".encode()

    def _sections(self, prefix: str) -> str:
        parts: list[str] = []
        for section in dict.fromkeys(page.section for page in PAGES):
            rows = [
                f"- [{title_of(self._text(page.name))}]({prefix}{page.name}.md): {page.note}"
                for page in PAGES
                if page.section == section
            ]
            parts.append(f"## {section}\n\n" + "\n".join(rows) + "\n")
        machine = "- [OpenAPI description](/openapi.json): the same, for programs\n"
        return "\n".join(parts) + machine

    def _llms_full(self) -> bytes:
        return ("\n\n".join(self._text(page.name).rstrip() for page in PAGES) + "\n").encode()

    def _page_index(self, page: Page) -> bytes:
        text = self._text(page.name)
        rows = "\n".join(f"- [{words}](/docs/{page.name}.md#{anchor})" for words, anchor in sections_of(text))
        more = "- [All pages](/llms.txt)\n"
        return f"# {title_of(text)}\n\n> {page.note}\n\n## Sections\n\n{rows}\n\n## More\n\n{more}".encode()


def read_page(name: str) -> str:
    """Return the markdown of a page that has a file. Raises `OSError` if the package was installed without it."""
    return (importlib.resources.files(convene) / "pages" / f"{name}.md").read_text(encoding="utf-8")
