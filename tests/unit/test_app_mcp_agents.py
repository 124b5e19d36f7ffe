"""MCP servers at addresses of strangers: the protocol over the guarded way out, and what a hostile server gets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from convene.agents.credentials import Credentials
from convene.agents.faults import TalkFault
from convene.agents.mcp import ToolAsked, WrongArgumentsError
from convene.app_mcp_agents import ANSWER_BYTES_MAX, McpAgents
from convene.egress import Rules, WireFault
from egress_doubles import Names, NotedWire, Told, guarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.egress import Hop
    from fakes import FakeClock

URL = "https://tools.test/mcp"
TOOLS = [
    {"name": "add", "description": "Add", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
    {"name": "add", "description": "the second of a name", "inputSchema": {"type": "object"}},
    {
        "name": "marked",
        "inputSchema": {"type": "object", "properties": {"to": {"type": "string", "x-mcp-header": "To"}}},
    },
    {"name": "broken", "inputSchema": {"type": "object", "properties": {"a": {"type": "array", "x-mcp-header": "A"}}}},
]


def told(result: object, number: object) -> Told:
    body = json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()
    return Told(headers={"content-type": "application/json"}, pieces=(body,))


class Server:
    """A server of the newest revision; `answer` may say something else to a method."""

    def __init__(self, answer: Callable[[str, Any], Told | None] | None = None) -> None:
        self.answer = answer or (lambda *_: None)
        self.methods: list[str] = []
        self.wire = NotedWire(self.serve)
        self.egress = guarded(self.wire, rules=Rules(total_s=300.0, first_byte_s=300.0))[0]

    def serve(self, hop: Hop) -> Told:
        asked = json.loads(hop.body)
        method, number = asked["method"], asked.get("id")
        self.methods.append(method)
        if (other := self.answer(method, number)) is not None:
            return other
        if method == "server/discover":
            about = {"supportedVersions": ["2026-07-28"], "serverInfo": {"name": "t", "title": "Tools"}}
            return told(about | {"instructions": "Use them."}, number)
        if method == "tools/list":
            return told({"tools": TOOLS}, number)
        return told({"content": [{"type": "text", "text": json.dumps(asked["params"]["arguments"])}]}, number)


async def call(agents: McpAgents, tool: str = "add", **arguments: object) -> str:
    answer = await agents.call(URL, ToolAsked(tool=tool, arguments=arguments, key="key", wait_s=10.0))
    return answer.text


def agents(server: Server, clock: FakeClock, keys: tuple[tuple[str, str], ...] = ()) -> McpAgents:
    return McpAgents(server.egress, Credentials({URL: keys}), clock)


@pytest.mark.req("MCP-04")
async def test_a_server_is_greeted_and_listed_once_and_then_called(clock: FakeClock) -> None:
    server = Server()
    made = agents(server, clock)
    offer = await made.offer(URL)
    assert (offer.name, offer.instructions) == ("Tools", "Use them.")
    assert [(tool.name, tool.description, tool.repeatable) for tool in offer.tools] == [
        ("add", "Add", True),
        ("marked", "", False),
    ]
    assert await call(made, a=1) == '{"a": 1}'
    assert server.methods == ["server/discover", "tools/list", "tools/call"]
    clock.move(301)
    await made.offer(URL)
    assert server.methods[3:] == ["server/discover", "tools/list"]
    await made.aclose()


async def test_keys_and_marked_parameters_go_along(clock: FakeClock) -> None:
    server = Server()
    await call(agents(server, clock, (("authorization", "Bearer k"),)), "marked", to="Rome")
    headers = dict(server.wire.hops[-1].headers)
    assert headers["authorization"] == "Bearer k"
    assert headers["Mcp-Param-To"] == "Rome"


async def test_the_name_of_a_server_may_stand_in_meta(clock: FakeClock) -> None:
    def answer(method: str, number: object) -> Told | None:
        about = {"io.modelcontextprotocol/serverInfo": {"name": "meta"}}
        found = {"supportedVersions": ["2026-07-28"], "_meta": about}
        return told(found, number) if method == "server/discover" else None

    assert (await agents(Server(answer), clock).offer(URL)).name == "meta"


async def fault_of(server: Server, clock: FakeClock) -> TalkFault:
    with pytest.raises(TalkFault) as fault:
        await call(agents(server, clock))
    return fault.value


ERROR = Told(headers={"content-type": "application/json"}, pieces=(b"<html>",))


@pytest.mark.parametrize(
    ("method", "reply", "reason", "words"),
    [
        ("server/discover", Told(fault=WireFault("connect", "")), "unreachable", "cannot be reached"),
        ("server/discover", Told(status=401), "refused", "the operator can set them"),
        ("server/discover", Told(status=503), "unreadable", "it answers 503"),
        ("tools/list", ERROR, "unreadable", "There is no MCP server"),
        ("tools/call", ERROR, "unreadable", "does not answer as its protocol demands"),
        ("tools/call", Told(fault=WireFault("timeout", "")), "unreachable", "did not come"),
        ("tools/call", Told(body_fault=WireFault("broken", "")), "unreachable", "did not come"),
        ("tools/call", Told(pieces=(b"x" * (ANSWER_BYTES_MAX + 1),)), "unreadable", "its protocol"),
        ("tools/call", Told(status=302, headers={"location": "http://10.0.0.1/"}), "unreadable", "points to"),
    ],
)
async def test_what_goes_wrong_is_said_and_nothing_is_followed(
    clock: FakeClock, method: str, reply: Told, reason: str, words: str
) -> None:
    server = Server(lambda asked, _: reply if asked == method else None)
    fault = await fault_of(server, clock)
    assert fault.reason == reason
    assert words in fault.words
    assert {hop.place.url for hop in server.wire.hops} == {URL}
    assert all(reply.closed for reply in server.wire.replies)


async def test_an_address_inside_is_not_reached(clock: FakeClock) -> None:
    wire = NotedWire()
    egress = guarded(wire, Names({"inside.test": ["10.0.0.1"]}))[0]
    with pytest.raises(TalkFault) as fault:
        await McpAgents(egress, Credentials(), clock).offer("https://inside.test/mcp")
    assert (fault.value.reason, fault.value.sent) == ("unreachable", False)
    assert wire.hops == []


def refusing(code: int) -> Server:
    def answer(method: str, number: object) -> Told | None:
        error = {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": "not so"}}
        body = Told(headers={"content-type": "application/json"}, pieces=(json.dumps(error).encode(),))
        return body if method == "tools/call" else None

    return Server(answer)


async def test_wrong_arguments_are_told_apart_from_other_refusals(clock: FakeClock) -> None:
    with pytest.raises(WrongArgumentsError, match="refused the arguments: not so"):
        await call(agents(refusing(-32602), clock))
    fault = await fault_of(refusing(-32000), clock)
    assert (fault.reason, fault.words) == ("refused", "The agent refused: not so")


async def test_a_stream_without_end_is_cut_off(clock: FakeClock) -> None:
    def answer(method: str, number: object) -> Told | None:
        del number
        pieces = (b": keep alive\n\n" * 1000,) * 600
        return Told(headers={"content-type": "text/event-stream"}, pieces=pieces) if method == "tools/call" else None

    fault = await fault_of(Server(answer), clock)
    assert fault.reason == "unreadable"
