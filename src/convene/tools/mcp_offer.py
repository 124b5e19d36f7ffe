"""Which tools of an MCP server are offered, under which names and with which labels. Pure.

A server's list is a stranger's text that goes into every prompt, so number, descriptions and schemas are bounded, and a
schema that cannot be checked against leaves its tool out. Names are `server__tool` in letters, digits, `_` and `-`;
two tools that would have the same name get different ones, whatever the order in which they are listed.
"""

from __future__ import annotations

import hashlib
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, NoReturn

import jsonschema_rs
import msgspec

from convene.tools.base import Label, ToolSpec
from convene.tools.mcp_codec import NotMcp, clean
from convene.tools.mcp_headers import Marks, marks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from convene.tools.mcp_codec import Listed

TOOLS_MAX: Final = 128
"""Of one server; more would fill the window of most models."""
NAME_CHARS_MAX: Final = 64
DESCRIPTION_CHARS_MAX: Final = 1024
SCHEMA_BYTES_MAX: Final = 16 * 1024
SCHEMA_DEPTH_MAX: Final = 24
_DIGEST_CHARS: Final = 8
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_LINE_CHARS_MAX: Final = 400


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator has said of one server."""

    server: str
    allow: tuple[str, ...] = ()
    """Patterns of the tools' own names (`search_*`); empty allows all."""
    labels: frozenset[Label] | None = None
    """Of all its tools; None: as its annotations say."""
    timeout_s: float = 60.0


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """One tool that is offered."""

    spec: ToolSpec
    own_name: str
    marks: Marks = ()
    repeatable: bool = False
    """Calling it twice does no more than calling it once."""


class Offer(msgspec.Struct, frozen=True):
    """What becomes of a list: the tools, and a line for the log for each that is left out."""

    tools: tuple[Offered, ...]
    left_out: tuple[str, ...]


def make_offer(listed: Sequence[Listed], terms: Terms) -> Offer:
    """Return what is offered of a server's list, in its order."""
    kept: dict[str, Offered] = {}
    left_out: list[str] = []
    wanted = {tool.name: tool for tool in reversed(listed) if _allowed(tool.name, terms.allow)}  # the first of a name
    names = name_tools(terms.server, wanted)
    for tool in listed:
        if tool.name in kept or wanted.get(tool.name) is not tool:
            continue
        if len(kept) >= TOOLS_MAX:
            left_out.append(f"it has more than {TOOLS_MAX} tools; choose with mcp.{terms.server}.tools")
            break
        try:
            kept[tool.name] = _offered(tool, names[tool.name], terms)
        except NotMcp as reason:
            left_out.append(f"{clean(tool.name, NAME_CHARS_MAX)}: {reason}")
    return Offer(tuple(kept.values()), tuple(left_out))


def name_tools(server: str, own: Iterable[str]) -> dict[str, str]:
    """Return a name for each tool of a server: its own where it is unique and fits, else with a digest at the end."""
    own = tuple(own)
    plain = {name: f"{server}__{_NOT_IN_NAMES.sub('_', name)}" for name in own}
    taken: dict[str, int] = {}
    for name in plain.values():
        taken[name] = taken.get(name, 0) + 1
    return {
        name: full
        if len(full) <= NAME_CHARS_MAX and (taken[full] == 1 or full == f"{server}__{name}")
        else f"{full[: NAME_CHARS_MAX - _DIGEST_CHARS - 1]}_{_digest(name)}"
        for name, full in plain.items()
    }


def check_schema(schema: dict[str, Any]) -> None:
    """Raise `NotMcp`, saying why, for a schema that arguments cannot or should not be checked against."""
    if schema.get("type") != "object":
        raise NotMcp("its parameters are no object")
    if _depth(schema) > SCHEMA_DEPTH_MAX:
        raise NotMcp(f"its schema is deeper than {SCHEMA_DEPTH_MAX}")
    if len(msgspec.json.encode(schema)) > SCHEMA_BYTES_MAX:
        raise NotMcp(f"its schema is larger than {SCHEMA_BYTES_MAX} bytes")
    try:
        jsonschema_rs.validator_for(schema, retriever=_refuse_remote)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise NotMcp(f"its schema cannot be used ({clean(str(error).partition(chr(10))[0], 200)})") from error


def _offered(tool: Listed, name: str, terms: Terms) -> Offered:
    check_schema(tool.schema)
    spec = ToolSpec(
        name=name,
        description=_describe(tool.description),
        parameters=tool.schema,
        labels=_labels(tool) if terms.labels is None else terms.labels,
        timeout_s=terms.timeout_s,
        source=terms.server,
    )
    return Offered(
        spec=spec, own_name=tool.name, marks=marks_of(tool.schema), repeatable=tool.read_only or tool.idempotent
    )


def _labels(tool: Listed) -> frozenset[Label]:
    """What a server says of its tools can make them less free, and more only where it says it of a closed world."""
    closed = tool.read_only and not tool.open_world
    return frozenset({"untrusted"}) if closed else frozenset({"untrusted", "sends"})


def _allowed(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _describe(text: str) -> str:
    """Return a description with its lines, but bounded, and without control characters."""
    lines = (clean(line, _LINE_CHARS_MAX) for line in text[: 2 * DESCRIPTION_CHARS_MAX].splitlines())
    whole = re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip()
    return whole if len(whole) <= DESCRIPTION_CHARS_MAX else whole[: DESCRIPTION_CHARS_MAX - 1] + "…"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]


def _depth(value: object, so_far: int = 0) -> int:
    """Return how deep a value is; one too deep is not walked to its end."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if so_far > SCHEMA_DEPTH_MAX:
        return so_far
    return max((_depth(one, so_far + 1) for one in inner), default=so_far)


def _refuse_remote(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not inside the schema")
