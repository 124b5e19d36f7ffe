"""Access log lines are gathered, written together, and never lost at shutdown."""

from __future__ import annotations

import asyncio
import json

from convene.api.access import FLUSH_S, LINES_MAX, AccessLog
from convene.serving.base import Outcome
from simulation import SimulatedLoop
from unit.api.asgi_doubles import Connection


def test_lines_wait_for_company_but_not_for_long() -> None:
    async def scene() -> None:
        written: list[bytes] = []
        log = AccessLog(written.append, lambda: 1.0)
        call = Connection().call()
        log.write(call, 0.1)
        log.write(call, 0.1)
        assert written == []
        await asyncio.sleep(FLUSH_S + 0.01)
        assert [len(text.splitlines()) for text in written] == [2]
        log.write(call, 0.1)
        log.flush()
        log.flush()
        await asyncio.sleep(1)
        assert [len(text.splitlines()) for text in written] == [2, 1]

    loop = SimulatedLoop()
    loop.run_until_complete(scene())
    loop.close()


def test_many_lines_are_written_at_once() -> None:
    async def scene() -> None:
        written: list[bytes] = []
        log = AccessLog(written.append, lambda: 1.0)
        call = Connection().call()
        for _ in range(LINES_MAX + 1):
            log.write(call, 0.0)
        assert [len(text.splitlines()) for text in written] == [LINES_MAX]
        log.flush()

    loop = SimulatedLoop()
    loop.run_until_complete(scene())
    loop.close()


async def test_a_line_rounds_and_leaves_out_what_is_not_known() -> None:
    written: list[bytes] = []
    log = AccessLog(written.append, lambda: 1.23456)
    call = Connection(method="GET", path="/x").call()
    call.path = "/x"
    call.status = 200
    call.outcome = Outcome(model="m")
    log.write(call, 0.0123456)
    log.flush()
    assert written[0].endswith(b"}\n")
    assert json.loads(written[0]) == {
        "ts": 1.235,
        "level": "info",
        "event": "request",
        "request_id": "req_1",
        "method": "GET",
        "path": "/x",
        "status": 200,
        "duration_ms": 12.35,
        "model": "m",
        "upstream": "",
        "stream": False,
        "finish": "",
        "ttft_ms": 0,
    }
