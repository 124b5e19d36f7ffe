"""The composed way out over real sockets on loopback: TLS under the right name, caps, time-outs, a proxy, cancels."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import TYPE_CHECKING

import pytest

from convene.app_egress import HttpWire, open_egress
from convene.config import EgressSettings, Secret
from convene.egress import EgressFailed, EgressRefused, Hop, Request, WireFault
from convene.egress_url import read_url
from egress_doubles import Names
from process.http_client_peers import LOOPS, Authority, Peer, always, answer, reached, upstream

if TYPE_CHECKING:
    from convene.egress import Egress
    from process.http_client_peers import Runner


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Runner:
    """Return what runs a test's coroutine."""
    runner: Runner = request.param
    return runner


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def out(names: Names | None = None, **settings: object) -> Egress:
    """Compose a way out to loopback; every name leads there unless `names` says otherwise."""
    fields = {"allow": ("127.0.0.0/8",), **settings}
    return open_egress(EgressSettings(**fields), names or Names(otherwise="127.0.0.1"))  # type: ignore[arg-type]


async def read(egress: Egress, url: str, **fields: object) -> bytes:
    async with await egress.fetch(Request(url=url, **fields)) as page:  # type: ignore[arg-type]
        return await page.read()


async def fault(egress: Egress, url: str, **fields: object) -> str:
    with pytest.raises(EgressFailed) as caught:
        await read(egress, url, **fields)
    return caught.value.fault


def test_the_server_is_asked_under_its_name_without_a_word_of_the_environment(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.request())
        peer.say(answer(b"hello", "set-cookie: a=b"))
        await peer.gone()

    async def scene() -> None:
        async with upstream(script) as server:
            url = f"http://page.example:{server.port}/a?b"
            assert await read(out(), url) == b"hello"
            assert await read(out(), url) == b"hello"
            host = f"host: page.example:{server.port}".encode()
            rest = b"user-agent: Convene\r\naccept: */*\r\naccept-encoding: gzip, deflate\r\nconnection: close"
            assert heads == [b"GET /a?b HTTP/1.1\r\n" + host + b"\r\n" + rest + b"\r\n\r\n"] * 2
            await reached(lambda: not server.open)

    run(scene())


