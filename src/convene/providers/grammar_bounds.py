"""Bounds for a normalised schema, so that whatever the model writes comes to an end. Pure.

Every change narrows what the schema allows, so an answer within the bounds is also an answer to the client's schema;
the figures are explained in `grammar`. `enum` and `const` are never touched. Called by `grammar` only.
"""

from __future__ import annotations

import math
from typing import Any, Final

from convene.providers.grammar_dialect import COMPOSED, Schema, SchemaRefused

STRING_LENGTH = 60
PATTERN_LENGTH = 200
FORMAT_LENGTHS: Final = {"date-time": 20, "time": 9, "duration": 6, "email": 40, "hostname": 40}
"""Formats with an open end (a fraction of a second, a label); the others have an end of their own."""
URI_PATTERN = r"^https?://[a-z0-9-]{1,20}(\.[a-z0-9-]{1,12}){1,3}(/[A-Za-z0-9._-]{1,20}){0,3}$"
"""LLGuidance has no `uri`: web addresses stand for all."""
MAGNITUDE_MAX = 1_000_000_000
DECIMAL_STEP = 0.0001
SPAN_MIN = 1e-9
"""A range narrower than this, relative to its place, is one number: its middle."""
STEPS_BELOW_ZERO = 100
WHOLE_NUMBERS_ENOUGH = 10
ITEMS_MAX = 16
MAP_ENTRIES_MAX = 8
MAP_NAME = "^[A-Za-z_][A-Za-z0-9_]{0,23}$"
ANY_DEPTH = 2

_TYPE_OF: Final = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "patternProperties": "object",
    "minProperties": "object",
    "maxProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "maxItems": "array",
    "minLength": "string",
    "maxLength": "string",
    "pattern": "string",
    "format": "string",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}
"""Keywords that speak of one type. JSON Schema lets other types pass them; narrowing to it is what people mean."""


def bound_schema(normal: Schema) -> Schema:
    """Return a copy of a normalised schema with bounds where it has none. Raises `SchemaRefused` for an empty range."""
    bounded = _bound(normal, closing=not _is_layered(normal))
    return bounded if isinstance(bounded, dict) else {}


def write_any(depth: int = ANY_DEPTH) -> Schema:
    """Return a bounded schema of any JSON value, `depth` levels deep."""
    scalars = [
        {"type": "string", "maxLength": STRING_LENGTH},
        {"type": "number", "minimum": -MAGNITUDE_MAX, "maximum": MAGNITUDE_MAX, "multipleOf": DECIMAL_STEP},
        {"type": "boolean"},
        {"type": "null"},
    ]
    if depth == 0:
        return {"anyOf": scalars}
    inner = write_any(depth - 1)
    return {"anyOf": [*scalars, {"type": "array", "items": inner, "maxItems": MAP_ENTRIES_MAX}, _write_map(inner)]}


def _write_map(value: object) -> Schema:
    return {
        "type": "object",
        "patternProperties": {MAP_NAME: value},
        "additionalProperties": False,
        "maxProperties": MAP_ENTRIES_MAX,
    }


def _is_layered(node: object) -> bool:
    """Tell whether some place is described by several schemas at once: then no single one may close its object."""
    if isinstance(node, list):
        return any(_is_layered(item) for item in node)
    if not isinstance(node, dict):
        return False
    composed = COMPOSED & set(node)
    if len(node.get("allOf", ())) > 1 or len(composed) > 1:
        return True
    if composed and {"properties", "patternProperties", "additionalProperties", "required"} & set(node):
        return True
    return any(_is_layered(value) for key, value in node.items() if key not in {"enum", "const", "required", "type"})


def _bound(node: Any, *, closing: bool, partial: bool = False) -> Any:  # noqa: ANN401 - a schema or a boolean
    """Bound one subschema. `partial`: it only adds to another one, so silence about the type means nothing."""
    if node is False:
        return False
    if node is True:
        return True if partial else write_any()
    out = dict(node)
    for key in ("$defs", "definitions"):
        if key in out:
            out[key] = {name: _bound(sub, closing=closing) for name, sub in out[key].items()}
    if "enum" in out or "const" in out:
        return out
    composed = COMPOSED & set(out)
    beside = partial or len(composed) > 1 or bool(set(out) - COMPOSED - {"$defs", "definitions"})
    for key in composed - {"$ref"}:
        added = beside or (key == "allOf" and len(out[key]) > 1)
        out[key] = [_bound(branch, closing=closing, partial=added) for branch in out[key]]
    names = _find_types(out, bound=not composed and not partial)
    if names is None:
        return {**write_any(), **{key: out[key] for key in ("$defs", "definitions") if key in out}}
    for name in names:
        _BOUNDERS[name](out, closing and not composed and not partial)
    return out


def _find_types(node: Schema, *, bound: bool) -> list[str] | None:
    """Return the types to bound, inferring (and writing) one where `bound`; None if nothing at all is said."""
    if "type" in node:
        return list(node["type"]) if isinstance(node["type"], list) else [node["type"]]
    if not bound:
        return ["object"] if "properties" in node else []
    for key, name in _TYPE_OF.items():
        if key in node:
            node["type"] = name
            return [name]
    return None


