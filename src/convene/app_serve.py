"""A configuration served until a signal: the log, the edge, what the operator is told at the start.

The key and the line to paste go to standard output, everything else to standard error. `cli.py` calls `serve`;
with several workers `app_workers.py` tells the same in its place.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

import convene
from convene import logs
from convene.app import App, First
from convene.app_models import TINY, TINY_NOTE
from convene.clock import SystemClock
from convene.config import secrets_of
from convene.errors import Unavailable
from convene.http.server import run
from convene.http.server_settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.app_models import Deployments
    from convene.config import Config
    from convene.engine.base import EngineStatus
    from convene.http.server import Server
    from convene.serving.admission import Admission

LOOK_S: Final = 0.5
"""How often the engines are looked at while they load."""
MB: Final = 1_000_000
PERCENT_STEP: Final = 10
"""Where the output is no terminal, a download says so often how far it is."""


class Announced(Protocol):
    """What there is to tell at the start: an application, or the supervisor of several processes with one each."""

    @property
    def deployments(self) -> Deployments:
        """The models."""
        ...

    @property
    def first(self) -> First:
        """What this start has made, if it was the first."""
        ...


def serve(config: Config, admission: Admission | None = None) -> int:
    """Serve until a signal; return the exit code. Raises `ConveneError` for a store or a port that cannot be had.

    `admission` stands in for limits and ledger, so that a benchmark can measure what they cost.
    """
    logs.install(config.log_level, secrets_of(config))
    clock = SystemClock()
    app = App(config, clock, _write_line, admission=admission)
    for notice in config.notices:
        say(notice)
    edge = config.edge
    settings = msgspec.convert(edge, ServerSettings, from_attributes=True)
    try:
        return run(
            app.front.__call__,  # called for every request, in a quarter of the time that the object would take
            settings,
            host=config.host,
            port=config.port,
            new_id=lambda: clock.stamped_id("req_"),
            wall_now=clock.now,
            on_drain=app.drain,
            on_ready=lambda server: _greet(app, config, server),
        )
    except OSError as fault:
        raise refuse_port(config, fault) from fault


def refuse_port(config: Config, fault: OSError) -> Unavailable:
    """Return what to say of a port that cannot be had."""
    return Unavailable(
        f"Cannot listen on {config.host}:{config.port}: {fault.strerror}. Choose another port with --port or PORT."
    )


def _greet(app: App, config: Config, server: Server) -> None:
    app.listen_at(server.port)
    announce(app, config, server.port)
    rising: list[Rising] = [*app.deployments.engines, *app.deployments.studios]
    if rising:
        app.keep(asyncio.get_running_loop().create_task(narrate(rising), name="narrator"))


class Rising(Protocol):
    """A model of this machine on its way up."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def status(self) -> EngineStatus:
        """Return how it stands."""
        ...


async def narrate(engines: Sequence[Rising]) -> None:
    """Tell how the models of this machine come up, download progress included, until each is ready or has failed."""
    said: dict[str, str] = {}
    on_terminal = sys.stderr.isatty()
    while True:
        for engine in engines:
            line = _progress(engine.name, engine.status(), fine=on_terminal)
            if said.get(engine.name) != line:
                said[engine.name] = line
                fetching = on_terminal and engine.status().state == "fetching"
                sys.stderr.write(f"\r\x1b[K{line}" if fetching else f"\r\x1b[K{line}\n" if on_terminal else f"{line}\n")
                sys.stderr.flush()
        if all(engine.status().state in {"ready", "failed"} for engine in engines):
            return
        await asyncio.sleep(LOOK_S)


def _progress(name: str, status: EngineStatus, *, fine: bool) -> str:
    if status.state == "ready":
        return f"{name}: ready"
    if status.state == "fetching" and status.total_bytes:
        percent = 100 * status.completed_bytes // status.total_bytes
        shown = percent if fine else percent // PERCENT_STEP * PERCENT_STEP
        return f"{name}: fetching {status.total_bytes // MB} MB, {shown} %"
    return f"{name}: {status.state}" + (f" ({status.detail})" if status.detail else "")


def announce(app: Announced, config: Config, port: int) -> None:
    """Say where the server is and, the first time, print the key inside a line to paste."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    base = f"http://{'127.0.0.1' if host in {'0.0.0.0', '[::]'} else host}:{port}"  # noqa: S104 - only compared
    say(f"Convene {convene.__version__} listens on {base}; documentation at {base}/docs")
    if config.engine.enabled and config.engine.model == TINY:
        say(f"The embedded model is {TINY_NOTE}")
    if config.auth == "none":
        say('auth = "none": everybody on this machine may use it without a key.')
    key = app.first.key or "YOUR_KEY" if config.auth == "keys" else "none-needed"
    _tell_first_link(app, config, base)
    if app.first.key is not None:
        say("A first key was made; it is shown only now. Paste this to try it:")
    elif config.auth == "keys":
        say("`convene keys create NAME` makes a key. Then:")
    chats = [deployment.card.id for deployment in app.deployments.all if deployment.chat is not None]
    if not chats:
        say("No chat model is configured: add [models.NAME] with an upstream, or set engine.enabled = true.")
    model = "asi1" if "asi1" in chats or not chats else chats[0]
    sys.stdout.write(
        f"curl {base}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' "
        f"""-d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What are you capable of?"}}]}}'\n"""
    )
    sys.stdout.flush()


def _tell_first_link(app: Announced, config: Config, base: str) -> None:
    """Tell the way to become the first admin, to standard error: standard output is the line to paste."""
    if app.first.link is not None:
        say(
            "There is no admin yet. Whoever opens this link first becomes it; it works once, for a week:\n"
            f"{(config.public_url or base).rstrip('/')}/signup?link={app.first.link}"
        )


def say(text: str) -> None:
    """Tell the operator."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _write_line(line: bytes) -> None:
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()
