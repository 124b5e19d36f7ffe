"""The schema filler: what it makes is always valid, and what it cannot make it refuses in time."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.providers.scripted_schema import Unfillable, fill


def obj(required: list[str] | None = None, **properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "Bonn"),
        ({}, "Bonn"),
        ({"type": "string", "maxLength": 2}, "nn"),
        ({"type": "string", "minLength": 6}, "Bonn.."),
        ({"type": "string", "maxLength": 0}, ""),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "format": "unheard-of"}, "Bonn"),
        ({"type": "string", "pattern": "^[0-9]+$", "examples": ["12"]}, "12"),
        ({"type": "string", "default": "Ulm"}, "Ulm"),
        ({"type": "string", "default": None}, "Bonn"),
        ({"enum": ["", "b"]}, ""),
        ({"const": {"a": [1]}}, {"a": [1]}),
        ({"type": "integer"}, 1),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "minimum": 2, "exclusiveMinimum": 1}, 2),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "integer", "minimum": 10, "multipleOf": 4}, 12),
        ({"type": "integer", "minimum": -5}, 1),
        ({"type": "number", "minimum": 0.5, "maximum": 0.75}, 0.625),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "number", "multipleOf": 0.5}, 0.5),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 1),
        ({"type": ["null"]}, None),
        ({"type": "array"}, []),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}, [1, 2, 3]),
        ({"items": {"enum": ["a", "b"]}, "minItems": 2, "uniqueItems": True}, ["a", "b"]),
        ({"prefixItems": [{"type": "null"}, {"const": 7}], "minItems": 3}, [None, 7, "Bonn"]),
        (obj(), {}),
        (obj([], a={"type": "string"}), {}),
        (obj(a={"type": "string"}, b=obj(c={"type": "null"})), {"a": "Bonn", "b": {"c": None}}),
        ({"required": ["x"]}, {"x": "Bonn"}),
        ({**obj([], a={"type": "integer"}, b={"type": "null"}), "minProperties": 1}, {"a": 1}),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"anyOf": [False, {"type": "array", "minItems": 200}, {"type": "integer"}]}, 1),
        ({"oneOf": [obj(a={"const": 1})], "properties": {"b": {"const": 2}}, "required": ["b"]}, {"b": 2, "a": 1}),
        ({"allOf": [obj(a={"const": 1}), obj(b={"const": 2})]}, {"a": 1, "b": 2}),
        (
            {**obj(who={"$ref": "#/$defs/a~1b"}), "$defs": {"a/b": obj(n={"type": "integer"})}},
            {"who": {"n": 1}},
        ),
        ({"$ref": "#/$defs/a%20b", "$defs": {"a b": {"type": "null"}}}, None),
        ({"allOf": [True, {"type": "integer"}]}, 1),
        ({"type": "integer", "minimum": 5, "allOf": [{"minimum": 3}]}, 5),
        ({"items": True, "minItems": 1}, ["Bonn"]),
        ({"$ref": "#/prefixItems/0", "prefixItems": [{"type": "integer", "minimum": 4}]}, 4),
        (
            {
                "$defs": {"node": obj(["v"], v={"type": "integer"}, next={"$ref": "#/$defs/node"})},
                "$ref": "#/$defs/node",
            },
            {"v": 1},
        ),
    ],
)
def test_a_schema_is_filled_with_the_first_thing_that_fits(schema: dict[str, object], value: object) -> None:
    assert fill(schema, "Bonn") == value


ENDLESS: dict[str, object] = {"$defs": {"n": obj(next={"$ref": "#/$defs/n"})}, "$ref": "#/$defs/n"}
DOUBLING: dict[str, object] = {
    "$defs": {f"d{i}": obj(a={"$ref": f"#/$defs/d{i + 1}"}, b={"$ref": f"#/$defs/d{i + 1}"}) for i in range(30)}
    | {"d30": {"type": "string"}},
    "$ref": "#/$defs/d0",
}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (ENDLESS, "too deep or too large"),
        (DOUBLING, "too deep or too large"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "too deep or too large"),
        ({"allOf": [{"$ref": "#"}]}, "too deep or too large"),
        (obj(a=False), "allows nothing"),
        ({"anyOf": [False]}, "no branch"),
        ({"not": {}}, "conditions"),
        ({"type": "string", "pattern": "^[0-9]+$"}, "conditions"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no number lies within"),
        ({"type": "array", "minItems": 101}, "more than 100 items"),
        ({"type": "string", "minLength": 10_001}, "more than 10000 characters"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"$ref": "#a", "$defs": {"x": {"$anchor": "a", "type": "null"}}}, "'#a' is not a path within"),
        ({"multipleOf": -1, "type": "integer"}, "multipleOf|-1"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "127.0.0.1"),
        ({"$schema": "http://127.0.0.1:9/meta"}, "meta-schema"),
        ({"type": "strin"}, "strin"),
        ({"type": "number", "multipleOf": 5e-324, "minimum": 1e300}, "finite"),
        ({"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True}, "conditions"),
    ],
)
def test_what_cannot_be_filled_is_refused_with_a_reason(schema: dict[str, object], words: str) -> None:
    with pytest.raises(Unfillable, match=words):
        fill(schema, "Bonn")


SIMPLE = st.one_of(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "string", "minLength": 3, "maxLength": 5},
            {"type": "boolean"},
            {"type": "null"},
            {"enum": ["x", 1, None]},
            {"type": ["string", "null"]},
        ]
    ),
    st.builds(
        lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
        st.integers(-99, 99),
        st.integers(0, 9),
    ),
    st.builds(lambda low: {"type": "number", "exclusiveMinimum": low}, st.floats(-1e6, 1e6)),
)
SCHEMAS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda properties: {**obj(**properties), "additionalProperties": False},
            st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
        ),
    ),
    max_leaves=12,
)


@given(SCHEMAS, st.text(max_size=10))
@settings(deadline=None)
def test_whatever_is_filled_is_valid_and_is_json(schema: dict[str, object], text: str) -> None:
    value = json.loads(json.dumps(fill(schema, text)))
    assert jsonschema_rs.is_valid(schema, value)
    assert fill(schema, text) == value
