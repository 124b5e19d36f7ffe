"""Hosts that make pictures, on loopback: OpenAI's images API, AUTOMATIC1111 and ComfyUI over real HTTP.

Beside OpenAI's images API there is a chat model, which has a picture drawn and shows it as it is told to.

    with serving_images() as hosts:
        ... base_url = hosts.url + "/v1"      OpenAI's        hosts.seen["/v1/images/generations"][0]
        ... base_url = hosts.url              AUTOMATIC1111's and ComfyUI's

Shapes: https://platform.openai.com/docs/api-reference/images/create; `StableDiffusionProcessingTxt2Img` and
`ProgressResponse` of AUTOMATIC1111's `modules/api/models.py`; `server.py` and `execution.py` of ComfyUI
(`post_prompt`, `get_history`, `get_queue`, `view_image`). The pictures are real PNG files of the size asked for. It
runs in threads of its own, so a test may block or run a loop as it likes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import struct
import threading
import zlib
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = "application/json"


def png(width: int, height: int, shade: int = 128) -> bytes:
    """Return a grey PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([shade]) * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def size_of(data: bytes) -> tuple[int, int]:
    """Return width and height of a PNG file."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


class ImageHosts:
    """What the hosts were asked, and how they are to behave."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: dict[str, list[Any]] = defaultdict(list)
        """Bodies by path: decoded JSON, or the bytes of a form."""
        self.headers: dict[str, str] = {}
        """Of the last request."""
        self.fails: dict[str, tuple[int, bytes]] = {}
        """Status and body that a path answers with."""
        self.as_address: str | None = None
        """OpenAI's: answer with this address in the place of base64."""
        self.hold = threading.Event()
        """The work of AUTOMATIC1111 and ComfyUI ends once this is set; it is from the start."""
        self.hold.set()
        self.working = threading.Event()
        """Set while AUTOMATIC1111 draws."""
        self.comfy_error = False
        self.looked = threading.Event()
        """Set once ComfyUI's history was asked for."""
        self.sizes: dict[str, tuple[int, int, int]] = {}
        """ComfyUI: width, height and number of pictures of each queued work."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hosts: ImageHosts

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("content-length", "0"))))

    def _answer(self, body: bytes) -> None:
        hosts, parts = self.hosts, urlsplit(self.path)
        hosts.headers = {name.lower(): value for name, value in self.headers.items()}
        is_form = "multipart" in self.headers.get("content-type", "")
        told: Any = body if is_form else json.loads(body or b"{}")
        hosts.seen[parts.path].append(told)
        if parts.path in hosts.fails:
            self._reply(*hosts.fails[parts.path])
        elif parts.path.startswith("/v1/images/"):
            self._openai(told)
        elif parts.path == "/v1/chat/completions":
            self._artist(told)
        elif parts.path.startswith("/v1/files/"):
            self._reply(200, png(8, 8), "image/png")
        elif parts.path.startswith("/sdapi/"):
            self._a1111(parts.path, told)
        else:
            self._comfy(parts.path, dict(parse_qsl(parts.query)), told)

    def _reply(self, status: int, body: bytes, kind: str = JSON) -> None:
        with contextlib.suppress(OSError):  # a client that has left
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def _json(self, value: object) -> None:
        self._reply(200, json.dumps(value).encode())

    def _openai(self, told: Any) -> None:  # noqa: ANN401 -- JSON or a form
        if isinstance(told, bytes):
            found = re.search(rb'name="size"\r\n\r\n(\d+)x(\d+)', told)
            assert found is not None
            width, height, count = int(found[1]), int(found[2]), 1
        else:
            (width, height), count = map(int, told["size"].split("x")), told.get("n", 1)
        pictures: list[dict[str, object]] = []
        for at in range(count):
            data = base64.b64encode(png(width, height, at)).decode()
            shown = {"url": self.hosts.as_address} if self.hosts.as_address is not None else {"b64_json": data}
            pictures.append({**shown, "revised_prompt": "a better prompt"})
        self._json({"created": 1_795_290_108, "data": pictures})

    def _artist(self, told: Any) -> None:  # noqa: ANN401 -- JSON
        """Answer as a chat model that has a picture drawn and then writes the line it was told to show it by."""
        last = told["messages"][-1]
        message: dict[str, Any]
        if last["role"] == "tool":
            shown = re.search(r"!\[.*\]\(.*\)", last["content"])
            message = {"role": "assistant", "content": f"Here it is:\n\n{shown[0] if shown else last['content']}"}
        else:
            arguments = json.dumps({"prompt": "a fox in snow", "size": "256x256"})
            function = {"name": "generate_image", "arguments": arguments}
            calls = [{"id": "call_1", "index": 0, "type": "function", "function": function}]
            message = {"role": "assistant", "content": None, "tool_calls": calls}
        finish = "tool_calls" if "tool_calls" in message else "stop"
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        whole = {"id": "c1", "created": 1_795_290_108, "model": "artist", "usage": usage}
        choice = {"index": 0, "finish_reason": finish}
        if not told.get("stream"):
            self._json(whole | {"object": "chat.completion", "choices": [choice | {"message": message}]})
            return
        frame = whole | {"object": "chat.completion.chunk", "choices": [choice | {"delta": message}]}
        self._reply(200, f"data: {json.dumps(frame)}\n\ndata: [DONE]\n\n".encode(), "text/event-stream")

    def _a1111(self, path: str, told: Any) -> None:  # noqa: ANN401 -- JSON
        hosts = self.hosts
        if path == "/sdapi/v1/progress":
            state = {"skipped": False, "interrupted": False, "job_count": 2, "job_no": 1}
            state |= {"sampling_step": 5, "sampling_steps": 20}
            self._json({"progress": 0.6, "eta_relative": 1.0, "state": state, "current_image": None})
        elif path == "/sdapi/v1/interrupt":
            hosts.hold.set()
            self._json({})
        else:
            hosts.working.set()
            hosts.hold.wait(30)
            hosts.working.clear()
            count = told["n_iter"] * told["batch_size"]
            images = [base64.b64encode(png(told["width"], told["height"], at)).decode() for at in range(count)]
            seed = 7 if told["seed"] == -1 else told["seed"]
            info = json.dumps({"seed": seed, "all_seeds": [seed + at for at in range(count)]})
            self._json({"images": images, "parameters": told, "info": info})

    def _comfy(self, path: str, query: dict[str, str], told: Any) -> None:  # noqa: ANN401 -- JSON
        hosts = self.hosts
        if path == "/prompt":
            name = f"p{len(hosts.sizes)}"
            latent = told["prompt"]["5"]["inputs"]
            hosts.sizes[name] = (latent["width"], latent["height"], latent["batch_size"])
            self._json({"prompt_id": name, "number": 1, "node_errors": {}})
        elif path.startswith("/history/"):
            self._json(self._history(path.removeprefix("/history/")))
        elif path == "/view":
            name, at = query["filename"].removesuffix(".png").split("_")
            width, height, _ = hosts.sizes[name]
            self._reply(200, png(width, height, int(at)), "image/png")
        elif path == "/queue" and not told:
            running = [[1, name, {}, {}, []] for name in hosts.sizes if not hosts.hold.is_set()]
            self._json({"queue_running": running, "queue_pending": []})
        else:
            self._json({})

    def _history(self, name: str) -> dict[str, object]:
        hosts = self.hosts
        hosts.looked.set()
        if not hosts.hold.is_set():
            return {}
        if hosts.comfy_error:
            status = {"status_str": "error", "completed": False, "messages": [["execution_error", {"node_id": "3"}]]}
            return {name: {"outputs": {}, "status": status}}
        count = hosts.sizes[name][2]
        images = [{"filename": f"{name}_{at}.png", "subfolder": "", "type": "output"} for at in range(count)]
        preview = [{"filename": f"{name}_9.png", "subfolder": "", "type": "temp"}]
        status = {"status_str": "success", "completed": True, "messages": []}
        return {name: {"outputs": {"8": {"images": preview}, "9": {"images": images}}, "status": status}}


@contextlib.contextmanager
def serving_images() -> Iterator[ImageHosts]:
    """Serve all three APIs until the block ends."""
    hosts = ImageHosts()
    handler = type("Handler", (_Handler,), {"hosts": hosts})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hosts.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hosts
    finally:
        hosts.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
