"""What an agentic turn does next: the decision part of the loop, pure (the driver is `agent_loop.py`).

    begin ──► Ask ──► the model says something ──► no call            ──► Answer
                ▲                                 ├─ a server's tool   ──► Call ──► Ask again, or a last round
                │                                 └─ client functions  ──► (Call first) ──► HandOver
                └── ceilings of rounds and calls: Ask(closing), without tools, and then Answer("length")

Calls of functions that nobody offered go to Call too, which tells the model so. What ends a turn at once (time, tokens,
money, the caller's limits) is no decision of the loop: `AgenticRun.ask` raises it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from convene.events import FinishReason
from convene.messages import ToolCall
from convene.serving.base_agentic import Round

if TYPE_CHECKING:
    from convene.serving.ceilings import Ceilings

Closing = Literal["", "rounds", "calls"]
"""Which ceiling makes a round the last one."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where a turn stands."""

    rounds: int = 0
    """Answers of the model so far."""
    calls: int = 0
    """Calls of server tools so far, failed ones too."""
    said: Round | None = None
    """What the model has just said; None at the beginning and after calls have run."""
    closing: Closing = ""
    """Set when `said` came from the last round."""
    handing: tuple[ToolCall, ...] = ()
    """Client calls that wait for server calls of the same round."""
    refused: bool = False
    """The last round asked for more calls than were left."""


class Ask(msgspec.Struct, frozen=True):
    """Ask the model; `closing`: without tools, for the last time."""

    closing: Closing = ""


class Call(msgspec.Struct, frozen=True):
    """Run `run`; tell the model of `refused` that no calls are left; then hand `client` over, if there are any."""

    run: tuple[ToolCall, ...]
    refused: tuple[ToolCall, ...] = ()
    client: tuple[ToolCall, ...] = ()


class HandOver(msgspec.Struct, frozen=True):
    """End the turn with calls for the client."""

    calls: tuple[ToolCall, ...]


class Answer(msgspec.Struct, frozen=True):
    """End the turn: what was said last is the answer. `closing`: the ceiling that made it so."""

    reason: FinishReason
    closing: Closing = ""


Decision = Ask | Call | HandOver | Answer


def decide(state: State, ceilings: Ceilings, client_names: frozenset[str]) -> Decision:
    """Return what to do next; `client_names` are the functions that the client runs itself."""
    said = state.said
    if said is None:
        return _go_on(state, ceilings)
    client = tuple(call for call in said.calls if call.name in client_names)
    if state.closing:
        return HandOver(client) if client else Answer("length", state.closing)
    server = tuple(call for call in said.calls if call.name not in client_names)
    if server:
        left = max(0, ceilings.calls - state.calls)
        return Call(server[:left], server[left:], client)
    return HandOver(client) if client else Answer(said.finish)


def _go_on(state: State, ceilings: Ceilings) -> Decision:
    if state.handing:
        return HandOver(state.handing)
    if state.refused:
        return Ask("calls")
    return Ask("rounds" if state.rounds >= ceilings.rounds else "")
