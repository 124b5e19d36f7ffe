"""An engine that lives in another process: what a worker sees of the one that its supervisor runs for all of them.

Here: a `LocalEngine` that is told how the real one stands and asks for its restart. Not here: how it is told; whoever
makes it hands in `ask_restart` and calls `see` and `restarted` (`app_worker.py`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from convene.engine.base import EngineFault, EngineStatus, EngineView, NotReady

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.engine.base import ChildAddress, EngineSettings, Mode


class RemoteEngine:
    """A `LocalEngine` whose child belongs to somebody else.

    Args:
        name: the model's name.
        mode: what it answers.
        settings: those that the real one runs with.
        ask_restart: passes on a wish for a restart and its reason; `restarted` is called when the old child is gone.
    """

    def __init__(self, name: str, mode: Mode, settings: EngineSettings, ask_restart: Callable[[str], None]) -> None:
        self._name = name
        self._mode: Mode = mode
        self._settings = settings
        self._ask_restart = ask_restart
        self._view = EngineView(status=EngineStatus(state="absent", detail="not started"))
        self._changed = asyncio.Event()
        self._gone = asyncio.Event()
        self._closed = False

    @property
    def name(self) -> str:
        """The model's name."""
        return self._name

    @property
    def mode(self) -> Mode:
        """What it answers."""
        return self._mode

    @property
    def settings(self) -> EngineSettings:
        """The settings it runs with."""
        return self._settings

    def status(self) -> EngineStatus:
        """Give the last snapshot that was told."""
        return self._view.status

    def start(self) -> None:
        """Do nothing: it is started elsewhere."""

    def see(self, view: EngineView) -> None:
        """Take what is told of the real one."""
        if not self._closed:
            self._view = view
            self._tell()

    def restarted(self) -> None:
        """Take that the old child is gone."""
        self._gone.set()

    async def wait_ready(self, timeout_s: float | None = None) -> ChildAddress:
        """Wait until it serves; see `LocalEngine.wait_ready`."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._closed and self._view.status.state in {"fetching", "loading"}:
                    await self._changed.wait()
        except TimeoutError:
            raise self._say_not_ready() from None
        return self.address()

    def address(self) -> ChildAddress:
        """Give the present child's address; see `LocalEngine.address`."""
        view = self._view
        if self._closed:
            raise NotReady(f"The engine of model '{self._name}' is stopped.")
        if view.address is not None:
            return view.address
        if view.fault is not None and view.status.state == "failed":
            fault = EngineFault(view.fault, detail=view.fault_detail)
            fault.retryable = view.fault_retryable
            raise fault
        raise self._say_not_ready()

    async def restart(self, reason: str) -> None:
        """Ask for a restart and wait until the old child is gone."""
        self._gone.clear()
        self._ask_restart(reason)
        await self._gone.wait()

    async def aclose(self) -> None:
        """Use it no more; the real one goes on."""
        self._closed = True
        self._view = EngineView(status=EngineStatus(state="absent", detail="stopped"))
        self._gone.set()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _say_not_ready(self) -> NotReady:
        status = self._view.status
        words = {"fetching": "is still being downloaded", "loading": "is still loading"}.get(
            status.state, "is not started"
        )
        return NotReady(f"The model '{self._name}' {words}; try again in a moment.", detail=status.detail)
