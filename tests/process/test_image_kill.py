"""Pictures under way when the server is killed, or when those who asked for them vanish: books right, nothing left."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import re
import signal
import subprocess
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from image_hosts import serving_images
from process.image_libraries import write_libraries, write_pipeline
from process.program import WAIT_S, Program, program, started
from process.test_image_hosts import WORKFLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KILLS = int(os.environ.get("CONVENE_TEST_KILLS", "4"))
"""`make soak` sets more."""
CLIENTS = 12
MICROS = 40_000
CONFIG = """
public_url = "http://convene.test"
[engine]
enabled = false
[images.quick]
kind = "scripted"
[images.slow]
kind = "scripted"
steps = 200
step_s = 0.1
[prices.quick]
image = 0.04
[prices.slow]
image = 0.04
[plans.owner]
images_per_minute = {limit}
"""
_FILE = re.compile(r"[0-9a-f]{64}\.png")


@contextlib.contextmanager
def running(folder: Path, config: str, key: str = "", **environ: str) -> Iterator[Program]:
    """Run `convene serve` over one data folder; it is killed at the end of the block."""
    (folder / "convene.toml").write_text(config)
    with started(folder, **environ) as (process, log):
        yield Program(process, log, key)


def connect(server: Program) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)


def ask(server: Program, connection: http.client.HTTPConnection, **body: object) -> http.client.HTTPResponse:
    asked = json.dumps({"prompt": "a fox in snow", "size": "256x256"} | body)
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/images/generations", asked, headers)
    return connection.getresponse()


def drawn(server: Program, **body: object) -> tuple[int, Any]:
    with contextlib.closing(connect(server)) as connection:
        answer = ask(server, connection, **body)
        return answer.status, json.loads(answer.read())


def rows(server: Program) -> list[dict[str, Any]]:
    """Return the entries of the ledger."""
    status, body = server.get("/v1/usage/requests?limit=1000", server.key)
    assert status == 200, body
    found: list[dict[str, Any]] = json.loads(body)["data"]
    return found


def in_flight(server: Program) -> int:
    """Return how many requests are under way, this look among them."""
    found = re.search(rb"^convene_requests_in_flight (\d+)", server.get("/metrics", server.key)[1], re.MULTILINE)
    assert found is not None
    return int(found[1])


def reserved(server: Program) -> int:
    """Return how many pictures count against the limit, those under way among them: these have begun in the books."""
    status, body = server.get("/v1/limits", server.key)
    assert status == 200, body
    return sum(one["used"] for one in json.loads(body)["data"] if one["name"] == "images per minute")


def until(reached: Callable[[], object], what: str) -> None:
    """Wait, for a bounded time, until something is so."""
    end = time.monotonic() + WAIT_S
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def leave_in_the_middle(server: Program, *, stream: bool, **body: object) -> None:
    """Ask, wait until it is under way, and vanish without a word."""
    with contextlib.closing(connect(server)) as connection:
        if stream:
            answer = ask(server, connection, stream=True, **body)
            assert answer.readline().startswith(b": progress ")
            answer.close()
            return
        asked = json.dumps({"prompt": "a fox in snow", "size": "256x256"} | body)
        headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/images/generations", asked, headers)
        until(lambda: reserved(server) > 0, "it was never under way")


def test_whatever_a_killed_server_had_begun_to_draw_is_booked_once_and_nothing_half_is_left(tmp_path: Path) -> None:
    config, key, finished, begun = CONFIG.format(limit=100_000), "", 0, 0
    for kill in range(KILLS):
        with running(tmp_path, config, key) as server:
            key = server.key
            status, body = drawn(server, model="quick", response_format="url", seed=kill)
            assert status == 200, body
            finished += 1
            link = body["data"][0]["url"].removeprefix("http://convene.test")
            with contextlib.ExitStack() as stack:
                for at in range(3):
                    connection = stack.enter_context(contextlib.closing(connect(server)))
                    form = "url" if at else "b64_json"
                    answer = ask(server, connection, model="slow", n=2, stream=True, response_format=form)
                    assert answer.readline().startswith(b": progress ")
                    begun += 1
                writer = threading.Thread(target=keep_until_it_ends, args=(server, kill))
                writer.start()
                before = len(files(tmp_path))
                until(partial(has_more, tmp_path, before), "nothing was kept")
                os.kill(server.process.pid, signal.SIGKILL)
                server.process.wait()
                writer.join()
    with program(tmp_path, config, key) as server:
        until(lambda: sum(row["status"] == "unknown" for row in rows(server)) >= begun, "the dead were not entered")
        found = rows(server)
        assert server.get(link)[0] == 200
        assert drawn(server, model="quick")[0] == 200
    slow = [row for row in found if row["model"] == "slow"]
    assert len(slow) == begun
    assert {(row["status"], row["images"], row["cost"]["micros"]) for row in slow} == {("unknown", 2, 2 * MICROS)}
    assert len({row["id"] for row in found}) == len(found)
    quick = [row for row in found if row["model"] == "quick"]
    assert sum(row["status"] == "ok" for row in quick) >= finished
    assert {(row["images"], row["cost"]["micros"]) for row in quick} == {(1, MICROS)}
    for file in files(tmp_path):
        with Image.open(file) as picture:
            picture.load()


def keep_until_it_ends(server: Program, start: int) -> None:
    """Have one picture after the other kept, until the server is gone."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        for seed in range(1000 * (start + 1), 1000 * (start + 2)):
            assert drawn(server, model="quick", response_format="url", seed=seed)[0] == 200


