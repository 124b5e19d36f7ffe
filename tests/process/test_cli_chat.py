"""The real `convene chat` and `convene doctor` against a small server on a real socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import convene
from searx_double import Page, serving_searx

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUND_S = 60.0


class Host(ThreadingHTTPServer):
    """An OpenAI-like host that answers as it is told and keeps what it was sent."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.status = 200
        self.body = b""
        self.location = ""
        self.kind = ""
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Answering(BaseHTTPRequestHandler):
    """Gives the host's one answer to everything."""

    server: Host

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.path, headers, self.rfile.read(int(headers.get("content-length", "0")))))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        if self.server.kind:
            self.send_header("Content-Type", self.server.kind)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST  # noqa: N815 -- the base class's own name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's own name
        """Say nothing."""


@pytest.fixture
def host() -> Iterator[Host]:
    server = Host()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(BOUND_S)


def run(home: Path, *words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(convene.__file__).parent.parent)
    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH", ""), source) if part)
    return subprocess.run(  # noqa: S603 -- this interpreter and the test's own words
        [sys.executable, "-m", "convene", *words],
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": path} | variables,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


HELLO = (
    b': ping\n\ndata: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'
    b'data: {"choices": [{"delta": {"content": "lo\\u001b"}}]}\n\ndata: [DONE]\n\n'
)


@pytest.mark.req("OPS-24", "ENV-03", "ENV-06")
def test_an_answer_goes_to_stdout_and_the_request_is_what_was_asked(host: Host, tmp_path: Path) -> None:
    host.body = HELLO
    asked = run(
        tmp_path,
        *("chat", "--session", "s1", "--system", "Be kind.", "--model", "m", "Say", "hello."),
        ASI_ONE_BASE_URL=host.url,
        ASI_ONE_API_KEY="convene_x",
    )
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "Hello\n", "")
    [(path, headers, body)] = host.seen
    assert path == "/v1/chat/completions"
    assert (headers["authorization"], headers["x-session-id"]) == ("Bearer convene_x", "s1")
    assert json.loads(body) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Say hello."}],
        "stream": True,
    }


def test_the_prompt_may_come_from_standard_input(host: Host, tmp_path: Path) -> None:
    host.body = HELLO
    asked = run(tmp_path, "chat", "--url", host.url, stdin="Say\nhello.\n")
    assert asked.stdout == "Hello\n"
    [(_, headers, body)] = host.seen
    assert json.loads(body)["messages"] == [{"role": "user", "content": "Say\nhello."}]
    assert json.loads(body)["model"] == "asi1"
    assert "authorization" not in headers
    assert run(tmp_path, "chat", "--url", host.url).returncode == 2


def test_a_refusal_and_a_break_end_with_1_and_the_reason(host: Host, tmp_path: Path) -> None:
    host.status, host.body = 401, b'{"error": {"message": "Unknown key."}}'
    asked = run(tmp_path, "chat", "--url", host.url, "hello")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "401: Unknown key." in asked.stderr
    assert "convene keys create" in asked.stderr
    host.status, host.body = 200, HELLO.replace(b"data: [DONE]\n\n", b"")
    asked = run(tmp_path, "chat", "--url", host.url, "hello")
    assert asked.returncode == 1
    assert asked.stdout.startswith("Hello")
    assert "broke off" in asked.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_without_a_server_the_next_step_is_said(tmp_path: Path) -> None:
    asked = run(tmp_path, "chat", "hello", CONVENE_PORT=str(free_port()))
    assert asked.returncode == 1
    assert "convene serve" in asked.stderr


# doctor.


