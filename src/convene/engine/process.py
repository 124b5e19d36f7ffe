"""The embedded engine: one model served by llama.cpp's own server in a child process.

Here: what that child is told, its ready line, and what its deaths mean. Not here: how a child is kept running
(`supervisor`), what it does (`child`), where its file comes from (a `Weights`, see `files`), and what is asked of it:
`providers/local` speaks HTTP to the address given here. Made by `app.py`, one per model and mode.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from convene.engine.base import ChildAddress, EngineSettings, EngineView, Mode, StartFailed, Weights
from convene.engine.supervisor import Supervisor, was_killed
from convene.engine.threads import choose_thread_count

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

CHILD_PATH = Path(__file__).with_name("child.py")
KEY_BYTES = 24
EXIT_NO_ENGINE = 3
"""The child's exit code when its engine cannot be imported (`child.EXIT_NO_ENGINE`)."""


class _Ready(msgspec.Struct):
    """The child's one line."""

    port: int
    pid: int


class Engine(Supervisor):
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
        super().__init__(weights.name, settings)
        self._weights = weights
        self._mode = mode
        self._settings = settings
        self._token = token
        self._address: ChildAddress | None = None

    @property
    def mode(self) -> Mode:
        """What it answers."""
        return self._mode

    @property
    def settings(self) -> EngineSettings:
        """The settings it runs with."""
        return self._settings

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

    async def wait_ready(self, timeout_s: float | None = None) -> ChildAddress:
        """Wait until it serves; see `LocalEngine.wait_ready`."""
        await self._wait_settled(timeout_s)
        return self.address()

    def address(self) -> ChildAddress:
        """Give the present child's address; see `LocalEngine.address`."""
        if self._address is not None:
            return self._address
        raise self._say_why_not()

    def _withdraw(self) -> None:
        self._address = None

    async def _run(self) -> None:
        await self._run_child(await self._weights.obtain(self._report))

    async def _run_child(self, model: Path) -> NoReturn:
        """Run one child to its end; raise `StartFailed` or, if it had served, `NotReady`."""
        self._show("loading", "loading the model")
        api_key = self._token(KEY_BYTES).hex()
        drain = await self._spawn(CHILD_PATH)
        try:
            ready = await self._greet(build_order(model, self.name, self._mode, self._settings, api_key))
            if ready is not None and self._process is not None:
                self._address = ChildAddress(f"http://127.0.0.1:{ready.port}", api_key)
                self._logged = ""
                self._show("ready", "")
                await self._process.wait()
        finally:
            self._withdraw()
            await self._end(drain)
            process, words, self._process = self._process, self._last_words(), None
        if ready is None:
            raise self._explain_start(process, words)
        raise self._died(words)

    async def _greet(self, order: bytes) -> _Ready | None:
        """Hand over the order and read the one line; `None` if the child ended without it. Raises `StartFailed`."""
        line = await self._hand_over(order)
        return msgspec.json.decode(line, type=_Ready) if line else None

    def _explain_start(self, process: asyncio.subprocess.Process | None, words: str) -> StartFailed:
        code = process.returncode if process is not None else None
        if code == -signal.SIGILL:
            reason = "this processor lacks AVX2, which the engine needs. Configure an upstream instead"
        elif code == EXIT_NO_ENGINE:
            reason = (
                "the engine is not installed for this Python and platform (there is no build for musl, nor without "
                "AVX2). Install the package again, or configure an upstream instead"
            )
        elif was_killed(process):
            reason = (
                "the system killed the engine, most likely for lack of memory. Use a smaller model, fewer slots or a "
                "smaller context"
            )
        else:
            reason = (
                "the file is damaged, is not a GGUF model this engine knows, or needs more memory than there is. "
                "Remove it and fetch it again, or choose another model; the engine's own words are in the log"
            )
        return StartFailed(f"The model '{self.name}' could not be loaded: {reason}.", detail=words)


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
