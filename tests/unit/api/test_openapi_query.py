"""Parameters of the query, and answers of two shapes, in the API description."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convene.api.openapi import describe
from convene.api.query import Parameter
from convene.api.routes import Route
from convene.api.shapes_usage import UsageGroups, UsageTotal

if TYPE_CHECKING:
    from convene.api.call import Call


async def nobody(call: Call) -> None:
    raise AssertionError(call.path)


def operation(*parameters: Parameter) -> dict[str, Any]:
    """Return the description of a route with these parameters."""
    route = Route(
        method="GET",
        path="/v1/things",
        endpoint=nobody,
        summary="Things",
        query=parameters,
        gives=UsageTotal,
        or_gives=UsageGroups,
    )
    found: dict[str, Any] = describe([route], "1")["paths"]["/v1/things"]["get"]
    return found


def test_a_text_a_word_a_list_and_a_number_are_told_apart() -> None:
    found = operation(
        Parameter(name="since", about="When"),
        Parameter(name="scope", about="Whose", enum=("key", "user")),
        Parameter(name="by", about="How", enum=("day", "hour"), is_list=True),
        Parameter(name="limit", about="How many", least=1, most=9),
    )["parameters"]
    assert found == [
        {"name": "since", "in": "query", "description": "When", "schema": {"type": "string"}},
        {"name": "scope", "in": "query", "description": "Whose", "schema": {"type": "string", "enum": ["key", "user"]}},
        {
            "name": "by",
            "in": "query",
            "description": "How",
            "schema": {"type": "array", "items": {"type": "string", "enum": ["day", "hour"]}},
            "style": "form",
            "explode": False,
        },
        {
            "name": "limit",
            "in": "query",
            "description": "How many",
            "schema": {"type": "integer", "minimum": 1, "maximum": 9},
        },
    ]


def test_a_route_with_a_query_can_be_asked_wrongly_and_can_fail_for_its_store() -> None:
    assert {"400", "503"} <= operation(Parameter(name="a", about="b"))["responses"].keys()
    assert "400" not in operation()["responses"]


def test_an_answer_of_two_shapes_names_both_and_all_their_fields_are_always_there() -> None:
    schema = operation()["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {
        "oneOf": [{"$ref": "#/components/schemas/UsageTotal"}, {"$ref": "#/components/schemas/UsageGroups"}]
    }
    route = Route(method="GET", path="/v1/x", endpoint=nobody, summary="X", gives=UsageTotal, or_gives=UsageGroups)
    schemas = describe([route], "1")["components"]["schemas"]
    assert {"object", "scope", "total_tokens", "cost", "since"} <= set(schemas["UsageTotal"]["required"])
    assert schemas["UsageGroups"]["required"] == ["object", "group_by", "data", "has_more", "next_after"]
