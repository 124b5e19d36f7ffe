"""Bytes of a page to the text that a model reads: pure, and slow for what is hostile, so only the child calls it.

Here: its characters (`decode`), HTML, PDF and plain text to markdown-like text with a title and links. Not here: which
of these it is (`page_kind`), the process around (`page_child`, `page_pool`) and what is said of it (`web_fetch`).

HTML: lxml parses, rules pick the main part (`<main>`, a lone `<article>`, else the body, less navigation and the like),
html-to-markdown writes it. A rule never takes more than it should be able to: what holds most of the text stays.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urljoin

import html_to_markdown
import lxml.etree  # type: ignore[import-untyped]
import lxml.html  # type: ignore[import-untyped]
import pypdf

from convene.egress_url import BadUrl, read_url

if TYPE_CHECKING:
    from collections.abc import Iterator

HTML_CHARS_MAX: Final = 4_000_000
"""Parsed of one page; above, a page is data."""
PDF_PAGES_MAX: Final = 1000
TITLE_CHARS_MAX: Final = 300
_SNIFFED_BYTES: Final = 1024
_CHARSET: Final = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE)
_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_AS_MEANT: Final = {
    "iso-8859-1": "cp1252",
    "latin-1": "cp1252",
    "latin1": "cp1252",
    "us-ascii": "cp1252",
    "ascii": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
}
"""What pages mean by a name, by the Encoding standard."""
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Controls, zero-width marks and tags: nobody sees them, a model would."""

_NEVER: Final = frozenset(
    {
        *("script", "style", "noscript", "template", "iframe", "object", "embed", "svg", "canvas", "map", "head"),
        *("button", "input", "select", "textarea", "datalist", "video", "audio", "dialog", "link", "meta"),
    }
)
"""Elements without a text of the page."""
_ASIDE: Final = frozenset({"nav", "footer", "aside", "menu"})
_ROLES: Final = frozenset(
    {
        *("navigation", "banner", "contentinfo", "complementary", "search", "menu", "menubar", "toolbar"),
        *("dialog", "alertdialog", "tooltip"),
    }
)
_CHROME: Final = re.compile(
    r"(^|[\s_-])(nav|navbar|navigation|sidebar|side-?menu|breadcrumbs?|cookies?|consent|gdpr|newsletter|subscribe|share|"
    r"sharing|social|related|recommended|promo|advert|advertisement|ads?|sponsored|skip-?link|toc|pagination|pager|popup|"
    r"modal|overlay)($|[\s_-])",
    re.IGNORECASE,
)
_HIDDEN: Final = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_BLOCKS: Final = frozenset({"div", "section", "ul", "ol", "table", "dl", "p"})

_PART_MAX: Final = 0.4
"""A part with more than this share of the text is not taken for a margin, whatever it is called."""
_MAIN_MIN: Final = 0.2
_MAIN_CHARS_MIN: Final = 200
_LINKED: Final = 0.75
"""Share of a block's text in links from which it is a list of links."""
_LINKS_MIN: Final = 4


class Page(NamedTuple):
    """What was read."""

    title: str
    text: str
    links: tuple[str, ...] = ()
    whole: bool = True
    """Whether `text` is all there is."""


class Unreadable(Exception):
    """There is no text in it; the message is fit for a model."""


