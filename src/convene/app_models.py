"""The composition of models: configured upstreams, the embedded engine and the scripted models, under their names.

The other half of the composition root (`app.py`); nothing else imports concrete providers. Here is decided which
names exist by default, and that `[models.NAME]` adds to them or replaces one.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from convene.app_agent import agentic_terms
from convene.app_books import terms_of
from convene.app_images import image_models, studios
from convene.config import ConfigError
from convene.engine.base import EMBEDDING_SETTINGS, EngineSettings, FetchSettings
from convene.engine.catalogue import find_open_model
from convene.engine.files import ModelFolder
from convene.engine.process import Engine
from convene.http.base import Timeouts
from convene.http.client import ClientOptions, HttpClient
from convene.providers.base import Capabilities
from convene.providers.exchange import OpenAISettings
from convene.providers.fallback import Fallback
from convene.providers.hosts import Hosts
from convene.providers.local import LocalChat, LocalSettings, describe_capabilities
from convene.providers.local_embeddings import LocalEmbeddings, LocalEmbeddingsSettings
from convene.providers.openai import OpenAIChat, OpenAIEmbeddings
from convene.providers.openai_codec import Dialect
from convene.providers.scripted import ScriptedChat, ScriptedEmbeddings, ScriptedSettings, catalogue
from convene.providers.tool_choice import ToolChooser
from convene.serving.base import ModelCard
from convene.serving.catalog import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.clock import Clock
    from convene.config import Config, Model, Upstream
    from convene.engine.base import LocalEngine, Mode
    from convene.http.base import Client
    from convene.providers.base import ChatModel, EmbeddingModel

    EngineMaker = Callable[[str, Mode, EngineSettings], LocalEngine]

DEFAULT_NAMES: Final = (
    ("asi1", ("asi1-agentic", "asi1-fast-agentic", "asi1-extended-agentic", "asi1-graph")),
    ("asi1-mini", ("asi1-fast",)),
    ("asi1-ultra", ("asi1-extended",)),
)
"""The current names of ASI:One's models and the old ones that lead to them (MODEL-02)."""
EMBEDDING_NAME: Final = "all-minilm-l6-v2"
TINY: Final = "smollm2-135m"
TINY_NOTE: Final = (
    "SmolLM2-135M, a smoke-test model: it proves that everything works, in English, and is often wrong. "
    '`convene models pull NAME` and [engine] model = "NAME" give a better one, [upstreams] a real one.'
)
STRICT_HOST: Final = "api.openai.com"
"""Refuses fields it does not know and reads the token limit under its new name."""
OVERRIDES: Final = (
    "context_window",
    "output_tokens_max",
    "temperature",
    "vision",
    "tools",
    "reasoning",
    "json_schema",
    "logprobs",
)


