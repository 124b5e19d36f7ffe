"""Which tool a message to an MCP server means, and how its tools are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convene.agents.mcp_choice import (
    USAGE,
    Chosen,
    McpOffer,
    OfferedTool,
    Unclear,
    as_agent,
    choose,
    described,
    listing,
    signature,
)


def tool(name: str, description: str = "", required: list[str] | None = None, **properties: Any) -> OfferedTool:  # noqa: ANN401 -- schemas
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return OfferedTool(name=name, description=description, schema=schema | ({"required": required} if required else {}))


TEXT = {"type": "string"}
NUMBER = {"type": "integer"}
WEATHER = tool("get_weather", "Weather forecast for a city", ["city"], city=TEXT, days=NUMBER)
NEWS = tool("news", "Search headlines about a subject", ["subject"], subject=TEXT)
ADD = tool("add", "Add two numbers", ["a", "b"], a=NUMBER, b=NUMBER)
OFFER = McpOffer(name="Tools", instructions="Ask for facts.", tools=(ADD, WEATHER, NEWS))


@pytest.mark.parametrize(
    "say",
    ['{"tool": "add", "arguments": {"a": 1, "b": 2}}', '```json\n{"tool": "add", "arguments": {"a": 1, "b": 2}}\n```'],
)
@pytest.mark.req("MCP-01")
def test_a_json_object_is_called_exactly(say: str) -> None:
    assert choose(OFFER, say) == Chosen(ADD, {"a": 1, "b": 2})


def test_arguments_may_be_left_out_and_must_be_an_object() -> None:
    assert choose(OFFER, '{"tool": "add"}') == Chosen(ADD, {})
    unclear = choose(OFFER, '{"tool": "add", "arguments": [1, 2]}')
    assert isinstance(unclear, Unclear)
    assert "must be a JSON object" in unclear.words
    assert "add(a: integer, b: integer)" in unclear.words


def test_a_tool_that_is_not_there_is_answered_with_those_that_are() -> None:
    unclear = choose(OFFER, '{"tool": "subtract", "arguments": {}}')
    assert isinstance(unclear, Unclear)
    assert unclear.words.startswith("There is no tool 'subtract'.")
    assert USAGE in unclear.words
    assert "get_weather(city: string, days?: integer) - Weather forecast for a city" in unclear.words


@pytest.mark.parametrize(
    ("say", "chosen"),
    [
        ("What is the weather in Rome?", Chosen(WEATHER, {"city": "What is the weather in Rome?"})),
        ("headlines of today", Chosen(NEWS, {"subject": "headlines of today"})),
    ],
)
def test_plain_text_goes_to_the_tool_of_one_text_whose_words_fit_best(say: str, chosen: Chosen) -> None:
    assert choose(OFFER, say) == chosen


def test_plain_text_that_fits_no_tool_better_than_another_is_asked_back() -> None:
    unclear = choose(OFFER, "xyzzy")
    assert isinstance(unclear, Unclear)
    assert unclear.words.startswith("It is not clear which tool is meant.")
    assert choose(McpOffer(), "hi") == Unclear("This MCP server offers no tools.")
    assert isinstance(choose(McpOffer(tools=(ADD,)), "hi"), Unclear)


@pytest.mark.parametrize(
    ("only", "takes"),
    [
        (tool("t", "", ["q"], q=TEXT, n=NUMBER), "q"),
        (tool("t", "", None, q=TEXT), "q"),
        (tool("t", "", None, q=TEXT, r=TEXT), ""),
        (tool("t", "", ["q"], q=NUMBER), ""),
        (tool("t", "", ["q", "r"], q=TEXT, r=TEXT), ""),
        (tool("t", "", ["q"], q={"type": "string", "enum": ["a"]}), ""),
        (tool("t", "", ["other"], q=TEXT), ""),
        (OfferedTool(name="t"), ""),
    ],
)
def test_a_single_tool_takes_plain_text_if_it_needs_one_text_and_no_more(only: OfferedTool, takes: str) -> None:
    found = choose(McpOffer(tools=(only,)), "anything at all")
    assert isinstance(found, Chosen) == bool(takes)
    if isinstance(found, Chosen):
        assert found.arguments == {takes: "anything at all"}


def test_signatures_show_what_is_needed_to_build_the_call() -> None:
    shown = tool(
        "book",
        "Book\na room " + "x" * 300,
        ["kind"],
        kind={"enum": ["single", "double"]},
        guests={"type": "array", "items": {"type": "object", "properties": {"name": TEXT}}},
        note={"type": ["string", "null"]},
        odd=5,
        free={},
    )
    assert signature(shown) == (
        'book(kind: "single" | "double", guests?: array of {name: string}, note?: string | null, odd?: any, free?: any)'
    )
    assert described(shown).startswith(signature(shown) + " - Book a room x")
    assert len(described(shown)) < 400
    assert len(signature(tool("x" * 50, "", None, **{f"parameter_{n}": TEXT for n in range(100)}))) <= 400


@pytest.mark.req("MCP-04")
def test_name_instructions_and_tools_are_the_index_entry() -> None:
    card = as_agent("https://t.test/mcp", OFFER)
    assert (card.protocol, card.url, card.name) == ("mcp", "https://t.test/mcp", "Tools")
    assert card.description.startswith("Ask for facts. An MCP server with the tools add, get_weather, news.")
    assert USAGE in card.description
    assert card.skills[0] == "add(a: integer, b: integer) - Add two numbers"
    assert "## Tools" in card.readme
    bare = as_agent("https://t.test/mcp", McpOffer())
    assert (bare.name, bare.skills) == ("https://t.test/mcp", ())


def test_a_server_with_hundreds_of_tools_is_told_in_short() -> None:
    many = McpOffer(tools=tuple(tool(f"t{number}", "x" * 500) for number in range(500)))
    assert "- and 460 more" in listing(many)
    assert len(listing(many)) < 12_000
    assert len(as_agent("https://t.test/mcp", many).skills) == 40


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "enum", "items", "properties", "required", "string"]), inner, max_size=4
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["properties", "required", "type"]), JSON_VALUES), st.text(max_size=30))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_schema_holds_it_is_shown_and_chosen_from(schema: dict[str, Any], say: str) -> None:
    odd = OfferedTool(name="odd", schema=schema)
    offer = McpOffer(tools=(odd, WEATHER))
    assert len(signature(odd)) <= 400
    found = choose(offer, say)
    assert isinstance(found, Chosen | Unclear)
    exact = choose(offer, json.dumps({"tool": "odd", "arguments": {"x": say}}))
    assert exact == Chosen(odd, {"x": say})
