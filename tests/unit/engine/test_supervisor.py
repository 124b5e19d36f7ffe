"""The supervisor before there is a child: states, waiting, faults, retries, and its end. No process is started here."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from convene.engine.base import (
    EngineFault,
    EngineSettings,
    FetchStep,
    NotReady,
    Offline,
    Progress,
    WeightsCorrupt,
    WeightsMissing,
)
from convene.engine.process import Engine

if TYPE_CHECKING:
    from pathlib import Path

QUICK = EngineSettings(backoff_first_s=0.001, backoff_max_s=0.002)
PATIENCE_S = 60.0


class Weights:
    """Weights that fail as told, or never come."""

    name = "tiny"

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.asked = asyncio.Event()
        self.times = 0
        self.steps: list[FetchStep] = []
        self.cancelled = False

    async def obtain(self, report: Progress) -> Path:
        self.times += 1
        if self.faults:
            raise self.faults.pop(0)
        for step in self.steps:
            report(step)
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("unreachable")


def build(weights: Weights, settings: EngineSettings = QUICK) -> Engine:
    return Engine(weights, "chat", settings, token=bytes)


async def test_before_the_start_there_is_nothing_to_ask() -> None:
    engine = build(Weights())
    assert engine.status().state == "absent"
    with pytest.raises(NotReady, match="not started"):
        engine.address()
    with pytest.raises(NotReady, match="not started"):
        await engine.wait_ready()
    await engine.aclose()


async def test_the_start_returns_at_once_and_is_loading() -> None:
    weights = Weights()
    engine = build(weights)
    engine.start()
    engine.start()
    assert engine.status().state == "loading"
    async with asyncio.timeout(PATIENCE_S):
        await weights.asked.wait()
    assert weights.times == 1
    with pytest.raises(NotReady, match="still loading"):
        engine.address()
    await engine.aclose()


@pytest.mark.req("OPS-27")
async def test_a_download_is_visible_in_status_and_refusal() -> None:
    weights = Weights()
    weights.steps = [FetchStep(status="fetching tiny", total=200, completed=50)]
    engine = build(weights)
    engine.start()
    async with asyncio.timeout(PATIENCE_S):
        await weights.asked.wait()
    status = engine.status()
    assert (status.state, status.completed_bytes, status.total_bytes) == ("fetching", 50, 200)
    with pytest.raises(NotReady, match=r"downloaded \(25 %\)"):
        await engine.wait_ready(timeout_s=0.01)
    await engine.aclose()


async def test_closing_cancels_a_download() -> None:
    weights = Weights()
    engine = build(weights)
    engine.start()
    async with asyncio.timeout(PATIENCE_S):
        await weights.asked.wait()
    await engine.aclose()
    await engine.aclose()
    assert weights.cancelled
    assert engine.status().state == "absent"
    with pytest.raises(NotReady, match="stopped"):
        engine.address()
    engine.start()
    assert engine.status().state == "absent"


async def test_closing_wakes_those_who_wait() -> None:
    weights = Weights()
    engine = build(weights)
    engine.start()
    waiting = asyncio.create_task(engine.wait_ready())
    async with asyncio.timeout(PATIENCE_S):
        await weights.asked.wait()
        await engine.aclose()
        with pytest.raises(NotReady, match="stopped"):
            await waiting


@pytest.mark.req("OPS-28")
async def test_an_offline_fault_is_told_with_its_way_out() -> None:
    engine = build(Weights(Offline("put the file there", detail="path")), EngineSettings(backoff_first_s=PATIENCE_S))
    engine.start()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Offline, match="put the file there") as caught:
            await engine.wait_ready()
    assert caught.value.detail == "path"
    assert engine.status().state == "failed"
    assert engine.status().detail == "put the file there"
    with pytest.raises(Offline):
        engine.address()
    await engine.aclose()


async def test_a_missing_file_is_looked_for_again_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    weights = Weights(*(WeightsMissing("no such file") for _ in range(5)))
    engine = build(weights)
    with caplog.at_level(logging.WARNING, "convene.engine"):
        engine.start()
        async with asyncio.timeout(PATIENCE_S):
            await weights.asked.wait()
    assert weights.times == 6
    assert len([record for record in caplog.records if "no such file" in record.getMessage()]) == 1
    await engine.aclose()


async def test_a_corrupt_file_is_not_fetched_again_before_somebody_asks() -> None:
    weights = Weights(WeightsCorrupt("wrong bytes"))
    engine = build(weights)
    engine.start()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(WeightsCorrupt):
            await engine.wait_ready()
        assert weights.times == 1
        await engine.restart("mended")
        await weights.asked.wait()
    assert weights.times == 2
    await engine.aclose()


async def test_an_unforeseen_error_is_a_fault_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    weights = Weights(ZeroDivisionError("a bug"))
    engine = build(weights)
    engine.start()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(EngineFault, match="unexpectedly"):
            await engine.wait_ready()
        await weights.asked.wait()
    assert "a bug" in caplog.text
    await engine.aclose()


async def test_a_cancelled_waiter_leaves_the_engine_alone() -> None:
    weights = Weights()
    engine = build(weights)
    engine.start()
    waiting = asyncio.create_task(engine.wait_ready())
    async with asyncio.timeout(PATIENCE_S):
        await weights.asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert engine.status().state == "loading"
    assert not weights.cancelled
    await engine.aclose()
