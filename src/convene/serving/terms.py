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


PLAIN = Terms()
