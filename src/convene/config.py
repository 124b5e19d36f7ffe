"""Every setting, once: its name, type, default, unit and help; and the one `Config` read from all sources.

A flag beats the environment (`CONVENE_PORT`, `CONVENE_EDGE_PING_S`), which beats `.env` in the working folder, which
beats the file (`--config`, else CONVENE_CONFIG, else `./convene.toml`), which beats the default (OPS-22). `load` is a
function of its arguments and the files they name; `load_here` and `client_here` are the only readers of `os.environ`
in the program. What operators change while running (keys, limits) is not here: it lives in the store.

Called by `cli.py`; everybody else is handed the frozen values.
"""

from __future__ import annotations

import ipaddress
import json
import operator
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from convene.config_agentic import AgenticSettings
from convene.config_agents import Agents, Answering, KnownAgent, Registry, agent_fault
from convene.config_books import Books, Idempotency, Limits, Plan, Price, plans_of
from convene.config_egress import EgressSettings, PageSettings, fault_of
from convene.config_images import IMAGE_SCRIPTS, Images
from convene.config_mcp import Mcp, mcp_fault
from convene.config_runs import Runs, Sessions
from convene.config_search import Brave, Metasearch, Search, Searxng, Tavily, search_faults
from convene.config_sources import (
    Given,
    Key,
    Schema,
    file_path,
    from_environment,
    from_file,
    from_flags,
    read_dotenv,
    spell,
)
from convene.config_values import About, ConfigError, Secret, Setting, convert, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "AgenticSettings",
    "Agents",
    "Answering",
    "Books",
    "Brave",
    "ClientSettings",
    "Config",
    "ConfigError",
    "Edge",
    "EgressSettings",
    "Engine",
    "Idempotency",
    "Images",
    "KnownAgent",
    "Limits",
    "Mcp",
    "Metasearch",
    "Model",
    "PageSettings",
    "Plan",
    "Price",
    "Registry",
    "Runs",
    "Scripted",
    "Search",
    "Searxng",
    "Secret",
    "Sessions",
    "Shown",
    "Tavily",
    "Tools",
    "Upstream",
    "client_here",
    "client_settings",
    "describe",
    "is_loopback",
    "load",
    "load_here",
    "plans_of",
    "secrets_of",
]


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """`[edge]`: what the listening side bears (reliability 2 and 3: every wait and every size has a limit)."""

    body_bytes_max: Annotated[int, About("Largest request body", "bytes", at_least=1024)] = 33_554_432
    header_bytes_max: Annotated[int, About("Largest request head", "bytes", at_least=1024)] = 65_536
    headers_max: Annotated[int, About("Most header fields in one request", at_least=10)] = 100
    connections_max: Annotated[int, About("Most open client connections", at_least=1)] = 10_000
    connections_per_address_max: Annotated[int, About("Most open connections of one address", at_least=1)] = 1_000
    first_byte_s: Annotated[float, About("Wait for the first byte of a new connection", "s", at_least=0.1)] = 5.0
    header_s: Annotated[float, About("Wait for a whole request head", "s", at_least=0.1)] = 10.0
    body_total_s: Annotated[float, About("Wait for a whole request body", "s", at_least=0.1)] = 120.0
    write_stall_s: Annotated[float, About("Drop a client that reads nothing for so long", "s", at_least=0.1)] = 30.0
    keep_alive_s: Annotated[float, About("Keep an idle connection open", "s", at_least=0)] = 30.0
    grace_s: Annotated[float, About("Time for running answers at shutdown", "s", at_least=0)] = 30.0
    ping_s: Annotated[float, About("Silence after which a stream gets a keep-alive comment", "s", at_least=0.1)] = 12.0
    first_event_s: Annotated[float, About("Wait for the first event before headers leave", "s", at_least=0)] = 10.0


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


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """`[tools]`: what the server may do inside a turn."""

    choose_threshold: Annotated[float, About("Score from which a small model's tool is run", at_least=0, at_most=1)] = (
        0.20
    )
    allow_after_untrusted: Annotated[
        tuple[str, ...],
        About("Tools that send data out and may run although strangers' text was read; * stands for any"),
    ] = ()


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


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one process, frozen."""

    host: Annotated[str, About("Address to listen on")] = "127.0.0.1"
    port: Annotated[int, About("Port to listen on; 0 = any free one", at_least=0, at_most=65535)] = 8000
    workers: Annotated[int, About("Processes behind the port", at_least=1, at_most=64)] = 1
    data_dir: Annotated[Path, About("Folder of the store; default: the platform's data folder")] = Path()
    cache_dir: Annotated[Path, About("Folder of model weights; default: the platform's cache folder")] = Path()
    public_url: Annotated[str, About("Address under which others reach this server")] = ""
    auth: Annotated[Literal["keys", "none"], About("none: no keys, on loopback only")] = "keys"
    signup: Annotated[
        Literal["invitation", "open", "closed"],
        About("Who may sign up: who has an invitation, anybody, or nobody"),
    ] = "invitation"
    default_plan: Annotated[str, About("Plan of users' and teams' keys where neither key, user nor team names one")] = (
        "free"
    )
    cors_origins: Annotated[tuple[str, ...], About("Browser origins that may call the API")] = ()
    log_level: Annotated[Literal["debug", "info", "warning", "error"], About("Least level that is logged")] = "info"
    access_log: Annotated[bool, About("Log one line per request")] = True
    docs: Annotated[bool, About("Serve /docs and /openapi.json")] = True
    metrics: Annotated[
        Literal["auto", "open", "key", "off"],
        About("Who reads /metrics: anybody, keys with the scope admin, nobody; auto: anybody on loopback, else keys"),
    ] = "auto"
    default_model: Annotated[str, About("Model that `convene chat` asks for")] = "asi1"
    database_url: Annotated[Secret, About("postgres://... for all that is remembered, instead of data_dir")] = Secret()
    redis_url: Annotated[Secret, About("redis://... for the counters of several machines")] = Secret()
    currency: Annotated[str, About("What prices and budgets are in")] = "USD"
    image_reply: Annotated[
        Literal["both", "openai", "asi1"],
        About("Whose shape an answer with pictures has; both sends each picture twice"),
    ] = "both"
    image_link_hours: Annotated[float, About("Life of links to pictures", "h", at_least=0.01)] = 24.0
    image_bytes_max: Annotated[
        int, About("What kept pictures may take; the oldest of whoever has most go first", "bytes", at_least=1_000_000)
    ] = 2_000_000_000
    edge: Edge = Edge()
    engine: Engine = Engine()
    scripted: Scripted = Scripted()
    tools: Tools = Tools()
    agentic: AgenticSettings = AgenticSettings()
    agents: Agents = Agents()
    registry: Registry = Registry()
    egress: EgressSettings = EgressSettings()
    pages: PageSettings = PageSettings()
    search: Search = Search()
    limits: Limits = Limits()
    ledger: Books = Books()
    idempotency: Idempotency = Idempotency()
    runs: Runs = Runs()
    sessions: Sessions = Sessions()
    upstreams: dict[str, Upstream] = msgspec.field(default_factory=dict)
    models: dict[str, Model] = msgspec.field(default_factory=dict)
    images: dict[str, Images] = msgspec.field(default_factory=dict)
    mcp: dict[str, Mcp] = msgspec.field(default_factory=dict)
    agent: dict[str, KnownAgent] = msgspec.field(default_factory=dict)
    plans: dict[str, Plan] = msgspec.field(default_factory=dict)
    prices: dict[str, Price] = msgspec.field(default_factory=dict)
    sources: dict[str, str] = msgspec.field(default_factory=dict)
    """Key to source, for every value that is not a default."""
    notices: tuple[str, ...] = ()
    """What the operator should know, but is no error: CONVENE_ variables that name no setting."""

    @property
    def store_path(self) -> Path:
        """The store's file."""
        return self.data_dir / "convene.db"


