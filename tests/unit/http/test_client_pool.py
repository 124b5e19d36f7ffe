"""Slots: reuse, waiting, cancelling, and that none is ever lost. Virtual time, no sockets."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from convene.http.base import ConnectFailed, Disconnected, PoolTimedOut, Request, Timeouts
from convene.http.client import HttpClient
from unit.http.client_doubles import Network, Wire, answering, plain, run, turns

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from convene.http.client_route import Origin

URL = "http://upstream/v1"
GET = Request("GET", URL)
OK = answering(plain(b"ok"))


def counts(client: object) -> tuple[int, int, int, int]:
    """Return (open, idle, connecting, waiting) of the only origin."""
    (stats,) = client.stats()  # type: ignore[attr-defined]
    return stats.open, stats.idle, stats.connecting, stats.waiting


def test_one_request_after_the_other_uses_one_connection() -> None:
    async def main() -> None:
        network = Network(OK)
        client = network.client()
        for _ in range(5):
            response = await client.send(GET)
            assert await response.read(10) == b"ok"
        assert len(network.wires) == 1
        assert counts(client) == (1, 1, 0, 0)
        assert client.stats()[0].origin == "http://upstream:80"
        await client.aclose()
        assert network.wires[0].closed

    run(main())


def test_a_connection_goes_back_when_the_body_is_complete_not_when_it_is_read() -> None:
    async def main() -> None:
        network = Network(OK)
        client = network.client()
        first = await client.send(GET)
        assert counts(client) == (1, 1, 0, 0)
        second = await client.send(GET)
        assert (await first.read(10), await second.read(10)) == (b"ok", b"ok")
        first.close()
        assert len(network.wires) == 1
        await client.aclose()

    run(main())


def test_the_connection_used_last_is_used_next() -> None:
    async def main() -> None:
        network = Network(OK)
        client = network.client()
        await asyncio.gather(*[client.send(GET) for _ in range(3)])
        assert counts(client) == (3, 3, 0, 0)
        used = [wire.writes for wire in network.wires]
        for _ in range(4):
            await client.send(GET)
        assert sorted(wire.writes - was for wire, was in zip(network.wires, used, strict=True)) == [0, 0, 4]
        await client.aclose()

    run(main())


def test_idle_connections_expire_and_then_the_timer_rests() -> None:
    async def main() -> None:
        network = Network(OK)
        client = network.client(idle_s=30.0)
        await client.send(GET)
        await asyncio.sleep(29.9)
        assert counts(client)[:2] == (1, 1)
        await asyncio.sleep(0.3)
        assert counts(client)[:2] == (0, 0)
        assert network.wires[0].closed
        with pytest.raises(AssertionError, match="cannot happen"):
            # Nothing is scheduled any more: the virtual loop has nowhere to go.
            asyncio.get_running_loop()._selector.select(None)  # type: ignore[attr-defined]
        await client.send(GET)
        assert len(network.wires) == 2
        await client.aclose()

    run(main())


@pytest.mark.parametrize(("field", "kept_s"), [("timeout=5", 4.0), ("timeout=100", 29.0), ("timeout=1", 0.3)])
def test_the_peer_s_keep_alive_shortens_the_idle_time(field: str, kept_s: float) -> None:
    async def main() -> None:
        network = Network(answering(plain(b"", f"keep-alive: {field}")))
        client = network.client(idle_s=30.0)
        await client.send(GET)
        await asyncio.sleep(kept_s)
        await client.send(GET)
        assert len(network.wires) == 1
        await asyncio.sleep(kept_s + 1.1)
        assert counts(client)[0] == 0
        await client.aclose()

    run(main())


@pytest.mark.parametrize("field", ["keep-alive: timeout=0", "connection: close"])
def test_a_peer_that_does_not_keep_connections_gets_a_new_one_each_time(field: str) -> None:
    async def main() -> None:
        network = Network(answering(plain(b"ok", field)))
        client = network.client()
        for _ in range(2):
            response = await client.send(GET)
            assert await response.read(10) == b"ok"
            assert counts(client) == (0, 0, 0, 0)
        assert [wire.closed for wire in network.wires] == [True, True]
        await client.aclose()

    run(main())


def test_a_peer_that_closes_an_idle_connection_frees_its_slot() -> None:
    async def main() -> None:
        network = Network(OK)
        client = network.client()
        await client.send(GET)
        network.wires[0].hang_up()
        assert counts(client) == (0, 0, 0, 0)
        await client.send(GET)
        network.wires[1].hang_up(ConnectionResetError())
        assert counts(client) == (0, 0, 0, 0)
        await client.aclose()

    run(main())


def test_bytes_on_an_idle_connection_close_it() -> None:
    async def main() -> None:
        network = Network(OK)
        client = network.client()
        await client.send(GET)
        network.wires[0].say(plain(b"forged"))
        assert network.wires[0].closed
        assert counts(client) == (0, 0, 0, 0)
        response = await client.send(GET)
        assert await response.read(10) == b"ok"
        await client.aclose()

    run(main())


def test_a_fresh_request_never_shares_a_connection_before_or_after() -> None:
    async def main() -> None:
        network = Network(OK)
        client = network.client(connections_per_origin_max=1)
        await client.send(GET)
        fresh = Request("GET", URL, fresh=True)
        response = await client.send(fresh)
        assert await response.read(10) == b"ok"
        assert len(network.wires) == 2
        assert all(wire.closed for wire in network.wires)
        assert b"connection: close\r\n" in network.wires[1].sent
        assert b"connection" not in network.wires[0].sent
        assert counts(client) == (0, 0, 0, 0)
        await client.aclose()

    run(main())


def test_a_fresh_request_that_waited_does_not_take_the_freed_connection() -> None:
    async def main() -> None:
        network = Network()
        client = network.client(connections_per_origin_max=1)
        first = asyncio.create_task(client.send(GET))
        await turns()
        second = asyncio.create_task(client.send(Request("GET", URL, fresh=True)))
        await turns()
        network.wires[0].say(plain(b"1"))
        await turns()
        assert network.wires[0].closed
        network.wires[1].say(plain(b"2"))
        assert await (await first).read(10) == b"1"
        assert await (await second).read(10) == b"2"
        await client.aclose()

    run(main())


def test_waiters_are_served_in_order_and_nobody_overtakes_them() -> None:
    async def main() -> None:
        network = Network()
        client = network.client(connections_per_origin_max=1)
        order: list[int] = []

        async def ask(number: int) -> None:
            await client.send(Request("GET", f"{URL}?{number}"))
            order.append(number)

        tasks = [asyncio.create_task(ask(number)) for number in range(5)]
        await turns()
        assert counts(client) == (1, 0, 0, 4)
        wire = network.wires[0]
        for number in range(5):
            assert wire.sent.count(b"GET") == number + 1
            wire.say(plain(b""))
            # A newcomer at the very moment of the release must queue behind.
            if number == 0:
                tasks.append(asyncio.create_task(ask(5)))
            await turns()
        wire.say(plain(b""))
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4, 5]
        assert len(network.wires) == 1
        await client.aclose()

    run(main())


def test_a_wait_for_a_slot_ends_after_pool_s() -> None:
    async def main() -> None:
        network = Network()
        client = network.client(connections_per_origin_max=1)
        first = asyncio.create_task(client.send(GET))
        await turns()
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(PoolTimedOut, match="http://upstream:80"):
            await client.send(Request("GET", URL, timeouts=Timeouts(pool_s=2.0)))
        assert 2.0 <= loop.time() - began <= 2.1
        assert counts(client) == (1, 0, 0, 0)
        network.wires[0].say(plain(b"ok"))
        await first
        await client.aclose()

    run(main())


def test_a_slot_on_its_way_to_a_cancelled_waiter_is_passed_on() -> None:
    async def main() -> None:
        network = Network()
        client = network.client(connections_per_origin_max=1)
        first = asyncio.create_task(client.send(GET))
        await turns()
        second, third = (asyncio.create_task(client.send(GET)) for _ in range(2))
        await turns()
        network.wires[0].say(plain(b"1"))
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await turns()
        assert network.wires[0].sent.count(b"GET") == 2
        network.wires[0].say(plain(b"3"))
        assert await (await third).read(10) == b"3"
        await first
        assert counts(client) == (1, 1, 0, 0)
        await client.aclose()

    run(main())


def test_a_slot_on_its_way_to_a_cancelled_last_waiter_becomes_idle() -> None:
    async def main() -> None:
        network = Network()
        client = network.client(connections_per_origin_max=1)
        first = asyncio.create_task(client.send(GET))
        await turns()
        second = asyncio.create_task(client.send(GET))
        await turns()
        network.wires[0].say(plain(b"1"))
        second.cancel()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first
        assert counts(client) == (1, 1, 0, 0)
        await client.aclose()

    run(main())


def test_a_connection_that_dies_on_its_way_to_a_waiter_is_replaced_within_its_slot() -> None:
    async def main() -> None:
        network = Network()
        client = network.client(connections_per_origin_max=1)
        first = asyncio.create_task(client.send(GET))
        await turns()
        second = asyncio.create_task(client.send(GET))
        await turns()
        network.wires[0].say(plain(b"1"))
        network.wires[0].hang_up()
        await turns()
        assert counts(client) == (1, 0, 0, 0)
        network.wires[1].say(plain(b"2"))
        assert await (await second).read(10) == b"2"
        await first
        await client.aclose()

    run(main())


def test_a_connection_that_dies_on_its_way_to_a_cancelled_waiter_frees_its_slot() -> None:
    async def main() -> None:
        network = Network()
        client = network.client(connections_per_origin_max=1)
        first = asyncio.create_task(client.send(GET))
        await turns()
        second = asyncio.create_task(client.send(GET))
        await turns()
        network.wires[0].say(plain(b"1"))
        network.wires[0].hang_up()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first
        assert counts(client) == (0, 0, 0, 0)
        await client.aclose()

    run(main())


def test_an_idle_connection_whose_transport_is_closing_is_not_written_to() -> None:
    async def main() -> None:
        network = Network(OK)
        client = network.client()
        await client.send(GET)
        # Closed by the transport itself; the protocol has not been told yet.
        network.wires[0].closed = True
        response = await client.send(GET)
        assert await response.read(10) == b"ok"
        assert [wire.writes for wire in network.wires] == [1, 1]
        assert counts(client) == (1, 1, 0, 0)
        await client.aclose()

    run(main())


def test_a_peer_that_speaks_before_the_transport_is_there_is_a_failed_connect() -> None:
    """Over TLS the first bytes may arrive with the end of the handshake, before `connection_made`."""

    async def main() -> None:
        wires: list[Wire] = []

        async def open_early(
            origin: Origin, tls: ssl.SSLContext | None, factory: Callable[[], asyncio.Protocol]
        ) -> None:
            wire = Wire(factory(), origin, tls)
            wires.append(wire)
            wire.protocol.data_received(b"HTTP/1.1 408 Too Late\r\n\r\n")
            wire.protocol.connection_made(wire)

        client = HttpClient(open_with=open_early)
        with pytest.raises(ConnectFailed, match="at once"):
            await client.send(GET)
        assert wires[0].closed
        assert counts(client) == (0, 0, 0, 0)
        await client.aclose()

    run(main())


def test_a_failed_connect_frees_its_slot_for_the_next_waiter() -> None:
    async def main() -> None:
        network = Network()
        network.failure = ConnectionRefusedError("refused")
        network.delay_s = 0.01
        client = network.client(connections_per_origin_max=1)
        tasks = [asyncio.create_task(client.send(GET)) for _ in range(3)]
        for task in tasks:
            with pytest.raises(ConnectFailed, match="refused"):
                await task
        assert counts(client) == (0, 0, 0, 0)
        await client.aclose()

    run(main())


def test_a_cancelled_connect_frees_its_slot() -> None:
    async def main() -> None:
        network = Network(OK)
        network.delay_s = 1.0
        client = network.client(connections_per_origin_max=1)
        task = asyncio.create_task(client.send(GET))
        await turns()
        assert counts(client) == (1, 0, 1, 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counts(client) == (0, 0, 0, 0)
        assert network.opening == 0
        assert (await client.send(GET)).status == 200
        await client.aclose()

    run(main())


def test_a_connection_that_is_closed_at_once_is_a_failed_connect() -> None:
    async def main() -> None:
        network = Network()
        network.on_open = Wire.hang_up
        client = network.client()
        with pytest.raises(ConnectFailed, match="at once"):
            await client.send(GET)
        assert counts(client) == (0, 0, 0, 0)
        await client.aclose()

    run(main())


def test_a_reused_connection_that_closes_without_a_byte_is_replaced_once() -> None:
    async def main() -> None:
        answers = [plain(b"1"), None, plain(b"3")]

        def on_write(wire: Wire) -> None:
            answer = answers.pop(0)
            if answer is None:
                wire.hang_up()
            else:
                wire.say(answer)

        network = Network(on_write)
        client = network.client()
        await client.send(GET)
        response = await client.send(Request("POST", URL, body=b"x"))
        assert await response.read(10) == b"3"
        assert [wire.writes for wire in network.wires] == [2, 1]
        assert counts(client) == (1, 1, 0, 0)
        await client.aclose()

    run(main())


def test_a_second_close_without_a_byte_is_reported() -> None:
    async def main() -> None:
        answers = [plain(b"1"), None, None, None]

        def on_write(wire: Wire) -> None:
            answer = answers.pop(0)
            if answer is None:
                wire.hang_up()
            else:
                wire.say(answer)

        network = Network(on_write)
        client = network.client()
        await client.send(GET)
        with pytest.raises(Disconnected) as caught:
            await client.send(GET)
        assert not caught.value.received
        assert len(network.wires) == 2
        assert len(answers) == 1
        await client.aclose()

    run(main())


def test_a_new_connection_that_closes_without_a_byte_is_not_tried_again() -> None:
    async def main() -> None:
        network = Network(Wire.hang_up)
        client = network.client()
        with pytest.raises(Disconnected) as caught:
            await client.send(GET)
        assert not caught.value.received
        assert len(network.wires) == 1
        assert counts(client) == (0, 0, 0, 0)
        await client.aclose()

    run(main())


def test_a_reused_connection_that_closes_after_a_byte_is_not_tried_again() -> None:
    async def main() -> None:
        answers = [plain(b"1"), b"HTTP/1.1 200"]

        def on_write(wire: Wire) -> None:
            wire.say(answers.pop(0))
            if not answers:
                wire.hang_up()

        network = Network(on_write)
        client = network.client()
        await client.send(GET)
        with pytest.raises(Disconnected) as caught:
            await client.send(GET)
        assert caught.value.received
        assert len(network.wires) == 1
        await client.aclose()

    run(main())


def test_closing_the_client_ends_everything_and_refuses_later_sends() -> None:
    async def main() -> None:
        network = Network()
        client = network.client(connections_per_origin_max=2)
        busy = asyncio.create_task(client.send(GET))
        await turns()
        network.wires[0].say(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
        response = await busy
        network.delay_s = 60.0
        connecting, waiting = (asyncio.create_task(client.send(GET)) for _ in range(2))
        await turns()
        assert counts(client) == (2, 0, 1, 1)
        began = asyncio.get_running_loop().time()
        await client.aclose()
        with pytest.raises(Disconnected):
            await response.read(10)
        for task in (connecting, waiting):
            with pytest.raises(ConnectFailed, match="closed"):
                await task
        assert counts(client) == (0, 0, 0, 0)
        assert asyncio.get_running_loop().time() == began
        for url in (URL, "http://other/"):
            with pytest.raises(ConnectFailed, match="closed"):
                await client.send(Request("GET", url))
        await client.aclose()

    run(main())


def test_origins_have_pools_of_their_own() -> None:
    async def main() -> None:
        network = Network(OK)
        client = network.client(connections_per_origin_max=1)
        for url in ("http://a/x", "http://a/y?z", "http://b/x", "http://a:81/x"):
            await client.send(Request("GET", url))
        assert [stats.origin for stats in client.stats()] == ["http://a:80", "http://b:80", "http://a:81"]
        await client.aclose()

    run(main())


class Chaos:
    """A peer and a crowd of callers that misbehave by one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - a seeded test
        self.network = Network(self.answer)
        self.client = self.network.client(connections_per_origin_max=3)
        self.ends: dict[str, int] = {}

    def answer(self, wire: Wire) -> None:
        roll = self.chance.random()
        whole = plain(b"x" * self.chance.choice([0, 10, 5000]))
        if roll < 0.1:
            wire.hang_up()
        elif roll < 0.2:
            wire.say(whole[: self.chance.randrange(1, len(whole))])
            wire.hang_up(ConnectionResetError())
        elif roll < 0.3:
            wire.say(b"nonsense\r\n")
        elif roll < 0.9:
            cut = self.chance.randrange(1, len(whole)) if roll < 0.6 else 0
            if cut:
                wire.say(whole[:cut])
            later = self.chance.random() * 0.01
            asyncio.get_running_loop().call_later(later, lambda: None if wire.closed else wire.say(whole[cut:]))

    async def ask(self) -> None:
        self.network.delay_s = self.chance.choice([0.0, 0.001, 0.01])
        timeouts = Timeouts(connect_s=0.5, pool_s=0.5, first_byte_s=0.5, between_bytes_s=0.5, total_s=2.0)
        request = Request("POST", URL, body=b"y", timeouts=timeouts, fresh=self.chance.random() < 0.1)
        name = "ok"
        try:
            response = await self.client.send(request)
            if self.chance.random() < 0.7:
                await response.read(100_000)
            response.close()
        except Exception as error:  # noqa: BLE001 - counted by name; an unexpected one fails the test
            name = type(error).__name__
        self.ends[name] = self.ends.get(name, 0) + 1

    async def churn(self) -> None:
        for _ in range(25):
            task = asyncio.create_task(self.ask())
            await asyncio.sleep(self.chance.random() * 0.012)
            if self.chance.random() < 0.6:
                task.cancel()
                if self.chance.random() < 0.5:
                    await turns(1)
                    task.cancel()
            await asyncio.wait([task])


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_cancelled_whenever_every_slot_comes_back(seed: int) -> None:
    """Random cancels, faults and delays against a small pool; afterwards the counts are exact and requests work."""

    async def main() -> None:
        chaos = Chaos(seed)
        await asyncio.gather(*[chaos.churn() for _ in range(8)])
        assert set(chaos.ends) <= {"ok", "Disconnected", "ProtocolBroken", "TimedOut", "PoolTimedOut"}
        opened, idle, connecting, waiting = counts(chaos.client)
        assert (opened, connecting, waiting) == (idle, 0, 0)
        wires = chaos.network.wires
        assert opened == sum(not wire.closed for wire in wires) <= 3
        chaos.network.on_write = OK
        for wire in wires:
            wire.on_write = OK
        for response in await asyncio.gather(*[chaos.client.send(GET) for _ in range(20)]):
            assert await response.read(10) == b"ok"
        await chaos.client.aclose()
        assert all(wire.closed for wire in wires)

    run(main())
