"""A real agent that leaves what it makes in the server's storage, for `test_real_market.py`; run where uagents is.

    python painter_agent.py custom PORT http://127.0.0.1:SERVER addresses.json

Asked for `picture` or `notes` it makes a file with the key in the variable API_KEY, lets whoever asked read it, and
names it in its answer as agents of Agentverse do. Nothing of Convene is imported here.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from uuid import uuid4

import uagents.asgi
from uagents import Agent, Context, Protocol
from uagents_core.contrib.protocols.chat import (
    ChatAcknowledgement,
    ChatMessage,
    EndSessionContent,
    Resource,
    ResourceContent,
    TextContent,
    chat_protocol_spec,
)
from uagents_core.storage import ExternalStorage

PORT, SERVER = int(sys.argv[2]), sys.argv[3]
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
uagents.asgi.HOST = "127.0.0.1"
name = Path(sys.argv[4]).stem
agent = Agent(
    name=name,
    seed=f"agents of convene's storage tests: {name}",
    port=PORT,
    agentverse=SERVER,
    endpoint=[f"http://127.0.0.1:{PORT}/submit"],
)
storage = ExternalStorage(api_token=os.environ["API_KEY"], storage_url=f"{SERVER}/v1/storage")
chat = Protocol(spec=chat_protocol_spec)


@chat.on_message(ChatMessage)  # type: ignore[untyped-decorator]  # it states no types
async def take(ctx: Context, sender: str, said: ChatMessage) -> None:
    await ctx.send(sender, ChatAcknowledgement(acknowledged_msg_id=said.msg_id))
    is_picture = "picture" in said.text()
    content, kind = (PICTURE, "image/png") if is_picture else (b"one, two", "text/plain")
    asset = storage.create_asset(name="made", content=content, mime_type=kind)
    storage.set_permissions(asset_id=asset, agent_address=sender, read=True, write=False)
    resource = Resource(
        uri=f"agent-storage://{storage.storage_url}/{asset}", metadata={"mime_type": kind, "role": "made"}
    )
    await ctx.send(
        sender, ChatMessage([TextContent("Here it is."), ResourceContent(uuid4(), resource), EndSessionContent()])
    )


@chat.on_message(ChatAcknowledgement)  # type: ignore[untyped-decorator]  # it states no types
async def acknowledged(ctx: Context, sender: str, said: ChatAcknowledgement) -> None:
    pass


agent.include(chat, publish_manifest=True)
Path(sys.argv[4]).write_text(json.dumps({name: agent.address}))
agent.run()
