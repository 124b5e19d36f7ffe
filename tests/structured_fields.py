"""A strict reader of structured fields (RFC 9651): lists of strings with parameters, as the RateLimit fields are.

Written from the grammar, by itself, so that tests hold our fields to the standard and not to our own code.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

Item: TypeAlias = tuple[str, dict[str, int | str]]

_STRING: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_KEY: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}(?![0-9.])")
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")


def parse_list(field: bytes) -> list[Item]:
    """Return the items of a List field. Raises ValueError where the field breaks the grammar."""
    text = field.decode("ascii").strip(" ")
    items: list[Item] = []
    at = 0
    while at < len(text):
        item, at = _item(text, at)
        items.append(item)
        if at == len(text):
            return items
        comma = _COMMA.match(text, at)
        if comma is None or comma.end() == len(text):
            raise ValueError(f"no comma, or nothing behind one, at {at}: {text!r}")
        at = comma.end()
    return items


def _item(text: str, at: int) -> tuple[Item, int]:
    found, at = _string(text, at)
    parameters: dict[str, int | str] = {}
    while text[at : at + 1] == ";":
        at += 1
        while text[at : at + 1] == " ":
            at += 1
        key = _KEY.match(text, at)
        if key is None or text[key.end() : key.end() + 1] != "=":
            raise ValueError(f"no parameter with a value at {at}: {text!r}")
        parameters[key[0]], at = _value(text, key.end() + 1)
    return (found, parameters), at


def _string(text: str, at: int) -> tuple[str, int]:
    found = _STRING.match(text, at)
    if found is None:
        raise ValueError(f"no string at {at}: {text!r}")
    return re.sub(r"\\(.)", r"\1", found[1]), found.end()


def _value(text: str, at: int) -> tuple[int | str, int]:
    if text[at : at + 1] == '"':
        return _string(text, at)
    found = _INTEGER.match(text, at)
    if found is None:
        raise ValueError(f"no integer or string at {at}: {text!r}")
    return int(found[0]), found.end()
