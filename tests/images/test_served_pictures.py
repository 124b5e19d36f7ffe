"""Pictures of this machine through the real program: configured, announced, asked for over HTTP, opened.

Needs an interpreter with torch and diffusers, see `test_local_pictures`.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S: Final = 300.0
PYTHON = os.environ.get("CONVENE_TEST_IMAGES_PYTHON", "")
MAKER = Path(__file__).with_name("tiny_pipeline.py")
CONFIG: Final = """
port = 0
auth = "none"
[engine]
enabled = false
[images.studio]
kind = "local"
folder = "tiny"
python = {python}
steps = 4
threads = 1
"""

pytestmark = pytest.mark.skipif(not PYTHON, reason="torch and diffusers are not set up: make test-images")


def wait_for(pattern: str, log: Path, process: subprocess.Popen[bytes]) -> re.Match[str]:
    until = time.monotonic() + PATIENCE_S
    while (found := re.search(pattern, log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def program(folder: Path) -> Iterator[int]:
    """Run `convene serve` until the end of the block; yield its port when the pipeline is ready."""
    log = folder / "log"
    settings = {"CONVENE_CONFIG": str(folder / "convene.toml"), "CONVENE_DATA_DIR": str(folder / "data")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "convene", "serve"],
            stdout=output,
            stderr=output,
            env=dict(os.environ) | settings,
            cwd=folder,
        )
    try:
        port = int(wait_for(r"listens on http://127\.0\.0\.1:(\d+)", log, process)[1])
        wait_for(r"tiny: ready", log, process)
        yield port
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def ask(port: int, method: str, path: str, body: dict[str, object] | None = None) -> tuple[int, Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
        sent = json.dumps(body) if body is not None else None
        connection.request(method, path, sent, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def pixels(reply: dict[str, Any]) -> tuple[str | None, tuple[int, int], bytes]:
    """Open the first picture of a reply; return its format, size and content."""
    with Image.open(io.BytesIO(base64.b64decode(reply["data"][0]["b64_json"]))) as image:
        return image.format, image.size, image.tobytes()


def test_a_pipeline_of_this_machine_answers_at_both_paths(tmp_path: Path) -> None:
    subprocess.run([PYTHON, str(MAKER), str(tmp_path / "tiny")], check=True, capture_output=True)  # noqa: S603 - ours
    (tmp_path / "convene.toml").write_text(CONFIG.format(python=json.dumps(PYTHON)))
    with program(tmp_path) as port:
        _, listed = ask(port, "GET", "/v1/models")
        assert "studio" in [card["id"] for card in listed["data"]]
        wish: dict[str, object] = {"model": "studio", "prompt": "a fox in snow", "size": "256x256", "seed": 5}
        status, reply = ask(port, "POST", "/v1/images/generations", wish)
        assert status == 200, reply
        kind, size, content = pixels(reply)
        assert (kind, size) == ("PNG", (256, 256))
        _, other = ask(port, "POST", "/v1/image/generate", wish | {"output_format": "webp"})
        assert pixels(other)[:2] == ("WEBP", (256, 256))
        _, again = ask(port, "POST", "/v1/images/generations", wish)
        assert pixels(again)[2] == content
        _, others = ask(port, "POST", "/v1/images/generations", wish | {"seed": 6})
        assert pixels(others)[2] != content
        status, refused = ask(port, "POST", "/v1/images/generations", wish | {"size": "65x64"})
        assert (status, refused["error"]["param"]) == (400, "size")
        assert ask(port, "GET", "/readyz") == (200, {"status": "ready"})
