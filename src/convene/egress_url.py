"""A URL that a stranger wrote, read once: pure.

Here: `read_url`, the only parser on the way out, and `follow`, which reads a redirect's Location. Strict where parsers
disagree: what two programs may read as two hosts is refused, never repaired. What it returns is canonical ASCII, so
whatever reads it again cannot see another host; and the connection goes to the addresses judged for `Place.host` alone.

Not here: which addresses are good (`egress_address`) and which ports (`egress`).
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Final
from urllib.parse import quote, urljoin

import msgspec

URL_CHARACTERS_MAX: Final = 4096
HOST_CHARACTERS_MAX: Final = 253
LABEL_CHARACTERS_MAX: Final = 63
PORTS: Final = {"http": 80, "https": 443}

_SHAPE: Final = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(#.*)?")
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f-\xa0\\\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]")
"""Controls, every kind of space, invisible marks of direction, and the backslash, which browsers read as a slash."""
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""What makes a last label a number, and so the whole an IPv4 address to somebody (WHATWG URL 3.5)."""
_QUAD: Final = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_PORT_MAX: Final = 65535
_KEPT: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"<>^`{|}')


class BadUrl(ValueError):
    """Not a URL that is followed; the message says why and holds no part of it."""


class Place(msgspec.Struct, frozen=True):
    """Where a URL leads."""

    scheme: str
    host: str
    """A name in lower-case ASCII without a last dot, or an address; IPv6 without brackets."""
    port: int
    target: str
    """Path and query."""
    is_address: bool

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials belong to."""
        return (self.scheme, self.host, self.port)

    @property
    def url(self) -> str:
        """The one spelling of it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


def read_url(url: str) -> Place:
    """Return where an absolute http or https URL leads; its fragment is dropped. Raises `BadUrl`."""
    if len(url) > URL_CHARACTERS_MAX:
        raise BadUrl(f"it is longer than {URL_CHARACTERS_MAX} characters")
    if _FORBIDDEN.search(url):
        raise BadUrl("it has a space, a control character or a backslash in it")
    found = _SHAPE.fullmatch(url)
    if found is None or found["scheme"].lower() not in PORTS:
        raise BadUrl("it is not an absolute http:// or https:// address")
    scheme = found["scheme"].lower()
    host, port, is_address = _read_authority(found["authority"], PORTS[scheme])
    try:
        target = quote((found["path"] or "/") + (found["query"] or ""), safe=_KEPT)
    except UnicodeEncodeError:
        raise BadUrl("it has a character that cannot be sent") from None
    return Place(scheme, host, port, target, is_address)


def follow(place: Place, location: str) -> Place:
    """Return where a redirect from `place` leads. Raises `BadUrl`.

    Header bytes come as latin-1; servers mean UTF-8 by those above 127.
    """
    if len(location) > URL_CHARACTERS_MAX:
        raise BadUrl(f"it is longer than {URL_CHARACTERS_MAX} characters")
    try:
        location = location.strip(" \t").encode("latin-1").decode("utf-8")
    except UnicodeError:
        raise BadUrl("it is not UTF-8") from None
    if not location or _FORBIDDEN.search(location):
        raise BadUrl("it is empty, or has a space, a control character or a backslash in it")
    try:
        joined = urljoin(place.url, location)
    except ValueError:
        raise BadUrl("it is malformed") from None
    return read_url(joined)


def _read_authority(text: str, default_port: int) -> tuple[str, int, bool]:
    if "@" in text:
        raise BadUrl("it has a user name in it")
    if text.startswith("["):
        inner, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise BadUrl("its host is malformed")
        return _read_v6(inner), _read_port(rest, default_port), True
    name, colon, digits = text.partition(":")
    host = _read_name(name)
    return host, _read_port(colon + digits, default_port), _QUAD.fullmatch(host) is not None


def _read_port(text: str, default: int) -> int:
    if not text:
        return default
    if _PORT.fullmatch(text[1:]) is None or int(text[1:]) > _PORT_MAX:
        raise BadUrl("its port is malformed")
    return int(text[1:])


def _read_v6(text: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f:.]+", text) is None:
        raise BadUrl("its IPv6 address is malformed or has a zone")
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise BadUrl("its IPv6 address is malformed") from None


def _read_name(text: str) -> str:
    if unicodedata.normalize("NFKC", text) != text:
        raise BadUrl("its host has a character that is not one of a name")
    labels = [_read_label(label) for label in text.lower().removesuffix(".").split(".")]
    host = ".".join(labels)
    if len(host) > HOST_CHARACTERS_MAX:
        raise BadUrl("its host is too long")
    if _NUMERIC.fullmatch(labels[-1]):
        # Only the plain spelling of an IPv4 address: 127.1, 0x7f.1, 017700000001 and 2130706433 mean one to somebody.
        if _QUAD.fullmatch(text) is None or any(int(label) > 255 for label in labels):  # noqa: PLR2004 - one byte
            raise BadUrl("its host is a number, but not an IPv4 address as a.b.c.d")
        return text
    return host


def _read_label(label: str) -> str:
    """Return one label of a name in ASCII.

    A label of other scripts becomes Punycode if it is as IDNA 2008 has it: letters, digits and marks, and (the caller
    has looked) already what NFKC makes of it. So `①②⑦`, `。`, full-width letters and invisible characters are no way to
    spell something else.
    """
    if not label.isascii():
        kinds = {unicodedata.category(character) for character in label if character != "-"}
        if not kinds <= {"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"}:
            raise BadUrl("its host has a character that is not one of a name")
        label = "xn--" + label.encode("punycode").decode("ascii")
    if len(label) > LABEL_CHARACTERS_MAX or _LABEL.fullmatch(label) is None:
        raise BadUrl("its host is malformed")
    return label
