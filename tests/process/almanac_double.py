"""A small Agentverse for tests: what real agents need to register and to find us, and a search by name.

Registrations are checked with the library's own classes. Everything is in memory; requests are in `seen`.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from uagents_core.registration import AgentRegistrationAttestation


class Almanac:
    """One such server, in a thread."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.names: dict[str, str] = {}
        """Name to address, for the search."""
        self.seen: list[str] = []
        almanac = self

        class Listening(ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"null")
                self._answer(*almanac.post(self.path, body))

            def do_GET(self) -> None:
                self._answer(*almanac.get(self.path))

            def _answer(self, status: int, body: object) -> None:
                found = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

            def log_message(self, *_: object) -> None:
                pass

        self._server = Listening(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def post(self, path: str, body: Any) -> tuple[int, object]:  # noqa: ANN401 -- JSON
        self.seen.append(f"POST {path}")
        if path == "/v1/almanac/agents":
            return self._register(body)
        if path == "/v1/almanac/agents/batch":
            for one in body["attestations"]:
                self._register(one)
            return 200, {}
        if path == "/v1/search/agents":
            return 200, {"agents": self._search(body)}
        return 200, {}

    def get(self, path: str) -> tuple[int, object]:
        self.seen.append(f"GET {path}")
        address = path.partition("?")[0].removeprefix("/v1/almanac/agents/")
        record = self.records.get(address)
        return (404, {"detail": "unknown"}) if record is None else (200, record)

    def _register(self, body: Any) -> tuple[int, object]:  # noqa: ANN401 -- JSON
        attestation = AgentRegistrationAttestation.model_validate(body)
        if not attestation.verify():
            return 400, {"detail": "signature"}
        address = attestation.agent_identifier.rpartition("/")[2]
        self.records[address] = {
            "status": "active",
            "type": "custom",
            "address": address,
            "prefix": "agent",
            "domain_name": None,
            "endpoints": body["endpoints"],
            "metadata": {},
            "protocols": [digest.removeprefix("proto:") for digest in attestation.protocols],
            "expiry": "2126-11-23T19:39:55+00:00",
        }
        return 200, {}

    def _search(self, body: Any) -> list[dict[str, object]]:  # noqa: ANN401 -- JSON
        text = body.get("search_text", "").removeprefix("address:")
        return [
            {"address": address, "name": name, "handle": name, "description": f"I am {name}.", "status": "active"}
            for name, address in self.names.items()
            if text in {name, address}
        ]
