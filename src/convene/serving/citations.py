"""Citations in the text of an answer while it streams: the model writes `[3]`, readers get a link and an annotation.

    Citer.feed("Rome is hot [1") ──► "Rome is hot "                        held back: it may become a marker
    Citer.feed("].")             ──► "[[1]](https://…)." + Cited(url, title, 12, 29)
    Citer.end()                  ──► what was held; a list of sources if none was cited

Pure. Markers are `[3]`, `[1][2]`, `[1, 2]`, `[[1]]`, `【1】` and `【1†…】`. Code, real links, checkboxes, definitions
and indices of arrays are left as they are, and so are numbers that no source has. However the text is cut into pieces,
the whole is the same, and the indexes of a `Cited` cut exactly its link out of the final text (OAI-44, OAI-45). A model
that writes a link to a known source itself, as it has seen in its own earlier answers, gets today's number for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.events import Cited
from convene.serving.sources import URL_CHARACTERS_MAX, clean_title, link_url, mark, plain_title

if TYPE_CHECKING:
    from convene.serving.sources import Sources

LISTED_MAX: Final = 10
"""So many sources are listed under an answer that cites none."""
LABEL_MAX: Final = 200
"""How far the end of a link's text is looked for, when a marker stands in what may be one."""
RUN_MAX: Final = 64
"""Backticks that are looked at as one; a model that writes no end of them is not held back."""
_NUMBERS: Final = r" ?\d{1,3}(?: ?[,;] ?\d{1,3}){0,9} ?"
_NUMBERS_BEGUN: Final = r" ?(?:\d{1,3}(?: ?[,;] ?\d{1,3}){0,9} ?(?:[,;] ?)?)?"
_SPECIAL: Final = re.compile(r"[\[\]【`~\n\\()]")
_GROUP: Final = re.compile(rf"\[(?:\[({_NUMBERS})\]|({_NUMBERS}))\]")
_GROUP_BEGUN: Final = re.compile(rf"\[\[?(?:{_NUMBERS_BEGUN}|{_NUMBERS}\])\Z")
_LENTICULAR: Final = re.compile(rf"【({_NUMBERS})(?:†[^【】\n]{{0,80}})?】")
_LENTICULAR_BEGUN: Final = re.compile(rf"【{_NUMBERS_BEGUN}(?:†[^【】\n]{{0,80}})?\Z")
_LINKED: Final = re.compile(r"\(([^\s()]*(?:\([^\s()]*\)[^\s()]*){0,8})\)")
_LINK_BEGUN: Final = re.compile(rf"\([^\s]{{0,{URL_CHARACTERS_MAX}}}\Z")
_INDEXED: Final = re.compile(r"(?:\b(?:[a-z]|\w*_\w*|argv|args|array|arr|lst|nums|vec)|\(\))\Z", re.ASCII)
"""What an index follows, and hardly ever a citation."""
_WORD_ENDS: Final = re.compile(r"[A-Za-z0-9_]\Z")
_USED: Final = re.compile(r" ?[+\-*/]?=|\.[a-z]")
"""What follows an element of an array, and never a citation: it is set, or something of it is asked."""
_USED_BEGUN: Final = re.compile(r"(?: ?[+\-*/]?|\.)\Z")
_PREFIX: Final = frozenset(" \t>*+-.)0123456789")
"""What may stand in front of a fence of code: indents and the marks of quotes and lists."""
_TAIL: Final = 40


class Shown(msgspec.Struct, frozen=True):
    """A piece of the final text, and the citations whose links end in it."""

    text: str = ""
    cited: tuple[Cited, ...] = ()


