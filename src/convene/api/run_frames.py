"""A run's events as frames for whoever comes back: those of a chat stream, durable ones with an SSE `id:`. Pure.

    piece (seq, event) ──► the same frames as `sse.py` makes; the last of them carries `id: seq`
    RunEnded done      ──► finish chunk with the extras, usage chunk, [DONE]
    RunEnded else      ──► error frame, [DONE]

Text between durable events has no id: a reader who comes back with `Last-Event-ID` gets what is behind that event, text
included, so what it had got after it is to be thrown away. An id is a number of ours, never a caller's text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from convene.api.sse import DONE, ChatFrames
from convene.errors import Conflict, ConveneError
from convene.serving.base_runs import RunEnded

if TYPE_CHECKING:
    from msgspec import UnsetType

    from convene.api.shapes import Cost
    from convene.serving.base_runs import Piece, Run


class RunFrames:
    """The frames of one reader of one run."""

    def __init__(self, run: Run, request_id: str, conversation_id: str | None) -> None:
        self._run = run
        self._conversation_id = conversation_id
        self._chat = ChatFrames(
            reply_id=run.turn_id,
            created=run.created_us // 1_000_000,
            model=run.model,
            request_id=request_id,
            include_usage=True,
        )
        self.cost: Cost | UnsetType = UNSET
        """What the run has cost, to be known before its end."""
        self.over = False
        """Whether the run has ended: nothing follows."""

    def frames(self, piece: Piece) -> list[bytes]:
        """Return the frames of a piece."""
        seq, event = piece
        if not isinstance(event, RunEnded):
            return _numbered(self._chat.frames(event), seq)
        self.over = True
        if event.status != "done":
            return [*_numbered(ChatFrames.failure(fault_of(event))[:-1], seq), DONE]
        end = self._chat.end(self.cost, run_id=self._run.id, conversation_id=self._conversation_id)
        return [*_numbered(end[:-1], seq), DONE]


def fault_of(end: RunEnded) -> ConveneError:
    """Return the error that a run ended with."""
    if end.status == "cancelled":
        return Conflict(end.message or "The run was cancelled.", code=end.fault or "run_cancelled")
    return ConveneError(end.message or "The run failed.", code=end.fault or ConveneError.code)


def _numbered(frames: list[bytes], seq: int) -> list[bytes]:
    if not seq or not frames:
        return frames
    return [*frames[:-1], b"id: %d\n" % seq + frames[-1]]
