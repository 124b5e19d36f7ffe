"""The guarded way out: the only way to an address that a stranger named, be it a web page, an agent or a redirect.

    Request ─► read_url ─► lookup ─► Judge (all answers) ─► Wire, to those very addresses ─► Fetched
                  ▲                                             │ redirect: read, looked up and judged anew
                  └─────────────────────────────────────────────┘

Here: the order of these steps, redirects, what may cross origins, caps and slots. The parts: `egress_url` (one parser),
`egress_address` (the table), `egress_lookup` (names); `app_egress.py` makes a `Wire` of the HTTP client. Not here:
what is done with the answer (`tools/`, `agents/`), and hosts that the operator named (`http/client.py`).

What holds: nothing is sent, not even a SYN, to an address that is refused; the address that was judged is the one that
is connected to, under the name it was asked for by (SNI, Host); no proxy, cookie or credential of the environment is
used; every wait and every size has a limit. A refusal says the same of a name that does not exist and of one that
leads inside, so that nobody learns what is there. Reasons: docs/decisions/0018-egress.md.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Protocol, Self

import msgspec

from convene.egress_address import Judge
from convene.egress_lookup import LookupBusy
from convene.egress_url import PORTS, BadUrl, Place, follow, read_url
from convene.errors import Failed, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from convene.egress_lookup import Lookup

ADDRESSES_MAX: Final = 8
"""Judged addresses of one name that are tried; all are judged."""
CARRIED: Final = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})
"""Headers that may go to another origin. All others stay: which of them are credentials, only the caller knows."""
OF_THE_BODY: Final = frozenset({"content-type", "content-encoding", "content-language"})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_KEEPS_BODY: Final = frozenset({307, 308})
_HIDDEN: Final = frozenset({"set-cookie", "set-cookie2"})

CLOSED: Final = "The address cannot be reached: it does not exist, or this server's rules do not permit it."
"""Said alike of what is not there and of what is refused."""

Fault = Literal["connect", "timeout", "broken", "too_large"]


class EgressRefused(Failed):
    """A rule forbids it; nothing was sent to the address in question. The message is fit for a model."""


class EgressFailed(Failed):
    """It may be asked for, and did not work. The message is fit for a model."""

    def __init__(self, message: str, fault: Fault, *, detail: str = "") -> None:
        """`fault` says in one word what it was; after `connect` nothing had been sent."""
        super().__init__(message, detail=detail)
        self.fault = fault


class EgressBusy(Retry):
    """Too much is being fetched at this moment."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request to an address of a stranger's. Limits here may only be tighter than the server's."""

    url: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    """Framing and Host are not the caller's. Only `CARRIED` ones are sent on to another origin."""
    body: bytes = b""
    redirects_max: int = 3
    body_bytes_max: int | None = None
    total_s: float | None = None
    silence_s: float | None = None
    """The longest wait for the head, and between two pieces of the body."""


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange, for a `Wire`."""

    place: Place
    addresses: tuple[str, ...]
    """Where to connect, and nowhere else; empty: the operator's proxy looks the name up."""
    method: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connect_s: float
    first_byte_s: float
    total_s: float
    body_bytes_max: int


class WireFault(Exception):
    """An exchange that did not work. The text is for the log."""

    def __init__(self, fault: Fault, detail: str) -> None:
        """Say what it was."""
        super().__init__(detail)
        self.fault: Fault = fault


class Reply(Protocol):
    """An answer whose head has arrived."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names; repeated fields joined by ', '."""

    def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the decoded body. Raises `WireFault`."""
        ...

    def close(self) -> None:
        """Drop the connection. Idempotent, never blocks."""
        ...


class Wire(Protocol):
    """Speaks HTTP to the addresses of a hop."""

    async def send(self, hop: Hop) -> Reply:
        """Send and return once the head is there. Raises `WireFault`."""
        ...


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator has set; see `[egress]` in the settings."""

    judge: Judge = Judge()
    ports: frozenset[int] = frozenset(PORTS.values())
    is_proxied: bool = False
    """A proxy of the operator's is on the way: names are looked up and judged there, literal addresses here as well."""
    redirects_max: int = 3
    body_bytes_max: int = 10_485_760
    connect_s: float = 5.0
    first_byte_s: float = 15.0
    total_s: float = 30.0
    open_max: int = 64
    open_per_host_max: int = 6
    user_agent: str = "Convene"


