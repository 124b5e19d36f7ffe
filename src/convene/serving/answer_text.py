"""The text of one agentic answer on its way to the reader, and the numbers by which its sources are cited.

    present(result) ──► what the model reads, with `[3]` in front of each source
    write(piece)    ──► image_guard.py (nothing loads by itself) ──► citations.py ([3] becomes a link) ──► events

What a tool has made for the reader and the model does not write (small ones forget it, or write it wrongly) stands at
the end of a whole answer. An answer in JSON passes as it is: links would break what the client parses, so its sources
are in `executable_data` alone. One object a run; a run that is repeated after a crash numbers alike, for results come
in the same order.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from convene.events import TextDelta
from convene.serving.citations import Citer
from convene.serving.image_guard import ImageGuard
from convene.serving.policy import is_tainted, shown_addresses, was_shown
from convene.serving.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.events import Event
    from convene.serving.base_agentic import Job, RunView
    from convene.serving.citations import Shown
    from convene.tools.base import Source, ToolResult

_STRAY_NUMBER: Final = re.compile(r"(?<=\S)\[([1-9]\d{0,2})\]|^\[([1-9]\d{0,2})\](?= )", re.MULTILINE)
"""A footnote's number in what a source says; copied by the model it would cite whatever source has that number here."""


class AnswerText:
    """Implements `CitedText`."""

    def __init__(self, job: Job, view: RunView) -> None:
        self._json = job.request.generation.response_format.kind != "text"
        self._view = view
        self._tainted = False
        self._sources = Sources()
        self._citer = Citer(self._sources)
        self._guard = ImageGuard(self._was_shown, self._is_tainted)
        self._thoughts = ImageGuard(self._was_shown, self._is_tainted)
        self._owed: dict[str, str] = {}
        """Lines that the answer must show, by their links."""
        self._written: list[str] = []
        """What was written since there is any."""

    def present(self, result: ToolResult) -> str:
        """See `CitedText.present`."""
        if not self._json:
            self._owed.update((one.link, one.line) for one in result.shows)
        if not result.sources:
            return result.text
        text = _without_strays(result.text)
        heads: list[str] = []
        searched = 0
        for source in result.sources:
            number = self._sources.add(source)
            if number is None:
                continue
            at = _find_block(text, source, searched)
            if at < 0:
                heads.append(f"[{number}] {source.title} {source.url}".replace("\n", " "))
                continue
            label = f"[{number}] "
            text = f"{text[:at]}{label}{text[at:]}"
            searched = at + len(label)
        return "\n".join([*heads, *([""] if heads and text else []), text])

    def write(self, text: str) -> Sequence[Event]:
        """See `CitedText.write`."""
        if self._json:
            return (TextDelta(text),) if text else ()
        shown = self._guard.feed(text)
        if self._owed:
            self._written.append(shown)
        return _events(self._citer.feed(shown))

    def think(self, text: str, *, end: bool = False) -> str:
        """See `CitedText.think`: readers show reasoning as markdown, too."""
        shown = self._thoughts.feed(text)
        return shown + self._thoughts.end() if end else shown

    def end(self, *, whole: bool = True) -> Sequence[Event]:
        """See `CitedText.end`."""
        if self._json:
            return ()
        shown = self._guard.end()
        rest = _events(self._citer.feed(shown + self._lacking(shown) if whole else shown))
        return [*rest, *_events(self._citer.end(list_sources=whole))]

    def _lacking(self, last: str) -> str:
        """Return the lines that the answer, which ends with `last`, should have shown and has not."""
        if not self._owed:
            return ""
        written = "".join((*self._written, last))
        lines = [line for link, line in self._owed.items() if f"({link})" not in written]
        between = "\n\n" if written.strip() else ""
        return between + "\n\n".join(lines) if lines else ""

    def _is_tainted(self) -> bool:
        self._tainted = self._tainted or is_tainted(self._view)
        return self._tainted

    def _was_shown(self, url: str) -> bool:
        return was_shown(url, shown_addresses(self._view))


def _events(shown: Shown) -> list[Event]:
    return [*([TextDelta(shown.text)] if shown.text else []), *shown.cited]


def _without_strays(text: str) -> str:
    return _STRAY_NUMBER.sub(lambda found: f"({found[1] or found[2]})", text)


def _find_block(text: str, source: Source, start: int) -> int:
    """Return where a source's own lines begin: its title and under it its address; -1 if it has none."""
    block = _without_strays(f"{source.title}\n{source.url}")
    at = text.find(block, start)
    while at > 0 and text[at - 1] != "\n":
        at = text.find(block, at + 1)
    return at
