"""How far one agentic turn may go, and the words for it when it may go no further. Pure.

Rounds and calls leave room for one last round, which writes the answer from what is there; time, tokens and money end
the turn at once. Who reaches one ends with the finish reason `length`, a sentence, and a notice that names which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.serving.base_agentic import CeilingReached
from convene.serving.refusals import money_words, refusal_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.limits.limit import Refusal

Which = Literal["rounds", "calls", "seconds", "tokens", "money"]
REACHED: Final = "ceiling_reached"
REFUSED: Final = "limit_reached"
STOPPED: Final = "I stopped here: "


class Ceilings(msgspec.Struct, frozen=True, kw_only=True):
    """The ceilings of one turn; 0 is none for tokens and money."""

    rounds: int = 64
    """Answers of the model, each of which may call several tools."""
    calls: int = 64
    """Calls of the server's own tools, failed ones too."""
    seconds: float = 600.0
    tokens: int = 0
    """Prompt and completion of all rounds together."""
    micros: int = 0


class Spent(msgspec.Struct, kw_only=True):
    """What a turn has used so far."""

    rounds: int = 0
    calls: int = 0
    tokens: int = 0
    micros: int = 0


def ended_by(ceilings: Ceilings, spent: Spent) -> Which | None:
    """Return which ceiling ends the turn at once, if one does; time is watched by a timer."""
    if ceilings.tokens and spent.tokens >= ceilings.tokens:
        return "tokens"
    if ceilings.micros and spent.micros >= ceilings.micros:
        return "money"
    return None


def reach(which: Which, ceilings: Ceilings, currency: str = "") -> CeilingReached:
    """Return what ends a turn at a ceiling."""
    words: Mapping[Which, str] = {
        "rounds": f"{_counted(ceilings.rounds, 'round')} of the model",
        "calls": _counted(ceilings.calls, "tool call"),
        "seconds": _counted(ceilings.seconds, "second"),
        "tokens": _counted(ceilings.tokens, "token"),
        "money": money_words(ceilings.micros, currency),
    }
    return CeilingReached(which, REACHED, f"{STOPPED}this turn has reached its ceiling of {words[which]}.")


def told(reached: CeilingReached) -> str:
    """Return what ended a turn as a notice says it, with the ceiling's name."""
    words = reached.sentence.removeprefix(STOPPED)
    return f"{words[:1].upper()}{words[1:].removesuffix('.')} ({reached.which})."


def _counted(number: float, what: str) -> str:
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {what}" if number == 1 else f"{shown} {what}s"


def reach_limit(refusal: Refusal, currency: str = "") -> CeilingReached:
    """Return what ends a turn whose next round the caller's limits refuse."""
    return CeilingReached("limit", REFUSED, f"{STOPPED}{refusal_fault(refusal, currency).message}")
