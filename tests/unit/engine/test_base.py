"""The face: what may be shown, and what two implementations promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from convene.engine.base import (
    ChildAddress,
    EngineFault,
    EngineSettings,
    FetchFailed,
    FetchSettings,
    LocalEngine,
    NoSpace,
    NotReady,
    Offline,
    StartFailed,
    WeightsCorrupt,
    WeightsMissing,
)
from convene.engine.catalogue import CHAT_MODEL
from convene.engine.process import Engine
from convene.engine.weights import LocalWeights


def test_an_address_hides_its_key() -> None:
    address = ChildAddress("http://127.0.0.1:1234", "very-secret")
    assert "very-secret" not in repr(address)
    assert "very-secret" not in str([address])
    assert "1234" in repr(address)


def test_fetch_settings_hide_the_hub_token() -> None:
    assert "hf_secret" not in repr(FetchSettings(hub_token="hf_secret"))


@pytest.mark.parametrize("kind", [WeightsMissing, Offline, FetchFailed, NoSpace, StartFailed, NotReady])
def test_a_fault_that_may_pass_is_tried_again(kind: type[EngineFault]) -> None:
    fault = kind("what to do", detail="for the log")
    assert fault.retryable
    assert (fault.message, fault.detail, str(fault)) == ("what to do", "for the log", "what to do")


def test_wrong_bytes_are_not_fetched_again_and_again() -> None:
    assert not WeightsCorrupt("x").retryable
    assert FetchFailed("x").pause_s >= 60


def test_defaults_are_the_measured_ones() -> None:
    settings = EngineSettings()
    assert (settings.slots, settings.context_per_slot, settings.threads) == (4, 2048, 0)
    assert not settings.expose_slots
    assert settings.slots * settings.context_per_slot == CHAT_MODEL.context_tokens


def test_the_supervisor_is_a_local_engine() -> None:
    def take(engine: LocalEngine) -> str:
        return engine.name

    assert take(Engine(LocalWeights(Path("a/b.gguf")), "chat", EngineSettings(), token=bytes)) == "b"
