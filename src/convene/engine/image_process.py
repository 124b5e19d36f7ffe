"""The local image engine: one pipeline in a child process, asked over two pipes.

Here: what the child is told, its events, the one order at a time, and a cancel that kills a child which does not heed
it. Not here: how a child is kept running (`supervisor`), what it does (`image_child`), where its folder comes from
(`image_weights`). Used by `providers/images_local`, made by the composition.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from convene.engine.base import NotReady, StartFailed, WeightsCorrupt
from convene.engine.base_images import (
    INSTALL,
    ImageFolder,
    Painted,
    PaintFailed,
    PaintOrder,
    PaintRefused,
    PaintSettings,
    Pictorial,
    PipelineFacts,
    Stepped,
)
from convene.engine.supervisor import Supervisor, was_killed
from convene.engine.threads import choose_thread_count

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.engine.base import EngineFault
    from convene.engine.base_images import PaintEvent

CHILD_PATH: Final = Path(__file__).with_name("image_child.py")
PICTURE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A child that announces more is out of its mind: 2048 x 2048 raw pixels are 12 MB."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the child; which fields it has depends on `event`."""

    event: str
    id: int = 0
    done: int = 0
    total: int = 0
    index: int = 0
    seed: int = 0
    bytes: int = 0
    reason: str = ""
    detail: str = ""
    param: str = ""


Heard = tuple[Told, bytes]
"""A line and the bytes behind it."""

NOT_ALLOWED: Final = "The image engine broke off in the middle of an answer, or did not keep to its protocol."


class PaintEngine(Supervisor):
    """A `Painter`: one pipeline, drawing one order after the other.

    Args:
        weights: where the pipeline's folder comes from; its name becomes the engine's name.
        settings: how the child runs.
    """

    def __init__(self, weights: Pictorial, settings: PaintSettings) -> None:
        super().__init__(weights.name, settings)
        self._weights = weights
        self._settings = settings
        self._facts: PipelineFacts | None = None
        self._serving: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._number = 0
        self._heard: asyncio.Queue[Heard | None] = asyncio.Queue()
        self._clearing: asyncio.Task[None] | None = None

    @property
    def facts(self) -> PipelineFacts | None:
        """What the pipeline is, once it has been loaded."""
        return self._facts

    async def wait_ready(self, timeout_s: float | None = None) -> PipelineFacts:
        """Wait until it can draw; see `Painter.wait_ready`."""
        await self._wait_settled(timeout_s)
        if self._serving is None or self._facts is None:
            raise self._say_why_not()
        return self._facts

    async def paint(self, order: PaintOrder) -> AsyncGenerator[PaintEvent]:
        """Draw; see `Painter.paint`."""
        await self._turn.acquire()
        number = 0
        ended = False
        try:
            if self._status.state == "loading":
                await self._wait_settled(self._settings.ready_s)
            number = self._begin(order)
            while True:
                heard = await self._heard.get()
                if heard is None:
                    ended = True
                    raise NotReady(
                        f"The engine of model '{self.name}' ended in the middle of a picture and is being restarted; "
                        "try again in a moment. If every picture ends so, there is too little memory for this size."
                    )
                told, data = heard
                if told.id != number:
                    continue
                if told.event == "step":
                    yield Stepped(told.done, told.total)
                elif told.event == "picture":
                    yield Painted(told.index, told.seed, data)
                else:
                    ended = True
                    self._judge(told)
                    return
        finally:
            if ended or not number:
                self._turn.release()
            else:
                # Whoever has lost interest need not wait; the next order does.
                self._clearing = asyncio.create_task(self._clear(number), name=f"engine {self.name} cancel")

    async def aclose(self) -> None:
        """End the child and everything in the background."""
        await super().aclose()
        if self._clearing is not None:
            await asyncio.wait([self._clearing])

    def _begin(self, order: PaintOrder) -> int:
        """Send an order to the child; return its number."""
        process = self._serving
        if process is None or process.stdin is None:
            raise self._say_why_not()
        while not self._heard.empty():
            self._heard.get_nowait()
        self._number += 1
        drawn = msgspec.structs.replace(
            order,
            steps=order.steps or self._settings.steps,
            guidance=self._settings.guidance if order.guidance is None else order.guidance,
        )
        # Not awaited until it is written: an order is a few kilobytes, and there is one at a time.
        process.stdin.write(_line({"op": "draw", "id": self._number, **msgspec.structs.asdict(drawn)}))
        return self._number

    async def _clear(self, number: int) -> None:
        """Stop the drawing of an order that nobody waits for, by force if need be; then let the next one begin."""
        try:
            process = self._serving
            if process is None or process.stdin is None:
                return
            process.stdin.write(_line({"op": "stop", "id": number}))
            try:
                async with asyncio.timeout(self._settings.cancel_s):
                    await self._await_end(number)
            except TimeoutError:
                await self.restart("a cancelled picture did not stop")
        finally:
            self._turn.release()

    async def _await_end(self, number: int) -> None:
        while (heard := await self._heard.get()) is not None:
            if heard[0].id == number and heard[0].event not in {"step", "picture"}:
                return

    def _judge(self, told: Told) -> None:
        """Raise what the end of an order means, if it is not a good one."""
        if told.event == "done":
            return
        if told.event == "refused":
            raise PaintRefused(told.detail or "The model refuses this.", param=told.param)
        if told.reason == "memory":
            raise PaintFailed(
                f"The model '{self.name}' ran out of memory. Ask for a smaller `size` or fewer pictures.",
                detail=told.detail,
            )
        raise PaintFailed(f"The model '{self.name}' could not draw this; the log has the cause.", detail=told.detail)

    def _withdraw(self) -> None:
        self._serving = None
        self._heard.put_nowait(None)

    async def _run(self) -> None:
        await self._run_child(await self._weights.obtain(self._report))

    async def _run_child(self, folder: ImageFolder) -> NoReturn:
        """Run one child to its end; raise why it could not start or, if it had served, `NotReady`."""
        self._show("loading", "loading the model")
        drain = await self._spawn(CHILD_PATH, self._settings.python)
        broken: Told | None = None
        facts: PipelineFacts | None = None
        try:
            facts, broken = await self._greet(build_order(folder, self._settings))
            if facts is not None:
                self._facts = facts
                self._serving = self._process
                self._logged = ""
                self._show("ready", "")
                await self._listen()
        finally:
            self._withdraw()
            await self._end(drain)
            process, words, self._process = self._process, self._last_words(), None
        if facts is None:
            raise explain_start(self.name, broken, words, killed=was_killed(process))
        raise self._died(words)

    async def _greet(self, order: bytes) -> tuple[PipelineFacts | None, Told | None]:
        """Hand over the order; return what the pipeline is, or else the child's reason, if it gave one."""
        line = await self._hand_over(order)
        if not line:
            return None, None
        told = msgspec.json.decode(line, type=Told)
        if told.event == "ready":
            return msgspec.json.decode(line, type=PipelineFacts), None
        return None, told

    async def _listen(self) -> None:
        """Pass on what the child says until it ends; a child that breaks the protocol is ended."""
        process = self._process
        stream = process.stdout if process is not None else None
        fault: StartFailed | None = None
        try:
            while stream is not None and (line := await stream.readline()):
                told = msgspec.json.decode(line, type=Told)
                if not 0 <= told.bytes <= PICTURE_BYTES_MAX:
                    raise ValueError(f"{told.bytes} bytes")  # noqa: TRY301 - the same as any other nonsense
                data = await stream.readexactly(told.bytes) if told.bytes else b""
                self._heard.put_nowait((told, data))
        except (msgspec.DecodeError, ValueError, asyncio.IncompleteReadError) as error:
            fault = StartFailed(NOT_ALLOWED, detail=repr(error))
        # Before its end is awaited: whoever asks now is to wait for the next one.
        self._withdraw()
        self._show("loading", "starting anew")
        if fault is not None:
            raise fault


