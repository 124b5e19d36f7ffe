"""Markup that models write into their text: thinking tags and tool-call tags, taken out as they stream. Pure.

    START --"<think>"--> THINK --"</think>"--> START
      |                                                     (START also opens THINK at once when the
      +--anything else--> TEXT --"<tool_call>"--> CALL       chat template has written "<think>" itself)
                            ^----"</tool_call>"----+

A text piece that may be the beginning of a tag is held until it is decided, and given out at the end if it was none.
Nothing of the markup reaches the content (OAI-48, TOOLS-12). `openai_reply.py` and `local.py` feed one `Markup` a
choice. Not here: what hosts deliver as fields of their own; numbering calls is the caller's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from convene.errors import Malformed
from convene.events import CallDelta, ReasoningDelta, TextDelta

if TYPE_CHECKING:
    from collections.abc import Callable

    NewCall = Callable[[], tuple[int, str]]
    """Gives the next call its index in the choice and its id."""

Piece = TextDelta | ReasoningDelta | CallDelta

THINK_TAGS = (("<think>", "</think>"), ("<thinking>", "</thinking>"))
CALL_OPENS = "<tool_call>"
CALL_CLOSES = "</tool_call>"
CALL_CHARS_MAX = 1024 * 1024

_NAME = re.compile(r'"name"\s*:\s*"([^"\\]+)"')
_ARGUMENTS = re.compile(r'"(?:arguments|parameters)"\s*:\s*')
_GLM_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|$)", re.DOTALL)
_XML_FUNCTION = re.compile(r"<function=([^>]+)>(.*?)(?:</function>|$)", re.DOTALL)
_XML_PARAMETER = re.compile(r"<parameter=([^>]+)>\n?(.*?)\n?(?:</parameter>|$)", re.DOTALL)
_FUNCTION_NAME = re.compile(r"[\w.-]+")


class _HermesCall(msgspec.Struct):
    name: str
    arguments: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()


_HERMES = msgspec.json.Decoder(_HermesCall)


def may_open(text: str) -> bool:
    """Return whether content that begins with `text` (not empty) may begin with a tag."""
    return text[0] == "<" or text[0].isspace()


def held_length(text: str, tag: str) -> int:
    """Return how many characters at the end of `text` could be the beginning of `tag`."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0


