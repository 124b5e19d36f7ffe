"""Real sockets on real ports: who may have one beside whom."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from convene.http.server_bind import bind, claim, port_of, share

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"


@pytest.fixture
def kept() -> Iterator[contextlib.ExitStack]:
    """Closes what is put on it."""
    with contextlib.ExitStack() as stack:
        yield stack


async def take(kept: contextlib.ExitStack, port: int = 0, *, claiming: bool = False) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    sockets = await (claim if claiming else bind)(loop, HOST, port)
    for one in sockets:
        kept.enter_context(one)
    return sockets


async def test_any_free_port_is_the_same_for_all_addresses_of_a_host(kept: contextlib.ExitStack) -> None:
    sockets = await bind(asyncio.get_running_loop(), "localhost", 0)
    for one in sockets:
        kept.enter_context(one)
    assert {one.getsockname()[1] for one in sockets} == {port_of(sockets)}
    assert port_of(sockets)


@pytest.mark.parametrize("claiming", [False, True])
@pytest.mark.parametrize("listening", [False, True])
async def test_a_claimed_port_is_refused_to_others_from_the_first_moment(
    kept: contextlib.ExitStack, *, claiming: bool, listening: bool
) -> None:
    claimed = await take(kept, claiming=True)
    if listening:
        for one in share(claimed):
            kept.enter_context(one).listen()
    with pytest.raises(OSError, match="in use"):
        await take(kept, port_of(claimed), claiming=claiming)


async def test_a_port_that_somebody_listens_on_cannot_be_claimed(kept: contextlib.ExitStack) -> None:
    [one] = await take(kept)
    one.listen()
    with pytest.raises(OSError, match="in use"):
        await take(kept, port_of([one]), claiming=True)


async def test_a_port_with_dying_connections_can_be_claimed(kept: contextlib.ExitStack) -> None:
    """A restart must not wait for the minute that TIME_WAIT lasts."""
    [one] = await take(kept)
    one.listen()
    port = port_of([one])
    with socket.create_connection((HOST, port)):
        one.settimeout(30.0)
        accepted, _ = one.accept()
        accepted.close()
    one.close()
    assert port_of(await take(kept, port, claiming=True)) == port


async def test_connections_reach_those_that_share_and_never_the_claim(kept: contextlib.ExitStack) -> None:
    claimed = await take(kept, claiming=True)
    workers = [kept.enter_context(one) for _ in range(2) for one in share(claimed)]
    for worker in workers:
        worker.listen(64)
        worker.settimeout(0)
    for _ in range(40):
        kept.enter_context(socket.create_connection((HOST, port_of(claimed)), timeout=30.0))
    counts = []
    for worker in workers:
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                kept.enter_context(worker.accept()[0])
                taken += 1
        counts.append(taken)
    assert sum(counts) == 40
    # The kernel hashes: all 40 to one side would come once in 2^39 runs.
    assert min(counts) > 0


async def test_without_a_worker_nobody_is_let_in(kept: contextlib.ExitStack) -> None:
    claimed = await take(kept, claiming=True)
    [worker] = share(claimed)
    worker.listen()
    worker.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port_of(claimed)), timeout=30.0)
    [again] = share(claimed)
    kept.enter_context(again).listen()
    kept.enter_context(socket.create_connection((HOST, port_of(claimed)), timeout=30.0))
