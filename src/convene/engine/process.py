"""The supervisor: keeps one model served by one child process for as long as it is wanted.

Here: spawn, wait for the ready line, notice death, restart with back-off, end in order. Not here: what the child does
(`child`), where its file comes from (a `Weights`, see `files`), and what is asked of it: `providers/local` speaks HTTP
to the address given here. Made by `app.py`, one per model and mode.

A child cannot outlive its parent, however that ends: it holds the reading end of a pipe and ends when the pipe does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from convene.engine.base import (
    ChildAddress,
    EngineFault,
    EngineSettings,
    EngineStatus,
    EngineView,
    FetchStep,
    Mode,
    NotReady,
    StartFailed,
    State,
    Weights,
)
from convene.engine.threads import choose_thread_count

if TYPE_CHECKING:
    from collections.abc import Callable

CHILD_PATH = Path(__file__).with_name("child.py")
KEY_BYTES = 24
TAIL_LINES = 40
TAIL_LINE_CHARACTERS = 400
EXIT_NO_ENGINE = 3
"""The child's exit code when its engine cannot be imported (`child.EXIT_NO_ENGINE`)."""

LINE_BYTES_MAX = 64 * 1024
FAILURES_UNTIL_FAILED = 3
"""Deaths in a row after which the state says `failed` during the pause; before that a restart is only `loading`."""

logger = logging.getLogger(__name__)


class _Ready(msgspec.Struct):
    """The child's one line."""

    port: int
    pid: int