class Fetched:
    """An answer to read once: `async with await egress.fetch(...) as page`."""

    def __init__(self, reply: Reply, place: Place, body_bytes_max: int, slots: _Taken) -> None:
        """Hold the answer's connection and slots until `close`."""
        self.status = reply.status
        self.url = place.url
        """Where it came from after all redirects."""
        self.headers = {name: value for name, value in reply.headers.items() if name not in _HIDDEN}
        self._reply = reply
        self._body_bytes_max = body_bytes_max
        self._slots = slots

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the decoded body. Raises `EgressFailed`, also when it grows above the cap."""
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._body_bytes_max:
            self._refuse_size()
        size = 0
        try:
            async with aclosing(self._reply.chunks()) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    if size > self._body_bytes_max:
                        self._refuse_size()
                    yield piece
        except WireFault as fault:
            raise _failure(fault) from fault
        finally:
            self.close()

    async def read(self) -> bytes:
        """Return the whole decoded body. Raises `EgressFailed`."""
        return b"".join([chunk async for chunk in self.chunks()])

    def close(self) -> None:
        """Drop the connection and give the slots back. Idempotent, never blocks."""
        self._reply.close()
        self._slots.release()

    def _refuse_size(self) -> NoReturn:
        self.close()
        raise EgressFailed(f"The answer is larger than {self._body_bytes_max} bytes.", "too_large")


class Egress:
    """Fetches from addresses that strangers named, for one event loop."""

    def __init__(self, rules: Rules, lookup: Lookup, wire: Wire) -> None:
        """`lookup` asks for names, `wire` connects; both are handed in."""
        self._rules = rules
        self._lookup = lookup
        self._wire = wire
        self._slots = _Slots(rules.open_max, rules.open_per_host_max)

    async def fetch(self, request: Request) -> Fetched:
        """Send and return once the head of the last answer is there; close it. Raises `ToolFault`s, see above."""
        rules = self._rules
        loop = asyncio.get_running_loop()
        total_s = min(rules.total_s, request.total_s or rules.total_s)
        end_at = loop.time() + total_s
        try:
            async with asyncio.timeout_at(end_at):
                return await self._follow(request, end_at)
        except TimeoutError:
            raise EgressFailed(f"No answer within {total_s:g} s.", "timeout") from None

    async def _follow(self, request: Request, end_at: float) -> Fetched:
        place = _read(request.url)
        headers = self._complete(request.headers)
        method, body = request.method, request.body
        redirects_max = min(self._rules.redirects_max, request.redirects_max)
        for hops_left in range(redirects_max, -1, -1):
            answer = await self._ask(place, request, method, headers, body, end_at)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None or request.redirects_max == 0:
                return answer
            answer.close()
            if not hops_left:
                break
            if method not in ("GET", "HEAD") and answer.status not in _KEEPS_BODY:
                method, body = "GET", b""
                headers = tuple(pair for pair in headers if pair[0].lower() not in OF_THE_BODY)
            place, headers = _cross(place, location, headers, body)
        raise EgressRefused(f"The address redirects more than {redirects_max} times.")

    async def _ask(
        self,
        place: Place,
        request: Request,
        method: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        end_at: float,
    ) -> Fetched:
        rules = self._rules
        body_bytes_max = min(rules.body_bytes_max, request.body_bytes_max or rules.body_bytes_max)
        slots = await self._slots.take(place.host)
        try:
            hop = Hop(
                place=place,
                addresses=await self._admit(place),
                method=method,
                headers=headers,
                body=body,
                connect_s=rules.connect_s,
                first_byte_s=min(rules.first_byte_s, request.silence_s or rules.first_byte_s),
                total_s=max(0.001, end_at - asyncio.get_running_loop().time()),
                body_bytes_max=body_bytes_max,
            )
            reply = await self._wire.send(hop)
        except WireFault as fault:
            slots.release()
            raise _failure(fault) from fault
        except BaseException:
            # Broad and re-raised: a cancel must give the slots back too.
            slots.release()
            raise
        return Fetched(reply, place, body_bytes_max, slots)

    async def _admit(self, place: Place) -> tuple[str, ...]:
        """Return the addresses that may be connected to for `place`. Raises `EgressRefused` before anything is sent."""
        rules = self._rules
        is_usual = place.port in rules.ports
        if rules.is_proxied and not place.is_address:
            if not is_usual:
                raise _refuse_port(rules.ports)
            return ()
        answers = (place.host,) if place.is_address else await self._look_up(place)
        verdicts = {rules.judge.judge(answer) for answer in answers}
        if not verdicts or "refused" in verdicts:
            raise EgressRefused(CLOSED, detail=f"{place.host} leads to an address that is not permitted")
        if not is_usual and verdicts != {"allowed"}:
            raise _refuse_port(rules.ports)
        return () if rules.is_proxied else tuple(answers[:ADDRESSES_MAX])

    async def _look_up(self, place: Place) -> Sequence[str]:
        try:
            async with asyncio.timeout(self._rules.connect_s):
                return await self._lookup(place.host, place.port)
        except LookupBusy:
            raise EgressBusy("Too many addresses are being looked up at this moment; try again later.") from None
        except (OSError, TimeoutError) as error:
            raise EgressRefused(CLOSED, detail=f"{place.host} has no address: {error}") from None

    def _complete(self, headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        given = {name.lower() for name, _ in headers}
        ours = (("user-agent", self._rules.user_agent), ("accept", "*/*"), ("accept-encoding", "gzip, deflate"))
        return (*headers, *(pair for pair in ours if pair[0] not in given))


def _read(url: str) -> Place:
    try:
        return read_url(url)
    except BadUrl as error:
        raise EgressRefused(f"The address is not one that can be read: {error}.") from None


def _cross(
    place: Place, location: str, headers: tuple[tuple[str, str], ...], body: bytes
) -> tuple[Place, tuple[tuple[str, str], ...]]:
    """Return where a redirect leads and the headers that may go there. Raises `EgressRefused`."""
    try:
        target = follow(place, location)
    except BadUrl as error:
        raise EgressRefused(f"The address redirects to one that cannot be read: {error}.") from None
    if target.origin == place.origin:
        return target, headers
    kept = tuple(pair for pair in headers if pair[0].lower() in CARRIED)
    if body:
        raise EgressRefused("The address redirects what was sent to it to another site.")
    if target.scheme == "http" and place.scheme == "https" and len(kept) < len(headers):
        raise EgressRefused("The address redirects a request with credentials from https to http.")
    return target, kept


def _refuse_port(ports: frozenset[int]) -> EgressRefused:
    return EgressRefused(f"Only these ports may be reached: {', '.join(map(str, sorted(ports)))}.")


def _failure(fault: WireFault) -> EgressFailed:
    words = {
        "connect": "The address does not answer: no connection could be made.",
        "timeout": "The address did not answer in time.",
        "too_large": "The answer is too large.",
        "broken": "The answer broke off, or is not valid HTTP.",
    }
    return EgressFailed(words[fault.fault], fault.fault, detail=str(fault))


class _Slots:
    """How much may be open at the same time, in all and to one host; who comes too many waits."""

    def __init__(self, open_max: int, per_host_max: int) -> None:
        self._all = asyncio.Semaphore(open_max)
        self._per_host_max = per_host_max
        self._hosts: dict[str, tuple[asyncio.Semaphore, set[_Taken]]] = {}

    async def take(self, host: str) -> _Taken:
        """Wait for room; the one of the host first, so that a busy host holds nobody else up."""
        room, holders = self._hosts.setdefault(host, (asyncio.Semaphore(self._per_host_max), set()))
        taken = _Taken(self, host)
        holders.add(taken)
        for semaphore in (room, self._all):
            try:
                await semaphore.acquire()
            except BaseException:
                # Broad and re-raised: a cancelled wait gives back what it had.
                taken.release()
                raise
            taken.held.append(semaphore)
        return taken

    def leave(self, host: str, taken: _Taken) -> None:
        """Forget a host that nobody asks any more."""
        _, holders = self._hosts[host]
        holders.discard(taken)
        if not holders:
            del self._hosts[host]


class _Taken:
    """One request's place in `_Slots`."""

    def __init__(self, slots: _Slots, host: str) -> None:
        self.held: list[asyncio.Semaphore] = []
        self._slots: _Slots | None = slots
        self._host = host

    def release(self) -> None:
        """Give it back. Idempotent."""
        if (slots := self._slots) is None:
            return
        self._slots = None
        for semaphore in self.held:
            semaphore.release()
        slots.leave(self._host, self)
