"""One worker of several: started as `python -m convene.app_worker` by the supervisor (`app_workers.py`) alone.

Its standard input is the pipe to the supervisor (`app_channel.py`), over which it gets its settings and the sockets to
listen on. It drains when it is told to, or on SIGTERM, and then refuses requests until no worker has anything left to
finish: the kernel deals new connections out to all of them, and those of one that has closed would be cut. Ctrl-C
reaches the whole terminal group and is left to the supervisor. When the supervisor is gone, however it went, it ends at
once: nobody would start it anew, and a new supervisor wants the port.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

import msgspec
import uvloop

from convene import logs
from convene.app import App, Worker
from convene.app_channel import Channel, Close, Go, Listening, Order, Quiet, Restarted, RestartEngine, Seen, Stop, Up
from convene.clock import SystemClock
from convene.config import secrets_of
from convene.config_handover import unseal
from convene.engine.remote import RemoteEngine
from convene.errors import ConveneError
from convene.http.server import Server, serve
from convene.http.server_settings import ServerSettings

if TYPE_CHECKING:
    from convene.config import Config
    from convene.engine.base import EngineSettings, Mode

CHANNEL_FD: Final = 0
EXIT_ORPHAN: Final = 3
"""The exit code of a worker whose supervisor is gone; there is nobody to read it but a person with a debugger."""


class WorkerApp(App):
    """The application of a worker: started, it waits until it may listen."""

    def __init__(self, config: Config, order: Order, output: logs.Output, link: Link) -> None:
        super().__init__(
            config,
            SystemClock(),
            output.write,
            make_engine=link.borrow,
            worker=Worker(index=order.index, count=order.count),
        )
        self._link = link

    async def start(self) -> None:
        """Start, say so and wait for the word to serve: the operator is told where the server is before it answers.

        Connections are let in before that, to wait: whoever reads where the server is must not be turned away.
        """
        await super().start()
        for listener in self._link.listeners:
            listener.listen(ServerSettings().backlog)
        self._link.channel.send(Up())
        await self._link.go.wait()


class Link:
    """The worker's side of the pipe: what the supervisor says, done."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.server: Server | None = None
        self.listeners: list[socket.socket] = []
        self._engines: dict[Mode, RemoteEngine] = {}

    def borrow(self, name: str, mode: Mode, settings: EngineSettings) -> RemoteEngine:
        """Return what stands for the supervisor's engine of this mode."""
        engine = RemoteEngine(name, mode, settings, lambda reason: self.channel.send(RestartEngine(mode, reason)))
        self._engines[mode] = engine
        return engine

    def see(self, message: Seen) -> None:
        """Take how an engine stands."""
        engine = self._engines.get(message.mode)
        if engine is not None:
            engine.see(message.view)

    async def obey(self) -> None:
        """Do what the supervisor says until it is gone; then end the process."""
        while True:
            message = await self.channel.hear_supervisor()
            match message:
                case Go():
                    self.go.set()
                case Seen():
                    self.see(message)
                case Restarted():
                    self._engines[message.mode].restarted()
                case Stop():
                    self._stop(hurry=message.hurry)
                case Close():
                    self._close()
                case _:
                    # Not sys.exit: whatever still runs here is for clients whose server is to be gone.
                    os._exit(EXIT_ORPHAN)

    def _stop(self, *, hurry: bool) -> None:
        self.asked.set()
        self.go.set()
        if hurry and self.server is not None:
            self.server.hurry()

    def _close(self) -> None:
        if self.server is not None:
            self.server.release()


async def work() -> int:
    """Be the worker that the order describes until told to stop; return the exit code."""
    channel = await Channel.open(socket.socket(fileno=CHANNEL_FD))
    order = await channel.hear_supervisor()
    if not isinstance(order, Order):
        return EXIT_ORPHAN
    config = unseal(bytes(order.settings))
    output = logs.Output(order.lock)
    logs.install(config.log_level, secrets_of(config), output)
    link = Link(channel)
    app = WorkerApp(config, order, output, link)
    for mode, view in order.views.items():
        link.see(Seen(mode, view))
    clock = SystemClock()
    server = Server(
        app.front.__call__,  # as in `app_serve.py`
        msgspec.convert(config.edge, ServerSettings, from_attributes=True),
        new_id=lambda: clock.stamped_id("req_"),
        wall_now=clock.now,
        on_drain=app.drain,
        on_quiet=lambda: channel.send(Quiet()),
    )
    link.server = server
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, link.asked.set)
    obeying = asyncio.create_task(link.obey(), name="supervisor's word")
    try:
        link.listeners = [socket.socket(fileno=number) for number in order.listeners]

        def listen(server: Server) -> None:
            app.listen_at(server.port)
            channel.send(Listening())

        await serve(server, link.asked, sockets=link.listeners, on_ready=listen)
    finally:
        obeying.cancel()
        channel.close()
    return 0


def main() -> int:
    """Run one worker. What stops it at the start is one line on standard error, not a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work())
    except ConveneError as error:
        sys.stderr.write(f"convene worker: {error.message}" + (f" ({error.detail})\n" if error.detail else "\n"))
        return 1


if __name__ == "__main__":
    sys.exit(main())
