"""What every child process of the engine room has in common: spawned, watched, ended, started anew with back-off.

Here: states and their snapshots, the loop that obtains a file and runs a child, the pause after a failure, the drained
log. Not here: what a child is told and asked: `process` (llama.cpp's server) and `image_process` (pictures).

A child cannot outlive its parent, however that ends: it holds the reading end of a pipe and ends when the pipe does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Protocol

from convene.engine.base import EngineFault, EngineStatus, FetchStep, NotReady, StartFailed, State

if TYPE_CHECKING:
    from pathlib import Path

TAIL_LINES = 40
TAIL_LINE_CHARACTERS = 400
LINE_BYTES_MAX = 64 * 1024
DRAIN_S = 1.0
"""How long what a dead child has left in its pipes may take to be read."""
FAILURES_UNTIL_FAILED = 3
"""Deaths in a row after which the state says `failed` during the pause; before that a restart is only `loading`."""

logger = logging.getLogger(__name__)


class Patience(Protocol):
    """The times of a child; `EngineSettings` says what each means."""

    @property
    def startup_s(self) -> float:
        """From spawn to ready."""
        ...

    @property
    def stop_s(self) -> float:
        """An orderly end."""
        ...

    @property
    def backoff_first_s(self) -> float:
        """The pause before the second attempt in a row."""
        ...

    @property
    def backoff_max_s(self) -> float:
        """The longest pause."""
        ...

    @property
    def stable_s(self) -> float:
        """A life that earns a fresh back-off."""
        ...


class Supervisor(ABC):
    """Keeps one child running for as long as it is wanted.

    Args:
        name: the model's name, for messages.
        patience: how long to wait for what.
    """

    def __init__(self, name: str, patience: Patience) -> None:
        self._name = name
        self._patience = patience
        self._status = EngineStatus(state="absent", detail="not started")
        self._fault: EngineFault | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._kicked = asyncio.Event()
        self._restart_reason = ""
        self._restarts = 0
        self._logged = ""
        self._closed = False

    @property
    def name(self) -> str:
        """The model's name."""
        return self._name

    @property
    def changed(self) -> asyncio.Event:
        """Set when the status is another than now; each change has its own."""
        return self._changed

    def status(self) -> EngineStatus:
        """Give a snapshot."""
        return self._status

    def start(self) -> None:
        """Begin in the background; needs a running loop."""
        if self._task is None and not self._closed:
            self._show("loading", "looking for the model file")
            self._task = asyncio.get_running_loop().create_task(self._supervise(), name=f"engine {self.name}")

    async def restart(self, reason: str) -> None:
        """Kill the child and start it anew; see `LocalEngine.restart`."""
        self._kicked.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._restart_reason = reason
        self._withdraw()
        self._show("loading", f"restarting: {reason}")
        kill(process)
        await process.wait()

    async def aclose(self) -> None:
        """End the child and the background task."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            # Not `await task`: a caller that is itself cancelled must not cut the orderly end short.
            await asyncio.wait([self._task])
        self._show("absent", "stopped")

    @abstractmethod
    async def _run(self) -> None:
        """Obtain the file, run one child to its end and raise the `EngineFault` that says why it ended."""

    @abstractmethod
    def _withdraw(self) -> None:
        """Offer the present child to nobody any more."""

    async def _hand_over(self, order: bytes) -> bytes:
        """Write the child its order and return its first line, which is empty if it ended without one.

        Raises:
            StartFailed: if nothing came in time.
        """
        process, startup_s = self._process, self._patience.startup_s
        if process is None or process.stdin is None or process.stdout is None:
            return b""
        try:
            async with asyncio.timeout(startup_s):
                # A child that died at once is explained by its log, not by our broken pipe.
                with contextlib.suppress(ConnectionError):
                    process.stdin.write(order)
                    await process.stdin.drain()
                return await process.stdout.readline()
        except TimeoutError:
            raise StartFailed(
                f"The model '{self.name}' was not loaded within {startup_s:g} s. Use a smaller model, "
                "or allow it more time.",
            ) from None

    def _died(self, words: str) -> NotReady:
        """Count the end of a child that had served, and return what is said of it."""
        self._restarts += 1
        return NotReady(
            f"The engine of model '{self.name}' ended unexpectedly and is being restarted; try again in a moment.",
            detail=words,
        )

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began_s = loop.time()
            self._fault = await self._serve_once()
            if self._restart_reason:
                self._restart_reason = ""
                failures = 0
                continue
            failures = 1 if loop.time() - began_s >= self._patience.stable_s else failures + 1
            await self._pause(self._fault, failures)

    async def _pause(self, fault: EngineFault, failures: int) -> None:
        if fault.message != self._logged:
            # Once for each cause: a file that stays missing is looked for every half minute.
            self._logged = fault.message
            logger.warning("engine %s: %s %s", self.name, fault.message, fault.detail)
        died_serving = isinstance(fault, NotReady)
        self._kicked.clear()
        if died_serving and failures < FAILURES_UNTIL_FAILED:
            self._show("loading", fault.message)
        else:
            self._show("failed", fault.message)
        # The exponent is capped because a float's is too.
        growing_s = self._patience.backoff_first_s * 2 ** min(failures - 1, 30)
        pause_s = max(fault.pause_s, min(growing_s, self._patience.backoff_max_s)) if fault.retryable else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._kicked.wait()
        if self._status.state == "failed":
            self._show("loading", "trying again")

    async def _serve_once(self) -> EngineFault:
        try:
            await self._run()
        except EngineFault as fault:
            return fault
        except Exception as error:  # noqa: BLE001 - a supervisor that dies of a bug would say "loading" for ever
            return self._unexpected(repr(error))
        return self._unexpected("a child's life ended without a word")

    def _unexpected(self, detail: str) -> StartFailed:
        message = f"The engine of model '{self.name}' failed unexpectedly and will try again; the log has the cause."
        return StartFailed(message, detail=detail)

    async def _spawn(self, path: Path, python: str = sys.executable) -> asyncio.Task[None]:
        """Start the child whose program is `path`, as `_process`; return the task that drains its log into `_tail`."""
        self._tail.clear()
        try:
            process = await asyncio.create_subprocess_exec(
                python,
                "-P",  # keep our folder off its import path: it would find our modules as top-level ones
                str(path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LINE_BYTES_MAX,
            )
        except OSError as error:
            raise StartFailed(
                f"The engine of model '{self.name}' could not be started: the system refused a new process.",
                detail=repr(error),
            ) from error
        self._process = process
        return asyncio.create_task(_drain(process.stderr, self._tail), name=f"engine {self.name} stderr")

    async def _end(self, drain: asyncio.Task[None]) -> None:
        """End the child in order, then by force; leave neither process nor task nor pipe behind."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        # What nobody reads keeps the pipe open, and a process counts as ended when its pipes have.
        rest = asyncio.create_task(_drain(process.stdout, deque(maxlen=1)), name=f"engine {self.name} stdout")
        try:
            async with asyncio.timeout(self._patience.stop_s if self._status.state == "ready" else 0.5):
                await process.wait()
        except TimeoutError:
            kill(process)
            await process.wait()
        finally:
            # Its end closes stderr; only a stranger that inherited the pipe could hold it longer.
            await asyncio.wait([drain, rest], timeout=DRAIN_S)
            drain.cancel()
            rest.cancel()

    def _last_words(self) -> str:
        code = self._process.returncode if self._process is not None else None
        return f"exit code {code}; " + " | ".join(self._tail)

    async def _wait_settled(self, timeout_s: float | None) -> None:
        """Wait while it is fetching or loading; raise `NotReady` after `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._task is not None and self._status.state in {"fetching", "loading"}:
                    await self._changed.wait()
        except TimeoutError:
            raise self._say_not_ready() from None

    def _say_why_not(self) -> EngineFault:
        """Return why there is no child to be asked."""
        if self._fault is not None and self._status.state == "failed":
            # A new instance each time: a raised exception collects tracebacks of everyone who met it.
            return type(self._fault)(self._fault.message, detail=self._fault.detail)
        return self._say_not_ready()

    def _say_not_ready(self) -> NotReady:
        if self._closed:
            return NotReady(f"The engine of model '{self.name}' is stopped.")
        status = self._status
        words = {"fetching": "is still being downloaded", "loading": "is still loading"}.get(
            status.state, "is not started"
        )
        if status.state == "fetching" and status.total_bytes:
            words += f" ({status.completed_bytes * 100 // status.total_bytes} %)"
        return NotReady(f"The model '{self.name}' {words}; try again in a moment.", detail=status.detail)

    def _report(self, step: FetchStep) -> None:
        self._show("fetching", step.status, completed=step.completed, total=step.total)

    def _show(self, state: State, detail: str, *, completed: int = 0, total: int = 0) -> None:
        process = self._process
        alive = process is not None and process.returncode is None
        self._status = EngineStatus(
            state=state,
            detail=detail,
            completed_bytes=completed,
            total_bytes=total,
            restarts=self._restarts,
            pid=process.pid if process is not None and alive else 0,
        )
        self._changed.set()
        self._changed = asyncio.Event()


def was_killed(process: asyncio.subprocess.Process | None) -> bool:
    """Tell whether a child was ended by SIGKILL: when it was not us, most likely the system, for lack of memory."""
    return process is not None and process.returncode == -signal.SIGKILL


def kill(process: asyncio.subprocess.Process) -> None:
    """End a child at once."""
    with contextlib.suppress(ProcessLookupError):  # it ended just now
        process.kill()


async def _drain(stream: asyncio.StreamReader | None, tail: deque[str]) -> None:
    """Read the log to its end, keeping the last lines; unread, it would fill the pipe and stop the child."""
    while stream is not None:
        try:
            line = await stream.readline()
        except ValueError:  # a line longer than the limit; the reader has dropped it
            continue
        if not line:
            return
        tail.append(line.decode("utf-8", "replace").strip()[:TAIL_LINE_CHARACTERS])