class Engine:
    """A `LocalEngine`: one model in one mode.

    Args:
        weights: where the model file comes from; its name becomes the engine's name.
        mode: chat completions or embeddings.
        settings: how the child runs.
        token: random bytes, for the API key that every child gets anew.
    """

    def __init__(
        self, weights: Weights, mode: Mode, settings: EngineSettings, *, token: Callable[[int], bytes]
    ) -> None:
        self._weights = weights
        self._mode = mode
        self._settings = settings
        self._token = token
        self._status = EngineStatus(state="absent", detail="not started")
        self._fault: EngineFault | None = None
        self._address: ChildAddress | None = None
        self._process: asyncio.subprocess.Process | None = None
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
        return self._weights.name

    @property
    def mode(self) -> Mode:
        """What it answers."""
        return self._mode

    @property
    def settings(self) -> EngineSettings:
        """The settings it runs with."""
        return self._settings

    def status(self) -> EngineStatus:
        """Give a snapshot."""
        return self._status

    def view(self) -> EngineView:
        """Give what another process must know to use it; see `remote.RemoteEngine`."""
        fault = self._fault
        return EngineView(
            status=self._status,
            address=self._address,
            fault=fault.message if fault is not None else None,
            fault_detail=fault.detail if fault is not None else "",
            fault_retryable=fault is None or fault.retryable,
        )

    @property
    def changed(self) -> asyncio.Event:
        """Set when status or address are others than now; each change has its own."""
        return self._changed

    def start(self) -> None:
        """Begin in the background; needs a running loop."""
        if self._task is None and not self._closed:
            self._show("loading", "looking for the model file")
            self._task = asyncio.get_running_loop().create_task(self._supervise(), name=f"engine {self.name}")

    async def wait_ready(self, timeout_s: float | None = None) -> ChildAddress:
        """Wait until it serves; see `LocalEngine.wait_ready`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._task is not None and self._status.state in {"fetching", "loading"}:
                    await self._changed.wait()
        except TimeoutError:
            raise self._say_not_ready() from None
        return self.address()

    def address(self) -> ChildAddress:
        """Give the present child's address; see `LocalEngine.address`."""
        if self._address is not None:
            return self._address
        if self._fault is not None and self._status.state == "failed":
            # A new instance each time: a raised exception collects tracebacks of everyone who met it.
            raise type(self._fault)(self._fault.message, detail=self._fault.detail)
        raise self._say_not_ready()

    async def restart(self, reason: str) -> None:
        """Kill the child and start it anew; see `LocalEngine.restart`."""
        self._kicked.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._restart_reason = reason
        self._address = None
        self._show("loading", f"restarting: {reason}")
        _kill(process)
        await process.wait()

    async def aclose(self) -> None:
        """End the child and the background task."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            # Not `await task`: a caller that is itself cancelled must not cut the orderly end short.
            await asyncio.wait([self._task])
        self._show("absent", "stopped")

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
            failures = 1 if loop.time() - began_s >= self._settings.stable_s else failures + 1
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
        growing_s = self._settings.backoff_first_s * 2 ** min(failures - 1, 30)
        pause_s = max(fault.pause_s, min(growing_s, self._settings.backoff_max_s)) if fault.retryable else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._kicked.wait()
        if self._status.state == "failed":
            self._show("loading", "trying again")

    async def _serve_once(self) -> EngineFault:
        """Obtain the file, run one child to its end; say why it ended."""
        try:
            await self._run_child(await self._weights.obtain(self._report))
        except EngineFault as fault:
            return fault
        except Exception as error:  # noqa: BLE001 - a supervisor that dies of a bug would say "loading" for ever
            return StartFailed(
                f"The engine of model '{self.name}' failed unexpectedly and will try again; the log has the cause.",
                detail=repr(error),
            )

    async def _run_child(self, model: Path) -> NoReturn:
        """Run one child to its end; raise `StartFailed` or, if it had served, `NotReady`."""
        self._show("loading", "loading the model")
        api_key = self._token(KEY_BYTES).hex()
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # keep our folder off its import path: it would find our modules as top-level ones
                str(CHILD_PATH),
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
        drain = asyncio.create_task(_drain(process.stderr, tail), name=f"engine {self.name} stderr")
        try:
            order = build_order(model, self.name, self._mode, self._settings, api_key)
            ready = await self._greet(process, order)
            if ready is not None:
                self._address = ChildAddress(f"http://127.0.0.1:{ready.port}", api_key)
                self._logged = ""
                self._show("ready", "")
                await process.wait()
        finally:
            self._address = None
            await self._end(process, drain)
            self._process = None
        if ready is None:
            raise self._explain_start(process, tail)
        self._restarts += 1
        raise self._explain_death(process, tail)

    async def _greet(self, process: asyncio.subprocess.Process, order: bytes) -> _Ready | None:
        """Hand over the order and read the one line; `None` if the child ended without it.

        Raises:
            StartFailed: if nothing came in time.
        """
        if process.stdin is None or process.stdout is None:
            return None
        try:
            async with asyncio.timeout(self._settings.startup_s):
                # A child that died at once is explained by its log, not by our broken pipe.
                with contextlib.suppress(ConnectionError):
                    process.stdin.write(order)
                    await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            raise StartFailed(
                f"The model '{self.name}' was not loaded within {self._settings.startup_s:g} s. Use a smaller model, "
                "or allow it more time.",
            ) from None
        return msgspec.json.decode(line, type=_Ready) if line else None

    async def _end(self, process: asyncio.subprocess.Process, drain: asyncio.Task[None]) -> None:
        """End the child in order, then by force; leave neither process nor task nor pipe behind."""
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(self._settings.stop_s if self._status.state == "ready" else 0.5):
                await process.wait()
        except TimeoutError:
            _kill(process)
            await process.wait()
        finally:
            # Its end closes stderr; only a stranger that inherited the pipe could hold it longer.
            await asyncio.wait([drain], timeout=1.0)
            drain.cancel()

    def _explain_start(self, process: asyncio.subprocess.Process, tail: deque[str]) -> StartFailed:
        code = process.returncode or 0
        detail = f"exit code {code}; " + " | ".join(tail)
        if code == -signal.SIGILL:
            reason = "this processor lacks AVX2, which the engine needs. Configure an upstream instead"
        elif code == EXIT_NO_ENGINE:
            reason = (
                "the engine is not installed for this Python and platform (there is no build for musl, nor without "
                "AVX2). Install the package again, or configure an upstream instead"
            )
        elif code == -signal.SIGKILL:
            reason = (
                "the system killed the engine, most likely for lack of memory. Use a smaller model, fewer slots or a "
                "smaller context"
            )
        else:
            reason = (
                "the file is damaged, is not a GGUF model this engine knows, or needs more memory than there is. "
                "Remove it and fetch it again, or choose another model; the engine's own words are in the log"
            )
        return StartFailed(f"The model '{self.name}' could not be loaded: {reason}.", detail=detail)

    def _explain_death(self, process: asyncio.subprocess.Process, tail: deque[str]) -> NotReady:
        return NotReady(
            f"The engine of model '{self.name}' ended unexpectedly and is being restarted; try again in a moment.",
            detail=f"exit code {process.returncode}; " + " | ".join(tail),
        )

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


def build_order(model: Path, alias: str, mode: Mode, settings: EngineSettings, api_key: str) -> bytes:
    """Write the child's first line of stdin; the API key travels here and never on a command line."""
    order: dict[str, object] = {
        "model": str(model),
        "alias": alias,
        "api_key": api_key,
        "mode": mode,
        "slots": settings.slots,
        "context_per_slot": settings.context_per_slot,
        "threads": settings.threads or choose_thread_count(),
        "chat_template": settings.chat_template,
        "expose_slots": settings.expose_slots,
    }
    return msgspec.json.encode(order) + b"\n"


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


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended just now
        process.kill()
