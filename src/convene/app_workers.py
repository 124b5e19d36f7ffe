"""`convene serve --workers N`: the supervisor of N worker processes that share a port, a data folder and one engine.

    this process                          each worker (app_worker.py)
      holds the port                        a socket of its own on that port (http/server_bind.py)
      makes the first key, says where       the application
      runs the engine's children            sees them through RemoteEngine
      starts a worker that died anew        drains when told to

They speak over a pipe each (`app_channel.py`). If this process is killed, the pipes end: workers and engines go at
once. Not here: what a worker serves. Decision record: docs/decisions/0015-workers.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING, Final

import msgspec
import uvloop

from convene import logs
from convene.app import First, prepare_store
from convene.app_channel import Channel, Close, Go, Listening, Order, Quiet, Restarted, RestartEngine, Seen, Stop, Up
from convene.app_models import Deployments, embedded_engine
from convene.app_serve import announce, narrate, refuse_port, say
from convene.clock import SystemClock
from convene.config import secrets_of
from convene.config_handover import seal
from convene.errors import Unavailable
from convene.http.server_bind import claim, port_of, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.config import Config
    from convene.engine.base import EngineSettings, Mode
    from convene.engine.process import Engine

BACKOFF_FIRST_S: Final = 0.25
BACKOFF_MAX_S: Final = 30.0
STABLE_S: Final = 60.0
"""A worker that lived this long has earned a fresh back-off."""
FAILURES_MAX: Final = 3
"""Deaths in a row after which a server of which no worker was ever ready is given up; else a crash loop is said."""
GRACE_BEYOND_S: Final = 10.0
"""What a worker may take beyond the grace of running answers: to cancel what is left, settle it and close the store."""
PROGRESS_S: Final = 0.2
"""How often workers are told of a download's progress."""

log = logging.getLogger("convene.workers")


def serve_workers(config: Config) -> int:
    """Serve with `config.workers` processes until a signal; return the exit code.

    Raises:
        ConveneError: the store or the port cannot be had, or no worker ever came up.
    """
    with tempfile.TemporaryFile() as lock, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        output = logs.Output(lock.fileno())
        logs.install(config.log_level, secrets_of(config), output)
        for notice in config.notices:
            say(notice)
        runner.run(Supervisor(config, lock.fileno()).run())
    return 0


