"""The query of an address: strict, bounded, and every fault names the parameter."""

from __future__ import annotations

import contextlib
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.api.query import PARAMETERS_MAX, QUERY_BYTES_MAX, TEXT_MAX, Query
from convene.errors import BadRequest
from unit.api.asgi_doubles import Connection


def read(raw: bytes) -> Query:
    """Return the query of a call."""
    connection = Connection(method="GET")
    connection.scope["query_string"] = raw
    return Query.of(connection.call())


def test_values_are_read_as_they_are_encoded() -> None:
    query = read(b"a=x%20y+z&b=%C3%BC&c=&unknown=1")
    assert query.text("a") == "x y z"
    assert query.text("b") == "ü"
    assert query.text("c") is None
    assert query.text("d") is None


def test_a_server_that_gives_no_query_is_one_without_parameters() -> None:
    connection = Connection(method="GET")
    del connection.scope["query_string"]
    assert Query.of(connection.call()).text("a") is None


@pytest.mark.req("ERRSHAPE-03", "ERRSHAPE-06")
def test_a_parameter_given_twice_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="limit is given twice") as caught:
        read(b"limit=1&limit=2")
    assert caught.value.param == "limit"


@pytest.mark.parametrize(
    "raw",
    [b"a=%FF", b"a=\xff", b"a" * (QUERY_BYTES_MAX + 1), b"&".join(b"p%d=1" % n for n in range(PARAMETERS_MAX + 1))],
)
def test_what_is_no_query_is_a_400(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        read(raw)


@pytest.mark.parametrize("value", ["x" * (TEXT_MAX + 1), "a\0b"])
def test_texts_have_an_end_and_no_nul(value: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(urlencode({"model": value}).encode()).text("model")
    assert caught.value.param == "model"


def test_numbers_within_their_bounds() -> None:
    assert read(b"limit=7").number("limit", 100, 1, 1000) == 7
    assert read(b"").number("limit", 100, 1, 1000) == 100
    assert read(b"limit=1000").number("limit", 100, 1, 1000) == 1000


@pytest.mark.parametrize("value", ["", "0", "1001", "-1", "1.5", "x", "1e2", "%D9%A3", "99999999999999999999", "+5"])
def test_other_numbers_are_refused_by_name(value: str) -> None:
    with pytest.raises(BadRequest, match="from 1 to 1000") as caught:
        read(f"limit={value}".encode()).number("limit", 100, 1, 1000)
    assert caught.value.param == "limit"


def test_one_word_of_several() -> None:
    assert read(b"scope=user").choice("scope", "key", ("key", "user")) == "user"
    assert read(b"").choice("scope", "key", ("key", "user")) == "key"
    with pytest.raises(BadRequest, match="one of: key, user") as caught:
        read(b"scope=all").choice("scope", "key", ("key", "user"))
    assert caught.value.param == "scope"


def test_several_words_joined_by_commas() -> None:
    assert read(b"by=day,model").choices("by", ("day", "model")) == ("day", "model")
    assert read(b"by=day%2C%20model").choices("by", ("day", "model")) == ("day", "model")
    assert read(b"").choices("by", ("day",)) == ()


@pytest.mark.parametrize("raw", [b"by=day,day", b"by=year", b"by=day,year", b"by=", b"by=day,"])
def test_other_words_are_refused_by_name(raw: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read(raw).choices("by", ("day", "model"))
    assert caught.value.param == "by"


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(raw: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert 1 <= read(raw).number("limit", 1, 1, 9) <= 9
