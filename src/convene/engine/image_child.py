"""The child that draws: one diffusers pipeline behind two pipes. Run by path, never imported by Convene.

Its contract with `image_process.PaintEngine`, one JSON object a line:

    stdin    {"op": "load", ...} first, then {"op": "draw", "id", ...} and {"op": "stop", "id"}; its end is our end
    stdout   {"event": "ready", ...} or {"event": "broken", "reason", "detail"} once; for each `draw`
             {"event": "step", "id", "done", "total"} and {"event": "picture", "id", "index", "seed", "bytes"}, with so
             many bytes of a PNG file behind it; and at last "done", "stopped", "refused" or "failed", with the id
    stderr   what the libraries say

It needs torch and diffusers and nothing of ours, so it may run on another interpreter than the server's. It loads from
a folder only, safetensors only, no code of the folder's, and without a network: the parent has fetched it and looked it
through.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import queue
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ORDER_BYTES_MAX = 1024 * 1024
DETAIL_CHARACTERS = 2000
DIFFUSERS_MIN = (0, 42)
"""It imports nothing that a folder names; older ones did."""

QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}
"""Set before the libraries are imported: they read these once."""


class Stopped(Exception):
    """The parent does not want this picture any more."""


class Refused(Exception):
    """The pipeline cannot or will not."""

    def __init__(self, reason: str, param: str = "") -> None:
        super().__init__(reason)
        self.param = param


class Broken(Exception):
    """There is nothing to draw with; `reason` is a word that the parent knows."""

    def __init__(self, reason: str, detail: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = str(detail)[:DETAIL_CHARACTERS]


class Pipes:
    """The two ends towards the parent, kept from everybody else who reads or prints."""

    def __init__(self) -> None:
        self._reader = os.fdopen(os.dup(0), "rb")
        self._writer = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._orders: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._settled = False
        self._now = 0
        self._stopped = -1

    def say(self, event: str, fields: Mapping[str, object], data: bytes = b"") -> None:
        """Tell the parent."""
        head = {"event": event, **fields}
        if data:
            head["bytes"] = len(data)
        with self._lock:
            self._writer.write(json.dumps(head).encode() + b"\n" + data)
            self._writer.flush()

    def hear(self) -> None:
        """Begin to listen."""
        threading.Thread(target=self._listen, args=(self._reader,), daemon=True).start()

    def take(self) -> Mapping[str, Any]:
        """Wait for the next order of the parent."""
        order = self._orders.get()
        self._now = int(order.get("id", 0))
        return order

    def check(self) -> None:
        """Raise `Stopped` if what is drawn now is not wanted."""
        if self._now <= self._stopped:
            raise Stopped

    def settle(self) -> None:
        """Keep the exit code that follows from being that of a lost parent."""
        self._settled = True

    def _listen(self, reader: BinaryIO) -> None:
        while line := reader.readline(ORDER_BYTES_MAX):
            order = json.loads(line)
            if order["op"] == "stop":
                # The numbers rise, and there is one order at a time.
                self._stopped = order["id"]
            else:
                self._orders.put(order)
        if not self._settled:
            # Neither loading nor drawing can be waited for, and nobody is left to use it.
            os._exit(0)


def main() -> int:
    """Load what the first order says, then draw until stdin ends."""
    # Ctrl-C reaches the whole terminal group; the parent decides when its child may go.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.environ.update(QUIET)
    pipes = Pipes()
    pipes.hear()
    try:
        studio = Studio(pipes, pipes.take())
    except Broken as broken:
        pipes.settle()
        pipes.say("broken", {"reason": broken.reason, "detail": broken.detail})
        return 1
    pipes.say("ready", studio.facts())
    while True:
        studio.serve(pipes.take())


class Studio:
    """One loaded pipeline."""

    def __init__(self, pipes: Pipes, order: Mapping[str, Any]) -> None:
        self._pipes = pipes
        began = time.monotonic()
        try:
            import torch  # noqa: PLC0415 - after the watch on stdin: it takes seconds
            from diffusers import AutoPipelineForText2Image, __version__  # noqa: PLC0415 - the same
        except (ImportError, RuntimeError) as error:  # diffusers raises RuntimeError around its lazy imports
            raise Broken("no_extra", error) from error
        if tuple(int(part) for part in __version__.split(".")[:2]) < DIFFUSERS_MIN:
            raise Broken("no_extra", f"diffusers {__version__} is too old: at least 0.42")
        self._torch = torch
        self._device = choose_device(torch, order["device"])
        self._dtype = choose_dtype(torch, order["precision"], self._device)
        if order["threads"]:
            torch.set_num_threads(order["threads"])
        # Before each layer, not only after each step: a step of a big picture takes seconds on a processor.
        torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: pipes.check())
        try:
            self._pipeline = AutoPipelineForText2Image.from_pretrained(
                order["folder"],
                dtype=self._dtype,
                variant=order["variant"] or None,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            ).to(self._device)
        except MemoryError as error:
            raise Broken("memory", repr(error)) from error
        except torch.OutOfMemoryError as error:
            raise Broken("memory", error) from error
        except Exception as error:
            # The libraries raise of every kind for a folder that is damaged.
            raise Broken("weights", f"{type(error).__name__}: {error}") from error
        self._pipeline.set_progress_bar_config(disable=True)
        self._takes = inspect.signature(self._pipeline.__call__).parameters
        self._load_s = time.monotonic() - began

    def facts(self) -> dict[str, object]:
        """Describe the pipeline, see `base_images.PipelineFacts`."""
        pipeline = self._pipeline
        scale = getattr(pipeline, "vae_scale_factor", 8)
        denoiser = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
        side = getattr(pipeline, "default_sample_size", None) or getattr(
            getattr(denoiser, "config", None), "sample_size", None
        )
        # Transformers see their latents in patches of two by two.
        step = max(8, scale) * (2 if getattr(pipeline, "transformer", None) is not None else 1)
        return {
            "pipeline": type(pipeline).__name__,
            "device": self._device,
            "precision": str(self._dtype).removeprefix("torch."),
            "side": side * scale if isinstance(side, int) else 1024,
            "side_step": step,
            "negative": "negative_prompt" in self._takes,
            "load_s": round(self._load_s, 3),
        }

    def serve(self, order: Mapping[str, Any]) -> None:
        """Draw one order and say how it ended."""
        number = order["id"]
        try:
            for index in range(order["count"]):
                seed = (order["seed"] + index) & (2**63 - 1)
                data = self._draw(order, index, seed)
                self._pipes.say("picture", {"id": number, "index": index, "seed": seed}, data)
        except Stopped:
            self._pipes.say("stopped", {"id": number})
        except Refused as refused:
            self._pipes.say("refused", {"id": number, "detail": str(refused), "param": refused.param})
        except Exception as error:  # noqa: BLE001 - whatever a pipeline raises is this picture's failure, not ours
            full = isinstance(error, (MemoryError, self._torch.OutOfMemoryError))
            if full and self._device == "cuda":
                self._torch.cuda.empty_cache()
            detail = f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS]
            self._pipes.say("failed", {"id": number, "reason": "memory" if full else "error", "detail": detail})
        else:
            self._pipes.say("done", {"id": number})

    def _draw(self, order: Mapping[str, Any], index: int, seed: int) -> bytes:
        self._pipes.check()
        wanted: dict[str, Any] = {
            "prompt": order["prompt"],
            "width": order["width"],
            "height": order["height"],
            # On the processor whatever the device: then a seed means the same everywhere.
            "generator": self._torch.Generator("cpu").manual_seed(seed),
            "output_type": "pil",
        }
        optional = {
            "negative_prompt": order["negative_prompt"] or None,
            "num_inference_steps": order["steps"] or None,
            "guidance_scale": order["guidance"],
            "callback_on_step_end": self._teller(order, index),
        }
        for name, value in optional.items():
            if value is not None and name in self._takes:
                wanted[name] = value
            elif value is not None and name == "negative_prompt":
                raise Refused("This model takes no `negative_prompt`; leave it out.", "negative_prompt")
        made = self._pipeline(**wanted)
        if any(getattr(made, "nsfw_content_detected", None) or ()):
            raise Refused("The model's own filter has hidden this picture; change the `prompt`.", "prompt")
        file = io.BytesIO()
        made.images[0].save(file, "PNG")
        return file.getvalue()

    def _teller(self, order: Mapping[str, Any], index: int) -> Any:  # noqa: ANN401 - a pipeline's own callback
        def tell(pipeline: Any, step: int, _time: object, state: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
            self._pipes.check()
            each = max(step + 1, getattr(pipeline, "num_timesteps", 0) or order["steps"])
            done = min(index * each + step + 1, order["count"] * each)
            self._pipes.say("step", {"id": order["id"], "done": done, "total": order["count"] * each})
            return state

        return tell


def choose_device(torch: Any, wanted: str) -> str:  # noqa: ANN401 - the module, which may be missing
    """Return the device to compute on. Raises `Broken` if the wanted one is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["xpu"] = hasattr(torch, "xpu") and torch.xpu.is_available()
    if wanted == "auto":
        return next(name for name in ("cuda", "xpu", "mps", "cpu") if there[name])
    if not there[wanted]:
        raise Broken("device", wanted)
    return wanted


def choose_dtype(torch: Any, wanted: str, device: str) -> Any:  # noqa: ANN401 - the module and a type of it
    """Return the precision of the weights."""
    if wanted != "auto":
        return getattr(torch, wanted)
    if device == "cpu":
        return torch.float32
    if device == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.float16 if device == "mps" else torch.bfloat16


if __name__ == "__main__":
    sys.exit(main())
