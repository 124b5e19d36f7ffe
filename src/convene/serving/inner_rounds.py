"""Rounds of the model whose text nobody sees: its plans, its arguments, its judgements. Pure.

What was asked of the answer's form (length, stops, JSON) is not asked of them, and where they are JSON the model is
bound to a schema if it can be, else told it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from convene.messages import ResponseFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.messages import Message
    from convene.providers.base import Generation
    from convene.serving.base_agentic import AgenticRun


def inner(run: AgenticRun, messages: Sequence[Message]) -> Generation:
    """Return a call of the model without what was asked of the answer's form."""
    generation = run.generation(messages)
    sampling = msgspec.structs.replace(
        generation.sampling, max_tokens=None, stop=(), logprobs=False, top_logprobs=None, logit_bias=None
    )
    return msgspec.structs.replace(generation, sampling=sampling, response_format=ResponseFormat())


def constrained(run: AgenticRun, messages: Sequence[Message], schema: dict[str, object], name: str) -> Generation:
    """Return a call of the model that gives JSON: bound to the schema where it can be, else told to."""
    generation = inner(run, messages)
    if run.capabilities.json_schema:
        form = ResponseFormat(kind="json_schema", name=name, schema=schema)
    else:
        form = ResponseFormat(kind="json_object")
        told = f"Answer with JSON alone, by this schema: {json.dumps(schema)}"
        last = generation.messages[-1]
        content = f"{last.text()}\n{told}"
        generation = msgspec.structs.replace(
            generation, messages=(*generation.messages[:-1], msgspec.structs.replace(last, content=content))
        )
    return msgspec.structs.replace(generation, response_format=form)


def json_in(text: str) -> str:
    """Return the JSON object in what a model wrote: without a fence or words around it."""
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text
