"""One MCP server's exchanges, message by message, in virtual time: greetings, calls, and everything that breaks."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from convene.errors import Failed, Retry, ToolFault
from simulation import Answer, run
from unit.tools.mcp_plays import JSON, SSE, URL, Server, asked, call, events, head, methods, open_server, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.http.base import Request
    from convene.tools.mcp import McpServer
    from simulation import FakeClient, World

UNKNOWN = {"error": {"code": -32022, "message": "Unsupported", "data": {"supported": ["2025-11-25"]}}}
ALIEN = {"error": {"code": -32022, "message": "Unsupported", "data": {"supported": ["2099-01-01"]}}}


def play(server: Callable[[Request], Answer], scene: Any, **terms: Any) -> FakeClient:  # noqa: ANN401 -- an async function of the server and its client
    """Start a server, look at it once, play the scene, and end it; return the client with all that was sent."""

    async def whole_scene(world: World) -> FakeClient:
        one, client = open_server(world, server, **terms)
        one.start()
        await one.turned()
        await scene(one, client)
        await one.aclose()
        return client

    return run(whole_scene, 1)


async def nothing(server: McpServer, client: FakeClient) -> None:
    """Only the greeting counts."""
    del client
    assert not server.fault


async def once(server: McpServer, client: FakeClient) -> None:
    del client
    assert await call(server.tools[0], text="a") == "echoed"


def test_a_server_with_sessions_is_greeted_listed_called_and_left_word_for_word() -> None:
    client = play(Server(), once)
    assert [method for method in methods(client) if method != "GET"] == [
        *("server/discover", "initialize", "notifications/initialized", "tools/list", "tools/call", "DELETE")
    ]
    by_method = {asked(request)["method"]: request for request in client.sent}
    assert not head(by_method["initialize"], "mcp-protocol-version")
    assert not head(by_method["initialize"], "mcp-session-id")
    for method in ("notifications/initialized", "tools/list", "GET", "tools/call", "DELETE"):
        assert head(by_method[method], "mcp-session-id") == "s-1"
        assert head(by_method[method], "mcp-protocol-version") == "2025-11-25"
        assert not head(by_method[method], "mcp-method")
    for request in client.sent:
        assert request.url == URL
        assert head(request, "authorization") == "Bearer s3cret"
        assert head(request, "accept") == "application/json, text/event-stream"
    called = asked(by_method["tools/call"])
    assert called["params"] == {
        "name": "echo",
        "arguments": {"text": "a"},
        "_meta": {"progressToken": called["id"], "convene/idempotencyKey": "r:s1:0", "convene/hops": "mcp:sim"},
    }


def test_a_server_without_sessions_is_told_all_in_each_request() -> None:
    client = play(Server(modern=True), once)
    assert methods(client) == ["server/discover", "tools/list", "tools/call"]
    for request in client.sent:
        assert head(request, "mcp-protocol-version") == "2026-07-28"
        assert head(request, "mcp-method") == asked(request)["method"]
        assert not head(request, "mcp-session-id")
        assert asked(request)["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert [head(request, "mcp-name") for request in client.sent] == ["", "", "echo"]


def on(method: str, told: Any) -> Callable[[Request], Any]:  # noqa: ANN401 -- what `Server` takes
    """Return what tells this for one method and leaves the others to the server."""
    return lambda request: told if asked(request)["method"] == method else None


@pytest.mark.parametrize(
    "probed",
    [
        Answer(status=400),
        Answer(status=404, headers=JSON, body=b"{}"),
        Answer(status=405),
        Answer(status=406),
        Answer(status=500, body=b"oops"),
        Answer(headers=JSON, body=b"not json"),
        Answer(headers=(("content-type", "text/html"),), body=b"<html>"),
        whole({"id": None, "error": {"code": -32000, "message": "Bad Request: No valid session ID"}}, status=400),
        whole({"id": 1, "error": {"code": -32601, "message": "Method not found"}}),
        {"result": {"supportedVersions": ["2025-11-25"]}},
        {"result": {"something": "else"}},
        UNKNOWN,
    ],
)
def test_what_does_not_know_the_newest_revision_is_greeted_in_an_older_one(probed: object) -> None:
    client = play(Server(on("server/discover", probed)), once)
    assert methods(client)[:2] == ["server/discover", "initialize"]


@pytest.mark.parametrize(
    ("probed", "fault"),
    [
        (Answer(status=401), "it answers 401"),
        (Answer(status=403), "it answers 403"),
        (Answer(status=429), "it answers 429"),
        (Answer(status=503), "it answers 503"),
        (ALIEN, "error -32022: Unsupported"),
        ({"error": {"code": -32021, "message": "elicitation needed"}}, "error -32021: elicitation needed"),
        (Answer(fault="refuse"), f"{URL} refused"),
        (Answer(fault="reset"), "the upstream closed the connection without an answer"),
        (Answer(fault="garble"), None),
    ],
)
def test_what_says_nothing_of_revisions_is_no_reason_to_try_an_older_one(probed: object, fault: str | None) -> None:
    async def scene(server: McpServer, client: FakeClient) -> None:
        if fault is None:  # what does not even speak HTTP is asked in each way, to no avail
            return
        assert server.fault == fault
        assert methods(client) == ["server/discover"]
        assert not server.tools

    play(Server(on("server/discover", probed)), scene)


def test_a_redirect_is_not_followed_and_the_operator_is_told_where_it_points() -> None:
    elsewhere = Answer(status=307, headers=(("location", "http://169.254.169.254/\x1bmcp/"),))

    async def scene(server: McpServer, client: FakeClient) -> None:
        assert server.fault == "it answers 307 and points to http://169.254.169.254/ mcp/"
        assert {request.url for request in client.sent} == {URL}

    play(lambda _: elsewhere, scene)


def test_a_session_id_that_no_header_may_carry_does_no_harm() -> None:
    told = whole(
        {"id": 2, "result": {"protocolVersion": "2025-11-25"}}, ("mcp-session-id", "a\r\nx-admin: yes"), status=200
    )

    async def scene(server: McpServer, client: FakeClient) -> None:
        assert server.fault == "its session has an unusable id"
        assert "notifications/initialized" not in methods(client)

    play(Server(on("initialize", told)), scene)


def test_a_list_without_an_end_is_read_so_far_and_no_further() -> None:
    pages = iter(range(10_000))

    def endless(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
        if asked(request)["method"] != "tools/list":
            return None
        number = next(pages)
        return {
            "result": {"tools": [{"name": f"t{number}", "inputSchema": {"type": "object"}}], "nextCursor": str(number)}
        }

    async def scene(server: McpServer, client: FakeClient) -> None:
        assert len(server.tools) == 64
        assert methods(client).count("tools/list") == 64

    play(Server(endless), scene)


def test_a_list_whose_pages_go_in_a_circle_ends() -> None:
    circle = {"result": {"tools": [{"name": "a", "inputSchema": {"type": "object"}}], "nextCursor": "again"}}

    async def scene(server: McpServer, client: FakeClient) -> None:
        assert [tool.spec.name for tool in server.tools] == ["sim__a"]
        assert methods(client).count("tools/list") == 2

    play(Server(on("tools/list", circle)), scene)


# A stream that breaks off.


class Broken:
    """A stream of a call that gives an id, breaks off, and is gone on with when it is asked for from there."""

    def __init__(self, *, retry: str = "", breaks: int = 1, pieces: tuple[str, ...] = ("id: e1\ndata:\n\n",)) -> None:
        self.retry, self.breaks, self.pieces = retry, breaks, pieces
        self.number = 0
        self.resumed: list[str] = []

    def __call__(self, request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
        message = asked(request)
        if message["method"] == "tools/call":
            self.number = message["id"]
            body = events(self.retry, *self.pieces)
            return Answer(headers=SSE, body=body, fault="reset", fault_at=len(body))
        if message["method"] == "GET" and (last := head(request, "last-event-id")):
            self.resumed.append(last)
            if len(self.resumed) < self.breaks:
                body = events(f"id: e{len(self.resumed) + 1}\ndata:\n\n")
                return Answer(headers=SSE, body=body)
            reply = {"id": self.number, "result": {"content": [{"type": "text", "text": "late"}]}}
            return Answer(headers=SSE, body=events(reply))
        return None


def late(breaks: Broken, seconds: float) -> None:
    async def scene(server: McpServer, client: FakeClient) -> None:
        before = client.world.loop.time()
        assert await call(server.tools[0]) == "late"
        assert client.world.loop.time() - before == pytest.approx(seconds, abs=0.01)
        assert methods(client).count("tools/call") == 1

    play(Server(breaks), scene)


def test_a_stream_that_breaks_off_is_gone_on_with_and_the_call_is_not_sent_again() -> None:
    breaks = Broken()
    late(breaks, 1.0)
    assert breaks.resumed == ["e1"]


def test_the_server_says_when_and_from_where_to_go_on() -> None:
    breaks = Broken(retry="retry: 250\n\n", breaks=3)
    late(breaks, 0.75)
    assert breaks.resumed == ["e1", "e2", "e3"]


@pytest.mark.parametrize("breaks", [Broken(pieces=("data:\n\n",)), Broken(breaks=99)])
def test_a_stream_that_cannot_be_gone_on_with_fails_the_call(breaks: Broken) -> None:
    async def scene(server: McpServer, client: FakeClient) -> None:
        with pytest.raises(Failed, match="Whether the call was carried out is not known"):
            await call(server.tools[0])
        assert methods(client).count("tools/call") == 1

    play(Server(breaks), scene)


def test_without_sessions_no_stream_is_gone_on_with() -> None:
    breaks = Broken()

    async def scene(server: McpServer, client: FakeClient) -> None:
        del client
        with pytest.raises(Failed):
            await call(server.tools[0])

    play(Server(breaks, modern=True), scene)
    assert not breaks.resumed


# What comes on a stream before the reply.


def test_progress_counts_on_whichever_stream_it_comes_and_only_for_calls_under_way() -> None:
    def told(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
        message = asked(request)
        if message["method"] != "tools/call":
            return None
        notes = [
            {"method": "notifications/progress", "params": {"progressToken": token, "progress": 1, "message": words}}
            for token, words in (
                (message["id"], "one"),
                (message["id"], "one"),
                (999, "another's"),
                (message["id"], "two"),
            )
        ]
        return Answer(headers=SSE, body=events(*notes, {"id": message["id"], "result": {"content": []}}))

    async def scene(server: McpServer, client: FakeClient) -> None:
        del client
        said: list[str] = []
        assert not await call(server.tools[0], said)
        assert said == ["one", "two"]

    play(Server(told), scene)


def test_a_flood_of_progress_is_passed_on_in_part() -> None:
    def told(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
        message = asked(request)
        if message["method"] != "tools/call":
            return None
        notes = [
            {"method": "notifications/progress", "params": {"progressToken": message["id"], "progress": number}}
            for number in range(500)
        ]
        return Answer(headers=SSE, body=events(*notes, {"id": message["id"], "result": {"content": []}}))

    async def scene(server: McpServer, client: FakeClient) -> None:
        del client
        said: list[str] = []
        await call(server.tools[0], said)
        assert len(said) == 100

    play(Server(told), scene, bytes_max=200_000)


def test_a_server_that_asks_too_much_of_its_client_is_broken_off() -> None:
    def told(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
        if asked(request)["method"] != "tools/call":
            return None
        return Answer(headers=SSE, body=events(*({"id": number, "method": "ping"} for number in range(100))))

    async def scene(server: McpServer, client: FakeClient) -> None:
        with pytest.raises(Failed, match="did not answer as it should"):
            await call(server.tools[0])
        assert methods(client).count("answer") <= 64

    play(Server(told), scene)


@pytest.mark.parametrize("headers", [JSON, SSE])
def test_an_answer_above_its_bound_is_refused_whole_or_in_pieces(headers: tuple[tuple[str, str], ...]) -> None:
    big = events({"id": 1, "result": {"content": [{"type": "text", "text": "x" * 6000}]}})
    told = Answer(headers=headers, body=big if headers == SSE else big.removeprefix(b"data: "), piece_bytes=100)

    async def scene(server: McpServer, client: FakeClient) -> None:
        del client
        with pytest.raises(Failed):
            await call(server.tools[0])

    play(Server(on("tools/call", told)), scene)


# Faults in words.


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        ({"error": {"code": -32602, "message": "no such city"}}, Retry, "sim refused the call: no such city"),
        ({"error": {"code": -32603, "message": ""}}, Failed, "sim refused the call: It gave no reason"),
        ({"result": {"isError": True, "content": []}}, Retry, "gave no reason"),
        ({"result": {"isError": True, "content": [{"type": "text", "text": "sold out"}]}}, Retry, "sold out"),
        ({"result": {"resultType": "input_required"}}, Failed, "did not answer as it should"),
        (Answer(status=500), Failed, "did not answer as it should"),
        (Answer(status=202), Failed, "did not answer as it should"),
        (Answer(status=307, headers=(("location", "http://evil.test"),)), Failed, "did not answer as it should"),
        (Answer(fault="refuse"), Failed, r"sim cannot be reached\.$"),
        (Answer(fault="reset"), Failed, "Whether the call was carried out is not known"),
        (Answer(fault="stall"), Failed, "did not answer within 60 s"),
        (Answer(fault="garble"), Failed, "did not answer as it should"),
    ],
)
def test_every_fault_is_told_in_words_without_the_address_or_the_key(
    told: object, kind: type[ToolFault], words: str
) -> None:
    async def scene(server: McpServer, client: FakeClient) -> None:
        del client
        with pytest.raises(kind, match=words) as caught:
            await call(server.tools[0])
        assert "mcp.test" not in caught.value.message
        assert "evil.test" not in caught.value.message
        assert "s3cret" not in f"{caught.value.message}{caught.value.detail}"

    play(Server(on("tools/call", told)), scene)


def test_what_a_tool_calls_its_error_is_bounded() -> None:
    told = {"result": {"isError": True, "content": [{"type": "text", "text": "x" * 4000}]}}

    async def scene(server: McpServer, client: FakeClient) -> None:
        del client
        with pytest.raises(Retry) as caught:
            await call(server.tools[0])
        assert caught.value.message.endswith("[cut: 2000 characters more]")

    play(Server(on("tools/call", told)), scene)


# Again.


def test_a_call_whose_headers_do_not_fit_any_more_is_sent_again_with_those_of_the_new_list() -> None:
    server = Server(modern=True)
    marked = {"type": "object", "properties": {"city": {"type": "string", "x-mcp-header": "City"}}}

    def strict(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
        if asked(request)["method"] != "tools/call":
            return None
        server.tools = [{"name": "echo", "inputSchema": marked}]
        if head(request, "mcp-param-city") != "Rome":
            mismatch = {"id": asked(request)["id"], "error": {"code": -32020, "message": "Header mismatch"}}
            return whole(mismatch, status=400)
        return None

    server.also = strict

    async def scene(one: McpServer, client: FakeClient) -> None:
        assert await call(one.tools[0], city="Rome") == "echoed"
        assert methods(client) == ["server/discover", "tools/list", "tools/call", "tools/list", "tools/call"]
        assert await call(one.tools[0], city="Rome") == "echoed"

    play(server, scene)


def test_marked_parameters_stay_out_of_headers_before_the_revision_that_knows_them() -> None:
    server = Server()
    server.tools = [
        {
            "name": "echo",
            "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "A"}}},
        }
    ]

    async def scene(one: McpServer, client: FakeClient) -> None:
        await call(one.tools[0], a="x")
        assert not any(head(request, "mcp-param-a") for request in client.sent)

    play(server, scene)


@pytest.mark.parametrize(
    "gone",
    [
        Answer(status=404),
        whole({"id": None, "error": {"code": -32001, "message": "Session not found"}}, status=404),
        whole({"id": None, "error": {"code": -32000, "message": "Bad Request: No valid session ID"}}, status=400),
    ],
)
def test_a_forgotten_session_is_begun_anew_once_and_the_call_sent_again(gone: Answer) -> None:
    left = [gone]

    def forgets(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
        return left.pop() if left and asked(request)["method"] == "tools/call" else None

    async def scene(server: McpServer, client: FakeClient) -> None:
        assert await call(server.tools[0]) == "echoed"
        asked_for = [method for method in methods(client) if method != "GET"]
        assert asked_for[-4:] == ["tools/call", "initialize", "notifications/initialized", "tools/call"]

    play(Server(forgets), scene)


def test_a_server_that_forgets_every_session_fails_the_call_after_one_more_try() -> None:
    async def scene(server: McpServer, client: FakeClient) -> None:
        with pytest.raises(Failed):
            await call(server.tools[0])
        assert methods(client).count("tools/call") == 2

    play(Server(on("tools/call", Answer(status=404))), scene)


def test_only_what_may_be_repeated_shares_a_connection() -> None:
    server = Server()
    schema = {"type": "object"}
    server.tools = [
        {"name": "write", "inputSchema": schema},
        {"name": "read", "inputSchema": schema, "annotations": {"readOnlyHint": True}},
    ]

    async def scene(one: McpServer, client: FakeClient) -> None:
        for tool in one.tools:
            await call(tool)
        fresh = [request.fresh for request in client.sent if asked(request)["method"] == "tools/call"]
        assert fresh == [True, False]

    play(server, scene)


def test_a_cancelled_call_is_told_to_a_server_with_sessions_and_closed_to_one_without() -> None:
    for modern in (False, True):

        async def scene(server: McpServer, client: FakeClient) -> None:
            calling = asyncio.create_task(call(server.tools[0]))
            await asyncio.sleep(5)
            number = asked(client.sent[-1])["id"]
            calling.cancel()
            await asyncio.wait([calling])
            await asyncio.sleep(1)
            told = [asked(request) for request in client.sent if asked(request)["method"] == "notifications/cancelled"]
            assert [one["params"]["requestId"] for one in told] == ([] if modern else [number])  # noqa: B023 -- at once
            assert not client.open

        play(Server(on("tools/call", Answer(fault="stall")), modern=modern), scene)


# Anything at all.

GARBAGE = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe\x00",
    b"data: {\n\n",
    b"data: []\n\ndata: 7\n\n",
    b"id: 1\n\n" * 50,
    b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"x"},{"name":7}],"nextCursor":"x"}}',
    b'{"jsonrpc":"2.0","id":4,"result":{"content":{"type":"text"}}}',
    b'{"jsonrpc":"2.0","id":4,"error":{"code":[],"message":{}}}',
    b'data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n' * 20,
    b'data: {"jsonrpc":"2.0","id":9,"method":"roots/list"}\n\n' * 20,
    json.dumps({"id": 1, "result": {"content": [{"type": "text", "text": "x" * 9000}]}}).encode(),
)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_server_does_a_call_ends_in_words_and_nothing_is_left(seed: int) -> None:
    async def live(world: World) -> None:
        chance = world.source("server")
        faults = (None, None, None, "reset", "stall", "garble", "refuse")

        def wild(_: Request) -> Answer | None:
            if chance.random() < 0.5:
                return None
            body = chance.choice(GARBAGE)
            return Answer(
                status=chance.choice((200, 200, 200, 202, 204, 302, 400, 401, 404, 500, 503)),
                headers=chance.choice((JSON, SSE, (), (("content-type", "text/html"), ("mcp-session-id", "\x00")))),
                body=body,
                fault=chance.choice(faults),  # type: ignore[arg-type]
                fault_at=chance.choice((None, len(body) // 2)),
                piece_bytes=chance.choice((1, 50, 5000)),
                gap_s=(0.0, chance.choice((0.0, 1.0))),
            )

        server, client = open_server(world, Server(wild, modern=chance.random() < 0.5))
        server.start()
        told: list[str] = []
        for _ in range(12):
            await asyncio.sleep(chance.random() * 100)
            for tool in server.tools[:2]:
                try:
                    told.append(await call(tool, []))
                except ToolFault as fault:
                    told.append(fault.message)
        await server.aclose()
        assert "mcp.test" not in "".join(told)
        assert {request.url for request in client.sent} == {URL}

    run(live, seed)
