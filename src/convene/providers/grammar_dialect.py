"""The dialect of JSON Schema that the embedded engine enforces: every keyword known, refused by name, or dropped. Pure.

Here: `normalise`, which rewrites older and OpenAPI forms (`nullable`, boolean `exclusiveMinimum`, `items` as a list,
`definitions`) and drops annotations and unknown words. Not here: bounds (`grammar_bounds`). Called by `grammar` only.

Which keywords LLGuidance compiles was tried one by one against xllamacpp 2026.10.11549.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Schema = dict[str, Any]

DEPTH_MAX = 32
"""Levels of nesting: deeper schemas are refused before Python's own recursion limit would speak."""
NODES_MAX = 4000
"""Subschemas: a bound on the work of one request."""

TYPES = frozenset({"string", "integer", "number", "boolean", "null", "array", "object"})
PLAIN = frozenset(
    {
        "type", "enum", "const", "minLength", "maxLength", "pattern", "minimum", "maximum",
        "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
        "minItems", "maxItems", "minProperties", "maxProperties", "required",
    }
)  # fmt: skip
LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
SUBSCHEMAS = LISTS | MAPS | {"items", "additionalProperties"}
COMPOSED = frozenset({"anyOf", "oneOf", "allOf", "$ref"})
REFUSED = frozenset(
    {
        "not",
        "if",
        "uniqueItems",
        "contains",
        "propertyNames",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
        "unevaluatedProperties",
        "unevaluatedItems",
        "$dynamicRef",
        "$recursiveRef",
    }
)
"""LLGuidance does not know these, and they assert something, so they cannot be dropped."""

FORMATS = frozenset(
    {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "url", "iri"}
)
"""Formats that are held; any other is an annotation, as JSON Schema has it by default."""


class SchemaRefused(Exception):
    """The schema cannot be enforced: `keyword` is why, `reason` completes the sentence."""

    def __init__(self, keyword: str, reason: str) -> None:
        super().__init__(f"JSON schema keyword {keyword!r}: {reason}")
        self.keyword = keyword
        self.reason = reason


def normalise(schema: Mapping[str, object], *, lenient: bool) -> Schema:
    """Return the schema in 2020-12 words that the engine enforces.

    `lenient` drops what cannot be enforced; else it raises `SchemaRefused`. References must be local (`#/...`): nothing
    is ever fetched for a schema.
    """
    walk = _Walk(lenient=lenient)
    normal = walk.visit(dict(schema), 0)
    if not isinstance(normal, dict):  # pragma: no cover - a mapping came in, a mapping goes out
        raise SchemaRefused("schema", "it must be an object")
    walk.check_refs(normal)
    return normal


class _Walk:
    """One pass over a schema, counting nodes and collecting references."""

    def __init__(self, *, lenient: bool) -> None:
        self._lenient = lenient
        self._nodes = 0
        self._refs: list[str] = []

    def visit(self, node: object, depth: int) -> Any:  # noqa: ANN401 - a schema is an object or a boolean
        """Normalise one subschema."""
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            raise SchemaRefused("schema", "a subschema must be an object or a boolean")
        self._nodes += 1
        if depth > DEPTH_MAX or self._nodes > NODES_MAX:
            raise SchemaRefused("schema", f"more than {DEPTH_MAX} levels or {NODES_MAX} subschemas")
        node = _modernise(node)
        out: Schema = {}
        for key, value in node.items():
            if key in PLAIN:
                out[key] = _READERS[key](key, value) if key in _READERS else value
            elif key in SUBSCHEMAS:
                out[key] = self._visit_below(key, value, depth + 1)
            else:
                self._visit_word(key, value, out)
        return _unfold_nullable(node, out)

    def _visit_word(self, key: str, value: object, out: Schema) -> None:
        """Take a reference or a format in, refuse what cannot be held, drop the rest."""
        if key == "$ref":
            out[key] = self._take_ref(value)
        elif key == "format" and isinstance(value, str) and value in FORMATS:
            out[key] = "uri" if value in {"url", "iri"} else value
        elif key in REFUSED and not self._lenient:
            raise SchemaRefused(key, "the embedded model cannot enforce it")

    def _visit_below(self, key: str, value: object, depth: int) -> object:
        if key in LISTS:
            return [self.visit(branch, depth) for branch in _read_list(key, value)]
        if key in MAPS:
            return {name: self.visit(sub, depth) for name, sub in _read_map(key, value).items()}
        return self.visit(value, depth)

    def _take_ref(self, value: object) -> str:
        if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
            raise SchemaRefused("$ref", "only references into the schema itself (#/...) can be followed")
        self._refs.append(value)
        return value

    def check_refs(self, root: Schema) -> None:
        """Refuse references to nowhere, and those that only lead to each other."""
        for ref in self._refs:
            seen = {ref}
            target = follow(root, ref)
            while isinstance(target, dict) and set(target) == {"$ref"}:
                onward = target["$ref"]
                if onward in seen:
                    raise SchemaRefused("$ref", f"{ref} leads only to itself")
                seen.add(onward)
                target = follow(root, onward)
            if not isinstance(target, dict | bool):
                raise SchemaRefused("$ref", f"there is nothing at {ref}")


