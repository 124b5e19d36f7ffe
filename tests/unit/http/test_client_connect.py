"""Opening a connection: the order of addresses. A loop that only pretends to connect, no sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from convene.http.client_route import Origin
from convene.http.connect import ATTEMPT_S, open_connection
from unit.http.client_doubles import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable


class Dialler(VirtualLoop):
    """Pretends to resolve to `addresses`; those in `silent` never answer, those in `refusing` refuse."""

    def __init__(self, addresses: list[str], *, silent: tuple[str, ...] = (), refusing: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.addresses = addresses
        self.silent = silent
        self.refusing = refusing
        self.tried: list[str] = []
        self.resolved: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:  # noqa: ANN401
        self.resolved.append(host)
        if not self.addresses:
            raise socket.gaierror("no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

    async def create_connection(self, factory: Callable[[], Any], host: Any, *_: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        self.tried.append(host)
        if host in self.silent:
            await asyncio.sleep(3600)
        if host in self.refusing:
            raise ConnectionRefusedError(host)
        factory()
        return None, None

    def dial(self, host: str) -> float:
        """Connect to `host`; return how long it took."""
        began = self.time()
        try:
            self.run_until_complete(open_connection(Origin("http", host, 80), None, asyncio.Protocol))
        finally:
            self.close()
        return self.time() - began


def test_an_address_is_not_looked_up() -> None:
    for address in ("127.0.0.1", "::1"):
        loop = Dialler([])
        loop.dial(address)
        assert (loop.tried, loop.resolved) == ([address], [])


def test_addresses_are_tried_in_turn_and_a_dead_one_costs_one_second() -> None:
    loop = Dialler(["::9", "::9", "10.0.0.1", "10.0.0.2"], silent=("::9",), refusing=("10.0.0.1",))
    assert loop.dial("name") == pytest.approx(ATTEMPT_S, abs=0.01)
    assert (loop.tried, loop.resolved) == (["::9", "10.0.0.1", "10.0.0.2"], ["name"])


def test_the_last_address_s_failure_is_the_failure() -> None:
    with pytest.raises(ConnectionRefusedError, match=r"10\.0\.0\.2"):
        Dialler(["10.0.0.1", "10.0.0.2"], refusing=("10.0.0.1", "10.0.0.2")).dial("name")
    with pytest.raises(socket.gaierror):
        Dialler([]).dial("name")


def test_given_addresses_are_all_that_is_tried_and_nothing_is_looked_up() -> None:
    loop = Dialler(["10.0.0.9"], refusing=("10.0.0.1",))
    origin = Origin("http", "name", 80)
    loop.run_until_complete(open_connection(origin, None, asyncio.Protocol, addresses=("10.0.0.1", "10.0.0.2")))
    loop.close()
    assert (loop.tried, loop.resolved) == (["10.0.0.1", "10.0.0.2"], [])
