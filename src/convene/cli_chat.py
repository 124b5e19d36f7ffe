"""`convene chat`: ask a running server from the terminal, streaming, by the public API alone.

One prompt from the arguments or from standard input, or a conversation when standard input is a terminal. Not here: a
server (`convene serve` starts one), and any key but the one that flags or the environment name (`client_here`).
"""

from __future__ import annotations

import contextlib
import http.client
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import msgspec

from convene.cli_output import AskedWrongly, Stop, Verb, configured, harmless, put, say
from convene.config import client_here

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from convene.config import Config

_SILENCE_S = 300.0
"""Longest wait for bytes; the server itself sends a comment every few seconds of silence."""
_ERROR_BYTES_MAX = 65_536


class Server(msgspec.Struct, frozen=True):
    """Whom to ask and as whom."""

    url: str
    """With /v1, without a slash at the end."""
    key: str
    model: str
    session: str = ""


class Delta(msgspec.Struct, frozen=True):
    """One piece of an answer."""

    text: str = ""
    reasoning: str = ""


@click.command(
    "chat",
    cls=Verb,
    examples=(
        "convene chat",
        'convene chat "Say hello in one word."',
        "git diff | convene chat --system 'Write a commit message.'",
        "convene chat --url http://127.0.0.1:8000/v1 --model asi1 --session s1 hello",
    ),
)
@click.argument("prompt", nargs=-1)
@click.option("--url", default="", help="Base URL; else CONVENE_BASE_URL, ASI1_BASE_URL, OPENAI_BASE_URL, this host.")
@click.option("--key", default="", help="API key; better as CONVENE_API_KEY, which other users cannot list.")
@click.option("--model", default="", help="Model; else CONVENE_MODEL, else the configured default.")
@click.option("--session", default="", help="x-session-id, to go on with an agentic session.")
@click.option("--system", default="", help="System message.")
@configured()
def chat(config: Config, prompt: tuple[str, ...], url: str, key: str, model: str, session: str, system: str) -> None:
    """Chat with a running server; an empty line or ctrl-D ends."""
    known = client_here()
    host = "127.0.0.1" if config.host in ("", "0.0.0.0", "::") else config.host  # noqa: S104 -- compared, not bound
    bare = f"[{host}]" if ":" in host else host
    server = Server(
        url=base_url(url or known.url or f"http://{bare}:{config.port}"),
        key=key or known.key.reveal(),
        model=model or known.model or config.default_model,
        session=session,
    )
    messages = [{"role": "system", "content": system}] if system else []
    question = " ".join(prompt)
    if question or not sys.stdin.isatty():
        question = question or sys.stdin.read().strip()
        if not question:
            raise AskedWrongly("there is no prompt: give one as an argument or on standard input")
        answer(server, [*messages, {"role": "user", "content": question}])
        return
    say(f"{server.model} at {server.url}; ctrl-C stops an answer, an empty line ends.")
    _converse(server, messages)


def answer(server: Server, messages: list[dict[str, str]]) -> str:
    """Print the answer as it arrives and return it. Raises `Stop`."""
    whole = ""
    for delta in stream(server, messages):
        if delta.reasoning:
            click.echo(click.style(harmless(delta.reasoning), dim=True), err=True, nl=False)
        if delta.text:
            put(harmless(delta.text), newline=False)
            whole += delta.text
    put("")
    return whole


def stream(server: Server, messages: list[dict[str, str]]) -> Iterator[Delta]:
    """Yield the pieces of one answer.

    Raises:
        Stop: the server cannot be reached, refuses, or breaks off; the message says the next step.
    """
    body = {"model": server.model, "messages": messages, "stream": True}
    with asked(server, "/chat/completions", body, "text/event-stream") as response:
        yield from deltas(response)


@contextlib.contextmanager
def asked(
    server: Server, path: str, body: dict[str, Any], accept: str, silence_s: float = _SILENCE_S
) -> Iterator[http.client.HTTPResponse]:
    """Post and lend the answer of a success.

    Raises:
        Stop: the server cannot be reached, refuses, or breaks off; the message says the next step.
    """
    parts = urlsplit(server.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Content-Type": "application/json", "Accept": accept}
    headers |= {"Authorization": f"Bearer {server.key}"} if server.key else {}
    headers |= {"x-session-id": server.session} if server.session else {}
    with contextlib.closing(kind(parts.hostname or "", parts.port, timeout=silence_s)) as connection:
        try:
            connection.request("POST", f"{parts.path}{path}", msgspec.json.encode(body), headers)
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise refusal(server, response.status, response.read(_ERROR_BYTES_MAX))
            yield response
        except ConnectionRefusedError as error:
            raise Stop(
                f"nothing answers at {server.url}; start a server with `convene serve`, or give --url"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Stop(f"the connection to {server.url} failed: {str(error) or type(error).__name__}") from error


def deltas(lines: Iterable[bytes]) -> Iterator[Delta]:
    """Yield what the lines of an event stream say, up to `[DONE]`.

    Raises:
        Stop: an error frame, a frame that is no JSON, or an end before `[DONE]`.
    """
    for line in lines:
        if not line.startswith(b"data:"):
            continue  # comments, empty lines and other fields
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        try:
            frame = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise Stop("the server sent a frame that is no JSON") from error
        if isinstance(frame, dict) and frame.get("error"):
            raise Stop(f"the answer broke off: {_message_of(frame)}")
        found = _delta_of(frame)
        if found.text or found.reasoning:
            yield found
    raise Stop("the answer broke off: the server closed the connection")


def refusal(server: Server, status: int, body: bytes) -> Stop:
    """Return the error for a refused request, with the next step."""
    try:
        message = _message_of(msgspec.json.decode(body))
    except msgspec.DecodeError:
        message = harmless(body[:200].decode("utf-8", "replace")).strip() or http.client.responses.get(status, "")
    hint = ""
    if status == http.client.UNAUTHORIZED:
        hint = "\n  `convene keys create NAME` makes a key; pass it as CONVENE_API_KEY"
    elif status == http.client.NOT_FOUND:
        named = f", and {server.model} a model of GET /v1/models" if server.model else ""
        hint = f"\n  is {server.url} the right base URL{named}?"
    return Stop(f"the server answered {status}: {message}{hint}")


def base_url(text: str) -> str:
    """Return the base URL that `text` means: with /v1 if it has no path. Raises `AskedWrongly`."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AskedWrongly(f"{text!r} is no base URL; write http://HOST:PORT/v1")
    return text.rstrip("/") + ("" if parts.path.strip("/") else "/v1")


def _converse(server: Server, messages: list[dict[str, str]]) -> None:
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            question = ""
        if not question:
            return
        try:
            text = answer(server, [*messages, {"role": "user", "content": question}])
        except KeyboardInterrupt:
            say("\n(stopped)")
            continue
        except Stop as stop:
            stop.show()
            continue
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": text}]


def _delta_of(frame: Any) -> Delta:  # noqa: ANN401 -- JSON from outside
    try:
        delta = frame["choices"][0]["delta"]
        text, reasoning = delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning")
    except (KeyError, IndexError, TypeError, AttributeError):
        return Delta()  # a usage or progress frame, or a dialect that we do not know
    return Delta(text if isinstance(text, str) else "", reasoning if isinstance(reasoning, str) else "")


def _message_of(body: Any) -> str:  # noqa: ANN401 -- JSON from outside
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return harmless(message) if isinstance(message, str) else "no reason given"
