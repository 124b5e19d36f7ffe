"""The settings of runs and sessions: how long and how much is kept of agentic turns. Read through `config.py`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from convene.config_values import About


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """`[runs]`: agentic turns, whose steps are written down so that they can be read again and survive a crash."""

    keep_days: Annotated[float, About("Forget a run that is over after", "days", at_least=0)] = 7.0
    resumes_max: Annotated[int, About("How often a run is taken up again after crashes", at_least=0, at_most=100)] = 3
    request_bytes_max: Annotated[
        int, About("Largest request that is kept, so that its run survives a crash", "bytes", at_least=0)
    ] = 8_388_608


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """`[sessions]`: what is remembered between the requests that share an `x-session-id` (SESSION-06)."""

    keep_days: Annotated[float, About("Forget a session after its last use", "days", at_least=0)] = 30.0
    bytes_max: Annotated[int, About("Most that one session remembers", "bytes", at_least=0)] = 262_144