def decode(data: bytes, declared: str) -> str:
    """Return the characters of `data`: by its mark, what was declared, what it says itself, else UTF-8 or cp1252."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    said = _CHARSET.search(data[: 4 * _SNIFFED_BYTES])
    for name in (declared, said[1].decode("ascii") if said else ""):
        name = name.strip(" \"'").lower()  # noqa: PLW2901 - the same name, as it is meant
        if not name:
            continue
        try:
            return data.decode(_AS_MEANT.get(name, name), "replace")
        except (LookupError, UnicodeError):
            continue
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def read_text(data: bytes, charset: str) -> Page:
    """Return plain text, markdown, JSON and the like as they are."""
    return Page("", tidy(decode(data, charset)))


def read_html(data: bytes, charset: str, url: str) -> Page:
    """Return the main part of a page as markdown-like text. Raises `Unreadable`."""
    source = _NOT_XML.sub(" ", decode(data, charset))
    whole = len(source) <= HTML_CHARS_MAX
    try:
        document = lxml.html.document_fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", source[:HTML_CHARS_MAX]))
    except (lxml.etree.LxmlError, ValueError) as error:
        raise Unreadable("The page is empty.") from error
    title = _title(document)
    base = _base(document, url)
    body = document.find("body")
    root = document if body is None else body
    _strip(root)
    root = _main(root)
    _drop_margins(root)
    links = _resolve_links(root, base)
    markup = lxml.html.tostring(root, encoding="unicode", with_tail=False)
    options = html_to_markdown.ConversionOptions(extract_metadata=False, skip_images=True, autolinks=False)
    text = tidy(html_to_markdown.convert(markup, options).content or "")
    if not text:
        raise Unreadable("The page has no text of its own; it may be drawn by scripts, which are not run here.")
    return Page(title, text, tuple(links), whole)


def read_pdf(data: bytes, chars_max: int) -> Page:
    """Return the text of a PDF, page by page until there are `chars_max` characters. Raises `Unreadable`."""
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        is_closed = reader.is_encrypted and not reader.decrypt("")
        pages = 0 if is_closed else len(reader.pages)
        title = "" if is_closed else str((reader.metadata.title if reader.metadata else None) or "")
        parts: list[str] = []
        size = 0
        for page in reader.pages[:PDF_PAGES_MAX] if pages else ():
            part = tidy(page.extract_text())
            parts.append(f"[page {len(parts) + 1} of {pages}]\n{part}")
            size += len(part)
            if size >= chars_max:
                break
    except Exception as error:
        # Broad: the library has no one class for what a broken file may do to it.
        raise Unreadable("The PDF is damaged or of a kind that cannot be read.") from error
    if is_closed:
        raise Unreadable("The PDF is protected by a password.")
    if not size:
        raise Unreadable("The PDF has no text in it; it may be scanned pictures.")
    return Page(_line(title), "\n\n".join(parts), whole=len(parts) == pages)


_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What lxml takes in and does not let out again."""


def tidy(text: str) -> str:
    """Return text without what nobody sees, and with no more than one empty line in a row."""
    text = _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip()


def _line(text: str) -> str:
    return " ".join(_INVISIBLE.sub("", text).split())[:TITLE_CHARS_MAX]


def _title(document: lxml.html.HtmlElement) -> str:
    for path in (".//title", ".//h1"):
        found = document.find(path)
        if found is not None and (text := _line(str(found.text_content()))):
            return text
    return ""


def _base(document: lxml.html.HtmlElement, url: str) -> str:
    found = document.find(".//base[@href]")
    try:
        return url if found is None else urljoin(url, str(found.get("href")).strip())
    except ValueError:
        return url


def _elements(root: lxml.html.HtmlElement) -> Iterator[lxml.html.HtmlElement]:
    """Yield the elements below `root`, not itself; a list, so that they may be dropped meanwhile."""
    yield from [element for element in root.iterdescendants() if isinstance(element.tag, str)]


def _drop(element: lxml.html.HtmlElement) -> None:
    if element.getparent() is not None:
        element.drop_tree()


def _strip(root: lxml.html.HtmlElement) -> None:
    """Drop what is never text, comments, and what a reader does not see."""
    for element in list(root.iterdescendants()):
        if not isinstance(element.tag, str):
            _drop_comment(element)
        elif element.tag in _NEVER or _is_hidden(element):
            _drop(element)


def _is_hidden(element: lxml.html.HtmlElement) -> bool:
    said = element.get("hidden") is not None or element.get("aria-hidden") == "true"
    return said or _HIDDEN.search(element.get("style") or "") is not None


