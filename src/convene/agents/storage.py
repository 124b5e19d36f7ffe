"""Files that agents leave in an Agentverse's storage and name in their answers, brought to the user (STORE-02).

    agent-storage://HOST/UUID, agent-storage://https://HOST/v1/storage/UUID ──► place_of ──► read ──► picture, or data

Nobody but an agent can follow such an address. Pictures become links of this server's, everything else that is small a
`data:` address; what cannot be read stays as it is. The proof of who we are goes to the configured directory alone, in
the way that the operator wrote: it names no audience, so whoever got it could use it elsewhere for an hour.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from convene.agents.base import Attachment
from convene.agents.mailbox import NONCE_BYTES, attestation_of
from convene.egress import Request
from convene.errors import ConveneError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.agents.base import Heard
    from convene.agents.courier import Sender
    from convene.agents.mailbox import Prover
    from convene.clock import Clock

log = logging.getLogger("convene.agents")

SCHEME: Final = "agent-storage:"
ANSWER_BYTES_MAX: Final = 15 * 1024 * 1024
"""Ten million bytes in base64, and their name: what storages take."""
WAIT_S: Final = 20.0
DATA_BYTES_MAX: Final = 180_000
"""Of a file that is handed on inside its address: a quarter more in base64."""
OK: Final = 200
PLACE: Final = re.compile(
    r"agent-storage://(?:(?P<scheme>https?)://)?(?P<host>[^\s/?#@]{1,260})(?:/v1/storage)?/"
    r"(?P<id>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})/?"
)
MEDIA_TYPE: Final = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)

PictureFormat = Literal["png", "jpeg", "webp"]


class Place(NamedTuple):
    """Where a file is."""

    scheme: str
    """Empty: the address does not say."""
    host: str
    """With its port, if it has one."""
    file: str


class Kept(msgspec.Struct, frozen=True):
    """A file."""

    media_type: str
    contents: bytes


class Shelf(Protocol):
    """Keeps pictures for users."""

    async def __call__(self, picture: bytes, form: PictureFormat, owner: str) -> str:
        """Keep a picture of an owner's and return a link to it. Raises `StoreFault`."""
        ...


class _Answer(msgspec.Struct):
    contents: str
    mime_type: str = ""


def place_of(uri: str) -> Place | None:
    """Return where a file of a storage is; None: this is no such address."""
    found = PLACE.fullmatch(uri.strip())
    return None if found is None else Place(found["scheme"] or "", found["host"].lower(), found["id"].lower())


class Storages:
    """Reads files of storages, this server's own and others."""

    def __init__(
        self,
        egress: Sender,
        me: Prover,
        clock: Clock,
        own: Callable[[str, str], Awaitable[Kept | None]],
        shelve: Shelf,
        trusted: str = "",
    ) -> None:
        """Take what is needed.

        Args:
            egress: the guarded way out.
            me: our identity.
            clock: the time.
            own: reads a file here, as far as it may be read by us; None: the host is not this server.
            shelve: keeps pictures for users.
            trusted: address of the directory that may see proofs of who we are; empty: there is none.
        """
        self._egress = egress
        self._me = me
        self._clock = clock
        self._own = own
        self._shelve = shelve
        self._trusted = urlsplit(trusted.lower())

    async def opened(self, heard: Heard, owner: str) -> Heard:
        """Return what was heard with addresses that an owner can use; never raises."""
        if not any(one.uri.startswith(SCHEME) for one in heard.attachments):
            return heard
        attachments = [await self._open(one, owner) for one in heard.attachments]
        return msgspec.structs.replace(heard, attachments=tuple(attachments))

    async def _open(self, attachment: Attachment, owner: str) -> Attachment:
        place = place_of(attachment.uri)
        if place is None:
            return attachment
        try:
            kept = await self._own(place.host, place.file) or await self._fetch(place)
            return attachment if kept is None else await self._shown(attachment, kept, owner)
        except ConveneError as fault:
            log.info("a file of an agent's cannot be read: %s %s %s", attachment.uri, fault.message, fault.detail)
            return attachment

    async def _shown(self, attachment: Attachment, kept: Kept, owner: str) -> Attachment:
        form = form_of(kept.contents)
        if form is not None:
            link = await self._shelve(kept.contents, form, owner)
            return Attachment(uri=link, media_type=f"image/{form}", role=attachment.role)
        if len(kept.contents) > DATA_BYTES_MAX:
            return attachment
        media_type = kept.media_type if MEDIA_TYPE.fullmatch(kept.media_type) else "application/octet-stream"
        data = base64.b64encode(kept.contents).decode()
        return Attachment(uri=f"data:{media_type};base64,{data}", media_type=media_type, role=attachment.role)

    async def _fetch(self, place: Place) -> Kept | None:
        """Read a file elsewhere; None: it cannot be read. Raises `ConveneError` for what is wrong on the way."""
        headers = [("accept", "application/json")]
        scheme = place.scheme or "https"
        if place.host == self._trusted.netloc:
            proof = attestation_of(self._me, int(self._clock.now()), self._clock.token(NONCE_BYTES))
            headers.append(("authorization", f"Agent {proof}"))
            scheme = self._trusted.scheme
        request = Request(
            url=f"{scheme}://{place.host}/v1/storage/assets/{place.file}/contents/",
            headers=tuple(headers),
            redirects_max=0,
            body_bytes_max=ANSWER_BYTES_MAX,
            total_s=WAIT_S,
        )
        async with await self._egress.fetch(request) as answer:
            return _kept(await answer.read()) if answer.status == OK else None


def form_of(data: bytes) -> PictureFormat | None:
    """Return which picture a file is by its first bytes, whatever it is called."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None


def _kept(body: bytes) -> Kept | None:
    try:
        found = msgspec.json.decode(body, type=_Answer)
        return Kept(found.mime_type, base64.b64decode(found.contents, validate=True))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError):
        return None
