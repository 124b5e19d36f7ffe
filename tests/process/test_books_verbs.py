"""The verbs over the books beside a real server: usage, reconcile and backup while it writes, and after a kill -9."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import sqlite3
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from convene.errors import Conflict, StoreFault
from convene.store.backup import back_up
from process.program import Listening, started, verb

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S = 120.0
"""A bound for what ends at once unless something is broken."""
CONFIG = """
[engine]
enabled = false
[scripted]
enabled = true
[limits]
lease_s = 1
[prices.scripted-echo]
input = 1.0
output = 2.0
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb on the folder, with the test's configuration."""
    (folder / "convene.toml").write_text(CONFIG)
    return verb(folder, *words)


class Server(Listening):
    """A running `convene serve`."""

    def ask(self, key: str, method: str, path: str, **fields: object) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON of an answer, which must be a 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with contextlib.closing(connection):
            body = json.dumps(fields) if fields else None
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            return json.loads(text)

    def chat(self, key: str, model: str = "scripted-echo") -> Any:  # noqa: ANN401 - JSON
        """Return the usage of one chat."""
        messages = [{"role": "user", "content": "one two three"}]
        return self.ask(key, "POST", "/v1/chat/completions", model=model, messages=messages)["usage"]

    def begin_stream(self, key: str) -> http.client.HTTPConnection:
        """Begin a slow stream and return its connection once the first byte has come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        messages = [{"role": "user", "content": "word " * 500}]
        body = json.dumps({"model": "scripted-slow", "stream": True, "messages": messages})
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        assert connection.getresponse().read(1)
        return connection


@contextlib.contextmanager
def server(folder: Path, name: str) -> Iterator[Server]:
    """Run `convene serve`; it is killed at the end if it has not ended before."""
    (folder / "convene.toml").write_text(CONFIG)
    with started(folder, name) as (process, log):
        yield Server(process, log)


@pytest.mark.req("USAGE-01", "USAGE-02")
def test_verbs_beside_a_running_server_see_every_reply_that_has_arrived(tmp_path: Path) -> None:
    with server(tmp_path, "log") as running:
        key = running.wait_for(r"Authorization: Bearer (convene_\w+)")
        usages = [running.chat(key) for _ in range(5)]
        rows = json.loads(run(tmp_path, "usage", "--by", "model", "--json").stdout)
        assert [(row["group"], row["requests"]) for row in rows] == [({"model": "scripted-echo"}, 5)]
        assert rows[0]["total_tokens"] == sum(usage["total_tokens"] for usage in usages)
        exported = run(tmp_path, "export", "--format", "jsonl").stdout.splitlines()
        assert [json.loads(line)["completion_tokens"] for line in exported] == [
            usage["completion_tokens"] for usage in usages
        ]
        checked = run(tmp_path, "reconcile", "--json")
        assert checked.returncode == 0, checked.stdout
        assert json.loads(checked.stdout)["entries"] == 5
        assert running.ask(key, "GET", "/v1/usage")["requests"] == 5


def test_a_killed_request_is_reported_until_a_start_has_entered_it(tmp_path: Path) -> None:
    """Goal B1 with the reconciler's eyes: nothing vanishes, and nothing is entered twice."""
    with server(tmp_path, "first") as running:
        key = running.wait_for(r"Authorization: Bearer (convene_\w+)")
        running.chat(key)
        with contextlib.closing(running.begin_stream(key)):
            beside = run(tmp_path, "reconcile", "--json")
            assert (beside.returncode, json.loads(beside.stdout)["open_intents"]) == (0, 1), "it is under way"
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
    until = time.monotonic() + WAIT_S
    while (checked := run(tmp_path, "reconcile", "--json")).returncode == 0:
        assert time.monotonic() < until, "a dead process shows no life"
    [found] = json.loads(checked.stdout)["differences"]
    assert found["check"] == "intent"
    with server(tmp_path, "second") as running:
        while True:
            rows = running.ask(key, "GET", "/v1/usage/requests")["data"]
            if len(rows) == 2:
                break
            assert time.monotonic() < until, rows
        assert {row["status"] for row in rows} == {"ok", "unknown"}
        assert {row["id"] for row in rows} >= {found["where"]}
        assert run(tmp_path, "reconcile").returncode == 0


def test_a_backup_beside_a_writer_is_whole_and_has_all_that_was_answered(tmp_path: Path) -> None:
    with server(tmp_path, "log") as running:
        key = running.wait_for(r"Authorization: Bearer (convene_\w+)")
        answered = 0
        ended = threading.Event()

        def write() -> None:
            nonlocal answered
            while not ended.is_set():
                running.chat(key)
                answered += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while answered < 3:
                time.sleep(0.01)
            before = answered
            made = run(tmp_path, "backup", "copy.db")
        finally:
            ended.set()
            writer.join(WAIT_S)
        assert made.returncode == 0, made.stderr
    copy = tmp_path / "copy.db"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    restored = tmp_path / "restored"
    (restored / "data").mkdir(parents=True)
    copy.rename(restored / "data" / "convene.db")
    rows = json.loads(run(restored, "usage", "--by", "model", "--json").stdout)
    assert rows[0]["requests"] >= before, "what was answered before the copy is in it, the journal included"
    differences = json.loads(run(restored, "reconcile", "--json").stdout)["differences"]
    assert {one["check"] for one in differences} <= {"intent"}, "at most the request that was under way"


def test_a_backup_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "convene.db"
    source.write_bytes(b"this is no database, however long it may be" * 100)
    with pytest.raises(StoreFault):
        back_up(source, tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir()] == ["convene.db"]
    with pytest.raises(StoreFault):
        back_up(source, tmp_path / "no" / "such" / "folder.db")
    taken = tmp_path / "taken.db"
    taken.write_bytes(b"mine")
    with pytest.raises(Conflict):
        back_up(source, taken)
    assert taken.read_bytes() == b"mine"


def test_a_part_that_an_earlier_try_has_left_does_not_stand_in_the_way(tmp_path: Path) -> None:
    source, target = tmp_path / "convene.db", tmp_path / "copy.db"
    with contextlib.closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (7)")
    (tmp_path / "copy.db.part").write_bytes(b"half")
    assert back_up(source, target) == target.stat().st_size
    with contextlib.closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT a FROM t").fetchone() == (7,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["convene.db", "copy.db"]
