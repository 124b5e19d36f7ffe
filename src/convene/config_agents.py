"""The settings of agents: who this server is among them, how they are asked and answered, who may register here.

Read through `config.py`.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec

from convene.agent_hops import DEPTH, HOPS_MAX
from convene.config_values import About, Secret

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
"""What may stand after `@` in a message."""
_ADDRESS: Final = re.compile(r"agent1q[02-9ac-hj-np-z]{58}")


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
    directory_per_minute: Annotated[
        int,
        About(
            "Most questions a minute to agents found in that Agentverse; 0: 90 for agentverse.ai, else any number",
            at_least=0,
        ),
    ] = 0
    inbox_url: Annotated[str, About("Where agents send answers; default: /agents/inbox under public_url or host")] = ""
    mailbox: Annotated[
        Literal["auto", "on", "off"],
        About(
            "Fetch answers from a mailbox at directory, by directory_key; auto: with such a key, where neither "
            "public_url nor inbox_url says how agents reach this server"
        ),
    ] = "auto"
    first_s: Annotated[float, About("Wait for an agent's first sign of life", "s", at_least=0.1)] = 60.0
    total_s: Annotated[float, About("Wait for an agent's whole answer", "s", at_least=0.1)] = 240.0
    quiet_s: Annotated[float, About("Silence that ends an answer without an end mark", "s", at_least=0.05)] = 2.0
    openers: Annotated[tuple[str, ...], About("Agents that want a start of the session before the first message")] = ()
    open_per_agent_max: Annotated[
        int, About("Questions to one agent at the same time; one user or team has half of them", at_least=1)
    ] = 32
    depth: Annotated[
        int, About("Most agents that a question passes through, this server included", at_least=1, at_most=HOPS_MAX)
    ] = DEPTH
    embedding_model: Annotated[
        str, About("Model that finds agents by meaning; auto: the embedded engine's, if it is on; off: words alone")
    ] = "auto"
    embed_per_minute: Annotated[int, About("Most listings that it is asked for in a minute", at_least=1)] = 300
    answering: Answering = Answering()


class KnownAgent(msgspec.Struct, frozen=True, kw_only=True):
    """`[agent.NAME]`: one agent that the operator names; `@NAME` addresses it."""

    url: Annotated[str, About("Of an A2A agent, its card or an MCP server, as https://host")] = ""
    address: Annotated[str, About("Of an agent of the Agent Chat Protocol, as agent1q...; then url is empty")] = ""
    protocol: Annotated[Literal["auto", "a2a", "mcp"], About("What is spoken at url; auto: whatever answers there")] = (
        "auto"
    )
    enabled: Annotated[bool, About("false: it is neither found nor asked, by whatever name")] = True
    api_key: Annotated[Secret, About("Key sent to url as Authorization: Bearer")] = Secret()
    headers: Annotated[dict[str, Secret], About("Further headers sent to url")] = msgspec.field(default_factory=dict)
    description: Annotated[str, About("What it is good for, instead of its own words")] = ""
    price: Annotated[
        str, About("Name of the price whose `request` an answered question costs; empty: it costs nothing")
    ] = ""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Whatever of it must never be shown."""
        return (self.api_key, *self.headers.values())

    @property
    def id(self) -> str:
        """What it is known by."""
        return self.address or self.url


def agent_fault(name: str, agent: KnownAgent) -> tuple[str, str]:
    """Return the setting and what is wrong with it, both empty if nothing is. URLs are looked at elsewhere."""
    if not _NAME.fullmatch(name):
        return "url", "needs a name of at most 40 letters, digits, -, _ and ."
    if bool(agent.url) == bool(agent.address):
        return "url", "or address, one of them, says where the agent is"
    if agent.address and not _ADDRESS.fullmatch(agent.address):
        return "address", "must be agent1q and 58 more letters and digits"
    return "", ""


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """`[registry]`: the marketplace of this server, where agents register and are found."""

    enabled: Annotated[bool, About("Let agents register here, by the paths that their libraries know")] = True
    access: Annotated[
        Literal["auto", "open", "keys"],
        About("Who may register agents: anybody, or those with a key; auto: anybody, if bound to loopback"),
    ] = "auto"
    allow: Annotated[tuple[str, ...], About("Addresses of agents that may register without a key")] = ()
    keep_hours: Annotated[float, About("A registration stands so long without a refresh", "h", at_least=2)] = 48.0
    agents_max: Annotated[int, About("Most agents that are kept", at_least=1)] = 100_000
    letters_max: Annotated[int, About("Most envelopes that wait for one mailbox agent", at_least=1)] = 200
    letter_hours: Annotated[float, About("An envelope waits so long", "h", at_least=0.1)] = 24.0
