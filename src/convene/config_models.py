"""The settings of who generates: upstreams, the embedded engine, scripts, and models. Read through `config.py`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from convene.config_values import About, Secret

BUILT_IN_UPSTREAMS: Final = frozenset({"engine", "scripted"})
"""What `[models.NAME] upstream` may name beside the upstreams that are declared."""


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """`[upstreams.NAME]`: one host, or several equal ones, that generate."""

    base_url: Annotated[str, About("Root of its API, with /v1 where it has one")] = ""
    base_urls: Annotated[tuple[str, ...], About("Roots of several equal hosts, instead of base_url")] = ()
    api_key: Annotated[Secret, About("Key sent as Authorization: Bearer")] = Secret()
    weights: Annotated[tuple[int, ...], About("Share of each of base_urls", at_least=0)] = ()
    headers: Annotated[dict[str, Secret], About("Further headers sent to it")] = msgspec.field(default_factory=dict)
    proxy: Annotated[Secret, About("HTTP proxy on the way, as http://host:port")] = Secret()
    kind: Annotated[Literal["openai"], About("Dialect it speaks")] = "openai"
    connect_s: Annotated[float, About("Wait for a connection", "s", at_least=0.01)] = 5.0
    first_token_s: Annotated[float, About("Wait for the first byte of an answer", "s", at_least=0.01)] = 120.0
    between_tokens_s: Annotated[float, About("Longest silence inside an answer", "s", at_least=0.01)] = 60.0
    total_s: Annotated[float, About("Longest whole answer", "s", at_least=0.01)] = 900.0
    connections_max: Annotated[int, About("Most connections to it", at_least=1)] = 1024
    retries: Annotated[int, About("Further tries while nothing was answered", at_least=0, at_most=10)] = 2
    ca_file: Annotated[str, About("Certificates to trust instead of the system's", is_path=True)] = ""
    pool_s: Annotated[float, About("Wait for a free connection", "s", at_least=0.01)] = 10.0
    max_tokens_field: Annotated[
        Literal["auto", "max_tokens", "max_completion_tokens"],
        About("Name it reads the token limit by; auto: max_completion_tokens at api.openai.com, else max_tokens"),
    ] = "auto"
    unknown_fields: Annotated[
        Literal["auto", "pass", "drop"], About("Hand on fields we do not know; auto: to all but api.openai.com")
    ] = "auto"
    echo_reasoning: Annotated[bool, About("Send earlier reasoning back as reasoning_content")] = False
    allowed_tools: Annotated[bool, About("It knows tool_choice of type allowed_tools")] = False
    on_disconnect: Annotated[
        Literal["cancel", "drain", "free"],
        About("Client left: cancel and bill what came, drain and bill exactly, or cancel and bill nothing"),
    ] = "cancel"
    drain_s: Annotated[float, About("Longest drain of an answer nobody waits for", "s", at_least=0.1)] = 60.0

    @property
    def urls(self) -> tuple[str, ...]:
        """The roots, without a slash at the end."""
        return tuple(url.rstrip("/") for url in (self.base_urls or (self.base_url,)))


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """`[engine]`: the embedded engine, which answers without any upstream."""

    enabled: Annotated[bool, About("Run the embedded engine")] = True
    model: Annotated[str, About("Catalogue name, path of a GGUF or wheel, or hf:owner/repo/file.gguf")] = "smollm2-135m"
    embeddings: Annotated[bool, About("Also serve embeddings from an embedded model")] = True
    slots: Annotated[int, About("Answers generated at the same time", at_least=1, at_most=256)] = 4
    context_per_slot: Annotated[int, About("Context window of each slot", "tokens", at_least=256)] = 2048
    threads: Annotated[int, About("Processor threads; 0 = usable cores minus one", at_least=0)] = 0
    fetch: Annotated[bool, About("Fetch missing weights at the first start")] = True
    offline: Annotated[bool, About("Never use the network for weights")] = False
    waiting_max: Annotated[int, About("Most requests waiting for a slot", at_least=0)] = 64
    hub_url: Annotated[str, About("Where hf: names are fetched from")] = "https://huggingface.co"
    hub_token: Annotated[Secret, About("Key for gated models, sent to that hub only")] = Secret()


class Scripted(msgspec.Struct, frozen=True, kw_only=True):
    """`[scripted]`: the deterministic provider for tests and demonstrations."""

    enabled: Annotated[bool, About("Offer the scripted models")] = False
    file: Annotated[str, About("Script to play", is_path=True)] = ""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`[models.NAME]`: adds a model, or changes the default model of that name. `None` keeps what is known of it."""

    upstream: Annotated[tuple[str, ...], About("Upstream, or several tried in this order; also engine, scripted")] = ()
    model: Annotated[str, About("Its name there; the same when empty")] = ""
    aliases: Annotated[tuple[str, ...], About("Further names for it here")] = ()
    context_window: Annotated[int | None, About("Context window", "tokens", at_least=1)] = None
    output_tokens_max: Annotated[int | None, About("Longest answer", "tokens", at_least=1)] = None
    temperature: Annotated[float | None, About("Temperature when none is asked", at_least=0, at_most=2)] = None
    vision: Annotated[bool | None, About("Takes images")] = None
    tools: Annotated[bool | None, About("Calls tools")] = None
    reasoning: Annotated[bool | None, About("Emits reasoning")] = None
    json_schema: Annotated[bool | None, About("Binds output to a JSON schema")] = None
    logprobs: Annotated[bool | None, About("Gives log probabilities")] = None
    opens_thinking: Annotated[bool, About("Its template writes <think>, so replies begin inside of it")] = False
    hidden: Annotated[bool, About("Serve it, but do not list it")] = False
    embeddings: Annotated[bool, About("It is an embedding model")] = False
    dimensions: Annotated[int | None, About("Length of its embeddings", at_least=1)] = None
    price: Annotated[str, About("Entry of [prices] that it costs; the one of its own name when empty")] = ""
    limits: Annotated[str, About("Plan whose limits all its callers share")] = ""
    limits_per_key: Annotated[str, About("Plan whose limits each key has on it, beside its own")] = ""
    server_tools: Annotated[bool | None, About("Offer it the server's own tools")] = None
    max_tool_calls: Annotated[int | None, About("Most calls of them in one turn", at_least=0, at_most=100_000)] = None
    agents: Annotated[bool | None, About("Let it find and ask agents; else asi1 and names in -agentic may")] = None
    search: Annotated[
        Literal["auto", "before", "tool"],
        About("Web search: before the answer, or as its tool; auto: before for small models, else as its tool"),
    ] = "auto"