class Supervisor:
    """The workers and what they share."""

    def __init__(self, config: Config, lock: int) -> None:
        """`lock`: the descriptor that orders the lines of all processes (`logs.Output`)."""
        self._config = config
        self._lock = lock
        self._clock = SystemClock()
        self._engines: dict[Mode, Engine] = {}
        self.deployments = Deployments(config, self._clock, make_engine=self._own)
        self.first = First()
        self._claimed: list[socket.socket] = []
        self._workers = [_Worker(index) for index in range(config.workers)]
        self._stopping = asyncio.Event()
        self._given_up: str | None = None
        self._announced = False
        self._narrator: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until a signal. Raises as `serve_workers` does."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            self._claimed = await claim(loop, self._config.host, self._config.port)
        except OSError as fault:
            raise refuse_port(self._config, fault) from fault
        try:
            self.first = await prepare_store(self._config, self._clock)
            self.deployments.start()
            kept = [asyncio.create_task(self._keep(worker), name=str(worker)) for worker in self._workers]
            asked = asyncio.create_task(self._stopping.wait(), name="stop")
            # A worker's task that ends by itself has given up, or has met a bug that must not pass for serving.
            await asyncio.wait([asked, *kept], return_when=asyncio.FIRST_COMPLETED)
            await self._end(kept)
            await asked
        finally:
            if self._narrator is not None:
                self._narrator.cancel()
            await self.deployments.aclose()
            for claimed in self._claimed:
                claimed.close()
        if self._given_up is not None:
            raise Unavailable(f"No worker came up: {self._given_up}. The lines before this one say why.")

    def _own(self, name: str, mode: Mode, settings: EngineSettings) -> Engine:
        engine = embedded_engine(self._config, self._clock, name, mode, settings)
        self._engines[mode] = engine
        return engine

    def _stop(self) -> None:
        """Let all workers drain; asked again, end their patience."""
        hurry = self._stopping.is_set()
        self._stopping.set()
        for worker in self._workers:
            worker.send(Stop(hurry=hurry))

    def _close(self, quiet: _Worker) -> None:
        """Let a worker end that has nothing to finish; when all end, only together."""
        if not self._stopping.is_set():
            quiet.send(Close())
        elif all(worker.quiet for worker in self._workers if worker.pid):
            for worker in self._workers:
                worker.send(Close())

    async def _end(self, kept: Sequence[asyncio.Task[None]]) -> None:
        """Wait for the workers to drain, then kill what is left."""
        if not self._stopping.is_set():
            self._stop()
        await asyncio.wait(kept, timeout=self._config.edge.grace_s + GRACE_BEYOND_S)
        for worker in self._workers:
            if worker.kill():
                log.error("%s did not end in time and was killed", worker)
        await asyncio.gather(*kept)

    async def _keep(self, worker: _Worker) -> None:
        """Run one worker for as long as the server is wanted, again and again."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping.is_set():
            began_s = loop.time()
            ended = await self._run_once(worker)
            if self._stopping.is_set():
                return
            failures = 1 if loop.time() - began_s >= STABLE_S else failures + 1
            if failures >= FAILURES_MAX and not self._announced:
                self._given_up = f"{worker} {ended}, {failures} times in a row"
                self._stop()
                return
            pause_s = min(BACKOFF_FIRST_S * 2 ** min(failures - 1, 30), BACKOFF_MAX_S)
            in_a_row = f", {failures} times in a row" if failures >= FAILURES_MAX else ""
            log.error("%s %s%s; it is started anew in %g s", worker, ended, in_a_row, pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()

    async def _run_once(self, worker: _Worker) -> str:
        """Run one process to its end; say how it ended."""
        mine, theirs = socket.socketpair()
        listeners: list[socket.socket] = []
        try:
            listeners = share(self._claimed)
            descriptors = [listener.fileno() for listener in listeners]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # what lies in the working folder is not ours to import
                "-m",
                "convene.app_worker",
                stdin=theirs.fileno(),
                pass_fds=(*descriptors, self._lock),
            )
        except OSError as fault:
            mine.close()
            return f"could not be started ({fault.strerror})"
        finally:
            # A copy that stays here would queue connections that nobody takes once the worker is dead.
            for opened in (theirs, *listeners):
                opened.close()
        channel = await Channel.open(mine)
        worker.begin(process, channel)
        views = {mode: engine.view() for mode, engine in self._engines.items()}
        settings = msgspec.Raw(seal(self._config))
        channel.send(Order(worker.index, len(self._workers), settings, tuple(descriptors), self._lock, views))
        if self._stopping.is_set():
            channel.send(Stop())
        telling = [asyncio.create_task(self._tell(channel, engine)) for engine in self._engines.values()]
        try:
            await self._listen(worker, channel)
            await process.wait()
        finally:
            for task in telling:
                task.cancel()
            worker.end()
            self._close(worker)
        return _describe_end(process.returncode or 0, process.pid)

    async def _listen(self, worker: _Worker, channel: Channel) -> None:
        """Do what a worker asks for until it is gone."""
        while (message := await channel.hear_worker()) is not None:
            match message:
                case Up():
                    self._greet()
                    channel.send(Go())
                case Listening():
                    log.info("%s serves (process %d)", worker, worker.pid)
                case Quiet():
                    worker.quiet = True
                    self._close(worker)
                case RestartEngine():
                    worker.keep(asyncio.create_task(self._restart(channel, message)))

    def _greet(self) -> None:
        """Tell where the server is, once: when the first worker is up, before it listens."""
        if self._announced or self._stopping.is_set():
            return
        self._announced = True
        announce(self, self._config, port_of(self._claimed))
        if self._engines:
            self._narrator = asyncio.create_task(narrate(self.deployments.engines), name="narrator")

    async def _tell(self, channel: Channel, engine: Engine) -> None:
        """Tell a worker whenever an engine stands otherwise."""
        with contextlib.suppress(OSError):
            while True:
                # Taken before the view, so that no change falls in between.
                changed = engine.changed
                channel.send(Seen(engine.mode, engine.view()))
                await channel.drain()
                await changed.wait()
                if engine.status().state == "fetching":
                    await asyncio.sleep(PROGRESS_S)

    async def _restart(self, channel: Channel, asked: RestartEngine) -> None:
        engine = self._engines[asked.mode]
        await engine.restart(asked.reason)
        channel.send(Seen(engine.mode, engine.view()))
        channel.send(Restarted(asked.mode))


class _Worker:
    """One place among the workers and the process that fills it now."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.quiet = False
        """It drains and has nothing to finish."""
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._kept: set[asyncio.Task[None]] = set()

    def __str__(self) -> str:
        return f"worker {self.index}"

    @property
    def pid(self) -> int:
        """The process, 0 for none."""
        return self._process.pid if self._process is not None else 0

    def begin(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        """Be filled by this process."""
        self._process, self._channel, self.quiet = process, channel, False

    def send(self, message: Stop | Close) -> None:
        """Say something to the process, if there is one."""
        if self._channel is not None:
            self._channel.send(message)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to what is done for the process."""
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    def kill(self) -> bool:
        """Kill the process; return whether there was one."""
        process = self._process
        if process is None or process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            process.kill()
        return True

    def end(self) -> None:
        """Be empty."""
        for task in self._kept:
            task.cancel()
        if self._channel is not None:
            self._channel.close()
        self.kill()
        self._process = self._channel = None


def _describe_end(code: int, pid: int) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"(process {pid}) {how}"
