"""A real `ChatAgent` of uagents with the server as its language model, for `test_adapter_agents.py`.

    ASI1_BASE_URL=... ASI1_API_KEY=... python llm_agent.py KIND PORT http://127.0.0.1:SERVER addresses.json

It has one tool, `Add`, and prints what it is called with. Nothing of Convene is imported here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import uagents.asgi
from uagents import Context, Protocol
from uagents.experimental.chat_agent import ChatAgent
from uagents_core.models import Model

PORT, SERVER = int(sys.argv[2]), sys.argv[3]
uagents.asgi.HOST = "127.0.0.1"


class Add(Model):  # type: ignore[misc]  # it states no types
    """Add two numbers."""

    a: int
    b: int


class Sum(Model):  # type: ignore[misc]  # the same
    """The sum."""

    value: int


name = Path(sys.argv[4]).stem
agent = ChatAgent(
    name=name,
    seed=f"agents of convene's adapter tests: {name}",
    port=PORT,
    agentverse=SERVER,
    endpoint=[f"http://127.0.0.1:{PORT}/submit"],
    description="Adds up numbers with a language model.",
)
numbers = Protocol(name="numbers", version="1.0.0")


@numbers.on_message(Add, replies={Sum})  # type: ignore[untyped-decorator]  # the same
async def add(ctx: Context, sender: str, asked: Add) -> None:
    print(f"adds {asked.a} and {asked.b}", flush=True)  # noqa: T201 -- what the test looks for
    await ctx.send(sender, Sum(value=asked.a + asked.b))


agent.include(numbers)
Path(sys.argv[4]).write_text(json.dumps({name: agent.address}))
agent.run()
