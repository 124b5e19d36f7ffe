"""The settings of agents: who this server is among them, and how they are asked. Read through `config.py`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from convene.config_values import About, Secret


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