def _drop_comment(element: lxml.html.HtmlElement) -> None:
    parent = element.getparent()
    if parent is None:
        return
    if element.tail:
        before = element.getprevious()
        if before is None:
            parent.text = (parent.text or "") + element.tail
        else:
            before.tail = (before.tail or "") + element.tail
    parent.remove(element)


class _Weight(NamedTuple):
    """How much text an element has, how much of it in links, and how many links."""

    chars: int
    linked: int
    links: int


def _weigh(root: lxml.html.HtmlElement) -> dict[lxml.html.HtmlElement, _Weight]:
    """Return the weight of every element in one pass from the leaves up."""
    weights: dict[lxml.html.HtmlElement, _Weight] = {}
    for _, element in lxml.etree.iterwalk(root, events=("end",)):
        chars = len((element.text or "").strip())
        linked = links = 0
        for child in element:
            inner = weights.get(child, _Weight(0, 0, 0))
            chars += inner.chars + len((child.tail or "").strip())
            linked += inner.linked
            links += inner.links
        if element.tag == "a":
            linked, links = chars, links + 1
        weights[element] = _Weight(chars, linked, links)
    return weights


def _main(root: lxml.html.HtmlElement) -> lxml.html.HtmlElement:
    """Return the part of the page that it says is the main one, if it holds enough to be believed."""
    weights = _weigh(root)
    least = max(_MAIN_CHARS_MIN, _MAIN_MIN * weights[root].chars)
    for path in (".//main | .//*[@role='main']", ".//article"):
        found = root.xpath(path)
        if len(found) > 1 and path == ".//article":
            return root  # a list of articles: all of them are the page
        best = max(found, key=lambda element: weights[element].chars, default=None)
        if best is not None and weights[best].chars >= least:
            return best
    return root


def _drop_margins(root: lxml.html.HtmlElement) -> None:
    """Drop navigation, side columns, banners and lists of links, but nothing that holds much of the text."""
    weights = _weigh(root)
    most = _PART_MAX * weights[root].chars
    for element in _elements(root):
        weight = weights.get(element)
        if weight is None or weight.chars > most or not _is_margin(element, weight):
            continue
        if not any(parent.tag in {"pre", "code", "table"} for parent in element.iterancestors()):
            _drop(element)


def _is_margin(element: lxml.html.HtmlElement, weight: _Weight) -> bool:
    if element.tag in _ASIDE or element.get("role") in _ROLES:
        return True
    if element.tag == "header":
        return element.find(".//h1") is None
    if element.tag not in _BLOCKS:
        return False
    if _CHROME.search(f"{element.get('class') or ''} {element.get('id') or ''}"):
        return True
    return weight.links >= _LINKS_MIN and weight.linked > _LINKED * weight.chars


def _resolve_links(root: lxml.html.HtmlElement, base: str) -> list[str]:
    """Make each link absolute, in the one spelling in which it may be fetched; unlink what leads nowhere."""
    links: dict[str, None] = {}
    for element in [*root.iter("a")]:
        href = (element.get("href") or "").strip()
        url = "" if href[:1] in ("", "#") or _in_code(element) else _absolute(base, href)
        if url and str(element.text_content()).strip():
            element.attrib.clear()
            element.set("href", url)
            links[url] = None
        else:
            element.drop_tag()
    return list(links)


def _in_code(element: lxml.html.HtmlElement) -> bool:
    """A link in code would stand there as brackets."""
    return any(parent.tag in {"pre", "code"} for parent in element.iterancestors())


def _absolute(base: str, href: str) -> str:
    """Return a link as it is read on the way out; brackets are written so that they do not end a markdown link."""
    try:
        place = read_url(urljoin(base, href.replace(" ", "%20")))
    except (BadUrl, ValueError):
        return ""
    return place.url.replace("(", "%28").replace(")", "%29")
