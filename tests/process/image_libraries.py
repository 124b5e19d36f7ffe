"""Torch and diffusers played by a few lines each, for the real child: what it draws, or how it fails, is in the prompt.

steady   draws, looking up before each layer as a real pipeline does
endless  draws steps until it is stopped
deaf     never looks up
die      is killed in the middle
boom     raises
full     runs out of memory
hidden   draws what the model's own filter hides
loud     prints to stdout meanwhile
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"

TORCH = """
from types import SimpleNamespace as Space
OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})
float32, float16, bfloat16 = "torch.float32", "torch.float16", "torch.bfloat16"
cuda = Space(is_available=lambda: False)
backends = Space(mps=Space(is_available=lambda: False))
hooks, threads = [], []
set_num_threads = threads.append
nn = Space(modules=Space(module=Space(register_module_forward_pre_hook=hooks.append)))

class Generator:
    def __init__(self, device):
        self.device = device
    def manual_seed(self, seed):
        self.seed = seed
        return self
"""

DIFFUSERS = """
import json, os, signal, sys, time
from types import SimpleNamespace as Space
import torch

__version__ = "0.42.1"

def layer():
    for hook in torch.hooks:
        hook(None, None)

class Picture:
    def __init__(self, **facts):
        self.facts = facts
    def save(self, file, kind):
        assert kind == "PNG"
        file.write(b"\\x89PNG\\r\\n\\x1a\\n" + json.dumps(self.facts).encode())

class PlayedPipeline:
    vae_scale_factor = 8
    unet = Space(config=Space(sample_size=8))
    num_timesteps = 0
    given = {}
    def to(self, device):
        self.device = device
        return self
    def set_progress_bar_config(self, disable):
        assert disable
    def __call__(self, prompt, width, height, generator, output_type, negative_prompt=None, num_inference_steps=5,
                 guidance_scale=7.5, callback_on_step_end=None):
        plot = prompt.split()[0]
        self.num_timesteps = 10**9 if plot == "endless" else num_inference_steps
        for step in range(self.num_timesteps):
            layer()
            callback_on_step_end(self, step, 0, {})
            if plot == "deaf":
                time.sleep(600)
            if plot == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if plot == "boom":
                raise ValueError("something inside")
            if plot == "full":
                raise torch.OutOfMemoryError("no room")
            if plot == "loud":
                print("I am loud")
                os.write(1, b"and so is C\\n")
        assert output_type == "pil" and generator.device == "cpu"
        facts = dict(prompt=prompt, negative=negative_prompt, width=width, height=height, seed=generator.seed,
                     steps=num_inference_steps, guidance=guidance_scale, threads=torch.threads, given=self.given)
        return Space(images=[Picture(**facts)], nsfw_content_detected=[plot == "hidden"])

class AutoPipelineForText2Image:
    @staticmethod
    def from_pretrained(folder, **given):
        pipeline = PlayedPipeline()
        pipeline.given = given
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        BEGIN
        return pipeline
"""


def write_libraries(folder: Path, begin: str = "pass", *, torch: str = TORCH, diffusers: str = DIFFUSERS) -> None:
    """Write both modules; `begin` is one statement that loading runs."""
    folder.mkdir(exist_ok=True)
    (folder / "torch.py").write_text(torch)
    (folder / "diffusers.py").write_text(diffusers.replace("BEGIN", begin))


def write_pipeline(folder: Path, **components: str | None) -> Path:
    """Write a folder that looks like a pipeline's, with weights of no use; components by name, with their library."""
    named = components or {"unet": "diffusers", "tokenizer": "transformers", "safety_checker": None}
    index: dict[str, object] = {"_class_name": "PlayedPipeline", "_diffusers_version": "0.42.1", "scale": True}
    folder.mkdir(parents=True)
    for component, library in named.items():
        index[component] = [library, "Class" if library else None]
        if library:
            (folder / component).mkdir()
            (folder / component / "config.json").write_text("{}")
    (folder / "unet").mkdir(exist_ok=True)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def read_facts(data: bytes) -> dict[str, object]:
    """Return what a played picture was drawn from."""
    assert data.startswith(SIGNATURE)
    facts = json.loads(data.removeprefix(SIGNATURE))
    assert isinstance(facts, dict)
    return facts


def measure_png(data: bytes) -> tuple[int, int]:
    """Open a PNG file far enough to be sure that it is whole; return its width and height."""
    assert data.startswith(SIGNATURE)
    at, pixels, size, kind = len(SIGNATURE), b"", (0, 0), b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        elif kind == b"IDAT":
            pixels += body
        at += 12 + length
    assert kind == b"IEND"
    width, height = size
    assert len(zlib.decompress(pixels)) == height * (1 + 3 * width)
    return width, height
