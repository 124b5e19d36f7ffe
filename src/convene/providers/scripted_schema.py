"""Fills a JSON schema with a small deterministic value: the arguments and JSON answers of the scripted models.

Takes the first way that works: constants, first enum members, first branches, lowest bounds, required properties.
What it finds is checked against the whole schema, so keywords it does not know (`pattern`, `not`, `if`) can make it
give up but never lie. Not here: constrained decoding, and checks of what a client sent. For the scripted models only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote

import jsonschema_rs

if TYPE_CHECKING:
    from collections.abc import Mapping

NODES_MAX = 2_000
"""Schema nodes visited in one filling: a few mutual references would otherwise take exponential time."""

DEPTH_MAX = 32
"""Nesting above which a recursive schema counts as endless."""

ITEMS_MAX = 100
"""The longest array made; a schema that demands more is not filled."""

TEXT_MAX = 10_000
"""The longest string made, in characters."""

FORMATS: Mapping[str, str] = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
"""A value for each string format that is likely in a tool's schema."""

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


class Unfillable(Exception):
    """No value was found for the schema; the message says why."""


def fill(schema: dict[str, object], text: str) -> object:
    """Return a value that `schema` accepts; free strings become `text`. Raises `Unfillable`."""
    validator = check_schema(schema)
    try:
        value = _Filler(schema, text).fill(schema, 0, 0)
    except OverflowError:
        raise Unfillable("a bound is not a finite number") from None
    if not validator.is_valid(value):
        raise Unfillable("the schema has conditions that the filler cannot meet")
    return value


def check_schema(schema: dict[str, object]) -> jsonschema_rs.Validator:
    """Return a validator for `schema`, which may not refer to the network. Raises `Unfillable`."""
    try:
        return jsonschema_rs.validator_for(schema, retriever=_refuse_remote)
    except ValueError as fault:
        raise Unfillable(str(fault).partition("\n")[0]) from None


