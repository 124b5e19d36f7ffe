"""The settings of agentic turns: what the server may do inside one, and how far it may go. Read through `config.py`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from convene.config_values import About


class AgenticSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[agentic]`: turns in which the server itself searches, calls tools and plans."""

    server_tools: Annotated[bool, About("Offer the server's own tools to models")] = True
    max_tool_calls: Annotated[int, About("Most calls of them in one turn", at_least=0, at_most=100_000)] = 64
    max_rounds: Annotated[
        int, About("Most answers of the model in one turn; 0 = one more than its calls", at_least=0, at_most=100_000)
    ] = 0
    wall_s: Annotated[float, About("Longest turn", "s", at_least=1)] = 600.0
    whole_s: Annotated[float, About("Longest turn that is not streamed", "s", at_least=1)] = 80.0
    agent_wait_s: Annotated[
        float, About("How long a request waits for agents before it is deferred, or answered without", "s", at_least=0)
    ] = 55.0
    max_tokens: Annotated[int, About("Most tokens of all rounds together; 0 = any", "tokens", at_least=0)] = 2_000_000
    max_cost: Annotated[float, About("Most that one turn may cost; 0 = any", "currency", at_least=0)] = 0.0
    calls_at_once: Annotated[int, About("Tool calls of one turn at the same time", at_least=1, at_most=64)] = 8
    result_share: Annotated[
        float, About("Share of the context window that one result may take", at_least=0.01, at_most=0.9)
    ] = 0.25
    on_disconnect: Annotated[
        Literal["cancel", "continue"],
        About("What a turn does when its client leaves and the request does not say: stop, or run to its end"),
    ] = "cancel"
    judge: Annotated[
        Literal["auto", "off"],
        About(
            "Whether the model judges what agents have answered, in a small round of its own: where it can, or never"
        ),
    ] = "auto"
    tool_calls_shape: Annotated[
        Literal["dual", "bare", "off"],
        About("How the server's own calls also stand in tool_calls of whole replies to requests without tools"),
    ] = "dual"
    metadata_shape: Annotated[
        Literal["objects", "strings"],
        About(
            "Whether notices and cost in the metadata of whole replies are JSON, or JSON in texts for strict clients"
        ),
    ] = "objects"


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """`[tools]`: what the server may do inside a turn."""

    choose_threshold: Annotated[float, About("Score from which a small model's tool is run", at_least=0, at_most=1)] = (
        0.20
    )
    allow_after_untrusted: Annotated[
        tuple[str, ...],
        About("Tools that send data out and may run although strangers' text was read; * stands for any"),
    ] = ()
