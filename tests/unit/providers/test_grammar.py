"""Schemas as grammars: what is refused by name, what is rewritten, and that bounds only ever narrow."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.providers.grammar import GUIDANCE, JsonShape, shape_schema
from convene.providers.grammar_bounds import bound_schema, write_any
from convene.providers.grammar_dialect import DEPTH_MAX, NODES_MAX, PLAIN, REFUSED, SUBSCHEMAS, SchemaRefused, normalise

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}


def sent(shape: JsonShape) -> Schema:
    """Return the schema inside a grammar."""
    head, _, body = shape.grammar.partition("%json ")
    assert head == "%llguidance {}\nstart: "
    found: Schema = json.loads(body)
    return found


def bounded(schema: Schema) -> Schema:
    """Return a schema as it is sent, without the options."""
    found = sent(shape_schema(schema))
    assert found.pop("x-guidance") == GUIDANCE
    return found


def closed(**properties: object) -> Schema:
    """Return an object of required properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# Bounds.


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (TEXT, {"type": "string", "maxLength": 60}),
        ({"type": "string", "maxLength": 300}, {"type": "string", "maxLength": 300}),
        ({"type": "string", "minLength": 90}, {"type": "string", "minLength": 90, "maxLength": 90}),
        ({"type": "string", "pattern": "^a+$"}, {"type": "string", "pattern": "^a+$", "maxLength": 200}),
        ({"type": "string", "format": "email"}, {"type": "string", "format": "email", "maxLength": 40}),
        ({"type": "integer"}, {"type": "integer", "minimum": -1_000_000_000, "maximum": 1_000_000_000}),
        ({"type": "integer", "minimum": 5}, {"type": "integer", "minimum": 5, "maximum": 1_000_000_000}),
        (
            {"type": "integer", "minimum": 5_000_000_000},
            {"type": "integer", "minimum": 5_000_000_000, "maximum": 6_000_000_000},
        ),
        (
            {"type": "integer", "maximum": -5_000_000_000},
            {"type": "integer", "minimum": -6_000_000_000, "maximum": -5_000_000_000},
        ),
        ({"type": "boolean"}, {"type": "boolean"}),
        (
            {"type": "array", "items": {"type": "null"}},
            {"type": "array", "items": {"type": "null"}, "maxItems": 16},
        ),
        (
            {"type": "array", "items": {"type": "null"}, "minItems": 20},
            {"type": "array", "items": {"type": "null"}, "minItems": 20, "maxItems": 20},
        ),
    ],
)
def test_what_has_no_bound_gets_one_and_what_has_keeps_it(schema: Schema, expected: Schema) -> None:
    assert bounded(schema) == expected


@pytest.mark.parametrize(
    ("given_range", "expected"),
    [
        ({}, {"minimum": -1_000_000_000, "maximum": 1_000_000_000, "multipleOf": 0.0001}),
        ({"minimum": 0, "maximum": 1}, {"minimum": 0, "maximum": 1, "multipleOf": 0.0001}),
        ({"minimum": 0, "maximum": 0.001}, {"minimum": 0, "maximum": 0.001, "multipleOf": 1e-7}),
        ({"minimum": 0, "maximum": 9, "multipleOf": 0.5}, {"minimum": 0, "maximum": 9, "multipleOf": 0.5}),
    ],
)
def test_numbers_come_to_an_end_and_stay_in_their_range(given_range: Schema, expected: Schema) -> None:
    assert bounded({"type": "number", **given_range}) == {"type": "number", **expected}


def test_below_zero_there_are_whole_numbers_or_even_steps() -> None:
    assert bounded({"type": "number", "maximum": -1}) == {"type": ["integer"], "minimum": -1_000_000_000, "maximum": -1}
    steps = bounded({"type": "number", "minimum": -0.5, "exclusiveMaximum": 0})["enum"]
    assert len(steps) == 100
    assert all(-0.5 <= value < 0 for value in steps)
    assert bounded({"type": ["number", "null"], "maximum": -1})["type"] == ["integer", "null"]


@pytest.mark.req("OAI-16")
def test_every_type_of_a_list_is_bounded() -> None:
    found = bounded({"type": ["string", "null", "integer", "array"]})
    assert found["maxLength"] == 60
    assert (found["minimum"], found["maximum"]) == (-1_000_000_000, 1_000_000_000)
    assert found["maxItems"] == 16


