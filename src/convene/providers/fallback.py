"""Several models as one: the next is asked when the former failed before it had said anything.

A `ChatModel` wrapper; each model inside has its own upstream, hosts and retries. Built by `app.py` where the
configuration names fallbacks. Not here: trying another host of the same upstream (`exchange.py`).
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from convene.errors import Busy, RateLimited, UpstreamFault
from convene.events import Began
from convene.providers.base import Capabilities

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from convene.events import Event
    from convene.providers.base import ChatModel, Generation


class Fallback:
    """Asks models in order. A fault after the first delta is never retried (invariant of `ChatModel`)."""

    whole = None
    """The next model may only be asked until a delta has come, so it listens to each."""

    def __init__(self, models: Sequence[ChatModel]) -> None:
        """Wrap `models`, the preferred one first. Raises `ValueError` if there is none."""
        if not models:
            raise ValueError("a fallback needs at least one model")
        self._models = tuple(models)
        self._capabilities = shared_capabilities([model.capabilities for model in models])

    @property
    def capabilities(self) -> Capabilities:
        """What every one of them can do: whoever answers in the end must be able to."""
        return self._capabilities

    @property
    def upstream(self) -> str:
        """The preferred model's upstream; `Began` names the one that serves."""
        return self._models[0].upstream

    def ready(self) -> str | None:
        """Return None if any model can serve now, else why none can."""
        reasons: list[str] = []
        for model in self._models:
            reason = model.ready()
            if reason is None:
                return None
            reasons.append(reason)
        return "; ".join(reasons)

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        """Generate with the first model that gets as far as a delta.

        `Began` is held back until then, so a model that breaks off after it can still be replaced unseen. Raises the
        preferred model's fault if all of them failed, as that one tells the operator what to mend.
        """
        models = [model for model in self._models if model.ready() is None] or list(self._models)
        first_fault: UpstreamFault | RateLimited | Busy | None = None
        for model in models:
            held: list[Event] = []
            spoken = False
            try:
                async with aclosing(model.generate(generation)) as events:
                    async for event in events:
                        if spoken:
                            yield event
                        elif isinstance(event, Began):
                            held.append(event)
                        else:
                            spoken = True
                            for early in held:
                                yield early
                            yield event
            except (UpstreamFault, RateLimited, Busy) as fault:
                if spoken:
                    raise
                first_fault = first_fault or fault
            else:
                return
        if first_fault is not None:
            raise first_fault


def shared_capabilities(every: Sequence[Capabilities]) -> Capabilities:
    """Return what all of `every` can do: the smaller number where one is known, a skill only where all have it."""
    windows = [each.context_window for each in every if each.context_window is not None]
    outputs = [each.output_tokens_max for each in every if each.output_tokens_max is not None]
    return Capabilities(
        context_window=min(windows, default=None),
        output_tokens_max=min(outputs, default=None),
        temperature=every[0].temperature,
        vision=all(each.vision for each in every),
        audio=all(each.audio for each in every),
        files=all(each.files for each in every),
        tools=all(each.tools for each in every),
        json_schema=all(each.json_schema for each in every),
        logprobs=all(each.logprobs for each in every),
        logit_bias=all(each.logit_bias for each in every),
        reasoning=all(each.reasoning for each in every),
        penalties=all(each.penalties for each in every),
        chains=all(each.chains for each in every),
    )
