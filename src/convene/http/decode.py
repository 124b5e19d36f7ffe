"""Streaming decompression of response bodies, bounded.

Here: `Inflater`, bytes in and bytes out, for the codings gzip and deflate. Deliberately not: brotli and zstd (the
client never asks for them, so a peer that sends one breaks the protocol) and stacked codings. Called by
`client_codec`.

The bound: a decoded body may exceed `DECODED_FREE_BYTES` only while it stays under `DECODED_RATIO_MAX` times what was
received, and never exceeds the cap given. DEFLATE reaches 1032:1 at most, JSON and event streams about 20:1, so the
ratio separates a bomb from an answer. zlib is told how much it may still produce, so a bomb is refused before it is
unpacked.
"""

from __future__ import annotations

import zlib
from typing import Final

from convene.http.base import Oversized, ProtocolBroken

CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
DECODED_FREE_BYTES: Final = 1 << 20
DECODED_RATIO_MAX: Final = 100

_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS
_ZLIB_METHOD: Final = 8


class Inflater:
    """Decodes one body. `coding` is one of `CODINGS`; `bytes_max` caps the decoded size in bytes."""

    __slots__ = ("_bytes_in", "_bytes_max", "_bytes_out", "_gzip", "_held", "_stream")

    def __init__(self, coding: str, bytes_max: int) -> None:
        self._gzip = coding != "deflate"
        self._bytes_max = bytes_max
        self._bytes_in = 0
        self._bytes_out = 0
        self._held = b""
        self._stream = zlib.decompressobj(_GZIP_WBITS) if self._gzip else None

    def feed(self, data: bytes) -> bytes:
        """Return what `data` decodes to, possibly nothing. Raises `ProtocolBroken` for bad data or a passed bound."""
        self._bytes_in += len(data)
        if self._stream is None:
            data = self._held + data
            if len(data) < 2:  # noqa: PLR2004 - the two bytes of a zlib header
                self._held = data
                return b""
            self._held = b""
            self._stream = zlib.decompressobj(_deflate_wbits(data))
        room = min(self._bytes_max, max(DECODED_FREE_BYTES, DECODED_RATIO_MAX * self._bytes_in)) - self._bytes_out
        out = b""
        while data:
            if self._stream.eof:
                self._stream = self._next_member()
            try:
                # One byte more than allowed: that byte is the proof that the bound was passed.
                piece = self._stream.decompress(data, room + 1)
            except zlib.error as error:
                raise ProtocolBroken("the compressed body is damaged") from error
            room -= len(piece)
            if room < 0:
                raise Oversized("the compressed body expands beyond what is allowed")
            out = out + piece if out else piece
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        self._bytes_out += len(out)
        return out

    def finish(self) -> None:
        """Say that the body is over. Raises `ProtocolBroken` if the compressed data is cut short."""
        if self._bytes_in and (self._stream is None or not self._stream.eof):
            raise ProtocolBroken("the compressed body is cut short")

    def _next_member(self) -> zlib._Decompress:
        """RFC 1952 2.2: a gzip file may be several members in a row; nothing may follow a deflate body."""
        if not self._gzip:
            raise ProtocolBroken("the compressed body is followed by other data")
        return zlib.decompressobj(_GZIP_WBITS)


def _deflate_wbits(start: bytes) -> int:
    """RFC 9110 8.4.1.2: `deflate` means zlib-wrapped, but some servers send it bare; the zlib header tells which."""
    wrapped = start[0] & 0x0F == _ZLIB_METHOD and (start[0] << 8 | start[1]) % 31 == 0
    return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS
