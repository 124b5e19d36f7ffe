"""The processes that read pages: a few, started when needed, killed when late, ended when idle.

Here: `PagePool`, an order and a body in, `PageText` out. Not here: what a child does (`page_child`) and what a model is
told (`web_fetch`). Made by `app_tools.py`. The event loop is never held up: it writes to a pipe and waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import Failed
from convene.tools.page_kind import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND: Final = (sys.executable, "-P", "-m", "convene.tools.page_child")
ENVIRONMENT: Final = (("PYTHONUTF8", "1"), ("LC_ALL", "C.UTF-8"))
"""All of it: a parser of hostile input needs no keys."""
ANSWER_BYTES_MAX: Final = 16 << 20
PAGES_PER_CHILD: Final = 200
"""Then it is replaced, so that what a library leaks does not add up."""


class PageOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to read of a page."""

    kind: Kind
    charset: str
    url: str
    start: int
    chars: int


class PageText(msgspec.Struct, frozen=True):
    """What was read: `text` is what was asked for of `total` characters, `whole` whether the total is all there is."""

    title: str = ""
    text: str = ""
    total: int = 0
    whole: bool = True
    links: tuple[str, ...] = ()
    error: str = ""


class PagePool:
    """Reads pages in processes of their own."""

    def __init__(
        self, *, processes_max: int, read_s: float, idle_s: float = 60.0, command: Sequence[str] = COMMAND
    ) -> None:
        """`read_s` is what one page may take, `idle_s` how long a process waits for the next one."""
        self._room = asyncio.Semaphore(processes_max)
        self._read_s = read_s
        self._idle_s = idle_s
        self._command = tuple(command)
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._processes_max = processes_max
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def read(self, order: PageOrder, body: bytes) -> PageText:
        """Return what the page says. Raises `Failed` with words for a model. Cancelled, it kills its process."""
        async with self._room:
            if self._closed:
                raise Failed("This server is shutting down.")
            child = self._idle.pop() if self._idle else await self._start()
            try:
                async with asyncio.timeout(self._read_s):
                    text = await child.ask(order, body)
            except TimeoutError:
                self._end(child)
                raise Failed(f"Reading the page took longer than {self._read_s:g} s.") from None
            except (OSError, EOFError, asyncio.LimitOverrunError, msgspec.MsgspecError) as error:
                self._end(child)
                raise Failed("The page could not be read: it broke the program that reads pages.") from error
            except BaseException:
                # Broad and re-raised: after a cancel nobody takes the answer, so its process must not be used again.
                self._end(child)
                raise
            self._rest(child)
        if text.error:
            raise Failed(text.error)
        return text

    async def aclose(self) -> None:
        """Kill the processes and wait for their end."""
        self._closed = True
        for child in list(self._idle):
            self._end(child)
        for child in self._children:
            child.kill()
        # whoever reads has an end of file before him now, and ends his own process
        for _ in range(self._processes_max):
            await self._room.acquire()
        await asyncio.gather(*self._ending)
        for _ in range(self._processes_max):
            self._room.release()

    async def _start(self) -> _Child:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=dict(ENVIRONMENT),
                limit=ANSWER_BYTES_MAX,
            )
        except OSError as error:
            raise Failed("Pages cannot be read at the moment.", detail=str(error)) from error
        child = _Child(process)
        self._children.add(child)
        return child

    def _rest(self, child: _Child) -> None:
        child.pages += 1
        if child.pages >= PAGES_PER_CHILD or self._closed:
            self._end(child)
            return
        self._idle.append(child)
        child.timer = asyncio.get_running_loop().call_later(self._idle_s, self._end, child)

    def _end(self, child: _Child) -> None:
        if child not in self._children:
            return
        self._children.remove(child)
        if child in self._idle:
            self._idle.remove(child)
        child.kill()
        task = asyncio.get_running_loop().create_task(child.gone())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _Child:
    """One process; asked by one at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pages = 0
        self.timer: asyncio.TimerHandle | None = None

    async def ask(self, order: PageOrder, body: bytes) -> PageText:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise OSError("the process has no pipes")
        head = msgspec.structs.asdict(order) | {"bytes": len(body)}
        stdin.write(msgspec.json.encode(head) + b"\n")
        stdin.write(body)
        await stdin.drain()
        line = await stdout.readuntil(b"\n")
        return msgspec.json.decode(line, type=PageText)

    def kill(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.process.stdin is not None:
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def gone(self) -> None:
        """Wait until a killed process has ended; what it wrote is read to the end, or its pipe would stay open."""
        if self.process.stdout is not None:
            with contextlib.suppress(OSError):
                while await self.process.stdout.read(1 << 16):
                    pass
        await self.process.wait()