@pytest.mark.req("OAI-16", "STRUCT-02")
def test_enums_and_constants_stay_untouched() -> None:
    values = ["", "a", None, {"type": "string"}, [1]]
    assert bounded({"enum": values}) == {"enum": values}
    assert bounded({"type": "string", "enum": ["", "b"]}) == {"type": "string", "enum": ["", "b"]}
    assert bounded({"const": {"minimum": 3}}) == {"const": {"minimum": 3}}


def test_an_object_holds_its_declared_properties_only() -> None:
    found = bounded({"type": "object", "properties": {"a": TEXT}, "required": ["a", "b"], "additionalProperties": True})
    assert found["additionalProperties"] is False
    assert found["properties"]["a"] == {"type": "string", "maxLength": 60}
    assert found["properties"]["b"] == write_any()


@pytest.mark.parametrize("schema", [None, {"type": "object"}, {"type": "object", "properties": {}}])
def test_an_object_of_anything_has_few_short_names(schema: Schema | None) -> None:
    found = sent(shape_schema(schema))
    assert found["type"] == "object"
    assert list(found["patternProperties"]) == ["^[A-Za-z_][A-Za-z0-9_]{0,23}$"]
    assert (found["maxProperties"], found["additionalProperties"]) == (8, False)


def test_a_map_keeps_its_values_schema_and_its_own_count() -> None:
    found = bounded({"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 3})
    assert list(found["patternProperties"].values()) == [{"type": "boolean"}]
    assert found["maxProperties"] == 3


def test_counts_of_properties_become_names() -> None:
    names = {"a": TEXT, "b": TEXT, "c": TEXT}
    least = bounded({"type": "object", "properties": names, "required": ["c"], "minProperties": 2})
    assert least["required"] == ["c", "a"]
    most = bounded({"type": "object", "properties": names, "required": ["c"], "maxProperties": 2})
    assert list(most["properties"]) == ["a", "c"]
    assert "minProperties" not in least
    assert "maxProperties" not in most


def test_objects_described_in_layers_stay_open() -> None:
    layers = [{"type": "object", "properties": {name: TEXT}, "required": [name]} for name in "ab"]
    assert all("additionalProperties" not in layer for layer in bounded({"allOf": layers})["allOf"])
    beside = bounded({"type": "object", "properties": {"a": TEXT}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]})
    assert "additionalProperties" not in beside
    assert beside["anyOf"] == [{"required": ["a"]}, {"required": ["b"]}]


@pytest.mark.req("OAI-16", "STRUCT-02")
def test_references_are_kept_and_their_targets_bounded() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Step",
        "$defs": {"step": {"title": "x", **closed(text=TEXT)}},
        **closed(steps={"type": "array", "items": {"$ref": "#/$defs/step"}}),
    }
    found = bounded(schema)
    assert found["properties"]["steps"]["items"] == {"$ref": "#/$defs/step"}
    assert found["$defs"]["step"]["properties"]["text"]["maxLength"] == 60
    assert not {"$schema", "title"} & set(found)


@pytest.mark.parametrize("schema", [{}, {"description": "whatever"}])
def test_a_schema_without_any_type_is_a_value_two_levels_deep(schema: Schema) -> None:
    assert bounded(schema) == bounded(closed(any=schema))["properties"]["any"] == write_any(2)
    assert write_any(0) == {"anyOf": write_any(1)["anyOf"][:4]}


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({"properties": {"a": TEXT}}, "object"),
        ({"items": TEXT}, "array"),
        ({"pattern": "^a$"}, "string"),
        ({"minimum": 3}, "number"),
    ],
)
def test_an_unsaid_type_is_read_from_the_keywords(schema: Schema, name: str) -> None:
    assert bounded(schema)["type"] == name


# Dialect.


@pytest.mark.req("OAI-17", "STRUCT-06")
@pytest.mark.parametrize("keyword", sorted(REFUSED - {"propertyNames", "unevaluatedProperties"}))
def test_keywords_that_cannot_be_held_are_refused_by_name(keyword: str) -> None:
    schema = closed(a={"type": "array", "items": TEXT, keyword: {"const": 1} if keyword != "uniqueItems" else True})
    with pytest.raises(SchemaRefused, match=repr(keyword).replace("$", r"\$")) as caught:
        shape_schema(schema)
    assert caught.value.keyword == keyword