class Markup:
    """Takes the markup out of one choice's text."""

    __slots__ = ("_after", "_choice", "_close", "_held", "_new_call", "_scanned", "_state", "_template_opens", "_tools")

    def __init__(
        self, new_call: NewCall, *, choice: int = 0, tools: bool = False, template_opens: bool = False
    ) -> None:
        """Begin at the start of the content.

        Args:
            new_call: names each tool call found.
            choice: the choice that all pieces belong to.
            tools: whether tool-call tags are markup here (the request had tools), not words.
            template_opens: the chat template writes `<think>` itself, so the text begins inside of it.
        """
        self._new_call = new_call
        self._choice = choice
        self._tools = tools
        self._template_opens = template_opens
        self._state: Literal["start", "text", "think", "call"] = "start"
        self._close = THINK_TAGS[0][1]
        self._held = ""
        self._scanned = 0
        self._after = False  # white space after a tag belongs to the tag

    @property
    def idle(self) -> bool:
        """Whether text now passes as it is: past the start, no tool tags to look for, nothing held."""
        return self._state == "text" and not self._tools and not self._after and not self._held

    def expect_no_thinking(self) -> None:
        """Say that the host delivers reasoning apart: what comes as content does not begin inside a thinking tag."""
        self._template_opens = False

    def feed(self, text: str) -> list[Piece]:
        """Take the next text, return what is decided. Raises `Malformed` for a tool call without an end."""
        pieces: list[Piece] = []
        self._held += text
        while self._held and self._step(pieces):
            pass
        return pieces

    def end(self) -> list[Piece]:
        """Return what was held when the text ended: a tag cut short is text, an unclosed call is read as it stands."""
        pieces: list[Piece] = []
        held, self._held = self._held, ""
        if self._state == "think":
            self._reason(held, pieces)
        elif self._state == "call":
            self._emit_calls(held, pieces, cut=True)
        elif not self._after:
            self._say(held, pieces)
        elif held.strip():
            self._say(held.lstrip(), pieces)
        return pieces

    def _step(self, pieces: list[Piece]) -> bool:
        """Do what the state says; return whether there may be more to do."""
        if self._state == "text":
            return self._text(pieces)
        if self._state == "think":
            return self._think(pieces)
        if self._state == "call":
            return self._call(pieces)
        return self._start()

    def _start(self) -> bool:
        stripped = self._held.lstrip()
        for opening, closing in THINK_TAGS:
            if stripped.startswith(opening):
                self._held = stripped[len(opening) :]
                self._enter_thinking(closing)
                return True
        if any(opening.startswith(stripped) for opening, _closing in THINK_TAGS):
            return False
        if self._template_opens:
            self._enter_thinking(THINK_TAGS[0][1])
        else:
            self._state = "text"
        return True

    def _enter_thinking(self, closing: str) -> None:
        self._template_opens = False
        self._state, self._close, self._after = "think", closing, True

    def _think(self, pieces: list[Piece]) -> bool:
        before, tag, rest = self._held.partition(self._close)
        if tag:
            self._reason(before, pieces)
            self._held, self._state, self._after = rest, "start", True
            return True
        keep = held_length(before, self._close)
        self._held = before[len(before) - keep :]
        self._reason(before[: len(before) - keep], pieces)
        return False

    def _text(self, pieces: list[Piece]) -> bool:
        if not self._tools:
            text, self._held = self._held, ""
            self._say(text, pieces)
            return False
        before, tag, rest = self._held.partition(CALL_OPENS)
        if tag:
            self._say(before, pieces)
            self._held, self._state, self._scanned = rest, "call", 0
            return True
        keep = held_length(before, CALL_OPENS)
        self._held = before[len(before) - keep :]
        self._say(before[: len(before) - keep], pieces)
        return False

    def _call(self, pieces: list[Piece]) -> bool:
        found = self._held.find(CALL_CLOSES, max(0, self._scanned - len(CALL_CLOSES)))
        if found < 0:
            self._scanned = len(self._held)
            if self._scanned > CALL_CHARS_MAX:
                raise Malformed("The model wrote a tool call without an end.", detail=f"{self._scanned} characters")
            return False
        self._emit_calls(self._held[:found], pieces)
        self._held = self._held[found + len(CALL_CLOSES) :]
        self._state, self._after = "text", True
        return True

    def _say(self, text: str, pieces: list[Piece]) -> None:
        if self._after:
            text = text.lstrip()
        if text:
            self._after = False
            pieces.append(TextDelta(text, self._choice))

    def _reason(self, text: str, pieces: list[Piece]) -> None:
        if self._after:
            text = text.lstrip()
        if text:
            self._after = False
            pieces.append(ReasoningDelta(text, self._choice))

    def _emit_calls(self, body: str, pieces: list[Piece], *, cut: bool = False) -> None:
        for name, arguments in read_calls(body, cut=cut):
            index, call_id = self._new_call()
            pieces.append(CallDelta(index, arguments, call_id, name, self._choice))


def read_calls(body: str, *, cut: bool = False) -> list[tuple[str, str]]:
    """Return the calls (name, arguments as JSON text) inside one tool-call tag.

    Three dialects: a JSON object (Hermes, Qwen), a name with `<arg_key>`/`<arg_value>` pairs (GLM), and
    `<function=...>` with `<parameter=...>` (Qwen Coder). Broken JSON still gives its name, with the arguments as far as
    they go, as OpenAI does for a call that a token limit cut; what has no name gives nothing. `cut` says that the
    closing tag never came: then no brace is added, for `{"x": 1` may have been meant to go on.
    """
    body = body.strip()
    if body.startswith("{"):
        call = _read_json_call(body, ("",) if cut else ("", "}", "}}"))
        return [call] if call else []
    functions = _XML_FUNCTION.findall(body)
    if functions:
        return [(name.strip(), _write_arguments(_XML_PARAMETER.findall(inner))) for name, inner in functions]
    name = _FUNCTION_NAME.match(body)
    if name is None:
        return []
    return [(name.group(), _write_arguments(_GLM_PAIR.findall(body)))]


def _read_json_call(body: str, endings: tuple[str, ...]) -> tuple[str, str] | None:
    for missing in endings:  # small models forget closing braces
        try:
            call = _HERMES.decode(body + missing)
        except (msgspec.DecodeError, RecursionError):
            continue
        arguments = (bytes(call.arguments) or bytes(call.parameters) or b"{}").decode().strip()
        if arguments.startswith('"'):  # arguments as JSON text inside of a string, as on OpenAI's wire
            arguments = msgspec.json.decode(arguments, type=str)
        return call.name, "{}" if arguments in ("null", "") else arguments
    name = _NAME.search(body)
    if name is None:
        return None
    arguments_at = _ARGUMENTS.search(body)
    return name.group(1), body[arguments_at.end() :].strip() if arguments_at else "{}"


def _write_arguments(pairs: list[tuple[str, str]]) -> str:
    values: dict[str, object] = {}
    for key, text in pairs:
        try:
            values[key.strip()] = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            values[key.strip()] = text
    return msgspec.json.encode(values).decode()
