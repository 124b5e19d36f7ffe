"""The API description: a valid document, the shapes as they are really sent, words for what needs them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs
import msgspec
import pytest

from convene.api import openapi, shapes, shapes_described
from convene.api.call import Call
from convene.api.chat_reply import reply_bytes
from convene.api.chat_request import ChatCall, read_chat
from convene.api.limit_headers import ReadyHeaders
from convene.api.openapi import describe, document, operation_id
from convene.api.openapi_words import FIELDS, STATUSES
from convene.api.problems import STATUSES as ERROR_CLASSES
from convene.api.problems import body_of
from convene.api.routes import Route
from convene.api.sse import ChatFrames
from convene.api.table import Endpoints, route_table
from convene.errors import Unavailable
from convene.events import (
    Began,
    CallDelta,
    Cited,
    Event,
    Finished,
    Fold,
    Noticed,
    ReasoningDelta,
    RefusalDelta,
    StepChanged,
    TextDelta,
    TokenLogprob,
    ToolRan,
    UsageReported,
    fold,
)
from convene.serving.base import Outcome
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, MutableMapping
    from types import ModuleType

REQUESTS: Final = ("ChatBody", "EmbeddingBody", "WireMessage", "WirePart", "ImageUrl", "WireFunction", "StreamOptions")

EVENTS: Final[tuple[Event, ...]] = (
    Began("gpu", "large", "fp_1"),
    ReasoningDelta("Let me think."),
    TextDelta("Hi", logprobs=(TokenLogprob("Hi", -0.5, None, ()),)),
    TextDelta("!"),
    RefusalDelta("No."),
    Cited("https://example.com", "Example", 0, 2),
    CallDelta(0, '{"city":', "call_1", "get_weather"),
    CallDelta(0, '"Rome"}'),
    StepChanged(id="s1", kind="search", name="web", status="running", started_at=1.0, usage={"tokens": 3}),
    StepChanged(id="s2", kind="plan", name="plan", status="pending", detail={"why": "asked"}),
    ToolRan(id="t1", tool_name="web_search", args={"q": "x"}, result={"hits": 1}),
    ToolRan(id="t2", tool_name="ask", type="agent_manifest", agent={"name": "a"}, status="failed"),
    Noticed("late", "An agent was late."),
    Finished("tool_calls"),
    UsageReported(Usage(3, 4, estimated=True)),
)
"""One of each kind of event."""


class Turn:
    """What `reply_bytes` reads of a turn."""

    id = "chatcmpl-1"
    created = 1_795_290_108
    model = "asi1"
    run_id = ""
    conversation_id = None
    outcome = Outcome()

    async def events(self) -> AsyncGenerator[Event]:
        """Fail: nobody runs it."""
        raise AssertionError
        yield TextDelta("")

    async def answer(self) -> Fold:
        """Fail: nobody runs it."""
        raise AssertionError


async def nobody(call: Call) -> None:
    raise AssertionError(call.path)


def table() -> tuple[Route, ...]:
    return route_table(Endpoints(**dict.fromkeys(Endpoints.__struct_fields__, nobody)))


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return describe(table(), "1.2.3")


def closed(node: Any) -> Any:  # noqa: ANN401 -- any JSON value
    """Return a schema in which objects may hold what is declared and nothing else."""
    if isinstance(node, list):
        return [closed(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    inner = {name: closed(value) for name, value in node.items()}
    if "properties" in inner and isinstance(inner.get("type"), str):
        inner.setdefault("additionalProperties", False)
    return inner


def validator(described: dict[str, Any], name: str) -> jsonschema_rs.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": closed(described["components"])}
    return jsonschema_rs.Draft202012Validator(schema)


def faults(described: dict[str, Any], name: str, value: object) -> list[str]:
    return [str(error) for error in validator(described, name).iter_errors(value)]


def asked(stream: str = "false") -> ChatCall:
    body = '{"model": "asi1", "messages": [{"role": "user", "content": "hi"}], "seed": 1, "service_tier": "auto"'
    return read_chat(f'{body}, "stream": {stream}}}'.encode(), None)


@pytest.mark.req("API-07")
def test_it_is_openapi_3_1_with_every_described_route_and_no_other(described: dict[str, Any]) -> None:
    assert described["openapi"] == "3.1.0"
    assert described["info"]["version"] == "1.2.3"
    listed = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert listed == {(route.method, route.path) for route in table() if route.described}


def test_a_route_that_is_not_described_leaves_no_trace() -> None:
    hidden = Route(method="GET", path="/v1/secret", endpoint=nobody, summary="Hidden", described=False, tag="Hidden")

    document = describe([*table(), hidden], "1")

    assert "/v1/secret" not in document["paths"]
    assert "Hidden" not in [tag["name"] for tag in document["tags"]]


def test_every_reference_leads_somewhere_and_nothing_is_described_in_vain(described: dict[str, Any]) -> None:
    text = msgspec.json.encode(described).decode()
    used = set(re.findall(r'"\$ref":"#/components/(\w+/[\w-]+)"', text))
    there = {f"{kind}/{name}" for kind, parts in described["components"].items() for name in parts}

    assert used <= there
    assert there - used == {"securitySchemes/key"}


def test_every_schema_is_valid_json_schema(described: dict[str, Any]) -> None:
    for name, schema in described["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        validator(described, name)


def test_operation_ids_are_unique_and_plain(described: dict[str, Any]) -> None:
    ids = [one["operationId"] for methods in described["paths"].values() for one in methods.values()]

    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z_]+", one) for one in ids)
    assert operation_id(table()[0]) == "post_chat_completions"


def test_a_key_is_asked_for_wherever_the_router_asks_for_one(described: dict[str, Any]) -> None:
    assert described["security"] == [{"key": []}]
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for route in table():
        if route.described:
            operation = described["paths"][route.path][route.method.lower()]
            assert (operation.get("security") == []) is route.open
            assert ("401" in operation["responses"]) is not route.open


def test_every_status_that_an_error_can_have_is_described_in_the_one_shape(described: dict[str, Any]) -> None:
    responses = described["components"]["responses"]
    words = dict(STATUSES)
    assert set(map(int, responses)) == words.keys()
    assert {status for _, status, _ in ERROR_CLASSES} - words.keys() == {409}  # no endpoint answers it yet

    chat = described["paths"]["/v1/chat/completions"]["post"]["responses"]
    wanted = {400, 401, 403, 404, 405, 413, 415, 429, 431, 500, 502, 503, 504}
    assert {f"{status}" for status in wanted} <= chat.keys()
    for answer in responses.values():
        assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorReply"}
        assert "x-request-id" in answer["headers"]


def test_a_probe_that_is_not_ready_answers_its_own_shape_and_no_error(described: dict[str, Any]) -> None:
    answer = described["paths"]["/readyz"]["get"]["responses"]["503"]

    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/Status")


def test_chat_names_the_session_header_and_the_stream(described: dict[str, Any]) -> None:
    chat = described["paths"]["/v1/chat/completions"]["post"]

    session, repeats = chat["parameters"]
    assert described["components"]["parameters"]["session"]["name"] == "x-session-id"
    assert session == {"$ref": "#/components/parameters/session"}
    assert repeats == {"$ref": "#/components/parameters/idempotency"}
    content = chat["responses"]["200"]["content"]
    assert content["application/json"]["schema"]["$ref"].endswith("/ChatReply")
    event = content["text/event-stream"]["schema"]["properties"]
    held, end = event["data"]["anyOf"]
    assert [one["$ref"].rpartition("/")[2] for one in held["contentSchema"]["oneOf"]] == ["ChatChunk", "StreamFault"]
    assert end == {"const": "[DONE]"}


def test_a_parameter_in_the_path_is_required_and_text(described: dict[str, Any]) -> None:
    [parameter] = described["paths"]["/v1/models/{model}"]["get"]["parameters"]

    assert (parameter["name"], parameter["in"], parameter["required"]) == ("model", "path", True)


def test_requests_may_hold_unknown_fields_and_null_for_everything_optional(described: dict[str, Any]) -> None:
    schema = described["components"]["schemas"]["ChatBody"]
    body: dict[str, Any] = dict.fromkeys(schema["properties"].keys() - schema["required"])
    body |= {"model": "asi1", "messages": [{"role": "user", "content": "hi"}], "unheard_of": 1}

    assert schema["required"] == ["model", "messages"]
    assert "additionalProperties" not in schema
    open_ended = {"$ref": "#/components/schemas/ChatBody", "components": described["components"]}
    assert jsonschema_rs.Draft202012Validator(open_ended).is_valid(body)


@pytest.mark.parametrize(
    "wrong", [{"temperature": 3}, {"messages": []}, {"n": 0}, {"stop": ["a"] * 5}, {"stream": "yes"}, {"model": ""}]
)
def test_what_the_server_refuses_the_description_refuses_too(described: dict[str, Any], wrong: dict[str, Any]) -> None:
    body = {"model": "asi1", "messages": [{"role": "user", "content": "hi"}]} | wrong

    assert faults(described, "ChatBody", body)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, shapes.ChatBody)


def test_a_whole_reply_is_exactly_what_is_described(described: dict[str, Any]) -> None:
    reply = msgspec.json.decode(reply_bytes(fold(EVENTS), Turn(), asked(), "req_1"))

    assert faults(described, "ChatReply", reply) == []
    assert {"refusal", "content", "role"} <= set(described["components"]["schemas"]["ReplyMessage"]["required"])
    del reply["thought"]
    assert faults(described, "ChatReply", reply), "a field that is always sent is required"


@pytest.mark.parametrize("include_usage", [True, False])
def test_every_frame_of_a_stream_is_exactly_what_is_described(
    described: dict[str, Any],
    include_usage: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    frames = ChatFrames(
        reply_id="chatcmpl-1",
        created=1,
        model="asi1",
        request_id="req_1",
        include_usage=include_usage,
        service_tier=include_usage,
        seeded=True,
    )
    sent = [frame for event in EVENTS for frame in frames.frames(event)] + frames.end()

    chunks = [msgspec.json.decode(frame.removeprefix(b"data: ")) for frame in sent[:-1]]
    assert len(chunks) > len(EVENTS) - 5
    for chunk in chunks:
        assert faults(described, "ChatChunk", chunk) == []


def test_the_frames_of_the_deprecated_form_are_described_too(described: dict[str, Any]) -> None:
    frames = ChatFrames(
        reply_id="c", created=1, model="asi1", request_id="r", include_usage=False, legacy_functions=True
    )
    sent = [*frames.frames(CallDelta(0, "{}", "call_1", "f")), *frames.frames(Finished("tool_calls")), *frames.end()]

    for frame in sent[:-1]:
        assert faults(described, "ChatChunk", msgspec.json.decode(frame.removeprefix(b"data: "))) == []


def test_errors_whole_and_in_mid_stream_are_exactly_what_is_described(described: dict[str, Any]) -> None:
    fault = Unavailable("The upstream is away; try again.")

    assert faults(described, "ErrorReply", msgspec.json.decode(body_of(fault))) == []
    frame = ChatFrames.failure(fault)[0]
    assert faults(described, "StreamFault", msgspec.json.decode(frame.removeprefix(b"data: "))) == []


def test_every_field_of_a_request_has_words_and_no_words_are_about_nothing(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    fields = {f"{name}.{field}" for name, schema in schemas.items() for field in schema.get("properties", {})}

    assert sorted(FIELDS.keys() - fields) == []
    bare = {
        f"{name}.{field}"
        for name in REQUESTS
        for field, inner in schemas[name]["properties"].items()
        if "description" not in inner
    }
    assert bare == set()


def test_no_reference_of_ours_is_left_in_the_words(described: dict[str, Any]) -> None:
    text = msgspec.json.encode(described).decode()

    assert re.findall(r"\((?:[A-Z]{2,}-\d\d|decisions)", text) == []


def test_the_two_files_of_shapes_share_no_name() -> None:
    def own(module: ModuleType) -> set[str]:
        return {name for name, kind in vars(module).items() if getattr(kind, "__module__", "") == module.__name__}

    assert own(shapes) & own(shapes_described) == set()


def test_the_document_is_the_same_bytes_every_time_and_ends_a_line() -> None:
    assert document() == document()
    assert document().endswith(b"}\n")


async def test_the_endpoint_that_stands_in_for_a_description_answers_nobody() -> None:
    async def never(_: MutableMapping[str, Any]) -> None:
        raise AssertionError

    async def nothing() -> MutableMapping[str, Any]:
        raise AssertionError

    call = Call({"type": "http", "path": "/", "headers": []}, nothing, never, 0, ReadyHeaders())
    with pytest.raises(AssertionError):
        await openapi._nobody(call)