@pytest.mark.req("OAI-14")
def test_leniency_drops_what_cannot_be_held() -> None:
    shape = shape_schema({"type": "array", "items": TEXT, "uniqueItems": True, "not": {}}, lenient=True)
    assert not {"uniqueItems", "not"} & set(sent(shape))
    assert shape.find_fault('["a","a"]') is None


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "text"}, "type"),
        ({"type": []}, "type"),
        ({"type": ["string", 3]}, "type"),
        ({"enum": []}, "enum"),
        ({"anyOf": []}, "anyOf"),
        ({"properties": []}, "properties"),
        ({"type": "object", "required": "a"}, "required"),
        ({"type": "string", "maxLength": -1}, "maxLength"),
        ({"type": "string", "maxLength": True}, "maxLength"),
        ({"type": "integer", "minimum": "3"}, "minimum"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({"type": "array", "items": 3}, "schema"),
        ({"$ref": "https://example.com/schema"}, "$ref"),
        ({"$ref": "#/$defs/none"}, "$ref"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "$ref"),
        ({"$ref": "#"}, "$ref"),
    ],
)
def test_what_is_no_schema_is_refused_by_its_keyword(schema: Schema, keyword: str) -> None:
    for lenient in (False, True):
        with pytest.raises(SchemaRefused) as caught:
            shape_schema(schema, lenient=lenient)
        assert caught.value.keyword == keyword


def test_depth_and_size_are_bounded() -> None:
    deep: Schema = TEXT
    for _ in range(DEPTH_MAX + 1):
        deep = {"type": "array", "items": deep}
    wide = closed(**{f"p{number}": TEXT for number in range(NODES_MAX)})
    for schema in (deep, wide):
        with pytest.raises(SchemaRefused, match="more than"):
            shape_schema(schema)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"enum": ["a"], "nullable": True}, {"anyOf": [{"enum": ["a"]}, {"type": "null"}]}),
        ({"type": "string", "nullable": False}, TEXT),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 1}),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": False}, {"type": "integer", "minimum": 1}),
        (
            {"type": "array", "items": [TEXT], "additionalItems": False},
            {"type": "array", "prefixItems": [TEXT], "items": False},
        ),
        ({"type": "array", "items": TEXT, "uniqueItems": False}, {"type": "array", "items": TEXT}),
        ({"type": "object", "propertyNames": {"type": "string"}}, {"type": "object"}),
        ({"type": "object", "unevaluatedProperties": False}, {"type": "object", "additionalProperties": False}),
        ({"type": ["string", "string"]}, {"type": ["string"]}),
        ({"type": ["null"]}, {"type": "null"}),
        ({"type": "string", "format": "colour"}, TEXT),
        ({"type": "string", "format": "url"}, {"type": "string", "format": "uri"}),
        ({"type": "string", "required": True}, {"type": "string", "required": []}),
        ({"type": "string", "x-order": 1, "examples": ["a"], "default": {"not": 1}, "$comment": "c"}, TEXT),
    ],
)
def test_older_and_foreign_forms_are_rewritten(old: Schema, new: Schema) -> None:
    assert normalise(old, lenient=False) == new


@pytest.mark.req("STRUCT-02")
def test_a_nullable_reference_may_be_null() -> None:
    shape = shape_schema({"definitions": {"n": TEXT}, **closed(a={"$ref": "#/definitions/n", "nullable": True})})
    assert shape.find_fault('{"a":null}') is None
    assert shape.find_fault('{"a":"x"}') is None
    assert shape.find_fault('{"a":3}') is not None


