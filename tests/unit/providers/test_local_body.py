"""The recipe's body, and which unknown fields go along."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.providers.base import Sampling
from convene.providers.local_body import Defaults, pick_extras, write_body

DEFAULTS = Defaults(temperature=0.2, top_p=0.9)


def test_a_temperature_of_zero_is_not_silence() -> None:
    assert write_body(Sampling(temperature=0.0, top_p=0.0), DEFAULTS, 5, 0)["temperature"] == 0.0
    assert write_body(Sampling(temperature=0.0, top_p=0.0), DEFAULTS, 5, 0)["top_p"] == 0.0


@pytest.mark.req("OAI-20")
@given(st.integers(), st.integers(0, 127))
def test_every_seed_fits_the_engine_and_none_means_any(seed: int, choice: int) -> None:
    found = write_body(Sampling(seed=seed), DEFAULTS, 5, choice)["seed"]
    assert isinstance(found, int)
    assert 0 <= found < 0xFFFF_FFFF


@pytest.mark.req("OAI-04")
@pytest.mark.parametrize("bias", [{}, {"foo": 0.0}, {"5": 0.0}])
def test_a_bias_that_asks_for_nothing_is_left_out(bias: dict[str, float]) -> None:
    assert "logit_bias" not in write_body(Sampling(logit_bias=bias), DEFAULTS, 5, 0)


@pytest.mark.req("OAI-21")
@pytest.mark.parametrize(("asked", "sent"), [(None, 1), (0, 1), (1, 1), (20, 20)])
def test_log_probabilities_need_at_least_one_rival(asked: int | None, sent: int) -> None:
    body = write_body(Sampling(logprobs=True, top_logprobs=asked), DEFAULTS, 5, 0)
    assert (body["logprobs"], body["top_logprobs"]) == (True, sent)
    assert "logprobs" not in write_body(Sampling(top_logprobs=asked), DEFAULTS, 5, 0)


@pytest.mark.req("OAI-01")
def test_unknown_fields_are_ignored_but_for_a_few_harmless_ones() -> None:
    extra: dict[str, object] = {
        "top_k": 5,
        "min_p": 3,
        "repeat_penalty": 1.1,
        "ignore_eos": True,
        "grammar": "root ::= 1",
        "n_predict": -1,
        "id_slot": 0,
        "cache_prompt": False,
        "stream": False,
    }
    assert pick_extras(extra, free=True) == {"top_k": 5, "min_p": 1.0, "repeat_penalty": 1.1, "ignore_eos": True}
    assert "ignore_eos" not in pick_extras(extra, free=False)


@pytest.mark.req("OAI-01")
@pytest.mark.parametrize(
    "extra",
    [
        {"top_k": "5"},
        {"top_k": True},
        {"top_k": -1},
        {"min_p": float("nan")},
        {"repeat_penalty": None},
        {"ignore_eos": 1},
    ],
)
def test_unknown_fields_of_the_wrong_kind_are_ignored_too(extra: dict[str, object]) -> None:
    assert pick_extras(extra, free=True) == {}
