"""The front door: every request passes here once, on its way in and on its way out.

In: a request id, the route, CORS, the key (before the body is read), the endpoint. Out: every error in the one shape
(`problems.py`), the access log, the metrics. Plain ASGI; `routes.py` finds the endpoint, `app.py` fills the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Final

from convene.api.call import CLIENT_LEFT, Call, ClientLeftError
from convene.api.limit_headers import ReadyHeaders
from convene.api.origins import is_loopback_host
from convene.api.problems import body_of, headers_of, internal, status_of
from convene.errors import ConveneError, Forbidden

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from convene.api.browser import Browsers
    from convene.api.call import Receive, Scope, Send
    from convene.api.cors import Cors
    from convene.api.routes import Route, Router
    from convene.clock import Clock
    from convene.serving.base import Gatekeeper, Principal

    Witness = Callable[[Call, float], None]

log = logging.getLogger("convene.front")
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch
_TRACE_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


SAME: Final = "front"
_ASKED_FOR: Final = frozenset({b"x-request-id", b"traceparent", b"origin"})


class _Same:
    """Where a head leads that comes again, and whose it is: both follow from its bytes while the key holds."""

    __slots__ = ("plain", "principal", "route")

    def __init__(self, route: Route, principal: Principal, *, plain: bool) -> None:
        """`plain`: the head has none of the fields that `Front` asks for."""
        self.route = route
        self.principal = principal
        self.plain = plain


class Lifespan:
    """What starts before the first request and stops after the last, in order."""

    def __init__(self, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> None:
        self.start = start
        self.stop = stop

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak ASGI's lifespan protocol; other scopes that are no requests ask for nothing."""
        if scope["type"] != "lifespan":
            return
        await receive()
        try:
            await self.start()
        except Exception as fault:  # the protocol wants the reason as a message, whatever it is
            log.exception("start failed")
            await send({"type": "lifespan.startup.failed", "message": str(fault)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


class Front:
    """The ASGI application."""

    def __init__(  # noqa: PLR0913 -- the composition root names each
        self,
        *,
        router: Router,
        gatekeeper: Gatekeeper,
        clock: Clock,
        lifespan: Lifespan,
        cors: Cors,
        witnesses: Sequence[Witness],
        body_bytes_max: int,
        loopback_only: bool = False,
        browsers: Browsers | None = None,
    ) -> None:
        """`witnesses` are told of each request that has ended, with the seconds it took: the access log, the metrics.

        `browsers` finds who has logged in; without it only keys count.

        `loopback_only`: no keys are asked for, so only requests that name a loopback host pass (decisions 20).
        """
        self._router = router
        self.gatekeeper = gatekeeper
        self._monotonic = clock.monotonic
        self._stamped_id = clock.stamped_id  # by time: an index of them in the books grows at one end
        self._lifespan = lifespan
        self._cors = cors
        self._witnesses = tuple(witnesses)
        self.in_flight = 0
        self._body_bytes_max = body_bytes_max
        self._limit_headers = ReadyHeaders()
        self._loopback_only = loopback_only
        self._browsers = browsers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] != "http":
            await self._lifespan.run(scope, receive, send)
            return
        # Here and elsewhere a function kept in an attribute is read before it is called: CPython 3.11 is quick at
        # calling methods by name, and slow if the name turns out to be an attribute.
        monotonic = self._monotonic
        began_at = monotonic()
        self.in_flight += 1
        call = Call(scope, receive, send, self._body_bytes_max, self._limit_headers)
        try:
            same = self._same(call)
            if same is not None and same.plain:
                stamped_id = self._stamped_id
                call.name(stamped_id("req_"))
            elif await self._meet(call):
                return
            route = self._find(call) if same is None else same.route
            if call.principal is None and not route.open:
                await self._identify(call, route)
            endpoint = route.endpoint
            await endpoint(call)
        except ConveneError as fault:
            await self._refuse(call, fault)
        except ClientLeftError:
            call.status = CLIENT_LEFT
        except asyncio.CancelledError:
            call.status = call.status or CLIENT_LEFT
            raise
        except Exception:  # the last net: the client learns nothing but where to look, the log learns all
            log.exception("request %s failed", call.request_id)
            await self._refuse(call, internal(call.request_id))
        finally:
            self.in_flight -= 1
            duration_s = monotonic() - began_at
            for witness in self._witnesses:
                witness(call, duration_s)

    def _same(self, call: Call) -> _Same | None:
        """Return where the request leads if its connection has sent the same head before, and take in whose it is."""
        notes = call.notes
        same = None if notes is None else notes.get(SAME)
        if type(same) is not _Same or not self.gatekeeper.still(same.principal):
            return None
        call.principal, call.path = same.principal, same.route.path
        return same

    async def _meet(self, call: Call) -> bool:
        """Give the request its ids, look where it comes from; return whether that answered it. Raises `Forbidden`."""
        headers = call.headers
        call.name(self._request_id(headers.get(b"x-request-id")))
        call.trace_id = _trace_of(headers.get(b"traceparent"))
        origin = headers.get(b"origin")
        if origin is not None and await self._cors.apply(call, origin):
            return True
        if self._loopback_only:
            _check_host(call, origin)
        return False

    def _find(self, call: Call) -> Route:
        """Return where the request leads, and take in who is calling where that is known at once, as is common.

        Raises `NotFound` and `MethodNotAllowed` as the router, `Unauthorized` as the gatekeeper.
        """
        scope = call.scope
        route, call.params = self._router.find(scope["method"], scope["path"])
        call.path = route.path
        key = None if route.open else call.headers.get(b"authorization")
        known = None if key is None else self.gatekeeper.admit(key.decode("latin-1"))
        if known is not None and route.scope in known.scopes:
            call.principal = known
            if call.notes is not None and not call.params:
                call.notes[SAME] = _Same(route, known, plain=_ASKED_FOR.isdisjoint(call.headers))
        return route

    async def _identify(self, call: Call, route: Route) -> None:
        """Find out who is calling and whether that may use this route. Raises `Unauthorized`, `Forbidden`.

        A key in the header is all that counts if there is one; a browser's session only where the route says so.
        """
        key = call.header(b"authorization")
        if route.browser and key is None and self._browsers is not None and b"cookie" in call.headers:
            visitor = await self._browsers.caller(call)
            call.principal = None if visitor is None else visitor.principal
        if call.principal is None:
            call.principal = self.gatekeeper.admit(key) or await self.gatekeeper.look_up(key)
        if route.scope not in call.principal.scopes:
            raise Forbidden(f"This key or account lacks the scope {route.scope}.")

    def _request_id(self, incoming: bytes | None) -> str:
        """Take a sane incoming id over, else make one (OSDK-07)."""
        if incoming is not None:
            text = incoming.decode("latin-1")
            if _SANE_ID(text):
                return text
        return self._stamped_id("req_")

    @staticmethod
    async def _refuse(call: Call, fault: ConveneError) -> None:
        if call.status:
            log.error("request %s failed after its head had left: %s", call.request_id, fault.message)
            raise fault
        status = status_of(fault)
        if fault.detail:
            log.warning("request %s refused with %s: %s", call.request_id, status, fault.detail)
        with contextlib.suppress(ClientLeftError):
            await call.reply(status, body_of(fault), headers=headers_of(fault))


def _trace_of(parent: bytes | None) -> str:
    """Return the trace id of a W3C `traceparent` header, empty if it is none."""
    found = None if parent is None else _TRACE_PARENT(parent)
    return "" if found is None else found[1].decode()


def _check_host(call: Call, origin: bytes | None) -> None:
    """Without keys, a web page in the operator's browser must not reach the API by a name it controls.

    Pages of this server itself may: their origin is the host they ask.
    """
    host = (call.header(b"host") or "").strip().lower()
    is_own = origin is None or origin.partition(b"://")[2] == host.encode("latin-1")
    if not is_loopback_host(host) or not (is_own or call.cross_origin_allowed):
        raise Forbidden("This server runs without keys, so it answers only requests to a loopback address.")
