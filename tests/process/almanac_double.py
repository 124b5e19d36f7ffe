"""A small Agentverse for tests: what real agents need to register and to find us, a search by name, and mailboxes.

Registrations are checked with the library's own classes. Everything is in memory; requests are in `seen`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from uagents_core.identity import Identity
from uagents_core.registration import AgentRegistrationAttestation


class Almanac:
    """One such server, in a thread."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.names: dict[str, str] = {}
        """Name to address, for the search."""
        self.seen: list[str] = []
        self.key = "the operator's key"
        self.challenges: dict[str, str] = {}
        self.owned: set[str] = set()
        """Addresses that were proved with the key."""
        self.listings: dict[str, dict[str, Any]] = {}
        self.mailboxes: dict[str, dict[str, Any]] = {}
        """Address to stored envelopes by their uuid."""
        almanac = self

        class Listening(ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"null")
                self._answer(*almanac.post(self.path, body, self.headers.get("authorization", "")))

            def do_GET(self) -> None:
                self._answer(*almanac.get(self.path, self.headers.get("authorization", "")))

            def do_DELETE(self) -> None:
                self._answer(*almanac.delete(self.path, self.headers.get("authorization", "")))

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

    def post(self, path: str, body: Any, proof: str = "") -> tuple[int, object]:  # noqa: ANN401 -- JSON
        self.seen.append(f"POST {path}")
        if path == "/v2/agents/mailbox/submit":
            self.mailboxes.setdefault(body["target"], {})[str(uuid.uuid4())] = body
            return 200, {}
        if path in {"/v2/identity", "/v2/agents"} and proof == f"Bearer {self.key}":
            return self._own(path, body)
        if path in {"/v2/identity", "/v2/agents"}:
            return 401, {"detail": "Invalid API key"}
        if path == "/v1/almanac/agents":
            return self._register(body)
        if path == "/v1/almanac/agents/batch":
            for one in body["attestations"]:
                self._register(one)
            return 200, {}
        if path == "/v1/search/agents":
            return 200, {"agents": self._search(body)}
        return 200, {}

    def get(self, path: str, proof: str = "") -> tuple[int, object]:
        self.seen.append(f"GET {path}")
        parts = path.removeprefix("/v2/").split("/")
        if path.startswith("/v2/agents/") and path.endswith("/mailbox"):
            if not self._proves(proof, parts[1]):
                return 401, {"detail": "attestation"}
            stored = self.mailboxes.get(parts[1])
            if stored is None:
                return 404, {"detail": "no mailbox"}
            times = {"received_at": "2026-11-27T00:00:00+00:00", "expires_at": "2126-11-27T00:00:00+00:00"}
            return 200, [{"uuid": name, "envelope": envelope} | times for name, envelope in [*stored.items()]]
        if path.startswith(("/v2/identity/", "/v2/agents/")):
            if proof != f"Bearer {self.key}":
                return 401, {"detail": "Invalid API key"}
            if parts[0] == "agents":
                known = parts[1] in self.listings
                return (200, self.listings[parts[1]]) if known else (404, {"detail": "unknown"})
            self.challenges[parts[1]] = str(uuid.uuid4())
            return 200, {"challenge": self.challenges[parts[1]]}
        address = path.partition("?")[0].removeprefix("/v1/almanac/agents/")
        record = self.records.get(address)
        return (404, {"detail": "unknown"}) if record is None else (200, record)

    def delete(self, path: str, proof: str) -> tuple[int, object]:
        self.seen.append(f"DELETE {path}")
        _, _, _, address, _, name = path.split("/")
        if not self._proves(proof, address):
            return 401, {"detail": "attestation"}
        found = self.mailboxes.get(address, {}).pop(name, None)
        return (404, {"detail": "unknown"}) if found is None else (200, {})

    def _own(self, path: str, body: Any) -> tuple[int, object]:  # noqa: ANN401 -- JSON
        address = body["address"]
        if path == "/v2/identity":
            challenge = self.challenges.pop(address, "")
            digest = hashlib.sha256(challenge.encode()).digest()
            if not Identity.verify_digest(address, digest, body["challenge_response"]):
                return 400, {"detail": "signature"}
            self.owned.add(address)
            return 200, {"address": address}
        if address not in self.owned:
            return 401, {"detail": "not proved"}
        self.listings[address] = body
        return 200, {"success": True}

    @staticmethod
    def _proves(proof: str, address: str) -> bool:
        """Whether a header holds a proof of this address by its own key (LIST-02)."""
        scheme, encoded, signature = (*proof.removeprefix("Agent ").split(":"), "", "")[:3]
        payload = base64.b64decode(encoded)
        if scheme != "attr" or len(payload) != 81:
            return False
        begins, ends = struct.unpack(">QQ", payload[33:49])
        signed = Identity.verify_digest(address, hashlib.sha256(payload).digest(), signature)
        return bool(signed) and begins - 300 <= time.time() <= ends

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