class Shown(msgspec.Struct, frozen=True):
    """One line of `convene check-config`."""

    key: str
    value: str
    source: str
    help: str


class ClientSettings(msgspec.Struct, frozen=True):
    """Where `convene chat` goes, from the names users have (OPS-24)."""

    url: str
    """Empty: nothing was said."""
    key: Secret
    model: str
    """Empty: nothing was said."""
    no_color: bool
    """NO_COLOR is set, to whatever (OPS-26)."""


_SCHEMA = Schema(
    Config,
    {
        "edge": Edge,
        "engine": Engine,
        "scripted": Scripted,
        "tools": Tools,
        "agentic": AgenticSettings,
        "agents": Agents,
        "agents.answering": Answering,
        "registry": Registry,
        "egress": EgressSettings,
        "pages": PageSettings,
        "search": Search,
        "search.searxng": Searxng,
        "search.brave": Brave,
        "search.tavily": Tavily,
        "search.metasearch": Metasearch,
        "limits": Limits,
        "ledger": Books,
        "idempotency": Idempotency,
        "runs": Runs,
        "sessions": Sessions,
    },
    {
        "upstreams": Upstream,
        "models": Model,
        "images": Images,
        "mcp": Mcp,
        "agent": KnownAgent,
        "plans": Plan,
        "prices": Price,
    },
)
_BUILT_IN_UPSTREAMS = frozenset({"engine", "scripted"})
_KEY_NAMES = ("CONVENE_API_KEY", "ASI1_API_KEY", "ASI_ONE_API_KEY", "ASI_API_KEY", "ASIONE_API_KEY", "ASI_LLM_KEY")
_URL_NAMES = ("CONVENE_BASE_URL", "ASI1_BASE_URL", "ASI_ONE_BASE_URL", "ASI_BASE_URL")