class Citer:
    """The text of one choice on its way out."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._held = ""
        self._length = 0
        self._cited_any = False
        self._out: list[str] = []
        self._cited: list[Cited] = []
        self._place = _Place()

    def feed(self, text: str) -> Shown:
        """Take a piece of what the model wrote and return what can be shown now."""
        self._held += text
        self._run(final=False)
        return self._take()

    def end(self, *, list_sources: bool = True) -> Shown:
        """Return the rest, with a list of the sources if none was cited and the answer has any text."""
        self._run(final=True)
        if list_sources and not self._cited_any and self._length and len(self._sources):
            self._list_sources()
        return self._take()

    def _take(self) -> Shown:
        shown = Shown("".join(self._out), tuple(self._cited))
        self._out.clear()
        self._cited.clear()
        return shown

    def _run(self, *, final: bool) -> None:
        """Show as much of what is held as is decided. A marker is decided once a character behind it is known."""
        held, at, place = self._held, 0, self._place
        while at < len(held):
            special = _SPECIAL.search(held, at)
            if special is None or special.start() > at:
                stop = len(held) if special is None else special.start()
                self._literal(held[at:stop])
                at = stop
                continue
            char = held[at]
            if char in "`~":
                stop = at + len(run := held[at : at + RUN_MAX]) - len(run.lstrip(char))
                if stop == len(held) and stop - at < RUN_MAX and not final:
                    break
                self._literal(held[at:stop])
                at = stop
            elif char in "[【" and place.is_prose():
                stop = self._marker(at, final=final)
                if stop < 0:
                    break
                at = stop
            else:
                self._literal(char)
                at += 1
        self._held = held[at:]

    def _literal(self, text: str) -> None:
        """Show text as it is. A run of backticks or tildes comes as one text."""
        self._place.walk(text)
        self._show(text)

    def _show(self, text: str) -> None:
        self._out.append(text)
        self._length += len(text)

    def _marker(self, at: int, *, final: bool) -> int:
        """Decide on the bracket at `at`; return how far that goes, or -1 if more text is needed."""
        held = self._held
        lenticular = held[at] == "【"
        found = (_LENTICULAR if lenticular else _GROUP).match(held, at)
        if found is None:
            begun = _LENTICULAR_BEGUN if lenticular else _GROUP_BEGUN
            if not final and begun.match(held, at):
                return -1
            self._literal(held[at])
            return at + 1
        end = found.end()
        if lenticular:
            self._cite(found[1], held[at:end])
            return end
        if end == len(held) and not final:
            return -1
        link = self._own_link(end, final=final)
        if link is None:
            return -1
        if link:
            number = self._sources.number(link[1])
            self._cite(str(number or 0), held[at : link.end()])
            return link.end()
        literal = self._left_alone(end, final=final)
        if literal is None:
            return -1
        if literal:
            self._literal(held[at:end])
            self._place.indexed = True
        else:
            self._cite(found[1] or found[2], held[at:end])
        return end

    def _own_link(self, end: int, *, final: bool) -> re.Match[str] | Literal[False] | None:
        """Return a link that the model wrote itself, False if it wrote none, None if that is not known yet."""
        held = self._held
        if not held.startswith("(", end):
            return False
        link = _LINKED.match(held, end)
        if link is None:
            return None if not final and _LINK_BEGUN.match(held, end) else False
        return link if len(link[1]) <= URL_CHARACTERS_MAX else False

    def _left_alone(self, end: int, *, final: bool) -> bool | None:
        """Whether the marker that ends at `end` is no citation; None if that is not known yet."""
        held, place = self._held, self._place
        if place.line_begins and held.startswith(":", end):
            return True  # a definition
        if place.indexed or _INDEXED.search(place.tail):
            return True
        if _WORD_ENDS.search(place.tail):
            if _USED.match(held, end):
                return True
            if not final and _USED_BEGUN.match(held, end):
                return None
        return self._in_label(end, final=final) if place.depth else False

    def _in_label(self, end: int, *, final: bool) -> bool | None:
        """Whether what is open around the marker is the text of a link."""
        depth = self._place.depth
        stop = min(len(self._held), end + LABEL_MAX)
        for at in range(end, stop):
            char = self._held[at]
            if char == "\n":
                return False
            depth += (char == "[") - (char == "]")
            if not depth:
                if at + 1 == len(self._held) and not final:
                    return None
                return self._held[at + 1 : at + 2] in {"(", "["}
        return False if final or stop == end + LABEL_MAX else None

    def _cite(self, numbers: str, written: str) -> None:
        """Show links in the place of what was written; numbers without a source stay text."""
        wanted = [int(number) for number in re.findall(r"\d+", numbers)]
        sources = [(number, self._sources.get(number)) for number in wanted]
        if not any(source for _, source in sources):
            self._literal(written)
            return
        if self._place.tail.endswith("!"):
            self._show(" ")  # else it would read as an image
        for number, source in sources:
            if source is None:
                self._show(f"[{number}]")
                continue
            link = mark(number, source.url)
            start = self._length
            self._show(link)
            self._cited.append(Cited(link_url(source.url), clean_title(source), start, self._length))
            self._cited_any = True
        self._place.walk_marker()

    def _list_sources(self) -> None:
        if self._place.fence:
            self._show(f"\n{self._place.fence}")
        self._show("\n\nSources:\n")
        self._place = _Place()
        for number, source in self._sources:
            if number > LISTED_MAX:
                break
            self._show("\n- ")
            self._cite(str(number), "")
            self._show(f" {plain_title(source)}")


class _Place:
    """Where in a markdown text one stands, as far as citations need to know; errs on the side of code."""

    def __init__(self) -> None:
        self.tail = ""
        """The last characters that the model wrote."""
        self.depth = 0
        """Square brackets open in this paragraph."""
        self.indexed = False
        """Directly behind an index of an array."""
        self.fence = ""
        self._closing = False
        self._ticks = 0
        self._parens = 0
        self._blank = self.line_begins = True
        self._escaped = False

    def is_prose(self) -> bool:
        """Whether a bracket here may be a marker: not in code, not in the address of a link, not escaped."""
        return not (self.fence or self._ticks or self._parens or self._escaped)

    def walk(self, text: str) -> None:
        """Go over text that is shown as it is."""
        if text[0] in "`~":
            self._walk_run(text)
        elif len(text) == 1:
            self._walk_one(text)
        else:
            for char in text:
                self._walk_one(char)
        self.tail = (self.tail + text)[-_TAIL:]

    def walk_marker(self) -> None:
        """Go over a citation."""
        self.tail = ")"
        self._blank = self.line_begins = self.indexed = False

    def _walk_run(self, run: str) -> None:
        self.indexed = False
        if self.fence:
            self._closing = self.line_begins and run.startswith(self.fence)
        elif not self._ticks and self.line_begins and len(run) >= 3:  # noqa: PLR2004 - markdown's number
            self.fence = run
        elif run[0] == "`" and not (self._escaped and len(run) == 1):
            if not self._ticks:
                self._ticks = len(run)
            elif self._ticks == len(run):
                self._ticks = 0
        self._escaped = self._blank = self.line_begins = False

    def _walk_one(self, char: str) -> None:
        self.indexed = False
        if char == "\n":
            self._walk_newline()
            return
        if self._closing and not char.isspace():
            self._closing = False
        if not (self.fence or self._ticks):
            self._walk_bracket(char)
        self._escaped = char == "\\" and not self._escaped and not self.fence and not self._ticks
        self._blank = self._blank and char.isspace()
        self.line_begins = self.line_begins and char in _PREFIX

    def _walk_bracket(self, char: str) -> None:
        if self._escaped:
            return
        if self._parens:
            self._parens += (char == "(") - (char == ")")
        elif char == "[":
            self.depth += 1
        elif char == "]":
            self.depth = max(0, self.depth - 1)
        elif char == "(" and self.tail.endswith("]") and not self.depth:
            self._parens = 1

    def _walk_newline(self) -> None:
        if self._closing:
            self.fence = ""
        if self._blank:  # an empty line ends a paragraph and all that was left open in it
            self._ticks = self._parens = self.depth = 0
        self._closing = self._escaped = False
        self._blank = self.line_begins = True