def has_more(folder: Path, before: int) -> bool:
    return len(files(folder)) > before + 1


def files(folder: Path) -> list[Path]:
    """Return the kept pictures, under their final names."""
    return [path for path in (folder / "data" / "images").glob("*/*") if _FILE.fullmatch(path.name)]


def test_clients_that_vanish_end_their_pictures_and_get_their_limits_back(tmp_path: Path) -> None:
    with program(tmp_path, CONFIG.format(limit=CLIENTS)) as server:
        for at in range(CLIENTS):  # one at a time: that a request is under way says that it is this one's
            leave_in_the_middle(server, model="slow", stream=bool(at % 2))
            until(lambda: in_flight(server) == 1, "something is still under way")
        until(lambda: len(rows(server)) == CLIENTS, "an entry is missing")
        found = {(row["status"], row["finish"], row["images"], row["cost"]["micros"]) for row in rows(server)}
        assert found == {("client_left", None, 0, 0)}
        for _ in range(CLIENTS // 4):
            assert drawn(server, model="quick", n=4)[0] == 200
        assert drawn(server, model="quick")[0] == 429
        assert files(tmp_path) == []


def test_what_was_finished_before_a_client_vanished_is_paid_for(tmp_path: Path) -> None:
    config = CONFIG.format(limit=100).replace("steps = 200", "steps = 10")
    with program(tmp_path, config) as server:
        with contextlib.closing(connect(server)) as connection:
            answer = ask(server, connection, model="slow", n=4, stream=True)
            while not answer.readline().startswith(b"data:"):
                pass
            answer.close()
        until(lambda: len(rows(server)) == 1, "there is no entry")
        [row] = rows(server)
    assert row["status"] == "client_left"
    assert 1 <= row["images"] < 4
    assert row["cost"]["micros"] == row["images"] * MICROS


def test_hosts_are_told_to_stop_when_the_client_vanishes(tmp_path: Path) -> None:
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
    with serving_images() as hosts:
        config = "[engine]\nenabled = false\n" + "".join(
            f'[images.{name}]\nkind = "{kind}"\nbase_url = "{hosts.url}"\n{more}\n'
            for name, kind, more in (
                ("webui", "automatic1111", ""),
                ("comfy", "comfyui", f'workflow = "{tmp_path / "workflow.json"}"'),
            )
        )
        with program(tmp_path, config) as server:
            hosts.hold.clear()
            leave_in_the_middle(server, model="webui", stream=True)
            until(lambda: hosts.seen["/sdapi/v1/interrupt"], "AUTOMATIC1111 was not told")
            hosts.hold.clear()
            vanish_once(server, hosts.looked)
            until(lambda: hosts.seen["/interrupt"], "ComfyUI was not told")
            assert hosts.seen["/queue"][0] == {"delete": ["p0"]}
            until(lambda: len(rows(server)) == 2, "an entry is missing")
            assert {(row["status"], row["images"]) for row in rows(server)} == {("client_left", 0)}
            hosts.hold.set()
            status, body = drawn(server, model="comfy")
            assert status == 200
            with Image.open(io.BytesIO(base64.b64decode(body["data"][0]["b64_json"]))) as picture:
                assert picture.size == (256, 256)


def vanish_once(server: Program, begun: threading.Event) -> None:
    """Ask ComfyUI's model for a whole answer and vanish once the host is at work."""
    with contextlib.closing(connect(server)) as connection:
        asked = json.dumps({"prompt": "a fox", "model": "comfy", "size": "256x256"})
        headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/images/generations", asked, headers)
        assert begun.wait(WAIT_S)


def test_a_killed_server_leaves_no_child_that_draws(tmp_path: Path) -> None:
    write_libraries(tmp_path / "libraries")
    write_pipeline(tmp_path / "tiny")
    config = f'[engine]\nenabled = false\n[images.studio]\nkind = "local"\nfolder = "{tmp_path / "tiny"}"\n'
    with running(tmp_path, config, PYTHONPATH=str(tmp_path / "libraries")) as server:
        server.wait_for("tiny: ready")
        [child] = server.children()
        with contextlib.closing(connect(server)) as connection:
            answer = ask(server, connection, model="studio", prompt="endless", stream=True)
            assert answer.readline().startswith(b": progress ")
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
            until(lambda: not is_alive(child), "the child is still there")


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is not just waiting to be buried."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")
