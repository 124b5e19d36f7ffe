"""The front door alone: what happens when endpoints fail, clients leave and the lifespan breaks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from convene.api.access import AccessLog
from convene.api.cors import Cors
from convene.api.front import Front, Lifespan
from convene.api.routes import Route, Router
from convene.errors import ConveneError, Malformed, RateLimited, Unauthorized
from convene.http.base import DIRECT
from convene.serving.base import Principal
from fakes import FakeClock
from unit.api.asgi_doubles import Connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence

    from convene.api.call import Call

WHO = Principal(key_id="key_1", owner="o", scopes=("api",))


class Gate:
    """Knows one key without a look-up, and one with."""

    def __init__(self) -> None:
        self.looked_up = 0

    def admit(self, authorization: str | None) -> Principal | None:
        if authorization is None:
            raise Unauthorized("No key.")
        return WHO if authorization == "Bearer known" else None

    def still(self, principal: Principal) -> bool:
        return principal is WHO

    async def look_up(self, authorization: str | None) -> Principal:
        self.looked_up += 1
        if authorization == "Bearer stored":
            return WHO
        raise Unauthorized("Wrong key.")


async def nothing() -> None:
    """Start or stop nothing."""


def front(endpoint: Callable[[Call], Awaitable[None]], lines: list[bytes], **fields: object) -> Front:
    """Return a front with one endpoint at POST /v1/x and an open one at GET /open."""
    clock = FakeClock()
    routes = (
        Route(method="POST", path="/v1/x", endpoint=endpoint, summary="x"),
        Route(method="GET", path="/open", endpoint=endpoint, summary="open", open=True),
    )
    given: dict[str, Any] = {
        "router": Router(routes),
        "gatekeeper": Gate(),
        "clock": clock,
        "lifespan": Lifespan(nothing, nothing),
        "cors": Cors(()),
        "witnesses": [(access := AccessLog(lines.append, clock.now)).write, lambda _call, _s: access.flush()],
        "body_bytes_max": 1000,
    }
    return Front(**(given | fields))


def asked(headers: Sequence[tuple[bytes, bytes]] = ((b"authorization", b"Bearer known"),)) -> Connection:
    """Return a connection with a request for POST /v1/x that has a key."""
    return Connection(path="/v1/x", headers=headers)


async def ask(app: Front, connection: Connection) -> None:
    """Run one request."""
    await app(connection.scope, connection.receive, connection.send)


def logged(lines: list[bytes]) -> list[dict[str, Any]]:
    """Return the access log's lines."""
    return [msgspec.json.decode(line) for line in b"".join(lines).splitlines()]


async def answer(call: Call) -> None:
    """Answer with what the body was."""
    await call.reply(200, await call.body())


async def test_a_key_known_by_heart_costs_no_look_up_and_another_does() -> None:
    gate = Gate()
    app = front(answer, [], gatekeeper=gate)
    await ask(app, asked())
    assert gate.looked_up == 0
    connection = asked(headers=[(b"authorization", b"Bearer stored")])
    await ask(app, connection)
    assert (connection.status, gate.looked_up) == (200, 1)


class Remembering:
    """The extension of a server that knows the head again: `notes` are all that counts here."""

    def __init__(self, notes: dict[str, object]) -> None:
        self.notes = notes

    def take_body(self) -> bytes | None:
        return b""

    def respond(self, status: int, headers: object, body: bytes, lines: bytes = b"") -> None:
        del headers, lines
        self.answer = status, body


class HeldGate(Gate):
    """A gate whose answers can be made void."""

    def __init__(self) -> None:
        super().__init__()
        self.admitted = 0
        self.holds = True

    def admit(self, authorization: str | None) -> Principal | None:
        self.admitted += 1
        if not self.holds:
            raise Unauthorized("Revoked.")
        return super().admit(authorization)

    def still(self, principal: Principal) -> bool:
        return self.holds and super().still(principal)


