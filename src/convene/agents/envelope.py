"""Envelopes of the Agent Chat Protocol (ENVL): read from strangers' bytes, sealed for the way out. Pure.

    Draft ──► seal(sign) ──► bytes ──► POST                         what we say
    POST  ──► bytes ──► read_envelope ──► digest ──► verify ──► payload      what is said to us; `inbox.py` verifies

Signed are sender, target, session, schema digest, payload and, where they are there, `expires` and `nonce`; `version`
and `protocol_digest` are not, so nothing is decided by them (ENVL-01). Keys and signatures are handed in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import uuid
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION: Final = 1
U64_MAX: Final = 2**64 - 1
UUID_VERSION: Final = 4
TEXT_MAX: Final = 200
"""Characters of an address or a digest; longer ones are none."""


class BadEnvelopeError(Exception):
    """Not an envelope. The text is fit for whoever sent it."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One envelope. `session` is a version 4 UUID in its canonical spelling, as it is signed."""

    version: int = VERSION
    sender: str
    target: str
    session: str
    schema_digest: str
    protocol_digest: str | None = None
    payload: str | None = None
    """Base64 of the message's JSON, as it is signed."""
    expires: int | None = None
    nonce: int | None = None
    signature: str | None = None

    def digest(self) -> bytes:
        """Return what is signed."""
        signed = hashlib.sha256()
        for text in (self.sender, self.target, self.session, self.schema_digest, self.payload or ""):
            signed.update(text.encode())
        for number in (self.expires, self.nonce):
            if number is not None:
                signed.update(struct.pack(">Q", number))
        return signed.digest()

    def body(self) -> bytes:
        """Return the message's JSON. Raises `BadEnvelopeError`."""
        try:
            return base64.b64decode(self.payload or "", validate=True)
        except (binascii.Error, ValueError):
            raise BadEnvelopeError("the payload is not base64") from None


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message before it has a sender."""

    schema_digest: str
    protocol_digest: str
    body: bytes


_read = msgspec.json.Decoder(Envelope).decode
_write = msgspec.json.Encoder().encode


def canonical_uuid(text: str) -> str | None:
    """Return a version 4 UUID as it is signed and compared, or None."""
    if len(text) > len("urn:uuid:{}") + 36:
        return None
    try:
        found = uuid.UUID(text)
    except ValueError:
        return None
    return str(found) if found.version == UUID_VERSION else None


def read_envelope(body: bytes) -> Envelope:
    """Read an envelope of any sender's. Raises `BadEnvelopeError`, whatever the bytes are."""
    try:
        found = _read(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadEnvelopeError("contents do not match envelope schema") from None
    session = canonical_uuid(found.session)
    if session is None:
        raise BadEnvelopeError("contents do not match envelope schema: session is no UUID of version 4")
    for number in (found.expires, found.nonce):
        if number is not None and not 0 <= number <= U64_MAX:
            raise BadEnvelopeError("contents do not match envelope schema: expires and nonce have 64 bits")
    if max(len(found.sender), len(found.target), len(found.schema_digest), len(found.signature or "")) > TEXT_MAX:
        raise BadEnvelopeError("contents do not match envelope schema: an address or a digest is too long")
    return msgspec.structs.replace(found, session=session)


def seal(draft: Draft, sender: str, target: str, session: str, sign: Callable[[bytes], str]) -> bytes:
    """Return the bytes to post; `sign` turns a digest into the sender's signature.

    Agents pay no heed to `expires` in a conversation, so there is none (ENVL-04).
    """
    envelope = Envelope(
        sender=sender,
        target=target,
        session=session,
        schema_digest=draft.schema_digest,
        protocol_digest=draft.protocol_digest,
        payload=base64.b64encode(draft.body).decode(),
    )
    return _write(msgspec.structs.replace(envelope, signature=sign(envelope.digest())))
