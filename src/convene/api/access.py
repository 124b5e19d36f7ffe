"""The access log: one JSON line a request, never a prompt, never a key (OPS-17).

Lines are gathered and written together a few times a second, because one write system call a request would cost more
than the rest of the line. `flush` runs at shutdown; a crash can lose the lines of the last fraction of a second, which
is why usage never depends on this log (the ledger is for that).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.api.call import Call

FLUSH_S = 0.25
LINES_MAX = 512
_encode = msgspec.json.Encoder().encode


class AccessLog:
    """Writes lines to `sink`, which takes bytes."""

    def __init__(self, sink: Callable[[bytes], object], now: Callable[[], float], worker: int | None = None) -> None:
        """`worker`: which of several processes writes; None where there is one."""
        self._sink = sink
        self._worker = worker
        self._now = now
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, call: Call, duration_s: float) -> None:
        """Note one finished request."""
        line: dict[str, object] = {
            "ts": round(self._now(), 3),
            "level": "info",
            "event": "request",
            "request_id": call.request_id,
            "method": call.scope["method"],
            "path": call.path,
            "status": call.status,
            "duration_ms": round(duration_s * 1000, 2),
        }
        if self._worker is not None:
            line["worker"] = self._worker
        if call.trace_id:
            line["trace_id"] = call.trace_id
        if call.principal is not None:
            line["key"] = call.principal.key_id
        outcome = call.outcome
        if outcome is not None:
            line |= {"model": outcome.model, "upstream": outcome.upstream, "stream": call.streamed}
            line |= {"finish": outcome.finish, "ttft_ms": round(outcome.first_event_ms or 0, 2)}
            if outcome.usage is not None:
                used = outcome.usage
                line |= {"prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens}
        self._lines.append(_encode(line))
        if len(self._lines) >= LINES_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Write what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines = self._lines, []
            self._sink(b"\n".join(lines) + b"\n")
