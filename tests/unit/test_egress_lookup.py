"""Lookups on threads of their own: answers, faults, cancels and the bound."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from convene.egress_lookup import LookupBusy, SystemLookup, ask_system


async def test_an_answer_comes_from_another_thread() -> None:
    seen: list[str] = []

    def ask(host: str, port: int) -> list[str]:
        seen.append(threading.current_thread().name)
        return [f"{host} {port}"]

    assert await SystemLookup(ask)("a.example", 80) == ["a.example 80"]
    assert seen == ["lookup"]


@pytest.mark.parametrize("fault", [socket.gaierror("no such name"), UnicodeError("label too long")])
async def test_a_name_that_cannot_be_looked_up_is_an_os_error(fault: Exception) -> None:
    def ask(host: str, port: int) -> list[str]:
        del host, port
        raise fault

    with pytest.raises(OSError, match=str(fault)):
        await SystemLookup(ask)("a.example", 80)


async def test_a_cancelled_lookup_returns_at_once_and_keeps_its_thread_until_it_ends() -> None:
    release = threading.Event()

    def ask(host: str, port: int) -> list[str]:
        del port
        if host == "slow.example":
            assert release.wait(20)
        return [host]

    lookup = SystemLookup(ask, lookups_max=1)
    task = asyncio.ensure_future(lookup("slow.example", 80))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(LookupBusy):
        await lookup("a.example", 80)
    release.set()
    for thread in threading.enumerate():
        if thread.name == "lookup":
            thread.join(20)
    assert await lookup("a.example", 80) == ["a.example"]


def test_an_answer_after_the_end_of_the_loop_is_dropped() -> None:
    release = threading.Event()
    threads: list[threading.Thread] = []

    def ask(host: str, port: int) -> list[str]:
        del port
        threads.append(threading.current_thread())
        assert release.wait(20)
        return [host]

    async def scene() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await SystemLookup(ask)("a.example", 80)

    asyncio.run(scene())
    release.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_the_system_gives_each_address_once() -> None:
    assert ask_system("127.0.0.1", 80) == ["127.0.0.1"]
