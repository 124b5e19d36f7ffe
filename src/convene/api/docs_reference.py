"""The API description as a page of markdown, for people. Pure; `docs.py` serves it as the page `reference`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    Json = dict[str, Any]


def reference_of(document: Json) -> str:
    """Return the page: every operation, then every shape with its fields."""
    lines = [
        "# API reference",
        "",
        document["info"]["description"],
        "",
        "For programs the same is at [/openapi.json](/openapi.json).",
        "",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += _operation(f"{method.upper()} {path}", operation)
    lines += ["## Shapes", "", "Requests may hold more fields than these.", ""]
    for name, schema in document["components"]["schemas"].items():
        lines += _shape(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def type_of(schema: Json) -> str:
    """Return a schema in words: `number, 0 to 2`, `list of WireTool`, `text or null`.

    The one notation of types in all pages: the tables of parameters use it, too.
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(type_of(one) for one in schema[union]))
    if "enum" in schema:
        return " or ".join(json.dumps(word) for word in schema["enum"])
    return _plain_type(schema)


def asked_type_of(schema: Json) -> str:
    """Return the same for a field of a request, where null is the same as leaving it out and not worth a word."""
    return type_of(schema).removesuffix(" or null")


def _plain_type(schema: Json) -> str:
    match schema.get("type"):
        case "array":
            return f"list{_limits(schema, 'Items', '')} of {type_of(schema.get('items', {}))}"
        case "object":
            inner = schema.get("additionalProperties")
            return f"object of {type_of(inner)}" if inner else "object"
        case "string":
            return "text" + _limits(schema, "Length", " characters")
        case "integer":
            return "whole number" + _range(schema)
        case "number":
            return "number" + _range(schema)
        case "boolean":
            return "true or false"
        case "null":
            return "null"
    return "anything"


def _limits(schema: Json, what: str, unit: str) -> str:
    most, least = schema.get(f"max{what}"), schema.get(f"min{what}")
    if most is None:
        return f" (at least {least}{unit})" if least else ""
    return f" ({least} to {most}{unit})" if least else f" (at most {most}{unit})"


def _range(schema: Json) -> str:
    if schema.get("maximum", 0) >= 1 << 62:
        return " (64 bits)"
    return f" ({schema['minimum']} to {schema['maximum']})" if "minimum" in schema else ""


def _operation(title: str, operation: Json) -> Iterator[str]:
    yield from (f"## {title}", "", f"{operation['summary']}.", "")
    if operation.get("security") == []:
        yield from ("Needs no key.", "")
    body = operation.get("requestBody")
    if body is not None:
        yield from (f"Takes {_named(body['content']['application/json']['schema'])}.", "")
    errors: list[str] = []
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            errors.append(status)
        else:
            shapes = ", or ".join(f"{_named(one['schema'])} as {kind}" for kind, one in answer["content"].items())
            yield f"- {status}: {answer['description']}. {shapes}"
    yield f"- {', '.join(errors)}: [ErrorReply](#errorreply), see [Errors](errors.md)"
    yield ""


def _named(schema: Json) -> str:
    """Return the shapes of a body, or of what the events of a stream hold, as links."""
    data = schema.get("properties", {}).get("data", {})
    schema = next((one["contentSchema"] for one in data.get("anyOf", [data]) if "contentSchema" in one), schema)
    names = [type_of(one) for one in schema.get("oneOf", [schema])]
    return " or ".join(f"[{name}](#{name.lower()})" for name in names)


def _shape(name: str, schema: Json) -> Iterator[str]:
    yield from (f"### {name}", "", schema.get("description", ""), "")
    yield from ("| field | type | meaning |", "| --- | --- | --- |")
    required = schema.get("required", ())
    for field, inner in schema.get("properties", {}).items():
        mark = "" if field in required else ", optional"
        words = type_of(inner).replace("|", "\\|")
        yield f"| `{field}` | {words}{mark} | {inner.get('description', '')} |"
    yield ""