def follow(root: Schema, ref: str) -> object:
    """Return what a local reference names, or None."""
    target: object = root
    for step in ref[1:].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            target = target[int(key)]
        else:
            return None
    return target


def _modernise(node: Schema) -> Schema:
    """Rewrite forms of older drafts and of OpenAPI, and drop refused words that assert nothing as they stand."""
    node = dict(node)
    for edge, flag in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(node.get(flag), bool):
            exclusive = node.pop(flag)
            if exclusive and edge in node:
                node[flag] = node.pop(edge)
    if isinstance(node.get("items"), list):
        node["prefixItems"] = node.pop("items")
        node["items"] = node.pop("additionalItems", True)
    if not node.get("uniqueItems"):
        node.pop("uniqueItems", None)
    # Zod writes this beside every record: it only says that names are strings.
    if node.get("propertyNames") in ({"type": "string"}, {}, True):
        node.pop("propertyNames")
    if not COMPOSED & set(node) and "unevaluatedProperties" in node:
        # Without composition the two words mean the same.
        node.setdefault("additionalProperties", node.pop("unevaluatedProperties"))
    return node


def _unfold_nullable(node: Schema, out: Schema) -> Schema:
    """Apply OpenAPI's `nullable`."""
    if node.get("nullable") is not True:
        return out
    if isinstance(out.get("type"), str) and "enum" not in out and "const" not in out:
        return {**out, "type": [out["type"], "null"]}
    kept: Schema = {key: out.pop(key) for key in ("$defs", "definitions") if key in out}
    return {**kept, "anyOf": [out, {"type": "null"}]}


def _read_type(key: str, value: object) -> str | list[str]:
    names: list[str] = []
    for name in value if isinstance(value, list) else [value]:
        if not isinstance(name, str) or name not in TYPES:
            raise SchemaRefused(key, f"{name!r} is no JSON type")
        names.append(name)
    if not names:
        raise SchemaRefused(key, "an empty list allows nothing")
    return names[0] if len(names) == 1 else list(dict.fromkeys(names))


def _read_list(key: str, value: object) -> list[object]:
    if not isinstance(value, list) or not value:
        raise SchemaRefused(key, "it must be a non-empty list")
    return value


def _read_enum(key: str, value: object) -> list[object]:
    return _read_list(key, value)


def _read_required(key: str, value: object) -> list[str]:
    if isinstance(value, bool):
        # Draft 3 wrote `required: true` inside a property; it says nothing here.
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SchemaRefused(key, "it must be a list of names")
    return list(dict.fromkeys(value))


def _read_map(key: str, value: object) -> Schema:
    if not isinstance(value, dict):
        raise SchemaRefused(key, "it must be an object")
    return value


def _read_count(key: str, value: object) -> int:
    _read_number(key, value)
    if not isinstance(value, int | float) or value < 0 or value != int(value):
        raise SchemaRefused(key, "it must be a whole number, 0 or more")
    return int(value)


def _read_number(key: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SchemaRefused(key, "it must be a number")
    if not math.isfinite(value):
        raise SchemaRefused(key, "it must be finite")
    return value


_READERS: Final[dict[str, Callable[[str, object], Any]]] = {
    "type": _read_type,
    "enum": _read_enum,
    "required": _read_required,
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _read_count),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _read_number),
}