def load(argv_overrides: Mapping[str, str], environ: Mapping[str, str], cwd: Path) -> Config:
    """Read every source and return the one frozen result.

    Args:
        argv_overrides: flags as setting keys (`port`, `edge.ping_s`), and `config` for the file's path.
        environ: the process environment.
        cwd: an absolute folder: `.env` and `convene.toml` are looked for in it.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or values that contradict each other.
    """
    dotenv = read_dotenv(cwd / ".env")
    env = dotenv | dict(environ)
    sources = dict.fromkeys(dotenv, ".env") | dict.fromkeys(environ, "environment")
    overrides = dict(argv_overrides)
    path = file_path(overrides.pop("config", ""), env.get("CONVENE_CONFIG", ""), cwd)
    given = {} if path is None else from_file(path, _SCHEMA, env)
    entries: set[Key] = {key[:2] for key in given if len(key) == 3}  # noqa: PLR2004 -- table, name, setting
    from_env, notices = from_environment(env, sources, _SCHEMA, entries, cwd)
    given |= from_env
    given |= from_flags(overrides, _SCHEMA, env, cwd)
    config = _build(given, env, cwd, notices)
    _check(config)
    return config


def load_here(argv_overrides: Mapping[str, str]) -> Config:
    """`load` with this process's environment and working folder."""
    return load(argv_overrides, os.environ, Path.cwd())


def describe(config: Config) -> Iterator[Shown]:
    """Yield every setting with its value (secrets as stars), its source and its help."""
    for name, setting in settings_of(Config).items():
        yield _shown((name,), setting, getattr(config, name), config)
    for section, struct in _SCHEMA.sections.items():
        values = operator.attrgetter(section)(config)
        for name, setting in settings_of(struct).items():
            yield _shown((*section.split("."), name), setting, getattr(values, name), config)
    for table, struct in _SCHEMA.tables.items():
        for entry, value in getattr(config, table).items():
            for name, setting in settings_of(struct).items():
                yield _shown((table, entry, name), setting, getattr(value, name), config)