def build_order(folder: ImageFolder, settings: PaintSettings) -> bytes:
    """Write the child's first line."""
    return _line(
        {
            "op": "load",
            "folder": str(folder.path),
            "variant": folder.variant,
            "device": settings.device,
            "precision": settings.precision,
            "threads": settings.threads or choose_thread_count(),
        }
    )


def explain_start(name: str, broken: Told | None, words: str, *, killed: bool) -> EngineFault:
    """Say why a child could not load, and what to do about it."""
    reason = broken.reason if broken is not None else "memory" if killed else ""
    detail = f"{broken.detail}; {words}" if broken is not None else words
    if reason == "no_extra":
        return StartFailed(
            f"The image model '{name}' needs torch and diffusers, which are not installed: {INSTALL} (the page images "
            "tells of the small CPU build), or set the interpreter that has them.",
            detail=detail,
        )
    if reason == "memory":
        return StartFailed(
            f"There is not enough memory to load the image model '{name}'. Use a smaller model, or half precision "
            "(bfloat16).",
            detail=detail,
        )
    if reason == "device":
        wanted = broken.detail if broken is not None else ""
        return StartFailed(
            f"The image model '{name}' is to run on '{wanted}', which torch does not see here. Set its device to auto "
            "or cpu, or install the build of torch for it.",
            detail=detail,
        )
    if reason == "weights":
        return WeightsCorrupt(
            f"The image model '{name}' could not be loaded: its folder is damaged, is not a text-to-image pipeline, or "
            "needs a newer diffusers. Download it again or choose another; the cause is in the log.",
            detail=detail,
        )
    return StartFailed(f"The image model '{name}' ended while it was loading; the cause is in the log.", detail=detail)


def _line(order: dict[str, object]) -> bytes:
    return msgspec.json.encode(order) + b"\n"