@pytest.mark.req("KEY-02")
async def test_a_key_of_a_head_that_comes_again_is_asked_for_anew_once_anything_has_changed() -> None:
    gate, notes = HeldGate(), dict[str, object]()
    app = front(answer, [], gatekeeper=gate)

    async def status() -> int:
        direct = Remembering(notes)
        connection = asked()
        connection.scope["extensions"] = {DIRECT: direct}
        await ask(app, connection)
        return direct.answer[0]

    assert [await status(), await status(), gate.admitted] == [200, 200, 1]
    gate.holds = False
    assert [await status(), gate.admitted] == [401, 2]


@pytest.mark.req("OSDK-07")
@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"x-request-id", b"mine"),),
        ((b"x-request-id", b"not sane"),),
        ((b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),),
        ((b"origin", b"https://page.example"),),
    ],
)
async def test_a_head_that_comes_again_is_met_as_one_that_does_not(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    seen: list[tuple[object, ...]] = []

    async def look(call: Call) -> None:
        own_id = call.request_id.startswith("req_")
        seen.append((call.principal, call.path, call.trace_id, call.cross_origin_allowed, own_id or call.request_id))
        await call.reply(200, b"")

    app = front(look, [], cors=Cors(("https://page.example",)))
    notes, direct = dict[str, object](), Remembering({})
    for known in (None, notes, notes, notes):
        direct.notes = {} if known is None else known
        connection = asked(headers=[(b"authorization", b"Bearer known"), *fields])
        connection.scope["extensions"] = {DIRECT: direct}
        await ask(app, connection)
        assert direct.answer[0] == 200
    assert seen == [seen[0]] * 4
    assert notes


@pytest.mark.req("ERR-04", "OPS-01")
async def test_a_refused_key_reads_no_byte_and_an_open_route_asks_for_none() -> None:
    for headers in ([], [(b"authorization", b"Bearer wrong")], [(b"authorization", b"\xff")]):
        connection = asked(headers=headers)
        await ask(front(answer, []), connection)
        assert (connection.status, connection.received) == (401, 0)
    opened = Connection(method="GET", path="/open")
    await ask(front(answer, []), opened)
    assert opened.status == 200


async def test_an_open_endpoint_that_asks_who_calls_is_a_bug_that_shows() -> None:
    async def curious(call: Call) -> None:
        await call.reply(200, call.caller.key_id.encode())

    connection = Connection(method="GET", path="/open")
    await ask(front(curious, []), connection)
    assert connection.status == 500


@pytest.mark.req("OSDK-05", "OSDK-07")
async def test_an_error_has_the_id_and_says_when_to_come_back() -> None:
    async def refuse(call: Call) -> None:
        del call
        raise RateLimited("Slow down.", retry_after_s=1.2)

    lines: list[bytes] = []
    app = front(refuse, lines)
    connection = asked()
    await ask(app, connection)
    assert connection.status == 429
    assert connection.headers[b"retry-after"] == b"2"
    assert connection.headers[b"retry-after-ms"] == b"1200"
    (line,) = logged(lines)
    assert connection.headers[b"x-request-id"].decode() == line["request_id"]
    assert (line["status"], line["key"]) == (429, "key_1")


async def test_a_client_that_leaves_before_its_body_is_whole_gets_no_answer_and_a_line() -> None:
    lines: list[bytes] = []
    app = front(answer, lines)
    connection = Connection(b"part", b"rest", path="/v1/x", headers=[(b"authorization", b"Bearer known")], leaves=True)
    await ask(app, connection)
    assert connection.sent == []
    assert [line["status"] for line in logged(lines)] == [499]


@pytest.mark.parametrize("fault", [None, ConveneError("x"), RuntimeError("x")])
async def test_a_client_that_leaves_before_the_answer_is_no_fault_of_the_application(fault: Exception | None) -> None:
    async def endpoint(call: Call) -> None:
        if fault is not None:
            raise fault
        await call.reply(200, b"{}")

    lines: list[bytes] = []
    app = front(endpoint, lines)
    connection = asked()
    connection.gone = True
    await ask(app, connection)
    assert [line["status"] for line in logged(lines)] == [499]


@pytest.mark.req("SSE-16")
async def test_a_fault_after_the_head_reaches_the_server_which_breaks_the_connection() -> None:
    async def half(call: Call) -> None:
        call.status = 200
        await call.emit({"type": "http.response.start", "status": 200, "headers": []})
        raise Malformed("too late")

    connection = asked()
    with pytest.raises(Malformed):
        await ask(front(half, []), connection)
    assert [message["type"] for message in connection.sent] == ["http.response.start"]


async def test_a_cancellation_passes_through_and_is_logged() -> None:
    started = asyncio.Event()

    async def wait(call: Call) -> None:
        del call
        started.set()
        await asyncio.Event().wait()

    lines: list[bytes] = []
    app = front(wait, lines)
    task = asyncio.create_task(ask(app, asked()))
    await started.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert [line["status"] for line in logged(lines)] == [499]


async def test_other_protocols_are_left_alone() -> None:
    connection = Connection()
    connection.scope["type"] = "websocket"
    await ask(front(answer, []), connection)
    assert connection.sent == []


@pytest.mark.req("ERR-03", "ERR-09")
async def test_a_fault_of_our_own_tells_the_client_only_its_id(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(call: Call) -> None:
        raise KeyError(call.request_id, "hunter2")

    connection = asked()
    await ask(front(broken, []), connection)
    assert connection.status == 500
    assert b"hunter2" not in connection.body
    assert connection.headers[b"x-request-id"] in connection.body
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_the_lifespan_starts_and_stops_in_order_and_says_why_it_cannot() -> None:
    done: list[str] = []

    async def start() -> None:
        done.append("start")

    async def stop() -> None:
        done.append("stop")

    async def fail() -> None:
        raise OSError("the store is locked")

    sent: list[Any] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"] if "message" not in message else message["message"])

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "whatever comes"}

    await Lifespan(start, stop).run({"type": "lifespan"}, receive, send)
    await Lifespan(fail, stop).run({"type": "lifespan"}, receive, send)
    assert done == ["start", "stop"]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "the store is locked"]


