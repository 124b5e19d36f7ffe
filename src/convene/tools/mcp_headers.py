"""The headers by which requests of MCP's revision 2026-07-28 repeat what their bodies say. Pure.

A server may mark parameters of a tool with `x-mcp-header`; their values then go along as `Mcp-Param-NAME`, so that
what stands between can route by them. Here: which marks a schema has, the values of one call, their encoding.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Final

from convene.tools.mcp_codec import NotMcp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MARK: Final = "x-mcp-header"
Marks = tuple[tuple[str, tuple[str, ...]], ...]
"""Header name and the path of keys that leads to its value in the arguments."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_PLAIN: Final = re.compile(r"[!-~]([\t -~]*[!-~])?")
_SENTINEL: Final = re.compile(r"=\?base64\?.*\?=", re.DOTALL)
_SAFE_INTEGER: Final = 2**53 - 1
_DEPTH_MAX: Final = 32


def marks_of(schema: Mapping[str, Any]) -> Marks:
    """Return the marked parameters. Raises `NotMcp` for a mark that the specification forbids; the tool is then out."""
    found = tuple(_reachable(schema, ()))
    names = [name.lower() for name, _ in found]
    if len(set(names)) != len(names):
        raise NotMcp(f"two parameters have the same {MARK}")
    if _count(schema, 0) != len(found):
        raise NotMcp(f"an {MARK} is where it may not be")
    return found


def headers_of(marks: Marks, arguments: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return the headers of a call with these arguments; what is absent or null has none."""
    pairs = ((name, _value_at(arguments, path)) for name, path in marks)
    return tuple((f"Mcp-Param-{name}", encode_value(value)) for name, value in pairs if value is not None)


def encode_value(value: str) -> str:
    """Return a value as it may stand in a header: as it is, or its UTF-8 in base64 with marks around it."""
    if value and _PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'surrogatepass')).decode()}?="


def _reachable(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the marks that a chain of `properties` leads to."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or len(path) >= _DEPTH_MAX:
        return
    for key, inner in properties.items():
        if not isinstance(inner, dict):
            continue
        if MARK in inner:
            name = inner[MARK]
            if not isinstance(name, str) or not _TOKEN.fullmatch(name):
                raise NotMcp(f"an {MARK} is no name for a header")
            if inner.get("type") not in ("string", "integer", "boolean"):
                raise NotMcp(f"an {MARK} is on a parameter that is no text, whole number or truth value")
            yield name, (*path, key)
        yield from _reachable(inner, (*path, key))


def _count(value: object, depth: int, *, names: bool = False) -> int:
    """Return how many marks there are anywhere; `names`: the keys of `value` are names of parameters, not keywords."""
    if depth > 2 * _DEPTH_MAX:
        return 0
    if isinstance(value, list):
        return sum(_count(one, depth + 1) for one in value)
    if not isinstance(value, dict):
        return 0
    own = 1 if MARK in value and not names else 0
    return own + sum(_count(inner, depth + 1, names=key == "properties" and not names) for key, inner in value.items())


def _value_at(arguments: Mapping[str, object], path: tuple[str, ...]) -> str | None:
    value: object = arguments
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) <= _SAFE_INTEGER:
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= _SAFE_INTEGER:
        return str(int(value))
    return value if isinstance(value, str) else None
