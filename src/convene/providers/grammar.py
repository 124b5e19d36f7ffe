"""JSON schemas as grammars of the embedded engine: what it enforces, with bounds so that every answer ends. Pure.

Here: the grammar text and the check afterwards (`JsonShape`); `grammar_dialect` knows the keywords, `grammar_bounds`
the bounds. Not here: any request. Called by `local` for `response_format` and `local_tools` for a call's arguments.

Why our own walk: llama.cpp *silently* drops a grammar that LLGuidance cannot compile (a line on stderr, HTTP 200, free
text), its own `response_format` ignores number ranges, and a schema without bounds lets a small model run to the token
limit (30 of 35 answers valid without bounds, 35 of 35 with them, engine.md 6). So every keyword is known, refused by
name or dropped because it asserts nothing, and the answer is validated anyway.

The bounds, which limit what such an answer can say, apply only where the schema sets none:

    string      60 characters; 200 with a pattern; by format see `FORMAT_LENGTHS`
    integer     -1e9 to 1e9
    number      the same, at most 4 decimals (more in a range narrower than 1); a range below zero takes whole numbers,
                or 101 even steps if it has too few (LLGuidance cannot compile `multipleOf` below zero)
    array       16 items
    object      the declared properties only; without any: 8 properties with names of up to 24 ASCII letters
    no type     a string, number, boolean or null, or an array or map of such, two levels deep
    whitespace  none between tokens
    $ref        recursion is not cut: the token limit ends it (finish reason `length`)
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

import jsonschema_rs
import msgspec

from convene.providers.grammar_bounds import MAGNITUDE_MAX, bound_schema
from convene.providers.grammar_dialect import Schema, SchemaRefused, normalise

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JsonShape", "SchemaRefused", "shape_schema"]

GUIDANCE: Final = {"whitespace_flexible": False, "coerce_one_of": True}
"""LLGuidance's options: tight whitespace, and `oneOf` with overlapping branches taken as `anyOf` (validated after)."""

SIZE_DEPTH_MAX = 6
ITEMS_EXPECTED = 4
STARTS: Final = {
    "object": "{",
    "array": "[",
    "string": '"',
    "integer": "-0123456789",
    "number": "-0123456789",
    "boolean": "tf",
    "null": "n",
}
ANY_START = "".join(sorted(set("".join(STARTS.values()))))


class JsonShape(msgspec.Struct, frozen=True, kw_only=True):
    """A schema ready for the engine.

    `grammar` is the text of its `grammar` field; `schema` what the answer is checked against; `starts` holds the only
    possible first characters (another one means the grammar was not applied); `tokens` guesses a full answer's size.
    """

    grammar: str
    schema: Schema
    starts: str
    tokens: int

    def find_fault(self, text: str) -> str | None:
        """Return why `text` is not an instance of the schema, or None if it is. The words name no value of the text."""
        try:
            value = json.loads(text)
        except ValueError:
            return "it is not JSON"
        validator = jsonschema_rs.Draft202012Validator(self.schema, validate_formats=True)
        for error in validator.iter_errors(value):
            where = "/".join(str(step) for step in error.instance_path) or "the root"
            keyword = str(error.schema_path[-1]) if error.schema_path else "schema"
            return f"{where} breaks {keyword!r}"
        return None


def shape_schema(schema: Mapping[str, object] | None, *, lenient: bool = False) -> JsonShape:
    """Turn a client's schema into a `JsonShape`; None stands for any JSON object.

    Args:
        schema: JSON Schema 2020-12, or the older and OpenAPI forms that clients still send.
        lenient: drop what the engine cannot enforce instead of refusing it (tool parameters, OAI-14).

    Raises:
        SchemaRefused: with the keyword that cannot be enforced (STRUCT-06, OAI-17).
    """
    normal = normalise({"type": "object"} if schema is None else schema, lenient=lenient)
    try:
        jsonschema_rs.Draft202012Validator(normal, validate_formats=True)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        keyword = _name_keyword(error)
        raise SchemaRefused(keyword, "it is not a valid JSON schema") from error
    bounded = bound_schema(normal)
    grammar = "%llguidance {}\nstart: %json " + json.dumps({**bounded, "x-guidance": GUIDANCE}, ensure_ascii=True)
    return JsonShape(
        grammar=grammar,
        schema=normal,
        starts=_find_starts(bounded, bounded, 0),
        tokens=_guess_tokens(bounded, bounded, 0),
    )


def _name_keyword(error: Exception) -> str:
    path = getattr(error, "instance_path", None)
    return str(path[-1]) if path else "schema"


def _resolve(root: Schema, node: Schema) -> Schema:
    """Return the local target of a `$ref`; the dialect has checked that it exists."""
    target: object = root
    for step in str(node["$ref"]).lstrip("#").strip("/").split("/"):
        if step:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target[int(key)] if isinstance(target, list) else cast("Schema", target)[key]
    return cast("Schema", target) if isinstance(target, dict) else {}


def _find_starts(root: Schema, node: object, depth: int) -> str:
    if not isinstance(node, dict) or depth > SIZE_DEPTH_MAX:
        return ANY_START
    if "const" in node:
        return json.dumps(node["const"])[0]
    if "enum" in node:
        return "".join({json.dumps(value)[0] for value in node["enum"]})
    if "type" in node:
        names = node["type"] if isinstance(node["type"], list) else [node["type"]]
        return "".join(STARTS[name] for name in names)
    if "$ref" in node:
        return _find_starts(root, _resolve(root, node), depth + 1)
    for key in ("anyOf", "oneOf"):
        if key in node:
            return "".join(_find_starts(root, branch, depth + 1) for branch in node[key])
    return ANY_START


def _guess_tokens(root: Schema, node: object, depth: int) -> int:
    """Guess how many tokens a full answer takes: for choosing a limit, not a promise."""
    if not isinstance(node, dict) or depth > SIZE_DEPTH_MAX:
        return 1
    if "const" in node or "enum" in node:
        values = node.get("enum", [node.get("const")])
        return max((len(json.dumps(value)) // 2 + 1 for value in values), default=1)
    if "$ref" in node:
        return _guess_tokens(root, _resolve(root, node), depth + 1)
    branches = [*node.get("anyOf", []), *node.get("oneOf", [])]
    size = max((_guess_tokens(root, branch, depth + 1) for branch in branches), default=0)
    size += sum(_guess_tokens(root, branch, depth + 1) for branch in node.get("allOf", []))
    names = node.get("type", [])
    for name in names if isinstance(names, list) else [names]:
        size = max(size, _guess_typed(root, node, name, depth))
    return size


def _guess_typed(root: Schema, node: Schema, name: str, depth: int) -> int:
    if name == "string":
        return min(int(cast("int", node.get("maxLength", 60))), 400) // 2 + 2
    if name in {"integer", "number"}:
        return len(str(MAGNITUDE_MAX))
    if name == "array":
        count = min(int(cast("int", node.get("maxItems", 16))), ITEMS_EXPECTED)
        return 2 + count * _guess_tokens(root, node.get("items", {}), depth + 1)
    if name == "object":
        properties = cast("dict[str, object]", {**cast("Schema", node.get("properties", {}))})
        named = sum(len(key) // 2 + 3 + _guess_tokens(root, value, depth + 1) for key, value in properties.items())
        patterns = cast("Schema", node.get("patternProperties", {})).values()
        mapped = sum(ITEMS_EXPECTED * (6 + _guess_tokens(root, value, depth + 1)) for value in patterns)
        return 2 + named + mapped
    return 1
