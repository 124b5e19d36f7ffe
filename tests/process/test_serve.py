"""The real program, as `make serve` runs it: what it prints, what it answers, how it survives kills and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from process.program import SCRIPTED, SERVE, WAIT_S, Program, frames, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program with the real embedded model."""
    with program(tmp_path_factory.mktemp("embedded"), "") as running:
        running.wait_ready()
        running.wait_for("smollm2-135m: ready")
        yield running


@pytest.mark.req("API-01", "CHAT-34", "OPS-02")
def test_a_real_model_answers_on_a_fresh_data_folder(embedded: Program) -> None:
    with embedded.chat() as answer:
        reply = json.loads(answer.read())
    assert answer.status == 200
    assert reply["choices"][0]["message"]["content"].strip()
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]
    assert reply["metadata"]["upstream"] == "embedded"


def test_the_key_is_made_once_and_the_default_model_is_honest(embedded: Program) -> None:
    text = embedded.log.read_text()
    assert text.count("Authorization: Bearer convene_") == 1
    assert "smoke-test model" in text


def test_an_engine_that_is_killed_in_mid_stream_ends_it_with_an_error_and_comes_back(embedded: Program) -> None:
    children = embedded.children()  # looked for before, as the story may be short
    with embedded.chat(stream=True, max_tokens=1500, messages=[{"role": "user", "content": "Tell a story."}]) as answer:
        beginning = answer.readline() + answer.readline() + answer.readline()
        for child in children:
            os.kill(child, signal.SIGKILL)
        text = (beginning + answer.read()).decode()
    *_, error, done = frames(text)
    assert json.loads(error)["error"]["code"] == "model_unavailable"
    assert json.loads(error)["choices"] == []
    assert done == "[DONE]"
    until = time.monotonic() + WAIT_S
    while True:
        with embedded.chat() as again:
            if again.status == 200:
                break
            assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.req("OPS-03")
def test_sigterm_lets_streams_finish_refuses_new_requests_and_exits_with_0(tmp_path: Path) -> None:
    with program(tmp_path, SCRIPTED) as running:
        words = " ".join(["word"] * 60)
        asked = {"model": "scripted-slow", "messages": [{"role": "user", "content": words}], "max_tokens": 1000}
        with running.chat(**asked, stream=True) as answer:
            beginning = answer.readline()
            running.process.send_signal(signal.SIGTERM)
            until = time.monotonic() + WAIT_S
            while True:
                with running.chat(model="scripted-echo") as refused:
                    body = json.loads(refused.read())
                if refused.status == 503:
                    break
                assert time.monotonic() < until
            assert body["error"]["type"] == "server_error"
            text = (beginning + answer.read()).decode()
        assert text.count('"content":') >= 60
        assert '"finish_reason":"stop"' in text
        assert frames(text)[-1] == "[DONE]"


@pytest.mark.req("RES-05", "TRAP-03")
@pytest.mark.parametrize("workers", [1, 2])
def test_agents_are_told_the_port_that_the_system_has_chosen(workers: int, tmp_path: Path) -> None:
    with program(tmp_path, f"workers = {workers}\n{SCRIPTED}") as running:
        running.wait_ready()
        address = running.wait_for(r"agents know this server as (agent1q\w+)")
        status, body = running.get(f"/v1/almanac/agents/{address}")
        assert status == 200
        [endpoint] = json.loads(body)["endpoints"]
        assert endpoint["url"] == f"http://127.0.0.1:{running.port}/agents/inbox"


@pytest.mark.req("OAI-35")
def test_a_client_that_vanishes_ends_its_turn_and_the_books_say_so(tmp_path: Path) -> None:
    with program(tmp_path, SCRIPTED) as running:
        asked = {"model": "scripted-slow", "messages": [{"role": "user", "content": "word " * 2000}]}
        with running.chat(**asked, stream=True, max_tokens=5000) as answer:
            answer.readline()
        line = json.loads(running.wait_for(r'(\{[^\n]*"path":"/v1/chat/completions"[^\n]*\})'))
        assert line["model"] == "scripted-slow"
        assert 0 < line["completion_tokens"] < 2000
        assert "word word" not in running.log.read_text()


def test_a_second_start_on_the_same_folder_prints_no_key(tmp_path: Path) -> None:
    with program(tmp_path, SCRIPTED) as first:
        key = first.key
    environ = dict(os.environ) | {"CONVENE_CONFIG": str(tmp_path / "convene.toml"), "PORT": "0"}
    environ["CONVENE_DATA_DIR"] = str(tmp_path / "data")
    log = tmp_path / "second"
    with log.open("wb") as output:
        process = subprocess.Popen(SERVE, stdout=output, stderr=output, env=environ)  # noqa: S603 - ours
    try:
        until = time.monotonic() + WAIT_S
        while "Authorization: Bearer" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        process.terminate()
        assert process.wait(60) == 0
    assert key not in log.read_text()
    assert "convene_" not in log.read_text()


def test_a_port_that_is_taken_is_said_with_the_way_out(tmp_path: Path) -> None:
    with program(tmp_path, SCRIPTED) as running:
        environ = dict(os.environ) | {"CONVENE_DATA_DIR": str(tmp_path / "other"), "PORT": str(running.port)}
        environ["CONVENE_CONFIG"] = str(tmp_path / "convene.toml")
        found = subprocess.run(SERVE, capture_output=True, text=True, env=environ, timeout=60, check=False)  # noqa: S603
    assert found.returncode == 1
    assert "--port" in found.stderr
    assert "Traceback" not in found.stderr
