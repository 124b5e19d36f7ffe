"""The numbered sources of a run: what `[3]` stands for, and how a link to it is written. Pure.

A source gets its number when it first appears, and the same address keeps it, so a replay after a crash numbers alike.
Titles and addresses come from strangers: what is written into markdown here cannot end the link it stands in.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convene.tools.base import Source

SOURCES_MAX: Final = 999
"""A run's sources above this have no number: a marker has three digits."""
URL_CHARACTERS_MAX: Final = 2_000
"""A longer address is no source: it would fill the answer, and browsers cut it."""
TITLE_CHARACTERS_MAX: Final = 120
"""A title is cut there in the list of sources; annotations have the whole."""
_PORTS: Final = {"http": 80, "https": 443}
_KEPT: Final = "/?#:@&=+$,;%~-_.!*"
"""What stays as it is behind the host; brackets, quotes, spaces, backslashes and control characters do not."""
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()<>#!|~$&])")
_HOST: Final = re.compile(r"(?:[\w.\-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?", re.ASCII)


class Sources:
    """Sources in the order of their first appearance, from 1."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._sources: list[Source] = []

    def add(self, source: Source) -> int | None:
        """Return the source's number, a new one if its address is new; None for what cannot be linked to."""
        key = normal_url(source.url)
        if key is None:
            return None
        number = self._numbers.get(key)
        if number is None:
            if len(self._sources) >= SOURCES_MAX:
                return None
            self._sources.append(source)
            number = self._numbers[key] = len(self._sources)
        return number

    def number(self, url: str) -> int | None:
        """Return the number that an address has already."""
        key = normal_url(url)
        return None if key is None else self._numbers.get(key)

    def get(self, number: int) -> Source | None:
        """Return the source of a number."""
        return self._sources[number - 1] if 1 <= number <= len(self._sources) else None

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[tuple[int, Source]]:
        return iter(enumerate(self._sources, 1))


def _split(url: str) -> SplitResult | None:
    """Return the parts of a web address that a link may lead to: http or https, a host, nobody's password."""
    if len(url) > URL_CHARACTERS_MAX:
        return None
    try:
        parts = urlsplit(url.strip())
        host = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    except ValueError:  # brackets that are no address, a host that cannot be written in ASCII
        return None
    if parts.scheme not in _PORTS or not _HOST.fullmatch(host):
        return None
    return parts._replace(netloc=host)


def normal_url(url: str) -> str | None:
    """Return the form by which addresses are compared: case of scheme and host, default port and fragment gone."""
    parts = _split(url)
    if parts is None:
        return None
    host = parts.netloc.lower()
    name, _, port = host.rpartition(":")
    if name and port == str(_PORTS[parts.scheme]):
        host = name
    return parts._replace(netloc=host, path=parts.path or "/", fragment="").geturl()


def link_url(url: str) -> str:
    """Return a source's address as it can stand between the parentheses of a link; empty if it is none."""
    parts = _split(url)
    if parts is None:
        return ""
    query = f"?{parts.query}" if parts.query else ""
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    tail = quote(f"{parts.path}{query}{fragment}".encode(errors="replace"), safe=_KEPT)
    return f"{parts.scheme}://{parts.netloc}{tail}"


def mark(number: int, url: str) -> str:
    """Return the visible form of a citation: a numbered link."""
    return f"[[{number}]]({link_url(url)})"


def clean_title(source: Source) -> str:
    """Return a source's title as one line of text; its host if it has none."""
    words = " ".join("".join(c if c.isprintable() else " " for c in source.title).split())
    return words or urlsplit(link_url(source.url)).netloc


def plain_title(source: Source) -> str:
    """Return a source's title as markdown in which nothing is markup, cut where it gets long."""
    words = clean_title(source)
    if len(words) > TITLE_CHARACTERS_MAX:
        words = words[: TITLE_CHARACTERS_MAX - 1].rstrip() + "…"
    return _MARKUP.sub(r"\\\1", words)
