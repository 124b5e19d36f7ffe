"""The pipe between supervisor and worker: every message arrives as it was sent, and an end is noticed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.app_channel import (
    Channel,
    Go,
    Listening,
    Order,
    Restarted,
    RestartEngine,
    Seen,
    Stop,
    ToSupervisor,
    ToWorker,
    Up,
)
from convene.config import Config
from convene.config_handover import seal, unseal
from convene.engine.base import ChildAddress, EngineStatus, EngineView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VIEW = EngineView(status=EngineStatus(state="ready", pid=7), address=ChildAddress("http://127.0.0.1:1", "key"))
ORDER = Order(index=1, count=2, settings=msgspec.Raw(b'{"port":1}'), listeners=(5, 6), lock=7, views={"chat": VIEW})


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Channel, Channel]]:
    """The supervisor's end and the worker's."""
    mine, theirs = socket.socketpair()
    pair = await Channel.open(mine), await Channel.open(theirs)
    yield pair
    for end in pair:
        end.close()


@pytest.mark.parametrize("said", [Go(), Seen("chat", VIEW), Restarted("embedding"), Stop(), Stop(hurry=True)])
async def test_a_worker_hears_what_its_supervisor_says(ends: tuple[Channel, Channel], said: ToWorker) -> None:
    supervisor, worker = ends
    supervisor.send(said)
    assert await worker.hear_supervisor() == said


@pytest.mark.parametrize("said", [Up(), Listening(), RestartEngine("chat", "stuck")])
async def test_a_supervisor_hears_what_its_worker_says(ends: tuple[Channel, Channel], said: ToSupervisor) -> None:
    supervisor, worker = ends
    worker.send(said)
    assert await supervisor.hear_worker() == said


async def test_an_order_brings_settings_engines_and_sockets(ends: tuple[Channel, Channel]) -> None:
    supervisor, worker = ends
    config = msgspec.structs.replace(Config(), cors_origins=("https://example.com",) * 20_000)
    supervisor.send(msgspec.structs.replace(ORDER, settings=msgspec.Raw(seal(config))))
    await supervisor.drain()
    heard = await worker.hear_supervisor()
    assert isinstance(heard, Order)
    assert unseal(bytes(heard.settings)) == config
    assert (heard.index, heard.count, heard.listeners, heard.lock, heard.views) == (1, 2, (5, 6), 7, {"chat": VIEW})


async def test_messages_keep_their_order(ends: tuple[Channel, Channel]) -> None:
    supervisor, worker = ends
    sent: list[ToWorker] = [Go(), Seen("chat", VIEW), Stop(), Stop(hurry=True)]
    for said in sent:
        supervisor.send(said)
    assert [await worker.hear_supervisor() for _ in sent] == sent


async def test_a_peer_that_is_gone_is_heard_as_nothing_and_not_written_to(ends: tuple[Channel, Channel]) -> None:
    supervisor, worker = ends
    supervisor.close()
    supervisor.send(Go())
    assert await worker.hear_supervisor() is None
    worker.close()
    worker.send(Up())


async def test_a_message_cut_off_by_a_death_is_nothing() -> None:
    mine, theirs = socket.socketpair()
    channel = await Channel.open(theirs)
    mine.sendall(msgspec.json.encode(Go()))
    mine.close()
    assert await channel.hear_supervisor() is None
    channel.close()