def _refuse_remote(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not inside the schema")


def _number(schema: Mapping[str, object], key: str) -> float | None:
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def _type_of(schema: Mapping[str, object]) -> str:
    stated = schema.get("type")
    if isinstance(stated, list):
        stated = next((kind for kind in stated if kind != "null"), "null")
    if isinstance(stated, str):
        return stated
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


class _Filler:
    """One filling: the root for references, the text for strings, and what is left of the node budget.

    `index` tells apart the items of an array that wants them unique.
    """

    def __init__(self, root: dict[str, object], text: str) -> None:
        self.root = root
        self.text = text
        self.left = NODES_MAX

    def fill(self, schema: object, index: int, depth: int) -> object:
        self.left -= 1
        if self.left < 0 or depth > DEPTH_MAX:
            raise Unfillable("the schema is too deep or too large")
        if schema is False:
            raise Unfillable("a part of the schema allows nothing")
        if not isinstance(schema, dict):
            return self.text
        whole = self.resolve(schema, depth)
        if "const" in whole:
            return whole["const"]
        options = whole.get("enum")
        if isinstance(options, list) and options:
            return options[index % len(options)]
        for key in ("anyOf", "oneOf"):
            branches = whole.get(key)
            if isinstance(branches, list) and branches:
                return self.fill_branch(whole, key, branches, index, depth)
        return self.fill_type(whole, index, depth)

    def resolve(self, schema: dict[str, object], depth: int) -> dict[str, object]:
        """Return `schema` with its reference and `allOf` merged into it."""
        merged = {key: value for key, value in schema.items() if key not in {"$ref", "allOf"}}
        parts = schema.get("allOf")
        sources = list(parts) if isinstance(parts, list) else []
        if isinstance(schema.get("$ref"), str):
            sources.append(self.follow(str(schema["$ref"])))
        for source in sources:
            self.left -= 1
            if self.left < 0 or depth > DEPTH_MAX:
                raise Unfillable("the schema is too deep or too large")
            if isinstance(source, dict):
                _merge(merged, self.resolve(source, depth + 1))
        return merged

    def follow(self, reference: str) -> object:
        """Return what a local JSON pointer names (RFC 6901; in a URL, so percent-encoded)."""
        node: object = self.root
        if reference != "#" and not reference.startswith("#/"):
            raise Unfillable(f"the reference {reference!r} is not a path within the schema")
        for step in unquote(reference).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and key in node:
                node = node[key]
            elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            else:
                raise Unfillable(f"the reference {reference!r} leads nowhere")
        return node

    def fill_branch(self, whole: dict[str, object], key: str, branches: list[object], index: int, depth: int) -> object:
        """Return a value of the first branch that has one."""
        rest = {name: value for name, value in whole.items() if name != key}
        reason = Unfillable("no branch of the schema can be filled")
        for branch in branches:
            if not isinstance(branch, dict):
                continue
            joined = dict(rest)
            try:
                _merge(joined, self.resolve(branch, depth + 1))
                return self.fill(joined, index, depth + 1)
            except Unfillable as fault:
                reason = fault
        raise reason

    def fill_type(self, schema: dict[str, object], index: int, depth: int) -> object:
        kind = _type_of(schema)
        samples = schema.get("examples")
        for sample in (schema.get("default"), *(samples if isinstance(samples, list) else ())):
            if index == 0 and sample is not None and isinstance(sample, TYPES.get(kind, ())):
                return sample
        if kind in {"integer", "number"}:
            return _fill_number(schema, index, whole=kind == "integer")
        if kind == "object":
            return self.fill_object(schema, depth)
        if kind == "array":
            return self.fill_array(schema, depth)
        if kind == "boolean":
            return index % 2 == 0
        return None if kind == "null" else self.fill_string(schema, index)

    def fill_object(self, schema: dict[str, object], depth: int) -> dict[str, object]:
        properties = schema.get("properties")
        known = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        names = [str(name) for name in required] if isinstance(required, list) else []
        wanted = _number(schema, "minProperties") or 0
        names += [name for name in known if name not in names][: max(0, int(wanted) - len(names))]
        return {name: self.fill(known.get(name, {}), 0, depth + 1) for name in names}

    def fill_array(self, schema: dict[str, object], depth: int) -> list[object]:
        count = int(_number(schema, "minItems") or 0)
        if count > ITEMS_MAX:
            raise Unfillable(f"an array wants more than {ITEMS_MAX} items")
        first = schema.get("prefixItems")
        kinds = list(first) if isinstance(first, list) else []
        varied = schema.get("uniqueItems") is True
        return [
            self.fill(kinds[i] if i < len(kinds) else schema.get("items", {}), i if varied else 0, depth + 1)
            for i in range(count)
        ]

    def fill_string(self, schema: dict[str, object], index: int) -> str:
        known = FORMATS.get(str(schema.get("format")))
        if known is not None:
            return known
        shortest = int(_number(schema, "minLength") or 0)
        longest = _number(schema, "maxLength")
        if shortest > TEXT_MAX:
            raise Unfillable(f"a string wants more than {TEXT_MAX} characters")
        text = f"{self.text} {index}" if index else self.text
        cap = TEXT_MAX if longest is None else min(int(longest), TEXT_MAX)
        return text.ljust(shortest, ".")[-cap:] if cap else ""


def _fill_number(schema: Mapping[str, object], index: int, *, whole: bool) -> float:
    """Return the multiple that is nearest to one step within the bounds, `index` steps further on."""
    step = _number(schema, "multipleOf") or 1
    low, above = _number(schema, "minimum"), _number(schema, "exclusiveMinimum")
    high, below = _number(schema, "maximum"), _number(schema, "exclusiveMaximum")
    lowest = max(
        -math.inf if low is None else math.ceil(low / step),
        -math.inf if above is None else math.floor(above / step) + 1,
    )
    highest = min(
        math.inf if high is None else math.floor(high / step),
        math.inf if below is None else math.ceil(below / step) - 1,
    )
    if lowest > highest:
        return _fill_between(low if above is None else above, high if below is None else below, whole=whole)
    value = (int(min(max(1, lowest), highest)) + index) * step
    return int(value) if whole or value == int(value) else value


def _fill_between(low: float | None, high: float | None, *, whole: bool) -> float:
    """Return the middle of bounds that no whole multiple lies between."""
    if whole or low is None or high is None:
        raise Unfillable("no number lies within the bounds")
    return (low + high) / 2


def _merge(into: dict[str, object], source: Mapping[str, object]) -> None:
    """Join `source` into `into`: properties and required names add up, of other keywords the first stands."""
    for key, value in source.items():
        mine = into.get(key)
        if key == "properties" and isinstance(mine, dict) and isinstance(value, dict):
            into[key] = {**value, **mine}
        elif key == "required" and isinstance(mine, list) and isinstance(value, list):
            into[key] = [*mine, *(name for name in value if name not in mine)]
        else:
            into.setdefault(key, value)
