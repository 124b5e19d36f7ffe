"""Real agents of the `uagents` library in one process, for `test_real_agents.py`; run in an environment of their own.

    python uagents_house.py PORT http://127.0.0.1:ALMANAC addresses.json

Writes name to address into that file. Nothing of Convene is imported here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import uagents.asgi
from uagents import Agent, Bureau, Context, Protocol
from uagents_core.contrib.protocols.chat import (
    ChatAcknowledgement,
    ChatMessage,
    EndSessionContent,
    EndStreamContent,
    Resource,
    ResourceContent,
    StartStreamContent,
    TextContent,
    chat_protocol_spec,
)
from uagents_core.models import Model

uagents.asgi.HOST = "127.0.0.1"
PORT, ALMANAC = int(sys.argv[1]), sys.argv[2]
Work = Callable[[Context, str, str], Awaitable[None]]
ECHOES = 20
SLOW_S = 12.0
"""Longer than a server takes to start again on a busy machine: an agent tells its answer once."""


async def echo(ctx: Context, sender: str, text: str) -> None:
    await ctx.send(sender, ChatMessage([TextContent(f"{ctx.agent.name}: {text}"), EndSessionContent()]))


async def plain(ctx: Context, sender: str, text: str) -> None:
    await ctx.send(sender, ChatMessage([TextContent(f"plain: {text}")]))


async def slow(ctx: Context, sender: str, text: str) -> None:
    await asyncio.sleep(SLOW_S)
    await ctx.send(sender, ChatMessage([TextContent(f"slow: {text}"), EndSessionContent()]))


async def stream(ctx: Context, sender: str, text: str) -> None:
    del text
    stream_id = uuid4()
    await ctx.send(sender, ChatMessage([StartStreamContent(stream_id), TextContent("one, ")]))
    for word in ("two, ", "three"):
        await asyncio.sleep(0.2)
        await ctx.send(sender, ChatMessage([TextContent(word)]))
    await ctx.send(sender, ChatMessage([EndStreamContent(stream_id)]))


async def malformed(ctx: Context, sender: str, text: str) -> None:
    del text
    await ctx.send_raw(sender, Model.build_schema_digest(ChatMessage), '{"content": 5}')


async def draw(ctx: Context, sender: str, text: str) -> None:
    del text
    picture = Resource(uri="https://pictures.test/1.png", metadata={"mime_type": "image/png", "role": "image"})
    await ctx.send(
        sender, ChatMessage([TextContent("Here it is."), ResourceContent(uuid4(), picture), EndSessionContent()])
    )


async def count(ctx: Context, sender: str, text: str) -> None:
    del text
    told = (ctx.storage.get(str(ctx.session)) or 0) + 1
    ctx.storage.set(str(ctx.session), told)
    await ctx.send(sender, ChatMessage([TextContent(f"number {told}"), EndSessionContent()]))


def make(name: str, work: Work) -> Agent:
    agent = Agent(
        name=name,
        seed=f"real agents of convene's tests: {name}",
        agentverse=ALMANAC,
        handle_messages_concurrently=True,
    )
    protocol = Protocol(spec=chat_protocol_spec)

    @protocol.on_message(ChatMessage)  # type: ignore[untyped-decorator]  # it states no types
    async def take(ctx: Context, sender: str, said: ChatMessage) -> None:
        await ctx.send(sender, ChatAcknowledgement(acknowledged_msg_id=said.msg_id))
        await work(ctx, sender, said.text())

    @protocol.on_message(ChatAcknowledgement)  # type: ignore[untyped-decorator]  # it states no types
    async def acknowledged(ctx: Context, sender: str, said: ChatAcknowledgement) -> None:
        pass

    agent.include(protocol, publish_manifest=True)
    return agent


WORKS = {"plain": plain, "slow": slow, "stream": stream, "malformed": malformed, "draw": draw, "count": count}
WORKS |= {f"echo{number}": echo for number in range(ECHOES)}

bureau = Bureau(port=PORT, endpoint=[f"http://127.0.0.1:{PORT}/submit"], agentverse=ALMANAC)
agents = {name: make(name, work) for name, work in WORKS.items()}
for one in agents.values():
    bureau.add(one)
Path(sys.argv[3]).write_text(json.dumps({name: one.address for name, one in agents.items()}))
bureau.run()