def secrets_of(config: Config) -> tuple[str, ...]:
    """Return every loaded secret's text, for the one place that must know them all: the log's redaction (E6)."""
    found: list[Secret] = []
    for upstream in config.upstreams.values():
        found += (upstream.api_key, upstream.proxy, *upstream.headers.values())
    found += (config.egress.proxy, config.engine.hub_token, config.database_url, config.redis_url)
    found += config.search.secrets
    for server in config.mcp.values():
        found += server.secrets
    for agent in config.agent.values():
        found += agent.secrets
    return tuple(dict.fromkeys(secret.reveal() for secret in found if secret))


def client_settings(environ: Mapping[str, str], cwd: Path) -> ClientSettings:
    """Return the server and key that the environment or `.env` name for clients.

    The OpenAI names come last. A key under a foreign name is taken only if a base URL is named too, or if it is one
    of ours by its prefix: else a key meant for another host would be sent to whatever listens on this machine.
    """
    env = read_dotenv(cwd / ".env") | dict(environ)
    url = next((env[name] for name in (*_URL_NAMES, "OPENAI_BASE_URL") if env.get(name)), "")
    key = ""
    for name in (*_KEY_NAMES, "OPENAI_API_KEY"):
        text = env.get(name, "")
        if not key and (url or name == "CONVENE_API_KEY" or text.startswith("convene_")):
            key = text
    return ClientSettings(url, Secret(key), env.get("CONVENE_MODEL", ""), bool(env.get("NO_COLOR")))


def client_here() -> ClientSettings:
    """`client_settings` with this process's environment and working folder."""
    return client_settings(os.environ, Path.cwd())


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine only: 127.0.0.0/8, ::1 or localhost."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _build(given: Mapping[Key, Given], env: Mapping[str, str], cwd: Path, notices: tuple[str, ...]) -> Config:
    """Return the checked values as Structs."""
    top: dict[str, Any] = {"data_dir": _platform_dir("data", env, cwd), "cache_dir": _platform_dir("cache", env, cwd)}
    sections: dict[str, dict[str, Any]] = {name: {} for name in _SCHEMA.sections}
    tables: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in _SCHEMA.tables}
    for key, one in given.items():
        value = convert(one.setting, one.raw, one.place)
        match key:
            case (*section, name) if ".".join(section) in sections:
                sections[".".join(section)][name] = value
            case (table, entry, name):
                tables[table].setdefault(entry, {})[name] = value
            case _:
                top[key[0]] = value
    for name, fields in tables["models"].items():
        fields["model"] = fields.get("model") or name
    for name in sorted(sections, key=lambda name: name.count("."), reverse=True):  # the inner ones first
        outer, _, inner = name.rpartition(".")
        (sections[outer] if outer else top)[inner] = _SCHEMA.sections[name](**sections[name])
    for table, entries in tables.items():
        top[table] = {name: _SCHEMA.tables[table](**fields) for name, fields in entries.items()}
    return Config(**top, sources={spell(key): one.place.source for key, one in given.items()}, notices=notices)


def _platform_dir(kind: Literal["data", "cache"], env: Mapping[str, str], cwd: Path) -> Path:
    """Return the platform's folder for our data or cache; `.convene` in the working folder when nobody has a home."""
    home = env.get("HOME") or env.get("USERPROFILE")
    if sys.platform == "win32" and env.get("LOCALAPPDATA"):
        return Path(env["LOCALAPPDATA"]) / "convene" / kind
    if sys.platform == "darwin" and home:
        return Path(home) / "Library" / ("Application Support" if kind == "data" else "Caches") / "convene"
    named = Path(env.get("XDG_DATA_HOME" if kind == "data" else "XDG_CACHE_HOME", ""))
    if named.is_absolute():  # the XDG rule: a relative one is ignored
        return named / "convene"
    if home:
        return Path(home) / (".local/share" if kind == "data" else ".cache") / "convene"
    return cwd / ".convene" / kind


