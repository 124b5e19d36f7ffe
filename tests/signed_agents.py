"""Agents as tests need them: what they sign for a registry, by the library's own classes where it has some."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

from uagents_core.identity import Identity as LibraryIdentity
from uagents_core.registration import AgentRegistrationAttestation, AgentStatusUpdate, VerifiableModel
from uagents_core.types import AgentEndpoint

from convene.agent_identity import Identity

CHAT = "proto:30a801ed3a83f9a0ff0a9f1e6fe958cb91da1fc2218b153df7b6cbf87bd33d62"
SCHEMA = "model:" + "0" * 64
SESSION = "56c9711a-d2a4-47a8-925c-6d5d07cd48bf"
SUBMIT = "http://127.0.0.1:18801/submit"


class SignedAgent:
    """One agent."""

    def __init__(self, seed: str = "ann") -> None:
        self.me = Identity.from_seed(seed)
        self.library = LibraryIdentity.from_seed(seed, 0)
        self.address = self.me.address

    def registration(self, now: float, endpoints: tuple[str, ...] = (SUBMIT,), **fields: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
        """Return the body that the library posts (REG-01)."""
        model = AgentRegistrationAttestation(
            agent_identifier=fields.pop("identifier", f"agent://{self.address}"),
            protocols=fields.pop("protocols", [CHAT]),
            endpoints=[AgentEndpoint(url=url, weight=1) for url in endpoints],
            metadata=fields.pop("metadata", {"geolocation": {"latitude": "52.2", "longitude": "0.12"}}),
        )
        assert not fields
        return self._signed(model, now)

    def status(self, now: float, *, active: bool) -> dict[str, Any]:
        """Return the body that the library posts (REG-06)."""
        return self._signed(AgentStatusUpdate(agent_identifier=f"agent://{self.address}", is_active=active), now)

    def _signed(self, model: VerifiableModel, now: float) -> dict[str, Any]:
        model.timestamp = int(now)  # `sign` would take the machine's
        model.signature = self.library.sign_digest(model._build_digest())
        body: dict[str, Any] = json.loads(model.model_dump_json())
        return body

    def sign_body(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a body with a signature over all of it as it is."""
        plain = {name: value for name, value in body.items() if name != "signature"}
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return plain | {"signature": self.me.sign(text.encode())}

    def attestation(self, now: float, valid_s: int = 1000, **parts: Any) -> str:  # noqa: ANN401 -- parts to falsify
        """Return the header that proves this agent (LIST-02)."""
        key = parts.get("key", bytes.fromhex(self.library.pub_key))
        payload = key + struct.pack(">QQ", int(now), int(now) + valid_s) + parts.get("nonce", b"n" * 32)
        signature = parts.get("signature", self.library.sign(payload))
        return f"Agent attr:{base64.b64encode(payload).decode()}:{signature}"

    def answer(self, challenge: str) -> str:
        """Return the signature of a challenge (LIST-05)."""
        return str(self.library.sign(challenge.encode()))

    def envelope(self, target: str, text: str = "hello", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
        """Return a signed envelope."""
        payload = base64.b64encode(json.dumps({"text": text}).encode()).decode()
        signed = hashlib.sha256((self.address + target + SESSION + SCHEMA + payload).encode()).digest()
        return {
            "version": 1,
            "sender": self.address,
            "target": target,
            "session": SESSION,
            "schema_digest": SCHEMA,
            "protocol_digest": CHAT,
            "payload": payload,
            "expires": None,
            "nonce": None,
            "signature": self.me.sign_digest(signed),
        } | fields
