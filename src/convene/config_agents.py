"""The settings of agents: who this server is among them, how they are asked and answered. Read through `config.py`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from convene.agent_hops import DEPTH, HOPS_MAX
from convene.config_values import About, Secret


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """`[agents.answering]`: agents that ask this server, over the Agent Chat Protocol, A2A and MCP."""

    enabled: Annotated[
        Literal["auto", "on", "off"],
        About(
            "Answer chat messages of agents, which have no key; auto: where this server is reached on loopback alone"
        ),
    ] = "auto"
    model: Annotated[
        str, About("Model that answers where the question names none; empty: asi1, or the first there is")
    ] = ""
    plan: Annotated[str, About("Plan whose limits apply to each agent without a key")] = "free"
    together: Annotated[str, About("Plan whose limits apply to all agents without a key together")] = "pro"
    allow: Annotated[tuple[str, ...], About("Addresses of the only agents that are answered; empty: all")] = ()
    stream: Annotated[bool, About("Send answers over the Agent Chat Protocol in pieces, as they are written")] = False
    messages_per_minute: Annotated[
        int, About("Most messages of one conversation that are answered in a minute", at_least=1)
    ] = 10
    history_turns: Annotated[int, About("Turns of a conversation that are kept and shown to the model", at_least=0)] = (
        20
    )
    history_bytes: Annotated[int, About("Most of them that is shown to the model", "bytes", at_least=0)] = 32_768


class Agents(msgspec.Struct, frozen=True, kw_only=True):
    """`[agents]`: agents that models and users find and ask during an answer."""

    enabled: Annotated[bool, About("Let models and users find and ask agents")] = True
    seed: Annotated[Secret, About("Secret that this server's own address follows from; made once when empty")] = (
        Secret()
    )
    directory: Annotated[
        str, About("Address of an Agentverse to find agents in, as https://agentverse.ai; empty: none")
    ] = ""
    directory_key: Annotated[Secret, About("Key sent to that Agentverse as Authorization: Bearer")] = Secret()
    inbox_url: Annotated[str, About("Where agents send answers; default: /agents/inbox under public_url or host")] = ""
    first_s: Annotated[float, About("Wait for an agent's first sign of life", "s", at_least=0.1)] = 60.0
    total_s: Annotated[float, About("Wait for an agent's whole answer", "s", at_least=0.1)] = 240.0
    quiet_s: Annotated[float, About("Silence that ends an answer without an end mark", "s", at_least=0.05)] = 2.0
    openers: Annotated[tuple[str, ...], About("Agents that want a start of the session before the first message")] = ()
    depth: Annotated[
        int, About("Most agents that a question passes through, this server included", at_least=1, at_most=HOPS_MAX)
    ] = DEPTH
    answering: Answering = Answering()
