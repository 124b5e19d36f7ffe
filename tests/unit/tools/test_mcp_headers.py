"""Parameters that go along as headers: the examples and the prohibitions of revision 2026-07-28."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.tools.mcp_codec import NotMcp
from convene.tools.mcp_headers import encode_value, headers_of, marks_of


def schema(**properties: object) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


REGION = schema(
    region={"type": "string", "x-mcp-header": "Region"},
    options=schema(retries={"type": "integer", "x-mcp-header": "Retries"}, dry={"type": "boolean"}),
    query={"type": "string"},
)


def test_marked_parameters_are_found_along_properties_alone() -> None:
    assert marks_of(REGION) == (("Region", ("region",)), ("Retries", ("options", "retries")))
    assert marks_of({"type": "object"}) == ()


def test_a_parameter_that_is_called_like_the_mark_is_no_mark() -> None:
    assert marks_of(schema(**{"x-mcp-header": {"type": "string"}})) == ()


@pytest.mark.parametrize(
    "inner",
    [
        {"type": "string", "x-mcp-header": ""},
        {"type": "string", "x-mcp-header": "a b"},
        {"type": "string", "x-mcp-header": "a\r\nx"},
        {"type": "string", "x-mcp-header": 3},
        {"type": "number", "x-mcp-header": "N"},
        {"type": "object", "x-mcp-header": "O"},
        {"type": ["string", "null"], "x-mcp-header": "L"},
        {"type": "array", "items": {"type": "string", "x-mcp-header": "I"}},
        {"anyOf": [{"type": "string", "x-mcp-header": "A"}]},
    ],
)
def test_a_mark_where_it_may_not_be_takes_the_tool_out(inner: dict[str, Any]) -> None:
    with pytest.raises(NotMcp):
        marks_of(schema(a=inner))


def test_two_marks_of_one_name_take_the_tool_out_whatever_their_case() -> None:
    with pytest.raises(NotMcp):
        marks_of(schema(a={"type": "string", "x-mcp-header": "X"}, b={"type": "string", "x-mcp-header": "x"}))


def test_the_values_of_a_call_go_along_and_what_is_absent_or_null_does_not() -> None:
    marks = marks_of(REGION)
    given_all = headers_of(marks, {"region": "us-west1", "options": {"retries": 42, "dry": True}, "query": "SELECT 1"})
    assert given_all == (("Mcp-Param-Region", "us-west1"), ("Mcp-Param-Retries", "42"))
    assert headers_of(marks, {"region": None, "options": 3}) == ()
    assert headers_of(marks, {}) == ()


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (-7, "-7"), (42.0, "42"), ("x", "x")])
def test_values_are_written_as_the_specification_says(value: object, text: str) -> None:
    marks = (("A", ("a",)),)
    assert headers_of(marks, {"a": value}) == (("Mcp-Param-A", text),)


@pytest.mark.parametrize("value", [2**53, 1.5, [], {}])
def test_a_value_that_has_no_such_form_has_no_header(value: object) -> None:
    assert headers_of((("A", ("a",)),), {"a": value}) == ()


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("", "=?base64??="),
    ],
)
def test_the_examples_of_the_specification_come_out_as_there(value: str, header: str) -> None:
    assert encode_value(value) == header


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_every_text_fits_into_a_header_and_can_be_read_back(value: str) -> None:
    header = encode_value(value)
    assert re.fullmatch(r"[!-~]([\t -~]*[!-~])?", header)
    if header.startswith("=?base64?") and header.endswith("?="):
        assert base64.b64decode(header[9:-2]).decode() == value
    else:
        assert header == value


@given(
    st.recursive(
        st.none() | st.text(max_size=3),
        lambda inner: (
            st.dictionaries(
                st.sampled_from(["properties", "items", "x-mcp-header", "type", "a"]),
                inner | st.just("string"),
                max_size=4,
            )
            | st.lists(inner, max_size=2)
        ),
        max_leaves=20,
    )
)
def test_whatever_a_schema_holds_it_is_read_or_refused(value: object) -> None:
    try:
        marks = marks_of({"type": "object", "properties": value})
    except NotMcp:
        return
    assert len({name.lower() for name, _ in marks}) == len(marks)
