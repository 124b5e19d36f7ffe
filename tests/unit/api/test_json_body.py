"""Strict JSON: what is refused, and how an error names its field."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest

from convene.api.json_body import read_object, read_shape
from convene.errors import BadRequest


class Inner(msgspec.Struct):
    """A part."""

    size: Annotated[int, msgspec.Meta(ge=0, le=10)]
    label: str = ""


class Outer(msgspec.Struct):
    """A whole."""

    name: str
    parts: Annotated[list[Inner], msgspec.Meta(max_length=3)] = []
    by_name: dict[str, Inner] = {}


class Counted(msgspec.Struct):
    """A thing with a number."""

    name: str
    n: Annotated[int, msgspec.Meta(le=10)] = 1


@pytest.mark.req("ERRSHAPE-06", "OAI-30")
@pytest.mark.parametrize(
    ("value", "param", "code", "words"),
    [
        ({}, "name", "missing_required_parameter", "Missing required field: 'name'."),
        ({"name": 1}, "name", "invalid_type", "Invalid 'name': expected `str`, got `int`."),
        ({"name": "x", "parts": [{}]}, "parts[0].size", "missing_required_parameter", "parts[0].size"),
        ({"name": "x", "parts": [{"size": 1}, {"size": 11}]}, "parts[1].size", "invalid_value", "<= 10"),
        ({"name": "x", "parts": [{"size": 1}] * 4}, "parts", "invalid_value", "length <= 3"),
        ({"name": "x", "parts": [{"size": "1"}]}, "parts[0].size", "invalid_type", "expected `int`"),
        ({"name": "x", "by_name": {"k": {"size": -1}}}, "by_name[...].size", "invalid_value", ">= 0"),
    ],
)
def test_an_error_names_the_path_of_the_field(value: dict[str, object], param: str, code: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_shape(value, Outer)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert words in caught.value.message


def test_unknown_keys_pass_the_shape() -> None:
    assert read_shape({"name": "x", "else": 1}, Outer) == Outer("x")


@pytest.mark.req("OAI-30")
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b"NaN", b'{"a":NaN}', b'{"a":"\\ud800"}', b"\xff", b'{"a":1}x']
)
def test_only_one_json_object_is_read(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read_object(body)
    assert caught.value.code == "invalid_json"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000])
def test_depth_is_bounded(body: bytes) -> None:
    with pytest.raises(BadRequest, match=r"nested too deeply|not valid JSON"):
        read_object(body)


def test_half_a_surrogate_pair_is_told_from_a_body_that_is_cut_short() -> None:
    with pytest.raises(BadRequest, match="other half of its surrogate pair"):
        read_object(rb'{"a": "\ud800"}')
    with pytest.raises(BadRequest, match="truncated"):
        read_object(b'{"a": "b')
