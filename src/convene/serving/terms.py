"""The terms of a deployed model: what it costs, what limits it has by itself, what happens when a client leaves.

Filled by `app_models.py` from the configuration, read by admission and by the turn.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from convene.limits.allowance import Allowance
from convene.usage import FREE, Price

OnDisconnect = Literal["cancel", "drain", "free"]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of one deployment."""

    price: Price = FREE
    shared: Allowance | None = None
    """Limits that all callers share."""
    per_key: Allowance | None = None
    """Limits of each key on this model, beside the key's own."""
    on_disconnect: OnDisconnect = "cancel"
    """`cancel`: stop and bill what came. `drain`: read to the end and bill exactly. `free`: stop and bill nothing."""
    drain_s: float = 60.0


class AgenticTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployed model may do inside an agentic turn."""

    server_tools: bool = True
    """Whether it is offered the server's own tools."""
    calls: int = 64
    """Most calls of them in one turn."""
    agents: bool = True
    """Whether it may find and ask agents."""
    search: Literal["auto", "before", "tool"] = "auto"
    """`before`: the server searches before the answer. `tool`: the model decides, by calling tools. `auto`: the first
    for the embedded engine and for models that cannot call tools, else the second."""


PLAIN = Terms()
AGENTIC = AgenticTerms()
