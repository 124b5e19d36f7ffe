"""`Idempotency-Key`: a POST and its repeats are answered once, with the same bytes (OSDK-06, goal B5).

`Idempotent` goes around an endpoint. The first request with a key runs; its answer passes through a tape on its way to
the client. A repeat gets what the tape has, with `idempotent-replayed: true` and a request id of its own. What an
answer is worth keeping for:

    2xx, and what will not get better by repeating (4xx)     kept
    429 and 5xx, a stream that broke off, a client that left   released: the next repeat runs
    larger than `bytes_max`                                   not kept, but not run again either: repeats are refused

A request without the header costs one look-up in a dictionary. Not here: who waits for whom (`serving/replays.py`).
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from convene.api.problems import body_of, status_of
from convene.errors import BadRequest, ConveneError, Unavailable
from convene.store.base_answers import SavedAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, MutableMapping

    from convene.api.call import Call, Send
    from convene.api.problems import Header
    from convene.api.routes import Endpoint
    from convene.serving.base_replays import Flight, Kept

HEADER: Final = b"idempotency-key"
REPLAYED: Final[Header] = (b"idempotent-replayed", b"true")
KEPT_HEADERS: Final = frozenset({b"content-type", b"cache-control", b"x-accel-buffering", b"x-should-retry"})
"""Headers that belong to an answer's bytes; the others (ids, limits, CORS) belong to the request that asks."""
JSON: Final = "application/json"
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]{1,255}").fullmatch


class Idempotent:
    """An endpoint that answers repeats of a request with what it answered first."""

    def __init__(self, endpoint: Endpoint, kept: Kept, bytes_max: int) -> None:
        """`bytes_max`: the largest answer that is kept."""
        self._endpoint = endpoint
        self._kept = kept
        self._bytes_max = bytes_max

    def __call__(self, call: Call) -> Awaitable[None]:
        """Answer one request; one without the header is the endpoint's own, without a coroutine around it."""
        key = call.headers.get(HEADER)
        if key is None:
            endpoint = self._endpoint
            return endpoint(call)
        return self._answer(call, key)

    async def _answer(self, call: Call, key: bytes) -> None:
        if _VISIBLE(key) is None:
            message = "The header Idempotency-Key must be 1 to 255 visible ASCII characters, without spaces."
            raise BadRequest(message, code="invalid_idempotency_key", param="Idempotency-Key")
        replays = self._kept.replays
        if replays is None:
            raise Unavailable("The server is still starting; try again.", retry_after_s=1.0)
        body = await call.raw_body()
        begun = await replays.begin(call.caller.owner, key.decode("ascii"), fingerprint_of(call, body))
        if isinstance(begun, SavedAnswer):
            await replay(call, begun)
        else:
            await self._run(call, body, begun)

    async def _run(self, call: Call, body: bytes, flight: Flight) -> None:
        tape = Tape(call, flight, self._bytes_max)
        send = call.divert(body, tape.send)
        try:
            await self._endpoint(call)
        except ConveneError as fault:
            status = status_of(fault)
            if not call.status and not is_passing(status):
                await flight.keep(SavedAnswer(status=status, headers=(("content-type", JSON),), body=body_of(fault)))
            raise
        finally:
            call.send = send
            await flight.release()


class Tape:
    """Takes down an answer while it passes; its last bytes leave once it is kept.

    The head leaves with the first bytes: a whole answer is kept even if its client turns out to have left.
    """

    def __init__(self, call: Call, flight: Flight, bytes_max: int) -> None:
        self._call = call
        self._send: Send = call.send
        self._flight = flight
        self._left = bytes_max
        self._bytes_max = bytes_max
        self._status = 0
        self._head: MutableMapping[str, Any] | None = None
        self._headers: tuple[tuple[str, str], ...] = ()
        self._pieces: list[bytes] = []

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Pass one ASGI message on."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = tuple(
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message["headers"]
                if name in KEPT_HEADERS
            )
            self._head = message
            return
        self._take(message.get("body", b""))
        if not message.get("more_body", False):
            await self._end()
        head, self._head = self._head, None
        if head is not None:
            await self._send(head)
        await self._send(message)

    def _take(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._left < 0:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    async def _end(self) -> None:
        if is_passing(self._status) or self._call.broke_off:
            return
        if self._left >= 0:
            answer = SavedAnswer(status=self._status, headers=self._headers, body=b"".join(self._pieces))
        else:
            answer = refuse_repeats(self._bytes_max)
        await self._flight.keep(answer)


def fingerprint_of(call: Call, body: bytes) -> bytes:
    """Return what tells a repeat from another request: SHA-256 over method, path, session and body as it came."""
    session = call.headers.get(b"x-session-id", b"")
    digest = hashlib.sha256()
    for part in (call.scope["method"].encode(), call.path.encode(), session, body):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def is_passing(status: int) -> bool:
    """Whether a failure with this status may be over when the request is repeated."""
    return status >= 500 or status == 429  # noqa: PLR2004 - statuses are plainest as numbers


def refuse_repeats(bytes_max: int) -> SavedAnswer:
    """Return what repeats of a request get whose answer was too large to keep: it must not run twice."""
    fault = BadRequest(
        f"This request was answered before, but its answer was larger than {bytes_max} bytes and was not kept. "
        "To run it again, send it with a new Idempotency-Key.",
        code="idempotent_answer_not_kept",
        param="Idempotency-Key",
    )
    return SavedAnswer(status=status_of(fault), headers=(("content-type", JSON),), body=body_of(fault))


async def replay(call: Call, answer: SavedAnswer) -> None:
    """Give a kept answer again."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    content_type = next((value for name, value in headers if name == b"content-type"), JSON.encode())
    others = [(name, value) for name, value in headers if name != b"content-type"]
    call.streamed = content_type.startswith(b"text/event-stream")
    await call.reply(answer.status, answer.body, content_type, [*others, REPLAYED])
