"""The books and counters of the real program are the truth, whoever leaves, whatever is killed (goals A4, B3, B4)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from process.books_soak_check import Fact, Tally, compare, cost_of, judge, take_answer, truths, unchunked
from process.truth_upstream import Attempt, TruthUpstream, prompt_of

REQUESTS = 260
KILLS = 3
SEED = 7
PROMPT = prompt_of("r1", 20, 5)
PROMPT_TOKENS = 20
"""The stated estimate: 12 bytes for the message, and its own 46, three to a token."""


async def soak(*words: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("books_soak.py")), "--seed", str(SEED), *words]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONWARNINGS": "error"}
    )
    output, _ = await asyncio.wait_for(process.communicate(), 300)
    report: dict[str, Any] = json.loads(output)
    assert report["wrong"] == []
    assert process.returncode == 0
    return report


@pytest.mark.req("USAGE-01")
async def test_after_aborts_faults_and_kills_books_counters_clients_and_upstream_agree() -> None:
    report = await soak("--requests", str(REQUESTS), "--kills", str(KILLS))
    assert report["kills"] == KILLS
    assert report["statuses"].keys() == {"ok", "client_left", "failed", "unknown"}
    assert report["aborted"] > REQUESTS // 20, "many left, and their entries were seen in time"
    assert report["entries"] >= report["upstream_saw"]
    assert report["reconciled"] > REQUESTS // 5, "the reconciler has the upstream's figures and finds no difference"
    assert report["cost_micros"] == report["counter_micros"] == report["counter_after_restart"] > 0


async def test_the_same_holds_for_two_workers_that_are_killed_one_at_a_time() -> None:
    report = await soak("--requests", str(REQUESTS), "--kills", str(KILLS), "--workers", "2")
    assert report["kills"] == KILLS
    assert report["aborted"] > REQUESTS // 20
    assert report["cost_micros"] == report["counter_micros"] == report["counter_after_restart"] > 0


def fact_of(**changes: Any) -> Fact:  # noqa: ANN401 - fields
    fact = Fact(id="r1", model="cancel", stream=True, prompt=PROMPT, outcome="whole", status=200, delivered=20)
    return dataclasses.replace(fact, **changes)


def attempt_of(**changes: Any) -> Attempt:  # noqa: ANN401 - fields
    attempt = Attempt(id="r1", stream=True, fault="none", prompt_tokens=6, tokens=20, written=20, reported=True)
    return dataclasses.replace(attempt, ended_at=100.0, **changes)


def entry_of(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - fields
    entry: dict[str, Any] = {
        "request_id": "r1",
        "status": "ok",
        "estimated": False,
        "prompt_tokens": 6,
        "completion_tokens": 20,
    }
    entry |= changes
    return {"cost_micros": cost_of(entry["prompt_tokens"], entry["completion_tokens"])} | entry


LEFT: dict[str, Any] = {"outcome": "left", "delivered": 5, "left_at": 100.0, "entered_at": 100.5}
CUT: dict[str, Any] = {"written": 7, "reported": False, "left": True}
ABORTED: dict[str, Any] = {
    "status": "client_left",
    "estimated": True,
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": 6,
}
UNKNOWN: dict[str, Any] = ABORTED | {"status": "unknown", "completion_tokens": 64}


def test_what_is_right_is_found_right() -> None:
    assert judge(fact_of(), [attempt_of()], [entry_of()]) == []
    assert judge(fact_of(**LEFT), [attempt_of(**CUT)], [entry_of(**ABORTED)]) == []
    assert judge(fact_of(**LEFT, model="free"), [attempt_of(**CUT)], [entry_of(**ABORTED, cost_micros=0)]) == []
    assert judge(fact_of(**LEFT, model="drain"), [attempt_of()], [entry_of(status="client_left")]) == []
    killed = fact_of(outcome="cut", killed=True)
    assert judge(killed, [attempt_of(**CUT)], [entry_of(**UNKNOWN)]) == []
    assert judge(killed, [], []) == [], "it never got as far"
    failed = entry_of(**ABORTED | {"status": "failed"})
    assert judge(fact_of(outcome="error", delivered=5), [attempt_of(**CUT | {"fault": "break"})], [failed]) == []


@pytest.mark.parametrize(
    ("fact", "attempt", "entries", "words"),
    [
        ({}, {}, [], "reached the upstream and is not entered"),
        ({}, {}, [{}, {}], "entered 2 times"),
        ({}, {}, [{"completion_tokens": 19}], "tokens, the upstream has"),
        ({}, {}, [{"cost_micros": 1}], "costs 1"),
        ({}, {}, [{"estimated": True}], "estimated is True"),
        ({}, {"reported": False}, [{}], "has not reported"),
        ({}, {}, [ABORTED], "its client did not leave"),
        ({}, {}, [UNKNOWN], "its server was not killed"),
        ({"outcome": "error"}, {}, [{"status": "failed"}], "the upstream did not fail"),
        ({"outcome": "error"}, {}, [{}], "was told that it failed"),
        (LEFT, CUT, [ABORTED | {"completion_tokens": 4}], "5 delivered, 7 written"),
        (LEFT, CUT, [ABORTED | {"completion_tokens": 8}], "5 delivered, 7 written"),
        (LEFT, CUT, [ABORTED | {"prompt_tokens": 6}], "the estimate is 20"),
        (LEFT, CUT, [ABORTED | {"estimated": False}], "as reported, the upstream has"),
        (LEFT, CUT, [ABORTED | {"cost_micros": 0}], "due is"),
        (LEFT | {"model": "free"}, CUT, [ABORTED], "due is 0"),
        (LEFT | {"model": "drain"}, {}, [ABORTED], "the upstream has (6, 20)"),
        (LEFT | {"entered_at": 103.0}, CUT, [ABORTED], "3.00 s after its end"),
        (LEFT | {"entered_at": 103.0, "model": "drain"}, {}, [{"status": "client_left"}], "3.00 s after its end"),
        ({"outcome": "cut", "killed": True}, CUT, [UNKNOWN | {"cost_micros": 0}], "less than 7 written tokens"),
        ({"outcome": "cut", "killed": True}, CUT, [UNKNOWN | {"estimated": False}], "not marked as estimated"),
        ({"outcome": "error"}, CUT | {"fault": "break"}, [ABORTED | {"status": "failed", "cost_micros": 0}], "due is"),
    ],
)
def test_what_is_wrong_is_found(
    fact: dict[str, Any], attempt: dict[str, Any], entries: list[dict[str, Any]], words: str
) -> None:
    found = judge(fact_of(**fact), [attempt_of(**attempt)], [entry_of(**changes) for changes in entries])
    assert any(words in one for one in found), found


def test_an_answer_without_entry_and_what_nobody_asked_are_found() -> None:
    assert "was answered" in judge(fact_of(), [], [])[0]
    tally = Tally()
    compare([], {"r2": [attempt_of()]}, [entry_of()], tally)
    assert len(tally.wrong) == 2


def test_the_upstream_speaks_for_answers_that_were_had_whole_and_reported() -> None:
    facts = [fact_of(), fact_of(id="r2", outcome="left"), fact_of(id="r3"), fact_of(id="r4")]
    tried = {"r1": [attempt_of()], "r2": [attempt_of()], "r3": [attempt_of(reported=False)]}
    assert truths(facts, tried) == [{"id": "r1", "prompt_tokens": 6, "completion_tokens": 20}]


@pytest.mark.parametrize("cut", [0, 1, 4, 9, 10, 16])
def test_a_chunked_body_that_was_cut_gives_what_came(cut: int) -> None:
    whole = b"4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n"
    assert unchunked(whole) == (b"abcdef", True)
    body, done = unchunked(whole[:cut])
    assert not done
    assert b"abcdef".startswith(body)


def test_an_answer_is_counted_by_whole_events() -> None:
    event = b'data: {"choices":[{"delta":{"content":"ab "}}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"%x\r\n%b\r\n" % (len(event), event)
    fact = fact_of(outcome="under way", delivered=0)
    assert not take_answer(fact, head + body + body[:30])
    assert (fact.delivered, fact.outcome) == (1, "under way")
    assert take_answer(fact, head + body + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    assert dataclasses.asdict(fact)["outcome"] == "whole"
    assert take_answer(fact, head + body + b"0\r\n\r\n")
    assert dataclasses.asdict(fact)["outcome"] == "error", "a stream that ends without its last event has failed"


async def ask_upstream(upstream: TruthUpstream, prompt: str, *, stream: bool, most: int = 1 << 20) -> bytes:
    """Ask the double itself; hang up after so many bytes, or when it is whole."""
    port = int(upstream.base_url.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": "m", "stream": stream, "messages": [{"role": "user", "content": prompt}]}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    received = b""
    async with asyncio.timeout(60):
        while len(received) < most and not received.endswith((b"0\r\n\r\n", b"}}", b"}]}")):
            part = await reader.read(most - len(received))
            if not part:
                break
            received += part
    writer.close()
    return received


async def test_the_upstream_knows_what_it_generated_and_what_it_had_written_when_it_was_left() -> None:
    async with TruthUpstream() as upstream:
        whole = await ask_upstream(upstream, prompt_of("w", 3, 0), stream=False)
        assert json.loads(whole.partition(b"\r\n\r\n")[2])["usage"]["completion_tokens"] == 3
        streamed = await ask_upstream(upstream, prompt_of("s", 3, 0), stream=True)
        assert streamed.count(b'"ab "') == 3
        assert (await ask_upstream(upstream, prompt_of("f", 3, 0, "500"), stream=True)).startswith(b"HTTP/1.1 500")
        assert await ask_upstream(upstream, prompt_of("x", 3, 0, "refuse"), stream=True) == b""
        await ask_upstream(upstream, prompt_of("b", 9, 1, "break", 2), stream=True)
        await ask_upstream(upstream, prompt_of("l", 2000, 1), stream=True, most=600)
        async with asyncio.timeout(60):
            while upstream.under_way:  # noqa: ASYNC110 -- a turn of the loop at a time
                await asyncio.sleep(0)
        seen = {name: tried[0] for name, tried in upstream.attempts.items()}
    assert {name for name, one in seen.items() if one.reported} == {"w", "s"}
    assert (seen["w"].written, seen["s"].written, seen["b"].written, seen["f"].written) == (3, 3, 2, 0)
    assert seen["l"].left
    assert 0 < seen["l"].written < 2000
