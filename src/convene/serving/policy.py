"""Which calls may run after what has come into a run (reliability 6.7, goal E8). Pure: labels in, words out.

A model that has read a stranger's text is taken to obey it. So nothing here asks what a text says, only where it came
from and where a call would carry data to:

    the tool sends        refused once anything untrusted is in the run, unless the operator allows it by name
    it reads a page       only at an address that was shown before, word for word: in the conversation, or in a result
    it searches           refused once both untrusted and private content are in the run, unless allowed by name
    it calls an agent     the same: an agent is found by the server, and what it is told is the model's own words

Untrusted are results of tools with that label, of tools of the client's own, and answers of earlier requests that cite
the web. What the user and the client's system text say is the caller's own word. A search engine is the operator's
choice and is told what the model wants to know; what is private must not reach it on a stranger's behalf.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from convene.messages import Message, ToolCall
    from convene.serving.base_agentic import RunView
    from convene.tools.base import ToolSpec

NOT_SENT: Final = (
    "'{name}' was not run: it can send data out, and this conversation now holds text that strangers wrote. Do without "
    "it, and tell the user what you would have sent."
)
NOT_SEARCHED: Final = (
    "'{name}' was not run: this conversation now holds private data and text that strangers wrote, and a search would "
    "tell others of it. Answer with what you have."
)
NOT_ASKED: Final = (
    "'{name}' was not run: this conversation now holds private data and text that strangers wrote, and an agent is a "
    "stranger too. Answer with what you have."
)
NOT_SHOWN: Final = (
    "'{name}' was not run: only addresses can be read that stand word for word in the user's messages or in results of "
    "this run. Use one of those, exactly as it is written there."
)

_WRITTEN: Final = re.compile(r"(?:https?://|(?<![\w@./-])(?=[\w-]+\.))[^\s<>\"'`|\\^{}]+", re.IGNORECASE)
"""An address in a text that people write, also without its scheme: `example.com/page`."""
_PUNCTUATION: Final = tuple(".,;:!?)]*_")
_PUNCTUATION_MAX: Final = 8
"""Forms of one written address; a sentence ends in no more marks."""
_PARTS: Final = re.compile(r"(https?://)([^/?#]*)([^#]*)", re.IGNORECASE)
_CITED: Final = re.compile(r"\[\[\d{1,3}\]\]\(https?://")


class LabelPolicy:
    """A `Policy` by labels; `allowed` are names or globs (`server__*`) of tools that may run all the same."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = tuple(allowed)

    def check(self, call: ToolCall, spec: ToolSpec, arguments: Mapping[str, object], view: RunView) -> str | None:
        """Return None if the call may run, else why not, in words for the model."""
        del call
        name = spec.name
        if spec.kind == "fetch":
            wanted = [*_texts(arguments.get("url")), *_texts(arguments.get("urls"))]
            shown = shown_addresses(view)
            return None if all(was_shown(url, shown) for url in wanted) else NOT_SHOWN.format(name=name)
        if any(fnmatchcase(name, glob) for glob in self._allowed) or not is_tainted(view):
            return None
        if "sends" in spec.labels:
            return NOT_SENT.format(name=name)
        if spec.kind in {"search", "agent"} and "private" in view.labels:
            return (NOT_SEARCHED if spec.kind == "search" else NOT_ASKED).format(name=name)
        return None


def is_tainted(view: RunView) -> bool:
    """Whether something that strangers may have written is in the run."""
    return "untrusted" in view.labels or any(map(_is_untrusted, view.messages))


def _is_untrusted(message: Message) -> bool:
    return message.role == "tool" or (message.role == "assistant" and _CITED.search(message.text()) is not None)


def shown_addresses(view: RunView) -> set[str]:
    """Return every form in which an address may be asked for: those of results, and those that the caller wrote."""
    shown = set[str]()
    for address in view.addresses:
        shown.update(_forms(address))
    for message in view.messages:
        if message.role in {"user", "system"}:
            for address in written_addresses(message.text()):
                shown.update(_forms(address))
    return shown


def was_shown(url: str, shown: set[str]) -> bool:
    """Whether this is one of those addresses, with nothing added: a fragment is never sent, so it does not count."""
    parts = _PARTS.match(url.strip())
    return parts is not None and f"{parts[1]}{parts[2]}{parts[3] or '/'}" in shown


def written_addresses(text: str) -> Iterator[str]:
    """Return the addresses in a text, each as it stands and without what may be the punctuation of its sentence."""
    for found in _WRITTEN.finditer(text):
        address = found[0]
        bare = not address.lower().startswith(("http://", "https://"))
        for _ in range(_PUNCTUATION_MAX):
            yield from (f"https://{address}", f"http://{address}") if bare else (address,)
            if not address.endswith(_PUNCTUATION):
                break
            address = address[:-1]


def _forms(address: str) -> Iterator[str]:
    """Return an address without its fragment, and the same with scheme and host in small letters."""
    parts = _PARTS.match(address.strip())
    if parts is not None:
        tail = parts[3] or "/"
        yield f"{parts[1]}{parts[2]}{tail}"
        yield f"{parts[1].lower()}{parts[2].lower()}{tail}"


def _texts(value: object) -> Iterable[str]:
    """Return the addresses in an argument; anything that is no text counts as one that nobody has shown."""
    if value is None:
        return ()
    if isinstance(value, list):
        return [one if isinstance(one, str) else "" for one in value]
    return (value if isinstance(value, str) else "",)
