"""The shared edge: caps per address, the date line, the ticker, waking a stop."""

from __future__ import annotations

import pytest

from convene.http.server_guard import Edge, address_key
from unit.http.server_doubles import HandMovedLoop, Line, echo, make_edge, only, small


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::9", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        ("", ""),
        (None, ""),
        ((), ""),
    ],
)
def test_one_customer_counts_as_one_address(peer: object, key: str) -> None:
    assert address_key(peer) == key


class Seat:
    """A connection that only holds a place."""

    deadline = 0.0
    unheard = False

    def __init__(self) -> None:
        self.seen: list[float] = []

    def overdue(self, now: float) -> None:
        self.seen.append(now)

    def close_if_idle(self) -> None: ...

    def close_when_sent(self) -> None: ...

    def abort(self) -> None: ...


def edge_with(**changes: int) -> Edge:
    return make_edge(echo, small(**changes), HandMovedLoop())


async def test_the_cap_per_address_counts_open_connections_and_frees_closed_ones() -> None:
    edge = edge_with(connections_per_address_max=2)
    seats = [Seat() for _ in range(4)]
    assert [edge.admit(seat, "a") for seat in seats[:3]] == [None, None, "address"]
    assert edge.admit(seats[3], "b") is None
    edge.forget(seats[2], "a")
    edge.forget(seats[0], "a")
    assert edge.admit(Seat(), "a") is None
    for seat in list(edge.connections):
        edge.forget(seat, "a")
    assert edge._addresses == {"b": 1}


async def test_the_total_cap_counts_all_addresses_and_local_sockets() -> None:
    edge = edge_with(connections_max=3, connections_per_address_max=1)
    assert [edge.admit(Seat(), key) for key in ("", "", "a", "b")] == [None, None, None, "total"]


async def test_the_ticker_calls_only_what_is_overdue_and_moves_the_coarse_clock() -> None:
    loop = HandMovedLoop()
    edge = make_edge(echo, small(), loop)
    early, late = Seat(), Seat()
    early.deadline, late.deadline = loop.now + 1, loop.now + 5
    edge.admit(early, "a")
    edge.admit(late, "a")
    loop.now += 2
    edge.tick()
    assert (early.seen, late.seen, edge.now) == ([loop.now], [], loop.now)


async def test_the_date_line_follows_the_wall_clock_by_the_second() -> None:
    wall = [0.0]
    edge = Edge(echo, small(), HandMovedLoop(), new_id=str, wall_now=lambda: wall[0], encode_body=lambda *_: b"")  # type: ignore[arg-type]
    assert edge.date_line == b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    first = edge.date_line
    wall[0] = 0.9
    edge.tick()
    assert edge.date_line is first
    wall[0] = 1.0
    edge.tick()
    assert edge.date_line == b"date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"


async def test_a_connection_above_a_cap_is_told_why_and_closed_and_its_input_ignored() -> None:
    line = Line(echo, small(connections_per_address_max=1))
    second = Line(echo, edge=line.edge)
    answer = only(second.transport.sent)
    assert (answer.status, answer.error["code"]) == (429, "too_many_connections")
    assert "1 connections from one address" in answer.error["message"]
    assert answer.headers["retry-after"] == "1"
    assert second.transport.closed
    assert await second.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == second.transport.writes[0]
    await second.end()
    await line.end()
    assert not line.edge.connections


async def test_above_the_total_cap_the_answer_is_503() -> None:
    line = Line(echo, small(connections_max=1))
    second = Line(echo, edge=line.edge)
    assert only(second.transport.sent).status == 503
    await second.end()
    await line.end()


async def test_waking_without_a_waiter_or_twice_is_harmless() -> None:
    edge = edge_with()
    edge.wake()
    change = edge.next_change()
    edge.wake()
    edge.wake()
    assert change.done()
