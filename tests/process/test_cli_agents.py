"""The real program and a real A2A agent: added, found, pinged over the network, shown by the server, removed."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from process.program import Program
from servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONFIG = 'port = {port}\ndata_dir = "{data}"\n[engine]\nenabled = false\n[scripted]\nenabled = true\n'
WAIT_S = 120
NOTHING: Mapping[str, str] = {}


class TideAgent(http.server.BaseHTTPRequestHandler):
    """An A2A agent of the plainest kind: a card, and one answer a message."""

    deaf = False

    def do_GET(self) -> None:
        """Show the card."""
        where = f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]  # an HTTPServer has one
        card = {
            "name": "Tide Tables",
            "description": "High and low water of every harbour.",
            "version": "1",
            "capabilities": {"streaming": False},
            "defaultInputModes": ["text"],
            "defaultOutputModes": ["text"],
            "skills": [{"id": "t", "name": "tides", "description": "Tells tides.", "tags": ["sea"]}],
            "supportedInterfaces": [{"url": f"{where}/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
        }
        self._send(200 if self.path.endswith("agent-card.json") else 404, card)

    def do_POST(self) -> None:
        """Answer a message."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.deaf:
            self._send(500, {})
            return
        message = {"messageId": "m1", "role": "ROLE_AGENT", "parts": [{"text": "High water at noon."}]}
        self._send(200, {"jsonrpc": "2.0", "id": asked["id"], "result": {"message": message}})

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def tides(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the agent and return its address."""
    monkeypatch.setattr(TideAgent, "deaf", False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TideAgent)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "CONVENE_CONFIG": str(folder / "convene.toml"), "CONVENE_CACHE_DIR": str(folder / "cache")}


def run(folder: Path, *words: str, code: int = 0, environ: Mapping[str, str] = NOTHING) -> Any:  # noqa: ANN401
    """Run a verb in JSON; return its value."""
    ran = subprocess.run(  # noqa: S603 -- our own program
        [sys.executable, "-m", "convene", "agents", *words, "--json"],
        cwd=folder,
        env={**environment(folder), **environ},
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert ran.returncode == code, ran.stderr.decode()
    return json.loads(ran.stdout)


def test_an_agent_is_added_found_pinged_and_removed_beside_a_running_server(
    tmp_path: Path, tides: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.format(port=free_port(), data=tmp_path / "data")
    (tmp_path / "convene.toml").write_text(config)
    added = run(tmp_path, "add", tides, "--handle", "tides")
    assert (added["name"], added["protocol"], added["enabled"]) == ("Tide Tables", "a2a", True)
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "convene", "serve"],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=sink,
            stderr=sink,
        )
    try:
        program = Program(process, log)
        program.wait_for("index of agents is complete: 1 agents")
        status, body = program.get("/v1/agents?query=when+is+high+tide", program.key)
        assert status == 200
        assert [one["handle"] for one in json.loads(body)["data"]] == ["tides"]
        ponged = run(tmp_path, "ping", "@tides")
        assert (ponged["outcome"], ponged["words"], ponged["health"]) == ("success", "High water at noon.", "good")
        monkeypatch.setattr(TideAgent, "deaf", True)
        for _ in range(3):
            deaf = run(tmp_path, "ping", "@tides", code=1)
        assert deaf["health"] == "unreachable"
        assert run(tmp_path, "list")[0]["calls"] == 4
        removed = run(tmp_path, "remove", "@tides")
        assert removed["id"] == added["id"]
        assert run(tmp_path, "search", "tide") == []
    finally:
        process.terminate()
        process.wait(WAIT_S)
