"""An envelope that is posted for somebody else: read as far as delivering needs, and never changed (ENVL). Pure."""

from __future__ import annotations

import hashlib
import struct
import uuid
from typing import Final

import msgspec

from convene.agent_identity import verify_digest
from convene.errors import BadRequest
from convene.registry.base_names import ADDRESS

U64_MAX: Final = 2**64 - 1
UUID_VERSION: Final = 4
TEXT_MAX: Final = 200


class Posted(msgspec.Struct, frozen=True):
    """What is read of an envelope. Field names are the protocol's."""

    sender: str
    target: str
    session: str
    schema_digest: str
    payload: str | None = None
    expires: int | None = None
    nonce: int | None = None
    signature: str | None = None


_read = msgspec.json.Decoder(Posted).decode


def read_posted(body: bytes) -> Posted:
    """Return an envelope. Raises `BadRequest`, whatever the bytes are."""
    try:
        found = _read(body)
        session = uuid.UUID(found.session[:TEXT_MAX])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        raise _malformed() from None
    numbers = [number for number in (found.expires, found.nonce) if number is not None]
    if session.version != UUID_VERSION or not all(0 <= number <= U64_MAX for number in numbers):
        raise _malformed()
    if not ADDRESS.fullmatch(found.target) or max(len(found.sender), len(found.schema_digest)) > TEXT_MAX:
        raise _malformed()
    return msgspec.structs.replace(found, session=str(session))


def check_sender(posted: Posted) -> None:
    """Refuse an envelope that its sender has not signed. Raises `BadRequest`."""
    signed = hashlib.sha256()
    for text in (posted.sender, posted.target, posted.session, posted.schema_digest, posted.payload or ""):
        signed.update(text.encode())
    for number in (posted.expires, posted.nonce):
        if number is not None:
            signed.update(struct.pack(">Q", number))
    if not verify_digest(posted.sender, signed.digest(), posted.signature or ""):
        raise BadRequest("The envelope is not signed by its sender.", code="invalid_signature", param="signature")


def _malformed() -> BadRequest:
    return BadRequest("contents do not match envelope schema", code="invalid_envelope")
