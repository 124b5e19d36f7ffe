"""Goal E1: no address that is refused is ever connected to, however it is spelled and whichever way leads there.

Everything is real but the names: the composed way out, the HTTP client, sockets. `connect` of every socket is noted;
sentinels listen where the spellings lead; a front server stands on the one loopback address that is permitted and
redirects wherever it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from convene.app_egress import open_egress
from convene.config import EgressSettings
from convene.egress import Egress, EgressRefused, Request
from egress_doubles import Names, guarded
from egress_samples import BAD_V4, BAD_V6, GOOD_NAMES, GOOD_TARGETS, GOOD_V4, GOOD_V6, odd_urls, spell_v4, spell_v6
from process.http_client_peers import LOOPS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from process.http_client_peers import Runner

FRONT = "127.0.0.2"
SENTINELS = ("127.0.0.1", "::1", "127.1.2.3")
ANCHORS = ("127.0.0.1", "0.0.0.0", "169.254.169.254", "10.1.2.3", "100.64.0.1", "192.168.1.1")  # noqa: S104
"""Addresses that are tried in every spelling and by every way; the others in every spelling."""


class Ground:
    """The servers, and what has been connected to."""

    def __init__(self, port: int, connected: list[str]) -> None:
        self.port = port
        self.connected = connected
        self.reached: list[str] = []
        self.redirect_to = ""
        self.asked = 0

    async def front(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        location = self.redirect_to if b"GET /go" in head else ""
        status = f"302 Found\r\nlocation: {location}" if location else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok".encode())
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async def sentinel(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached.append(str(writer.get_extra_info("sockname")))
        writer.close()


def _listener(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.asynccontextmanager
async def _ground(connected: list[str]) -> AsyncIterator[Ground]:
    front = _listener(FRONT, 0)
    ground = Ground(front.getsockname()[1], connected)
    servers = [await asyncio.start_server(ground.front, sock=front)]
    for address in SENTINELS:
        with contextlib.suppress(OSError):
            servers.append(await asyncio.start_server(ground.sentinel, sock=_listener(address, ground.port)))
    assert len(servers) > 2, "there is something to be reached"
    try:
        yield ground
    finally:
        for server in servers:
            server.close()


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every address that any socket of this process connects to (on asyncio's loop; uvloop connects in C)."""
    seen: list[str] = []
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def watched(sock: socket.socket, address: tuple[str, int]) -> None:
        seen.append(address[0])
        connect(sock, address)

    def watched_ex(sock: socket.socket, address: tuple[str, int]) -> int:
        seen.append(address[0])
        return connect_ex(sock, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    monkeypatch.setattr(socket.socket, "connect_ex", watched_ex)
    return seen


def _out(ground: Ground, names: Names) -> Egress:
    """Compose the real thing. The port is permitted, so that only the address decides."""
    return open_egress(EgressSettings(allow=(f"{FRONT}/32",), ports=(ground.port,), total_s=20.0), names)


async def _is_refused(egress: Egress, url: str) -> bool:
    try:
        (await egress.fetch(Request(url=url))).close()
    except EgressRefused:
        return True
    return False


def _hosts() -> list[str]:
    hosts = [host for address in BAD_V4 for host in spell_v4(address)]
    hosts += [host for address in BAD_V6 for host in spell_v6(address)]
    return list(dict.fromkeys([*hosts, "0", "localhost", "LOCALHOST.", "[::]", "[::1]", "①②⑦.⓪.⓪.①", "127。0。0。1"]))


def _urls(port: int) -> list[str]:
    urls = [f"http://{host}:{port}/" for host in _hosts()]
    urls += [url for anchor in (*ANCHORS, "[::1]") for url in odd_urls(anchor, port)]
    return urls


async def test_no_spelling_of_a_bad_address_is_connected_to(connected: list[str]) -> None:
    async with _ground(connected) as ground:
        egress = _out(ground, Names({"localhost": ["127.0.0.1", "::1"]}))
        urls = _urls(ground.port)
        assert len(urls) >= 1500
        for url in urls:
            assert await _is_refused(egress, url), url
        assert (ground.reached, connected, ground.asked) == ([], [], 0)


async def test_no_redirect_leads_to_a_bad_address(connected: list[str]) -> None:
    async with _ground(connected) as ground:
        egress = _out(ground, Names({"front.example": [FRONT], "localhost": ["127.0.0.1"]}))
        locations = [f"http://{host}:{ground.port}/" for anchor in ANCHORS for host in spell_v4(anchor)]
        locations += [f"//{host}:{ground.port}/" for address in BAD_V6 for host in spell_v6(address)]
        locations += [
            url for url in odd_urls("127.0.0.1", ground.port) if url.isprintable() and "javascript" not in url
        ]
        assert len(locations) >= 400
        start = f"http://front.example:{ground.port}/go"
        refused = 0
        for location in locations:
            ground.redirect_to = location
            # What is no absolute URL is a path of the front's own, so not all are refused.
            refused += await _is_refused(egress, start)
            assert set(connected) == {FRONT}, location
        assert refused >= 400
        assert ground.reached == []


async def test_no_name_leads_to_a_bad_address_alone_or_beside_good_ones(connected: list[str]) -> None:
    async with _ground(connected) as ground:
        names = Names()
        egress = _out(ground, names)
        cases = [
            answers for bad in (*BAD_V4, *BAD_V6) for answers in ([bad], [FRONT, bad], [bad, FRONT], ["8.8.8.8", bad])
        ]
        assert len(cases) >= 300
        for number, answers in enumerate(cases):
            names.table[f"n{number}.example"] = answers
            assert await _is_refused(egress, f"http://n{number}.example:{ground.port}/"), answers
        assert (ground.reached, connected) == ([], [])


async def test_a_name_that_changes_after_it_was_judged_is_connected_to_where_it_was_judged(
    connected: list[str],
) -> None:
    async with _ground(connected) as ground:
        names = Names()
        egress = _out(ground, names)
        for number, bad in enumerate((*BAD_V4, *BAD_V6)):
            host = f"r{number}.example"
            names.table[host] = [bad]
            names.turns[host] = [[FRONT]]
            ground.redirect_to = f"http://{host}:{ground.port}/"
            assert not await _is_refused(egress, f"http://{host}:{ground.port}/"), "judged good, so fetched"
            names.turns[host] = [[FRONT]]
            assert await _is_refused(egress, f"http://{host}:{ground.port}/go"), "judged anew for the redirect"
        assert ground.reached == []
        assert set(connected) == {FRONT}


@pytest.mark.parametrize("run", LOOPS)
def test_on_either_event_loop_the_sentinel_is_not_reached(run: Runner) -> None:
    async def scene() -> None:
        async with _ground([]) as ground:
            egress = _out(ground, Names({"front.example": [FRONT], "localhost": ["127.0.0.1"]}))
            for host in (*spell_v4("127.0.0.1"), *spell_v6("::1"), "localhost", "0"):
                assert await _is_refused(egress, f"http://{host}:{ground.port}/"), host
                ground.redirect_to = f"http://{host}:{ground.port}/"
                await _is_refused(egress, f"http://front.example:{ground.port}/go")
            assert ground.reached == []

    run(scene())


async def test_the_sentinel_would_be_reached_if_its_address_were_permitted(connected: list[str]) -> None:
    async with _ground(connected) as ground:
        egress = open_egress(EgressSettings(allow=("127.0.0.0/8",)), Names({"localhost": ["127.0.0.1"]}))
        with contextlib.suppress(Exception):
            await egress.fetch(Request(url=f"http://localhost:{ground.port}/"))
        assert connected == ["127.0.0.1"]
        assert len(ground.reached) == 1


async def test_good_addresses_are_not_refused() -> None:
    egress, wire, _ = guarded()
    hosts = [*GOOD_V4, *(f"[{address}]" for address in GOOD_V6), *GOOD_NAMES]
    urls = [f"{scheme}://{host}/" for host in hosts for scheme in ("http", "https")]
    urls += [f"https://example.com{target}" for target in GOOD_TARGETS]
    urls += [f"https://example.com/?u={quote(url)}" for url in odd_urls("127.0.0.1", 80)]
    assert len(urls) >= 200
    for url in urls:
        (await egress.fetch(Request(url=url))).close()
    assert len(wire.hops) == len(urls)