def _check(config: Config) -> None:
    """Raise `ConfigError` for values that are each valid but not together."""
    if config.auth == "none" and not is_loopback(config.host):
        message = f'= "none" needs a loopback host, not {config.host}; use auth = "keys" to be reachable from elsewhere'
        raise _fault(config, ("auth",), message)
    if config.default_plan not in (plans := plans_of(config.plans)):
        message = f"names {config.default_plan!r}, which is not one of: {', '.join(sorted(plans))}"
        raise _fault(config, ("default_plan",), message)
    for setting in ("plan", "together"):
        if (wanted := getattr(config.agents.answering, setting)) not in plans:
            message = f"names {wanted!r}, which is not one of: {', '.join(sorted(plans))}"
            raise _fault(config, ("agents", "answering", setting), message)
    if config.public_url and not _is_web_root(config.public_url):
        raise _fault(config, ("public_url",), "must be an absolute http:// or https:// address")
    for name, upstream in config.upstreams.items():
        _check_upstream(config, name, upstream)
    _check_egress(config)
    _check_search(config)
    for name, server in config.mcp.items():
        _check_mcp(config, name, server)
    _check_agents(config)
    known = {*config.upstreams, *_BUILT_IN_UPSTREAMS}
    for name, model in config.models.items():
        for wanted in model.upstream:
            if wanted not in known:
                message = f"names {wanted!r}, which is not one of: {', '.join(sorted(known))}"
                raise _fault(config, ("models", name, "upstream"), message)
        _check_terms(config, name, model)

    _check_images(config)


def _check_images(config: Config) -> None:
    for name, images in config.images.items():
        if images.kind == "local":
            _check_local_images(config, name, images)
        elif images.kind == "scripted":
            if images.model and images.model not in IMAGE_SCRIPTS:
                message = f"is {images.model!r}; of kind scripted it is one of {', '.join(IMAGE_SCRIPTS)}"
                raise _fault(config, ("images", name, "model"), message)
        elif not _is_web_root(images.base_url):
            raise _fault(config, ("images", name, "base_url"), "must be an absolute http:// or https:// address")
        if (images.kind == "comfyui") != bool(images.workflow):
            message = "is for kind comfyui, which needs it: a workflow saved in API form"
            raise _fault(config, ("images", name, "workflow"), message)
        _check_terms(config, name, images, "images")


def _check_local_images(config: Config, name: str, images: Images) -> None:
    if bool(images.folder) == bool(images.model):
        message = "or model, one of them, says where the weights are for kind local"
        raise _fault(config, ("images", name, "folder"), message)
    if config.workers > 1:
        message = "local needs workers = 1, as each worker would load the weights for itself"
        raise _fault(config, ("images", name, "kind"), message)


def _check_terms(config: Config, name: str, model: Model | Images, table: str = "models") -> None:
    for setting in ("limits", "limits_per_key"):
        wanted = getattr(model, setting)
        if wanted and wanted not in (known := plans_of(config.plans)):
            message = f"names {wanted!r}, which is not one of: {', '.join(sorted(known))}"
            raise _fault(config, (table, name, setting), message)
    if model.price and model.price not in config.prices:
        message = f"names {model.price!r}, which is not one of: {', '.join(sorted(config.prices)) or 'none'}"
        raise _fault(config, (table, name, "price"), message)


def _check_egress(config: Config) -> None:
    setting, message = fault_of(config.egress)
    if message:
        raise _fault(config, ("egress", setting), message)
    _check_proxy(config, ("egress",), config.egress.proxy)


def _check_proxy(config: Config, at: Key, proxy: Secret) -> None:
    if proxy and not re.fullmatch(r"https?://[^\s\\]+", proxy.reveal()):
        raise _fault(config, (*at, "proxy"), "must be http://host:port")