async def test_every_request_that_ended_is_told_of_once_and_counted_while_under_way() -> None:
    told: list[tuple[str, int, float]] = []
    seen: list[int] = []

    async def look(call: Call) -> None:
        seen.append(app.in_flight)
        await call.reply(200, b"")

    app = front(look, [], witnesses=[lambda call, span_s: told.append((call.path, call.status, span_s))])
    await ask(app, asked())
    await ask(app, asked(headers=[]))
    assert told == [("/v1/x", 200, 0.0), ("/v1/x", 401, 0.0)]
    assert (seen, app.in_flight) == ([1], 0)


class Taker(Remembering):
    """Takes an answer as our own server does: headers, and lines that stand in the head as they are."""

    def respond(self, status: int, headers: object, body: bytes, lines: bytes = b"") -> None:
        self.answer = status, body
        pairs = list(headers) if isinstance(headers, list) else []
        pairs += [tuple(line.split(b": ", 1)) for line in lines.split(b"\r\n") if line]
        self.headers = {name.decode(): value.decode() for name, value in pairs}
        assert len(self.headers) == len(pairs), "each header once"


@pytest.mark.parametrize("content_type", [b"application/json", b"text/plain"])
@pytest.mark.parametrize("extra", [None, [(b"x-b", b"2")]])
async def test_an_answer_at_once_says_what_an_answer_by_messages_says(
    content_type: bytes, extra: list[tuple[bytes, bytes]] | None
) -> None:
    async def speak(call: Call) -> None:
        call.common.append((b"x-a", b"1"))
        await call.reply(202, b"body", content_type, extra)

    headers = [(b"authorization", b"Bearer known"), (b"x-request-id", b"mine")]
    taker, connection = Taker({}), asked(headers)
    connection.scope["extensions"] = {DIRECT: taker}
    await ask(front(speak, []), connection)
    by_messages = asked(headers)
    await ask(front(speak, []), by_messages)
    told = {name.decode(): value.decode() for name, value in by_messages.sent[0]["headers"]}
    assert told.pop("content-length") == "4", "our server counts it itself"
    assert (taker.answer, taker.headers) == ((202, b"body"), told)
    assert told["x-request-id"] == "mine"
