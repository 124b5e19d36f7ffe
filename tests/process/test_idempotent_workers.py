"""`Idempotency-Key` over real processes: one call for all workers, and a claim that dies with its process (B5)."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from process.program import WAIT_S, Program, program
from process.test_workers import TWO, lines_of, wait_until, workers_of

if TYPE_CHECKING:
    from pathlib import Path

REPEATS = 100
WORDS = " ".join(["word"] * 30)


def ask(running: Program, key: str, *, model: str = "scripted-slow", stream: bool = False) -> tuple[int, bytes, bool]:
    """Post under an idempotency key on a connection of its own; give status, body and whether it is a replay."""
    body = {"model": model, "messages": [{"role": "user", "content": WORDS}], "stream": stream}
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=WAIT_S)
    with closing(connection):
        headers = {"Authorization": f"Bearer {running.key}", "Idempotency-Key": key}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("idempotent-replayed") == "true"


@pytest.mark.req("OSDK-06")
@pytest.mark.parametrize("stream", [False, True])
def test_a_hundred_repeats_over_two_workers_are_one_call_with_the_same_bytes(tmp_path: Path, *, stream: bool) -> None:
    with program(tmp_path, TWO) as running:
        running.wait_ready()
        wait_until(lambda: len(workers_of(running)) == 2, "not all workers serve")
        with ThreadPoolExecutor(REPEATS) as pool:
            answers = list(pool.map(lambda _: ask(running, "k", stream=stream), range(REPEATS)))
        late = ask(running, "k", stream=stream)
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, body, _ in (*answers, late)}) == 1
    assert sum(replayed for _, _, replayed in answers) == REPEATS - 1
    assert late[2]
    served = [line for line in lines_of(running) if line["path"] == "/v1/chat/completions"]
    assert {line["worker"] for line in served} == {0, 1}
    assert sum("completion_tokens" in line for line in served) == 1, "one turn ran"


@pytest.mark.req("OSDK-06")
def test_the_claim_of_a_killed_process_is_void_and_a_kept_answer_is_not(tmp_path: Path) -> None:
    """That the writer is dead is seen by its lock, at once; its silence is for other machines (`tests/contract`)."""
    script = tmp_path / "script.json"
    say(script, {"text": "word"}, {"pause_s": 3600})
    with program(tmp_path, f'{TWO}file = "{script}"\n') as running:
        running.wait_ready()
        wait_until(lambda: len(workers_of(running)) == 2, "not all workers serve")
        kept = ask(running, "kept")
        with ThreadPoolExecutor(1) as pool:
            lost = pool.submit(ask, running, "lost", model="played", stream=True)
            wait_until(lambda: claims(tmp_path) == 2, "the second request has not claimed its key")
            say(script, {"text": "word"})
            for pid in workers_of(running).values():
                os.kill(pid, signal.SIGKILL)
            with pytest.raises((http.client.HTTPException, OSError)):
                lost.result(WAIT_S)
            wait_until(lambda: running.log.read_text().count(" serves (process ") == 4, "they do not come back")
            assert ask(running, "kept") == (200, kept[1], True)
            status, body, replayed = ask(running, "lost", model="played", stream=True)
    assert (status, replayed) == (200, False)
    assert body.endswith(b"data: [DONE]\n\n")


def say(script: Path, *steps: dict[str, object]) -> None:
    """Let the model `played` of workers that start from now on take these steps."""
    script.write_text(json.dumps({"models": [{"name": "played", "turns": [{"steps": steps}]}]}))


def claims(folder: Path) -> int:
    """Return how many keys are claimed or answered."""
    with closing(sqlite3.connect(f"file:{folder / 'data' / 'convene.db'}?mode=ro", uri=True)) as connection:
        [count] = connection.execute("SELECT count(*) FROM answers").fetchone()
        return int(count)
