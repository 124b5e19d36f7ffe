"""One real agent of a `uagents` library, for `test_real_market.py`; run in an environment of its own.

    python market_house.py KIND PORT http://127.0.0.1:REGISTRY addresses.json

KIND: custom, mailbox, proxy, bureau. Writes name to address into that file. It knows libraries old and new (0.22.10 and
0.26.1). Nothing of Convene is imported here.
"""

from __future__ import annotations

import json
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import uagents.asgi
from uagents import Agent, Bureau, Context, Protocol
from uagents_core.contrib.protocols.chat import (
    ChatAcknowledgement,
    ChatMessage,
    EndSessionContent,
    TextContent,
    chat_protocol_spec,
)

KIND, PORT, REGISTRY = sys.argv[1], int(sys.argv[2]), sys.argv[3]
uagents.asgi.HOST = "127.0.0.1"
OWN = f"http://127.0.0.1:{PORT}/submit"


def make(name: str, **fields: Any) -> Agent:  # noqa: ANN401 -- the library's arguments
    if "description" in signature(Agent).parameters:  # not in the old one
        fields["description"] = f"{name} says back what it hears."
    agent = Agent(
        name=name,
        seed=f"agents of convene's marketplace tests: {name}",
        agentverse=REGISTRY,
        readme_path=str(Path(sys.argv[4]).with_suffix(".md")),
        **fields,
    )
    protocol = Protocol(spec=chat_protocol_spec)

    @protocol.on_message(ChatMessage)  # type: ignore[untyped-decorator]  # it states no types
    async def take(ctx: Context, sender: str, said: ChatMessage) -> None:
        await ctx.send(sender, ChatAcknowledgement(timestamp=said.timestamp, acknowledged_msg_id=said.msg_id))
        text = "".join(part.text for part in said.content if isinstance(part, TextContent))
        content = [TextContent(type="text", text=f"{name} heard {text}"), EndSessionContent(type="end-session")]
        await ctx.send(sender, ChatMessage(timestamp=said.timestamp, msg_id=said.msg_id, content=content))

    @protocol.on_message(ChatAcknowledgement)  # type: ignore[untyped-decorator]  # it states no types
    async def acknowledged(ctx: Context, sender: str, said: ChatAcknowledgement) -> None:
        pass

    agent.include(protocol, publish_manifest=True)
    return agent


def main() -> None:
    name = Path(sys.argv[4]).stem
    Path(sys.argv[4]).with_suffix(".md").write_text(f"# {name}\n\nSays back what it hears.\n")
    if KIND == "bureau":
        agents = [make(f"{name}-{number}") for number in (1, 2)]
        bureau = Bureau(agents=agents, port=PORT, endpoint=[OWN], agentverse=REGISTRY)
        told, run = {one.name: one.address for one in agents}, bureau.run
    else:
        fields: dict[str, Any] = {"endpoint": [OWN]} if KIND == "custom" else {KIND: True}
        agent = make(name, port=PORT, **fields)
        told, run = {name: agent.address}, agent.run
    Path(sys.argv[4]).write_text(json.dumps(told))
    run()


if __name__ == "__main__":
    main()
