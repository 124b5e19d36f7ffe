"""Every setting, once: those of no section, the map to the sections (`SCHEMA`), and the one `Config` of all sources.

A setting is declared with its name, type, default, unit and help, here or in the Struct that `SCHEMA` names.

A flag beats the environment (`CONVENE_PORT`, `CONVENE_EDGE_PING_S`), which beats `.env` in the working folder, which
beats the file (`--config`, else CONVENE_CONFIG, else `./convene.toml`), which beats the default (OPS-22). `load` is a
function of its arguments and the files they name; `load_here` and `client_here` are the only readers of `os.environ`
in the program. What operators change while running (keys, limits) is not here: it lives in the store.

Called by `cli.py`; everybody else is handed the frozen values.
"""

from __future__ import annotations

import json
import operator
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from convene.config_agentic import AgenticSettings, Tools
from convene.config_agents import Agents, Answering, KnownAgent, Registry
from convene.config_books import Books, Idempotency, Limits, Plan, Price, plans_of
from convene.config_checks import check
from convene.config_client import ClientSettings, client_settings
from convene.config_edge import Edge, is_loopback
from convene.config_egress import EgressSettings, PageSettings
from convene.config_images import Images
from convene.config_mcp import Mcp
from convene.config_models import Engine, Model, Scripted, Upstream
from convene.config_runs import Runs, Sessions
from convene.config_search import Brave, Metasearch, Search, Searxng, Tavily
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
    "SCHEMA",
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


SCHEMA = Schema(
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
"""Every section and the Struct that declares its settings: where to look for one."""


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
    given = {} if path is None else from_file(path, SCHEMA, env)
    entries: set[Key] = {key[:2] for key in given if len(key) == 3}  # noqa: PLR2004 -- table, name, setting
    from_env, notices = from_environment(env, sources, SCHEMA, entries, cwd)
    given |= from_env
    given |= from_flags(overrides, SCHEMA, env, cwd)
    config = _build(given, env, cwd, notices)
    check(config)
    return config


def load_here(argv_overrides: Mapping[str, str]) -> Config:
    """`load` with this process's environment and working folder."""
    return load(argv_overrides, os.environ, Path.cwd())


def describe(config: Config) -> Iterator[Shown]:
    """Yield every setting with its value (secrets as stars), its source and its help."""
    for name, setting in settings_of(Config).items():
        yield _shown((name,), setting, getattr(config, name), config)
    for section, struct in SCHEMA.sections.items():
        values = operator.attrgetter(section)(config)
        for name, setting in settings_of(struct).items():
            yield _shown((*section.split("."), name), setting, getattr(values, name), config)
    for table, struct in SCHEMA.tables.items():
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


def client_here() -> ClientSettings:
    """`client_settings` with this process's environment and working folder."""
    return client_settings(os.environ, Path.cwd())


def _build(given: Mapping[Key, Given], env: Mapping[str, str], cwd: Path, notices: tuple[str, ...]) -> Config:
    """Return the checked values as Structs."""
    top: dict[str, Any] = {"data_dir": _platform_dir("data", env, cwd), "cache_dir": _platform_dir("cache", env, cwd)}
    sections: dict[str, dict[str, Any]] = {name: {} for name in SCHEMA.sections}
    tables: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in SCHEMA.tables}
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
        (sections[outer] if outer else top)[inner] = SCHEMA.sections[name](**sections[name])
    for table, entries in tables.items():
        top[table] = {name: SCHEMA.tables[table](**fields) for name, fields in entries.items()}
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
