"""TLS and proxies over real sockets, with an authority made for the test. On asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest

from convene.http.base import ConnectFailed, HttpError, Request, Timeouts
from convene.http.client import ClientOptions, HttpClient
from process.http_client_peers import LOOPS, Authority, Peer, Upstream, always, answer, reached, upstream

if TYPE_CHECKING:
    from process.http_client_peers import Runner


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Runner:
    """Return what runs a test's coroutine."""
    runner: Runner = request.param
    return runner


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def localhost(authority: Authority) -> ssl.SSLContext:
    return authority.context("DNS:localhost")


def get(port: int, host: str = "localhost", timeouts: Timeouts | None = None) -> Request:
    return Request("GET", f"https://{host}:{port}/v1", timeouts=timeouts or Timeouts())


class Proxy:
    """A CONNECT proxy: `status` answers, `surplus` follows the answer, `heads` are the requests seen."""

    def __init__(self, status: str = "200 OK", surplus: bytes = b"") -> None:
        self.status = status
        self.surplus = surplus
        self.heads: list[bytes] = []

    async def script(self, peer: Peer) -> None:
        head = await peer.request()
        self.heads.append(head)
        peer.say(f"HTTP/1.1 {self.status}\r\nx: y\r\n\r\n".encode() + self.surplus)
        if not self.status.startswith("200") or self.surplus:
            await peer.gone()
            return
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.transport.abort()

        try:
            await asyncio.gather(pump(peer.reader, writer), pump(reader, peer.writer))
        finally:
            writer.transport.abort()


def test_a_certificate_of_a_trusted_authority_is_accepted_and_the_connection_reused(
    run: Runner, authority: Authority, localhost: ssl.SSLContext
) -> None:
    async def main() -> None:
        names: list[str | None] = []
        localhost.sni_callback = lambda _, name, __: names.append(name)
        async with upstream(always(answer(b"secret" * 10_000)), tls=localhost) as up:
            client = HttpClient(ClientOptions(ca_file=authority.ca_file))
            for _ in range(3):
                response = await client.send(get(up.port))
                assert await response.read(1 << 20) == b"secret" * 10_000
            assert up.accepted == 1
            assert names == ["localhost"]
            await client.aclose()
            await reached(lambda: not up.open)

    run(main())


def test_a_context_of_one_s_own_is_used(run: Runner, authority: Authority, localhost: ssl.SSLContext) -> None:
    async def main() -> None:
        async with upstream(always(answer()), tls=localhost) as up:
            client = HttpClient(tls=ssl.create_default_context(cafile=authority.ca_file))
            assert (await client.send(get(up.port))).status == 200
            await client.aclose()

    run(main())


def test_an_unknown_authority_is_a_failed_connect(run: Runner, localhost: ssl.SSLContext) -> None:
    async def main() -> None:
        async with upstream(always(answer()), tls=localhost) as up:
            client = HttpClient()
            with pytest.raises(ConnectFailed, match="certificate verify failed"):
                await client.send(get(up.port))
            assert client.stats()[0].open == 0
            await client.aclose()

    run(main())


