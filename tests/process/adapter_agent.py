"""A real agent that lends tools by `MCPServerAdapter` of `uagents-adapter`, for `test_adapter_agents.py`.

    python adapter_agent.py KIND PORT http://127.0.0.1:SERVER addresses.json

KIND: tools (the MCPProtocol alone), both (it chats too, with SERVER as its model, its key in the variable ASI_KEY),
mailbox (tools, without an address of its own). Nothing of Convene is imported here.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uagents.asgi
from uagents import Agent
from uagents_adapter import MCPServerAdapter

KIND, PORT, SERVER = sys.argv[1], int(sys.argv[2]), sys.argv[3]
NUMBER = {"type": "integer"}
uagents.asgi.HOST = "127.0.0.1"


class Tools:
    """What the adapter takes for an MCP server: it lists tools and calls them."""

    calls = 0

    async def list_tools(self) -> list[SimpleNamespace]:
        add = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]}
        return [
            SimpleNamespace(name="add", description="Add two numbers", inputSchema=add),
            SimpleNamespace(name="count", description="Count the calls", inputSchema={"type": "object"}),
        ]

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> object:
        self.calls += 1
        print(f"{name} {arguments}", flush=True)  # noqa: T201 -- what the test looks for
        return arguments["a"] + arguments["b"] if name == "add" else self.calls


name = Path(sys.argv[4]).stem
where: dict[str, Any] = {"mailbox": True} if KIND == "mailbox" else {"endpoint": [f"http://127.0.0.1:{PORT}/submit"]}
agent = Agent(
    name=name,
    seed=f"agents of convene's adapter tests: {name}",
    port=PORT,
    agentverse=SERVER,
    handle=name,
    description="Adds up numbers, exactly.",
    **where,
)
adapter = MCPServerAdapter(
    mcp_server=Tools(), asi1_api_key=os.environ.get("ASI_KEY", ""), model="asi1", asi1_base_url=f"{SERVER}/v1"
)
for protocol in adapter.protocols if KIND == "both" else [adapter.mcp_proto]:
    agent.include(protocol, publish_manifest=True)
Path(sys.argv[4]).write_text(json.dumps({name: agent.address}))
agent.run()
