"""Browsers of other origins: one setting lists who may call (OSDK-13). Never a wildcard together with credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convene.api.call import Call

EXPOSED = b"x-request-id, idempotent-replayed, x-should-retry, retry-after, retry-after-ms, " + b", ".join(
    b"x-ratelimit-%b-%b" % (what, unit)
    for what in (b"limit", b"remaining", b"reset")
    for unit in (b"requests", b"tokens")
)
USUAL_HEADERS = b"authorization, content-type, x-session-id, x-request-id, idempotency-key"
PREFLIGHT_S = b"600"


class Cors:
    """Which origins may call: exact origins, or `*` for all."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.rstrip("/").encode() for origin in origins)

    async def apply(self, call: Call, origin: bytes) -> bool:
        """Add the headers for an allowed origin; answer a preflight and return True if it was one."""
        if not self._any and origin not in self._origins:
            return False
        call.cross_origin_allowed = True
        call.common.append((b"access-control-allow-origin", b"*" if self._any else origin))
        if not self._any:
            call.common.append((b"vary", b"origin"))
        if call.scope["method"] != "OPTIONS" or call.header(b"access-control-request-method") is None:
            call.common.append((b"access-control-expose-headers", EXPOSED))
            return False
        asked = call.header(b"access-control-request-headers")
        allowed = USUAL_HEADERS if asked is None else asked.encode("latin-1")
        await call.reply(
            204,
            b"",
            headers=[
                (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
                (b"access-control-allow-headers", allowed),
                (b"access-control-max-age", PREFLIGHT_S),
            ],
        )
        return True
