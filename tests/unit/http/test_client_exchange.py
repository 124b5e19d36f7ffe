"""One exchange: what is written, how the body is handed out, back-pressure, five waits. Virtual time, no sockets."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING, Any

import pytest

from convene.http.base import (
    ConnectFailed,
    Disconnected,
    HttpError,
    ProtocolBroken,
    Request,
    TimedOut,
    Timeouts,
)
from convene.http.client import ClientOptions, HttpClient
from convene.http.client_connection import BUFFERED_BYTES_MAX
from unit.http.client_doubles import Network, Wire, answering, chunked, plain, run, turns

if TYPE_CHECKING:
    from convene.http.base import Client, Response

URL = "http://upstream/v1"
GET = Request("GET", URL)
HEAD_100 = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"


async def begin(network: Network, request: Request = GET) -> tuple[HttpClient, Response, Wire]:
    """Send a request to a silent network, answer with a head of 100 bytes of body and return what then is there."""
    client = network.client()
    task = asyncio.create_task(client.send(request))
    await turns()
    wire = network.wires[-1]
    wire.say(HEAD_100)
    return client, await task, wire


def test_the_client_is_what_the_seam_asks_for() -> None:
    client: Client = HttpClient()
    assert client.stats() == []  # type: ignore[attr-defined]


def test_a_request_is_one_write_of_head_and_body() -> None:
    async def main() -> None:
        network = Network(answering(plain(b"")))
        client = network.client()
        await client.send(Request("POST", URL + "?q", (("x-a", "b"),), b"body"))
        wire = network.wires[0]
        assert wire.writes == 1
        assert wire.sent == (
            b"POST /v1?q HTTP/1.1\r\nhost: upstream\r\nx-a: b\r\naccept-encoding: identity\r\n"
            b"content-length: 4\r\n\r\nbody"
        )
        await client.aclose()

    run(main())


@pytest.mark.parametrize(("method", "has_length"), [("GET", False), ("HEAD", False), ("POST", True), ("PUT", True)])
def test_an_empty_body_has_a_length_only_where_one_is_expected(method: str, has_length: bool) -> None:  # noqa: FBT001 - a table
    async def main() -> None:
        network = Network(answering(b"HTTP/1.1 204 No\r\n\r\n"))
        client = network.client()
        await client.send(Request(method, URL))
        assert (b"content-length: 0\r\n" in network.wires[0].sent) is has_length
        assert network.wires[0].sent.endswith(b"\r\n\r\n")
        await client.aclose()

    run(main())


def test_requests_of_many_shapes_are_each_encoded_right() -> None:
    async def main() -> None:
        network = Network(answering(plain(b"")))
        client = network.client()
        for number in range(700):
            await client.send(Request("GET", f"{URL}/{number}", (("x-n", str(number)),)))
            await client.send(Request("GET", URL, (("x-n", str(number)), ("x-long", "y" * (number * 9)))))
        sent = network.wires[0].sent
        for number in range(700):
            assert b"/v1/%d HTTP/1.1\r\nhost: upstream\r\nx-n: %d\r\naccept" % (number, number) in sent
            assert b"/v1 HTTP/1.1\r\nhost: upstream\r\nx-n: %d\r\nx-long: %b\r\n" % (number, b"y" * number * 9) in sent
        await client.aclose()

    run(main())


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "http://upstream/\r\nx: y"),
        Request("GET", URL, (("x", "a\r\nb: c"),)),
        Request("G T", URL),
        Request("GET", "ftp://upstream/"),
    ],
)
def test_an_unsendable_request_is_a_value_error_before_anything_happens(request_: Request) -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        with pytest.raises(ValueError, match=r"character|token|URL"):
            await client.send(request_)
        assert not network.wires
        await client.aclose()

    run(main())


def test_a_large_body_follows_the_head_as_the_transport_drains() -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        body = bytes(range(256)) * 4096
        task = asyncio.create_task(client.send(Request("POST", URL, body=body)))
        original = Wire.write

        def write(wire: Wire, data: bytes | bytearray | memoryview) -> None:
            original(wire, data)
            wire.protocol.pause_writing()

        def slow_down(wire: Wire) -> None:
            wire.write = write.__get__(wire)  # type: ignore[method-assign]

        network.on_open = slow_down
        await turns()
        wire = network.wires[0]
        assert wire.sent.endswith(b"content-length: %d\r\n\r\n" % len(body))
        steps = 0
        while not wire.sent.endswith(body):
            before = len(wire.sent)
            wire.protocol.resume_writing()
            assert 0 < len(wire.sent) - before <= 256 * 1024
            steps += 1
        assert steps == 4
        wire.say(plain(b"ok"))
        assert await (await task).read(10) == b"ok"
        assert client.stats()[0].idle == 1
        await client.aclose()

    run(main())


def test_an_answer_before_the_request_is_out_is_whole_and_ends_the_connection() -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        task = asyncio.create_task(client.send(Request("POST", URL, body=bytes(100_000))))
        await turns()
        wire = network.wires[0]
        wire.unflushed = 10
        wire.say(plain(b"too large", status="413 Content Too Large"))
        response = await task
        assert (response.status, await response.read(10)) == (413, b"too large")
        assert wire.closed
        assert client.stats()[0].open == 0
        await client.aclose()

    run(main())


def test_head_has_the_length_and_no_body() -> None:
    async def main() -> None:
        network = Network(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n"))
        client = network.client()
        for _ in range(2):
            response = await client.send(Request("HEAD", URL))
            assert (response.headers["content-length"], await response.read(10)) == ("9000", b"")
        assert len(network.wires) == 1
        await client.aclose()

    run(main())


def test_chunks_come_as_they_arrive_and_what_waited_comes_together() -> None:
    async def main() -> None:
        network = Network()
        client, response, wire = await begin(network)
        stream = response.chunks()
        first = asyncio.ensure_future(anext(stream))
        await turns()
        assert not first.done()
        wire.say(b"a" * 10)
        assert await first == b"a" * 10
        wire.say(b"b" * 10)
        wire.say(b"c" * 10)
        assert await anext(stream) == b"b" * 10 + b"c" * 10
        wire.say(b"d" * 70)
        assert [chunk async for chunk in stream] == [b"d" * 70]
        assert [chunk async for chunk in stream] == []
        await client.aclose()

    run(main())


def test_read_returns_the_very_piece_that_came() -> None:
    async def main() -> None:
        client, response, wire = await begin(Network())
        task = asyncio.ensure_future(response.read(100))
        await turns()
        wire.say(b"x" * 60)
        await turns()
        wire.say(b"y" * 40)
        assert await task == b"x" * 60 + b"y" * 40
        await client.aclose()

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        plain(b"x" * 101),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"x" * 101),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n65\r\n" + b"x" * 101,
        plain(gzip.compress(b"x" * 101), "content-encoding: gzip"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\nx",
    ],
)
def test_a_body_above_the_reader_s_bound_is_refused_and_frees_the_slot(answer: bytes) -> None:
    async def main() -> None:
        network = Network(answering(answer))
        client = network.client()
        response = await client.send(GET)
        with pytest.raises(ProtocolBroken, match="larger than 100"):
            await response.read(100)
        assert client.stats()[0].open == client.stats()[0].idle
        await client.aclose()

    run(main())


def test_reading_pauses_above_256_kib_and_goes_on_when_the_body_is_taken() -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        task = asyncio.create_task(client.send(GET))
        await turns()
        wire = network.wires[0]
        wire.say(b"HTTP/1.1 200 OK\r\n\r\n")
        response = await task
        wire.say(b"x" * BUFFERED_BYTES_MAX)
        assert wire.reading
        wire.say(b"x")
        assert not wire.reading
        assert len(await anext(response.chunks())) == BUFFERED_BYTES_MAX + 1
        assert wire.reading
        reading = asyncio.ensure_future(response.read(1 << 30))
        for _ in range(5):
            wire.say(b"x" * (BUFFERED_BYTES_MAX + 1))
            await turns()
            assert wire.reading
        wire.hang_up()
        assert len(await reading) == 5 * (BUFFERED_BYTES_MAX + 1)
        await client.aclose()

    run(main())


def test_a_connection_that_ends_its_answer_while_paused_is_read_again() -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        task = asyncio.create_task(client.send(GET))
        await turns()
        wire = network.wires[0]
        wire.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (BUFFERED_BYTES_MAX + 11))
        await task
        wire.say(b"x" * (BUFFERED_BYTES_MAX + 10))
        assert not wire.reading
        wire.say(b"x")
        assert wire.reading
        assert client.stats()[0].idle == 1
        await client.aclose()

    run(main())


@pytest.mark.parametrize("whole_first", [True, False])
def test_a_body_that_breaks_off_hands_out_what_came_and_then_the_error(whole_first: bool) -> None:  # noqa: FBT001 - both ways
    async def main() -> None:
        network = Network()
        client = network.client()
        task = asyncio.create_task(client.send(GET))
        await turns()
        wire = network.wires[0]
        wire.say(HEAD_100 + b"abc")
        if whole_first:
            response = await task
            wire.hang_up()
        else:
            wire.hang_up()
            response = await task
        stream = response.chunks()
        assert (response.status, await anext(stream)) == (200, b"abc")
        for _ in range(2):
            with pytest.raises(Disconnected) as caught:
                await anext(stream)
            assert caught.value.received
        await client.aclose()

    run(main())


def test_damage_in_the_same_bytes_as_the_head_still_shows_the_head() -> None:
    async def main() -> None:
        network = Network(answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhiX"))
        client = network.client()
        response = await client.send(GET)
        stream = response.chunks()
        assert await anext(stream) == b"hi"
        with pytest.raises(ProtocolBroken):
            await anext(stream)
        assert network.wires[0].closed
        assert client.stats()[0].open == 0
        await client.aclose()

    run(main())


def test_a_reset_in_a_body_until_close_is_not_its_end() -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        task = asyncio.create_task(client.send(GET))
        await turns()
        network.wires[0].say(b"HTTP/1.1 200 OK\r\n\r\nabc")
        response = await task
        network.wires[0].hang_up(ConnectionResetError())
        with pytest.raises(Disconnected):
            await response.read(100)
        await client.aclose()

    run(main())


def test_closing_an_unfinished_response_closes_the_connection_at_once() -> None:
    async def main() -> None:
        client, response, wire = await begin(Network())
        response.close()
        assert wire.closed
        assert client.stats()[0].open == 0
        response.close()
        with pytest.raises(HttpError):
            await response.read(10)
        await client.aclose()

    run(main())


def test_closing_wakes_a_reader_in_another_task() -> None:
    async def main() -> None:
        client, response, _ = await begin(Network())
        task = asyncio.ensure_future(response.read(100))
        await turns()
        response.close()
        with pytest.raises(Disconnected):
            await task
        await client.aclose()

    run(main())


@pytest.mark.parametrize("cancels", [1, 2])
@pytest.mark.parametrize("stage", ["head", "body"])
def test_a_cancel_closes_the_connection_before_it_is_even_seen(stage: str, cancels: int) -> None:
    async def main() -> None:
        network = Network()
        client = network.client()

        async def whole() -> bytes:
            return await (await client.send(GET)).read(100)

        task = asyncio.create_task(whole())
        await turns()
        wire = network.wires[0]
        if stage == "body":
            wire.say(HEAD_100 + b"abc")
            await turns()
        task.cancel()
        if cancels == 2:
            await turns(1)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert wire.closed
        assert client.stats()[0].open == 0
        await client.aclose()

    run(main())


def test_a_cancel_in_the_turn_in_which_the_answer_came_leaves_the_connection_to_the_pool() -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        task = asyncio.create_task(client.send(GET))
        await turns()
        network.wires[0].say(plain(b"ok"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not network.wires[0].closed
        assert client.stats()[0].idle == 1
        await client.aclose()

    run(main())


QUICK = Timeouts(connect_s=1.0, pool_s=2.0, first_byte_s=3.0, between_bytes_s=4.0, total_s=20.0)


async def expect_timeout(task: asyncio.Future[Any], phase: str, after_s: float, began: float) -> None:
    """Wait for the time-out of `phase` and check that it came on time: never early, at most a tick late."""
    with pytest.raises(TimedOut) as caught:
        await task
    loop = asyncio.get_running_loop()
    assert (caught.value.phase, caught.value.after_s) == (phase, after_s)
    assert after_s <= loop.time() - began <= after_s + 0.11


def test_connecting_ends_after_connect_s() -> None:
    async def main() -> None:
        network = Network()
        network.delay_s = 60.0
        client = network.client()
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(ConnectFailed, match="within 1 s"):
            await client.send(Request("GET", URL, timeouts=QUICK))
        assert 1.0 <= loop.time() - began <= 1.1
        assert network.opening == 0
        assert client.stats()[0].open == 0
        await client.aclose()

    run(main())


def test_a_silent_peer_ends_after_first_byte_s() -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        began = asyncio.get_running_loop().time()
        task = asyncio.ensure_future(client.send(Request("GET", URL, timeouts=QUICK)))
        await expect_timeout(task, "first_byte", 3.0, began)
        assert network.wires[0].closed
        assert client.stats()[0].open == 0
        await client.aclose()

    run(main())


@pytest.mark.parametrize("start", [b"HTTP/1.1 200", HEAD_100, HEAD_100 + b"abc"])
def test_a_peer_that_falls_silent_ends_after_between_bytes_s(start: bytes) -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        loop = asyncio.get_running_loop()

        async def whole() -> bytes:
            return await (await client.send(Request("GET", URL, timeouts=QUICK))).read(200)

        task = asyncio.ensure_future(whole())
        await asyncio.sleep(2.5)
        network.wires[0].say(start)
        await expect_timeout(task, "between_bytes", 4.0, loop.time())
        assert network.wires[0].closed
        await client.aclose()

    run(main())


@pytest.mark.parametrize("start", [b"HTTP/1.1 200", HEAD_100])
def test_the_wait_between_bytes_is_kept_also_where_the_first_byte_may_take_much_longer(start: bytes) -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        loop = asyncio.get_running_loop()
        timeouts = Timeouts(first_byte_s=500.0, between_bytes_s=1.0)

        async def whole() -> bytes:
            return await (await client.send(Request("GET", URL, timeouts=timeouts))).read(200)

        task = asyncio.ensure_future(whole())
        await asyncio.sleep(300.0)
        network.wires[0].say(start)
        await expect_timeout(task, "between_bytes", 1.0, loop.time())
        await client.aclose()

    run(main())


def test_each_byte_renews_the_wait_and_the_total_ends_a_drip() -> None:
    async def main() -> None:
        network = Network()
        client, response, wire = await begin(network, Request("GET", URL, timeouts=QUICK))
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = asyncio.ensure_future(response.read(200))
        while not wire.closed:
            wire.say(b"x")
            await asyncio.sleep(1.0)
        await expect_timeout(task, "total", 20.0, min(began, loop.time() - 20.0))
        assert 20.0 <= loop.time() - began <= 21.1
        await client.aclose()

    run(main())


def test_a_reader_s_own_pause_is_no_silence_of_the_peer_but_counts_in_the_total() -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        task = asyncio.create_task(client.send(Request("GET", URL, timeouts=QUICK)))
        await turns()
        wire = network.wires[0]
        loop = asyncio.get_running_loop()
        wire.say(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (BUFFERED_BYTES_MAX + 1))
        response = await task
        await asyncio.sleep(10.0)
        stream = response.chunks()
        await anext(stream)
        assert not wire.closed
        await expect_timeout(asyncio.ensure_future(anext(stream)), "between_bytes", 4.0, loop.time())

        task = asyncio.create_task(client.send(Request("GET", URL, timeouts=QUICK)))
        await turns()
        network.wires[1].say(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (BUFFERED_BYTES_MAX + 1))
        response = await task
        await asyncio.sleep(19.9)
        assert not network.wires[1].closed
        await asyncio.sleep(0.2)
        assert network.wires[1].closed
        stream = response.chunks()
        assert len(await anext(stream)) == BUFFERED_BYTES_MAX + 1
        with pytest.raises(TimedOut, match="total"):
            await anext(stream)
        await client.aclose()

    run(main())


@pytest.mark.parametrize("where", ["connect", "pool", "first_byte"])
def test_the_total_covers_every_wait(where: str) -> None:
    async def main() -> None:
        network = Network()
        client = network.client(connections_per_origin_max=1)
        if where == "connect":
            network.delay_s = 60.0
        blocker = None
        if where == "pool":
            blocker = asyncio.create_task(client.send(GET))
            await turns()
        began = asyncio.get_running_loop().time()
        timeouts = Timeouts(connect_s=9.0, pool_s=9.0, first_byte_s=9.0, between_bytes_s=9.0, total_s=0.5)
        task = asyncio.ensure_future(client.send(Request("GET", URL, timeouts=timeouts)))
        await expect_timeout(task, "total", 0.5, began)
        if blocker is not None:
            network.wires[0].say(plain(b""))
            await blocker
        await client.aclose()

    run(main())


def test_a_shorter_wait_that_begins_later_still_ends_in_time() -> None:
    async def main() -> None:
        network = Network()
        client = network.client()
        loop = asyncio.get_running_loop()
        slow = asyncio.create_task(client.send(GET))
        await asyncio.sleep(1.0)
        quick = asyncio.ensure_future(client.send(Request("GET", URL, timeouts=QUICK)))
        await expect_timeout(quick, "first_byte", 3.0, loop.time())
        network.wires[0].say(plain(b"ok"))
        assert (await slow).status == 200
        await client.aclose()

    run(main())


def test_a_plain_request_to_a_proxy_has_the_absolute_target_and_the_credentials() -> None:
    async def main() -> None:
        network = Network(answering(plain(b"")))
        client = network.client(http_proxy="http://user:word@proxy:3128", no_proxy=("direct",))
        await client.send(Request("GET", "http://upstream:81/v1?x"))
        await client.send(Request("GET", "http://direct/v1"))
        proxied, direct = network.wires
        assert proxied.sent.startswith(b"GET http://upstream:81/v1?x HTTP/1.1\r\nhost: upstream:81\r\n")
        assert b"proxy-authorization: Basic dXNlcjp3b3Jk\r\n" in proxied.sent
        assert proxied.origin.proxy is not None
        assert (proxied.origin.proxy.host, proxied.origin.proxy.port) == ("proxy", 3128)
        assert direct.sent.startswith(b"GET /v1 HTTP/1.1\r\n")
        assert b"proxy" not in direct.sent
        assert direct.origin.proxy is None
        await client.aclose()

    run(main())


def test_https_goes_through_the_proxy_without_showing_it_the_request() -> None:
    async def main() -> None:
        network = Network(answering(plain(b"")))
        client = network.client(https_proxy="http://user:word@proxy:3128")
        await client.send(Request("GET", "https://upstream/v1"))
        (wire,) = network.wires
        assert wire.tls is not None
        assert wire.tls.check_hostname
        assert wire.sent.startswith(b"GET /v1 HTTP/1.1\r\nhost: upstream\r\n")
        assert b"proxy" not in wire.sent
        await client.aclose()

    run(main())


def test_a_malformed_proxy_is_refused_when_the_client_is_made() -> None:
    with pytest.raises(ValueError, match="proxy URL"):
        HttpClient(ClientOptions(https_proxy="socks5://proxy"))


def test_a_body_that_has_come_whole_can_be_looked_at_and_is_still_read() -> None:
    async def main() -> None:
        client = Network(answering(plain(b"whole"))).client()
        response = await client.send(GET)
        assert response.peek() == b"whole"
        assert response.peek() == b"whole"
        assert await response.read(100) == b"whole"
        assert response.peek() is None, "it was taken"
        await client.aclose()

    run(main())


def test_a_body_that_is_not_whole_or_broke_off_cannot_be_looked_at() -> None:
    async def main() -> None:
        client, response, wire = await begin(Network())
        assert response.peek() is None
        wire.say(b"x" * 60)
        assert response.peek() is None
        wire.abort()
        await turns()
        assert response.peek() is None
        with pytest.raises(Disconnected):
            await response.read(1000)
        await client.aclose()

    run(main())
