"""What is wrong with settings that are each valid, but not together. Pure; `config.py` calls it last of all.

What can be seen within one section is checked where the section is declared.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from convene.config_agents import agent_fault
from convene.config_books import plans_of
from convene.config_edge import is_loopback
from convene.config_egress import fault_of
from convene.config_images import IMAGE_SCRIPTS
from convene.config_mcp import mcp_fault
from convene.config_models import BUILT_IN_UPSTREAMS
from convene.config_search import search_faults
from convene.config_sources import spell
from convene.config_values import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection

    from convene.config import Config
    from convene.config_images import Images
    from convene.config_mcp import Mcp
    from convene.config_models import Model, Upstream
    from convene.config_sources import Key
    from convene.config_values import Secret


def check(config: Config) -> None:
    """Raise `ConfigError` for the first that is wrong; it names the key and where the value was given."""
    if config.auth == "none" and not is_loopback(config.host):
        message = f'= "none" needs a loopback host, not {config.host}; use auth = "keys" to be reachable from elsewhere'
        raise _fault(config, ("auth",), message)
    plans = plans_of(config.plans)
    _check_name(config, ("default_plan",), config.default_plan, plans)
    for setting in ("plan", "together"):
        _check_name(config, ("agents", "answering", setting), getattr(config.agents.answering, setting), plans)
    if config.public_url and not _is_web_root(config.public_url):
        raise _fault(config, ("public_url",), "must be an absolute http:// or https:// address")
    for name, upstream in config.upstreams.items():
        _check_upstream(config, name, upstream)
    _check_egress(config)
    _check_search(config)
    for name, server in config.mcp.items():
        _check_mcp(config, name, server)
    _check_agents(config)
    known = {*config.upstreams, *BUILT_IN_UPSTREAMS}
    for name, model in config.models.items():
        for wanted in model.upstream:
            _check_name(config, ("models", name, "upstream"), wanted, known)
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
        if wanted := getattr(model, setting):
            _check_name(config, (table, name, setting), wanted, plans_of(config.plans))
    if model.price:
        _check_name(config, (table, name, "price"), model.price, config.prices)


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
        if url:
            _check_root(config, ("search", name, "base_url"), url)
        _check_proxy(config, ("search", name), getattr(search, name).proxy)
    proxy = search.metasearch.proxy.reveal()
    if proxy and not re.fullmatch(r"(https?|socks5h?)://[^\s\\]+", proxy):
        raise _fault(config, ("search", "metasearch", "proxy"), "must be http://host:port or socks5://host:port")


def _check_mcp(config: Config, name: str, server: Mcp) -> None:
    if message := mcp_fault(name):
        raise _fault(config, ("mcp", name), message)
    _check_root(config, ("mcp", name, "url"), server.url)
    _check_proxy(config, ("mcp", name), server.proxy)


def _check_agents(config: Config) -> None:
    for name, agent in config.agent.items():
        setting, message = agent_fault(name, agent)
        if message:
            raise _fault(config, ("agent", name, setting), message)
        if agent.url:
            _check_root(config, ("agent", name, "url"), agent.url)
        if agent.price:
            _check_name(config, ("agent", name, "price"), agent.price, config.prices)


def _check_upstream(config: Config, name: str, upstream: Upstream) -> None:
    at = ("upstreams", name)
    if name in BUILT_IN_UPSTREAMS:
        raise _fault(config, at, "is the name of a built-in upstream; choose another")
    if bool(upstream.base_url) == bool(upstream.base_urls):
        raise _fault(config, at, "needs exactly one of base_url and base_urls")
    for url in upstream.urls:
        _check_root(config, (*at, "base_urls" if upstream.base_urls else "base_url"), url)
    if upstream.weights and (len(upstream.weights) != len(upstream.urls) or not sum(upstream.weights)):
        message = f"needs one number for each of base_urls ({len(upstream.urls)}), and not only zeros"
        raise _fault(config, (*at, "weights"), message)
    _check_proxy(config, at, upstream.proxy)


def _check_name(config: Config, key: Key, wanted: str, known: Collection[str]) -> None:
    """Raise `ConfigError` unless a setting names one of these."""
    if wanted not in known:
        message = f"names {wanted!r}, which is not one of: {', '.join(sorted(known)) or 'none'}"
        raise _fault(config, key, message)


def _check_root(config: Config, key: Key, url: str) -> None:
    """Raise `ConfigError` unless a setting is an address that paths can be put behind."""
    if not _is_web_root(url):
        message = f"must be absolute, http:// or https://, without user, query or #, not {_without_user(url)}"
        raise _fault(config, key, message)


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