def _check_search(config: Config) -> None:
    search = config.search
    for key, message in search_faults(search):
        raise _fault(config, ("search", *key), message)
    for name in ("searxng", "brave", "tavily"):
        url: str = getattr(search, name).base_url
        if url and not _is_web_root(url):
            message = f"must be absolute, http:// or https://, without user, query or #, not {_without_user(url)}"
            raise _fault(config, ("search", name, "base_url"), message)
        _check_proxy(config, ("search", name), getattr(search, name).proxy)
    proxy = search.metasearch.proxy.reveal()
    if proxy and not re.fullmatch(r"(https?|socks5h?)://[^\s\\]+", proxy):
        raise _fault(config, ("search", "metasearch", "proxy"), "must be http://host:port or socks5://host:port")


def _check_mcp(config: Config, name: str, server: Mcp) -> None:
    if message := mcp_fault(name):
        raise _fault(config, ("mcp", name), message)
    if not _is_web_root(server.url):
        message = f"must be absolute, http:// or https://, without user, query or #, not {_without_user(server.url)}"
        raise _fault(config, ("mcp", name, "url"), message)
    _check_proxy(config, ("mcp", name), server.proxy)


def _check_agents(config: Config) -> None:
    for name, agent in config.agent.items():
        setting, message = agent_fault(name, agent)
        if not message and agent.url and not _is_web_root(agent.url):
            setting = "url"
            message = f"must be absolute, http:// or https://, without user, query or #, not {_without_user(agent.url)}"
        if not message and agent.price and agent.price not in config.prices:
            setting = "price"
            message = f"names {agent.price!r}, which is not one of: {', '.join(sorted(config.prices)) or 'none'}"
        if message:
            raise _fault(config, ("agent", name, setting), message)


def _check_upstream(config: Config, name: str, upstream: Upstream) -> None:
    at = ("upstreams", name)
    if name in _BUILT_IN_UPSTREAMS:
        raise _fault(config, at, "is the name of a built-in upstream; choose another")
    if bool(upstream.base_url) == bool(upstream.base_urls):
        raise _fault(config, at, "needs exactly one of base_url and base_urls")
    for url in upstream.urls:
        if not _is_web_root(url):
            message = f"must be absolute, http:// or https://, without user, query or #, not {_without_user(url)}"
            raise _fault(config, (*at, "base_urls" if upstream.base_urls else "base_url"), message)
    if upstream.weights and (len(upstream.weights) != len(upstream.urls) or not sum(upstream.weights)):
        message = f"needs one number for each of base_urls ({len(upstream.urls)}), and not only zeros"
        raise _fault(config, (*at, "weights"), message)
    _check_proxy(config, at, upstream.proxy)


def _fault(config: Config, key: Key, message: str) -> ConfigError:
    """Return an error that names the key and, if one of its values was given, the source."""
    text = spell(key)
    source = next(
        (where for given, where in config.sources.items() if given == text or given.startswith(f"{text}.")), ""
    )
    return ConfigError(f"{source or 'default'}: {text} {message}", param=text)


def _is_web_root(url: str) -> bool:
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    plain = parts.username is None and not parts.query and not parts.fragment and not re.search(r"[\s\\]", url)
    return usable and plain and parts.scheme in ("http", "https")


def _without_user(url: str) -> str:
    """Return the address without a password in it, for an error text."""
    return re.sub(r"//[^/@]*@", "//********@", url)


def _shown(key: Key, setting: Setting, value: object, config: Config) -> Shown:
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{name}: {inner}" for name, inner in value.items()) + "}"
    elif isinstance(value, tuple):
        text = json.dumps(list(value))
    elif isinstance(value, bool) or value is None:
        text = json.dumps(value)
    else:
        text = str(value)
    unit = f" {setting.about.unit}" if setting.about.unit and value is not None else ""
    return Shown(spell(key), text + unit, config.sources.get(spell(key), "default"), setting.about.help)