def _bound_string(node: Schema, _closing: bool) -> None:  # noqa: FBT001 - one signature for the table
    length_min = node.get("minLength", 0)
    if node.get("format") == "uri":
        del node["format"]
        node.setdefault("pattern", URI_PATTERN)
    default = STRING_LENGTH
    if "pattern" in node:
        default = PATTERN_LENGTH
    elif "format" in node:
        default = FORMAT_LENGTHS.get(node["format"], PATTERN_LENGTH)
    node.setdefault("maxLength", max(default, length_min))


def _find_range(node: Schema) -> tuple[float, float]:
    low = max((node[key] for key in ("minimum", "exclusiveMinimum") if key in node), default=None)
    high = min((node[key] for key in ("maximum", "exclusiveMaximum") if key in node), default=None)
    if low is None:
        low = -MAGNITUDE_MAX if high is None or high > -MAGNITUDE_MAX else math.floor(high) - MAGNITUDE_MAX
        node["minimum"] = low
    if high is None:
        high = MAGNITUDE_MAX if low < MAGNITUDE_MAX else math.ceil(low) + MAGNITUDE_MAX
        node["maximum"] = high
    if low > high:
        raise SchemaRefused("minimum", "no number is at once above it and below the maximum")
    return low, high


def _bound_integer(node: Schema, _closing: bool) -> None:  # noqa: FBT001
    _find_range(node)


def _bound_number(node: Schema, _closing: bool) -> None:  # noqa: FBT001
    low, high = _find_range(node)
    span = high - max(low, 0) if high > 0 else high - low
    if span <= SPAN_MIN * max(1, abs(low)):
        node["enum"] = [low if low == high else low + (high - low) / 2]
    elif high > 0:
        # A narrow range needs finer steps than 1e-4 to hold any value.
        node.setdefault("multipleOf", DECIMAL_STEP if span >= 1 else 10.0 ** (math.floor(math.log10(span)) - 4))
    elif span >= WHOLE_NUMBERS_ENOUGH or isinstance(node.get("type"), list):
        _rename_number(node)
    else:
        decimals = 4 - math.floor(math.log10(span))
        steps = [round(low + span * step / STEPS_BELOW_ZERO, decimals) for step in range(STEPS_BELOW_ZERO + 1)]
        inside = steps[("exclusiveMinimum" in node) : len(steps) - ("exclusiveMaximum" in node)]
        node["enum"] = [min(max(value, low), high) for value in inside]


def _rename_number(node: Schema) -> None:
    names = node["type"] if isinstance(node["type"], list) else [node["type"]]
    node["type"] = list(dict.fromkeys("integer" if name == "number" else name for name in names))


def _bound_array(node: Schema, closing: bool) -> None:  # noqa: FBT001
    if "prefixItems" in node:
        node["prefixItems"] = [_bound(item, closing=closing) for item in node["prefixItems"]]
        node.setdefault("minItems", len(node["prefixItems"]))
        node.setdefault("items", False)
    node["items"] = _bound(node.get("items", True), closing=closing)
    node.setdefault("maxItems", max(ITEMS_MAX, node.get("minItems", 0), len(node.get("prefixItems", ()))))


def _bound_object(node: Schema, closing: bool) -> None:  # noqa: FBT001
    """Bound an object. LLGuidance counts properties only where every named one is required, so counts become names."""
    properties = {key: _bound(value, closing=closing) for key, value in node.get("properties", {}).items()}
    extra = node.get("additionalProperties", True)
    if "patternProperties" in node:
        patterns = node["patternProperties"].items()
        node["patternProperties"] = {key: _bound(value, closing=closing) for key, value in patterns}
        node["additionalProperties"] = False
        if properties:
            node["properties"] = properties
        else:
            node.pop("properties", None)
            node.setdefault("maxProperties", max(MAP_ENTRIES_MAX, node.get("minProperties", 0)))
        return
    required = node.get("required", [])
    if not properties and not required and extra is not False:
        most = node.get("maxProperties", MAP_ENTRIES_MAX)
        node.update(_write_map(_bound(extra, closing=closing)), maxProperties=most)
        node.pop("properties", None)
        return
    for name in required:
        properties.setdefault(name, _bound(extra, closing=closing) if extra is not False else False)
    if closing:
        node["additionalProperties"] = False
        required = _fit_count(node, properties, required)
    elif isinstance(extra, dict):
        node["additionalProperties"] = _bound(extra, closing=closing)
    node["properties"] = properties
    if required:
        node["required"] = required


def _fit_count(node: Schema, properties: dict[str, Any], required: list[str]) -> list[str]:
    """Turn `minProperties` and `maxProperties` into required names and fewer optional ones; return the required."""
    least, most = node.pop("minProperties", 0), node.pop("maxProperties", len(properties))
    optional = [name for name in properties if name not in required]
    promoted = optional[: max(0, least - len(required))]
    for name in optional[max(0, most - len(required)) :]:
        if name not in promoted:
            del properties[name]
    return [*required, *promoted]


def _bound_nothing(_node: Schema, _closing: bool) -> None:  # noqa: FBT001
    """Booleans and null have an end of their own."""


_BOUNDERS: Final = {
    "string": _bound_string,
    "integer": _bound_integer,
    "number": _bound_number,
    "array": _bound_array,
    "object": _bound_object,
    "boolean": _bound_nothing,
    "null": _bound_nothing,
}
