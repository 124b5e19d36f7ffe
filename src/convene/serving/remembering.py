"""What of a turn is worth remembering in its session: its plan, and the results of its tools. Pure.

Kept are notes, never messages: clients send those again (SESSION-03). `journal.py` hands them over at a turn's end,
`sessions.py` keeps them within a session's bounds, the oldest going first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from convene.events import Fold

PLAN: Final = "plan"
RESULT: Final = "result:"
RESULTS_MAX: Final = 16
"""Results of one turn that are kept: the last ones."""
RESULT_BYTES_MAX: Final = 16_384
"""A larger one is kept without what it returned, and says so."""
_encode = msgspec.json.Encoder().encode


class Remembered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One result of a tool."""

    tool_name: str
    args: dict[str, object]
    result: object = None
    cut: bool = False
    """What it returned was too large to be kept."""


def notes_of(run_id: str, gathered: Fold, plan: bytes) -> dict[str, bytes]:
    """Return the notes of a turn that has ended well; `plan` is its last plan as JSON, empty if it had none."""
    said = _plan_of(plan)
    notes = {PLAN: said} if said else {}
    done = [ran for ran in gathered.tools if ran.status == "done"]
    for ran in done[-RESULTS_MAX:]:
        body = _encode(Remembered(tool_name=ran.tool_name, args=ran.args, result=ran.result))
        if len(body) > RESULT_BYTES_MAX:
            body = _encode(Remembered(tool_name=ran.tool_name, args={}, cut=True))
        notes[f"{RESULT}{run_id}:{ran.id}"] = body
    return notes


class _Round(msgspec.Struct, frozen=True):
    """A round of the model, as far as a plan is concerned: its text is one, where it was asked for a plan."""

    text: str


def _plan_of(output: bytes) -> bytes:
    """Return a plan as JSON, whether it is the output of a step itself or the text of a round; else nothing."""
    for body in (_text_of(output), output):
        try:
            if body and msgspec.json.decode(body) is not None:
                return body
        except msgspec.DecodeError:
            continue
    return b""


def _text_of(output: bytes) -> bytes:
    try:
        return msgspec.json.decode(output, type=_Round).text.encode()
    except (msgspec.DecodeError, UnicodeEncodeError):
        return b""
