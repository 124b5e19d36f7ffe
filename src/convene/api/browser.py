"""Browsers that have logged in: the cookie, and the token that a change needs (reliability 6.5, E11).

The cookie holds an opaque session, never an API key, and is looked at only by routes that say `browser=True`. Over TLS
it is `__Host-convene`: Secure, for this host and no other, so that no neighbour can set it. A browser takes no Secure
cookie over plain HTTP, so for a request to a loopback name it is `convene`, without Secure; the two never stand in for
each other. The token of a form is derived from the cookie, so another site, which can read neither, cannot form one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

from convene.api.origins import check_same_origin, is_loopback_host
from convene.errors import Forbidden

if TYPE_CHECKING:
    from convene.api.call import Call
    from convene.api.problems import Header
    from convene.serving.base_accounts import Doors, Visitor

SECURE_NAME: Final = "__Host-convene"
PLAIN_NAME: Final = "convene"
TOKEN_HEADER: Final = b"x-convene-token"
_SANE: Final = re.compile(r"[0-9A-Za-z_]{20,100}", re.ASCII).fullmatch
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


class Browsers:
    """Finds who is logged in."""

    def __init__(self, doors: Doors, public_url: str = "") -> None:
        self._doors = doors
        self._public_url = public_url.rstrip("/")

    async def visitor(self, call: Call) -> Visitor | None:
        """Return who holds the request's cookie, or None. Raises `StoreFault`."""
        cookie = cookie_of(call)
        return None if cookie is None else await self._doors.admit(cookie)

    async def caller(self, call: Call) -> Visitor | None:
        """Return the same for a call of the API; a change also needs origin and token. Raises `Forbidden`."""
        visitor = await self.visitor(call)
        if visitor is not None and call.scope["method"] not in _SAFE_METHODS:
            self.check_change(call, call.header(TOKEN_HEADER) or "")
        return visitor

    def check_change(self, call: Call, token: str) -> None:
        """Raise `Forbidden` unless a page of ours sent this, with the token that we wrote into it."""
        check_same_origin(call, self._public_url)
        cookie = cookie_of(call)
        wanted = "" if cookie is None else form_token_of(cookie)
        if not wanted or not hmac.compare_digest(wanted.encode(), token.encode("utf-8", "surrogatepass")):
            raise Forbidden("The form is out of date. Open /account and try again.")


def form_token_of(cookie: str) -> str:
    """Return the token that belongs to a cookie's value: 64 hex digits that tell nothing of it."""
    return hmac.new(cookie.encode(), b"convene form token 1", hashlib.sha256).hexdigest()


def cookie_of(call: Call) -> str | None:
    """Return the value of our cookie; None if there is none, more than one, or no value of ours."""
    name = _name_for(call)
    parts = (part.strip().partition("=") for part in (call.header(b"cookie") or "").split(";"))
    values = [value for key, _, value in parts if key == name]
    return values[0] if len(values) == 1 and _SANE(values[0]) else None


def set_cookie(call: Call, value: str) -> Header:
    """Return the header that sets the cookie until the browser closes; the server ends it earlier by itself."""
    return b"set-cookie", f"{_name_for(call)}={value}; {_attributes(call)}".encode()


def drop_cookie(call: Call) -> Header:
    """Return the header that removes the cookie."""
    return b"set-cookie", f"{_name_for(call)}=; Max-Age=0; {_attributes(call)}".encode()


def _name_for(call: Call) -> str:
    return PLAIN_NAME if _is_local(call) else SECURE_NAME


def _attributes(call: Call) -> str:
    common = "Path=/; HttpOnly; SameSite=Lax"
    return common if _is_local(call) else f"{common}; Secure"


def _is_local(call: Call) -> bool:
    return is_loopback_host((call.header(b"host") or "").strip().lower())