def test_a_certificate_for_another_name_is_a_failed_connect(
    run: Runner, authority: Authority, localhost: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with upstream(always(answer()), tls=localhost) as up:
            client = HttpClient(ClientOptions(ca_file=authority.ca_file))
            with pytest.raises(ConnectFailed, match="verify failed"):
                await client.send(get(up.port, "127.0.0.1"))
            await client.aclose()

    run(main())


def test_a_peer_without_tls_is_a_failed_connect(run: Runner, authority: Authority) -> None:
    async def script(peer: Peer) -> None:
        peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async def main() -> None:
        async with upstream(script) as up:
            client = HttpClient(ClientOptions(ca_file=authority.ca_file))
            with pytest.raises(ConnectFailed):
                await client.send(get(up.port))
            assert client.stats()[0].open == 0
            await reached(lambda: not up.open)
            await client.aclose()

    run(main())


async def expect_close_after_cancel(client: HttpClient, request: Request, up: Upstream) -> None:
    """Cancel a request whose peer has accepted and says nothing; the peer must see the close."""
    task = asyncio.create_task(client.send(request))
    await reached(lambda: len(up.open) == 1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await reached(lambda: not up.open)
    assert client.stats()[0].open == 0


def test_a_cancel_or_time_out_in_the_handshake_closes_the_socket(run: Runner, authority: Authority) -> None:
    async def main() -> None:
        async with upstream(Peer.gone) as up:
            client = HttpClient(ClientOptions(ca_file=authority.ca_file))
            await expect_close_after_cancel(client, get(up.port), up)
            with pytest.raises(ConnectFailed, match=r"within 0\.1 s"):
                await client.send(get(up.port, timeouts=Timeouts(connect_s=0.1)))
            await reached(lambda: not up.open)
            await client.aclose()

    run(main())


def test_a_cancel_of_a_stream_over_tls_closes_the_socket(
    run: Runner, authority: Authority, localhost: ssl.SSLContext
) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            asked.set()
            await peer.gone()

        async with upstream(script, tls=localhost) as up:
            client = HttpClient(ClientOptions(ca_file=authority.ca_file))
            task = asyncio.create_task(client.send(get(up.port)))
            await asked.wait()
            task.cancel()
            await asyncio.wait([task])
            await reached(lambda: not up.open)
            await client.aclose()

    run(main())


def test_a_tunnel_through_a_proxy_carries_tls_to_the_origin(
    run: Runner, authority: Authority, localhost: ssl.SSLContext
) -> None:
    async def main() -> None:
        proxy = Proxy()
        async with upstream(always(answer(b"inside")), tls=localhost) as up, upstream(proxy.script) as hop:
            url = f"http://user:word@127.0.0.1:{hop.port}"
            client = HttpClient(ClientOptions(ca_file=authority.ca_file, https_proxy=url))
            for _ in range(2):
                response = await client.send(get(up.port))
                assert await response.read(10) == b"inside"
            (head,) = proxy.heads
            assert head.startswith(f"CONNECT localhost:{up.port} HTTP/1.1\r\nhost: localhost:{up.port}\r\n".encode())
            assert b"proxy-authorization: Basic dXNlcjp3b3Jk\r\n" in head
            await client.aclose()
            await reached(lambda: not up.open and not hop.open)

    run(main())


@pytest.mark.parametrize(
    ("status", "surplus", "says"),
    [
        ("407 Proxy Authentication Required", b"", "407"),
        ("502 Bad Gateway", b"some text", "502"),
        ("200 OK", b"injected", "more than its answer"),
    ],
)
def test_a_proxy_that_refuses_or_injects_is_a_failed_connect(
    run: Runner, authority: Authority, status: str, surplus: bytes, says: str
) -> None:
    async def main() -> None:
        proxy = Proxy(status, surplus)
        async with upstream(proxy.script) as hop:
            url = f"http://user:word@127.0.0.1:{hop.port}"
            client = HttpClient(ClientOptions(ca_file=authority.ca_file, https_proxy=url))
            with pytest.raises(ConnectFailed, match=says) as caught:
                await client.send(get(1))
            assert "word" not in str(caught.value)
            assert client.stats()[0].open == 0
            await reached(lambda: not hop.open)
            await client.aclose()

    run(main())


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 20", b"nonsense\r\n\r\n"])
def test_a_proxy_that_breaks_off_is_a_failed_connect(run: Runner, authority: Authority, said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.say(said)
        await peer.writer.drain()
        peer.writer.close()
        await peer.gone()

    async def main() -> None:
        async with upstream(script) as hop:
            client = HttpClient(ClientOptions(ca_file=authority.ca_file, https_proxy=f"http://127.0.0.1:{hop.port}"))
            with pytest.raises(ConnectFailed):
                await client.send(get(1))
            await reached(lambda: not hop.open)
            await client.aclose()

    run(main())


def test_a_cancel_while_the_proxy_is_silent_closes_the_socket(run: Runner, authority: Authority) -> None:
    async def main() -> None:
        async with upstream(Peer.gone) as hop:
            client = HttpClient(ClientOptions(ca_file=authority.ca_file, https_proxy=f"http://127.0.0.1:{hop.port}"))
            await expect_close_after_cancel(client, get(1), hop)
            await client.aclose()

    run(main())


def test_a_plain_request_goes_to_the_proxy_in_absolute_form(run: Runner) -> None:
    async def main() -> None:
        heads: list[bytes] = []

        async def script(peer: Peer) -> None:
            while True:
                heads.append(await peer.request())
                peer.say(answer(b"by proxy"))

        async with upstream(script) as hop:
            client = HttpClient(ClientOptions(http_proxy=f"http://127.0.0.1:{hop.port}"))
            response = await client.send(Request("GET", "http://no-such-host.invalid/v1"))
            assert await response.read(10) == b"by proxy"
            assert heads[0].startswith(b"GET http://no-such-host.invalid/v1 HTTP/1.1\r\nhost: no-such-host.invalid\r\n")
            await client.aclose()

    run(main())


def test_tls_cancel_churn_leaves_no_socket(run: Runner, authority: Authority, localhost: ssl.SSLContext) -> None:
    async def main() -> None:
        async with upstream(always(answer()), tls=localhost) as up:
            client = HttpClient(ClientOptions(ca_file=authority.ca_file, connections_per_origin_max=3))
            for step in range(60):
                tasks = [asyncio.create_task(client.send(get(up.port))) for _ in range(4)]
                await asyncio.sleep(step * 0.0002)
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
                assert not [end for end in ends if isinstance(end, HttpError)]
            (stats,) = client.stats()
            assert (stats.open, stats.connecting, stats.waiting) == (stats.idle, 0, 0)
            assert (await client.send(get(up.port))).status == 200
            await client.aclose()
            await reached(lambda: not up.open)

    run(main())
