"""A small agent of the Agent Chat Protocol: acknowledge, answer, end the session. Used by the three examples beside it.

An agent joins a Convene by one argument, `agentverse="http://host:port"`. What it is called there, so that searches
find it, goes out when somebody posts to its `/connect`: the page /inspect/ of the server does, or the demo.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import uagents.asgi
from uagents import Agent, Context, Protocol
from uagents_core.contrib.protocols.chat import (
    ChatAcknowledgement,
    ChatMessage,
    EndSessionContent,
    TextContent,
    chat_protocol_spec,
)


def run(name: str, description: str, readme: Path, answer: Callable[[str], str]) -> None:
    """Run an agent whose handle is its name until it is interrupted; `answer` gets what it was told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--agentverse", default="http://127.0.0.1:8000", help="the server to join, without a / at its end"
    )
    parser.add_argument("--port", type=int, required=True, help="where this agent listens, on 127.0.0.1")
    parser.add_argument("--seed", required=True, help="a secret text; the agent's address follows from it")
    options = parser.parse_args()
    uagents.asgi.HOST = "127.0.0.1"  # the library would listen on every network
    agent = Agent(
        name=name,
        handle=name,
        description=description,
        readme_path=str(readme),
        seed=options.seed,
        port=options.port,
        endpoint=[f"http://127.0.0.1:{options.port}/submit"],
        agentverse=options.agentverse,
        handle_messages_concurrently=True,
    )
    chat = Protocol(spec=chat_protocol_spec)

    @chat.on_message(ChatMessage)  # type: ignore[untyped-decorator]  # the library states no types
    async def take(ctx: Context, sender: str, said: ChatMessage) -> None:
        await ctx.send(sender, ChatAcknowledgement(acknowledged_msg_id=said.msg_id))
        if text := said.text().strip():
            await ctx.send(sender, ChatMessage([TextContent(answer(text)), EndSessionContent()]))

    @chat.on_message(ChatAcknowledgement)  # type: ignore[untyped-decorator]  # the same
    async def acknowledged(ctx: Context, sender: str, said: ChatAcknowledgement) -> None:
        """Do nothing: the protocol wants it to be taken."""

    agent.include(chat, publish_manifest=True)
    agent.run()
