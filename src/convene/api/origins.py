"""Whether a request comes from this machine, and from a page of this server: what browsers say of themselves. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from convene.errors import Forbidden

if TYPE_CHECKING:
    from convene.api.call import Call

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]*)?").fullmatch


def is_loopback_host(host: str) -> bool:
    """Whether a lower-case Host header names this machine: localhost, 127.0.0.0/8, ::1."""
    name = _HOST(host)
    if name is None or name[1] == "localhost":
        return name is not None
    try:
        return ipaddress.ip_address(name[1].strip("[]")).is_loopback
    except ValueError:
        return False


def check_same_origin(call: Call, public_url: str = "") -> None:
    """Raise `Forbidden` unless a browser says that a page of this server sent the request (reliability 6.5, E11).

    `Sec-Fetch-Site`, which a page cannot set, decides where it is sent; else `Origin` must be the host that was asked
    or the public address. Without either there is nothing to go by, and the answer is no.
    """
    site = call.header(b"sec-fetch-site")
    if site is not None:
        is_own = site == "same-origin"
    else:
        origin = (call.header(b"origin") or "").lower()
        scheme, _, host = origin.partition("://")
        asked = (call.header(b"host") or "").strip().lower()
        is_own = scheme in {"http", "https"} and host != "" and (host == asked or origin == public_url.lower())
    if not is_own:
        raise Forbidden("This change was not sent by a page of this server. Open /account and try again.")


def check_page(call: Call, public_url: str = "") -> None:
    """Raise `Forbidden` if a page of a browser asks that is neither of this machine, of this server nor an allowed one.

    For protocols of programs: a page that has made its own name lead to this machine sends that name as its origin.
    """
    origin = (call.header(b"origin") or "").lower()
    if not origin or call.cross_origin_allowed or (public_url and origin == public_url.lower().rstrip("/")):
        return
    if not is_loopback_host(origin.partition("://")[2]):
        raise Forbidden("Pages of this origin may not ask here; the operator lists those that may in cors_origins.")
