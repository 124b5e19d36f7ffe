"""The body of every chat request to the engine's child (engine.md 4). Pure.

    stream, include_usage, return_progress   always: what is not streamed cannot be cancelled, and without progress the
                                             child does not notice during the prompt that we left
    temperature, top_p, max_tokens           always: its own defaults ramble, and a small model can loop for ever
    grammar                                  where the answer has a form

Not here: messages (`local_prompt`, `openai_codec`) and I/O. Called by `local_writer`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.providers.base import Sampling

SEEDS = 0xFFFF_FFFF
"""llama.cpp's seeds have 32 bits, and the last one means "any"."""

RECIPE: Final[dict[str, object]] = {
    "stream": True,
    "stream_options": {"include_usage": True},
    "return_progress": True,
    "n": 1,
}


class Defaults(msgspec.Struct, frozen=True):
    """Sampling where the client says nothing."""

    temperature: float
    top_p: float


def write_body(sampling: Sampling, defaults: Defaults, tokens_max: int, choice: int) -> dict[str, object]:
    """Return the body without messages, grammar and tools. Raises `BadRequest` for a bias that names no token."""
    body: dict[str, object] = {
        **RECIPE,
        "temperature": defaults.temperature if sampling.temperature is None else sampling.temperature,
        "top_p": defaults.top_p if sampling.top_p is None else sampling.top_p,
        "max_tokens": tokens_max,
    }
    if sampling.frequency_penalty:
        body["frequency_penalty"] = sampling.frequency_penalty
    if sampling.presence_penalty:
        body["presence_penalty"] = sampling.presence_penalty
    if sampling.seed is not None:
        # One seed would make all choices alike.
        body["seed"] = (sampling.seed + choice) % SEEDS
    stop = [text for text in sampling.stop if text]
    if stop:
        # An empty one would stop before the first token.
        body["stop"] = stop
    if sampling.logprobs:
        body["logprobs"] = True
        # With 0 the child gives none at all, not even of the chosen token.
        body["top_logprobs"] = max(1, sampling.top_logprobs or 0)
    if sampling.logit_bias:
        bias = _read_bias(sampling.logit_bias)
        if bias:
            body["logit_bias"] = bias
    return body


def _read_bias(given: Mapping[str, float]) -> dict[str, float]:
    """Return the biases that change anything; ids are those of this model's own tokenizer (OAI-04)."""
    bias = {token: value for token, value in given.items() if value}
    for token in bias:
        # The child would take other keys for text and bias each of its tokens.
        if not (token.isascii() and token.isdecimal()):
            raise BadRequest(
                "`logit_bias` must map token ids, written as digits, to numbers.",
                code="unsupported_parameter",
                param="logit_bias",
            )
    return bias


def pick_extras(extra: Mapping[str, object], *, free: bool) -> dict[str, object]:
    """Return the unknown fields that this engine understands and that can do no harm; all others are ignored (OAI-01).

    `free`: the answer has no form that running past its end would break.
    """
    picked: dict[str, object] = {}
    top_k = extra.get("top_k")
    if isinstance(top_k, int) and not isinstance(top_k, bool) and top_k > 0:
        picked["top_k"] = top_k
    for name, low, high in (("min_p", 0.0, 1.0), ("repeat_penalty", 0.1, 10.0)):
        value = extra.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            picked[name] = min(max(float(value), low), high)
    if free and extra.get("ignore_eos") is True:
        picked["ignore_eos"] = True
    return picked