def test_tls_is_checked_against_the_name_and_the_connection_goes_to_the_judged_address(
    run: Runner, authority: Authority
) -> None:
    context = authority.context("DNS:page.example")
    names: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: names.append(name)

    async def scene() -> None:
        async with upstream(always(answer(b"safe")), context) as server:
            lookup = Names({"page.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
            egress = out(lookup, ca_file=authority.ca_file)
            assert await read(egress, f"https://page.example:{server.port}/") == b"safe"
            assert names == ["page.example"]
            assert await fault(egress, f"https://other.example:{server.port}/") == "connect"
            assert await fault(egress, f"https://127.0.0.1:{server.port}/") == "connect"
            assert await fault(out(), f"https://page.example:{server.port}/") == "connect"

    run(scene())


def test_the_next_judged_address_is_tried_when_one_is_dead(run: Runner) -> None:
    async def scene() -> None:
        async with upstream(always(answer(b"alive"))) as server:
            names = Names({"page.example": ["127.0.0.9", "127.0.0.1"]})
            assert await read(out(names), f"http://page.example:{server.port}/") == b"alive"
            assert names.asked == ["page.example"]
        assert await fault(out(), f"http://page.example:{server.port}/") == "connect"

    run(scene())


def test_a_redirect_inside_is_refused_and_one_to_a_permitted_place_followed(run: Runner) -> None:
    async def script(peer: Peer) -> None:
        head = await peer.request()
        where = {b"/in": "http://10.0.0.1/", b"/on": "/end"}.get(head.split(b" ")[1])
        peer.say(answer(b"end") if where is None else f"HTTP/1.1 302 F\r\nlocation: {where}\r\n\r\n".encode())
        await peer.gone()

    async def scene() -> None:
        async with upstream(script) as server:
            assert await read(out(), f"http://page.example:{server.port}/on") == b"end"
            with pytest.raises(EgressRefused):
                await read(out(), f"http://page.example:{server.port}/in")
            await reached(lambda: not server.open)

    run(scene())


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_body_is_unpacked_and_a_bomb_is_not(run: Runner, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress

    async def scene(body: bytes) -> bytes | str:
        async with upstream(always(answer(pack(body), f"content-encoding: {coding}"))) as server:
            egress = out(body_bytes_max=100_000)
            try:
                return await read(egress, f"http://page.example:{server.port}/")
            except EgressFailed as error:
                return error.fault

    async def scenes() -> None:
        assert await scene(b"hello" * 1000) == b"hello" * 1000
        assert await scene(b"\0" * 100_001) == "too_large"
        assert await scene(b"\0" * 50_000_000) == "too_large"

    run(scenes())


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress", "x"])
def test_a_coding_that_was_not_asked_for_is_a_broken_answer(run: Runner, coding: str) -> None:
    async def scene() -> None:
        async with upstream(always(answer(b"data", f"content-encoding: {coding}"))) as server:
            assert await fault(out(), f"http://page.example:{server.port}/") == "broken"

    run(scene())


def test_an_endless_body_ends_at_the_cap_and_the_connection_is_closed(run: Runner) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not peer.writer.is_closing():
            peer.say(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await peer.writer.drain()

    async def scene() -> None:
        async with upstream(script) as server:
            assert await fault(out(body_bytes_max=100_000), f"http://page.example:{server.port}/") == "too_large"
            await reached(lambda: not server.open)

    run(scene())


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\x01\x02",
    ],
)
def test_a_head_that_is_too_large_or_no_http_is_a_broken_answer(run: Runner, head: bytes) -> None:
    async def scene() -> None:
        async with upstream(always(head)) as server:
            assert await fault(out(), f"http://page.example:{server.port}/") == "broken"

    run(scene())


def test_silence_before_or_inside_an_answer_ends_it(run: Runner) -> None:
    def silent_after(data: bytes) -> object:
        async def script(peer: Peer) -> None:
            await peer.request()
            peer.say(data)
            await peer.gone()

        return script

    async def scene() -> None:
        for data in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"):
            async with upstream(silent_after(data)) as server:  # type: ignore[arg-type]
                url = f"http://page.example:{server.port}/"
                assert await fault(out(first_byte_s=0.05), url) == "timeout"
                assert await fault(out(total_s=0.05), url) == "timeout"
                await reached(lambda: not server.open)

    run(scene())


def test_a_body_that_drips_for_ever_ends_with_the_total_time(run: Runner) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not peer.writer.is_closing():
            peer.say(b"x")
            await asyncio.sleep(0.01)

    async def scene() -> None:
        async with upstream(script) as server:
            assert await fault(out(total_s=0.2), f"http://page.example:{server.port}/") == "timeout"
            await reached(lambda: not server.open)

    run(scene())


def test_a_cancelled_fetch_closes_its_connection_and_gives_its_slot_back(run: Runner) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async def scene() -> None:
        async with upstream(script) as server:
            egress = out(open_max=1)
            for _ in range(20):
                task = asyncio.ensure_future(egress.fetch(Request(url=f"http://page.example:{server.port}/")))
                await reached(lambda: bool(server.open))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await reached(lambda: not server.open)

    run(scene())


def test_a_post_carries_its_body_and_headers(run: Runner) -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        got.append(await peer.request())
        peer.say(answer(b"{}"))
        await peer.gone()

    async def scene() -> None:
        async with upstream(script) as server:
            headers = (("content-type", "application/json"), ("idempotency-key", "run:1"))
            url = f"http://agent.example:{server.port}/submit"
            assert await read(out(), url, method="POST", body=b'{"a":1}', headers=headers) == b"{}"
        assert got[0].startswith(b"POST /submit HTTP/1.1\r\n")
        assert b"idempotency-key: run:1\r\n" in got[0]
        assert got[0].endswith(b'\r\n\r\n{"a":1}')

    run(scene())


def test_a_header_that_could_forge_another_is_never_sent(run: Runner) -> None:
    async def scene() -> None:
        async with upstream(always(answer())) as server:
            url = f"http://agent.example:{server.port}/"
            for pair in (("x", "a\r\ny: z"), ("host", "other"), ("content-length", "9"), ("a b", "c")):
                assert await fault(out(), url, headers=(pair,)) == "broken"
            assert server.accepted == 0

    run(scene())


def test_through_a_proxy_names_are_not_looked_up_here(run: Runner) -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.request())
        peer.say(answer(b"by proxy"))
        await peer.gone()

    async def scene() -> None:
        async with upstream(script) as proxy:
            names = Names()
            egress = out(names, proxy=Secret(f"http://user:pass@127.0.0.1:{proxy.port}"))
            assert await read(egress, "http://page.example/a") == b"by proxy"
            assert names.asked == []
            assert heads[0].startswith(b"GET http://page.example/a HTTP/1.1\r\nhost: page.example\r\n")
            assert b"proxy-authorization: Basic dXNlcjpwYXNz\r\n" in heads[0]
            with pytest.raises(EgressRefused):
                await read(egress, "http://169.254.169.254/")
            assert await fault(egress, "https://page.example/") == "connect", "this proxy knows no CONNECT"
            assert heads[1].startswith(b"CONNECT page.example:443 HTTP/1.1\r\n")

    run(scene())


def to(port: int, addresses: tuple[str, ...]) -> Hop:
    return Hop(
        place=read_url(f"http://127.0.0.1:{port}/"),
        addresses=addresses,
        method="GET",
        headers=(("accept-encoding", "gzip"),),
        body=b"",
        connect_s=5.0,
        first_byte_s=5.0,
        total_s=5.0,
        body_bytes_max=1024,
    )


def test_the_wire_itself_unpacks_no_more_than_the_cap(run: Runner) -> None:
    async def scene() -> None:
        async with upstream(always(answer(gzip.compress(b"x" * 2000), "content-encoding: gzip"))) as server:
            reply = await HttpWire().send(to(server.port, ("127.0.0.1",)))
            with pytest.raises(WireFault, match="expands") as caught:
                assert not [piece async for piece in reply.chunks()]
            assert caught.value.fault == "too_large"
            reply.close()

    run(scene())


def test_the_wire_connects_nowhere_without_a_judged_address(run: Runner) -> None:
    async def scene() -> None:
        async with upstream(always(answer())) as server:
            hop = to(server.port, ())
            with pytest.raises(WireFault, match="another host") as caught:
                await HttpWire().send(hop)
            assert caught.value.fault == "connect"
            assert server.accepted == 0

    run(scene())
