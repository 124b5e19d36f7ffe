"""From what engines give to what may be shown: addresses, domains, texts without markup. Pure.

Strangers write all of it, so everything here has a bound, and what is not an address of a page is dropped.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from convene.tools.search_base import Hit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convene.tools.search_base import Query

URL_CHARS_MAX: Final = 2000
TITLE_CHARS_MAX: Final = 200
SNIPPET_CHARS_MAX: Final = 1200
DOMAIN_CHARS_MAX: Final = 253
_RAW_CHARS_MAX: Final = 20_000
"""Of a longer text the rest is not even looked at."""

_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Controls, marks that reorder a line, and letters nobody sees: instructions are hidden in them."""
_HIDDEN: Final = re.compile(r"<(script|style|template)\b[^>]*>.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_COMMENT: Final = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TAG: Final = re.compile(r"</?[A-Za-z][^<>]*>")
_SPACE: Final = re.compile(r"\s+")
_DATE: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?!\d)")
_UNSAFE: Final = re.compile(r"[\s\x00-\x20\x7f-\x9f\\<>\"`{}^|]|[\ud800-\udfff]")
_DOMAIN: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_TRACKING: Final = re.compile(r"utm_\w+|gclid|gclsrc|dclid|fbclid|msclkid|yclid|igshid|mc_[ce]id|ref_src")


def plain(text: str, chars_max: int) -> str:
    """Return one line of plain text: no tags, entities resolved, nothing invisible, cut at a word."""
    text = text[:_RAW_CHARS_MAX]
    text = _TAG.sub("", _COMMENT.sub(" ", _HIDDEN.sub(" ", text))) if "<" in text else text
    return cut(_SPACE.sub(" ", _INVISIBLE.sub("", html.unescape(text))).strip(), chars_max)


def cut(text: str, chars_max: int) -> str:
    """Return a text, cut at a word and marked as cut where it is longer."""
    if len(text) <= chars_max:
        return text
    begin = text[: chars_max - 1]
    head, space, _ = begin.rpartition(" ")
    return (head if space and len(head) > chars_max // 2 else begin).rstrip(" ,;:") + "\u2026"


def page_url(text: str) -> SplitResult | None:
    """Return the parts of an address of a page (http or https, without a user), or None."""
    if not text or len(text) > URL_CHARS_MAX or _UNSAFE.search(text):
        return None
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable and parts.scheme in ("http", "https") and "@" not in parts.netloc else None


def same_page(parts: SplitResult) -> str:
    """Return what addresses of one page have in common: no scheme, `www.`, fragment, tracking, slash at the end."""
    port = f":{parts.port}" if parts.port not in (None, 80, 443) else ""
    kept = [
        (name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if not _TRACKING.fullmatch(name)
    ]
    query = f"?{urlencode(kept)}" if kept else ""
    return f"{ascii_host(parts.hostname or '').removeprefix('www.')}{port}{parts.path.rstrip('/')}{query}"


def ascii_host(host: str) -> str:
    """Return a host's name in small letters, as DNS has it."""
    host = host.lower().rstrip(".")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def domain(text: str) -> str | None:
    """Return the domain that people mean by `https://www.example.com/x` or `*.example.com`; None if there is none."""
    text = text.strip().lower()
    text = text.rpartition("://")[2]
    text = ascii_host(re.split(r"[/?#:]", text, maxsplit=1)[0]).removeprefix("*.").removeprefix("www.").strip(".")
    return text if len(text) <= DOMAIN_CHARS_MAX and _DOMAIN.fullmatch(text) else None


def is_within(host: str, domains: Iterable[str]) -> bool:
    """Whether a host is one of the domains or below one."""
    host = ascii_host(host)
    return any(host == one or host.endswith(f".{one}") for one in domains)


def present(hits: Iterable[Hit], query: Query) -> list[Hit]:
    """Return the hits that may be shown, each page once, the engine's order kept, at most `query.count`."""
    found: dict[str, Hit] = {}
    for hit in hits:
        url = hit.url.strip()[: URL_CHARS_MAX + 1]
        parts = page_url(url)
        if parts is None or not _is_wanted(parts.hostname or "", query):
            continue
        title = plain(hit.title, TITLE_CHARS_MAX) or (parts.hostname or "")
        date = _DATE.match(hit.published)
        key = same_page(parts)
        if key not in found:
            found[key] = Hit(url, title, plain(hit.snippet, SNIPPET_CHARS_MAX), date[0] if date else "")
            if len(found) == query.count:
                break
    return list(found.values())


def _is_wanted(host: str, query: Query) -> bool:
    if query.include_domains and not is_within(host, query.include_domains):
        return False
    return not is_within(host, query.exclude_domains)
