"""The real `convene image` against the real server, with test pictures, and against a host that answers otherwise."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from image_hosts import png
from process.program import Program, program
from process.test_cli_chat import Host, host, run  # noqa: F401 -- a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = """
[engine]
enabled = false
[images.demo]
kind = "scripted"
steps = 8
[images.broken]
kind = "scripted"
model = "fail-after"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program(tmp_path_factory.mktemp("image"), CONFIG) as running:
        yield running


def draw(server: Program, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    url = f"http://127.0.0.1:{server.port}"
    return run(folder, "image", "a fox in snow", "--url", url, *words, CONVENE_API_KEY=server.key)


@pytest.mark.parametrize(("name", "form"), [("fox.png", "PNG"), ("fox.jpg", "JPEG"), ("fox.webp", "WEBP")])
def test_a_picture_is_written_in_the_form_that_the_name_says(
    server: Program, tmp_path: Path, name: str, form: str
) -> None:
    file = tmp_path / name
    drawn = draw(server, tmp_path, "-o", str(file), "--size", "512x512", "--seed", "7")
    assert (drawn.returncode, drawn.stdout) == (0, ""), drawn.stderr
    with Image.open(file) as picture:
        assert (picture.format, picture.size) == (form, (512, 512))
    told = drawn.stderr.splitlines()
    assert [re.search(r"step (\d) of 8", line)[1] for line in told[:-1]] == ["2", "4", "6", "8"]  # type: ignore[index]
    assert told[-1].startswith(f"{file}: ")


def test_the_server_sees_a_request_that_ended_well(server: Program, tmp_path: Path) -> None:
    assert draw(server, tmp_path, "-o", str(tmp_path / "fox.png")).returncode == 0
    assert '"status":200' in server.wait_for(r'"path":"/v1/images/generations",[^\n]*')
    assert '"status":499' not in server.log.read_text()


def test_on_a_terminal_one_line_moves(server: Program, tmp_path: Path) -> None:
    file, (ours, theirs) = tmp_path / "fox.png", pty.openpty()
    words = [sys.executable, "-m", "convene", "image", "a fox", "-o", str(file), "--model", "demo"]
    environ = dict(os.environ) | {
        "CONVENE_API_KEY": server.key,
        "CONVENE_BASE_URL": f"http://127.0.0.1:{server.port}/v1",
        "HOME": str(tmp_path),
    }
    with subprocess.Popen(words, stderr=theirs, cwd=tmp_path, env=environ) as process:  # noqa: S603 -- our own words
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # Linux tells the end of a terminal so
            pass
        os.close(ours)
    assert process.returncode == 0, shown
    assert b"\rDrawing [" in shown
    assert b" 50% step 4 of 8" in shown
    *_, moved, last, _ = shown.decode().replace("\r\n", "\r").split("\r")
    assert moved.strip() == ""
    assert last.startswith(f"{file}: ")


def test_what_goes_wrong_ends_with_1_and_the_reason_and_writes_nothing(server: Program, tmp_path: Path) -> None:
    file = tmp_path / "fox.png"
    broken = draw(server, tmp_path, "-o", str(file), "--model", "broken")
    assert broken.returncode == 1
    assert "as its script says" in broken.stderr
    nobody = draw(server, tmp_path, "-o", str(file), "--model", "nobody")
    assert nobody.returncode == 1
    assert "nobody" in nobody.stderr
    assert not file.exists()


def test_what_cannot_be_written_is_told_before_anything_is_drawn(server: Program, tmp_path: Path) -> None:
    for name, words in (("fox.gif", "must end in one of .png"), ("none/fox.png", "there is no folder")):
        asked = draw(server, tmp_path, "-o", str(tmp_path / name))
        assert asked.returncode == 2
        assert words in asked.stderr


def test_a_server_that_answers_with_one_body_is_understood(host: Host, tmp_path: Path) -> None:  # noqa: F811
    host.body = json.dumps({"data": [{"b64_json": base64.b64encode(png(8, 8)).decode()}]}).encode()
    host.kind = "application/json"
    file = tmp_path / "fox.png"
    asked = run(tmp_path, "image", "a fox", "-o", str(file), "--url", host.url, "--size", "256x256")
    assert asked.returncode == 0, asked.stderr
    assert file.read_bytes() == png(8, 8)
    [(path, _, body)] = host.seen
    assert path == "/v1/images/generations"
    told = {"prompt": "a fox", "size": "256x256", "output_format": "png", "stream": True}
    assert json.loads(body) == told


@pytest.mark.parametrize("workers", [1, 2])
def test_a_link_names_the_port_that_the_system_has_chosen(tmp_path: Path, workers: int) -> None:
    with program(tmp_path, f"workers = {workers}\n{CONFIG}") as server:
        server.wait_ready()
        asked = json.dumps({"prompt": "a fox", "size": "256x256", "response_format": "url"})
        headers = {"authorization": f"Bearer {server.key}", "content-type": "application/json"}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
            connection.request("POST", "/v1/images/generations", asked, headers)
            link = json.loads(connection.getresponse().read())["data"][0]["url"]
        assert link.startswith(f"http://127.0.0.1:{server.port}/v1/images/files/")
        status, data = server.get(link.removeprefix(f"http://127.0.0.1:{server.port}"))
        assert (status, data[:4]) == (200, b"\x89PNG")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("application/json", b'{"data": []}'),
        ("text/event-stream", b": progress 1/2\n\n"),
        ("text/event-stream", b"data: no JSON\n\n"),
        ("text/event-stream", b'data: {"type": "image_generation.completed", "b64_json": "!"}\n\n'),
    ],
)
def test_an_answer_that_is_no_picture_is_told_as_such(host: Host, tmp_path: Path, kind: str, body: bytes) -> None:  # noqa: F811
    host.kind, host.body = kind, body
    asked = run(tmp_path, "image", "a fox", "-o", str(tmp_path / "fox.png"), "--url", host.url)
    assert asked.returncode == 1
    assert "no picture" in asked.stderr or "broke off" in asked.stderr
    assert not (tmp_path / "fox.png").exists()