class Deployments:
    """Every deployment of a configuration, and the engines and connections they use."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        connect: Callable[[ClientOptions], Client] = HttpClient,
        make_engine: EngineMaker | None = None,
    ) -> None:
        """`connect` makes the client of an upstream: the network's seam.

        `make_engine` gives the embedded engines; without it they are children of this process.
        """
        self._make_engine = make_engine or functools.partial(embedded_engine, config, clock)
        self._config = config
        self._clock = clock
        self._connect = connect
        self.engines: list[LocalEngine] = []
        self._clients: list[Client] = []
        self._upstreams = {name: self._open(name, upstream) for name, upstream in config.upstreams.items()}
        self.hosts = {name: opened.hosts for name, opened in self._upstreams.items()}
        self._scripted = _play(config, clock)
        self._local_client = self._client(ClientOptions())
        self._embeddings = self._embed_locally() if config.engine.enabled and config.engine.embeddings else None
        self._chat = self._chat_locally() if config.engine.enabled else None
        self.all = tuple(self._deploy())
        self.studios = studios(self.all)

    def start(self) -> None:
        """Begin loading the models of this machine; returns at once."""
        for engine in self.engines:
            engine.start()
        for studio in self.studios:
            studio.start()

    async def aclose(self) -> None:
        """End the engines and drop the connections."""
        for engine in self.engines:
            await engine.aclose()
        for studio in self.studios:
            await studio.aclose()
        for client in self._clients:
            await client.aclose()

    def _client(self, options: ClientOptions) -> Client:
        client = self._connect(options)
        self._clients.append(client)
        return client

    def _engine(self, name: str, mode: Mode, settings: EngineSettings) -> LocalEngine:
        engine = self._make_engine(name, mode, settings)
        self.engines.append(engine)
        return engine

    def _chat_locally(self) -> LocalChat:
        chosen = self._config.engine
        settings = EngineSettings(slots=chosen.slots, context_per_slot=chosen.context_per_slot, threads=chosen.threads)
        engine = self._engine(chosen.model, "chat", settings)
        known = find_open_model(chosen.model)
        local = LocalSettings(waiting_max=chosen.waiting_max, native_tools=known is not None and known.tools)
        chooser = None
        if self._embeddings is not None:
            chooser = ToolChooser(self._embeddings, threshold=self._config.tools.choose_threshold)
        can = describe_capabilities(settings, local)
        return LocalChat(engine, self._local_client, chooser, local, can, self._clock)

    def _embed_locally(self) -> LocalEmbeddings:
        settings = msgspec.structs.replace(EMBEDDING_SETTINGS, threads=self._config.engine.threads)
        engine = self._engine(EMBEDDING_NAME, "embedding", settings)
        return LocalEmbeddings(engine, self._local_client, LocalEmbeddingsSettings(), self._clock)

    def _open(self, name: str, upstream: Upstream) -> _Opened:
        if upstream.ca_file and not Path(upstream.ca_file).is_file():
            raise ConfigError(f"upstreams.{name}.ca_file: there is no file {upstream.ca_file}")
        proxy = upstream.proxy.reveal() or None
        options = ClientOptions(
            connections_per_origin_max=upstream.connections_max,
            http_proxy=proxy,
            https_proxy=proxy,
            ca_file=upstream.ca_file or None,
        )
        shares = upstream.weights or (1,) * len(upstream.urls)
        used = [(url, share) for url, share in zip(upstream.urls, shares, strict=True) if share]
        hosts = Hosts([url for url, _ in used], [share for _, share in used], self._clock)
        return _Opened(name, upstream, self._client(options), hosts)

    def _deploy(self) -> list[Deployment]:
        """Return the configured models, then the defaults that were not replaced, then what the engine really is."""
        found = [self._configured(name, model) for name, model in self._config.models.items()]
        configured = set(self._config.models)
        if self._chat is not None:
            found += [self._embedded(name, aliases) for name, aliases in DEFAULT_NAMES if name not in configured]
            if self._config.engine.model not in configured:
                found.append(self._embedded(self._config.engine.model, ()))
        if self._embeddings is not None and EMBEDDING_NAME not in configured:
            card = self._card(EMBEDDING_NAME, "embedded", EMBEDDING_NAME, kind="embedding", dimensions=384)
            found.append(Deployment(card=card, embedding=self._embeddings))
        found += [
            Deployment(card=self._card(name, "scripted", name, capabilities=model.capabilities), chat=model)
            for name, model in self._scripted.items()
            if name not in configured
        ]
        found += image_models(self._config, self._clock, self._client, fetch_settings(self._config))
        return [self._on_terms(deployment) for deployment in found]

    def _on_terms(self, deployment: Deployment) -> Deployment:
        card = deployment.card
        return msgspec.structs.replace(
            deployment,
            terms=terms_of(self._config, card.id, card.upstream),
            agentic=agentic_terms(self._config, card.id),
        )

    def _embedded(self, name: str, aliases: tuple[str, ...]) -> Deployment:
        if self._chat is None:
            raise ConfigError(f"models.{name}: the embedded engine is switched off")
        model = self._config.engine.model
        notes = TINY_NOTE if model == TINY else ""
        can = self._chat.capabilities
        card = self._card(name, "embedded", model, aliases=aliases, capabilities=can, notes=notes)
        return Deployment(card=card, chat=self._chat, tally=self._chat.tally)

    def _configured(self, name: str, model: Model) -> Deployment:
        aliases = (*dict(DEFAULT_NAMES).get(name, ()), *model.aliases)
        names = model.upstream or self._implied_upstream(name)
        target = model.model or name
        if model.embeddings:
            embedding = self._embedding_at(names[0], model, target)
            card = self._card(name, names[0], target, kind="embedding", aliases=aliases, dimensions=model.dimensions)
            return Deployment(card=card, embedding=embedding)
        chats = [self._chat_at(upstream, model, target) for upstream in names]
        chat = chats[0] if len(chats) == 1 else Fallback(chats)
        card = self._card(name, names[0], target, aliases=aliases, capabilities=chat.capabilities)
        return Deployment(card=card, chat=chat, tally=chat.tally if isinstance(chat, LocalChat) else None)

    def _implied_upstream(self, name: str) -> tuple[str, ...]:
        """Return the upstream of a model that names none: the only one there is, else the engine."""
        if len(self._upstreams) == 1:
            return tuple(self._upstreams)
        if self._chat is not None and not self._upstreams:
            return ("engine",)
        raise ConfigError(f"models.{name}: set upstream, one of {', '.join(sorted(self._upstreams))}")

    def _chat_at(self, upstream: str, model: Model, target: str) -> ChatModel:
        opened = self._upstreams.get(upstream)
        if opened is not None:
            can = _overridden(Capabilities(), model)
            return OpenAIChat(opened.client, opened.hosts, opened.settings(target, model), can, self._clock)
        if upstream == "scripted":
            return self._scripted_at(target)
        if self._chat is None:
            raise ConfigError("a model names the embedded engine, which is switched off (engine.enabled)")
        return self._chat

    def _scripted_at(self, target: str) -> ChatModel:
        found = self._scripted.get(target)
        if found is None:
            known = ", ".join(sorted(self._scripted)) or "none, as scripted.enabled is false"
            raise ConfigError(f"there is no scripted model '{target}'; there are: {known}")
        return found

    def _embedding_at(self, upstream: str, model: Model, target: str) -> EmbeddingModel:
        opened = self._upstreams.get(upstream)
        if opened is not None:
            return OpenAIEmbeddings(opened.client, opened.hosts, opened.settings(target, model), self._clock)
        if upstream == "scripted":
            return ScriptedEmbeddings(dimensions=model.dimensions or 256)
        if self._embeddings is None:
            raise ConfigError("a model names the embedded engine, whose embeddings are off (engine.embeddings)")
        return self._embeddings

    def _card(
        self,
        name: str,
        upstream: str,
        target: str,
        *,
        kind: str = "chat",
        aliases: tuple[str, ...] = (),
        capabilities: Capabilities | None = None,
        dimensions: int | None = None,
        notes: str = "",
    ) -> ModelCard:
        return ModelCard(
            id=name,
            created=int(self._clock.now()),
            owned_by=upstream,
            upstream=upstream,
            target=target,
            kind=kind,
            aliases=aliases,
            capabilities=capabilities,
            dimensions=dimensions,
            notes=notes,
        )


def embedded_engine(config: Config, clock: Clock, name: str, mode: Mode, settings: EngineSettings) -> Engine:
    """Return an engine of this process; it is not started."""
    weights = ModelFolder(config.cache_dir, fetch_settings(config)).weights(name)
    return Engine(weights, mode, settings, token=clock.token)


def fetch_settings(config: Config) -> FetchSettings:
    """Return where weights may come from, as configured."""
    chosen = config.engine
    return FetchSettings(
        fetch=chosen.fetch, offline=chosen.offline, hub_url=chosen.hub_url, hub_token=chosen.hub_token.reveal()
    )


class _Opened:
    """One upstream with its connections and hosts, shared by all its models."""

    def __init__(self, name: str, upstream: Upstream, client: Client, hosts: Hosts) -> None:
        self._name = name
        self._upstream = upstream
        self.client = client
        self.hosts = hosts

    def settings(self, target: str, model: Model) -> OpenAISettings:
        """Return how to ask this upstream for `target`."""
        upstream = self._upstream
        strict = all(urlsplit(url).hostname == STRICT_HOST for url in upstream.urls)
        field = upstream.max_tokens_field
        if field == "auto":
            field = "max_completion_tokens" if strict else "max_tokens"
        return OpenAISettings(
            upstream=self._name,
            model=target,
            api_key=upstream.api_key.reveal(),
            headers=tuple((header, value.reveal()) for header, value in upstream.headers.items()),
            timeouts=Timeouts(
                connect_s=upstream.connect_s,
                pool_s=upstream.pool_s,
                first_byte_s=upstream.first_token_s,
                between_bytes_s=upstream.between_tokens_s,
                total_s=upstream.total_s,
            ),
            retries=upstream.retries,
            dialect=Dialect(
                max_tokens_field=field,
                echo_reasoning=upstream.echo_reasoning,
                allowed_tools=upstream.allowed_tools,
                template_opens_thinking=model.opens_thinking,
                pass_unknown=upstream.unknown_fields == "pass" or (upstream.unknown_fields == "auto" and not strict),
            ),
        )


def _overridden(can: Capabilities, model: Model) -> Capabilities:
    """Return the capabilities with what the configuration says of them."""
    said = {name: getattr(model, name) for name in OVERRIDES if getattr(model, name) is not None}
    return msgspec.structs.replace(can, **said) if said else can


def _play(config: Config, clock: Clock) -> dict[str, ScriptedChat]:
    path = Path(config.scripted.file) if config.scripted.file else None
    try:
        return catalogue(clock, ScriptedSettings(enabled=config.scripted.enabled, scripts=path))
    except (ValueError, OSError) as fault:
        raise ConfigError(f"scripted.file: {fault}") from fault
