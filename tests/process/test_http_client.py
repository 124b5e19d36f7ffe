"""The client over real sockets: cancellation, faults at every byte, the keep-alive race. On both event loops."""

from __future__ import annotations

import asyncio
import gzip
import random
from typing import TYPE_CHECKING

import pytest

from convene.http.base import ConnectFailed, Disconnected, HttpError, ProtocolBroken, Request, TimedOut, Timeouts
from convene.http.client import ClientOptions, HttpClient
from process.http_client_peers import BOUND_S, LOOPS, Peer, always, answer, reached, upstream

if TYPE_CHECKING:
    from process.http_client_peers import Runner


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Runner:
    """Return what runs a test's coroutine."""
    runner: Runner = request.param
    return runner


def get(port: int, timeouts: Timeouts | None = None) -> Request:
    return Request("GET", f"http://127.0.0.1:{port}/", timeouts=timeouts or Timeouts())


def test_bodies_of_every_form_arrive_whole(run: Runner) -> None:
    body = random.Random(3).randbytes(1 << 21)  # noqa: S311 - test data
    forms = [
        answer(body),
        answer(gzip.compress(body), "content-encoding: gzip"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        b"HTTP/1.1 200 OK\r\n\r\n" + body,
    ]

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            number = int(request.split(b" ")[1][1:])
            peer.say(forms[number])
            if number == 3:
                return

    async def main() -> None:
        async def slow(peer: Peer) -> None:
            await script(peer)
            await peer.writer.drain()
            peer.writer.close()
            await peer.gone()

        async with upstream(slow) as up:
            client = HttpClient()
            for number in range(4):
                url = f"http://127.0.0.1:{up.port}/{number}"
                response = await client.send(Request("POST", url, body=body))
                assert await response.read(1 << 22) == body
                response = await client.send(Request("POST", url, body=b"x"))
                assert b"".join([chunk async for chunk in response.chunks()]) == body
            await client.aclose()

    run(main())


def test_cancel_churn_leaves_the_pool_whole(run: Runner) -> None:
    """Goal C2 in small: 20 tasks, a pool of 10, cancels after 0 to 6 ms; afterwards 20 plain requests must work."""
    chance = random.Random(11)  # noqa: S311 - a seeded test

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(chance.random() * 0.006)
            peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
            await asyncio.sleep(chance.random() * 0.003)
            peer.say(b"cd")

    async def main() -> None:
        async with upstream(script) as up:
            client = HttpClient(ClientOptions(connections_per_origin_max=10))
            cancelled = 0

            async def ask() -> None:
                response = await client.send(get(up.port))
                assert await response.read(10) == b"abcd"

            async def churn() -> None:
                nonlocal cancelled
                for _ in range(700):
                    task = asyncio.create_task(ask())
                    await asyncio.sleep(chance.random() * 0.006)
                    task.cancel()
                    (done,) = (await asyncio.wait([task]))[0]
                    cancelled += done.cancelled()
                    if not done.cancelled():
                        done.result()

            await asyncio.gather(*[churn() for _ in range(20)])
            assert cancelled > 1000
            (stats,) = client.stats()
            assert (stats.open, stats.connecting, stats.waiting) == (stats.idle, 0, 0)
            await reached(lambda: len(up.open) == client.stats()[0].open)
            await asyncio.gather(*[ask() for _ in range(20)])
            await client.aclose()
            await reached(lambda: not up.open)

    run(main())


def test_sixty_double_cancels_of_streams_leave_the_pool_whole(run: Runner) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        if b"/plain" in request:
            peer.say(answer())
        else:
            peer.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        await peer.gone()

    async def main() -> None:
        async with upstream(script) as up:
            client = HttpClient(ClientOptions(connections_per_origin_max=2))

            async def stream(begun: asyncio.Event) -> None:
                response = await client.send(get(up.port))
                async for _ in response.chunks():
                    begun.set()

            for _ in range(60):
                begun = asyncio.Event()
                task = asyncio.create_task(stream(begun))
                await begun.wait()
                task.cancel()
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
            assert client.stats()[0].open == 0
            response = await client.send(Request("GET", f"http://127.0.0.1:{up.port}/plain"))
            assert await response.read(10) == b"ok"
            await client.aclose()

    run(main())


@pytest.mark.parametrize("stage", ["silent", "streaming", "read"])
def test_the_upstream_sees_the_close_of_a_cancelled_request_while_it_says_nothing(run: Runner, stage: str) -> None:
    """Goal C1: the close must come from the cancel itself, as neither side has anything more to say."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        asked, gone = loop.create_future(), loop.create_future()

        async def script(peer: Peer) -> None:
            await peer.request()
            if stage != "silent":
                peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nab")
            asked.set_result(None)
            await peer.gone()
            gone.set_result(None)

        async with upstream(script) as up:
            client = HttpClient()
            begun = asyncio.Event()

            async def ask() -> None:
                response = await client.send(get(up.port))
                if stage == "read":
                    begun.set()
                    await response.read(100)
                async for _ in response.chunks():
                    begun.set()

            task = asyncio.create_task(ask())
            await (asked if stage == "silent" else begun.wait())
            task.cancel()
            await asyncio.wait([task])
            async with asyncio.timeout(BOUND_S):
                await gone
            await client.aclose()

    run(main())


def test_an_answer_cut_at_any_byte_by_fin_or_rst_is_a_disconnect(run: Runner) -> None:
    whole = answer(b"0123456789", "x: y")

    async def main() -> None:
        cut, by_reset = 0, False

        async def script(peer: Peer) -> None:
            await peer.request()
            peer.say(whole[:cut])
            await peer.writer.drain()
            if by_reset:
                peer.reset()
            else:
                peer.writer.close()
                await peer.gone()

        async with upstream(script) as up:
            client = HttpClient()
            for by_reset in (False, True):
                for cut in range(len(whole)):
                    with pytest.raises(Disconnected) as caught:
                        await (await client.send(get(up.port))).read(100)
                    # A reset may overtake the bytes before it; a FIN never does.
                    assert caught.value.received is (cut > 0) or by_reset
            assert client.stats()[0].open == 0
            await client.aclose()

    run(main())


def test_a_half_closed_upstream_that_has_answered_whole_is_answered_for(run: Runner) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.say(answer(b"whole"))
        peer.writer.write_eof()
        await peer.gone()

    async def main() -> None:
        async with upstream(script) as up:
            client = HttpClient()
            for _ in range(10):
                response = await client.send(get(up.port))
                assert await response.read(10) == b"whole"
            await reached(lambda: client.stats()[0].open == 0)
            await client.aclose()

    run(main())


@pytest.mark.parametrize(
    "bad",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabXX",
        answer(gzip.compress(bytes(32 << 20)), "content-encoding: gzip"),
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
    ],
    ids=["corrupt chunk", "gzip bomb", "large header", "many headers", "TLS alert"],
)
def test_a_broken_answer_is_protocol_broken_and_closes(run: Runner, bad: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.say(bad)
        await peer.gone()

    async def main() -> None:
        async with upstream(script) as up:
            client = HttpClient()
            with pytest.raises(ProtocolBroken):
                await (await client.send(get(up.port))).read(1 << 30)
            assert client.stats()[0].open == 0
            await reached(lambda: not up.open)
            await client.aclose()

    run(main())


@pytest.mark.parametrize(
    ("said", "phase"),
    [(b"", "first_byte"), (b"HTTP/1.1 2", "between_bytes"), (answer(b"0123456789")[:-3], "between_bytes")],
)
def test_a_stalled_upstream_ends_in_its_time_out_and_sees_the_close(run: Runner, said: bytes, phase: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.say(said)
        await peer.gone()

    async def main() -> None:
        async with upstream(script) as up:
            client = HttpClient()
            timeouts = Timeouts(first_byte_s=0.2) if phase == "first_byte" else Timeouts(between_bytes_s=0.1)
            with pytest.raises(TimedOut) as caught:
                await (await client.send(get(up.port, timeouts))).read(100)
            assert caught.value.phase == phase
            await reached(lambda: not up.open)
            await client.aclose()

    run(main())


def test_a_reader_that_does_not_read_holds_the_upstream_back(run: Runner) -> None:
    piece = bytes(1 << 16)

    async def main() -> None:
        sent = 0

        async def script(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * 1000))
            for _ in range(1000):
                peer.say(piece)
                await peer.writer.drain()
                sent += len(piece)
            await peer.gone()

        async with upstream(script) as up:
            client = HttpClient()
            response = await client.send(get(up.port))
            seen = -1
            while seen != sent:
                seen = sent
                for _ in range(20):
                    await asyncio.sleep(0.005)
            assert sent < len(piece) * 900
            assert len(await response.read(1 << 30)) == len(piece) * 1000
            await client.aclose()

    run(main())


def test_an_upstream_that_closes_its_idle_connections_is_never_noticed(run: Runner) -> None:
    """The keep-alive race: it closes as soon as it has answered, so the close and the next request often cross."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.say(answer())
        await peer.writer.drain()
        peer.writer.close()

    async def main() -> None:
        async with upstream(script) as up:
            client = HttpClient()
            for _ in range(300):
                response = await client.send(get(up.port))
                assert await response.read(10) == b"ok"
            assert up.accepted >= 300
            await client.aclose()

    run(main())


def test_a_request_that_meets_the_close_of_a_reused_connection_is_sent_again(run: Runner) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.say(answer(b"%d" % peer.number))
        # The next request is read and dropped: the client cannot tell this from a close that crossed it.
        await peer.request()

    async def main() -> None:
        async with upstream(script) as up:
            client = HttpClient()
            for number in range(20):
                response = await client.send(Request("POST", f"http://127.0.0.1:{up.port}/", body=b"x"))
                assert await response.read(10) == b"%d" % number
            assert up.accepted == 20
            await client.aclose()

    run(main())


def test_nobody_listening_is_a_failed_connect(run: Runner) -> None:
    async def main() -> None:
        async with upstream(always(b"")) as up:
            port = up.port
        client = HttpClient()
        with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}"):
            await client.send(get(port))
        with pytest.raises(ConnectFailed):
            await client.send(Request("GET", "http://" + "a" * 70 + ".invalid/"))
        assert {stats.open for stats in client.stats()} == {0}
        await client.aclose()

    run(main())


def test_connections_have_no_delay_and_keep_alive(run: Runner) -> None:
    async def main() -> None:
        async with upstream(always(answer())) as up:
            client = HttpClient()
            await client.send(get(up.port))
            (pool,) = client._pools.values()
            transport = pool._idle[0]._transport
            assert transport is not None
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(6, 1) != 0  # IPPROTO_TCP, TCP_NODELAY
            assert sock.getsockopt(1, 9) != 0  # SOL_SOCKET, SO_KEEPALIVE
            await client.aclose()

    run(main())


def test_closing_the_client_closes_every_socket(run: Runner) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.say(answer() if peer.number % 2 else b"")
        await peer.gone()

    async def main() -> None:
        async with upstream(script) as up:
            client = HttpClient()
            tasks = [asyncio.create_task(client.send(get(up.port))) for _ in range(10)]
            await reached(lambda: len(up.open) == 10 and client.stats()[0].idle == 5)
            await client.aclose()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(isinstance(end, HttpError) for end in ends) == 5
            await reached(lambda: not up.open)

    run(main())
