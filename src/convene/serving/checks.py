"""What a model cannot do and what changes the meaning of an answer is refused here, naming the field (OAI-04).

Values that ask for nothing new have already become None or empty at the edge, so whatever is set here was meant. A
pure function over a generation and the capabilities of the model that is to run it; `turn.py` calls it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene.errors import BadRequest
from convene.messages import ImagePart, OpaquePart, TextPart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convene.messages import Message, Part
    from convene.providers.base import Capabilities, Generation, Sampling


def fit(generation: Generation, can: Capabilities, model: str) -> Generation:
    """Return the generation with this model's defaults and ceilings. Raises `BadRequest` for what it cannot do."""
    sampling = generation.sampling
    if sampling.logprobs or sampling.logit_bias is not None or sampling.frequency_penalty or sampling.presence_penalty:
        _check_sampling(sampling, can, model)
    if generation.tools or generation.spoken or generation.response_format.kind != "text":
        _check_options(generation, can, model)
    for message in generation.messages:
        if type(message.content) is not str:
            _check_messages(generation.messages, can, model)
            break
    if sampling.max_tokens is None and (can.temperature is None or sampling.temperature is not None):
        return generation  # nearly all: nothing to fill in, nothing to clamp
    fitted = _fit_sampling(sampling, can)
    return generation if fitted is sampling else msgspec.structs.replace(generation, sampling=fitted)


def _check_sampling(sampling: Sampling, can: Capabilities, model: str) -> None:
    if sampling.logprobs and not can.logprobs:
        raise _unsupported("logprobs", model)
    if sampling.logit_bias is not None and not can.logit_bias:
        raise _unsupported("logit_bias", model)
    if not can.penalties and (sampling.frequency_penalty or sampling.presence_penalty):
        raise _unsupported("frequency_penalty" if sampling.frequency_penalty else "presence_penalty", model)


def _check_options(generation: Generation, can: Capabilities, model: str) -> None:
    if generation.tools and not can.tools:
        raise _unsupported("tools", model)
    if not can.json_schema and generation.response_format.kind != "text":
        raise _unsupported("response_format", model)
    if generation.spoken and not can.audio:
        raise _unsupported("modalities", model)


def _check_messages(messages: Iterable[Message], can: Capabilities, model: str) -> None:
    for index, message in enumerate(messages):
        if not isinstance(message.content, str):
            for place, part in enumerate(message.content):
                _check_part(part, can, model, f"messages[{index}].content[{place}]")


def _check_part(part: Part, can: Capabilities, model: str, where: str) -> None:
    match part:
        case TextPart():
            refused = False
        case ImagePart():
            refused = not can.vision
        case OpaquePart(kind="input_audio"):
            refused = not can.audio
        case OpaquePart():
            refused = not can.files
    if refused:
        kind = "image_url" if isinstance(part, ImagePart) else getattr(part, "kind", "")
        raise BadRequest(
            f"The model '{model}' cannot read '{kind}' parts ({where}). Leave them out or choose a model that can: "
            "GET /v1/models lists capabilities.",
            code="unsupported_content",
            param=where,
        )


def _unsupported(field: str, model: str) -> BadRequest:
    return BadRequest(
        f"The model '{model}' does not support '{field}'. Leave it out or choose another model: GET /v1/models lists "
        "capabilities.",
        code="unsupported_parameter",
        param=field,
    )


def _fit_sampling(sampling: Sampling, can: Capabilities) -> Sampling:
    """Apply the model's default temperature and clamp the token limit to what the model can ever write (OAI-06)."""
    temperature = can.temperature if sampling.temperature is None else sampling.temperature
    ceiling = can.output_tokens_max or can.context_window
    limit = sampling.max_tokens
    if ceiling is not None and limit is not None and limit > ceiling:
        limit = ceiling
    if temperature == sampling.temperature and limit == sampling.max_tokens:
        return sampling
    return msgspec.structs.replace(sampling, temperature=temperature, max_tokens=limit)
