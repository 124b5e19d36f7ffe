"""What the child is told, and what it makes of it: every measured setting of the engine, one by one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from convene.engine.base import EMBEDDING_SETTINGS, EngineSettings, Mode
from convene.engine.child import build_params
from convene.engine.process import build_order


def fill(mode: Mode, settings: EngineSettings) -> SimpleNamespace:
    """Take an order over the wire and fill parameters with it."""
    line = build_order(Path("/models/m.gguf"), "my-model", mode, settings, "the-key")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    blank = SimpleNamespace(
        model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace(), embedding=False
    )
    filled = build_params(blank, msgspec.json.decode(line))
    assert isinstance(filled, SimpleNamespace)
    return filled


def test_the_child_listens_on_loopback_only_with_a_key_and_no_extras() -> None:
    params = fill("chat", EngineSettings())
    assert params.hostnames == ["127.0.0.1"]
    assert params.port == 0
    assert params.api_keys == ["the-key"]
    assert params.ui is False
    assert params.endpoint_slots is False
    assert params.cache_ram_mib == 0
    assert params.fit_params is False


def test_replies_carry_our_name_of_the_model() -> None:
    params = fill("chat", EngineSettings())
    assert params.model.path == "/models/m.gguf"
    assert params.model_alias == {"my-model"}


def test_the_context_is_shared_out_among_the_slots() -> None:
    params = fill("chat", EngineSettings(slots=3, context_per_slot=1000))
    assert params.n_parallel == 3
    assert params.n_ctx == 3000


def test_chat_takes_small_batches_so_that_a_cancel_is_quick() -> None:
    params = fill("chat", EngineSettings())
    assert (params.n_batch, params.n_ubatch) == (64, 64)
    assert params.embedding is False


def test_an_embedding_input_fits_one_micro_batch() -> None:
    params = fill("embedding", EMBEDDING_SETTINGS)
    assert params.embedding is True
    assert params.n_ubatch >= EMBEDDING_SETTINGS.context_per_slot
    assert (params.n_batch, params.n_ctx, params.n_parallel) == (2048, 4096, 8)


def test_both_thread_counts_are_always_set() -> None:
    params = fill("chat", EngineSettings(threads=3))
    assert params.cpuparams.n_threads == 3
    assert params.cpuparams_batch.n_threads == 3
    params = fill("chat", EngineSettings())
    assert params.cpuparams.n_threads >= 1
    assert params.cpuparams.n_threads == params.cpuparams_batch.n_threads


@pytest.mark.parametrize("template", ["", "{{ messages }}"])
def test_a_template_is_passed_on_only_if_there_is_one(template: str) -> None:
    params = fill("chat", EngineSettings(chat_template=template))
    assert getattr(params, "chat_template", "") == template


def test_slots_can_be_shown_for_diagnosis() -> None:
    assert fill("chat", EngineSettings(expose_slots=True)).endpoint_slots is True
