"""`convene image`: have a running server draw, by the public API alone, and show how far it is.

The picture is asked for as a stream, whose comments tell the steps. A server that answers with one body is understood
as well: then only the time that passes is shown.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import click
import msgspec

from convene.cli_chat import Server, asked, base_url
from convene.cli_output import AskedWrongly, Stop, Verb, configured, harmless, readable_bytes, say
from convene.config import client_here

if TYPE_CHECKING:
    import http.client
    from types import TracebackType

    from convene.config import Config

FORMATS: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
TICK_S: Final = 1.0
SILENCE_S: Final = 900.0
"""Longest wait: a picture takes minutes on a small machine, and some servers say nothing before it is there."""
REPLY_BYTES_MAX: Final = 64 * 1024 * 1024
BAR_WIDTH: Final = 30
QUARTERS: Final = 4
"""How often it is said how far it is where there is no terminal."""
_PROGRESS: Final = re.compile(rb": progress (\d{1,7})/(\d{1,7})\s*")


class _Item(msgspec.Struct):
    b64_json: str


class _Reply(msgspec.Struct):
    data: list[_Item]


class _Fault(msgspec.Struct):
    message: str = "no reason given"


class _Event(msgspec.Struct):
    type: str = ""
    b64_json: str = ""
    error: _Fault | None = None


@click.command(
    "image",
    cls=Verb,
    examples=(
        'convene image "a fox in snow" -o fox.png',
        "convene image --model sdxl --size 1024x1536 --seed 7 'a lighthouse at night' -o tower.webp",
    ),
)
@click.argument("prompt", nargs=-1, required=True)
@click.option("-o", "--output", required=True, help="File to write; .png, .jpg or .webp says the form.")
@click.option("--size", default="auto", help="WIDTHxHEIGHT, or auto.")
@click.option("--seed", type=int, default=None, help="The same seed draws the same picture, where the model can.")
@click.option("--url", default="", help="Base URL; else CONVENE_BASE_URL, ASI1_BASE_URL, OPENAI_BASE_URL, this host.")
@click.option("--key", default="", help="API key; better as CONVENE_API_KEY, which other users cannot list.")
@click.option("--model", default="", help="Image model; else the server's first.")
@configured()
def image(
    config: Config, prompt: tuple[str, ...], output: str, size: str, seed: int | None, url: str, key: str, model: str
) -> None:
    """Draw a picture with a running server and write it to a file."""
    known = client_here()
    path = Path(output)
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise AskedWrongly(f"{output}: the name must end in one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise AskedWrongly(f"{output}: there is no folder {path.parent}")
    server = Server(
        url=base_url(url or known.url or f"http://127.0.0.1:{config.port}"), key=key or known.key.reveal(), model=model
    )
    body: dict[str, object] = {"prompt": " ".join(prompt), "size": size, "output_format": form, "stream": True}
    if model:
        body["model"] = model
    if seed is not None:
        body["seed"] = seed
    with DrawingLine() as line, asked(server, "/images/generations", body, "text/event-stream", SILENCE_S) as response:
        data = _picture(response, server, line)
    try:
        path.write_bytes(data)
    except OSError as fault:
        raise Stop(f"{output} cannot be written: {fault.strerror}") from fault
    say(f"{path}: {readable_bytes(len(data))}")


def _picture(response: http.client.HTTPResponse, server: Server, line: DrawingLine) -> bytes:
    """Return the picture of an answer, telling `line` how far it is. Raises `Stop`."""
    try:
        if response.headers.get_content_type() == "application/json":
            text = msgspec.json.decode(response.read(REPLY_BYTES_MAX), type=_Reply).data[0].b64_json
        else:
            text = _streamed(response, line)
        return base64.b64decode(text, validate=True)
    except (msgspec.DecodeError, IndexError, binascii.Error) as fault:
        raise Stop(f"The server at {server.url} answered something that is no picture: {fault}") from fault


def _streamed(response: http.client.HTTPResponse, line: DrawingLine) -> str:
    """Return the first finished picture of a stream that is read to its end, in base64.

    Raises `Stop` and `msgspec.DecodeError`.
    """
    picture = ""
    while text := response.readline(REPLY_BYTES_MAX):
        if progress := _PROGRESS.fullmatch(text):
            line.report(int(progress[1]), int(progress[2]))
        elif text.startswith(b"data:"):
            event = msgspec.json.decode(text.removeprefix(b"data:"), type=_Event)
            if event.error is not None:
                raise Stop(f"the drawing broke off: {harmless(event.error.message)}")
            if event.type.endswith(".completed"):
                picture = picture or event.b64_json
    if picture:
        return picture
    raise Stop("the drawing broke off: the server closed the connection")


class DrawingLine:
    """Shows on standard error how far a picture is: one moving line on a terminal, else a line for each quarter."""

    def __init__(self) -> None:
        self._moving = sys.stderr.isatty()
        self._left = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._lock = threading.Lock()
        self._seconds = self._done = self._total = self._told = self._width = 0

    def __enter__(self) -> Self:
        if self._moving:
            self._show()
            self._ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        self._left.set()
        if self._moving:
            self._ticker.join()
            click.echo("\r" + " " * self._width + "\r", err=True, nl=False)

    def report(self, done: int, total: int) -> None:
        """Show that `done` of `total` steps are done."""
        self._done, self._total = done, total
        quarter = QUARTERS * done // total if total else 0
        if self._moving:
            self._show()
        elif quarter > self._told:
            say(progress_line(done, total, 0))
        self._told = max(quarter, self._told)

    def _tick(self) -> None:
        while not self._left.wait(TICK_S):
            self._seconds += 1
            self._show()

    def _show(self) -> None:
        with self._lock:
            line = progress_line(self._done, self._total, self._seconds)
            click.echo("\r" + line.ljust(self._width), err=True, nl=False)
            self._width = len(line)


def progress_line(done: int, total: int, seconds: int) -> str:
    """Return how far a picture is as one line, with a bar if the steps are known."""
    time = f", {seconds} s" if seconds else ""
    if not total:
        return f"Drawing{time}"
    share = min(done / total, 1.0)
    return f"Drawing [{'#' * int(share * BAR_WIDTH):<{BAR_WIDTH}}] {share:4.0%} step {done} of {total}{time}"
