"""An engine in another process, as a worker sees it: the same answers as the real one's, from what it is told."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from convene.engine.base import (
    ChildAddress,
    EngineFault,
    EngineSettings,
    EngineStatus,
    EngineView,
    LocalEngine,
    NotReady,
    State,
)
from convene.engine.remote import RemoteEngine

ADDRESS = ChildAddress("http://127.0.0.1:4711", "secret")
OTHER = ChildAddress("http://127.0.0.1:4712", "other")


def make(asked: list[str] | None = None) -> RemoteEngine:
    return RemoteEngine("tiny", "chat", EngineSettings(slots=2), (asked if asked is not None else []).append)


def view(state: State, address: ChildAddress | None = None, **more: object) -> EngineView:
    return msgspec.structs.replace(EngineView(status=EngineStatus(state=state), address=address), **more)


def test_it_is_a_local_engine_with_the_name_mode_and_settings_of_the_real_one() -> None:
    engine: LocalEngine = make()
    assert (engine.name, engine.mode, engine.settings.slots) == ("tiny", "chat", 2)


async def test_before_anything_is_told_it_is_absent() -> None:
    engine = make()
    engine.start()
    assert engine.status().state == "absent"
    with pytest.raises(NotReady, match="is not started"):
        await engine.wait_ready()


def test_a_ready_one_gives_its_address() -> None:
    engine = make()
    engine.see(view("ready", ADDRESS))
    assert engine.address() == ADDRESS
    assert engine.status().state == "ready"


def test_after_a_restart_it_gives_the_new_address() -> None:
    engine = make()
    engine.see(view("ready", ADDRESS))
    engine.see(view("loading"))
    with pytest.raises(NotReady, match="still loading"):
        engine.address()
    engine.see(view("ready", OTHER))
    assert engine.address() == OTHER


async def test_whoever_waits_hears_that_it_is_ready() -> None:
    engine = make()
    engine.see(view("fetching"))
    waiting = asyncio.create_task(engine.wait_ready(60.0))
    await asyncio.sleep(0)
    engine.see(view("loading"))
    await asyncio.sleep(0)
    assert not waiting.done()
    engine.see(view("ready", ADDRESS))
    assert await waiting == ADDRESS


async def test_a_wait_that_is_too_long_says_how_it_stands() -> None:
    engine = make()
    engine.see(view("fetching"))
    with pytest.raises(NotReady, match="still being downloaded"):
        await engine.wait_ready(0)


@pytest.mark.parametrize("retryable", [True, False])
def test_a_failed_one_says_the_real_ones_reason(*, retryable: bool) -> None:
    engine = make()
    engine.see(view("failed", fault="It is damaged.", fault_detail="line 3", fault_retryable=retryable))
    with pytest.raises(EngineFault) as caught:
        engine.address()
    assert (caught.value.message, caught.value.detail) == ("It is damaged.", "line 3")
    assert caught.value.retryable is retryable
    assert EngineFault.retryable, "the instance, not the class"


def test_a_fault_that_is_over_is_not_raised() -> None:
    """The real one remembers the last fault while it loads again."""
    engine = make()
    engine.see(view("loading", fault="It is damaged."))
    with pytest.raises(NotReady, match="still loading"):
        engine.address()


async def test_a_restart_is_asked_for_and_waited_for() -> None:
    asked: list[str] = []
    engine = make(asked)
    restarting = asyncio.create_task(engine.restart("stuck"))
    await asyncio.sleep(0)
    assert asked == ["stuck"]
    assert not restarting.done()
    engine.restarted()
    await restarting


async def test_a_second_restart_waits_for_its_own_end() -> None:
    engine = make()
    for _ in range(2):
        restarting = asyncio.create_task(engine.restart("stuck"))
        await asyncio.sleep(0)
        assert not restarting.done()
        engine.restarted()
        await restarting


async def test_closing_ends_every_wait_and_forgets_the_key() -> None:
    engine = make()
    engine.see(view("loading"))
    waiting = asyncio.create_task(engine.wait_ready())
    restarting = asyncio.create_task(engine.restart("stuck"))
    await asyncio.sleep(0)
    await engine.aclose()
    await engine.aclose()
    await restarting
    with pytest.raises(NotReady, match="stopped"):
        await waiting
    engine.see(view("ready", ADDRESS))
    assert engine.status().state == "absent"
    with pytest.raises(NotReady, match="stopped"):
        engine.address()


def test_a_view_survives_the_pipe_and_hides_its_key_in_logs() -> None:
    told = view("ready", ADDRESS, fault="x", fault_detail="y", fault_retryable=False)
    assert msgspec.json.decode(msgspec.json.encode(told), type=EngineView) == told
    assert "secret" not in repr(told)
