"""Pictures: what the server itself adds to a picture, over a host that has it ready at once.

The whole program on one core, a host in this process that answers with the same 1024x1024 picture each time, one
request after the other: the difference to the host asked directly is the server's own. It is mostly the opening of
the picture, without which none leaves, and, where another form is wanted than the host gave, the coding.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from PIL import Image

from parts import gateway, result, say

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE, ROUNDS, WARM = 1024, 40, 3
PLAN: Final = "[plans.owner]\nimages_per_minute = 1000000\n"
BARS_MS: Final = {"jpeg as it came": 40.0, "png as it came": 160.0, "png as a link": 160.0, "png to jpeg": 200.0}
"""On the machine of `docs/benchmarks.md`; what a host takes to draw is seconds."""


def measure() -> bool:
    """Print the figures; return whether all bars hold."""
    holds = []
    for form in ("jpeg", "png"):
        picture = _picture(form)
        say(f"     {form} of {SIDE}x{SIDE}, {len(picture)} bytes")
        with _host(picture) as base:
            config = f'access_log = false\n[engine]\nenabled = false\n{PLAN}[images.bench]\nbase_url = "{base}/v1"\n'
            with gateway(config) as convene:
                wants = {f"{form} as it came": {}, f"{form} as a link": {"response_format": "url"}}
                wants |= {f"{form} to {other}": {"output_format": other} for other in ("jpeg", "webp") if other != form}
                for name, want in wants.items():
                    direct = _p50_ms(f"{base}/v1", "x", {})
                    before = convene.cpu_s()
                    through = _p50_ms(f"{convene.base}/v1", convene.key, want)
                    cpu_ms = (convene.cpu_s() - before) * 1000 / (ROUNDS + WARM)
                    added = through - direct
                    say(f"     {name}: {added:.1f} ms added to {direct:.1f}, {cpu_ms:.1f} ms of processor time")
                    if name in BARS_MS:
                        holds.append(result(f"{name}: added, p50", added, BARS_MS[name], unit="ms", most=True))
    return all(holds)


def _picture(form: str) -> bytes:
    """Return a picture that is neither flat nor noise: its files are as large as those of a drawn one."""
    ramps = [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.linear_gradient("L").rotate(90)]
    smooth = Image.merge("RGB", ramps).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    grain = Image.effect_noise((SIDE // 2, SIDE // 2), 30).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    Image.blend(smooth, grain.convert("RGB"), 0.3).save(out, form, quality=92)
    return out.getvalue()


@contextlib.contextmanager
def _host(picture: bytes) -> Iterator[str]:
    """Answer everything with the picture, in the form of OpenAI's images API."""
    body = json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(picture).decode()}]}).encode()

    class Instant(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Instant)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _p50_ms(base: str, key: str, want: dict[str, str]) -> float:
    """Return the median time of one request, in ms."""
    parts, spans = urlsplit(base), []
    asked = json.dumps({"model": "bench", "prompt": "a fox in snow", "size": f"{SIDE}x{SIDE}"} | want)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with contextlib.closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)) as connection:
        for _ in range(WARM + ROUNDS):
            began = time.perf_counter()
            connection.request("POST", f"{parts.path}/images/generations", asked, headers)
            answer = connection.getresponse()
            answer.read()
            spans.append(time.perf_counter() - began)
            if answer.status != http.client.OK:
                raise RuntimeError(f"{base} answered {answer.status}")
    return statistics.median(spans[WARM:]) * 1000
