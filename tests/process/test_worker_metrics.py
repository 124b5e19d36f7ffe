"""Metrics of several workers: any of them tells of all, dead ones included, and no counter falls."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from convene.api.metrics import Metrics, Packed
from convene.app_metrics import Shelf
from process.program import Program, program
from process.test_workers import TWO, wait_until, workers_of

if TYPE_CHECKING:
    from pathlib import Path

CHATS = re.compile(r'^convene_requests_total\{route="/v1/chat/completions",.*status="200"\} (\d+)$', re.MULTILINE)


def counted(running: Program) -> int:
    """Return how many chats the metrics know, asked of whichever worker answers."""
    status, text = running.get("/metrics")
    assert status == 200
    return sum(int(count) for count in CHATS.findall(text.decode()))


def all_tell(running: Program, count: int) -> bool:
    """Return whether 24 fresh connections, which the kernel spreads over the workers, are all told this count."""
    return {counted(running) for _ in range(24)} == {count}


def chat(running: Program) -> None:
    """Ask once, on a fresh connection."""
    with running.chat(model="scripted-echo") as answer:
        assert answer.status == 200
        answer.read()


@pytest.mark.req("OPS-11")
def test_any_worker_tells_of_all_and_of_the_dead(tmp_path: Path) -> None:
    with program(tmp_path, TWO) as running:
        wait_until(lambda: len(workers_of(running)) == 2, "not all workers serve")
        for _ in range(20):
            chat(running)
        wait_until(lambda: all_tell(running, 20), "the figures of both are never added up, whoever is asked")
        before = workers_of(running)
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: workers_of(running)[0] != before[0], "the worker is never replaced")
        assert all_tell(running, 20), "no counter falls"
        chat(running)
        wait_until(lambda: all_tell(running, 21), "the new worker's figures are never added")
        shelf = tmp_path / "data" / "metrics"
        wait_until(lambda: len(list(shelf.glob("*.metrics"))) == 3, "not each process has a file of its own")


def packed(count: int, in_flight: int = 0) -> Packed:
    """Return figures of some requests."""
    return Packed([("/v1/x", "", 200, [count] + [0] * 15, 0.5)], in_flight=in_flight, waiting=in_flight)


def put_of(folder: Path, name: str, figures: Packed) -> None:
    """Leave figures there as somebody else's."""
    shelf = Shelf(folder, 0)
    shelf._own = name
    shelf.put(figures)


def dead_process() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def test_only_workers_of_ones_own_server_count_and_the_dead_have_nothing_under_way(tmp_path: Path) -> None:
    folder, parent, dead = tmp_path / "metrics", os.getppid(), dead_process()
    mine = Shelf(folder, 0)
    assert mine.take() == [], "nothing is there yet"
    mine.put(packed(100))
    put_of(folder, f"{parent}-1-{os.getpid()}.metrics", packed(1, in_flight=2))
    put_of(folder, f"{parent}-2-{dead}.metrics", packed(10, in_flight=3))
    put_of(folder, f"{dead}-0-{dead}.metrics", packed(1000))
    put_of(folder, f"{os.getpid()}-0-{dead}.metrics", packed(5000))
    (folder / f"{parent}-3-{dead}.metrics").write_bytes(b"half a file")
    (folder / "notes.metrics").write_bytes(b"somebody's")
    found = mine.take()
    assert sorted((one.requests[0][3][0], one.in_flight) for one in found) == [(1, 2), (10, 0)]
    assert not (folder / f"{dead}-0-{dead}.metrics").exists(), "a server that is gone is swept away"
    assert (folder / f"{os.getpid()}-0-{dead}.metrics").exists(), "another that lives is not"


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("a file stands in the way")
    Shelf(tmp_path / "metrics", 0).put(packed(1))


async def test_figures_are_added_up_whole() -> None:
    metrics = Metrics(info={"version": "1"})
    metrics.attach(["/v1/x"], lambda: 1)
    metrics.add(packed(3))
    other = Packed(
        [("/v1/x", "", 200, [1] + [0] * 15, 0.25), ("/v1/x", "m", 500, [0] * 15 + [2], 900.0)],
        [("m", [1] + [0] * 15, 0.001, [0] * 14 + [1], 3.0, (5, 4, 3, 2, 1))],
        [("m", "search", "done", 7)],
        [("key", "tokens per minute", 2)],
        4,
        5,
    )
    text = metrics.with_others([other, other]).render().decode()
    for sample in (
        'convene_requests_total{route="/v1/x",model="",status="200"} 5',
        'convene_requests_total{route="/v1/x",model="m",status="500"} 4',
        'convene_request_duration_seconds_sum{route="/v1/x",model=""} 1.0',
        'convene_time_to_first_token_seconds_count{model="m"} 2',
        'convene_inter_token_seconds_sum{model="m"} 6.0',
        'convene_tokens_total{kind="prompt",model="m"} 10',
        'convene_tokens_total{kind="reasoning",model="m"} 4',
        'convene_tool_calls_total{tool="search",status="done",model="m"} 14',
        'convene_agent_calls_total{model="m"} 2',
        'convene_limit_refusals_total{scope="key",limit="tokens per minute"} 4',
        "convene_requests_in_flight 9",
        "convene_queue_depth 10",
        'convene_build_info{version="1"} 1',
    ):
        assert sample in text.splitlines()
    assert metrics.pack().requests[0][3][0] == 3, "one's own figures stay one's own"
