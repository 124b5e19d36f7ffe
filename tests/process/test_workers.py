"""`convene serve --workers N`, the real program: spread, deaths of every kind, one engine, one key, one voice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from process.program import SCRIPTED, SERVE, WAIT_S, Program, frames, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TWO = "workers = 2\n" + SCRIPTED
LOOK_S = 0.02


def drains(running: Program) -> bool:
    """Whether new requests are refused."""
    return running.get("/readyz")[0] == http.client.SERVICE_UNAVAILABLE


def wait_until(condition: Callable[[], object], what: str, within_s: float = WAIT_S) -> None:
    """Look until the condition holds."""
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(LOOK_S)


def workers_of(running: Program) -> dict[int, int]:
    """Return the process of each worker that has said that it serves, the newest one."""
    found = {}
    for line in running.log.read_text().splitlines():
        if '"event":"convene.workers"' in line and " serves (process " in line:
            words = json.loads(line)["message"].split()
            found[int(words[1])] = int(words[-1].rstrip(")"))
    return found


def lines_of(running: Program) -> list[dict[str, Any]]:
    """Return the access log. Each line must be whole: a broken one fails here."""
    text = running.log.read_text()
    whole = text[: text.rindex("\n") + 1].splitlines()
    return [line for line in map(json.loads, (line for line in whole if line[:1] == "{")) if line["event"] == "request"]


def answered_by(running: Program) -> set[int]:
    """Return which workers the access log knows."""
    return {line["worker"] for line in lines_of(running)}


def ask_until_all_answer(running: Program, count: int = 2) -> None:
    """Ask on fresh connections, which the kernel spreads, until each worker has answered."""
    wait_until(lambda: len(workers_of(running)) == count, "not all workers serve")

    def all_have() -> bool:
        assert running.get("/livez")[0] == 200
        return answered_by(running) == set(range(count))

    wait_until(all_have, "some worker never answers")


def serves(running: Program) -> bool:
    """Whether a fresh connection is answered; one that a dying worker had just taken is reset."""
    try:
        return running.get("/livez")[0] == 200
    except OSError:
        return False


def is_gone(pid: int) -> bool:
    """Whether there is no such process, or only what is left of it until its parent looks."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:  # noqa: PTH123 - vanishes at will
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Two workers with scripted models."""
    with program(tmp_path_factory.mktemp("pair"), TWO) as running:
        running.wait_ready()
        yield running


def test_requests_reach_more_than_one_worker(pair: Program) -> None:
    ask_until_all_answer(pair)
    assert len(set(workers_of(pair).values())) == 2


def test_the_key_and_the_line_to_paste_come_once(pair: Program) -> None:
    text = pair.log.read_text()
    assert text.count("Authorization: Bearer convene_") == 1
    assert text.count("listens on http://") == 1


def test_nothing_secret_is_on_a_command_line_or_in_an_environment(pair: Program) -> None:
    for pid in workers_of(pair).values():
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            command = file.read()
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            environ = file.read()
        assert command.split(b"\0")[1:-1] == [b"-P", b"-m", b"convene.app_worker"]
        assert pair.key.encode() not in environ


def test_a_long_line_of_one_worker_is_never_cut_by_another(pair: Program) -> None:
    """A pipe takes 4,096 bytes at once, and a path may be four times as long."""
    path = "/v1/" + "x" * 9000
    asked = 40
    before = sum(line["path"] == path for line in lines_of(pair))
    for _ in range(asked):
        assert pair.get(path)[0] in {401, 404}
    wait_until(lambda: sum(line["path"] == path for line in lines_of(pair)) == before + asked, "lines are missing")


def test_a_worker_that_is_killed_comes_back_while_the_others_serve(pair: Program) -> None:
    ask_until_all_answer(pair)
    before = workers_of(pair)
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: is_gone(before[0]), "the worker does not die")
    wait_until(lambda: workers_of(pair)[0] == before[0] and serves(pair), "the others do not serve")
    pair.wait_for(r"worker 0 \(process \d+\) was killed by signal 9; it is started anew in 0\.25 s")
    wait_until(lambda: workers_of(pair)[0] != before[0], "it is not started anew")
    assert workers_of(pair)[1] == before[1]
    with pair.chat(model="scripted-echo") as answer:
        assert answer.status == 200


def test_a_worker_that_is_asked_to_end_drains_and_is_replaced(pair: Program) -> None:
    ask_until_all_answer(pair)
    before = workers_of(pair)
    os.kill(before[1], signal.SIGTERM)
    wait_until(lambda: workers_of(pair)[1] != before[1], "it is not replaced")
    assert "ended with code 0; it is started anew" in pair.log.read_text()


def _status(running: Program, connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {running.key}"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_a_key_revoked_by_the_command_line_is_dead_within_a_second_on_every_worker(tmp_path: Path) -> None:
    """E5. Each worker is watched over connections that have just used the key.

    A worker looks twice a second; the rest of the bound is for a machine that does other things as well.
    """
    with program(tmp_path, TWO) as running, contextlib.ExitStack() as open_ones:
        running.wait_ready()
        wait_until(lambda: len(workers_of(running)) == 2, "not all workers serve")
        connections = []
        for _ in range(16):
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=WAIT_S)
            open_ones.callback(connection.close)
            assert _status(running, connection) == 200
            connections.append(connection)
        wait_until(lambda: answered_by(running) == {0, 1}, "16 connections lie with one worker")
        environ = dict(os.environ) | {"CONVENE_CONFIG": str(tmp_path / "convene.toml")}
        environ["CONVENE_DATA_DIR"] = str(tmp_path / "data")
        revoke = [sys.executable, "-m", "convene", "keys", "revoke", running.key.split("_")[1]]
        subprocess.run(revoke, env=environ, check=True, capture_output=True, timeout=WAIT_S)  # noqa: S603 - ours
        wait_until(lambda: {_status(running, one) for one in connections} == {401}, "the key lives", within_s=5.0)


def test_kill_9_of_the_first_process_ends_everything(tmp_path: Path) -> None:
    config = "workers = 2\n[scripted]\nenabled = true\n"
    with contextlib.suppress(AssertionError), program(tmp_path, config) as running:
        running.wait_ready()
        wait_until(lambda: len(workers_of(running)) == 2, "not all workers serve")
        wait_until(lambda: len(running.children()) == 4, "two workers and two engines")
        watched = {pid: os.pidfd_open(pid) for pid in running.children()}
        assert len(watched) == 4
        with running.chat(model="scripted-slow", stream=True, messages=[{"role": "user", "content": "word " * 2000}]):
            running.process.kill()
            running.process.wait()
            for pid, descriptor in watched.items():
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                gone = poll.poll(WAIT_S * 1000)
                os.close(descriptor)
                if not gone:
                    pytest.fail(f"process {pid} has outlived its parent")
    assert is_gone(running.process.pid)


@pytest.mark.req("OPS-03")
def test_sigterm_lets_the_streams_of_all_workers_finish_and_exits_with_0(tmp_path: Path) -> None:
    """C6, small: 20 streams over two workers, none cut; the signal reaches the whole group, as a service's does."""
    with program(tmp_path, TWO) as running, contextlib.ExitStack() as open_ones:
        running.wait_ready()
        wait_until(lambda: len(workers_of(running)) == 2, "not all workers serve")
        asked = {"model": "scripted-slow", "messages": [{"role": "user", "content": "word " * 60}], "max_tokens": 1000}
        # So many that hardly ever all of them lie with one worker.
        answers = [open_ones.enter_context(running.chat(**asked, stream=True)) for _ in range(20)]
        beginnings = [answer.readline() for answer in answers]
        for pid in (*workers_of(running).values(), running.process.pid):
            os.kill(pid, signal.SIGTERM)

        def is_refused() -> bool:
            with running.chat(model="scripted-echo") as refused:
                body = json.loads(refused.read())
                return refused.status == 503 and body["error"]["type"] == "server_error"

        wait_until(is_refused, "new requests are not refused")
        for beginning, answer in zip(beginnings, answers, strict=True):
            text = (beginning + answer.read()).decode()
            assert text.count('"content":') >= 60
            assert frames(text)[-1] == "[DONE]"
        assert running.process.wait(60) == 0
    assert {line["worker"] for line in lines_of(running) if line.get("stream")} == {0, 1}
    assert "was killed" not in running.log.read_text()


