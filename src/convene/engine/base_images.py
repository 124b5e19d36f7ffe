"""What the rest of Convene may know of the local image engine: its settings, its orders, its events and its faults.

Here: values and the seams `Painter` (a pipeline that draws) and `Pictorial` (a folder of weights to be had). Not here:
the child (`image_child`), its keeper (`image_process`), folders and hubs (`image_files`, `image_weights`), and errors
of the API (`providers/images_local`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from convene.engine.base import EngineFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.engine.base import EngineStatus, Progress

Device = Literal["auto", "cpu", "cuda", "mps", "xpu"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]

INSTALL: Final = "pip install 'convene[images]'"
SEED_MAX: Final = 2**63 - 1
"""The largest seed a generator of torch takes as a signed number."""


class PaintSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one image child is run.

    Attributes:
        python: the interpreter of the child; another than ours where torch is installed elsewhere.
        device: where it computes; `auto` takes a GPU if torch sees one.
        precision: of the weights; `auto` is float32 on the processor and a half on a GPU.
        steps: of one picture; 0 takes the pipeline's own number. Turbo models want 1 to 4.
        guidance: how closely the text is followed; None takes the pipeline's own.
        threads: on the processor; 0 takes the cores there are, less one (see `threads`).
        startup_s: from spawn to ready; importing torch takes seconds, a big model's weights a minute.
        ready_s: how long an order waits for a child that is being started anew.
        stop_s: an orderly end.
        cancel_s: how long a cancelled picture may go on before its child is killed and the weights are loaded anew.
        backoff_first_s: pause before the second attempt in a row; doubles each time.
        backoff_max_s: the longest such pause.
        stable_s: a child that lived this long has earned a fresh back-off.
    """

    python: str = sys.executable
    device: Device = "auto"
    precision: Precision = "auto"
    steps: int = 0
    guidance: float | None = None
    threads: int = 0
    startup_s: float = 600.0
    ready_s: float = 30.0
    stop_s: float = 2.0
    cancel_s: float = 1.0
    backoff_first_s: float = 1.0
    backoff_max_s: float = 60.0
    stable_s: float = 60.0


class PaintOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures of one text. Picture `i` has the seed `seed + i`, so it can be made again alone."""

    prompt: str
    negative_prompt: str = ""
    width: int
    height: int
    seed: int
    count: int = 1
    steps: int = 0
    guidance: float | None = None


class Stepped(msgspec.Struct, frozen=True, tag="step"):
    """How far it is: `done` of `total` steps over all pictures of the order."""

    done: int
    total: int


class Painted(msgspec.Struct, frozen=True):
    """One picture: the bytes of a PNG file."""

    index: int
    seed: int
    data: bytes


PaintEvent = Stepped | Painted


class PipelineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded pipeline says of itself.

    Attributes:
        pipeline: its class.
        device: where it computes.
        precision: of its weights.
        side: of the square picture it was made for, in pixels.
        side_step: width and height are multiples of this.
        negative: it takes a text of what is not wanted.
        load_s: seconds that importing and loading took.
    """

    pipeline: str = ""
    device: str = ""
    precision: str = ""
    side: int = 512
    side_step: int = 8
    negative: bool = True
    load_s: float = 0.0


class PaintRefused(EngineFault):
    """The model refuses, or cannot do what was asked; asking again is pointless."""

    def __init__(self, message: str, *, detail: str = "", param: str = "") -> None:
        """Explain the fault; `param` names the field of the order that it is about."""
        super().__init__(message, detail=detail)
        self.param = param


class PaintFailed(EngineFault):
    """This picture failed; the engine goes on."""


class ImageFolder(msgspec.Struct, frozen=True):
    """A pipeline's folder, looked through: `variant` is the ending of the weights to load (`fp16`) or empty."""

    path: Path
    variant: str = ""


class Pictorial(Protocol):
    """A pipeline's folder to be had."""

    @property
    def name(self) -> str:
        """The model's name as users write it."""
        ...

    async def obtain(self, report: Progress) -> ImageFolder:
        """Give the folder, looked through and fetched first where that is allowed. Raises `EngineFault`."""
        ...


class Painter(Protocol):
    """One pipeline in a child process. `start()` once inside a running loop, `aclose()` once."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def facts(self) -> PipelineFacts | None:
        """What the pipeline is, once it has been loaded."""
        ...

    def status(self) -> EngineStatus:
        """Give a snapshot; cheap, never raises."""
        ...

    def start(self) -> None:
        """Begin fetching and loading in the background; a second call does nothing."""
        ...

    async def wait_ready(self, timeout_s: float | None = None) -> PipelineFacts:
        """Wait until it can draw. Raises `EngineFault` with why it cannot."""
        ...

    def paint(self, order: PaintOrder) -> AsyncGenerator[PaintEvent]:
        """Draw, one order after the other. Closing the generator ends the drawing within a second.

        Raises:
            EngineFault: `PaintRefused`, `PaintFailed`, `NotReady`, or why the engine cannot serve.
        """
        ...

    async def aclose(self) -> None:
        """End the child and everything in the background."""
        ...
