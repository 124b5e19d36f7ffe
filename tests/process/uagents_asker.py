"""A real agent of the `uagents` library that asks others, for `test_real_askers.py`; run in an environment of its own.

    python uagents_asker.py PORT http://127.0.0.1:ALMANAC NAME [answers | relay=ADDRESS]

`POST /ask {"target", "texts": [...]}` opens one session with the target and sends the first text; each further one goes
out when an answer has come. `GET /heard` returns everything that was said to it. With the word `answers` it answers
every chat message by a chat message without an end mark, whatever it is, as careless agents do. With `relay` it asks
that agent whatever it is asked, in the same session, and gives the answer on: text alone, as agents do that know
nothing of anybody's metadata.
"""

from __future__ import annotations

import sys

import uagents.asgi
from uagents import Agent, Context, Model, Protocol
from uagents_core.contrib.protocols.chat import (
    ChatAcknowledgement,
    ChatMessage,
    EndSessionContent,
    TextContent,
    chat_protocol_spec,
)

uagents.asgi.HOST = "127.0.0.1"
PORT, ALMANAC, NAME = int(sys.argv[1]), sys.argv[2], sys.argv[3]
ANSWERS = "answers" in sys.argv
RELAY = next((word.removeprefix("relay=") for word in sys.argv if word.startswith("relay=")), "")


class Ask(Model):  # type: ignore[misc]  # it states no types
    """What to say to whom."""

    target: str
    texts: list[str]


class Asked(Model):  # type: ignore[misc]  # it states no types
    """Who asks."""

    address: str


class Heard(Model):  # type: ignore[misc]  # it states no types
    """What was heard."""

    said: list[dict[str, object]]
    acknowledged: list[str]
    address: str


agent = Agent(
    name=NAME,
    seed=f"real askers of convene's tests: {NAME}",
    port=PORT,
    endpoint=[f"http://127.0.0.1:{PORT}/submit"],
    agentverse=ALMANAC,
    handle_messages_concurrently=True,
)
protocol = Protocol(spec=chat_protocol_spec)
said: list[dict[str, object]] = []
acknowledged: list[str] = []
waiting: dict[str, list[str]] = {}
asked_by: dict[str, str] = {}


def chat(text: str) -> ChatMessage:
    return ChatMessage([TextContent(text)])


@agent.on_rest_post("/ask", Ask, Asked)  # type: ignore[untyped-decorator]  # it states no types
async def ask(ctx: Context, request: Ask) -> Asked:
    waiting[str(ctx.session)] = list(request.texts[1:])
    await ctx.send(request.target, chat(request.texts[0]))
    return Asked(address=agent.address)


@agent.on_rest_get("/heard", Heard)  # type: ignore[untyped-decorator]  # it states no types
async def heard(ctx: Context) -> Heard:
    del ctx
    return Heard(said=said, acknowledged=acknowledged, address=agent.address)


async def relay(ctx: Context, sender: str, message: ChatMessage) -> None:
    if sender != RELAY:
        asked_by[str(ctx.session)] = sender
        await ctx.send(RELAY, chat(message.text()))
    elif asker := asked_by.pop(str(ctx.session), ""):
        await ctx.send(asker, ChatMessage([TextContent(f"{NAME} heard: {message.text()}"), EndSessionContent()]))


@protocol.on_message(ChatMessage)  # type: ignore[untyped-decorator]  # it states no types
async def take(ctx: Context, sender: str, message: ChatMessage) -> None:
    kinds = [one.type for one in message.content]
    said.append(  # before anything is waited for: messages are handled at once, and begin in the order they came in
        {
            "session": str(ctx.session),
            "text": message.text(),
            "kinds": kinds,
            "id": str(message.msg_id),
            "metadata": {k: v for one in message.content if one.type == "metadata" for k, v in one.metadata.items()},
        }
    )
    await ctx.send(sender, ChatAcknowledgement(acknowledged_msg_id=message.msg_id))
    if RELAY:
        await relay(ctx, sender, message)
        return
    texts = waiting.get(str(ctx.session), [])
    if texts and any(isinstance(one, EndSessionContent) for one in message.content):
        await ctx.send(sender, chat(texts.pop(0)))
    elif ANSWERS:
        await ctx.send(sender, chat(f"{NAME} says: {message.text()[:100]}"))


@protocol.on_message(ChatAcknowledgement)  # type: ignore[untyped-decorator]  # it states no types
async def taken(ctx: Context, sender: str, message: ChatAcknowledgement) -> None:
    del ctx, sender
    acknowledged.append(str(message.acknowledged_msg_id))


agent.include(protocol, publish_manifest=True)
agent.run()
