"""Which of a server's tools are offered, how they are called, and how little its words can do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.tools.mcp_codec import Listed
from convene.tools.mcp_offer import (
    DESCRIPTION_CHARS_MAX,
    NAME_CHARS_MAX,
    SCHEMA_BYTES_MAX,
    TOOLS_MAX,
    Offer,
    Terms,
    make_offer,
    name_tools,
)

if TYPE_CHECKING:
    import random

    from convene.tools.base import Label

OBJECT: dict[str, Any] = {"type": "object"}


def tool(name: str = "search", **changes: object) -> Listed:
    return msgspec.structs.replace(Listed(name=name, description="Searches", schema=OBJECT), **changes)


def offer(*tools: Listed, **terms: object) -> Offer:
    return make_offer(tools, msgspec.structs.replace(Terms(server="github"), **terms))


def names(*tools: Listed, **terms: object) -> list[str]:
    return [one.spec.name for one in offer(*tools, **terms).tools]


def labels(one: Listed, **terms: object) -> frozenset[Label]:
    return offer(one, **terms).tools[0].spec.labels


def test_a_tool_is_called_by_its_servers_name_and_its_own() -> None:
    (one,) = offer(tool(), timeout_s=7.0).tools
    assert (one.spec.name, one.own_name, one.spec.source) == ("github__search", "search", "github")
    assert (one.spec.description, one.spec.parameters, one.spec.kind) == ("Searches", OBJECT, "tool")
    assert one.spec.timeout_s == 7.0


def test_what_no_name_may_hold_is_replaced() -> None:
    assert names(tool("admin.tools/list it")) == ["github__admin_tools_list_it"]


def test_tools_that_would_have_one_name_get_different_ones_and_an_exact_one_keeps_its_own() -> None:
    found = name_tools("s", ["a.b", "a_b", "a b"])
    assert found["a_b"] == "s__a_b"
    assert len(set(found.values())) == 3
    assert re.fullmatch(r"s__a_b_[0-9a-f]{8}", found["a.b"])


def test_a_name_that_is_too_long_ends_in_a_digest() -> None:
    long = name_tools("server", ["x" * 100, "x" * 101])
    assert all(len(name) == NAME_CHARS_MAX for name in long.values())
    assert len(set(long.values())) == 2


@given(st.lists(st.text(min_size=1, max_size=80), unique=True, max_size=12), st.randoms())
def test_names_are_unique_allowed_and_the_same_in_any_order(own: list[str], chance: random.Random) -> None:
    found = name_tools("srv", own)
    assert len(set(found.values())) == len(own)
    assert all(re.fullmatch(r"srv__[A-Za-z0-9_-]{1,59}", name) for name in found.values())
    shuffled = list(own)
    chance.shuffle(shuffled)
    assert name_tools("srv", shuffled) == found


def test_only_what_the_operator_allows_is_offered() -> None:
    tools = [tool("search_code"), tool("search_issues"), tool("delete_repository"), tool("Search_x")]
    assert names(*tools, allow=("search_*",)) == ["github__search_code", "github__search_issues"]
    assert names(*tools, allow=("delete_repository", "*_code")) == ["github__search_code", "github__delete_repository"]
    assert len(names(*tools)) == 4


def test_a_tool_that_is_listed_twice_is_offered_once_as_it_was_first() -> None:
    (one,) = offer(tool("a", description="first"), tool("a", description="second")).tools
    assert one.spec.description == "first"


def test_more_tools_than_fit_are_left_out_and_the_log_says_what_to_do() -> None:
    found = offer(*(tool(f"t{number}") for number in range(TOOLS_MAX + 5)))
    assert len(found.tools) == TOOLS_MAX
    assert found.left_out == (f"it has more than {TOOLS_MAX} tools; choose with mcp.github.tools",)


def test_a_tool_may_send_unless_it_says_that_it_reads_and_only_inside() -> None:
    assert labels(tool()) == {"untrusted", "sends"}
    assert labels(tool(read_only=True)) == {"untrusted", "sends"}
    assert labels(tool(open_world=False)) == {"untrusted", "sends"}
    assert labels(tool(read_only=True, open_world=False)) == {"untrusted"}


def test_the_operators_labels_count_more_than_the_servers_words() -> None:
    inside = tool(read_only=True, open_world=False)
    assert labels(inside, labels=frozenset({"sends", "private"})) == {"sends", "private"}
    assert labels(tool(), labels=frozenset()) == frozenset()


def test_only_what_changes_nothing_when_repeated_may_be_repeated() -> None:
    assert not offer(tool()).tools[0].repeatable
    assert offer(tool(read_only=True)).tools[0].repeatable
    assert offer(tool(idempotent=True)).tools[0].repeatable


def test_a_description_keeps_its_lines_and_loses_the_rest() -> None:
    (one,) = offer(tool(description="First\x00 line\r\n\n\n\nsecond\x1b[2J  line \u202e")).tools
    assert one.spec.description == "First line\n\nsecond [2J line"
    (long,) = offer(tool(description="x " * 10_000)).tools
    assert len(long.spec.description) <= DESCRIPTION_CHARS_MAX


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({}, "no object"),
        ({"type": "string"}, "no object"),
        ({"type": ["object", "null"]}, "no object"),
        ({"type": "object", "properties": {"a": {"type": "integre"}}}, "cannot be used"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "cannot be used"),
        ({"type": "object", "$ref": "http://169.254.169.254/latest"}, "cannot be used"),
        ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "cannot be used"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}, "cannot be used"),
        ({"type": "object", "description": "x" * SCHEMA_BYTES_MAX}, "larger"),
        ({"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}, "x-mcp-header"),
    ],
)
def test_a_schema_that_cannot_be_used_leaves_its_tool_out_and_no_other(schema: dict[str, Any], why: str) -> None:
    found = offer(tool("bad", schema=schema), tool("good"))
    assert [one.own_name for one in found.tools] == ["good"]
    (line,) = found.left_out
    assert line.startswith("bad: ")
    assert why in line


def test_a_schema_that_is_too_deep_leaves_its_tool_out() -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"items": deep}
    found = offer(tool(schema={"type": "object", "properties": {"a": deep}}))
    assert not found.tools
    assert "deeper" in found.left_out[0]


def test_schemas_of_other_dialects_can_be_used() -> None:
    old = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "definitions": {"n": {"type": "null"}},
    }
    old |= {"properties": {"a": {"$ref": "#/definitions/n"}}}
    assert names(tool(schema=old)) == ["github__search"]


def test_the_name_of_a_tool_that_is_left_out_cannot_forge_lines_of_the_log() -> None:
    (line,) = offer(tool("bad\nERROR forged\x1b[0m", schema={})).left_out
    assert "\n" not in line
    assert "\x1b" not in line
