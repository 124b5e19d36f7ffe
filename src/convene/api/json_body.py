"""Strict JSON into wire shapes, with errors that name the field (ERRSHAPE-03, ERRSHAPE-06, OAI-30).

One parser at the edge: no NaN, no lone surrogates, no broken UTF-8, bounded depth; what `json` would let through is
refused by `msgspec`, what it raises becomes a 400 here (reliability 3.4).
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from convene.errors import BadRequest

Shape = TypeVar("Shape")

_decode = msgspec.json.Decoder().decode
_MISSING = re.compile(r"missing required field `([^`]+)`")


def read_object(body: bytes) -> dict[str, object]:
    """Return the JSON object in `body`. Raises `BadRequest`."""
    if not body:
        raise BadRequest("The request has no body; send a JSON object.", code="invalid_json")
    try:
        value = _decode(body)
    except RecursionError:
        raise BadRequest("The JSON is nested too deeply.", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as fault:
        found = str(fault)[:200]
        if b"\\u" in body and "truncated" in found:  # what msgspec says of half a surrogate pair at a string's end
            found = "it is cut short, or a \\u escape lacks the other half of its surrogate pair"
        raise BadRequest(f"The body is not valid JSON: {found}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    return value


def read_as(body: bytes, decoder: msgspec.json.Decoder[Shape]) -> Shape | None:
    """Return the body if it has exactly the decoder's shape, else None: `read_object` then says what it is."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_texts(fields: dict[str, str], shape: type[Shape]) -> Shape:
    """Return the texts of a form as `shape`: numbers and truth values are read. Raises `BadRequest` as `read_shape`."""
    try:
        return msgspec.convert(fields, shape, strict=False)
    except msgspec.ValidationError as fault:
        raise _explained(str(fault)) from None


def read_shape(fields: dict[str, object], shape: type[Shape]) -> Shape:
    """Return `fields` as `shape`. Raises `BadRequest` naming the field."""
    try:
        return msgspec.convert(fields, shape)
    except RecursionError:
        raise BadRequest("The JSON is nested too deeply.", code="invalid_json") from None
    except msgspec.ValidationError as fault:
        whole = _whole_numbers(fields)
        if whole is not None:
            return read_shape(whole, shape)
        raise _explained(str(fault)) from None


def _whole_numbers(fields: dict[str, object]) -> dict[str, object] | None:
    """Return the fields with 1.0 written as 1, or None if there is no such number: some languages write all floats."""
    found = {name: int(value) for name, value in fields.items() if isinstance(value, float) and value.is_integer()}
    return fields | found if found else None


def _explained(text: str) -> BadRequest:
    """Turn `Expected X, got Y - at $.a[0].b` into an error on `a[0].b`."""
    what, _, where = text.partition(" - at `")
    param = where.rstrip("`").removeprefix("$").removeprefix(".")
    missing = _MISSING.search(what)
    if missing:
        param = f"{param}.{missing[1]}" if param else missing[1]
        return BadRequest(f"Missing required field: '{param}'.", code="missing_required_parameter", param=param)
    code = "invalid_type" if what.startswith("Expected") and ", got" in what else "invalid_value"
    return BadRequest(f"Invalid '{param}': {what[:1].lower()}{what[1:]}.", code=code, param=param or None)
