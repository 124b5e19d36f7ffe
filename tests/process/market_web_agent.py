"""A web service that is no agent of the `uagents` library and is listed by `register_chat_agent`; in that environment.

    python market_web_agent.py PORT 127.0.0.1:REGISTRY KEY

Answers each envelope by posting one to where its sender is reached. Nothing of Convene is imported here.
"""

from __future__ import annotations

import json
import logging
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import requests
import uagents_core.logger

uagents_core.logger.get_logger = lambda *_, **__: logging.getLogger("web")

from uagents_core.config import AgentverseConfig  # noqa: E402 -- after its logger, which writes a file
from uagents_core.contrib.protocols.chat import (  # noqa: E402
    ChatMessage,
    EndSessionContent,
    TextContent,
    chat_protocol_spec,
)
from uagents_core.envelope import Envelope  # noqa: E402
from uagents_core.identity import Identity  # noqa: E402
from uagents_core.models import Model  # noqa: E402
from uagents_core.utils.messages import generate_message_envelope  # noqa: E402
from uagents_core.utils.registration import (  # noqa: E402
    RegistrationRequestCredentials,
    register_chat_agent,
)
from uagents_core.utils.resolver import AlmanacResolver  # noqa: E402

PORT, REGISTRY, KEY = int(sys.argv[1]), sys.argv[2], sys.argv[3]
SEED = "a web service of convene's marketplace tests"
me = Identity.from_seed(SEED, 0)
config = AgentverseConfig(base_url=REGISTRY, http_prefix="http")


class Service(BaseHTTPRequestHandler):
    """Takes envelopes."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        envelope = Envelope.model_validate_json(body)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        if envelope.schema_digest == Model.build_schema_digest(ChatMessage):
            answer(envelope)

    def log_message(self, *_: object) -> None:
        pass


def answer(envelope: Envelope) -> None:
    heard = ChatMessage.parse_raw(envelope.decode_payload()).text()
    said = ChatMessage([TextContent(f"web heard {heard}"), EndSessionContent()])
    [endpoint] = AlmanacResolver(agentverse_config=config).sync_resolve(envelope.sender)
    sealed = generate_message_envelope(
        envelope.sender,
        Model.build_schema_digest(said),
        json.loads(said.json()),
        me,
        session_id=envelope.session,
        protocol_digest=chat_protocol_spec.digest,
    )
    requests.post(endpoint, data=sealed.model_dump_json(), headers={"content-type": "application/json"}, timeout=10)


server = HTTPServer(("127.0.0.1", PORT), Service)
register_chat_agent(
    "Web",
    f"http://127.0.0.1:{PORT}/hook",
    active=True,
    credentials=RegistrationRequestCredentials(agentverse_api_key=KEY, agent_seed_phrase=SEED),
    readme="# Web",
    agentverse_config=config,
)
sys.stdout.write(f"{me.address}\n")
sys.stdout.flush()
server.serve_forever()