def test_a_second_signal_ends_the_patience_of_all_workers(tmp_path: Path) -> None:
    with program(tmp_path, TWO) as running:
        running.wait_ready()
        asked = {"model": "scripted-slow", "messages": [{"role": "user", "content": "word " * 20000}]}
        with running.chat(**asked, stream=True, max_tokens=50000) as answer:
            beginning = answer.readline()
            running.process.send_signal(signal.SIGINT)
            wait_until(lambda: drains(running), "it does not drain")
            for _ in range(100):  # one of the two has nothing to wait for; what the kernel gives to it must not be cut
                assert drains(running)
            assert not any(is_gone(pid) for pid in workers_of(running).values())
            running.process.send_signal(signal.SIGINT)
            text = (beginning + answer.read()).decode()
        *_, error, done = frames(text)
        assert "error" in json.loads(error)
        assert done == "[DONE]"
        assert running.process.wait(60) == 0


def start(folder: Path, config: str, port: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    folder.mkdir()
    (folder / "convene.toml").write_text(config)
    environ = dict(os.environ) | {"CONVENE_CONFIG": str(folder / "convene.toml"), "PORT": str(port)}
    environ["CONVENE_DATA_DIR"] = str(folder / "data")
    return subprocess.run(SERVE, capture_output=True, text=True, env=environ, timeout=120, check=False)  # noqa: S603


@pytest.mark.parametrize("second", [1, 2])
@pytest.mark.parametrize("first", [1, 2])
def test_a_port_that_is_taken_is_said_with_the_way_out(tmp_path: Path, first: int, second: int) -> None:
    """Between any two of us: sockets that may share a port must not let another server in silently."""
    with program(tmp_path, f"workers = {first}\n{SCRIPTED}") as running:
        running.wait_ready()
        found = start(tmp_path / "other", f"workers = {second}\n{SCRIPTED}", running.port)
    assert found.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{running.port}" in found.stderr
    assert "--port" in found.stderr
    assert "Traceback" not in found.stderr


def test_workers_that_never_come_up_end_the_server_with_the_reason(tmp_path: Path) -> None:
    """An installation that is broken for the workers alone: their interpreters end before they are theirs."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'convene.app_worker' in sys.orig_argv:\n"
        "    os.write(2, b'this worker is broken')\n"
        "    os._exit(9)\n"
    )
    (tmp_path / "convene.toml").write_text(TWO)
    environ = dict(os.environ) | {"CONVENE_CONFIG": str(tmp_path / "convene.toml"), "PORT": "0"}
    environ |= {"CONVENE_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(broken)}
    found = subprocess.run(SERVE, capture_output=True, text=True, env=environ, timeout=120, check=False)  # noqa: S603
    assert found.returncode == 1
    assert "No worker came up: worker" in found.stderr
    assert "3 times in a row" in found.stderr
    assert "this worker is broken" in found.stderr
    assert "curl" not in found.stdout
    assert "Traceback" not in found.stderr


def test_servers_that_start_at_once_on_one_empty_folder_print_one_key(tmp_path: Path) -> None:
    """Each is a server of its own on a port of its own; the folder is what they share."""
    (tmp_path / "convene.toml").write_text(SCRIPTED)
    environ = dict(os.environ) | {"CONVENE_CONFIG": str(tmp_path / "convene.toml"), "PORT": "0"}
    environ["CONVENE_DATA_DIR"] = str(tmp_path / "data")
    logs = [tmp_path / f"log{place}" for place in range(4)]
    with contextlib.ExitStack() as open_ones:
        outputs = [open_ones.enter_context(log.open("wb")) for log in logs]
        servers = [
            subprocess.Popen(  # noqa: S603 - ours
                [*SERVE, "--workers", str(1 + place % 2)], stdout=output, stderr=output, env=environ, cwd=tmp_path
            )
            for place, output in enumerate(outputs)
        ]
        try:
            wait_until(lambda: all("Authorization: Bearer" in log.read_text() for log in logs), "one does not start")
        finally:
            for server in servers:
                server.terminate()
            assert [server.wait(60) for server in servers] == [0] * 4
    printed = [log.read_text().count("Authorization: Bearer convene_") for log in logs]
    assert sorted(printed) == [0, 0, 0, 1]


def test_all_workers_share_one_engine_and_see_it_come_back(tmp_path: Path) -> None:
    with program(tmp_path, "workers = 2\n[engine]\nembeddings = false\n") as running:
        running.wait_ready()
        running.wait_for("smollm2-135m: ready")
        wait_until(lambda: len(workers_of(running)) == 2, "not all workers serve")
        [engine] = set(running.children()) - set(workers_of(running).values())
        _chat_with_all(running)
        os.kill(engine, signal.SIGKILL)
        wait_until(lambda: is_gone(engine), "the engine does not die")
        _chat_with_all(running)
        [fresh] = set(running.children()) - set(workers_of(running).values())
        assert fresh != engine
        assert len(set(workers_of(running).values())) == 2
        wait_until(lambda: running.get("/readyz")[0] == 200, "it is not ready again")


def _chat_with_all(running: Program) -> None:
    """Chat until each worker has answered once more; an engine that is starting is waited for by the worker."""
    before = len(lines_of(running))

    def chat() -> bool:
        with running.chat(max_tokens=2) as answer:
            answer.read()
            assert answer.status in {200, 503}
        served = lines_of(running)[before:]
        return {line["worker"] for line in served if line.get("model") and line["status"] == 200} == {0, 1}

    wait_until(chat, "some worker gets no answer from the engine")


@pytest.mark.parametrize("start_number", range(3))
def test_the_address_is_not_told_before_connections_are_let_in(tmp_path: Path, start_number: int) -> None:
    """The very first request after the line has been printed is answered, at every start."""
    folder = tmp_path / str(start_number)
    folder.mkdir()
    with program(folder, TWO) as running:
        assert running.get("/livez")[0] == 200
