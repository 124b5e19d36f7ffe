"""`convene image`: have a running server draw, by the public API alone."""

from __future__ import annotations

import base64
import binascii
import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from convene.cli_chat import Server, asked, base_url
from convene.cli_output import AskedWrongly, Stop, Verb, configured, say
from convene.config import client_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convene.config import Config

FORMATS: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
TICK_S: Final = 1.0
SILENCE_S: Final = 900.0
"""Longest wait: a picture takes minutes on a small machine, and nothing comes before it is there."""
REPLY_BYTES_MAX: Final = 64 * 1024 * 1024


class _Item(msgspec.Struct):
    b64_json: str


class _Reply(msgspec.Struct):
    data: list[_Item]


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
    server = Server(
        url=base_url(url or known.url or f"http://127.0.0.1:{config.port}"), key=key or known.key.reveal(), model=model
    )
    body: dict[str, object] = {"prompt": " ".join(prompt), "size": size, "output_format": form}
    if model:
        body["model"] = model
    if seed is not None:
        body["seed"] = seed
    with _waiting(), asked(server, "/images/generations", body, "application/json", SILENCE_S) as response:
        answer = response.read(REPLY_BYTES_MAX)
    try:
        data = base64.b64decode(msgspec.json.decode(answer, type=_Reply).data[0].b64_json, validate=True)
    except (msgspec.DecodeError, IndexError, binascii.Error) as fault:
        raise Stop(f"The server at {server.url} answered something that is no picture: {fault}") from fault
    path.write_bytes(data)
    say(f"{path}: {len(data)} bytes")


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    """Show on a terminal that time passes: the API tells no progress of a whole answer."""
    done = threading.Event()

    def show() -> None:
        with click.progressbar(length=0, label="Drawing", show_eta=False, show_percent=False) as bar:
            while not done.wait(TICK_S):
                bar.update(0)

    shower = threading.Thread(target=show, daemon=True)
    shower.start()
    try:
        yield
    finally:
        done.set()
        shower.join()
