"""What counts as one input of an embedding request, and how a vector is packed."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from convene.api.embeddings import pack, read_inputs
from convene.errors import BadRequest


@pytest.mark.req("OAI-63")
@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("a", ["a"]),
        ("", [""]),
        (["a"], ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_a_text_texts_tokens_and_token_lists_are_told_apart(
    given: str | list[str | int | list[int]], inputs: list[Any]
) -> None:
    assert list(read_inputs(given)) == inputs


@pytest.mark.parametrize("given", [["a", 1], [1, [2]], ["a", [1]]])
def test_a_mixture_is_refused(given: str | list[str | int | list[int]]) -> None:
    with pytest.raises(BadRequest) as caught:
        read_inputs(given)
    assert caught.value.param == "input"


@pytest.mark.req("OAI-63")
def test_a_vector_is_packed_as_little_endian_float32() -> None:
    assert base64.b64decode(pack([1.0, -0.5])) == b"\x00\x00\x80\x3f\x00\x00\x00\xbf"
    assert struct.unpack("<2f", base64.b64decode(pack([0.1, 3.0]))) == pytest.approx((0.1, 3.0))
