"""Where a URL leads: pure.

Here: `parse_url`, `parse_proxy` and `choose_proxy`. Not here: reading the environment (configuration does that), DNS
and sockets (`connect`). Called by `client`, once per distinct URL.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

_URL: Final = re.compile(r"[!-~]+")
_PORTS: Final = {"http": 80, "https": 443}


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy. `authorization` is the value of Proxy-Authorization, empty for none."""

    host: str
    port: int
    authorization: str = ""

    def __repr__(self) -> str:
        """Show where it is and never its credentials."""
        return f"Proxy({self.host}:{self.port})"


class Origin(msgspec.Struct, frozen=True):
    """What one pool of connections leads to."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None

    @property
    def authority(self) -> str:
        """Host and port, as CONNECT names them (RFC 9112 3.2.3)."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def host_field(self) -> str:
        """The value of Host: without the port where it is the scheme's own."""
        return _bracketed(self.host) if self.port == _PORTS[self.scheme] else self.authority


def parse_url(url: str) -> tuple[Origin, str]:
    """Return the origin and the target (path and query) of an absolute http or https URL; its fragment is dropped.

    Raises `ValueError` for anything else. The characters are checked before the parsing, because `urlsplit` silently
    removes CR, LF and tab. Credentials in the URL are refused: they belong in a header.
    """
    scheme, host, port, parts_target = _split(url, "the URL")
    if "@" in urlsplit(url).netloc:
        raise ValueError("the URL has credentials in it")
    return Origin(scheme, host, port), parts_target


def parse_proxy(url: str) -> Proxy:
    """Return the proxy that `http://[user:password@]host[:port]` names. Raises `ValueError`, without the URL in it."""
    scheme, host, port, _ = _split(url if "://" in url else f"http://{url}", "the proxy URL")
    if scheme != "http":
        raise ValueError("the proxy URL is not http")
    parts = urlsplit(url if "://" in url else f"http://{url}")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(host, port, authorization)


def choose_proxy(url: str, http_proxy: str | None, https_proxy: str | None, no_proxy: Sequence[str]) -> str | None:
    """Return the proxy URL to reach `url` by, None to go there directly.

    `no_proxy` names what is reached directly: `*`, a host (and all its subdomains, with or without a leading dot),
    either with `:port`, an address, or a network such as `10.0.0.0/8`.
    """
    scheme, host, port, _ = _split(url, "the URL")
    proxy = https_proxy if scheme == "https" else http_proxy
    if not proxy or any(_is_named(entry.strip().lower(), host, port) for entry in no_proxy):
        return None
    return proxy


def _split(url: str, what: str) -> tuple[str, str, int, str]:
    if _URL.fullmatch(url) is None:
        raise ValueError(f"{what} has a character that is not allowed")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # urlsplit's own message repeats the text, which may hold a password.
        raise ValueError(f"{what} is malformed") from None
    if parts.scheme not in _PORTS or not host:
        raise ValueError(f"{what} is not an absolute http or https URL")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, host, _PORTS[parts.scheme] if port is None else port, target


def _is_named(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return _is_inside(host, entry)
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isdecimal() and (":" not in name or name.startswith("[")):
        if int(digits) != port:
            return False
        entry = name
    entry = entry.strip("[]").lstrip(".")
    return bool(entry) and (host == entry or host.endswith("." + entry))


def _is_inside(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