def test_pointers_may_be_escaped_and_lead_through_lists() -> None:
    schema = {"$defs": {"a/b": TEXT}, "anyOf": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#/anyOf/0"}]}
    assert shape_schema(schema).starts.count('"') == 2


# The shape.


@pytest.mark.parametrize(
    ("schema", "starts"),
    [
        (closed(a=TEXT), "{"),
        ({"type": "array"}, "["),
        ({"enum": ["a", 3, None]}, '"3n'),
        ({"const": True}, "t"),
        ({"$defs": {"x": {"type": "boolean"}}, "$ref": "#/$defs/x"}, "tf"),
        ({"anyOf": [{"type": "null"}, TEXT]}, 'n"'),
    ],
)
def test_an_answer_can_begin_only_with_these(schema: Schema, starts: str) -> None:
    assert set(shape_schema(schema).starts) == set(starts)


def test_faults_name_the_place_and_the_keyword_but_no_value() -> None:
    shape = shape_schema(closed(a={"type": "integer", "maximum": 3}))
    assert shape.find_fault('{"a":3}') is None
    assert shape.find_fault('{"a":') == "it is not JSON"
    fault = shape.find_fault('{"a":12345}')
    assert fault == "a breaks 'maximum'"


def test_the_bounds_are_no_part_of_the_check() -> None:
    assert shape_schema(TEXT).find_fault(json.dumps("x" * 500)) is None


def test_formats_are_checked() -> None:
    shape = shape_schema({"type": "string", "format": "date"})
    assert shape.find_fault('"2026-02-30"') is not None
    assert shape.find_fault('"2026-02-28"') is None


def test_larger_forms_are_given_more_tokens() -> None:
    small, large = shape_schema(closed(a=TEXT)), shape_schema(closed(**dict.fromkeys("abcdefgh", TEXT)))
    assert 0 < small.tokens < large.tokens
    assert shape_schema({"$defs": {"n": closed(next={"$ref": "#/$defs/n"})}, "$ref": "#/$defs/n"}).tokens < 1000


# Properties of every schema.

WORDS = sorted(PLAIN | SUBSCHEMAS | REFUSED | {"$ref", "format", "nullable", "title", "additionalItems"})
LEAVES = st.sampled_from([None, True, False, "string", "number", "#", "#/$defs/a", ""])
JUNK = st.recursive(
    LEAVES | st.integers(-9, 9) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WORDS, "a"]), inner, max_size=5),
    max_leaves=10,
)


@pytest.mark.req("OAI-17")
@given(st.dictionaries(st.sampled_from(WORDS), JUNK, max_size=6), st.booleans())
def test_whatever_comes_is_a_shape_or_is_refused_by_a_keyword(schema: Schema, lenient: bool) -> None:  # noqa: FBT001
    with suppress(SchemaRefused):
        shape = shape_schema(schema, lenient=lenient)
        assert sent(shape)
        assert shape.find_fault("{") is not None


@pytest.mark.parametrize("edges", [{"minimum": 3, "maximum": 3}, {"minimum": 0, "maximum": 0}, {"minimum": 1e300}])
def test_a_range_of_one_number_is_that_number(edges: Schema) -> None:
    assert bounded({"type": "number", **edges})["enum"] == [edges["minimum"]]


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(SchemaRefused) as caught:
        shape_schema({"type": "number", "minimum": 5, "maximum": 3})
    assert caught.value.keyword == "minimum"


SCALARS = st.sampled_from(
    [
        TEXT,
        {"type": "integer"},
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "boolean"},
        {"type": ["string", "null"]},
        {"enum": ["", 1, None]},
        {"const": "k"},
    ]
)
NAMES = st.sampled_from("abc")
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items}),
        st.dictionaries(NAMES, inner, max_size=3).map(lambda properties: {"type": "object", "properties": properties}),
        st.dictionaries(NAMES, inner, max_size=3).map(lambda properties: closed(**properties)),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
        inner.map(lambda value: {"type": "object", "additionalProperties": value}),
    ),
    max_leaves=12,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(SCHEMAS, VALUES)
def test_whatever_the_bounds_allow_the_schema_allows(schema: Schema, value: object) -> None:
    normal = normalise(schema, lenient=False)
    if jsonschema_rs.Draft202012Validator(bound_schema(normal)).is_valid(value):
        assert jsonschema_rs.Draft202012Validator(schema).is_valid(value)


@given(SCHEMAS)
def test_bounding_leaves_the_clients_schema_alone_and_is_stable(schema: Schema) -> None:
    before = json.dumps(schema)
    once = bound_schema(normalise(schema, lenient=False))
    assert json.dumps(schema) == before
    assert bound_schema(normalise(once, lenient=False)) == once


def _is_bounded(node: object) -> bool:
    if isinstance(node, list):
        return all(map(_is_bounded, node))
    if not isinstance(node, dict) or "enum" in node or "const" in node:
        return True
    names = node.get("type", [])
    for name in names if isinstance(names, list) else [names]:
        needs = {"string": "maxLength", "integer": "maximum", "number": "multipleOf", "array": "maxItems"}
        if name in needs and needs[name] not in node:
            return False
    return all(map(_is_bounded, node.values()))


@given(SCHEMAS)
def test_nothing_is_left_without_a_bound(schema: Schema) -> None:
    assert _is_bounded(bound_schema(normalise(schema, lenient=False)))