def findings(home: Path, *words: str, search: bool = False, **variables: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Ask the doctor. Without `search` no engine is asked: the one that needs no settings is out in the world."""
    asked = run(home, "doctor", "--json", *words, CONVENE_SEARCH_ENABLED=str(search), **variables)
    return asked.returncode, {one["name"]: one for one in json.loads(asked.stdout)}


def test_doctor_finds_a_fresh_machine_well_and_changes_nothing(tmp_path: Path) -> None:
    code, found = findings(tmp_path, "--port", str(free_port()))
    assert code == 0
    assert {one["state"] for one in found.values()} <= {"ok", "warn"}
    assert {"python", "machine", "disk", "engine", "weights", "port", "data folder", "key store", "search"} == set(
        found
    )
    assert "convene models pull" in found["weights"]["next_step"]
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_what_is_wrong_and_the_next_step(host: Host, tmp_path: Path) -> None:
    host.status = 401
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "convene.db").write_text("forty characters that are no database at")
    (tmp_path / "convene.toml").write_text(
        f'port = {host.server_address[1]}\ndata_dir = "data"\n[engine]\nenabled = false\n'
        f'[upstreams.up]\nbase_url = "{host.url}"\napi_key = "hush"\n[upstreams.down]\nbase_url = "http://127.0.0.1:{free_port()}"\n'
    )
    code, found = findings(tmp_path)
    assert code == 1
    assert {name: one["state"] for name, one in found.items() if one["state"] != "ok"} == {
        "port": "fail",
        "key store": "fail",
        "upstream up": "fail",
        "upstream down": "warn",
    }
    assert all(one["next_step"] for one in found.values() if one["state"] != "ok")
    assert "upstreams.up.api_key" in found["upstream up"]["next_step"]
    assert "engine" not in found
    text = run(tmp_path, "doctor", CONVENE_SEARCH_ENABLED="false")
    assert "FAIL  port" in text.stdout
    assert "hush" not in text.stdout + text.stderr


def test_doctor_is_content_with_an_upstream_that_answers_and_follows_no_redirect(host: Host, tmp_path: Path) -> None:
    settings = ("--set", f"upstreams.up.base_url={host.url}", "--set", "upstreams.up.api_key=hush", "--port", "0")
    code, found = findings(tmp_path, "--set", "engine.enabled=false", *settings)
    assert (code, found["upstream up"]["state"]) == (0, "ok")
    path, headers, _ = host.seen[0]
    assert (path, headers["authorization"]) == ("/v1/models", "Bearer hush")
    host.status, host.location = 302, f"{host.url}/elsewhere"
    _, found = findings(tmp_path, "--set", "engine.enabled=false", *settings)
    assert "302" in found["upstream up"]["found"]
    assert len(host.seen) == 2


def test_doctor_asks_each_search_engine_a_real_question_and_names_the_next_step(tmp_path: Path) -> None:
    with serving_searx([Page("/pages/w", "About Wikipedia", ("Wikipedia is an encyclopedia.",))]) as searx:
        (tmp_path / "convene.toml").write_text(
            f'port = 0\n[engine]\nenabled = false\n[search]\nengines = ["searxng", "tavily"]\n'
            f'[search.searxng]\nbase_url = "{searx.base_url}"\n'
            f'[search.tavily]\napi_key = "tvly-hush"\nbase_url = "http://127.0.0.1:{free_port()}"\n'
        )
        code, found = findings(tmp_path, search=True)
        assert code == 0
        assert found["search searxng"] | {"next_step": ""} == {
            "name": "search searxng",
            "state": "ok",
            "found": "answers, 1 results",
            "next_step": "",
        }
        assert found["search tavily"]["state"] == "warn"
        assert "ConnectFailed" in found["search tavily"]["found"]
        assert "search.tavily" in found["search tavily"]["next_step"]
        assert len(searx.asked) == 1

        searx.formats = ("html",)
        _, found = findings(tmp_path, search=True)
        assert "the format json" in found["search searxng"]["found"]
        text = run(tmp_path, "doctor")
    assert "hush" not in text.stdout + text.stderr


def test_doctor_refuses_to_hope_for_weights_offline(tmp_path: Path) -> None:
    settings = ("--set", "engine.offline=true", "--set", "engine.embeddings=false", "--port", "0")
    code, found = findings(tmp_path, *settings)
    assert (code, found["weights"]["state"]) == (1, "fail")
    code, found = findings(tmp_path, *settings, "--set", "engine.model=nonsense")
    assert "convene models list" in found["weights"]["next_step"]
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    code, found = findings(tmp_path, *settings, "--set", "engine.model=own.gguf")
    assert (code, found["weights"]["state"]) == (0, "ok")
